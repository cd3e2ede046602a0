//! Does the store keep its promises, whatever happens in whatever order?
//!
//! Thousands of random schedules of reads, writes, deletes, joins, leaves, deaths, restarts
//! and hangs, run on the real deciding code without sockets, clocks or threads.
//! `SCHEDULES=20000` runs that many, `SCHEDULE_START=100000` starts with that seed, and
//! `SCHEDULE_SEED=4711` repeats one and prints what happens.

mod schedules;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use schedules::schedule::run;
use schedules::small_network::SmallNetwork;
use schedules::world::Counts;
use thrifty_p2p::store::rebalance::{Rule, Rules};

/// Steps of a schedule before it comes to rest.
const STEPS: usize = 4000;

/// What must have happened in the default run.
const EVENTS: [&str; 34] = [
    "reads",
    "writes",
    "deletes",
    "conditional writes",
    "conditions not met",
    "conditions noted everywhere",
    "scans",
    "reads refused",
    "scans refused",
    "writes without a reply",
    "writes acknowledged to a retry",
    "writes that were known already",
    "writes left to the finisher",
    "writes left to those that have copies",
    "versions that had to grow",
    "requests that were delayed",
    "requests that came too late",
    "copies that were fenced",
    "copies replayed",
    "reads that waited for a write",
    "joins",
    "restarts",
    "leaves",
    "crashes",
    "deaths of joiners",
    "hangs",
    "declared down while alive",
    "isolations",
    "rejoins",
    "returns of leavers that were declared down",
    "waits that timed out",
    "keys copied",
    "keys dropped",
    "starts with a zone",
];

/// Runs schedules on all processors. Returns how often each thing happened, and the seeds that
/// broke a promise, with which.
fn run_many(seeds: Range<u64>, rules: Rules) -> (Counts, BTreeMap<u64, String>) {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new((Counts::new(), BTreeMap::new()));
    let run_some = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, STEPS, rules);
            let (counts, broken) = &mut *results.lock().unwrap();
            for (what, count) in outcome.counts {
                *counts.entry(what).or_default() += count;
            }
            broken.extend(outcome.broken.map(|why| (seed, why)));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run_some);
        }
    });
    results.into_inner().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_schedule_breaks_a_promise() {
    let seeds = match number("SCHEDULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let start = number("SCHEDULE_START").unwrap_or(0);
            start..start + number("SCHEDULES").unwrap_or(3000)
        }
    };
    let began = Instant::now();
    let (counts, broken) = run_many(seeds.clone(), Rules::default());
    println!("{counts:#?} in {:?}", began.elapsed());
    println!("{} of {seeds:?} broken", broken.len());
    for (seed, why) in broken.iter().take(10) {
        println!("SCHEDULE_SEED={seed} cargo test --test store_schedules: {why}");
    }
    assert!(broken.is_empty(), "{} of {seeds:?} broken", broken.len());
    if seeds.end - seeds.start >= 2000 {
        for event in EVENTS {
            assert!(counts.contains_key(event), "no schedule had any {event}");
        }
    }
}

/// Does one of so many schedules break a promise when this rule is left out?
fn breaks_a_promise_without(rule: Rule, schedules: u64) -> bool {
    let rules = Rules::without(rule);
    let first = (0..schedules).find_map(|seed| {
        let why = run(seed, STEPS, rules).broken?;
        Some((seed, why))
    });
    println!("{first:?}");
    first.is_some()
}

#[test]
fn writing_only_to_the_new_placement_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::WriteToAll, 300));
}

#[test]
fn reading_by_the_new_placement_at_once_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::ReadByOld, 300));
}

#[test]
fn settling_in_the_same_step_as_switching_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::SettleAfterSwitch, 1000));
}

#[test]
fn reading_copies_of_writes_that_are_not_finished_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::FinishBeforeReading, 1500));
}

#[test]
fn executing_every_attempt_of_a_write_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::RunOnce, 1500));
}

#[test]
fn writing_without_regard_to_the_condition_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::MeetConditions, 100));
}

#[test]
fn leaving_the_copies_of_processes_that_are_gone_unfinished_breaks_a_promise() {
    assert!(breaks_a_promise_without(Rule::Replay, 1500));
}

#[test]
fn a_write_in_progress_reaches_a_joining_node_only_if_copying_waits_for_it() {
    assert!(joining_node_has_write_in_progress(Rules::default()));
    assert!(!joining_node_has_write_in_progress(Rules::without(
        Rule::Drain
    )));
}

/// Two copies. The primary is about to apply a write, after it has found no other owner, when
/// another node joins. Does that have the write when all is settled?
fn joining_node_has_write_in_progress(rules: Rules) -> bool {
    let network = SmallNetwork::new(2, 2, rules);
    let [first, joining] = [0, 1];
    network.change(first, |rebalance| rebalance.bootstrap(2));
    let routing = network.at(first).routing();
    let ticket = routing.begin_write(SmallNetwork::key());
    let ticket = ticket.expect("the only node is the primary");
    assert!(routing.targets(&ticket, SmallNetwork::key()).is_empty());
    network.update_members(first, &[first, joining], &[]);
    network.update_members(joining, &[first, joining], &[]);
    network.exchange(&[first, joining], &[first, joining]);
    network.apply(first);
    assert!(network.at(first).routing().may_finish(&ticket));
    drop(ticket);
    network.change(first, |rebalance| rebalance.advance());
    network.exchange(&[first, joining], &[first, joining]);
    assert!(network.at(joining).is_settled());
    network.holds_key(joining)
}

#[test]
fn keys_of_a_leaving_node_that_died_come_from_the_next_owner_only_if_all_is_copied_again() {
    assert!(joining_node_has_key_of_dead_leaver(Rules::default()));
    let without = Rules::without(Rule::PullAgain);
    assert!(!joining_node_has_key_of_dead_leaver(without));
}

/// One node bootstraps with two copies, another one joins, and both hold the key.
fn settle_with_key(network: &SmallNetwork, first: usize, other: usize) {
    network.change(first, |rebalance| rebalance.bootstrap(2));
    for node in [first, other] {
        network.update_members(node, &[first, other], &[]);
    }
    network.exchange(&[first, other], &[first, other]);
    network.apply(first);
    network.apply(other);
}

/// Two copies, at two nodes. The primary leaves while another node joins. That has copied all
/// that the one that stays has to send when the leaving process ends. Does it have the key
/// when all is settled?
fn joining_node_has_key_of_dead_leaver(rules: Rules) -> bool {
    let network = SmallNetwork::new(3, 2, rules);
    let [first, other, joining] = [0, 1, 2];
    settle_with_key(&network, first, other);
    let routing = network.at(first).routing();
    let primary = routing.primary(SmallNetwork::key());
    let (leaver, stays) = if primary == Some(routing.me()) {
        (first, other)
    } else {
        (other, first)
    };
    network.update_members(leaver, &[stays, joining], &[]);
    for node in [stays, joining] {
        network.update_members(node, &[stays, joining], &[leaver]);
    }
    // All exchange statuses, and the joining node copies from the one that stays.
    network.exchange(&[leaver, stays, joining], &[stays]);
    assert!(!network.at(joining).is_settled());
    let gone = network.at(leaver).me().clone();
    for node in [stays, joining] {
        network.change(node, |rebalance| rebalance.mark_exited(&gone));
    }
    network.exchange(&[stays, joining], &[stays, joining]);
    assert!(network.at(joining).is_settled());
    network.holds_key(joining)
}

/// Two copies, at two nodes. One leaves, and the other one dies. A third has joined that only
/// the dead one had met.
#[test]
fn a_leaving_node_waits_for_another_one_when_its_successor_has_died() {
    let network = SmallNetwork::new(3, 2, Rules::default());
    let [leaver, successor, joining] = [0, 1, 2];
    settle_with_key(&network, leaver, successor);
    network.update_members(leaver, &[successor], &[]);
    network.update_members(leaver, &[], &[]);
    assert!(
        !network.at(leaver).may_exit(),
        "all there is would end with it"
    );

    network.update_members(joining, &[joining], &[leaver]);
    network.update_members(leaver, &[joining], &[]);
    network.exchange(&[leaver, joining], &[leaver]);
    assert!(network.at(joining).is_serving());
    assert!(network.at(joining).is_settled());
    assert!(network.holds_key(joining));
    assert!(network.at(leaver).may_exit());
}
