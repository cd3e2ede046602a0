//! `History`: the operations on each key, and whether they are linearizable.
//!
//! Each write has a value of its own: a number in its bytes. An operation starts before its call
//! and ends after its reply, by one monotonic clock. A write without a reply, or with an error,
//! may take effect at any time, or never. A read without a reply counts for nothing.
//!
//! The operations on a key are checked and dropped while none of them is in progress, about every
//! second. Some hot keys always have an operation in progress for a while, for example while a
//! node hangs. A key with [`MAX_UNCHECKED`] operations is to be left alone until then.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::linearizable::{Checker, Kind, Operation, Verdict};

/// The size of all values, in bytes.
const VALUE_SIZE: usize = 60;

/// Operations on one key that are kept, some megabytes.
const MAX_UNCHECKED: usize = 50_000;

/// The operations on a key are checked when they are so many,
const PART_SIZE: usize = 500;

/// or when the first one is so old.
const PART_AGE: Duration = Duration::from_secs(1);

/// The limit of each check. It takes about a second.
const LIMIT: usize = 300_000;

/// The number that stands for a value that no write has.
const FOREIGN: u64 = 0;

/// The operations on all keys. Keys are numbered from 0.
pub struct History {
    keys: Vec<Mutex<KeyHistory>>,
    began: Instant,
    /// The number of the last write.
    last_write: AtomicU64,
}

/// The operations on one key.
struct KeyHistory {
    /// Those that were not checked yet.
    operations: Vec<Operation>,
    in_progress: usize,
    acknowledged: u64,
    checker: Checker,
}

/// An operation in progress.
pub struct Started {
    key: usize,
    time: u64,
}

/// Why the operations on a key are not known to be linearizable.
pub enum Problem {
    /// They have no order.
    Violation(String),
    /// The check was ended at its limit.
    Undecided,
}

impl History {
    /// The history of this many keys that have no value.
    pub fn new(keys: usize) -> History {
        let key = || KeyHistory {
            operations: Vec::new(),
            in_progress: 0,
            acknowledged: 0,
            checker: Checker::new(LIMIT),
        };
        History {
            keys: (0..keys).map(|_| Mutex::new(key())).collect(),
            began: Instant::now(),
            last_write: AtomicU64::new(FOREIGN),
        }
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many writes and deletions of a key were acknowledged.
    pub fn acknowledged(&self, key: usize) -> u64 {
        self.keys[key].lock().acknowledged
    }

    /// Must the key be left alone until its operations are checked?
    pub fn is_full(&self, key: usize) -> bool {
        self.keys[key].lock().operations.len() >= MAX_UNCHECKED
    }

    /// The number of a new write.
    pub fn next_write(&self) -> u64 {
        self.last_write.fetch_add(1, SeqCst) + 1
    }

    /// Starts an operation on a key, before its call.
    pub fn start(&self, key: usize) -> Started {
        let mut history = self.keys[key].lock();
        history.in_progress += 1;
        let time = self.now();
        Started { key, time }
    }

    /// Ends a read, after its reply: what it returned. None if it failed.
    ///
    /// # Errors
    /// The operations on the key were checked now, and there is a problem.
    pub fn end_read(&self, started: &Started, reply: Option<Option<&[u8]>>) -> Result<(), Problem> {
        let kind = reply.map(|value| Kind::Read(value.map(write_of)));
        self.end(started, kind, true)
    }

    /// Ends the write with this number, or the deletion if there is none.
    ///
    /// # Errors
    /// As for [`end_read`](History::end_read).
    pub fn end_write(
        &self,
        started: &Started,
        write: Option<u64>,
        is_acknowledged: bool,
    ) -> Result<(), Problem> {
        let kind = write.map_or(Kind::Delete, Kind::Write);
        self.end(started, Some(kind), is_acknowledged)
    }

    /// Ends a write that was made only if the key had the value `from`, or none, and that replaced it
    /// by that of the write with this number, or by none.
    ///
    /// # Errors
    /// As for [`end_read`](History::end_read).
    pub fn end_swap(
        &self,
        started: &Started,
        from: Option<&[u8]>,
        to: Option<u64>,
        is_acknowledged: bool,
    ) -> Result<(), Problem> {
        let from = from.map(write_of);
        self.end(started, Some(Kind::Swap { from, to }), is_acknowledged)
    }

    fn end(&self, started: &Started, kind: Option<Kind>, has_reply: bool) -> Result<(), Problem> {
        let mut history = self.keys[started.key].lock();
        let now = self.now();
        history.in_progress -= 1;
        if let Some(kind) = kind {
            let is_write = !matches!(kind, Kind::Read(_));
            history.acknowledged += u64::from(is_write && has_reply);
            history.operations.push(Operation {
                start: started.time,
                end: has_reply.then_some(now),
                kind,
            });
        }
        let first = history.operations.first();
        let is_old = first.is_some_and(|first| now - first.start > PART_AGE.as_nanos() as u64);
        if history.in_progress == 0 && (is_old || history.operations.len() >= PART_SIZE) {
            return history.check();
        }
        Ok(())
    }

    /// Checks the operations on a key that were not checked yet. None is in progress.
    ///
    /// # Errors
    /// There is a problem.
    pub fn check(&self, key: usize) -> Result<(), Problem> {
        self.keys[key].lock().check()
    }

    /// The time since the start, in nanoseconds.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl KeyHistory {
    fn check(&mut self) -> Result<(), Problem> {
        let part = std::mem::take(&mut self.operations);
        match self.checker.check(&part) {
            Verdict::Linearizable => Ok(()),
            Verdict::Violation(found) => Err(Problem::Violation(found.to_string())),
            Verdict::Undecided => Err(Problem::Undecided),
        }
    }
}

/// The value of a write.
pub fn value_of(write: u64) -> Vec<u8> {
    format!("{write:.<VALUE_SIZE$}").into_bytes()
}

/// The number of the write that has this value.
fn write_of(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    text.trim_end_matches('.').parse().unwrap_or(FOREIGN)
}
