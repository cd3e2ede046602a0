//! Records and tables: whatever the order, the same is believed in the end.

use std::time::Duration;

use proptest::prelude::*;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator;
use thrifty_p2p::membership::{
    Event, Gossip, Member, MemberTable, Membership, Merge, Now, Config, Status, gossip,
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

/// Records of few members with few incarnations, so that they meet.
fn member() -> impl Strategy<Value = Member> {
    (1..6u16, 5..9i64, status(), 0..5i64).prop_map(|(port, incarnation, status, generation)| Member {
        location: location(port),
        incarnation,
        status,
        generation,
    })
}

/// Records of one member.
fn saying() -> impl Strategy<Value = Member> {
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
        refused: 0,
    }
}

fn own(node: &Membership) -> Member {
    let mut members = node.members();
    members.find(|m| m.location == *node.me()).cloned().unwrap()
}

proptest! {
    #[test]
    fn merging_is_commutative(a in saying(), b in saying()) {
        prop_assert_eq!(a.clone().merge(b.clone()), b.merge(a));
    }

    #[test]
    fn merging_is_associative(a in saying(), b in saying(), c in saying()) {
        let left = a.clone().merge(b.clone()).merge(c.clone());
        prop_assert_eq!(left, a.merge(b.merge(c)));
    }

    #[test]
    fn merging_is_idempotent(a in saying(), b in saying()) {
        let once = a.clone().merge(b.clone());
        prop_assert_eq!(once.clone().merge(b), once.clone());
        prop_assert_eq!(once.clone().merge(a), once);
    }

    #[test]
    fn merging_never_goes_back(a in saying(), b in saying()) {
        let merged = a.clone().merge(b.clone());
        prop_assert!(!a.supersedes(&merged) && !b.supersedes(&merged));
    }

    #[test]
    fn shuffled_and_repeated_records_end_in_the_same_table(
        said in prop::collection::vec(member(), 0..40).prop_flat_map(|said| {
            let order = prop::collection::vec(0..said.len().max(1), 0..80);
            (Just(said.clone()), Just(said).prop_shuffle(), order)
        }),
    ) {
        let (said, mut shuffled, repeated) = said;
        let again: Vec<Member> = repeated.iter().filter_map(|&i| said.get(i).cloned()).collect();
        shuffled.extend(again);
        let (plain, mixed) = (table(&said), table(&shuffled));
        prop_assert_eq!(records(&plain), records(&mixed));
        prop_assert_eq!(plain.digest(), mixed.digest());
    }

    #[test]
    fn lost_records_are_made_up_for_by_telling_one_another_everything(
        said in prop::collection::vec((member(), any::<bool>(), any::<bool>()), 0..40),
    ) {
        let mut here = table(said.iter().filter(|s| s.1).map(|s| &s.0));
        let mut there = table(said.iter().filter(|s| s.2).map(|s| &s.0));
        let both = table(said.iter().filter(|s| s.1 || s.2).map(|s| &s.0));
        let (from_here, from_there) = (records(&here), records(&there));
        from_there.into_iter().for_each(|record| drop(here.merge(record)));
        from_here.into_iter().for_each(|record| drop(there.merge(record)));
        prop_assert_eq!(records(&here), records(&both));
        prop_assert_eq!(records(&there), records(&both));
    }

    #[test]
    fn the_view_is_the_sum_of_the_live_records(
        said in prop::collection::vec((member(), any::<bool>()), 0..60),
    ) {
        let mut table = MemberTable::default();
        for (record, forget) in said {
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
    fn a_table_takes_what_beats_it_and_nothing_else(a in saying(), b in saying()) {
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
    fn the_owner_beats_any_accusation(
        accusations in prop::collection::vec((-50..50i64, status(), 0..1050i64), 1..20),
    ) {
        let mut node = node(1_000);
        for (ahead, status, generation) in accusations {
            let incarnation = 1_000 + ahead;
            let accusation = Member {
                location: location(1),
                incarnation,
                status,
                generation: generation.min(incarnation),
            };
            let before = own(&node);
            let reply = node.receive(now(1_000), gossip_of(vec![accusation.clone()]));
            let mine = own(&node);
            prop_assert_eq!(mine.status, Status::Alive);
            // One that was given up, however long ago, begins anew; one that was only
            // suspected does not.
            let given_up = accusation.generation == before.generation
                && match accusation.status {
                    Status::Down => true,
                    Status::Left => accusation.supersedes(&before),
                    Status::Alive | Status::Suspect => false,
                };
            let generation = if given_up { mine.incarnation } else { before.generation };
            prop_assert_eq!(mine.generation, generation);
            prop_assert!(mine == accusation || mine.supersedes(&accusation));
            prop_assert!(reply.members.contains(&mine) || mine == accusation);
        }
    }

    #[test]
    fn a_record_reads_back_from_the_wire_as_written(member in member()) {
        let wire = locator::Member::from(&member);
        prop_assert_eq!(Member::try_from(&wire), Ok(member));
    }
}

#[test]
fn the_digest_is_the_same_for_ever() {
    let member = Member {
        location: location(9900),
        incarnation: 1_700_000_000_000,
        status: Status::Alive,
        generation: 1_700_000_000_000,
    };
    // Reckoned by another program, from the definition in the documentation.
    assert_eq!(member.digest(), 0x90b5_9595_0bc3_9849);
    assert_ne!(
        member.with_status(Status::Suspect).digest(),
        member.digest()
    );
}

#[test]
fn wire_records_that_say_nothing_believable_are_left_out_and_counted() {
    let good = locator::Member::from(&own(&node(1_000)));
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
    ];
    let mut wire = locator::Gossip::from(&gossip_of(Vec::new()));
    wire.members = Some(bad.iter().cloned().chain([good]).collect());
    let gossip = Gossip::try_from(wire).unwrap();
    assert_eq!((gossip.refused, gossip.members.len()), (bad.len(), 1));
}

#[test]
fn wire_gossip_that_cannot_be_answered_is_refused_whole() {
    let good = locator::Gossip::from(&gossip_of(vec![own(&node(1_000))]));
    assert!(Gossip::try_from(good.clone()).is_ok());
    let many = vec![good.members.clone().unwrap()[0].clone(); gossip::MAX_RECORDS + 1];
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
            members: Some(many),
            ..good.clone()
        },
    ] {
        assert!(Gossip::try_from(bad).is_err());
    }
}

#[test]
fn another_network_is_answered_with_our_name_and_nothing_is_merged() {
    let mut node = node(1_000);
    let stranger = Member {
        location: location(7),
        ..own(&node)
    };
    for _ in 0..3 {
        let foreign = Gossip {
            network: "other".into(),
            ..gossip_of(vec![stranger.clone()])
        };
        let reply = node.receive(now(1_000), foreign);
        assert_eq!((&*reply.network, reply.members), ("test", Vec::new()));
    }
    assert_eq!(node.members().count(), 1);
    let told = node.events().into_iter();
    let told = told.filter(|event| matches!(event, Event::ForeignNetwork(..)));
    assert_eq!(told.count(), 1, "it is said once a minute");
}

#[test]
fn records_from_far_in_the_future_are_not_believed() {
    let mut node = node(1_000);
    let day = 24 * 3_600_000;
    let at = |port, incarnation| Member {
        location: location(port),
        incarnation,
        ..own(&self::node(1_000))
    };
    let said = vec![
        at(3, 1_000 + day),
        at(4, 1_001 + day),
        at(5, i64::MAX),
        at(1, i64::MAX),
    ];
    node.receive(now(1_000), gossip_of(said));
    assert_eq!(node.status_of(&location(3)), Some(Status::Alive));
    assert_eq!(node.status_of(&location(4)), None);
    assert_eq!(node.status_of(&location(5)), None);
    assert_eq!(
        own(&node).incarnation,
        1_000,
        "a lie that cannot be outdone is none"
    );
}

#[test]
fn the_table_is_bounded_whatever_is_said() {
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
        let said = (2..=1_000).map(|port| Member {
            location: location(port),
            status,
            ..own(&node)
        });
        let said: Vec<Member> = said.collect();
        node.receive(now(1_000), gossip_of(said));
        let live = node.members().filter(|m| m.status.is_live()).count();
        assert!(live <= 50, "{live} live members");
        assert!(node.members().count() - live <= 20);
    }
}

#[test]
fn a_driver_that_never_answers_does_not_stop_the_node() {
    let mut node = node(1_000);
    let said = (2..=40).map(|port| Member {
        location: location(port),
        ..own(&node)
    });
    let said = said.collect();
    node.receive(now(1_000), gossip_of(said));
    let mut calls = 0;
    let mut time = 1_000;
    while time < 61_000 {
        time = time.max(node.wake_at().as_millis() as i64 + 1);
        calls += node.tick(now(time)).len();
    }
    let most = Config::default().max_calls;
    assert!(calls > 4 * most, "{calls} calls in a minute: it gave up");
    assert!(
        calls <= 7 * most,
        "{calls} calls in a minute: more than it may have open"
    );
}
