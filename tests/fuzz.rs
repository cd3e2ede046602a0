//! Does any input make a decoder panic, hang, or take more memory than it may?
//!
//! `FUZZ_INPUTS=10000000 cargo test --release --test fuzz` is the long run, and
//! `FUZZ_SEED=n` another one.

mod fuzzing;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuzzing::campaign::campaign;
use fuzzing::corpus::{corpus, path, to_hex};
use fuzzing::seeds::seeds;
use fuzzing::targets::TARGETS;
use fuzzing::trial::{BOUNDS, prepare};

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
    let inputs = number("FUZZ_INPUTS", 200_000) as usize;
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
    for name in ["requests", "replies", "addresses"] {
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
