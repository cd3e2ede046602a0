//! `Report`: the counts of a workload, and the line that shows them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thrifty_p2p::plural::counted;

use super::history::Problem;

/// Descriptions of problems that are kept. Later ones are only counted.
const MAX_PROBLEMS: usize = 20;

/// The counts of a workload. A batched call counts once for each of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Reads with a reply.
    pub reads: u64,
    /// Acknowledged writes and deletions.
    pub writes: u64,
    /// Failed calls.
    pub failed: u64,
    /// Parts of the history of a key that are not linearizable.
    pub violations: u64,
    /// Parts of the history of a key whose check was ended at its limit.
    pub undecided: u64,
    /// The longest time for which a key could not be read, since the last
    /// [`Recorder::reset_stalls`].
    pub longest_read: Duration,
    /// The longest time for which a key could not be written, as above.
    pub longest_write: Duration,
    /// Descriptions of the first failed calls and violations.
    pub problems: Vec<String>,
}

impl Report {
    /// Did no call fail, and are all histories linearizable?
    pub fn is_clean(&self) -> bool {
        self.failed + self.violations + self.undecided == 0
    }

    /// The counts in one line. `longest` is the longest stall.
    pub fn line(&self, longest: Duration) -> String {
        format!(
            "{}, {}, {} failed, {}, longest {} ms",
            counted(self.reads, "read"),
            counted(self.writes, "write"),
            self.failed,
            counted(self.violations, "violation"),
            longest.as_millis()
        )
    }

    fn add_problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// What a call does with its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
}

/// Counts calls and their results. Shared by the threads of a workload.
#[derive(Default)]
pub struct Recorder {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    report: Report,
    /// When the first call of a key began that failed, if none has succeeded since then.
    failing: HashMap<(Access, usize), Instant>,
}

impl Recorder {
    /// The counts so far.
    pub fn report(&self) -> Report {
        self.counts.lock().report.clone()
    }

    /// Returns the longest stalls of reads and of writes since the last call of this method, and
    /// resets them. A stall is the time from the start of a call to the first success for its
    /// key.
    pub fn reset_stalls(&self) -> (Duration, Duration) {
        let report = &mut self.counts.lock().report;
        let read = std::mem::take(&mut report.longest_read);
        let write = std::mem::take(&mut report.longest_write);
        (read, write)
    }

    /// Counts a successful access to a key, by a call that began at that time.
    pub fn succeeded(&self, access: Access, key: usize, began: Instant) {
        let mut counts = self.counts.lock();
        let failing = counts.failing.remove(&(access, key));
        let stall = failing.map_or(began, |since| since.min(began)).elapsed();
        let report = &mut counts.report;
        let (count, longest) = match access {
            Access::Read => (&mut report.reads, &mut report.longest_read),
            Access::Write => (&mut report.writes, &mut report.longest_write),
        };
        *count += 1;
        *longest = stall.max(*longest);
    }

    /// Records that a call for a key did not succeed.
    pub fn stalled(&self, access: Access, key: usize, began: Instant) {
        let mut counts = self.counts.lock();
        let since = counts.failing.entry((access, key)).or_insert(began);
        *since = began.min(*since);
    }

    /// Counts a failed call.
    pub fn failed(&self, problem: String) {
        let mut counts = self.counts.lock();
        counts.report.failed += 1;
        counts.report.add_problem(problem);
    }

    /// Counts a problem of a key with this name.
    pub fn found(&self, key: &str, problem: Problem) {
        let report = &mut self.counts.lock().report;
        match problem {
            Problem::Violation(text) => {
                report.violations += 1;
                report.add_problem(format!("key {key:?}: {text}"));
            }
            Problem::Undecided => {
                report.undecided += 1;
                report.add_problem(format!("key {key:?}: the check was ended at its limit"));
            }
        }
    }
}
