use super::*;
use crate::store::rebalance::{MemberSnapshot, Rebalance, Rules};

fn node(number: u16) -> NodeId {
    NodeId::new(Location::new("10.0.0.1", number).unwrap(), 1)
}

/// A settled snapshot of node 1 in a network of these nodes.
fn routing(members: &[u16]) -> Routing {
    let mut rebalance = Rebalance::new(node(1), Some(3), Rules::default());
    rebalance.update_members(MemberSnapshot {
        me: node(1),
        live: members.iter().map(|number| node(*number)).collect(),
        leaving: [].into(),
    });
    rebalance.bootstrap(3);
    rebalance.routing()
}

fn confirmed_by(numbers: &[u16], at: u64, routing: &Routing) -> Quorum {
    let mut quorum = Quorum::default();
    for number in numbers {
        quorum.record(at, node(*number), routing.current().clone());
    }
    quorum
}

#[test]
fn more_than_half_must_have_confirmed_lately() {
    let five = routing(&[1, 2, 3, 4, 5]);
    let until = |numbers: &[u16]| confirmed_by(numbers, 100, &five).until(200, &five, &[]);
    assert_eq!(until(&[2]), 0);
    assert_eq!(until(&[2, 3]), 100 + LEASE_MS);
    let four = routing(&[1, 2, 3, 4]);
    let half = confirmed_by(&[2], 100, &four).until(200, &four, &[]);
    assert_eq!(half, 0, "of two equal halves neither serves");
    let alone = routing(&[1]);
    assert_eq!(Quorum::default().until(200, &alone, &[]), u64::MAX);
}

#[test]
fn confirmations_that_are_missing_for_a_moment_are_not_lost() {
    let mut quorum = Quorum::default();
    assert!(!quorum.is_lost(5_000, 4_000));
    assert!(!quorum.is_lost(5_900, 4_000));
    assert!(!quorum.is_lost(5_950, 7_900), "a new one has come");
    assert!(!quorum.is_lost(7_900, 7_900));
    assert!(quorum.is_lost(7_900 + PATIENCE_MS, 7_900));
}

#[test]
fn the_older_of_the_confirmations_that_are_needed_counts() {
    let five = routing(&[1, 2, 3, 4, 5]);
    let mut quorum = confirmed_by(&[2], 900, &five);
    quorum.record(400, node(3), five.current().clone());
    quorum.record(100, node(4), five.current().clone());
    assert_eq!(quorum.until(1_000, &five, &[]), 400 + LEASE_MS);
}

#[test]
fn a_member_that_was_confirmed_must_have_stopped_before_another_placement_is() {
    let (five, three) = (routing(&[1, 2, 3, 4, 5]), routing(&[1, 2, 3]));
    let (silent, ended) = ([node(4).location], []);
    let mut quorum = Quorum::default();
    let ids = (five.current().id(), three.current().id());
    assert!(quorum.confirm(1_000, (&node(4), ids.0), &five, &[]));
    let asked = (&node(2), ids.1);
    assert!(!quorum.confirm(1_000 + LEASE_MS - 1, asked, &three, &silent));
    assert_eq!(quorum.until(1_000 + LEASE_MS - 1, &three, &silent), 0);
    assert!(quorum.confirm(1_001, asked, &three, &ended), "it has ended");
    assert!(quorum.confirm(1_000 + LEASE_MS, asked, &three, &silent));
    let other = (&node(4), ids.0);
    assert!(
        !quorum.confirm(9_000, other, &three, &[]),
        "it has another placement"
    );
}

#[test]
fn what_was_confirmed_with_a_member_that_is_silent_now_does_not_count_without_it() {
    let (five, three) = (routing(&[1, 2, 3, 4, 5]), routing(&[1, 2, 3]));
    let silent = [node(4), node(5)].map(|node| node.location);
    let mut quorum = confirmed_by(&[2, 3], 1_000, &five);
    assert_eq!(
        quorum.until(1_100, &three, &[]),
        1_000 + LEASE_MS,
        "they have left"
    );
    assert_eq!(quorum.until(1_100, &three, &silent), 0);
    quorum.record(1_200, node(2), three.current().clone());
    assert_eq!(quorum.until(1_300, &three, &silent), 1_200 + LEASE_MS);
}
