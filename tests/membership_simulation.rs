//! The membership core under all kinds of faults, in seeded simulations.
//!
//! `MEMBERSHIP_SEEDS=2000` runs that many seeds. `MEMBERSHIP_SEED=17` repeats one and prints what
//! happens in it.

mod simulator;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use simulator::churn::{Churn, End, FAULTS, Fault};
use simulator::{Simulator, location};
use thrifty_p2p::membership::{Config, Gossip, Member};

/// How long faults occur in one run.
const FAULTY: Duration = Duration::from_secs(30);

/// The limit until all nodes agree after the last fault. A suspicion may have started with that
/// fault, at the worst local health (16 s). The slowest repair is that of a single node which is
/// called once in 2 s with a certain probability; it takes longer than 20 s once in 20,000 times.
/// The records then spread in a second or two.
const CALM: Duration = Duration::from_secs(40);

/// The number of runs if the environment sets none.
const RUNS: u64 = 200;

/// The results of some runs.
#[derive(Default)]
struct Tally {
    runs: u64,
    faults: BTreeMap<Fault, u64>,
    /// Runs in which the nodes could not find each other any more.
    disconnected: u64,
    failures: Vec<String>,
    slowest: Duration,
}

impl Tally {
    /// Runs one seed, after `prepare` has changed the simulation.
    fn run(&mut self, seed: u64, config: Config, prepare: impl Fn(&mut Churn)) {
        let mut churn = Churn::new(3 + (seed % 12) as usize, seed, config);
        prepare(&mut churn);
        let end = catch_unwind(AssertUnwindSafe(|| churn.run(FAULTY, CALM)));
        let replay = format!("MEMBERSHIP_SEED={seed} cargo test --test membership_simulation");
        let mut fail = |reason: &str| self.failures.push(format!("{reason}; replay: {replay}"));
        match end {
            Ok(End::Agreed(time)) => self.slowest = self.slowest.max(time),
            Ok(End::Disconnected) => self.disconnected += 1,
            Ok(End::Disagreed(reason)) => fail(&reason),
            Err(_) => fail("an invariant was violated, see above"),
        }
        self.runs += 1;
        for (fault, count) in churn.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    /// Disconnected networks are no failures, but must be rare: 2 %, and one in addition.
    fn is_passed(&self) -> bool {
        self.failures.is_empty() && self.disconnected <= 1 + self.runs / 50
    }

    /// Does one of a few runs fail?
    fn fails(config: &Config, prepare: impl Fn(&mut Churn)) -> bool {
        let mut tally = Tally::default();
        (1..=40).any(|seed| {
            tally.run(seed, config.clone(), &prepare);
            !tally.is_passed()
        })
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn all_nodes_agree_after_the_last_fault() {
    let replayed = number("MEMBERSHIP_SEED");
    let seeds = match replayed {
        Some(seed) => seed..=seed,
        None => 1..=number("MEMBERSHIP_SEEDS").unwrap_or(RUNS),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        tally.run(seed, Config::default(), |churn| {
            churn.simulator.prints_events = replayed.is_some();
        });
    }
    println!(
        "{} runs, {} disconnected, slowest agreement {:?}\n{:#?}",
        tally.runs, tally.disconnected, tally.slowest, tally.faults
    );
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n"));
    assert!(tally.is_passed(), "{} disconnected", tally.disconnected);
    for fault in FAULTS {
        let has_occurred = tally.faults.contains_key(&fault);
        assert!(has_occurred || tally.runs < 100, "{fault:?} never occurred");
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| {
        let mut churn = Churn::new(8, seed, Config::default());
        churn.run(FAULTY, CALM);
        churn.simulator.fingerprint()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

// Each of these breaks one rule of the protocol and expects a failure: the checks can fail.

#[test]
fn without_grace_a_healed_network_removes_members_that_run() {
    let config = Config {
        grace: Duration::ZERO,
        ..Config::default()
    };
    assert!(Tally::fails(&config, |_| {}));
}

#[test]
fn without_corrections_in_replies_a_restart_with_an_old_clock_takes_too_long() {
    /// Removes the records from a reply that are about a location of the request.
    fn remove_corrections(request: &Gossip, reply: &mut Gossip) {
        let is_correction = |record: &Member| {
            let mut sent = request.members.iter();
            sent.any(|sent| sent.location == record.location)
        };
        reply.members.retain(|record| !is_correction(record));
    }
    /// The longest time of some restarts until all nodes know of it.
    fn slowest(tamper: Option<fn(&Gossip, &mut Gossip)>) -> Duration {
        let restarts = (1..20).map(|seed| {
            let mut churn = Churn::new(10, seed, Config::default());
            let simulator = &mut churn.simulator;
            simulator.tamper = tamper;
            simulator.run(Duration::from_secs(5));
            simulator.kill(3, true);
            simulator.set_clock(3, -3_600_000);
            simulator.start(3, vec![location(7)]);
            let time = simulator.time_until(CALM, Simulator::is_agreed);
            time.unwrap_or(CALM)
        });
        restarts.max().unwrap_or_default()
    }
    let limit = Duration::from_millis(500);
    let (with, without) = (slowest(None), slowest(Some(remove_corrections)));
    println!("with corrections {with:?}, without {without:?}");
    assert!(with <= limit, "{with:?} with corrections");
    assert!(without > limit, "{without:?} without corrections");
}

#[test]
fn with_equal_incarnations_a_restart_is_not_noticed() {
    assert!(Tally::fails(&Config::default(), |churn| {
        churn.simulator.are_clocks_stopped = true;
    }));
}

#[test]
fn without_tombstones_of_down_members_a_healed_partition_does_not_merge() {
    /// Partitions a network into halves without seeds in the other half, and heals it.
    fn time_to_merge(config: Config) -> Option<Duration> {
        let mut simulator = Simulator::new(1, config);
        for id in 0..11 {
            simulator.add_host();
            if id < 10 {
                simulator.start(id, vec![location(id % 2)]);
            }
        }
        // Host 10 connects the halves at first, and then ends.
        simulator.start(10, vec![location(0), location(1)]);
        simulator.run(Duration::from_secs(5));
        assert!(simulator.is_agreed());
        simulator.kill(10, true);
        let sides = (0..11).map(|id| (id % 2) as u8).collect();
        simulator.network.partition(sides);
        simulator.run(Duration::from_secs(30));
        simulator.network.heal();
        simulator.time_until(CALM, Simulator::is_agreed)
    }
    let without_tombstones = Config {
        down_retention: Duration::from_secs(1),
        ..Config::default()
    };
    assert!(time_to_merge(Config::default()).is_some());
    assert_eq!(time_to_merge(without_tombstones), None);
}
