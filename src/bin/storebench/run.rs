//! `run`: all workers call at the same time, each on its own thread.
//!
//! The workers share the machine with the server, so the bookkeeping of a call is small:
//! one look at the clock, one entry in a histogram.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::report::Report;
use crate::worker::Worker;

/// All runs end at once, because of ctrl-C.
pub static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Which part of a run is measured.
#[derive(Debug, Clone, Copy)]
pub struct RunLength {
    /// Calls at the start that are not measured.
    pub warm_up: Duration,
    /// How long the measured part lasts at most.
    pub time: Duration,
    /// How many operations, by all workers together, end it before.
    pub operations: u64,
}

impl RunLength {
    /// Longer than any run.
    pub const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 3600);

    /// Until the workers have no call left.
    pub const UNTIL_DONE: RunLength = RunLength {
        warm_up: Duration::ZERO,
        time: RunLength::UNLIMITED,
        operations: u64::MAX,
    };
}

/// Runs all workers to their end.
pub fn run(name: &str, workers: Vec<Worker<'_>>, length: RunLength) -> Report {
    let start = Instant::now() + length.warm_up;
    let count = workers.len() as u64;
    let mut report = Report::new(name);
    thread::scope(|scope| {
        let threads = (0..).zip(workers).map(|(number, worker)| {
            let rest = u64::from(number < length.operations % count);
            let operations = length.operations / count + rest;
            scope.spawn(move || calls(worker, start, start + length.time, operations))
        });
        for thread in threads.collect::<Vec<_>>() {
            report.add(&thread.join().expect("a worker does not panic"));
        }
    });
    report.elapsed = start.elapsed().min(length.time);
    report
}

/// The calls of one worker, from `start` until `end` or until so many operations are done.
fn calls(mut worker: Worker<'_>, start: Instant, end: Instant, operations: u64) -> Report {
    let mut report = Report::new("");
    let mut before = Instant::now();
    while report.keys + report.failed < operations && !IS_STOPPED.load(Relaxed) {
        let Some(answer) = worker.call() else { break };
        let now = Instant::now();
        if now >= end {
            break;
        }
        if before >= start {
            match answer {
                Ok(keys) => report.answered(now - before, keys),
                Err(_) => report.failed += 1,
            }
        }
        before = now;
    }
    report
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::contender::{Answer, Connection, Contender};
    use crate::keys::KeyBytes;
    use crate::options::Options;
    use crate::worker::Workload;

    /// A server that refuses to write the key 7.
    struct Fake;

    impl Connection for Fake {
        fn read(&mut self, keys: &[KeyBytes], _: usize) -> Answer {
            Ok(keys.len())
        }

        fn write(&mut self, keys: &[KeyBytes], _: &[u8]) -> Answer {
            if keys.contains(b"sb/000000007") {
                return Err("refused".into());
            }
            Ok(keys.len())
        }
    }

    fn fake() -> Contender<'static> {
        Contender::new("fake", true, || Ok(Box::new(Fake)))
    }

    fn workload(batch: &str) -> Workload {
        let options = ["", "--connections", "2", "--keys", "31", "--batch", batch];
        Options::parse_from(options).workload
    }

    #[test]
    fn every_key_is_loaded_once_and_every_call_is_in_the_report() {
        let figures = |batch| {
            let json = fake().load(&workload(batch)).unwrap().json();
            ["calls", "keys", "failed"].map(|name| json[name].as_f64().unwrap())
        };
        assert_eq!(figures("1"), [30.0, 30.0, 1.0]);
        // For 15 and 16 keys each worker makes four calls, of which one fails.
        assert_eq!(figures("4"), [7.0, 27.0, 1.0]);
    }

    #[test]
    fn operations_are_divided_among_the_workers_and_exceeded_by_less_than_a_call() {
        let length = RunLength {
            operations: 7,
            ..RunLength::UNTIL_DONE
        };
        // Four and three of them, by calls of two.
        let report = fake().measure(&workload("2"), length).unwrap();
        assert_eq!(report.keys, 8);
    }

    #[test]
    fn calls_during_the_warm_up_are_not_measured() {
        let length = RunLength {
            warm_up: Duration::from_secs(60),
            ..RunLength::UNTIL_DONE
        };
        let (contender, workload) = (fake(), workload("1"));
        let mut worker = Worker::new(&contender, &workload, Box::new(Fake), 0);
        worker.to_load = Some(0..7);
        assert_eq!(run("fake", vec![worker], length).keys, 0);
    }
}
