//! `Report`: the counts of a workload, and the line that shows them.

use std::time::Duration;

use parking_lot::Mutex;

use super::history::Violation;

/// Descriptions of problems that are kept. Later ones are only counted.
const MAX_PROBLEMS: usize = 20;

/// The counts of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Reads with a reply.
    pub reads: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Failed calls.
    pub failed: u64,
    /// Reads that returned no value although one was acknowledged.
    pub missing: u64,
    /// Reads that returned a value that is older than the acknowledged one, or was never written.
    pub stale: u64,
    /// The time of the longest read since the last [`Recorder::reset_stalls`].
    pub longest_read: Duration,
    /// The time of the longest write since the last [`Recorder::reset_stalls`].
    pub longest_write: Duration,
    /// Descriptions of the first failed calls and incorrect replies.
    pub problems: Vec<String>,
}

impl Report {
    /// Did no call fail, and were all replies correct?
    pub fn is_clean(&self) -> bool {
        self.failed + self.missing + self.stale == 0
    }

    /// The counts in one line. `longest` is the time of the longest call.
    pub fn line(&self, longest: Duration) -> String {
        let lost = self.missing + self.stale;
        format!(
            "{} reads, {} writes, {} failed, {lost} lost, longest {} ms",
            self.reads,
            self.writes,
            self.failed,
            longest.as_millis()
        )
    }

    fn add_problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// Counts calls and their results. Shared by the threads of a workload.
#[derive(Default)]
pub struct Recorder {
    report: Mutex<Report>,
}

impl Recorder {
    /// The counts so far.
    pub fn report(&self) -> Report {
        self.report.lock().clone()
    }

    /// Returns the times of the longest read and of the longest write since the last call of
    /// this method, and resets them.
    pub fn reset_stalls(&self) -> (Duration, Duration) {
        let mut report = self.report.lock();
        let read = std::mem::take(&mut report.longest_read);
        let write = std::mem::take(&mut report.longest_write);
        (read, write)
    }

    /// Counts a read with a reply, and whether the reply is correct.
    pub fn read(&self, took: Duration, checked: Result<(), Violation>) {
        let mut report = self.report.lock();
        report.reads += 1;
        report.longest_read = report.longest_read.max(took);
        match checked {
            Ok(()) => (),
            Err(Violation::Missing(problem)) => {
                report.missing += 1;
                report.add_problem(problem);
            }
            Err(Violation::Stale(problem)) => {
                report.stale += 1;
                report.add_problem(problem);
            }
        }
    }

    /// Counts an acknowledged write.
    pub fn written(&self, took: Duration) {
        let mut report = self.report.lock();
        report.writes += 1;
        report.longest_write = report.longest_write.max(took);
    }

    /// Counts a failed call.
    pub fn failed(&self, problem: String) {
        let mut report = self.report.lock();
        report.failed += 1;
        report.add_problem(problem);
    }
}
