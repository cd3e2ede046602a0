//! Does any input make a decoder panic, hang, or exceed its memory bound?
//!
//! `FUZZ_INPUTS=10000000 cargo test --release --test fuzz` is the long run. `FUZZ_SEED=n` makes
//! other inputs. `FUZZ_INPUTS` is the number of mutated inputs; the largest messages are sent in
//! every run.

mod fuzzing;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fuzzing::campaign::campaign;
use fuzzing::corpus::{corpus, path, to_hex};
use fuzzing::decoder::{Coverage, Decoder};
use fuzzing::largest;
use fuzzing::seeds::seeds;
use fuzzing::targets::{TARGETS, Target};
use fuzzing::trial::{BOUNDS, Bounds, Fault, prepare, trial};

/// Lets one test run at a time, because memory and panics are counted for the whole process.
fn lock_process() -> MutexGuard<'static, ()> {
    static PROCESS: Mutex<()> = Mutex::new(());
    prepare();
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_input_makes_a_decoder_panic_hang_or_exceed_its_memory() {
    let _process = lock_process();
    let seed = number("FUZZ_SEED", 1);
    let inputs = number("FUZZ_INPUTS", 100_000) as usize;
    let tallies = match campaign(&TARGETS, inputs, seed, BOUNDS) {
        Ok(tallies) => tallies,
        Err(finding) => panic!(
            "{finding}\nThe seed was {seed}. Add the hexadecimal digits as a line to tests/data/fuzz."
        ),
    };
    for tally in tallies {
        println!(
            "{}: {} inputs, {} kinds of coverage, at most {:?} and {} bytes",
            tally.name,
            tally.inputs,
            tally.coverage.len(),
            tally.largest_cost.time,
            tally.largest_cost.memory
        );
    }
}

/// `FUZZ_CORPUS=write` adds the missing ones.
#[test]
fn the_corpus_has_every_message_of_the_interface() {
    for name in ["requests", "replies", "addresses", "lines"] {
        let existing = corpus(name);
        let missing: Vec<_> = seeds(name)
            .into_iter()
            .filter(|seed| !existing.contains(seed))
            .collect();
        if std::env::var("FUZZ_CORPUS").as_deref() == Ok("write") {
            let mut text = fs::read_to_string(path(name)).unwrap();
            for (name, input) in missing {
                text.push_str(&format!("{name}\t{}\n", to_hex(&input)));
            }
            fs::write(path(name), text).unwrap();
        } else {
            assert_eq!(missing, [], "missing in {name}.tsv");
        }
    }
}

/// A decoder with a fault, which depends on a length in the input.
struct Faulty(fn());

impl Decoder for Faulty {
    fn decode(&mut self, input: &[u8]) -> Coverage {
        if input
            .windows(4)
            .any(|size| size == [0x7f, 0xff, 0xff, 0xff])
        {
            (self.0)();
        }
        Coverage::default()
    }
}

fn faulty(name: &'static str, start: fn() -> Box<dyn Decoder>) -> Target {
    Target {
        name,
        corpus: "requests",
        start,
        weight: 1,
    }
}

#[test]
fn the_fuzzer_finds_a_panic_a_slow_decoder_and_one_that_takes_too_much_memory() {
    let _process = lock_process();
    let bounds = Bounds {
        time: Duration::from_millis(100),
        memory: 1024 * 1024,
    };
    let fault = |target: Target| {
        let targets = Box::leak(Box::new([target]));
        let found = campaign(targets, 20_000, 1, bounds);
        found.expect_err("the fault is not found").fault
    };
    let panics = faulty("panics", || {
        Box::new(Faulty(|| panic!("a fault of the test")))
    });
    assert_eq!(fault(panics), Fault::Panicked);
    let thread_panics = faulty("panics in a thread", || {
        Box::new(Faulty(|| {
            let _ = thread::spawn(|| panic!("a fault of the test")).join();
        }))
    });
    assert_eq!(fault(thread_panics), Fault::Panicked);
    let slow = faulty("slow", || {
        Box::new(Faulty(|| thread::sleep(Duration::from_millis(150))))
    });
    assert!(matches!(fault(slow), Fault::TooSlow(_)));
    let large = faulty("large", || {
        Box::new(Faulty(|| drop(vec![1u8; 2 * 1024 * 1024])))
    });
    assert!(matches!(fault(large), Fault::TooMuchMemory(_)));
    let correct = Box::leak(Box::new([faulty("correct", || Box::new(Faulty(|| ())))]));
    campaign(correct, 20_000, 1, bounds).expect("a correct decoder has no fault");
}

/// The targets with that corpus that are called over a connection.
fn over_a_connection(corpus: &str) -> impl Iterator<Item = &'static Target> {
    let is_wanted = move |target: &&Target| {
        target.corpus == corpus && target.name.ends_with("over a connection")
    };
    TARGETS.iter().filter(is_wanted)
}

#[test]
fn the_largest_messages_stay_within_the_bounds() {
    let _process = lock_process();
    let mut faults = Vec::new();
    for (corpus, messages) in [
        ("requests", largest::requests()),
        ("replies", largest::replies()),
    ] {
        for target in over_a_connection(corpus) {
            let mut decoder = (target.start)();
            for (name, message) in &messages {
                match trial(BOUNDS, || decoder.decode(message)) {
                    Ok((coverage, cost)) => {
                        println!("{}: {name}: {coverage:?} {cost:?}", target.name)
                    }
                    Err(fault) => faults.push(format!("{}: {name} {fault}", target.name)),
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
