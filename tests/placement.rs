//! Do the copies of a key go to distinct zones, and is nothing else changed by zones?

use std::collections::BTreeSet;

use proptest::prelude::*;
use thrifty_p2p::diststore as wire;
use thrifty_p2p::hash_ring::HashRing;
use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Member, Status, Tags};
use thrifty_p2p::store::placement::{Key, NodeId, Placement, zones};

/// A process with a zone, or with none for 0.
fn node(port: u16, zone: u16) -> NodeId {
    let location = Location::new("10.0.0.1", port).unwrap();
    NodeId {
        zone: (zone > 0).then_some(zone.into()),
        ..NodeId::new(location, 7)
    }
}

/// Some processes, of which some or all or none have zones.
fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
    let zones = prop_oneof![
        Just(0..1u16),
        Just(0..4),
        Just(1..2),
        Just(1..4),
        Just(1..9)
    ];
    let some = zones.prop_flat_map(|zones| prop::collection::vec(zones, 1..12));
    some.prop_map(|zones| {
        (9900..)
            .zip(zones)
            .map(|(port, zone)| node(port, zone))
            .collect()
    })
}

/// How many zones these are in, where a node without a zone is in one of its own.
fn count<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> usize {
    let zone = |node: &NodeId| match &node.zone {
        Some(zone) => zone.to_string(),
        None => format!("none of {}", node.location),
    };
    let zones: BTreeSet<String> = nodes.into_iter().map(zone).collect();
    zones.len()
}

proptest! {
    #[test]
    fn copies_are_in_as_many_zones_as_there_are_and_the_primary_is_the_first_on_the_ring(
        nodes in nodes(), replicas in 1..6usize, name in "[a-z]{1,9}",
    ) {
        let placement = Placement::new(nodes.clone());
        let ring: HashRing<Location> = nodes.iter().map(|node| node.location.clone()).collect();
        let key = Key::new(name.as_bytes());
        let owners: Vec<&NodeId> = placement.owners(key, replicas).collect();
        prop_assert_eq!(owners.len(), replicas.min(nodes.len()));
        prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
        prop_assert_eq!(count(owners.iter().copied()), replicas.min(count(&nodes)));
        prop_assert_eq!(Some(&owners[0].location), ring.owner(name.as_bytes()));
        prop_assert_eq!(placement.primary(key), Some(owners[0]));

        // As it is defined: the first node of each zone on the way around the ring, then the others.
        let met = ring.preference_list(name.as_bytes());
        let met: Vec<&NodeId> = met.map(|at| placement.member_at(at).unwrap()).collect();
        let is_first = |index: &usize| {
            count(met[..*index].iter().copied()) < count(met[..=*index].iter().copied())
        };
        let (first, others): (Vec<usize>, Vec<usize>) = (0..met.len()).partition(is_first);
        let expected = first.into_iter().chain(others).map(|index| met[index]);
        let expected: Vec<&NodeId> = expected.take(replicas).collect();
        prop_assert_eq!(&owners, &expected);

        // Whatever was asked before, and in whatever order the members were given.
        let all: Vec<&NodeId> = placement.owners(key, nodes.len()).collect();
        prop_assert_eq!(&all[..owners.len()], &owners[..]);
        let other = Placement::new(nodes.iter().rev().cloned());
        prop_assert_eq!(other.id(), placement.id());
        let most: Vec<&NodeId> = other.owners(key, nodes.len()).collect();
        prop_assert_eq!(&most, &all);
        prop_assert!(other.owners(key, replicas).eq(placement.owners(key, replicas)));
        for node in &nodes {
            prop_assert_eq!(placement.owns(node, key, replicas), owners.contains(&node));
        }
    }

    #[test]
    fn without_zones_or_with_one_for_each_the_owners_are_the_first_nodes_on_the_ring(
        size in 1..12u16, replicas in 1..6usize, name in "[a-z]{1,9}", shared in 0..2u16,
    ) {
        let ports = 9900..9900 + size;
        let ring: HashRing<Location> = ports.clone().map(|port| node(port, 0).location).collect();
        let expected: Vec<&Location> = ring.preference_list(name.as_bytes()).take(replicas).collect();
        let key = Key::new(name.as_bytes());
        for zone in [|_| 0, |_| 1, |port| port] {
            let placement = Placement::new(ports.clone().map(|port| node(port, zone(port) * shared)));
            let owners = placement.owners(key, replicas).map(|node| &node.location);
            prop_assert_eq!(owners.collect::<Vec<_>>(), expected.clone());
        }
    }
}

#[test]
fn the_id_of_a_placement_covers_the_zones_and_is_the_old_one_without() {
    let id = |nodes: &[NodeId]| Placement::new(nodes.iter().cloned()).id();
    // The first eight bytes of the md5 of `10.0.0.1:9900@7` and of `10.0.0.1:9900@7@00000001`.
    assert_eq!(id(&[node(9900, 0)]), 0x5754_5f86_71a6_7c3e);
    assert_eq!(id(&[node(9900, 1)]), 0x89e6_ef51_98df_8ad9);
    assert_ne!(id(&[node(1, 1), node(2, 2)]), id(&[node(1, 2), node(2, 1)]));
    assert_ne!(node(1, 1), node(1, 2), "another zone is another process");
}

#[test]
fn a_node_without_a_zone_counts_as_one_of_its_own() {
    let zones_of = |all: &[Option<u32>]| zones(all.iter().copied());
    assert_eq!(zones_of(&[]), None);
    assert_eq!(zones_of(&[None, None]), None);
    assert_eq!(zones_of(&[Some(1), None, None, Some(1)]), Some(3));
}

#[test]
fn a_process_has_the_zone_of_its_tags_also_on_the_wire() {
    let member = |tag: &str| Member {
        location: Location::new("10.0.0.1", 9900).unwrap(),
        incarnation: 8,
        status: Status::Alive,
        generation: 7,
        tags: Tags::parse(&[tag.to_owned()]).unwrap(),
    };
    let id = |tag: &str| NodeId::from(&member(tag));
    // The first four bytes of the md5 of `b1`.
    assert_eq!(id("zone=b1").zone, Some(0xedba_b455));
    assert_ne!(id("zone=b2").zone, id("zone=b1").zone);
    assert_eq!(id("rack=b1"), id("zone="));
    for tag in ["zone=b1", "zone=b9", "rack=b1"] {
        let node = id(tag);
        assert_eq!(NodeId::try_from(wire::NodeId::from(&node)), Ok(node));
    }
}
