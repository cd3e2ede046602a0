//! `Topology`: the members of a network as a client knows them, and the target of each call.
//!
//! Pure: what is known comes in as arguments, targets and batches come out. [`Router`] makes
//! the calls.
//!
//! [`Router`]: super::router::Router

use crate::diststore as wire;
use crate::location::Location;
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::wire::MAX_LISTED_NODES;

/// The most bytes of keys and values in one message, unless one pair is larger.
pub const MAX_BATCH_SIZE: usize = 1024 * 1024;

/// The most keys in one message.
const MAX_BATCH_KEYS: usize = 4096;

/// The members of a network and the placement of keys on them. Immutable.
pub struct Topology {
    /// The placement that writes use.
    placement: Placement,
    /// The placement that reads use, if it is another one: during a rebalance.
    read_placement: Option<Placement>,
    /// All nodes that can be called, sorted; at least one. While no members are known, those
    /// of the topology before.
    nodes: Vec<Location>,
    /// Legacy nodes are on the ring, or nothing is known yet: let a node route every call.
    is_routed_by_nodes: bool,
}

/// What a call does with its keys.
#[derive(Clone, Copy)]
pub enum Access {
    Read,
    Write,
}

/// The node that is called for a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The process that is the primary of the key.
    Primary(&'a NodeId),
    /// Any node: it forwards the call.
    Proxy(&'a Location),
}

impl<'a> Target<'a> {
    /// Where the node is reached.
    pub fn location(self) -> &'a Location {
        match self {
            Target::Primary(node) => &node.location,
            Target::Proxy(location) => location,
        }
    }
}

/// The keys of one message, by their indexes among the keys of the call.
pub struct KeyBatch<'a> {
    pub target: Target<'a>,
    pub indexes: Vec<usize>,
    size: usize,
}

impl KeyBatch<'_> {
    fn has_room(&self, size: usize) -> bool {
        self.indexes.len() < MAX_BATCH_KEYS && self.size + size <= MAX_BATCH_SIZE
    }
}

impl Topology {
    /// Only one node is known. It routes every call.
    pub fn unknown(node: Location) -> Topology {
        Topology {
            placement: Placement::new([]),
            read_placement: None,
            nodes: vec![node],
            is_routed_by_nodes: true,
        }
    }

    /// The topology that a node replied. `before` is the one that it replaces.
    pub fn from_wire(reply: wire::Topology, before: &Topology) -> Topology {
        let members = node_ids(reply.members);
        let readers = node_ids(reply.read_members);
        let mut nodes: Vec<Location> = members.iter().map(|node| node.location.clone()).collect();
        nodes.sort();
        if nodes.is_empty() {
            nodes.clone_from(&before.nodes);
        }
        Topology {
            placement: Placement::new(members),
            read_placement: (!readers.is_empty()).then(|| Placement::new(readers)),
            nodes,
            is_routed_by_nodes: reply.has_legacy.unwrap_or(false),
        }
    }

    /// The placement that writes use.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The placement that reads use, if it is another one.
    pub fn read_placement(&self) -> Option<&Placement> {
        self.read_placement.as_ref()
    }

    /// All nodes that can be called, sorted; at least one.
    pub fn nodes(&self) -> &[Location] {
        &self.nodes
    }

    /// The target of a call for `key`: its primary, or another node if the primary has failed
    /// or is unknown. If all nodes have failed, the first one.
    pub fn target(&self, key: Key<'_>, access: Access, failed: &[Location]) -> Target<'_> {
        let is_callable = |location: &Location| !failed.contains(location);
        let primary = self.primary(key, access);
        if let Some(primary) = primary.filter(|node| is_callable(&node.location)) {
            return Target::Primary(primary);
        }
        let mut nodes = self.nodes.iter();
        let proxy = nodes.find(|location| is_callable(location));
        Target::Proxy(proxy.unwrap_or(&self.nodes[0]))
    }

    /// Groups the keys at `indexes` into messages by their targets. `size` returns the bytes
    /// that the key at an index adds to a message.
    pub fn batches(
        &self,
        keys: &[Key<'_>],
        indexes: impl Iterator<Item = usize>,
        access: Access,
        size: impl Fn(usize) -> usize,
        failed: &[Location],
    ) -> Vec<KeyBatch<'_>> {
        let mut batches: Vec<KeyBatch<'_>> = Vec::new();
        for index in indexes {
            let target = self.target(keys[index], access, failed);
            let size = size(index);
            let mut latest_first = batches.iter_mut().rev();
            match latest_first.find(|batch| batch.target == target && batch.has_room(size)) {
                Some(batch) => {
                    batch.indexes.push(index);
                    batch.size += size;
                }
                None => batches.push(KeyBatch {
                    target,
                    indexes: vec![index],
                    size,
                }),
            }
        }
        batches
    }

    /// The primary of `key`, unless nodes route the calls.
    ///
    /// A key is read at its primary in the read placement. If that process is not a member of
    /// the current placement it is gone, and the current primary is read instead.
    fn primary(&self, key: Key<'_>, access: Access) -> Option<&NodeId> {
        if self.is_routed_by_nodes {
            return None;
        }
        let reader = match (access, &self.read_placement) {
            (Access::Read, Some(placement)) => placement.primary(key),
            _ => None,
        };
        reader
            .filter(|node| self.placement.contains(node))
            .or_else(|| self.placement.primary(key))
    }
}

/// Decodes a list of processes. Leaves out what is malformed, or beyond the maximum.
fn node_ids(nodes: Option<Vec<wire::NodeId>>) -> Vec<NodeId> {
    let nodes = nodes.unwrap_or_default().into_iter();
    let nodes = nodes.take(MAX_LISTED_NODES);
    nodes.filter_map(|node| node.try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locator;

    fn location(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    fn wire_nodes(nodes: &[(u16, i64)]) -> Vec<wire::NodeId> {
        let node = |(port, generation): &(u16, i64)| {
            let location = locator::Location::from(&location(*port));
            wire::NodeId::new(location, *generation, None)
        };
        nodes.iter().map(node).collect()
    }

    fn topology(members: &[(u16, i64)], readers: &[(u16, i64)], has_legacy: bool) -> Topology {
        let reply = wire::Topology::new(wire_nodes(members), has_legacy, wire_nodes(readers));
        Topology::from_wire(reply, &Topology::unknown(location(1)))
    }

    const KEY: &[u8] = b"key";

    fn target<'a>(topology: &'a Topology, access: Access, failed: &[Location]) -> Target<'a> {
        topology.target(Key::new(KEY), access, failed)
    }

    #[test]
    fn a_key_goes_to_its_primary_and_to_another_node_while_that_has_failed() {
        let topology = topology(&[(1, 10), (2, 20)], &[], false);
        let primary = topology.placement().primary(Key::new(KEY)).unwrap();
        let is_primary = |target: Target<'_>| target == Target::Primary(primary);
        assert!(is_primary(target(&topology, Access::Write, &[])));
        let failed = [primary.location.clone()];
        let proxy = target(&topology, Access::Write, &failed);
        assert!(matches!(proxy, Target::Proxy(other) if *other != primary.location));
        let all = [location(1), location(2)];
        assert!(target(&topology, Access::Read, &all) == Target::Proxy(&location(1)));
    }

    #[test]
    fn nodes_route_every_call_while_there_are_legacy_nodes_or_no_members() {
        let mixed = topology(&[(1, 10)], &[], true);
        assert!(target(&mixed, Access::Read, &[]) == Target::Proxy(&location(1)));
        let empty = topology(&[], &[], false);
        assert!(target(&empty, Access::Read, &[]) == Target::Proxy(&location(1)));
    }

    #[test]
    fn reads_use_the_read_placement_unless_its_process_is_gone() {
        let rebalancing = topology(&[(1, 10), (2, 20)], &[(2, 20)], false);
        let second = target(&rebalancing, Access::Read, &[]);
        assert!(matches!(second, Target::Primary(node) if node.generation == 20));
        let restarted = topology(&[(1, 10), (2, 21)], &[(2, 20)], false);
        let current = restarted.placement().primary(Key::new(KEY)).unwrap();
        assert!(target(&restarted, Access::Read, &[]) == Target::Primary(current));
    }

    #[test]
    fn a_batch_has_one_target_and_is_not_larger_than_a_message() {
        let topology = topology(&[(1, 10), (2, 20)], &[], false);
        let names: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
        let keys: Vec<Key<'_>> = names.iter().map(|name| Key::new(name.as_bytes())).collect();
        let size = |index: usize| if index == 7 { 2 * MAX_BATCH_SIZE } else { 100 };
        let batches = topology.batches(&keys, 0..keys.len(), Access::Write, size, &[]);
        let mut all: Vec<usize> = Vec::new();
        for batch in &batches {
            let sizes: usize = batch.indexes.iter().map(|index| size(*index)).sum();
            assert!(batch.indexes.len() <= MAX_BATCH_KEYS);
            assert!(sizes <= MAX_BATCH_SIZE || batch.indexes == [7]);
            let target = |index: &usize| topology.target(keys[*index], Access::Write, &[]);
            assert!(
                batch
                    .indexes
                    .iter()
                    .all(|index| target(index) == batch.target)
            );
            all.extend(&batch.indexes);
        }
        all.sort_unstable();
        assert!(
            all.into_iter().eq(0..keys.len()),
            "each key is in one batch"
        );
    }
}
