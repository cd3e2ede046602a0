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
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};

use super::{Phase, Rule, Rules};
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::versions::{next_version, writer_of};
use crate::store::write_sequence::WriteSequence;

/// Where a key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRoute {
    /// From this node's table.
    Local,
    /// From this owner, as an owner in that placement.
    Remote(u64, NodeId),
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
    /// In a split only the side with more than half of the members serves. None until the
    /// network's choice is known.
    pub(super) stops_on_split: Option<bool>,
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
    /// Members that are missing to restore the network from its disks.
    pub(super) missing: Vec<NodeId>,
    /// Writes that start now belong to this epoch. Each placement starts another one.
    pub(super) epoch: Arc<WriteEpoch>,
    /// Numbers the writes that this process coordinates.
    pub(super) sequence: Arc<WriteSequence>,
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
    sequence: Arc<WriteSequence>,
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

    /// Numbers the writes of the process that coordinates this one.
    pub fn sequence(&self) -> &Arc<WriteSequence> {
        &self.sequence
    }

    /// The owners must get another copy: they have none of it yet.
    pub fn forget_acks(&mut self) {
        self.acked_by.clear();
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
            sequence: Arc::new(WriteSequence::new(me.clone())),
            me,
            rules,
            replicas,
            stops_on_split: None,
            placements: Arc::new(vec![alone]),
            read: None,
            holds_read: false,
            phase: Phase::Installed,
            is_admitted: false,
            lease: None,
            isolations: 0,
            present: BTreeSet::new(),
            missing: Vec::new(),
            epoch: Arc::default(),
        }
    }

    /// This process.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// Is this rule in force?
    pub fn has_rule(&self, rule: Rule) -> bool {
        self.rules.has(rule)
    }

    /// From the last settled placement to the current one.
    pub fn placements(&self) -> &[Arc<Placement>] {
        &self.placements
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

    /// What the node requires, or its network has chosen, for splits. None while unknown.
    pub fn required_stop_on_split(&self) -> Option<bool> {
        self.stops_on_split
    }

    /// In a split, does only the side with more than half of the members serve?
    pub fn stops_on_split(&self) -> bool {
        self.stops_on_split == Some(true)
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

    /// Members that are missing, while the network waits for some of them to be restored from
    /// its disks.
    pub fn missing(&self) -> &[NodeId] {
        &self.missing
    }

    /// Numbers the writes that this process coordinates.
    pub fn sequence(&self) -> &Arc<WriteSequence> {
        &self.sequence
    }

    /// Does a copy count whose owner has this as its current placement? This node must know it:
    /// a write must reach the owners in it too. And the owner must know which processes are
    /// gone, because this node leaves them out: if only this node knew, and died, such a process
    /// could continue and answer without the write.
    pub fn counts_copy_at(&self, placement_id: u64) -> bool {
        let placement = self.placement(placement_id);
        placement.is_some_and(|placement| {
            let mut members = placement.members();
            !self.rules.has(Rule::TellWhoIsGone) || !members.any(|node| self.is_gone(node))
        })
    }

    /// Where `key` is read now: at the first owner in the read placement that is not gone. No
    /// other owner answers, however long that one takes: it could show what is not
    /// acknowledged, or be read beside the first one.
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
        match self.first_owner(read, key, replicas) {
            None => ReadRoute::Unavailable,
            Some(first) if *first != self.me => ReadRoute::Remote(read.id(), first.clone()),
            Some(_) if self.may_read_at(read.id()) => ReadRoute::Local,
            Some(_) => ReadRoute::Unavailable,
        }
    }

    /// The first owner of `key` in a placement that is not gone.
    fn first_owner<'a>(
        &self,
        placement: &'a Placement,
        key: Key<'_>,
        replicas: usize,
    ) -> Option<&'a NodeId> {
        let mut owners = placement.owners(key, replicas);
        owners.find(|node| !self.is_gone(node))
    }

    /// May this node answer for `key` from its table, as the owner that is asked in that
    /// placement? All owners before it must be gone as it knows, too.
    pub fn may_answer(&self, placement_id: u64, key: Key<'_>) -> bool {
        let Some(replicas) = self.replicas.filter(|_| self.may_read_at(placement_id)) else {
            return false;
        };
        let first =
            |asked: &'_ Arc<Placement>| self.first_owner(asked, key, replicas) == Some(&self.me);
        !self.rules.has(Rule::AskFirstOwner) || self.placement(placement_id).is_some_and(first)
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
        Some(self.begin())
    }

    /// Starts to bring to all owners what another process wrote. As for
    /// [`begin_write`](Routing::begin_write), the caller must check this snapshot afterwards.
    pub fn begin_replay(&self) -> WriteTicket {
        self.begin()
    }

    fn begin(&self) -> WriteTicket {
        self.epoch.0.fetch_add(1, SeqCst);
        fence(SeqCst);
        WriteTicket {
            me: self.me.clone(),
            epoch: self.epoch.clone(),
            sequence: self.sequence.clone(),
            placements: self.placements.clone(),
            acked_by: Vec::new(),
        }
    }

    /// The version of a write at this time when `newest` is the newest known version of the
    /// key. No other write of the key has it.
    pub fn next_version(&self, unix_millis: i64, newest: i64) -> i64 {
        next_version(unix_millis, newest, self.me.writer_id())
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

    /// Does that process take part, and own `key` in any placement of the list?
    pub fn is_owner(&self, node: &NodeId, key: Key<'_>) -> bool {
        let replicas = self.replicas.unwrap_or(0);
        let mut placements = self.placements.iter();
        !self.is_gone(node) && placements.any(|placement| placement.owns(node, key, replicas))
    }

    /// Is it this node that counts the loss of a value that was written for the key of that point
    /// (see [`split_losses`](crate::store::split_losses))?
    pub fn counts_loss(&self, point: u32, writer: u16) -> bool {
        let key = Key { point, bytes: &[] };
        let owners = self.current().owners(key, self.replicas.unwrap_or(0));
        let owners: Vec<&NodeId> = owners.collect();
        let has_written = |owner: &&&NodeId| writer_of(owner.writer_id().into()) == writer;
        let counting = owners.iter().find(has_written).or(owners.first());
        counting == Some(&&self.me)
    }

    /// May a write be finished that has reached all targets? Not by a process that was declared
    /// down since it started, and not before the others have confirmed that this one was not:
    /// they may have gone on without it.
    pub fn may_finish(&self, write: &WriteTicket) -> bool {
        write.me == self.me && self.may_replay()
    }

    /// May this node bring the copies of a process that is gone to all owners? A node that leaves
    /// before it was admitted must, or it could not hand them over.
    pub fn may_replay(&self) -> bool {
        let is_leaving = !self.current().contains(&self.me);
        self.lease.is_none() && self.read.is_some() && (self.is_admitted || is_leaving)
    }

    /// Has this node had one placement only, and the same, since the write started? Then no other
    /// process has coordinated writes of its keys.
    pub fn has_one_placement_since(&self, write: &WriteTicket) -> bool {
        let ids = |all: &[Arc<Placement>]| all.iter().map(|p| p.id()).collect::<Vec<_>>();
        self.placements.len() == 1 && ids(&self.placements) == ids(&write.placements)
    }

    /// Is that write still this process's to finish? If not, those that have copies finish it.
    pub fn coordinates(&self, write: &WriteTicket) -> bool {
        write.me == self.me
    }
}
