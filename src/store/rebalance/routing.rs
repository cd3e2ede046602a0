//! `Routing`: an immutable snapshot of the rebalance, from which requests are routed.
//!
//! It answers where a key is read and which owners a write must reach. Requests load the
//! current snapshot without a lock; every change of the rebalance publishes another one.
//!
//! Writes are counted by the epoch of their snapshot, so that a placement is drained only
//! when every write that started before it has ended. A writer counts itself first and then
//! checks that its snapshot is still the current one; the rebalance publishes first and then
//! reads the count. In the total order of these four operations, either the writer sees the
//! new snapshot, or the rebalance sees the writer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst, fence};

use super::{Phase, Rule, Rules};
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::versions::next_version;

/// Where a key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRoute {
    /// From this node's table.
    Local,
    /// From the first of these owners that replies, as an owner in that placement.
    Remote(u64, Vec<NodeId>),
    /// Nowhere yet: this node does not serve clients, or no owner is left.
    Unavailable,
}

/// The state of the rebalance that requests need. Immutable, except for the counters that it
/// shares with later snapshots.
#[derive(Debug, Clone)]
pub struct Routing {
    pub(super) me: NodeId,
    pub(super) rules: Rules,
    /// Copies of each key. None until the network's number is known.
    pub(super) replicas: Option<usize>,
    /// From the last settled placement to the current one. Never empty.
    pub(super) placements: Arc<Vec<Arc<Placement>>>,
    /// The placement that reads use, one of `placements`. None before a list was adopted.
    pub(super) read: Option<Arc<Placement>>,
    /// This node holds what it owns in the read placement. False at first where no member
    /// was admitted: each member must first receive what the others hold.
    pub(super) holds_read: bool,
    pub(super) phase: Phase,
    pub(super) is_admitted: bool,
    /// None while this node may serve. After an isolation: the members that have confirmed
    /// since then that they have it in their placement. It serves again when all have.
    pub(super) lease: Option<BTreeSet<NodeId>>,
    /// The node's isolations that this state accounts for.
    pub(super) isolations: u64,
    /// The other processes that take part. All others are gone, also those of placements that
    /// this list does not have any more and that a write in progress started with.
    pub(super) present: BTreeSet<NodeId>,
    /// Writes that start now belong to this epoch. Each placement starts another one.
    pub(super) epoch: Arc<WriteEpoch>,
    /// The largest version of a write that failed after some owners had received it.
    abandoned: Arc<AtomicI64>,
}

/// Counts the writes in progress that started with one placement.
#[derive(Debug, Default)]
pub(super) struct WriteEpoch(AtomicUsize);

impl WriteEpoch {
    /// Are there writes in progress?
    pub fn has_writes(&self) -> bool {
        // After the snapshot of a later epoch was published: see the module.
        fence(SeqCst);
        self.0.load(SeqCst) > 0
    }
}

/// A write in progress at its primary. It is counted until it is dropped.
#[derive(Debug)]
pub struct WriteTicket {
    me: NodeId,
    epoch: Arc<WriteEpoch>,
    /// The node's isolations when the write started.
    isolations: u64,
    /// The placements when it started.
    placements: Arc<Vec<Arc<Placement>>>,
    /// Other owners that have the write.
    acked_by: Vec<NodeId>,
}

impl WriteTicket {
    /// `node` has the write.
    pub fn add_ack(&mut self, node: NodeId) {
        self.acked_by.push(node);
    }

    /// Does this ticket belong to an epoch before that of `routing`? Then the rebalance may
    /// wait for its end.
    pub fn is_older_than(&self, routing: &Routing) -> bool {
        !Arc::ptr_eq(&self.epoch, &routing.epoch)
    }
}

impl Drop for WriteTicket {
    fn drop(&mut self) {
        self.epoch.0.fetch_sub(1, SeqCst);
    }
}

impl Routing {
    /// That of a node that knows no other member and is not admitted.
    pub(super) fn new(me: NodeId, replicas: Option<usize>, rules: Rules) -> Routing {
        let alone = Arc::new(Placement::new([me.clone()]));
        Routing {
            me,
            rules,
            replicas,
            placements: Arc::new(vec![alone]),
            read: None,
            holds_read: false,
            phase: Phase::Installed,
            is_admitted: false,
            lease: None,
            isolations: 0,
            present: BTreeSet::new(),
            epoch: Arc::default(),
            abandoned: Arc::default(),
        }
    }

    /// This process.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The current placement.
    pub fn current(&self) -> &Arc<Placement> {
        &self.placements[self.placements.len() - 1]
    }

    /// The placement that reads use. None before a list was adopted.
    pub fn read_placement(&self) -> Option<&Arc<Placement>> {
        self.read.as_ref()
    }

    /// Copies kept of each key. None while unknown.
    pub fn replicas(&self) -> Option<usize> {
        self.replicas
    }

    /// How far this node is with its current placement.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The node's isolations that this state accounts for.
    pub fn isolations(&self) -> u64 {
        self.isolations
    }

    /// Does this node serve clients?
    pub fn is_serving(&self) -> bool {
        self.is_admitted && self.read.is_some() && self.lease.is_none()
    }

    /// Is the rebalance over, as far as this node knows?
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Settled && self.is_admitted
    }

    /// Is that placement on this node's list? If not, its sender has newer membership.
    pub fn knows(&self, placement_id: u64) -> bool {
        self.placement(placement_id).is_some()
    }

    /// The placement of that id on this node's list.
    pub(super) fn placement(&self, id: u64) -> Option<&Arc<Placement>> {
        self.placements.iter().find(|known| known.id() == id)
    }

    /// Has this process exited, or is it down?
    pub fn is_gone(&self, node: &NodeId) -> bool {
        *node != self.me && !self.present.contains(node)
    }

    /// Where `key` is read now.
    pub fn read_route(&self, key: Key<'_>) -> ReadRoute {
        let (Some(read), Some(replicas), true) = (&self.read, self.replicas, self.is_serving())
        else {
            return ReadRoute::Unavailable;
        };
        let read = if self.rules.has(Rule::ReadByOld) {
            read
        } else {
            self.current()
        };
        let is_left = |node: &&NodeId| !self.is_gone(node);
        let owners = || read.owners(key, replicas).filter(is_left);
        match owners().next() {
            None => ReadRoute::Unavailable,
            Some(first) if *first == self.me && self.may_read_at(read.id()) => ReadRoute::Local,
            Some(_) => ReadRoute::Remote(read.id(), owners().cloned().collect()),
        }
    }

    /// May this node answer from its table as an owner in that placement?
    pub fn may_read_at(&self, placement_id: u64) -> bool {
        if !self.rules.has(Rule::ReadByOld) {
            return true;
        }
        if self.lease.is_some() {
            return false;
        }
        let index = |id: u64| self.placements.iter().position(|known| known.id() == id);
        let Some(asked) = index(placement_id) else {
            return false;
        };
        // At the location of a process that is down, this process holds nothing of it.
        if !self.placements[asked].contains(&self.me) {
            return false;
        }
        let read = self.read.as_ref().and_then(|read| index(read.id()));
        let is_last = asked + 1 == self.placements.len();
        let was_settled = read.is_some_and(|read| asked <= read) && self.holds_read;
        was_settled || (read.is_some() && is_last && self.phase >= Phase::Synced)
    }

    /// The primary of `key`, where it is written.
    pub fn primary(&self, key: Key<'_>) -> Option<&NodeId> {
        self.current().primary(key)
    }

    /// Starts a write of `key` at this node. None unless this node serves and is the key's
    /// primary. The caller must check afterwards that this snapshot is still the current one.
    pub fn begin_write(&self, key: Key<'_>) -> Option<WriteTicket> {
        if !self.is_serving() || !self.current().is_primary(&self.me, key) {
            return None;
        }
        self.epoch.0.fetch_add(1, SeqCst);
        fence(SeqCst);
        Some(WriteTicket {
            me: self.me.clone(),
            epoch: self.epoch.clone(),
            isolations: self.isolations,
            placements: self.placements.clone(),
            acked_by: Vec::new(),
        })
    }

    /// The version of a write at this time when `newest` is the newest known version of the
    /// key. No other write of the key has it: neither one of another node, nor one that this
    /// node abandoned and that some owner may have.
    pub fn next_version(&self, unix_millis: i64, newest: i64) -> i64 {
        let newest = newest.max(self.abandoned.load(SeqCst));
        next_version(unix_millis, newest, self.me.writer_id())
    }

    /// A write of that version has failed, and some owners may have it.
    pub fn abandon(&self, version: i64) {
        self.abandoned.fetch_max(version, SeqCst);
    }

    /// The nodes that a write of `key` must still reach: its owners in every placement known
    /// now or when it started, except those that are gone. With none left it is applied here.
    pub fn targets(&self, write: &WriteTicket, key: Key<'_>) -> Vec<NodeId> {
        let Some(replicas) = self.replicas else {
            return Vec::new();
        };
        let placements: Vec<&Arc<Placement>> = match self.rules.has(Rule::WriteToAll) {
            true => self.placements.iter().chain(&*write.placements).collect(),
            false => vec![self.current()],
        };
        let mut targets: Vec<NodeId> = Vec::new();
        for owner in placements
            .iter()
            .flat_map(|known| known.owners(key, replicas))
        {
            let has_it = *owner == write.me || write.acked_by.contains(owner);
            if !has_it && !targets.contains(owner) && !self.is_gone(owner) {
                targets.push(owner.clone());
            }
        }
        targets
    }

    /// May a write be acknowledged that has reached all targets? Not if this node was declared
    /// down or isolated since it started: others may have gone on without it.
    pub fn may_acknowledge(&self, write: &WriteTicket) -> bool {
        write.me == self.me && write.isolations == self.isolations && self.is_admitted
    }
}
