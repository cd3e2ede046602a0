//! The membership core under every kind of fault, in a simulator, from seeds.
//!
//! `MEMBERSHIP_SEEDS=2000` runs so many; `MEMBERSHIP_SEED=17` repeats one.

mod simulator;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use simulator::churn::{Churn, End, FAULTS};
use thrifty_p2p::membership::Settings;

/// How long the faults go on in one run.
const FAULTY: Duration = Duration::from_secs(30);

/// Within what time everyone agrees after the faults ended, and why: a suspicion may
/// have begun with the last fault, in the worst health (16 s); the worst heal is one
/// lone node that is tried once in 2 s by chance, and so within 20 s but once in
/// 20,000 times; what is then learned crosses the network in a second or two.
const CALM: Duration = Duration::from_secs(40);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn size_of(seed: u64) -> usize {
    3 + (seed % 12) as usize
}

#[test]
fn everyone_agrees_when_the_faults_have_ended() {
    let seeds = match number("MEMBERSHIP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("MEMBERSHIP_SEEDS").unwrap_or(120),
    };
    let runs = seeds.end - seeds.start;
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed: Vec<String> = Vec::new();
    let mut disconnected = 0;
    let mut slowest = Duration::ZERO;
    for seed in seeds {
        let mut churn = Churn::new(size_of(seed), seed, Settings::default());
        let end = catch_unwind(AssertUnwindSafe(|| churn.run(FAULTY, CALM)));
        let replay =
            format!("replay: MEMBERSHIP_SEED={seed} cargo test --test membership_simulation");
        match end {
            Ok(End::Agreed(time)) => slowest = slowest.max(time),
            Ok(End::Disconnected) => disconnected += 1,
            Ok(End::Disagreed(what)) => failed.push(format!("seed {seed}: {what}; {replay}")),
            Err(_) => failed.push(format!("seed {seed}: a rule was broken; {replay}")),
        }
        for (fault, times) in churn.faults {
            *faults.entry(fault).or_default() += times;
        }
    }
    println!(
        "{runs} runs, {disconnected} disconnected, slowest agreement {slowest:?}\n{faults:#?}"
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    if runs >= 100 {
        for fault in FAULTS {
            assert!(faults.contains_key(fault), "{fault:?} never happened");
        }
        assert!(
            disconnected * 50 <= runs,
            "{disconnected} of {runs} runs are excused: that is not rare"
        );
    }
}
