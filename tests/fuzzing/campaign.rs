//! A campaign: so many inputs, for all targets in turn, from one seed.

use std::collections::HashSet;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use thrifty_p2p::membership::Rng;

use super::corpus::{corpus, to_hex};
use super::decoder::{Decoder, Reached};
use super::mutation::mutated;
use super::targets::Target;
use super::trial::{Bounds, Cost, Fault, trial};

/// Inputs after which a target's node is replaced by a new one.
const RENEW: usize = 10_000;

/// The most inputs kept for one target.
const MOST_KEPT: usize = 10_000;

/// The stack of a server's connection.
const STACK: usize = 1024 * 1024;

/// An input that has not ended by then never will.
const ENDLESS: Duration = Duration::from_secs(60);

/// What came of one target's inputs.
#[derive(Debug, Default)]
pub struct Tally {
    pub name: String,
    pub inputs: usize,
    pub places: HashSet<Reached>,
    /// The most that any input did cost.
    pub worst: Cost,
}

/// An input at which a target is at fault.
#[derive(Debug)]
pub struct Finding {
    pub target: &'static str,
    pub input: Vec<u8>,
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} at {}",
            self.target,
            self.fault,
            to_hex(&self.input)
        )
    }
}

/// Sends `inputs` inputs to the targets, on a thread with the stack of a connection.
///
/// # Errors
/// The first fault that is found.
///
/// # Panics
/// When an input never ends.
pub fn campaign(targets: &'static [Target], inputs: usize, seed: u64, bounds: Bounds) -> Outcome {
    let current = Current::default();
    let shown = current.clone();
    let (sender, receiver) = channel();
    let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut lanes: Vec<Lane> = targets.iter().map(Lane::new).collect();
        let mut random = Random::new(seed);
        let outcome = (0..inputs).try_for_each(|number| {
            let lane = &mut lanes[lane(&mut random, targets)];
            let input = lane.next_input(&mut random);
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = (number, input.clone());
            lane.send(input, bounds)
        });
        let tallies = lanes.into_iter().map(|lane| lane.tally).collect();
        // Nobody receives only when the campaign has been given up.
        let _ = sender.send(outcome.map(|()| tallies));
    });
    worker.expect("a thread can be started");
    outcome(&receiver, &current)
}

/// The input that is being decoded, with its number.
type Current = Arc<Mutex<(usize, Vec<u8>)>>;

type Outcome = Result<Vec<Tally>, Finding>;

/// Waits for the end of a campaign. Tells how far it is, every now and then.
fn outcome(receiver: &Receiver<Outcome>, current: &Current) -> Outcome {
    let mut last = None;
    loop {
        match receiver.recv_timeout(ENDLESS) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => panic!("the campaign broke off"),
            Err(RecvTimeoutError::Timeout) => (),
        }
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, input) = &*current;
        eprintln!("at input {number}");
        assert_ne!(
            last.replace(*number),
            Some(*number),
            "does not end: {}",
            to_hex(input)
        );
    }
}

/// Whose turn it is, by their weights.
fn lane(random: &mut Random, targets: &[Target]) -> usize {
    let all = targets.iter().map(|target| target.weight).sum();
    let mut drawn = random.below(all);
    let is_drawn = |target: &Target| match drawn.checked_sub(target.weight) {
        Some(rest) => {
            drawn = rest;
            false
        }
        None => true,
    };
    targets.iter().position(is_drawn).unwrap_or_default()
}

/// One target on its way through its inputs.
struct Lane {
    target: &'static Target,
    decoder: Box<dyn Decoder>,
    /// The corpus, and every input that led to a new place.
    kept: Vec<Vec<u8>>,
    /// How many of them are the corpus.
    corpus: usize,
    tally: Tally,
}

impl Lane {
    fn new(target: &'static Target) -> Lane {
        let kept: Vec<_> = corpus(target.corpus)
            .into_iter()
            .map(|(_, input)| input)
            .collect();
        Lane {
            target,
            decoder: (target.start)(),
            corpus: kept.len(),
            kept,
            tally: Tally {
                name: target.name.to_owned(),
                ..Tally::default()
            },
        }
    }

    /// The corpus first, as it is; then what comes of it.
    fn next_input(&self, random: &mut Random) -> Vec<u8> {
        if self.tally.inputs < self.corpus {
            return self.kept[self.tally.inputs].clone();
        }
        let old = &self.kept[random.below(self.kept.len())];
        let other = &self.kept[random.below(self.kept.len())];
        mutated(random, old, other)
    }

    fn send(&mut self, input: Vec<u8>, bounds: Bounds) -> Result<(), Finding> {
        let decoder = &mut self.decoder;
        let (reached, cost) =
            trial(bounds, || decoder.decode(&input)).map_err(|fault| Finding {
                target: self.target.name,
                input: input.clone(),
                fault,
            })?;
        let tally = &mut self.tally;
        tally.inputs += 1;
        tally.worst.time = tally.worst.time.max(cost.time);
        tally.worst.memory = tally.worst.memory.max(cost.memory);
        if tally.places.insert(reached) && self.kept.len() < MOST_KEPT {
            self.kept.push(input);
        }
        if tally.inputs.is_multiple_of(RENEW) {
            self.decoder = (self.target.start)();
        }
        Ok(())
    }
}
