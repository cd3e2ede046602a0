//! `Rebalance`: how a network of stores gets from one placement to the next without losing a
//! write or missing a key on the way.
//!
//! Each node keeps a short list of placements, from the last settled one to the current one,
//! and a *read placement* among them. A write goes to the key's owners in every placement of
//! the list; a read goes to the owners in the read placement. A node takes these steps from
//! the old placement to the new one, and reports each to the others:
//!
//! 1. **Installed**: the placement is on the list. Writes that start now go to its owners too.
//! 2. **Drained**: every write that started before has ended. From now on the node's table
//!    can be copied: what it lacks, the copying node receives as an owner.
//! 3. **Synced**: the node has copied all keys that it owns now and did not own before, each
//!    from its first owner in the read placement.
//! 4. **Switched**: all members are synced; reads use the current placement. Writes still go
//!    to the owners in all placements, because other members may read by an old one.
//! 5. **Settled**: all members have switched, leaving ones included unless they have exited.
//!    Older placements are forgotten, and keys that the node does not own are dropped.
//!
//! Every step is necessary. Without writes to all placements, a read finds a stale value.
//! Without the drain, a write in progress misses the copy. A read at a new owner before the
//! switch finds nothing. Settling before all have switched drops what another member still
//! reads. If a source of copies goes down, all is copied again, because another node may now
//! be the first owner.
//!
//! A node that joins is not *admitted* at first. It adopts the list of an admitted node that
//! has it in its current placement, and serves clients when every member has confirmed that:
//! from then on no write can miss it. If no member is admitted, none holds all that the
//! others rely on: the first in sorted order starts a new list, and no node answers for a key
//! before it has received what all others hold of it.
//!
//! Assumption: a member that was declared down is down, or returns as another [`NodeId`]. A
//! network split breaks it: both sides go on. When they meet, the nodes that were declared
//! down rejoin and offer all they hold; the larger version of each key wins.
//!
//! This module knows no sockets, clocks or threads. Its caller holds a lock on it. Requests
//! use the [`Routing`] snapshot that it publishes, without the lock.

mod restore;
mod routing;
mod rules;
mod status;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use super::placement::{NodeId, Placement};
use super::table::Cursor;
use super::write_sequence::WriteSequence;

pub use restore::Saved;
pub use routing::{ReadRoute, Routing, WriteTicket};
pub use rules::{Rule, Rules};
pub use status::{Phase, PlacementHistory, RebalanceStatus};
pub use transfer::{AttemptId, Pull, SharedKeys, TransferFilter};

use restore::Storage;
use routing::WriteEpoch;

/// Copies kept of each key unless a node requires another number.
pub const DEFAULT_REPLICAS: usize = 3;

/// The processes that take part, as membership knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// This process.
    pub me: NodeId,
    /// The members on the ring, without this node when it leaves.
    pub live: BTreeSet<NodeId>,
    /// Members that have left and still reply.
    pub leaving: BTreeSet<NodeId>,
}

/// One node's part in the rebalancing of its network.
#[derive(Debug)]
pub struct Rebalance {
    /// The part of the state that requests use.
    routing: Routing,
    members: MemberSnapshot,
    /// Leaving members whose process has exited.
    exited: BTreeSet<NodeId>,
    /// A member has gone on without this node, which is leaving and did not reply to it.
    was_given_up: bool,
    /// This node has known another member.
    had_peers: bool,
    /// The node has joined its network, or has found none.
    has_joined: bool,
    /// This node offers all it holds: it was declared down and has rejoined, or it started a
    /// new list among others.
    offers_all: bool,
    /// Members that have this node in their placement and share its read placement.
    confirmed_by: BTreeSet<NodeId>,
    /// The latest status of each member.
    statuses: BTreeMap<NodeId, RebalanceStatus>,
    /// Grows with everything that others are told or that a waiting thread may wait for.
    changes: u64,
    /// The snapshot of this epoch was published: no later write belongs to an older one.
    is_published: bool,
    /// More than half of the members confirm this node. Always true where splits do not stop it.
    has_quorum: bool,
    /// Older epochs with writes in progress.
    draining: Vec<Arc<WriteEpoch>>,
    /// The current attempt to copy.
    attempt_id: AttemptId,
    /// Where copying from each source continues. None when it is done.
    sources: BTreeMap<NodeId, Option<Cursor>>,
    /// The number of the read placement: larger for a later one.
    settlement: u64,
    /// What this node has on disk. None without a directory.
    storage: Option<Storage>,
    /// The network is being restored from what the members of this placement have saved.
    restored: Option<Arc<Placement>>,
}

impl Rebalance {
    /// A node that knows no other member and is not admitted. `replicas` is the number of
    /// copies it requires; None accepts the network's.
    pub fn new(me: NodeId, replicas: Option<usize>, rules: Rules) -> Rebalance {
        let live = BTreeSet::from([me.clone()]);
        Rebalance {
            members: MemberSnapshot {
                me: me.clone(),
                live,
                leaving: BTreeSet::new(),
            },
            routing: Routing::new(me, replicas, rules),
            exited: BTreeSet::new(),
            was_given_up: false,
            had_peers: false,
            has_joined: false,
            offers_all: false,
            confirmed_by: BTreeSet::new(),
            statuses: BTreeMap::new(),
            changes: 0,
            is_published: false,
            has_quorum: true,
            draining: Vec::new(),
            attempt_id: 0,
            sources: BTreeMap::new(),
            settlement: 0,
            storage: None,
            restored: None,
        }
    }

    /// Starts a network: this node holds all there is. Keeps `replicas` copies unless the node
    /// requires another number.
    pub fn bootstrap(&mut self, replicas: usize) {
        let current = self.current().clone();
        let routing = &mut self.routing;
        routing.replicas.get_or_insert(replicas);
        routing.stops_on_split.get_or_insert(false);
        routing.is_admitted = true;
        routing.read = Some(current.clone());
        routing.holds_read = false;
        routing.placements = Arc::new(vec![current]);
        self.restart();
    }

    /// The node has joined: from now on it may start a list of placements with those it knows.
    /// Before, it may not know the member that has one.
    pub fn mark_joined(&mut self) {
        self.has_joined = true;
        self.advance();
    }

    /// The node requires that choice for splits (see [`Routing::stops_on_split`]).
    pub fn require_stop_on_split(&mut self, stops: bool) {
        self.routing.stops_on_split = Some(stops);
        self.changes += 1;
    }

    /// More than half of the members confirm this node, or not any more. Has that changed?
    pub fn set_quorum(&mut self, has_quorum: bool) -> bool {
        let is_changed = self.has_quorum != has_quorum;
        if is_changed {
            self.has_quorum = has_quorum;
            self.changes += 1;
            self.advance();
        }
        is_changed
    }

    /// Takes over what membership knows now.
    pub fn update_members(&mut self, members: MemberSnapshot) {
        if members == self.members {
            return;
        }
        if members.me != self.me {
            self.rejoin_as(members.me.clone());
        }
        self.members = members;
        // A peer may have come and left between two updates.
        let is_alone = self.members.live.iter().all(|node| *node == self.me);
        self.had_peers |= !is_alone || !self.members.leaving.is_empty();
        let placement = Placement::new(self.members.live.iter().cloned());
        if placement.id() != self.current().id() {
            self.install(Arc::new(placement));
        } else if self.rules.has(Rule::PullAgain) {
            self.restart_transfer();
        }
        let members = &self.members;
        self.statuses
            .retain(|node, _| members.live.contains(node) || members.leaving.contains(node));
        self.exited.retain(|node| members.leaving.contains(node));
        self.changes += 1;
        self.advance();
    }

    /// A call to a node failed. If the node is leaving, its process has exited. Returns
    /// whether that is so and was not known.
    pub fn mark_exited(&mut self, node: &NodeId) -> bool {
        let has_exited = self.members.leaving.contains(node) && self.exited.insert(node.clone());
        if has_exited {
            if self.rules.has(Rule::PullAgain) {
                self.restart_transfer();
            }
            self.sources.remove(node);
            self.changes += 1;
            self.advance();
        }
        has_exited
    }

    /// The snapshot of the current state was published ([`routing`](Rebalance::routing)): takes
    /// the steps that are possible now.
    pub fn on_published(&mut self) {
        self.is_published = true;
        self.advance();
    }

    /// Writes may have ended: takes every step that is possible now.
    pub fn advance(&mut self) {
        let before = (self.phase, self.is_serving());
        self.take_steps();
        if before != (self.phase, self.is_serving()) {
            self.changes += 1;
        }
        self.routing.present = self.peers().into_iter().collect();
        self.routing.missing = self.missing();
    }

    /// A snapshot of the part of the state that requests use.
    pub fn routing(&self) -> Routing {
        self.routing.clone()
    }

    /// Grows with everything that others are told or that a waiting thread may wait for.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The other processes that take part: live members, and leaving ones that still reply.
    pub fn peers(&self) -> Vec<NodeId> {
        let leaving = self.members.leaving.iter();
        let leaving = leaving.filter(|node| !self.exited.contains(*node));
        let all = self.members.live.iter().chain(leaving);
        all.filter(|node| **node != self.me).cloned().collect()
    }

    /// Is this process down? One that has left is not.
    pub fn is_down(&self, node: &NodeId) -> bool {
        !self.members.live.contains(node) && !self.members.leaving.contains(node)
    }

    /// May a leaving node exit? When all that stay read by a placement without it, or when one
    /// of them has gone on without it: what it holds may be old. If none stays, the caller
    /// decides how long to wait for another.
    pub fn may_exit(&self) -> bool {
        let current = self.current();
        let is_handed_over = self.phase >= Phase::Drained && self.all_have_reached(Phase::Switched);
        !current.is_empty() && !current.contains(&self.me) && (is_handed_over || self.was_given_up)
    }

    fn install(&mut self, placement: Arc<Placement>) {
        let placements = Arc::make_mut(&mut self.routing.placements);
        placements.retain(|known| known.id() != placement.id());
        placements.push(placement);
        self.restart();
    }

    /// Starts over with the current placement.
    fn restart(&mut self) {
        self.draining.push(std::mem::take(&mut self.routing.epoch));
        self.is_published = false;
        self.changes += 1;
        self.routing.phase = Phase::Installed;
        self.restart_transfer();
        self.advance();
    }

    /// Copies everything again. A node that is synced holds everything and need not.
    fn restart_transfer(&mut self) {
        if self.phase > Phase::Drained {
            return;
        }
        self.attempt_id += 1;
        let is_member = self.current().contains(&self.me);
        let sources = self.peers().into_iter().filter(|_| is_member);
        self.sources = sources
            .map(|node| (node, Some(Cursor::default())))
            .collect();
    }

    /// This node was declared down, and the others went on without it: it joins again.
    fn rejoin_as(&mut self, me: NodeId) {
        self.was_given_up = false;
        self.offers_all = true;
        self.confirmed_by.clear();
        let current = self.current().clone();
        let routing = &mut self.routing;
        routing.sequence = Arc::new(WriteSequence::new(me.clone()));
        routing.me = me;
        routing.is_admitted = false;
        routing.lease = None;
        routing.read = None;
        routing.placements = Arc::new(vec![current]);
        self.restart();
    }

    fn adopt_history(&mut self, history: PlacementHistory) {
        let current = self.current().clone();
        let routing = &mut self.routing;
        routing.replicas.get_or_insert(history.replicas);
        routing.stops_on_split.get_or_insert(history.stops_on_split);
        routing.placements = Arc::new(history.placements);
        routing.read = routing.placement(history.read_placement_id).cloned();
        routing.holds_read = false;
        self.settlement = self.settlement.max(history.settlement);
        self.take_part_in_restore(history.restored);
        self.confirmed_by.clear();
        self.install(current);
    }

    fn take_steps(&mut self) {
        self.restore_lease_if_confirmed();
        self.admit_if_confirmed();
        self.bootstrap_if_no_member_did();
        if self.phase == Phase::Installed
            && (self.is_drained() || !self.rules.has(Rule::Drain))
            && !self.must_absorb()
        {
            self.routing.phase = Phase::Drained;
        }
        if self.is_ready_for(Phase::Synced) && self.may_be_synced() {
            self.routing.phase = Phase::Synced;
            self.routing.holds_read |= self.reads_by_current();
        }
        if self.is_ready_for(Phase::Switched) && self.may_switch() {
            self.settlement = self.next_settlement();
            self.routing.read = Some(self.current().clone());
            self.routing.holds_read = true;
            self.routing.phase = Phase::Switched;
        }
        let all_switched =
            !self.rules.has(Rule::SettleAfterSwitch) || self.all_peers_have_switched();
        // Without the confirmations that the old placement requires, it must not be forgotten.
        if self.phase == Phase::Switched && all_switched && self.has_quorum {
            self.routing.placements = Arc::new(vec![self.current().clone()]);
            self.offers_all = false;
            self.restored = None;
            self.routing.phase = Phase::Settled;
        }
    }

    /// Has all been done for that phase, unless it must be saved first?
    fn is_ready_for(&self, phase: Phase) -> bool {
        match (self.phase, phase) {
            (Phase::Drained, Phase::Synced) => {
                self.sources.values().all(Option::is_none) && self.read.is_some()
            }
            (Phase::Synced, Phase::Switched) => self.all_have_reached(Phase::Synced),
            _ => false,
        }
    }

    fn reads_by_current(&self) -> bool {
        let current = self.current().id();
        self.read.as_ref().is_some_and(|read| read.id() == current)
    }

    fn is_drained(&mut self) -> bool {
        self.draining.retain(|epoch| epoch.has_writes());
        self.is_published && self.draining.is_empty()
    }

    /// Have all other members of the current placement reached that phase of it?
    fn all_have_reached(&self, phase: Phase) -> bool {
        let mut others = self.current().members().filter(|node| **node != self.me);
        others.all(|node| self.has_reached(node, phase))
    }

    /// Have all peers switched, leaving ones included? Those serve clients until they exit.
    fn all_peers_have_switched(&self) -> bool {
        let peers = self.peers();
        peers
            .iter()
            .all(|node| self.has_reached(node, Phase::Switched))
    }

    fn has_reached(&self, node: &NodeId, phase: Phase) -> bool {
        let current = self.current().id();
        let status = self.statuses.get(node);
        status.is_some_and(|status| status.placement_id == current && status.phase >= phase)
    }

    /// Where no member is admitted, and none leaves that was, no list can be adopted: the
    /// first member starts one, with the number of copies that any of them requires.
    fn bootstrap_if_no_member_did(&mut self) {
        let current = self.current();
        let is_first = current.members().next() == Some(&self.me);
        let has_met = self.had_peers || self.recovered().is_some();
        let may_start = self.has_joined && has_met && is_first;
        if self.is_admitted || self.read.is_some() || !may_start {
            return;
        }
        let none_is_admitted = self.peers().iter().all(|node| {
            let status = self.statuses.get(node);
            status.is_some_and(|status| status.placement_id == current.id() && !status.admitted)
        });
        if none_is_admitted && self.missing().is_empty() {
            let mut statuses = self.statuses.values();
            let required = statuses.clone().find_map(|status| status.replicas);
            let stops = statuses.find_map(|status| status.stops_on_split);
            self.routing.stops_on_split = self.stops_on_split.or(stops);
            self.offers_all = true;
            self.begin_restore();
            self.bootstrap(required.unwrap_or(DEFAULT_REPLICAS));
        }
    }

    fn admit_if_confirmed(&mut self) {
        let is_confirmed = |node: &NodeId| *node == self.me || self.confirmed_by.contains(node);
        let is_admitted = self.read.is_some()
            && self.current().contains(&self.me)
            && self.current().members().all(is_confirmed);
        self.routing.is_admitted |= is_admitted;
    }
}

impl Deref for Rebalance {
    type Target = Routing;

    fn deref(&self) -> &Routing {
        &self.routing
    }
}
