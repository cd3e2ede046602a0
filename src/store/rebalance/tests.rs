//! Cases that rarely happen by chance: late statuses, networks that meet, lists that start
//! among others.

use std::collections::BTreeSet;

use super::{MemberSnapshot, Phase, Rebalance, Rules};
use crate::location::Location;
use crate::store::placement::{Key, NodeId};
use crate::store::quorum::Quorum;

fn node(port: u16, generation: i64) -> NodeId {
    NodeId::new(Location::new("127.0.0.1", port).unwrap(), generation)
}

fn rebalance(me: &NodeId) -> Rebalance {
    let mut rebalance = Rebalance::new(me.clone(), Some(2), Rules::default());
    rebalance.mark_joined();
    rebalance
}

fn bootstrap(rebalance: &mut Rebalance) {
    rebalance.bootstrap(2);
    rebalance.on_published();
}

fn update(rebalance: &mut Rebalance, me: &NodeId, live: &[&NodeId]) {
    rebalance.update_members(MemberSnapshot {
        me: me.clone(),
        live: live.iter().copied().cloned().collect(),
        leaving: BTreeSet::new(),
    });
    rebalance.on_published();
}

/// One that has bootstrapped, and one that has joined it.
fn two_settled(one: &NodeId, other: &NodeId) -> (Rebalance, Rebalance) {
    let (mut first, mut second) = (rebalance(one), rebalance(other));
    bootstrap(&mut first);
    update(&mut first, one, &[one, other]);
    update(&mut second, other, &[one, other]);
    settle(&mut first, &mut second);
    (first, second)
}

/// Each asks the other for its status and copies nothing, until all is settled.
fn settle(one: &mut Rebalance, other: &mut Rebalance) {
    for _ in 0..5 {
        ask(one, other);
        ask(other, one);
    }
    assert!(one.is_settled() && other.is_settled());
    assert!(one.is_serving() && other.is_serving());
}

fn ask(asker: &mut Rebalance, asked: &Rebalance) {
    let (asked_at, status) = (asker.isolations(), asked.status_for(&asker.me));
    asker.on_status(Some(asked_at), status, asked.history());
    asker.on_published();
    copy_nothing(asker);
}

/// All sources have nothing to send.
fn copy_nothing(rebalance: &mut Rebalance) {
    for (source, _) in rebalance.pulls() {
        rebalance.pulled(rebalance.attempt_id(), &source, None);
    }
}

#[test]
fn a_status_for_a_process_that_was_declared_down_does_not_admit_its_successor() {
    let (one, other, again) = (node(1, 1), node(2, 1), node(2, 2));
    let (mut stays, mut hangs) = two_settled(&one, &other);

    let (asked_at, late) = (hangs.isolations(), stays.status_for(&other));
    let history = stays.history();
    update(&mut stays, &one, &[&one]);
    assert!(stays.is_settled(), "it goes on without the other");
    update(&mut hangs, &again, &[&one, &again]);
    hangs.on_status(Some(asked_at), late.clone(), history);
    hangs.on_status(None, late, None);
    assert!(!hangs.is_serving(), "it lacks what was written meanwhile");

    update(&mut stays, &one, &[&one, &again]);
    settle(&mut stays, &mut hangs);
}

#[test]
fn of_two_statuses_the_later_one_counts() {
    let (one, other, guest) = (node(1, 1), node(2, 1), node(3, 1));
    let (mut mine, mut theirs) = two_settled(&one, &other);

    // The placement is the same again after a guest has come and gone.
    let late = theirs.status_for(&one);
    for live in [&[&one, &other, &guest][..], &[&one, &other]] {
        update(&mut mine, &one, live);
        update(&mut theirs, &other, live);
        ask(&mut mine, &theirs);
    }
    assert_eq!(late.placement_id, mine.current().id());
    mine.on_status(None, late, None);
    assert_eq!(mine.phase(), Phase::Synced, "the other one still copies");
    settle(&mut mine, &mut theirs);
}

#[test]
fn a_node_that_joins_two_networks_that_meet_keeps_the_list_of_one() {
    let [one, other, new] = [1, 2, 3].map(|port| node(port, 1));
    let [mut first, mut second, mut joins] = [&one, &other, &new].map(rebalance);
    bootstrap(&mut first);
    bootstrap(&mut second);
    for (rebalance, me) in [
        (&mut first, &one),
        (&mut second, &other),
        (&mut joins, &new),
    ] {
        update(rebalance, me, &[&one, &other, &new]);
    }
    let mut attempts = BTreeSet::new();
    for asked in [&first, &second, &first, &second] {
        let status = asked.status_for(&new);
        joins.on_status(Some(joins.isolations()), status, asked.history());
        joins.on_published();
        attempts.insert(joins.attempt_id());
    }
    assert_eq!(
        attempts.len(),
        1,
        "it starts to copy again with each status"
    );

    copy_nothing(&mut joins);
    assert_eq!(joins.phase(), Phase::Synced);
    for _ in 0..4 {
        ask(&mut first, &joins);
        ask(&mut first, &second);
        ask(&mut second, &joins);
        ask(&mut second, &first);
        ask(&mut joins, &first);
        ask(&mut joins, &second);
    }
    for rebalance in [first, second, joins] {
        assert!(
            rebalance.is_settled() && rebalance.is_serving(),
            "{rebalance:?}"
        );
    }
}

#[test]
fn a_node_that_starts_a_list_among_others_answers_nothing_before_it_has_copied_all() {
    let [one, other, new] = [1, 2, 3].map(|port| node(port, 1));
    let [mut starts, mut holder] = [&one, &other].map(rebalance);
    bootstrap(&mut holder);
    // The node that holds everything is declared down and returns: no member is admitted.
    let again = node(2, 2);
    update(&mut holder, &again, &[&one, &again]);
    update(&mut starts, &one, &[&one, &again]);
    let status = holder.status_for(&one);
    starts.on_status(Some(starts.isolations()), status, None);
    let started = starts.current().id();
    let read = starts.read_placement().map(|read| read.id());
    assert_eq!(read, Some(started));
    let status = starts.status_for(&again);
    holder.on_status(Some(holder.isolations()), status, starts.history());

    for (rebalance, me) in [(&mut starts, &one), (&mut holder, &again)] {
        assert!(!rebalance.routing().may_read_at(started));
        update(rebalance, me, &[&one, &again, &new]);
        assert!(
            !rebalance.routing().may_read_at(started),
            "one placement later nothing was copied yet"
        );
    }
}

/// Another member tells of itself before this node knows the one that has a list.
#[test]
fn a_node_that_has_not_joined_yet_starts_no_list() {
    let (one, other) = (node(1, 1), node(2, 1));
    let mut joins = Rebalance::new(one.clone(), Some(2), Rules::default());
    let mut beside = rebalance(&other);
    update(&mut joins, &one, &[&one, &other]);
    update(&mut beside, &other, &[&one, &other]);
    ask(&mut joins, &beside);
    assert!(!joins.is_serving());
    joins.mark_joined();
    assert!(joins.is_serving(), "no member has a list");
}

#[test]
fn a_list_is_adopted_only_from_a_node_that_has_this_one_in_its_placement() {
    let (one, new) = (node(1, 1), node(2, 1));
    let (mut first, mut joins) = (rebalance(&one), rebalance(&new));
    bootstrap(&mut first);
    update(&mut joins, &new, &[&one, &new]);
    let status = first.status_for(&new);
    joins.on_status(Some(joins.isolations()), status, first.history());
    assert!(
        joins.read_placement().is_none(),
        "it may be forgotten meanwhile"
    );
    update(&mut first, &one, &[&one, &new]);
    settle(&mut first, &mut joins);
}

#[test]
fn a_node_that_reads_by_an_unknown_placement_admits_no_other() {
    let (one, new) = (node(1, 1), node(2, 1));
    let (mut first, mut joins) = (rebalance(&one), rebalance(&new));
    bootstrap(&mut first);
    for (rebalance, me) in [(&mut first, &one), (&mut joins, &new)] {
        update(rebalance, me, &[&one, &new]);
    }
    let mut status = first.status_for(&new);
    status.placement_ids.push(77);
    status.read_placement_id = Some(77);
    joins.on_status(Some(joins.isolations()), status, first.history());
    assert!(
        !joins.is_serving(),
        "writes here would not go where that node reads"
    );
    ask(&mut joins, &first);
    assert!(joins.is_serving());
}

#[test]
fn a_placement_is_drained_when_the_writes_that_started_before_have_ended() {
    let (one, other) = (node(1, 1), node(2, 1));
    let (mut first, _) = two_settled(&one, &other);
    let before = first.routing();
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let keys = names.iter().map(|name| Key::new(name.as_bytes()));
    let ticket = keys
        .clone()
        .find_map(|key| before.begin_write(key))
        .unwrap();

    let guest = node(3, 1);
    let live = [&one, &other, &guest].map(Clone::clone).into();
    first.update_members(MemberSnapshot {
        me: one.clone(),
        live,
        leaving: BTreeSet::new(),
    });
    assert_eq!(
        first.phase(),
        Phase::Installed,
        "a write may still start with the snapshot before"
    );
    first.on_published();
    assert_eq!(first.phase(), Phase::Installed, "one has");
    assert!(ticket.is_older_than(&first.routing()));
    let later = keys
        .clone()
        .find_map(|key| first.routing().begin_write(key));
    assert!(later.is_some());
    drop(ticket);
    first.advance();
    assert_eq!(first.phase(), Phase::Drained);
}

#[test]
fn an_isolated_node_serves_again_when_all_members_have_confirmed() {
    let (one, other) = (node(1, 1), node(2, 1));
    let (mut first, second) = two_settled(&one, &other);
    let asked_before = first.isolations();
    first.suspend_lease(1);
    assert!(!first.is_serving() && !first.routing().may_read_at(first.current().id()));
    let status = second.status_for(&one);
    first.on_status(Some(asked_before), status.clone(), None);
    first.on_status(None, status, None);
    assert!(!first.is_serving(), "these may be older than the isolation");
    assert_eq!(first.lagging_peers(), [other]);
    ask(&mut first, &second);
    assert!(first.is_serving());
    assert_eq!(first.lagging_peers(), []);
}

#[test]
fn a_write_that_outlasts_its_rebalance_does_not_wait_for_a_node_that_died() {
    let (one, other) = (node(1, 1), node(2, 1));
    let (mut stays, _dies) = two_settled(&one, &other);
    stays.update_members(MemberSnapshot {
        me: one.clone(),
        live: BTreeSet::from([one.clone()]),
        leaving: BTreeSet::new(),
    });
    // The list still has the placement with the other node.
    let key = Key::new(b"key");
    let ticket = stays.routing().begin_write(key).unwrap();
    stays.on_published();
    assert!(stays.is_settled());
    assert_eq!(stays.routing().targets(&ticket, key), []);
}

/// Three nodes that stop on a split. One is cut off from the others and declares them down. Later
/// their processes have ended.
#[test]
fn a_minority_keeps_the_placement_by_which_it_is_one() {
    let nodes = [1, 2, 3].map(|port| node(port, 1));
    let [one, other, third] = &nodes;
    let mut all = [one, other, third].map(rebalance);
    all[0].require_stop_on_split(true);
    bootstrap(&mut all[0]);
    for (rebalance, me) in all.iter_mut().zip(&nodes) {
        update(rebalance, me, &[one, other, third]);
    }
    let [minority, second, last] = &mut all;
    for _ in 0..5 {
        for asked in [&*second, last] {
            ask(minority, asked);
        }
        ask(second, minority);
        ask(second, last);
        ask(last, minority);
        ask(last, second);
    }
    assert!(minority.is_settled() && minority.stops_on_split());
    let before = minority.current().id();

    let silent = [other.location.clone(), third.location.clone()];
    let (mut quorum, now) = (Quorum::default(), 60_000);
    let until = quorum.until(now, &minority.routing(), &silent);
    assert!(minority.set_quorum(now < until), "none confirms it");
    update(minority, one, &[one]);
    assert_eq!(minority.phase(), Phase::Switched);
    assert!(minority.routing().knows(before) && !minority.is_settled());
    let until = quorum.until(now, &minority.routing(), &silent);
    assert_eq!(until, 0, "alone it would be all members of what it knows");

    // The processes of the others have ended: they do not count.
    let until = quorum.until(now, &minority.routing(), &[]);
    assert!(minority.set_quorum(now < until));
    assert!(minority.is_settled() && !minority.routing().knows(before));
}
