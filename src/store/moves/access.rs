//! Access: where a key is read, and whom a write must reach, while views change.

use std::sync::Arc;

use super::{Moves, Phase};
use crate::store::table::Key;
use crate::store::versions::next_version;
use crate::store::view::{Peer, View};

/// Where a key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Here.
    Me,
    /// At the first of these that answers; each is asked as an owner in that view.
    Others(u64, Vec<Peer>),
    /// Nowhere yet: this node does not serve clients, or no owner is left.
    Nobody,
}

/// A write under way at its primary.
#[derive(Debug)]
pub struct Write {
    me: Peer,
    epoch: u64,
    /// How often this node had been out of touch when it began.
    absences: u64,
    /// The views when it began.
    views: Arc<Vec<Arc<View>>>,
    /// Other owners that have the write, or are gone.
    done: Vec<Peer>,
}

impl Write {
    /// `peer` has the write, or is found to be gone.
    pub fn reached(&mut self, peer: Peer) {
        self.done.push(peer);
    }
}

impl Moves {
    /// Does this node serve clients?
    pub fn is_serving(&self) -> bool {
        self.enrolled && self.read.is_some() && self.lease.is_none()
    }

    /// Who is asked for `key` now.
    pub fn authority(&self, key: Key<'_>) -> Authority {
        let (Some(read), Some(replicas), true) = (&self.read, self.replicas, self.is_serving())
        else {
            return Authority::Nobody;
        };
        let read = if self.rules.read_by_old {
            read
        } else {
            self.current()
        };
        if read.is_primary(&self.me, key) && self.may_answer(read.id()) {
            return Authority::Me;
        }
        let owners: Vec<Peer> = read
            .owners(key, replicas)
            .filter(|peer| !self.is_gone(peer))
            .collect();
        match owners.first() {
            None => Authority::Nobody,
            Some(first) if *first == self.me && self.may_answer(read.id()) => Authority::Me,
            Some(_) => Authority::Others(read.id(), owners),
        }
    }

    /// May this node answer, from its own table, as an owner in that view?
    pub fn may_answer(&self, view: u64) -> bool {
        if !self.rules.read_by_old {
            return true;
        }
        if self.lease.is_some() {
            return false;
        }
        // In the place of one that died there, this process holds nothing of that view.
        let asked_as_owner = |known: &Arc<View>| known.id() == view && known.contains(&self.me);
        if !self.views.iter().any(asked_as_owner) {
            return false;
        }
        let place = |id: u64| self.views.iter().position(|view| view.id() == id);
        let (Some(asked), Some(read)) =
            (place(view), self.read.as_ref().and_then(|r| place(r.id())))
        else {
            return false;
        };
        let settled_before = asked <= read && self.holds_read;
        settled_before || (asked + 1 == self.views.len() && self.phase >= Phase::Synced)
    }

    /// The primary of `key`: where it is written.
    pub fn primary(&self, key: Key<'_>) -> Option<Peer> {
        self.current().primary(key)
    }

    /// Begins a write of `key` here; none unless this node is the key's primary and
    /// serves. To be ended by [`end_write`](Moves::end_write), whatever comes of it.
    pub fn begin_write(&mut self, key: Key<'_>) -> Option<Write> {
        if !self.is_serving() || !self.current().is_primary(&self.me, key) {
            return None;
        }
        *self.writes.entry(self.epoch).or_default() += 1;
        Some(Write {
            me: self.me.clone(),
            epoch: self.epoch,
            absences: self.absences,
            views: self.views.clone(),
            done: Vec::new(),
        })
    }

    /// The version of a write here at `unix_millis`, when `newest` is the newest that
    /// was seen of the key. It is not that of any other write of the key: not of
    /// another node's, and not of one that this node gave up, which some owner may have.
    pub fn version(&self, unix_millis: i64, newest: i64) -> i64 {
        next_version(unix_millis, newest.max(self.abandoned), self.writer)
    }

    /// A write of that version is given up, and some owners may have it.
    pub fn abandon(&mut self, version: i64) {
        self.abandoned = self.abandoned.max(version);
    }

    /// Whom the write of `key` must still reach: its owners in every view known when it
    /// began or now, but for those who are gone. When nobody is left it is applied here.
    pub fn targets(&self, write: &Write, key: Key<'_>) -> Vec<Peer> {
        let Some(replicas) = self.replicas else {
            return Vec::new();
        };
        let mut targets = Vec::new();
        let mut add_owners = |view: &View| {
            for owner in view.owners(key, replicas) {
                let has_it = owner == write.me || write.done.contains(&owner);
                if !has_it && !targets.contains(&owner) && !self.is_gone(&owner) {
                    targets.push(owner);
                }
            }
        };
        if !self.rules.write_to_all {
            add_owners(self.current());
            return targets;
        }
        self.views.iter().for_each(|view| add_owners(view));
        // Mostly they are the same views, and nothing is added.
        if !Arc::ptr_eq(&write.views, &self.views) {
            write.views.iter().for_each(|view| add_owners(view));
        }
        targets
    }

    /// Ends a write; may it be acknowledged? Not if this node was thought dead
    /// meanwhile, or out of touch, so that others may have gone on without it.
    pub fn end_write(&mut self, write: Write) -> bool {
        if let Some(count) = self.writes.get_mut(&write.epoch) {
            *count -= 1;
            if *count == 0 {
                self.writes.remove(&write.epoch);
                self.advance();
            }
        }
        write.me == self.me && write.absences == self.absences && self.enrolled
    }
}
