//! `Report`: how many calls a run made, and how long they took.

use std::env::consts::{ARCH, OS};
use std::thread::available_parallelism;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use thrifty_p2p::plural::counted;

/// Times are kept to better than one part in a hundred.
const DIGITS: u8 = 2;

/// A figure of a report: its name, and the decimals that are shown.
pub type Figure = (&'static str, usize, fn(&Report) -> f64);

/// All figures of a report. Times are in milliseconds.
pub const FIGURES: [Figure; 10] = [
    ("rate", 0, Report::rate),
    ("p50", 3, |report| report.millis(0.5)),
    ("p90", 3, |report| report.millis(0.9)),
    ("p99", 3, |report| report.millis(0.99)),
    ("p99.9", 3, |report| report.millis(0.999)),
    ("max", 3, |report| report.millis(1.0)),
    ("calls", 0, |report| report.times.len() as f64),
    ("keys", 0, |report| report.keys as f64),
    ("failed", 0, |report| report.failed as f64),
    ("seconds", 3, |report| report.elapsed.as_secs_f64()),
];

/// The calls of a run, or of one worker in it.
pub struct Report {
    /// The name of what was called.
    pub name: String,
    /// Nanoseconds of each answered call.
    times: Histogram<u64>,
    /// Keys in answered calls.
    pub keys: u64,
    /// Calls that failed.
    pub failed: u64,
    /// The time from the first call to the last one.
    pub elapsed: Duration,
}

impl Report {
    /// A report of no calls.
    pub fn new(name: &str) -> Report {
        Report {
            name: name.to_owned(),
            times: Histogram::new(DIGITS).expect("the number of digits is valid"),
            keys: 0,
            failed: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Adds an answered call.
    pub fn answered(&mut self, time: Duration, keys: usize) {
        let recorded = self.times.record(time.as_nanos() as u64);
        recorded.expect("the histogram grows as needed");
        self.keys += keys as u64;
    }

    /// Adds all calls of another report.
    pub fn add(&mut self, other: &Report) {
        let added = self.times.add(&other.times);
        added.expect("the histogram grows as needed");
        self.keys += other.keys;
        self.failed += other.failed;
    }

    /// Keys per second.
    pub fn rate(&self) -> f64 {
        self.keys as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The milliseconds that this fraction of the calls, from 0 to 1, did not exceed.
    fn millis(&self, fraction: f64) -> f64 {
        self.times.value_at_quantile(fraction) as f64 / 1e6
    }

    /// The line above all [`row`](Report::row)s.
    pub fn header() -> String {
        let names = FIGURES.map(|(name, ..)| format!("{name:>10}"));
        format!("{:15}{}", "run", names.concat())
    }

    /// The report as one line.
    pub fn row(&self) -> String {
        let cells = FIGURES.map(|(_, decimals, of)| format!("{:10.decimals$}", of(self)));
        format!("{:15}{}", self.name, cells.concat())
    }

    /// The report as a JSON object.
    pub fn json(&self) -> Value {
        let figures = FIGURES.map(|(name, _, of)| (name.to_owned(), json!(of(self))));
        let mut json = Map::from_iter(figures);
        json.insert("run".to_owned(), json!(self.name));
        json.into()
    }
}

/// The machine, and whether figures measured by this build are worth anything.
pub fn machine() -> String {
    let cores = counted(
        available_parallelism().map_or(0, |cores| cores.get()),
        "core",
    );
    let build = if cfg!(debug_assertions) {
        "; a debug build, not for measurements"
    } else {
        ""
    };
    format!("{cores}, {OS} on {ARCH}{build}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut report = Report::new("all");
        for half in [1..=500, 501..=1000] {
            let mut part = Report::new("half");
            half.for_each(|micros| part.answered(Duration::from_micros(micros), 2));
            report.add(&part);
        }
        report.elapsed = Duration::from_secs(2);
        for (fraction, millis) in [(0.5, 0.5), (0.99, 0.99), (0.999, 0.999), (1.0, 1.0)] {
            let found = report.millis(fraction);
            let expected = millis..=millis * 1.01;
            assert!(expected.contains(&found), "{fraction}: {found}");
        }
        assert_eq!((report.keys, report.rate()), (2000, 1000.0));
    }

    #[test]
    fn a_report_without_calls_has_zeros() {
        let json = Report::new("none").json();
        assert_eq!((&json["rate"], &json["p99"]), (&json!(0.0), &json!(0.0)));
    }
}
