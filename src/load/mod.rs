//! A load on a server: threads that call, one call after another each, and a report of
//! what came of it.
//!
//! Made for comparisons. Whatever is measured, a store, another program's server or a
//! bare echo, is called by the same threads with the same bookkeeping, and those that
//! are compared take turns ([`rounds`]), so that a machine that is slower for a while
//! is so for all of them.
//!
//! The callers share the machine with the server, so what they do beside calling is
//! kept small: one look at the clock and two additions a call. Memory does not grow
//! with the length of a run ([`histogram`]).

pub mod by_hand;
pub mod echo;
pub mod histogram;
pub mod keys;
mod progress;
pub mod report;
pub mod rounds;
pub mod store;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use histogram::Histogram;
use progress::Progress;
use report::Report;

/// Who makes the calls of one thread, over a connection of its own.
pub trait Caller: Send {
    /// Makes one call, and blocks until it is answered or has failed. Nothing when there
    /// are no more to make. Called by one thread, without a pause.
    fn call(&mut self) -> Option<Outcome>;
}

/// What came of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, for so many operations: one, or the keys of a batch.
    Answered(u64),
    /// It was not answered, or not as it should have been.
    Failed,
}

/// What of a run is measured.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// What is not measured yet: connections are made and code is warm after it.
    pub warm_up: Duration,
    /// What is.
    pub measured: Measured,
}

/// How long a measurement lasts.
#[derive(Debug, Clone, Copy)]
pub enum Measured {
    /// So long, or until the callers have no more calls to make.
    Time(Duration),
    /// Until so many operations are done, by all callers together.
    Operations(u64),
}

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Span {
    /// Until the callers have no more calls to make.
    pub const ALL: Span = Span {
        warm_up: Duration::ZERO,
        measured: Measured::Time(FOR_EVER),
    };

    fn time(&self) -> Duration {
        match self.measured {
            Measured::Time(time) => time,
            Measured::Operations(_) => FOR_EVER,
        }
    }

    /// The operations of one of so many callers.
    fn operations(&self, number: usize, callers: usize) -> u64 {
        let (number, callers) = (number as u64, callers as u64);
        match self.measured {
            Measured::Time(_) => u64::MAX,
            Measured::Operations(all) => all / callers + u64::from(number < all % callers),
        }
    }
}

/// What one caller has done; the operations are read by others meanwhile. On a line of
/// the cache of its own, lest the callers slow one another down.
#[derive(Default)]
#[repr(align(128))]
struct Meter(AtomicU64);

/// The calls of one thread.
struct Record {
    times: Histogram,
    operations: u64,
    failed: u64,
}

/// Lets every caller call on a thread of its own, and reports on it by this name.
/// Shows how far it is on a terminal.
pub fn drive(name: &str, callers: Vec<impl Caller>, span: Span) -> Report {
    let meters: Vec<Meter> = callers.iter().map(|_| Meter::default()).collect();
    let count = callers.len();
    let begin = Instant::now() + span.warm_up;
    let mut report = Report::new(name);
    thread::scope(|scope| {
        let (running, all_are_over) = mpsc::channel();
        let callers = callers.into_iter().zip(&meters).enumerate();
        let start = |(number, (caller, meter))| {
            let until = Until {
                time: begin + span.time(),
                operations: span.operations(number, count),
            };
            let running = running.clone();
            scope.spawn(move || {
                let _running: mpsc::Sender<()> = running;
                calls(caller, begin, until, meter)
            })
        };
        let threads: Vec<_> = callers.map(start).collect();
        drop(running);
        watch(name, begin, &meters, &all_are_over);
        for thread in threads {
            let record = thread.join().expect("no caller panics");
            report.add(&record.times, record.operations, record.failed);
        }
    });
    report.took(begin.elapsed().min(span.time()));
    report
}

/// When one caller is done: whatever comes first.
struct Until {
    time: Instant,
    operations: u64,
}

fn calls(mut caller: impl Caller, begin: Instant, until: Until, meter: &Meter) -> Record {
    let mut record = Record {
        times: Histogram::default(),
        operations: 0,
        failed: 0,
    };
    let mut before = Instant::now();
    while record.operations + record.failed < until.operations {
        let Some(outcome) = caller.call() else { break };
        let now = Instant::now();
        if now >= until.time {
            break;
        }
        if before >= begin {
            match outcome {
                Outcome::Answered(operations) => {
                    record.times.add((now - before).as_nanos() as u64);
                    record.operations += operations;
                    meter.0.store(record.operations, Relaxed);
                }
                Outcome::Failed => record.failed += 1,
            }
        }
        before = now;
    }
    record
}

/// Shows each second what the callers have done, until all are over.
fn watch(name: &str, begin: Instant, meters: &[Meter], all_are_over: &Receiver<()>) {
    let mut progress = Progress::of(name);
    while let Err(RecvTimeoutError::Timeout) = all_are_over.recv_timeout(Duration::from_secs(1)) {
        let done = meters.iter().map(|meter| meter.0.load(Relaxed)).sum();
        progress.show(begin.elapsed(), done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers so many calls, after one that fails.
    struct Counted(u64);

    impl Caller for Counted {
        fn call(&mut self) -> Option<Outcome> {
            self.0 = self.0.checked_sub(1)?;
            Some(if self.0 == 0 {
                Outcome::Failed
            } else {
                Outcome::Answered(2)
            })
        }
    }

    #[test]
    fn every_call_of_every_caller_is_in_the_report() {
        let report = drive("load", vec![Counted(11), Counted(6)], Span::ALL);
        assert_eq!(
            (report.calls(), report.operations(), report.failed()),
            (15, 30, 2)
        );
    }

    #[test]
    fn operations_are_shared_among_the_callers_and_not_exceeded_by_more_than_a_call() {
        let span = Span {
            warm_up: Duration::ZERO,
            measured: Measured::Operations(7),
        };
        let callers = vec![Counted(u64::MAX), Counted(u64::MAX)];
        // Four and three of them, by calls of two.
        assert_eq!(drive("load", callers, span).operations(), 8);
    }

    #[test]
    fn what_was_called_while_warming_up_is_not_measured() {
        let span = Span {
            warm_up: Duration::from_secs(60),
            measured: Measured::Time(Duration::from_secs(1)),
        };
        assert_eq!(drive("load", vec![Counted(100)], span).calls(), 0);
    }
}
