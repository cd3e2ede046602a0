//! `campaign`: sends many inputs to all targets, from one seed.

use std::collections::HashSet;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use thrifty_p2p::membership::Rng;

use super::corpus::{corpus, to_hex};
use super::decoder::{Coverage, Decoder};
use super::mutation::mutated;
use super::targets::Target;
use super::trial::{Bounds, Cost, Fault, trial};

/// A decoder is replaced by a new one after this many inputs.
const INPUTS_PER_DECODER: usize = 10_000;

/// The most inputs kept for one target.
const MAX_KEPT: usize = 10_000;

/// The stack of a server's connection thread.
const STACK: usize = 1024 * 1024;

/// An input that is decoded for longer than this never ends.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// What the inputs of one target did.
#[derive(Debug, Default)]
pub struct Tally {
    pub name: String,
    pub inputs: usize,
    pub coverage: HashSet<Coverage>,
    /// The largest cost of a single input.
    pub largest_cost: Cost,
}

/// An input at which a target has failed.
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

/// A tally for each target, or the first fault.
type CampaignResult = Result<Vec<Tally>, Finding>;

/// Sends `inputs` inputs to the targets, on a thread with the stack of a connection thread.
///
/// # Errors
/// The first fault.
///
/// # Panics
/// If the decoding of an input never ends.
pub fn campaign(
    targets: &'static [Target],
    inputs: usize,
    seed: u64,
    bounds: Bounds,
) -> CampaignResult {
    let current = Current::default();
    let shared = current.clone();
    let (sender, receiver) = channel();
    let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut runs: Vec<TargetRun> = targets.iter().map(TargetRun::new).collect();
        let mut rng = Rng::new(seed);
        let result = (0..inputs).try_for_each(|number| {
            let run = &mut runs[choose_target(&mut rng, targets)];
            let input = run.next_input(&mut rng);
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = (number, input.clone());
            run.send(input, bounds)
        });
        let tallies = runs.into_iter().map(|run| run.tally).collect();
        // The receiver is gone if the campaign has panicked.
        let _ = sender.send(result.map(|()| tallies));
    });
    worker.expect("a thread can be started");
    wait_for_result(&receiver, &current)
}

/// The number of the current input, and the input.
type Current = Arc<Mutex<(usize, Vec<u8>)>>;

/// Waits for the end of a campaign, and prints its progress once a minute.
fn wait_for_result(receiver: &Receiver<CampaignResult>, current: &Current) -> CampaignResult {
    let mut last = None;
    loop {
        match receiver.recv_timeout(HANG_TIMEOUT) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => panic!("the thread of the campaign panicked"),
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

/// The index of a random target, by the weights.
fn choose_target(rng: &mut Rng, targets: &[Target]) -> usize {
    let all = targets.iter().map(|target| target.weight).sum();
    let mut drawn = rng.below(all);
    let is_drawn = |target: &Target| match drawn.checked_sub(target.weight) {
        Some(rest) => {
            drawn = rest;
            false
        }
        None => true,
    };
    targets.iter().position(is_drawn).unwrap_or_default()
}

/// One target in a campaign.
struct TargetRun {
    target: &'static Target,
    decoder: Box<dyn Decoder>,
    /// The corpus, and every input with new coverage.
    kept: Vec<Vec<u8>>,
    /// The number of inputs in the corpus, which `kept` starts with.
    corpus: usize,
    tally: Tally,
}

impl TargetRun {
    fn new(target: &'static Target) -> TargetRun {
        let kept: Vec<_> = corpus(target.corpus)
            .into_iter()
            .map(|(_, input)| input)
            .collect();
        TargetRun {
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

    /// First each input of the corpus, then mutated inputs.
    fn next_input(&self, rng: &mut Rng) -> Vec<u8> {
        if self.tally.inputs < self.corpus {
            return self.kept[self.tally.inputs].clone();
        }
        let old = &self.kept[rng.below(self.kept.len())];
        let other = &self.kept[rng.below(self.kept.len())];
        mutated(rng, old, other)
    }

    fn send(&mut self, input: Vec<u8>, bounds: Bounds) -> Result<(), Finding> {
        let decoder = &mut self.decoder;
        let (coverage, cost) =
            trial(bounds, || decoder.decode(&input)).map_err(|fault| Finding {
                target: self.target.name,
                input: input.clone(),
                fault,
            })?;
        let tally = &mut self.tally;
        tally.inputs += 1;
        tally.largest_cost.time = tally.largest_cost.time.max(cost.time);
        tally.largest_cost.memory = tally.largest_cost.memory.max(cost.memory);
        if tally.coverage.insert(coverage) && self.kept.len() < MAX_KEPT {
            self.kept.push(input);
        }
        if tally.inputs.is_multiple_of(INPUTS_PER_DECODER) {
            self.decoder = (self.target.start)();
        }
        Ok(())
    }
}
