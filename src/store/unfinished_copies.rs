//! `UnfinishedCopies`: copies at this node of writes that may not be finished.
//!
//! An owner gets a copy before the write is acknowledged. Nobody may read it yet: the primary
//! still shows the entry before, and the copy may never reach the other owners. So the owner
//! keeps the copy and marks it as unfinished, in the table and here, with the sequence number
//! that the primary gave to the write. With each batch of copies the primary also sends the
//! smallest number that is not finished: what is below can be read.
//!
//! Who reads an unfinished copy asks the primary, and waits. If the primary is gone, the owner
//! brings the copy to all owners itself and finishes it. This is how Hermes replays writes
//! (Katsarakis et al., "Hermes: a Fast, Fault-Tolerant and Linearizable Replication Protocol",
//! ASPLOS 2020, section 3).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use super::placement::NodeId;
use super::recent_writes::{WriteId, WriteOutcome};

/// A copy that may not be finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedCopy {
    /// Its key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: i64,
    /// The id of the write, if it is known.
    pub id: Option<WriteId>,
    /// What becomes of the write if it is finished as this copy says.
    pub outcome: WriteOutcome,
}

/// The unfinished copies at one node, by the process that coordinates their writes. Shared by
/// threads.
#[derive(Debug, Default)]
pub struct UnfinishedCopies {
    /// Held for a look-up.
    by_coordinator: Mutex<HashMap<NodeId, Arc<Mutex<Copies>>>>,
}

/// The unfinished copies of one coordinator.
#[derive(Debug, Default)]
pub struct Copies {
    by_sequence: BTreeMap<i64, UnfinishedCopy>,
    /// Writes with smaller numbers are finished.
    finished: i64,
}

impl UnfinishedCopies {
    /// Locks the copies of a coordinator. The lock is held while a batch of its copies is
    /// applied to the table, so that the copies of a process that is gone can be listed
    /// completely.
    pub fn of(&self, coordinator: &NodeId) -> ArcMutexGuard<RawMutex, Copies> {
        let mut all = self.by_coordinator.lock();
        let copies = match all.get(coordinator) {
            Some(copies) => copies.clone(),
            None => all.entry(coordinator.clone()).or_default().clone(),
        };
        drop(all);
        copies.lock_arc()
    }

    /// Who coordinates the write of this copy, and its sequence number: one that is not gone, if
    /// there is one, because that replays the copy of one that is. None if it is finished.
    pub fn coordinator(
        &self,
        key: &[u8],
        version: i64,
        is_gone: impl Fn(&NodeId) -> bool,
    ) -> Option<(NodeId, i64)> {
        let found = self.coordinators().into_iter().filter_map(|coordinator| {
            let copies = self.of(&coordinator);
            let mut all = copies.by_sequence.iter();
            let (sequence, _) = all.find(|(_, copy)| copy.version == version && copy.key == key)?;
            Some((coordinator, *sequence))
        });
        found.min_by_key(|(coordinator, _)| is_gone(coordinator))
    }

    /// Is there an unfinished copy of that version?
    pub fn has_version(&self, version: i64) -> bool {
        self.coordinators().into_iter().any(|coordinator| {
            let copies = self.of(&coordinator);
            copies
                .by_sequence
                .values()
                .any(|copy| copy.version == version)
        })
    }

    /// The processes that coordinate writes whose copies are here.
    pub fn coordinators(&self) -> Vec<NodeId> {
        self.by_coordinator.lock().keys().cloned().collect()
    }

    /// Forgets a coordinator that has no unfinished copies. Called when it is gone.
    pub fn forget(&self, coordinator: &NodeId) {
        let copies = self.of(coordinator);
        if copies.by_sequence.is_empty() {
            self.by_coordinator.lock().remove(coordinator);
        }
    }
}

impl Copies {
    /// A copy of this write is in the table. One of the same number replaces it: an undo.
    /// False if the write is known to be finished.
    pub fn add(&mut self, sequence: i64, copy: UnfinishedCopy) -> bool {
        let is_unfinished = sequence >= self.finished;
        if is_unfinished {
            self.by_sequence.insert(sequence, copy);
        }
        is_unfinished
    }

    /// Is the write of that number known to be finished?
    pub fn is_finished(&self, sequence: i64) -> bool {
        sequence < self.finished
    }

    /// All writes with smaller numbers are finished. Returns their copies.
    pub fn finish_before(&mut self, sequence: i64) -> Vec<UnfinishedCopy> {
        self.finished = self.finished.max(sequence);
        let rest = self.by_sequence.split_off(&self.finished);
        let finished = std::mem::replace(&mut self.by_sequence, rest);
        finished.into_values().collect()
    }

    /// All unfinished copies, with the numbers of their writes.
    pub fn all(&self) -> Vec<(i64, UnfinishedCopy)> {
        let all = self.by_sequence.iter();
        all.map(|(sequence, copy)| (*sequence, copy.clone()))
            .collect()
    }

    /// This one copy is finished.
    pub fn remove(&mut self, sequence: i64, version: i64) {
        let copy = self.by_sequence.get(&sequence);
        if copy.is_some_and(|copy| copy.version == version) {
            self.by_sequence.remove(&sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn node(port: u16) -> NodeId {
        NodeId::new(Location::new("10.0.0.1", port).unwrap(), 1)
    }

    fn copy(key: &[u8], version: i64) -> UnfinishedCopy {
        UnfinishedCopy {
            key: key.to_vec(),
            version,
            id: None,
            outcome: WriteOutcome {
                version,
                existed: false,
                ..WriteOutcome::default()
            },
        }
    }

    #[test]
    fn copies_are_finished_up_to_the_number_that_the_coordinator_sends() {
        let unfinished = UnfinishedCopies::default();
        let mut copies = unfinished.of(&node(1));
        for (sequence, key) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            assert!(copies.add(sequence, copy(key, sequence * 10)));
        }
        assert_eq!(copies.finish_before(2), [copy(b"a", 10)]);
        assert!(copies.is_finished(1) && !copies.is_finished(2));
        let repeated = copies.add(1, copy(b"a", 10));
        assert!(!repeated, "a repeated copy is finished");
        assert!(copies.add(2, copy(b"b", 21)), "an undo replaces the copy");
        assert_eq!(copies.finish_before(1), [], "an older message");
        drop(copies);
        let coordinator = |version| unfinished.coordinator(b"b", version, |_| false);
        assert_eq!(coordinator(20), None);
        assert_eq!(coordinator(21), Some((node(1), 2)));
    }

    #[test]
    fn a_coordinator_is_forgotten_when_nothing_is_unfinished() {
        let unfinished = UnfinishedCopies::default();
        unfinished.of(&node(1)).add(5, copy(b"a", 7));
        unfinished.forget(&node(1));
        assert_eq!(unfinished.coordinators(), [node(1)]);
        assert_eq!(unfinished.of(&node(1)).all(), [(5, copy(b"a", 7))]);
        unfinished.of(&node(1)).remove(5, 8);
        let left = unfinished.of(&node(1)).all();
        assert_eq!(left.len(), 1, "it was replaced meanwhile");
        unfinished.of(&node(1)).remove(5, 7);
        unfinished.forget(&node(1));
        assert!(unfinished.coordinators().is_empty());
    }
}
