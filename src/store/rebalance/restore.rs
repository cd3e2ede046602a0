//! Restoring a network from the directories of its nodes, when none of them runs any more.
//!
//! A node saves durably which placement it reads by, before it tells others that it has switched to
//! it. All members of a placement hold all that they own in it before any member switches. So of all
//! saved placements the newest one counts: the one with the largest *settlement*, a number that grows
//! with each switch. Its members hold what was acknowledged, whatever others have: the others were
//! away, and may have what was deleted since.
//!
//! A node without an admitted peer waits until enough members of the newest placement that it hears of
//! are there: all but N−1, so that every key has a copy among them, and more than half, because the
//! others may have gone on without them. Then the first node starts a new list. Those that hold what
//! was acknowledged offer all of it, as after a split, and the larger version of each key wins.
//!
//! Where a member is admitted, the network runs, and what it has counts.

use std::sync::Arc;

use super::{Phase, Rebalance};
use crate::store::placement::{NodeId, Placement};

/// The most processes of one directory that are remembered.
const MAX_LIVES: usize = 16;

/// What a node has saved in its directory about itself.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    /// The processes whose keys the directory holds: the last one that was synced in the placement,
    /// or has joined since.
    pub lives: Vec<NodeId>,
    /// The last placement by which the node read. None before there was one.
    pub placement: Option<Arc<Placement>>,
    /// Larger for a later placement.
    pub settlement: u64,
}

impl Eq for Saved {}

impl PartialEq for Saved {
    fn eq(&self, other: &Saved) -> bool {
        let id = |saved: &Saved| saved.placement.as_ref().map(|placement| placement.id());
        (&self.lives, id(self), self.settlement) == (&other.lives, id(other), other.settlement)
    }
}

/// The part of the rebalance of a node with a directory.
#[derive(Debug)]
pub(super) struct Storage {
    /// What is on disk.
    saved: Saved,
    /// The operator does not want to wait for members that are missing.
    is_forced: bool,
    /// The caller must bring what is on disk into the table.
    must_absorb: bool,
}

impl Saved {
    /// Does the directory hold what a member of that placement held?
    fn is_of(&self, placement: &Placement) -> bool {
        self.lives.iter().any(|life| placement.contains(life))
    }
}

impl Rebalance {
    /// The node has a directory, with this in it. If it `is_forced`, it does not wait for members
    /// that are missing.
    pub fn use_storage(&mut self, saved: Saved, is_forced: bool) {
        self.settlement = self.settlement.max(saved.settlement);
        self.storage = Some(Storage {
            saved,
            is_forced,
            must_absorb: false,
        });
        self.changes += 1;
    }

    /// What the node tells of its directory while it is not admitted.
    pub(super) fn recovered(&self) -> Option<Saved> {
        let storage = self.storage.as_ref().filter(|_| !self.is_admitted)?;
        Some(storage.saved.clone()).filter(|saved| saved.placement.is_some())
    }

    pub(super) fn is_forced(&self) -> bool {
        self.storage
            .as_ref()
            .is_some_and(|storage| storage.is_forced)
    }

    /// What must be saved durably before the node can go on, if anything.
    pub fn wanted_save(&self) -> Option<Saved> {
        let saved = &self.storage.as_ref()?.saved;
        if self.is_ready_for(Phase::Synced) && !self.may_be_synced() {
            let mut lives = saved.lives.clone();
            lives.push(self.me.clone());
            lives.drain(..lives.len().saturating_sub(MAX_LIVES));
            return Some(Saved {
                lives,
                ..saved.clone()
            });
        }
        if self.is_ready_for(Phase::Switched) && !self.may_switch() {
            let current = self.current().clone();
            let lives = Some(self.me.clone()).filter(|me| current.contains(me));
            return Some(Saved {
                lives: lives.into_iter().collect(),
                placement: Some(current),
                settlement: self.next_settlement(),
            });
        }
        None
    }

    /// This is on disk now.
    pub fn on_saved(&mut self, saved: Saved) {
        if let Some(storage) = &mut self.storage {
            self.settlement = self.settlement.max(saved.settlement);
            storage.saved = saved;
            self.changes += 1;
            self.advance();
        }
    }

    /// May the node tell that it holds all that it owns? When that is on disk.
    pub(super) fn may_be_synced(&self) -> bool {
        let is_member = self.current().contains(&self.me);
        let mut storage = self.storage.iter().filter(|_| is_member);
        storage.all(|storage| storage.saved.lives.contains(&self.me))
    }

    /// May the node read by the current placement? When that is on disk. An empty one is not saved:
    /// nobody would be waited for.
    pub(super) fn may_switch(&self) -> bool {
        let current = self.current();
        let is_current = |saved: &Saved| {
            let placement = saved.placement.as_ref();
            placement.is_some_and(|placement| placement.id() == current.id())
        };
        let mut storage = self.storage.iter().filter(|_| !current.is_empty());
        storage.all(|storage| is_current(&storage.saved))
    }

    /// The settlement of the current placement: the same on all members, which have told theirs.
    pub(super) fn next_settlement(&self) -> u64 {
        let current = self.current();
        let of_peer = |node: &NodeId| {
            let status = self.statuses.get(node)?;
            let has_switched = status.read_placement_id == Some(current.id());
            Some(status.settlement + u64::from(!has_switched))
        };
        let own = self.settlement + u64::from(!self.reads_by_current());
        current.members().filter_map(of_peer).fold(own, u64::max)
    }

    /// The newest placement that anybody has saved who is not admitted.
    fn newest_saved(&self) -> Option<Saved> {
        let statuses = self
            .statuses
            .values()
            .filter_map(|status| status.recovered.clone());
        let all = self.recovered().into_iter().chain(statuses);
        all.max_by_key(|saved| saved.settlement)
    }

    /// The members of the newest saved placement that are missing, while the node waits for some of
    /// them. Empty if it does not wait.
    pub fn missing(&self) -> Vec<NodeId> {
        let is_forced = self.is_forced() || self.statuses.values().any(|status| status.is_forced);
        if self.is_admitted || self.read.is_some() || is_forced {
            return Vec::new();
        }
        let Some(newest) = self.newest_saved().and_then(|saved| saved.placement) else {
            return Vec::new();
        };
        let recovered = self
            .statuses
            .values()
            .filter_map(|status| status.recovered.clone());
        let lives = self.recovered().into_iter().chain(recovered);
        let lives: Vec<NodeId> = lives.flat_map(|saved| saved.lives).collect();
        let all = newest.members();
        let count = all.len();
        let missing: Vec<NodeId> = all.filter(|node| !lives.contains(node)).cloned().collect();
        let mut statuses = self.statuses.values();
        let replicas = self
            .replicas
            .or_else(|| statuses.find_map(|status| status.replicas));
        let has_all_keys = missing.len() < replicas.unwrap_or(1);
        let has_most = 2 * missing.len() < count;
        if has_all_keys && has_most {
            Vec::new()
        } else {
            missing
        }
    }

    /// The network starts from what its nodes have saved, if any has.
    pub(super) fn begin_restore(&mut self) {
        let newest = self.newest_saved();
        let saved = newest.as_ref().map_or(0, |saved| saved.settlement);
        let known = self.statuses.values().map(|status| status.settlement);
        self.settlement = known.fold(self.settlement.max(saved), u64::max) + 1;
        let placement = newest.and_then(|saved| saved.placement);
        self.take_part_in_restore(placement);
    }

    /// The network is restored from the members of that placement, if from any. Those offer all that
    /// they hold.
    pub(super) fn take_part_in_restore(&mut self, restored: Option<Arc<Placement>>) {
        if let (Some(storage), Some(placement)) = (&mut self.storage, &restored)
            && storage.saved.is_of(placement)
        {
            storage.must_absorb = true;
            self.offers_all = true;
        }
        self.restored = restored;
    }

    /// Must what is on disk come into the table? The node goes on after
    /// [`on_absorbed`](Rebalance::on_absorbed).
    pub fn must_absorb(&self) -> bool {
        self.storage
            .as_ref()
            .is_some_and(|storage| storage.must_absorb)
    }

    /// What is on disk is in the table.
    pub fn on_absorbed(&mut self) {
        if let Some(storage) = &mut self.storage {
            storage.must_absorb = false;
            self.changes += 1;
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests;
