//! `Report`: how many calls there were, and how long they took.

use std::env::consts::{ARCH, OS};
use std::thread::available_parallelism;
use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;

/// The percentiles that are told.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// What came of the calls of one run.
pub struct Report {
    name: String,
    times: Histogram,
    operations: u64,
    failed: u64,
    elapsed: Duration,
}

impl Report {
    /// A report of no calls yet, by the name of what is called.
    pub fn new(name: &str) -> Report {
        Report {
            name: name.to_owned(),
            times: Histogram::default(),
            operations: 0,
            failed: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Adds answered calls with their times and operations, and how many calls failed.
    pub(super) fn add(&mut self, times: &Histogram, operations: u64, failed: u64) {
        self.times.merge(times);
        self.operations += operations;
        self.failed += failed;
    }

    /// The calls took so long, all in all.
    pub(super) fn took(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// The name of what was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many calls were answered.
    pub fn calls(&self) -> u64 {
        self.times.count()
    }

    /// How many operations they were for.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// How many calls were not answered.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The time within which this share of the calls, from 0 to 1, was done, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        self.times.percentile(share) as f64 / 1e6
    }

    /// The line above [`row`](Report::row)s; `operations` are what the rate counts.
    pub fn heads(operations: &str) -> String {
        let rate = format!("{operations}/s");
        let times = PERCENTILES.map(|(name, _)| format!("{:>10}", format!("{name} ms")));
        let times = times.concat();
        format!("{:10}{rate:>10}{times}{:>10}{:>8}", "", "calls", "failed")
    }

    /// The report in one line.
    pub fn row(&self) -> String {
        let times = PERCENTILES.map(|(_, share)| format!("{:10.3}", self.percentile(share)));
        let (name, rate, times) = (&self.name, self.rate(), times.concat());
        let (calls, failed) = (self.calls(), self.failed);
        format!("{name:10}{rate:10.0}{times}{calls:10}{failed:8}")
    }

    /// The report as a JSON object; times are in milliseconds.
    pub fn json(&self) -> Value {
        let times = PERCENTILES.map(|(name, share)| (name.to_owned(), self.percentile(share)));
        let times: serde_json::Map<String, Value> = times
            .into_iter()
            .map(|(name, time)| (name, json!(time)))
            .collect();
        json!({
            "name": self.name,
            "rate": self.rate(),
            "milliseconds": times,
            "calls": self.calls(),
            "operations": self.operations,
            "failed": self.failed,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }
}

/// The machine, and what else there is to know about figures from it.
pub fn machine() -> String {
    let cores = available_parallelism().map_or(0, |cores| cores.get());
    let build = if cfg!(debug_assertions) {
        "; a debug build, whose figures mean little"
    } else {
        ""
    };
    format!("{cores} cores, {OS} on {ARCH}{build}")
}
