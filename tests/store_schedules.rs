//! Does the store keep its promises, whatever happens in whatever order?
//!
//! Thousands of random schedules of writes, reads, deletes, joins, leaves, deaths,
//! restarts and hangs, run on the real deciding code without sockets, clocks or
//! threads. `SCHEDULES=20000` runs more of them, `SCHEDULE_SEED=4711` one again.

mod schedules;

use std::time::Instant;

use schedules::schedule::run;
use schedules::world::Counts;
use thrifty_p2p::store::moves::Rules;

/// Steps of a schedule before it comes to rest.
const STEPS: usize = 3000;

/// Runs schedules; all that happened, and the seeds that broke a promise, with which.
fn run_many(seeds: std::ops::Range<u64>, rules: Rules) -> (Counts, Vec<(u64, String)>) {
    let mut counts = Counts::new();
    let mut broken = Vec::new();
    for seed in seeds {
        let outcome = run(seed, STEPS, rules);
        if number("SCHEDULE_TRACE").is_some() {
            println!("{seed}: {:?}", outcome.broken);
        }
        for (what, count) in outcome.counts {
            *counts.entry(what).or_default() += count;
        }
        broken.extend(outcome.broken.map(|why| (seed, why)));
    }
    (counts, broken)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_schedule_breaks_a_promise() {
    let seeds = match number("SCHEDULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(2000),
    };
    let began = Instant::now();
    let (counts, broken) = run_many(seeds.clone(), Rules::default());
    println!("{counts:#?} in {:?}", began.elapsed());
    for (seed, why) in broken.iter().take(10) {
        println!("SCHEDULE_SEED={seed} cargo test --test store_schedules: {why}");
    }
    assert!(broken.is_empty(), "{} of {seeds:?} broken", broken.len());
}
