//! `SplitLosses`: counts the values that were written in a split and superseded after it.
//!
//! Both sides of a split may write a key. When they meet, the larger version wins, and nodes that
//! get a losing value, or lose their own, note the key. When all is settled, one node counts it:
//! the node that wrote the losing value, if it is an owner of the key still, because it cannot get
//! the winning value without losing its own; or else the primary, which copies from all former
//! owners. What was written shortly before the split was noticed counts too, because the other
//! side may not have got it.
//!
//! The count is a lower bound: a key is missed if its nodes restart before all is settled, or if the
//! winning value comes to them as a write: a client's, or one that was unfinished when the split
//! ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::versions::{writer_of, written_at};

/// The time in which a member is declared down, in milliseconds.
const DETECTION_MS: i64 = 5_000;

/// The most keys of one split that are noted.
const MAX_KEYS: usize = 1_000_000;

/// What this node has counted. Shared by threads; times are milliseconds since 1970.
#[derive(Debug, Default)]
pub struct SplitLosses {
    /// What was written before cannot have been superseded by the split. 0 without a split.
    since: AtomicI64,
    /// The points of the keys that lost a value in this split, with the writer of that value.
    writers: Mutex<BTreeMap<u32, u16>>,
    /// The keys that were counted in all splits.
    total: AtomicU64,
}

impl SplitLosses {
    /// Members went out of reach, and were noticed now.
    pub fn begin(&self, now: i64) {
        let since = now - DETECTION_MS;
        // Until the network has settled, it is the same split.
        let _ = self.since.compare_exchange(0, since, Relaxed, Relaxed);
    }

    /// The network has settled with all members. Counts the keys that this node is to count, by
    /// their points and the writers of the lost values, and returns their number.
    pub fn end(&self, is_mine: impl Fn(u32, u16) -> bool) -> usize {
        self.since.store(0, Relaxed);
        let writers = std::mem::take(&mut *self.writers.lock());
        let lost = writers
            .into_iter()
            .filter(|(point, writer)| is_mine(*point, *writer))
            .count();
        self.total.fetch_add(lost as u64, Relaxed);
        lost
    }

    /// The key of that point has two versions on two nodes, of which one wins. Is the other one a
    /// loss of the split that was not noted yet?
    pub fn note(&self, point: u32, one: i64, other: i64) -> bool {
        let since = self.since.load(Relaxed);
        let lost = one.min(other);
        if since == 0 || one == other || written_at(lost) < since {
            return false;
        }
        let mut writers = self.writers.lock();
        writers.len() < MAX_KEYS && writers.insert(point, writer_of(lost)).is_none()
    }

    /// The keys that were counted in all splits so far.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::versions::next_version;

    const SPLIT: i64 = 1_700_000_000_000;
    const WRITER: u16 = 4;

    fn version(millis: i64) -> i64 {
        next_version(millis, 0, WRITER)
    }

    #[test]
    fn a_key_is_noted_once_and_only_for_what_was_written_in_the_split() {
        let losses = SplitLosses::default();
        let (before, one, other) = (
            version(SPLIT - DETECTION_MS - 1),
            version(SPLIT + 1),
            version(SPLIT + 2),
        );
        assert!(!losses.note(1, one, other), "there is no split");
        losses.begin(SPLIT);
        losses.begin(SPLIT + 60_000);
        assert!(
            !losses.note(1, before, one),
            "it was only written on one side"
        );
        assert!(!losses.note(1, one, one));
        assert!(losses.note(1, one, other));
        assert!(!losses.note(1, other, one), "it is noted");
        assert!(losses.note(2, other, one));
        assert_eq!(
            (
                losses.end(|point, writer| (point, writer) == (2, WRITER)),
                losses.total()
            ),
            (1, 1)
        );
        assert!(!losses.note(3, one, other), "the split is over");
        losses.begin(SPLIT);
        assert!(losses.note(1, one, other));
        assert_eq!((losses.end(|_, _| true), losses.total()), (1, 2));
    }
}
