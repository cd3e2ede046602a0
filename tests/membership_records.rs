//! Records, tables and gossip: merges that do not depend on the order, refutation, and limits.

use std::time::Duration;

use proptest::prelude::*;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator;
use thrifty_p2p::membership::{
    Config, Event, Gossip, Member, MemberTable, Membership, Merge, Now, Status, Tags, config,
    gossip, tags::MAX_TAGS,
};

fn location(port: u16) -> Location {
    Location::new("127.0.0.1", port).unwrap()
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Alive),
        Just(Status::Suspect),
        Just(Status::Down),
        Just(Status::Left)
    ]
}

/// No tags, or those of a zone.
fn tags(zone: usize) -> Tags {
    let tag = format!("zone=b{zone}");
    Tags::parse(&[tag][..zone.min(1)]).unwrap()
}

/// Records of few members with few incarnations, so that many are about the same member.
fn member() -> impl Strategy<Value = Member> {
    let fields = (1..6u16, 5..9i64, status(), 0..5i64, 0..3usize);
    fields.prop_map(|(port, incarnation, status, generation, zone)| Member {
        location: location(port),
        incarnation,
        status,
        generation,
        tags: tags(if generation == 0 { 0 } else { zone }),
    })
}

/// Records of the same member.
fn record() -> impl Strategy<Value = Member> {
    member().prop_map(|member| Member {
        location: location(1),
        ..member
    })
}

fn table<'a>(records: impl IntoIterator<Item = &'a Member>) -> MemberTable {
    let mut table = MemberTable::default();
    for record in records {
        table.merge(record.clone());
    }
    table
}

fn records(table: &MemberTable) -> Vec<Member> {
    table.iter().cloned().collect()
}

fn now(millis: i64) -> Now {
    Now {
        monotonic: Duration::from_millis(millis as u64),
        unix_millis: millis,
    }
}

fn node(millis: i64) -> Membership {
    let (me, config) = (location(1), Config::default());
    Membership::new(me, "test".into(), Vec::new(), config, now(millis), 1)
}

fn gossip_of(members: Vec<Member>) -> Gossip {
    Gossip {
        sender: location(2),
        network: "test".into(),
        digest: 0,
        members,
        full: true,
        learned: false,
        joins: None,
        refused: 0,
    }
}

fn own(node: &Membership) -> Member {
    let mut members = node.members();
    members.find(|m| m.location == *node.me()).cloned().unwrap()
}

proptest! {
    #[test]
    fn a_merge_is_commutative(a in record(), b in record()) {
        prop_assert_eq!(a.clone().merge(b.clone()), b.merge(a));
    }

    #[test]
    fn a_merge_is_associative(a in record(), b in record(), c in record()) {
        let left = a.clone().merge(b.clone()).merge(c.clone());
        prop_assert_eq!(left, a.merge(b.merge(c)));
    }

    #[test]
    fn a_merge_is_idempotent(a in record(), b in record()) {
        let once = a.clone().merge(b.clone());
        prop_assert_eq!(once.clone().merge(b), once.clone());
        prop_assert_eq!(once.clone().merge(a), once);
    }

    #[test]
    fn a_merged_record_is_never_smaller_than_its_parts(a in record(), b in record()) {
        let merged = a.clone().merge(b.clone());
        prop_assert!(!a.supersedes(&merged) && !b.supersedes(&merged));
    }

    #[test]
    fn shuffled_and_repeated_records_give_the_same_table(
        received in prop::collection::vec(member(), 0..40).prop_flat_map(|received| {
            let repeated = prop::collection::vec(0..received.len().max(1), 0..80);
            (Just(received.clone()), Just(received).prop_shuffle(), repeated)
        }),
    ) {
        let (received, mut shuffled, repeated) = received;
        shuffled.extend(repeated.iter().filter_map(|&i| received.get(i).cloned()));
        let (ordered, shuffled) = (table(&received), table(&shuffled));
        prop_assert_eq!(records(&ordered), records(&shuffled));
        prop_assert_eq!(ordered.digest(), shuffled.digest());
    }

    #[test]
    fn a_push_pull_makes_two_tables_equal(
        received in prop::collection::vec((member(), any::<bool>(), any::<bool>()), 0..40),
    ) {
        let mut first = table(received.iter().filter(|r| r.1).map(|r| &r.0));
        let mut second = table(received.iter().filter(|r| r.2).map(|r| &r.0));
        let union = table(received.iter().filter(|r| r.1 || r.2).map(|r| &r.0));
        let (pushed, pulled) = (records(&first), records(&second));
        pushed.into_iter().for_each(|record| drop(second.merge(record)));
        pulled.into_iter().for_each(|record| drop(first.merge(record)));
        prop_assert_eq!(records(&first), records(&union));
        prop_assert_eq!(records(&second), records(&union));
    }

    #[test]
    fn the_digest_is_the_sum_of_the_live_records_digests(
        changes in prop::collection::vec((member(), any::<bool>()), 0..60),
    ) {
        let mut table = MemberTable::default();
        for (record, forget) in changes {
            if forget {
                table.forget(&record.location);
            } else {
                table.merge(record);
            }
            let live: Vec<&Member> = table.iter().filter(|m| m.status.is_live()).collect();
            let sum = live.iter().fold(0u64, |sum, m| sum.wrapping_add(m.digest()));
            prop_assert_eq!(table.digest(), sum);
            prop_assert_eq!(table.live(), live.len());
            let down = table.iter().filter(|m| m.status == Status::Down).count();
            prop_assert_eq!(table.down(), down);
        }
    }

    #[test]
    fn a_table_applies_a_record_only_if_it_supersedes_the_known_one(a in record(), b in record()) {
        let mut table = table([&a]);
        let merged = table.merge(b.clone());
        let expected = if a == b {
            Merge::Unchanged
        } else if b.supersedes(&a) {
            Merge::Applied(Some(a))
        } else {
            Merge::Stale
        };
        prop_assert_eq!(merged, expected);
    }

    #[test]
    fn a_member_refutes_every_record_of_it_that_is_larger_than_its_own(
        received in prop::collection::vec((-50..50i64, status(), 0..1050i64, 0..3usize), 1..20),
    ) {
        let mut node = node(1_000);
        for (offset, status, generation, zone) in received {
            let incarnation = 1_000 + offset;
            let received = Member {
                location: location(1),
                incarnation,
                status,
                generation: generation.min(incarnation),
                tags: tags(zone),
            };
            let before = own(&node);
            let reply = node.on_exchange(now(1_000), gossip_of(vec![received.clone()]));
            let after = own(&node);
            prop_assert_eq!(after.status, Status::Alive);
            // A new generation after it was declared down, however long ago; none after a mere
            // suspicion.
            let was_removed = received.generation == before.generation
                && match received.status {
                    Status::Down => true,
                    Status::Left => received.supersedes(&before),
                    Status::Alive | Status::Suspect => false,
                };
            let generation = if was_removed { after.incarnation } else { before.generation };
            prop_assert_eq!(after.generation, generation);
            prop_assert!(after == received || after.supersedes(&received));
            prop_assert!(reply.members.contains(&after) || after == received);
        }
    }

    #[test]
    fn a_record_read_from_the_wire_equals_the_written_one(member in member()) {
        let wire = locator::Member::from(&member);
        prop_assert_eq!(Member::from_wire(&wire), Some(member));
    }
}

#[test]
fn the_digest_of_a_record_never_changes_between_versions() {
    let member = Member {
        location: location(9900),
        incarnation: 1_700_000_000_000,
        status: Status::Alive,
        generation: 1_700_000_000_000,
        tags: Tags::default(),
    };
    // Computed by another program from the definition in the documentation.
    assert_eq!(member.digest(), 0x90b5_9595_0bc3_9849);
    assert_ne!(
        member.with_status(Status::Suspect).digest(),
        member.digest()
    );
    let mut tagged = member.clone();
    tagged.tags = tags(1);
    assert_eq!(tagged.digest(), 0x340e_c614_289b_8706);
}

#[test]
fn malformed_wire_records_are_left_out_and_counted() {
    let good = locator::Member::from(&own(&node(1_000)));
    let tagged = |name: &str, value: &str| locator::Member {
        tags: Some([(name.to_owned(), value.to_owned())].into()),
        ..good.clone()
    };
    let bad = [
        locator::Member {
            location: None,
            ..good.clone()
        },
        locator::Member {
            status: None,
            ..good.clone()
        },
        locator::Member {
            status: Some(locator::Status(4)),
            ..good.clone()
        },
        locator::Member {
            incarnation: Some(-1),
            ..good.clone()
        },
        locator::Member {
            incarnation: None,
            ..good.clone()
        },
        locator::Member {
            generation: Some(-1),
            ..good.clone()
        },
        locator::Member {
            generation: Some(i64::MAX),
            ..good.clone()
        },
        tagged("a", &"x".repeat(MAX_TAGS)),
        tagged("", "b1"),
        tagged("zone", "b1\n"),
        locator::Member {
            generation: Some(0),
            ..tagged("zone", "b1")
        },
    ];
    let mut wire = locator::Gossip::from(&gossip_of(Vec::new()));
    wire.members = Some(bad.iter().cloned().chain([good]).collect());
    let gossip = Gossip::try_from(wire).unwrap();
    assert_eq!((gossip.refused, gossip.members.len()), (bad.len(), 1));
}

#[test]
fn malformed_wire_gossip_is_rejected_as_a_whole() {
    let good = locator::Gossip::from(&gossip_of(vec![own(&node(1_000))]));
    assert!(Gossip::try_from(good.clone()).is_ok());
    let record = locator::Member::from(&own(&node(1_000)));
    let too_many = vec![record; gossip::MAX_RECORDS + 1];
    for bad in [
        locator::Gossip {
            sender: None,
            ..good.clone()
        },
        locator::Gossip {
            network: None,
            ..good.clone()
        },
        locator::Gossip {
            network: Some("n".repeat(256)),
            ..good.clone()
        },
        locator::Gossip {
            members: Some(too_many),
            ..good.clone()
        },
    ] {
        assert!(Gossip::try_from(bad).is_err());
    }
}

#[test]
fn gossip_of_another_network_is_not_merged_and_gets_a_reply_without_records() {
    let mut node = node(1_000);
    let foreign = Member {
        location: location(7),
        ..own(&node)
    };
    for _ in 0..3 {
        let request = Gossip {
            network: "other".into(),
            ..gossip_of(vec![foreign.clone()])
        };
        let reply = node.on_exchange(now(1_000), request);
        assert_eq!((&*reply.network, reply.members), ("test", Vec::new()));
    }
    assert_eq!(node.members().count(), 1);
    let events = node.events().into_iter();
    let reports = events.filter(|event| matches!(event, Event::ForeignNetwork(..)));
    assert_eq!(reports.count(), 1, "one report a minute");
}

#[test]
fn records_with_incarnations_far_in_the_future_are_rejected() {
    let mut node = node(1_000);
    let day = 24 * 3_600_000;
    let at = |port, incarnation| Member {
        location: location(port),
        incarnation,
        ..own(&self::node(1_000))
    };
    let received = vec![
        at(3, 1_000 + day),
        at(4, 1_001 + day),
        at(5, i64::MAX),
        at(1, i64::MAX),
    ];
    node.on_exchange(now(1_000), gossip_of(received));
    assert_eq!(node.status_of(&location(3)), Some(Status::Alive));
    assert_eq!(node.status_of(&location(4)), None);
    assert_eq!(node.status_of(&location(5)), None);
    assert_eq!(
        own(&node).incarnation,
        1_000,
        "an incarnation that could not be exceeded is not refuted"
    );
}

#[test]
fn the_table_keeps_its_limits_under_any_gossip() {
    let config = Config {
        max_live: 50,
        max_tombstones: 20,
        ..Config::default()
    };
    let me = location(1);
    let mut node = Membership::new(me, "test".into(), Vec::new(), config, now(1_000), 1);
    for status in [
        Status::Down,
        Status::Left,
        Status::Alive,
        Status::Suspect,
        Status::Down,
    ] {
        let received = (2..=1_000).map(|port| Member {
            location: location(port),
            status,
            ..own(&node)
        });
        let received: Vec<Member> = received.collect();
        node.on_exchange(now(1_000), gossip_of(received));
        let live = node.members().filter(|m| m.status.is_live()).count();
        assert!(live <= 50, "{live} live members");
        assert!(node.members().count() - live <= 20);
    }
}

#[test]
fn a_node_continues_to_call_if_the_driver_never_reports_an_outcome() {
    let mut node = node(1_000);
    let received = (2..=40).map(|port| Member {
        location: location(port),
        ..own(&node)
    });
    let received = received.collect();
    node.on_exchange(now(1_000), gossip_of(received));
    let mut calls = 0;
    let mut time = 1_000;
    while time < 61_000 {
        time = time.max(node.wake_at().as_millis() as i64 + 1);
        calls += node.tick(now(time)).len();
    }
    // Each call is dropped after 10 s, and another one may be made.
    let max = config::MAX_CALLS;
    assert!(calls > 4 * max, "{calls} calls in a minute are too few");
    assert!(calls <= 7 * max, "{calls} calls in a minute are too many");
}
