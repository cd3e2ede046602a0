//! `History`: what was written, and which replies to a read are correct.
//!
//! Each key has one writer. It numbers its writes of the key from 1 and puts the number into the
//! value, so a reply to a read shows which write it is. A read is correct if it returns the last
//! write that was acknowledged before the read began, or one that was started later.
//!
//! Some writes delete the key. For them the correct reply is that the key has no value.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A write whose number is a multiple of this is a deletion.
pub const DELETE_INTERVAL: u64 = 7;

/// The size of all values, in bytes.
const VALUE_SIZE: usize = 60;

/// The writes of all keys. Keys are numbered from 0.
pub struct History {
    keys: Vec<KeyHistory>,
}

/// The writes of one key.
#[derive(Default)]
struct KeyHistory {
    /// The number of the last acknowledged write. 0 before the first one.
    acknowledged: AtomicU64,
    /// The number of the last started write. 0 before the first one.
    started: AtomicU64,
}

/// A reply to a read that is not correct, with its description.
pub enum Violation {
    /// There was no value, although one was acknowledged.
    Missing(String),
    /// The value is older than the acknowledged one, or was never written.
    Stale(String),
}

impl History {
    /// The history of this many keys without writes.
    pub fn new(keys: usize) -> History {
        let keys = (0..keys).map(|_| KeyHistory::default());
        History {
            keys: keys.collect(),
        }
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The number of the last acknowledged write of a key.
    pub fn acknowledged(&self, key: usize) -> u64 {
        self.keys[key].acknowledged.load(SeqCst)
    }

    /// Starts a write of a key. Returns its number. Called by the writer of the key only.
    pub fn start_write(&self, key: usize) -> u64 {
        self.keys[key].started.fetch_add(1, SeqCst) + 1
    }

    /// Records that this write of a key was acknowledged. Called by the writer of the key only.
    pub fn acknowledge(&self, key: usize, write: u64) {
        self.keys[key].acknowledged.store(write, SeqCst);
    }

    /// Checks the reply to a read of a key. `floor` is the last write that was acknowledged
    /// before the read began.
    ///
    /// # Errors
    /// The reply is not correct.
    pub fn check(&self, key: usize, floor: u64, value: Option<&[u8]>) -> Result<(), Violation> {
        let last = self.keys[key].started.load(SeqCst);
        let Some(value) = value else {
            if floor == 0 || (floor..=last).any(is_deletion) {
                return Ok(());
            }
            return Err(Violation::Missing(format!(
                "key {key} has no value; write {floor} was acknowledged"
            )));
        };
        let write = write_of(value);
        if (floor..=last).contains(&write) && !is_deletion(write) {
            return Ok(());
        }
        Err(Violation::Stale(format!(
            "key {key} has the value of write {write}; write {floor} was acknowledged, {last} was \
             the last one started"
        )))
    }
}

/// The value of a write. None if it is a deletion.
pub fn value_of(write: u64) -> Option<Vec<u8>> {
    (!is_deletion(write)).then(|| format!("{write:.<VALUE_SIZE$}").into_bytes())
}

/// The number of the write that has this value. 0, which is never correct, if there is none.
fn write_of(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    text.trim_end_matches('.').parse().unwrap_or(0)
}

/// Is this write of a key a deletion?
fn is_deletion(write: u64) -> bool {
    write.is_multiple_of(DELETE_INTERVAL)
}
