//! Does the store keep its promises, whatever happens in whatever order?
//!
//! Thousands of random schedules of writes, reads, deletes, joins, leaves, deaths,
//! restarts and hangs, run on the real deciding code without sockets, clocks or
//! threads. `SCHEDULES=20000` runs more of them, `SCHEDULE_SEED=4711` one again.

mod schedules;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use schedules::few::Few;
use schedules::schedule::run;
use schedules::world::Counts;
use thrifty_p2p::store::rebalance::Rules;

/// Steps of a schedule before it comes to rest.
const STEPS: usize = 3000;

/// What must have happened in the default run.
const EVENTS: [&str; 17] = [
    "reads",
    "writes",
    "deletes",
    "deletes of nothing",
    "reads refused",
    "writes refused",
    "writes not acknowledged",
    "joins",
    "restarts",
    "leaves",
    "crashes",
    "deaths of joiners",
    "hangs",
    "found down while alive",
    "returns",
    "keys copied",
    "keys dropped",
];

/// Runs schedules on all processors; all that happened, and the seeds that broke a
/// promise, with which.
fn run_many(seeds: Range<u64>, rules: Rules) -> (Counts, BTreeMap<u64, String>) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Counts::new(), BTreeMap::new()));
    let run_some = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, STEPS, rules);
            let (counts, broken) = &mut *found.lock().unwrap();
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
    found.into_inner().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_schedule_breaks_a_promise() {
    let seeds = match number("SCHEDULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(3000),
    };
    let began = Instant::now();
    let (counts, broken) = run_many(seeds.clone(), Rules::default());
    println!("{counts:#?} in {:?}", began.elapsed());
    println!("{} of {seeds:?} broken", broken.len());
    for (seed, why) in broken.iter().take(10) {
        println!("SCHEDULE_SEED={seed} cargo test --test store_schedules: {why}");
    }
    assert!(broken.is_empty(), "{} of {seeds:?} broken", broken.len());
    if seeds.end - seeds.start > 500 {
        for event in EVENTS {
            assert!(counts.contains_key(event), "no schedule had any {event}");
        }
    }
}

/// Is a promise broken, in one of so many schedules, when this rule is left out?
fn breaks(schedules: u64, rules: Rules) -> bool {
    let first = (0..schedules).find_map(|seed| run(seed, STEPS, rules).broken);
    println!("{first:?}");
    first.is_some()
}

#[test]
fn writing_only_to_the_new_view_breaks_a_promise() {
    let write_to_all = false;
    let rules = Rules {
        write_to_all,
        ..Rules::default()
    };
    assert!(breaks(300, rules));
}

#[test]
fn reading_at_once_at_the_new_owner_breaks_a_promise() {
    let read_by_old = false;
    let rules = Rules {
        read_by_old,
        ..Rules::default()
    };
    assert!(breaks(300, rules));
}

#[test]
fn settling_in_one_step_breaks_a_promise() {
    let settle_after_switch = false;
    let rules = Rules {
        settle_after_switch,
        ..Rules::default()
    };
    assert!(breaks(1000, rules));
}

#[test]
fn a_write_under_way_reaches_a_joiner_only_if_copying_waits_for_it() {
    for drain in [true, false] {
        let rules = Rules {
            drain,
            ..Rules::default()
        };
        assert_eq!(copies_after_a_join_in_a_write(rules), drain);
    }
}

/// Two copies. The primary is about to apply a write, after it has found nobody else to
/// write to, when one joins. Does the joiner have the write when all is settled?
fn copies_after_a_join_in_a_write(rules: Rules) -> bool {
    let network = Few::new(2, 2, rules);
    let [one, joiner] = [0, 1];
    network.stand(one, &[one], &[]);
    network.at(one).found(2);
    let write = network.at(one).begin_write(Few::key());
    let write = write.expect("the only node is the primary");
    assert!(network.at(one).targets(&write, Few::key()).is_empty());
    network.stand(one, &[one, joiner], &[]);
    network.stand(joiner, &[one, joiner], &[]);
    network.talk(&[one, joiner], &[one, joiner]);
    network.write(one);
    assert!(network.at(one).end_write(write));
    network.talk(&[one, joiner], &[one, joiner]);
    assert!(network.at(joiner).is_settled());
    network.holds(joiner)
}

#[test]
fn what_a_leaver_that_died_had_to_give_comes_from_the_next_owner_only_if_all_is_copied_anew() {
    for pull_again in [true, false] {
        let rules = Rules {
            pull_again,
            ..Rules::default()
        };
        assert_eq!(copies_after_a_leaver_died(rules), pull_again);
    }
}

/// One founds with two copies, another one joins, and both hold the key.
fn found_with_the_key(network: &Few, one: usize, other: usize) {
    network.stand(one, &[one], &[]);
    network.at(one).found(2);
    for node in [one, other] {
        network.stand(node, &[one, other], &[]);
    }
    network.talk(&[one, other], &[one, other]);
    network.write(one);
    network.write(other);
}

/// Two copies, at two nodes, of whom the first owner leaves while another one joins.
/// The joiner has had from the one that stays all that this has to give, when the
/// leaver's process ends. Does the joiner have the key when all is settled?
fn copies_after_a_leaver_died(rules: Rules) -> bool {
    let network = Few::new(3, 2, rules);
    let [one, other, joiner] = [0, 1, 2];
    found_with_the_key(&network, one, other);
    let first = network
        .at(one)
        .primary(Few::key())
        .expect("there are members");
    let (leaver, stays) = if first == *network.at(one).me() {
        (one, other)
    } else {
        (other, one)
    };
    network.stand(leaver, &[stays, joiner], &[]);
    for node in [stays, joiner] {
        network.stand(node, &[stays, joiner], &[leaver]);
    }
    // All talk, and the joiner copies from the one that stays.
    network.talk(&[leaver, stays, joiner], &[stays]);
    assert!(!network.at(joiner).is_settled());
    for node in [stays, joiner] {
        let gone = network.at(leaver).me().clone();
        network.at(node).end(&gone);
    }
    network.talk(&[stays, joiner], &[stays, joiner]);
    assert!(network.at(joiner).is_settled());
    network.holds(joiner)
}

/// Two copies, at two nodes. One leaves, and the other one dies. One has joined whom only
/// the dead had met.
#[test]
fn who_leaves_waits_for_others_when_who_was_to_take_over_has_died() {
    let network = Few::new(3, 2, Rules::default());
    let [leaver, heir, joiner] = [0, 1, 2];
    found_with_the_key(&network, leaver, heir);
    network.stand(leaver, &[heir], &[]);
    network.stand(leaver, &[], &[]);
    assert!(
        !network.at(leaver).may_end(),
        "all there is would end with it"
    );

    network.stand(joiner, &[joiner], &[leaver]);
    network.stand(leaver, &[joiner], &[]);
    network.talk(&[leaver, joiner], &[leaver]);
    assert!(network.at(joiner).is_serving());
    assert!(network.at(joiner).is_settled());
    assert!(network.holds(joiner));
    assert!(network.at(leaver).may_end());
}
