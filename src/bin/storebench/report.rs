//! `Report`: how many calls there were, and how long they took.

use std::fmt;
use std::time::Duration;

/// The times of all calls of a run.
pub struct Report {
    /// Nanoseconds, sorted.
    times: Vec<u64>,
    failed: usize,
    elapsed: Duration,
}

impl Report {
    /// The report of calls that took so many nanoseconds each, `failed` ones left out.
    pub fn new(mut times: Vec<u64>, failed: usize, elapsed: Duration) -> Report {
        times.sort_unstable();
        Report {
            times,
            failed,
            elapsed,
        }
    }

    /// How many calls were not answered.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The time within which this share of the calls was done, in milliseconds.
    fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.times
            .get(place)
            .map_or(0.0, |nanos| *nanos as f64 / 1e6)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.0} calls/s  ms:", self.rate())?;
        for (name, share) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("max", 1.0),
        ] {
            write!(f, "  {name} {:.3}", self.percentile(share))?;
        }
        write!(f, "  ({} calls, {} failed)", self.times.len(), self.failed)
    }
}
