//! Does any input make a decoder panic, hang, or take more memory than it may?
//!
//! `FUZZ_INPUTS=10000000 cargo test --release --test fuzz` is the long run, and
//! `FUZZ_SEED=n` another one. `FUZZ_INPUTS` counts those that the fuzzer makes; the
//! largest messages are sent in any run.

mod fuzzing;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fuzzing::campaign::campaign;
use fuzzing::corpus::{corpus, path, to_hex};
use fuzzing::decoder::{Decoder, Reached};
use fuzzing::seeds::seeds;
use fuzzing::targets::{TARGETS, Target};
use fuzzing::trial::{BOUNDS, Bounds, Fault, prepare, trial};
use fuzzing::worst;

/// Memory and panics are counted for the whole process: one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    prepare();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_input_makes_a_decoder_panic_hang_or_swallow_memory() {
    let _alone = alone();
    let seed = number("FUZZ_SEED", 1);
    let inputs = number("FUZZ_INPUTS", 100_000) as usize;
    let tallies = match campaign(&TARGETS, inputs, seed, BOUNDS) {
        Ok(tallies) => tallies,
        Err(finding) => panic!(
            "{finding}\nThat was of seed {seed}. Its hexadecimal digits make a line of tests/data/fuzz."
        ),
    };
    for tally in tallies {
        println!(
            "{}: {} inputs, {} places, at worst {:?} and {} bytes",
            tally.name,
            tally.inputs,
            tally.places.len(),
            tally.worst.time,
            tally.worst.memory
        );
    }
}

/// `FUZZ_CORPUS=write` adds what is missing.
#[test]
fn the_corpus_has_each_message_of_the_interface() {
    for name in ["requests", "replies", "addresses", "lines"] {
        let had = corpus(name);
        let missing: Vec<_> = seeds(name)
            .into_iter()
            .filter(|seed| !had.contains(seed))
            .collect();
        if std::env::var("FUZZ_CORPUS").as_deref() == Ok("write") {
            let mut text = fs::read_to_string(path(name)).unwrap();
            for (name, input) in missing {
                text.push_str(&format!("{name}\t{}\n", to_hex(&input)));
            }
            fs::write(path(name), text).unwrap();
        } else {
            assert_eq!(missing, [], "these lack in {name}.tsv");
        }
    }
}

/// Decoders with a fault each, which mutation is to find.
struct Planted(fn());

impl Decoder for Planted {
    fn decode(&mut self, input: &[u8]) -> Reached {
        if input
            .windows(4)
            .any(|size| size == [0x7f, 0xff, 0xff, 0xff])
        {
            (self.0)();
        }
        Reached::default()
    }
}

fn planted(name: &'static str, start: fn() -> Box<dyn Decoder>) -> Target {
    Target {
        name,
        corpus: "requests",
        start,
        weight: 1,
    }
}

#[test]
fn a_panic_a_slow_and_a_greedy_decoder_are_found() {
    let _alone = alone();
    let bounds = Bounds {
        time: Duration::from_millis(100),
        memory: 1024 * 1024,
    };
    let fault = |target: Target| {
        let targets = Box::leak(Box::new([target]));
        let found = campaign(targets, 20_000, 1, bounds);
        found.expect_err("the fault is found").fault
    };
    let panicked = planted("panicked", || Box::new(Planted(|| panic!("planted"))));
    assert_eq!(fault(panicked), Fault::Panicked);
    let elsewhere = planted("panicked elsewhere", || {
        Box::new(Planted(|| {
            let _ = thread::spawn(|| panic!("planted")).join();
        }))
    });
    assert_eq!(fault(elsewhere), Fault::Panicked);
    let slow = planted("slow", || {
        Box::new(Planted(|| thread::sleep(Duration::from_millis(150))))
    });
    assert!(matches!(fault(slow), Fault::Slow(_)));
    let greedy = planted("greedy", || {
        Box::new(Planted(|| drop(vec![1u8; 2 * 1024 * 1024])))
    });
    assert!(matches!(fault(greedy), Fault::Greedy(_)));
    let sound = Box::leak(Box::new([planted("sound", || Box::new(Planted(|| ())))]));
    campaign(sound, 20_000, 1, bounds).expect("no fault is found where there is none");
}

/// Those targets that are reached over a connection, by their corpus.
fn over_a_connection(corpus: &str) -> impl Iterator<Item = &'static Target> {
    let is_meant = move |target: &&Target| {
        target.corpus == corpus && target.name.ends_with("over a connection")
    };
    TARGETS.iter().filter(is_meant)
}

#[test]
fn the_worst_messages_stay_within_the_bounds() {
    let _alone = alone();
    let mut faults = Vec::new();
    for (corpus, messages) in [
        ("requests", worst::requests()),
        ("replies", worst::replies()),
    ] {
        for target in over_a_connection(corpus) {
            let mut decoder = (target.start)();
            for (name, message) in &messages {
                match trial(BOUNDS, || decoder.decode(message)) {
                    Ok((reached, cost)) => {
                        println!("{}: {name}: {reached:?} {cost:?}", target.name)
                    }
                    Err(fault) => faults.push(format!("{}: {name} {fault}", target.name)),
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
