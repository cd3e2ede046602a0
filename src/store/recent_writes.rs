//! `RecentWrites`: what became of recent writes, by their ids, so that none runs twice.
//!
//! A write has one id in all attempts to bring it to its primary. The primary and every owner
//! that gets a copy remember the id. An attempt that arrives after another one had effect is
//! answered with the first result. The idea is that of RIFL (Lee et al., "Implementing
//! Linearizability at Large Scale and Low Latency", SOSP 2015), with a time instead of
//! acknowledgements to bound the memory: no attempt is made as long after the first as
//! it is remembered.
//!
//! That a condition was not met is remembered too: a late attempt of a write whose caller was told
//! so must not find the condition met. The primary remembers it; if earlier attempts may have gone
//! to other processes, all owners do before the caller is told ([`KeyWrites::note`]).
//!
//! [`KeyWrites::note`]: super::key_writes::KeyWrites::note

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Names one write: a random number of the process that made the name, and a number that it
/// uses once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    /// Identifies the process that made the name.
    pub origin: i64,
    /// Used once by that process.
    pub number: i64,
}

/// Makes names of writes. Shared by threads.
#[derive(Debug)]
pub struct WriteIds {
    origin: i64,
    next: AtomicI64,
}

impl Default for WriteIds {
    /// Names that differ from those of all others, because the origin is random.
    fn default() -> WriteIds {
        WriteIds {
            origin: RandomState::new().hash_one(std::process::id()) as i64,
            next: AtomicI64::new(1),
        }
    }
}

impl WriteIds {
    /// A name that was not used before.
    pub fn next(&self) -> WriteId {
        WriteId {
            origin: self.origin,
            number: self.next.fetch_add(1, Relaxed),
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOutcome {
    /// The version that it wrote, or that its undo wrote. If its condition was not met, the one
    /// that the key had, 0 without a value.
    pub version: i64,
    /// Was there a value before?
    pub existed: bool,
    /// It was given up, and what the key had before was restored.
    pub is_undone: bool,
    /// Its condition was not met, and nothing was written.
    pub is_unmet: bool,
}

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// It had this outcome, or has it where its copy is not finished yet.
    Known(WriteOutcome),
    /// This node executes it.
    Running,
    /// This node has had no part in it during the retention.
    Unknown,
    /// It may be one of those that were forgotten early, because there were too many.
    Forgotten,
}

/// How long a write is remembered, in milliseconds: longer than any attempt is repeated.
const RETENTION_MS: u64 = 30_000;

/// The most writes remembered in one shard: a million in all.
const MAX_IN_SHARD: usize = 65_536;

/// Parts of the memory, so that threads rarely meet in one.
const SHARDS: usize = 16;

/// What became of the writes of the last half minute. Shared by threads. Times are milliseconds
/// of a clock that never goes back.
#[derive(Debug, Default)]
pub struct RecentWrites {
    /// Each is held for one look-up.
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// None while the write is executed here.
    outcomes: HashMap<WriteId, Option<WriteOutcome>>,
    /// The ids in the order in which they came, with the times.
    order: VecDeque<(u64, WriteId)>,
    /// Until when an id may be missing that was forgotten early.
    forgets_until: u64,
}

impl RecentWrites {
    /// This node begins to execute a write.
    pub fn begin(&self, id: WriteId, now_ms: u64) {
        self.shard(id).record(id, None, now_ms);
    }

    /// Remembers what became of a write, in place of what was known of it.
    pub fn record(&self, id: WriteId, outcome: WriteOutcome, now_ms: u64) {
        self.shard(id).record(id, Some(outcome), now_ms);
    }

    /// This node does not execute the write any more, and has not finished it.
    pub fn abandon(&self, id: WriteId) {
        let mut shard = self.shard(id);
        if shard.outcomes.get(&id) == Some(&None) {
            shard.outcomes.remove(&id);
        }
    }

    /// What became of a write.
    pub fn recall(&self, id: WriteId, now_ms: u64) -> Recall {
        let shard = self.shard(id);
        match shard.outcomes.get(&id) {
            Some(Some(outcome)) => Recall::Known(*outcome),
            Some(None) => Recall::Running,
            None if now_ms < shard.forgets_until => Recall::Forgotten,
            None => Recall::Unknown,
        }
    }

    fn shard(&self, id: WriteId) -> parking_lot::MutexGuard<'_, Shard> {
        self.shards[(id.origin ^ id.number) as usize % SHARDS].lock()
    }
}

impl Shard {
    fn record(&mut self, id: WriteId, outcome: Option<WriteOutcome>, now_ms: u64) {
        while let Some((at, oldest)) = self.order.front().copied() {
            let is_old = at + RETENTION_MS < now_ms;
            if !is_old && self.order.len() < MAX_IN_SHARD {
                break;
            }
            if !is_old {
                self.forgets_until = self.forgets_until.max(at + RETENTION_MS);
            }
            self.order.pop_front();
            self.outcomes.remove(&oldest);
        }
        if self.outcomes.insert(id, outcome).is_none() {
            self.order.push_back((now_ms, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(version: i64) -> WriteOutcome {
        WriteOutcome {
            version,
            ..WriteOutcome::default()
        }
    }

    #[test]
    fn a_write_is_known_by_its_id_for_half_a_minute() {
        let (recent, ids) = (RecentWrites::default(), WriteIds::default());
        let (first, second) = (ids.next(), ids.next());
        recent.record(first, outcome(7), 1_000);
        assert_eq!(recent.recall(first, 2_000), Recall::Known(outcome(7)));
        assert_eq!(recent.recall(second, 2_000), Recall::Unknown);
        recent.begin(second, 2_000);
        assert_eq!(recent.recall(second, 2_000), Recall::Running);
        recent.abandon(second);
        recent.abandon(first);
        assert_eq!(recent.recall(second, 2_000), Recall::Unknown);
        recent.record(first, outcome(8), 1_500);
        assert_eq!(recent.recall(first, 2_000), Recall::Known(outcome(8)));
        // Of the same shard.
        let later = WriteId {
            number: first.number + SHARDS as i64,
            ..first
        };
        recent.record(later, outcome(9), 1_001 + RETENTION_MS);
        assert_eq!(recent.recall(first, 40_000), Recall::Unknown);
    }

    #[test]
    fn ids_of_two_processes_differ() {
        assert_ne!(WriteIds::default().next(), WriteIds::default().next());
    }

    #[test]
    fn a_full_memory_says_that_it_may_have_forgotten() {
        let recent = RecentWrites::default();
        let id = |number: usize| WriteId {
            origin: 0,
            number: (number * SHARDS) as i64,
        };
        for number in 0..=MAX_IN_SHARD {
            recent.record(id(number), outcome(1), 1_000);
        }
        assert_eq!(recent.recall(id(0), 2_000), Recall::Forgotten);
        assert_eq!(recent.recall(id(1), 2_000), Recall::Known(outcome(1)));
        assert_eq!(
            recent.recall(id(0), 1_000 + RETENTION_MS),
            Recall::Unknown,
            "no attempt is as late"
        );
    }
}
