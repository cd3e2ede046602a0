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

mod routing;
mod rules;
mod status;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::placement::{NodeId, Placement};
use super::table::Cursor;

pub use routing::{ReadRoute, Routing, WriteTicket};
pub use rules::{Rule, Rules};
pub use status::{Phase, PlacementHistory, RebalanceStatus};
pub use transfer::{AttemptId, Pull, TransferFilter};

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
    me: NodeId,
    rules: Rules,
    /// Copies of each key. None until the network's number is known.
    replicas: Option<usize>,
    members: MemberSnapshot,
    /// Leaving members whose process has exited.
    exited: BTreeSet<NodeId>,
    /// From the last settled placement to the current one. Never empty.
    placements: Arc<Vec<Arc<Placement>>>,
    /// The placement that reads use, one of `placements`. None before a list was adopted.
    read: Option<Arc<Placement>>,
    /// This node holds what it owns in the read placement. False at first where no member
    /// was admitted: each member must first receive what the others hold.
    holds_read: bool,
    phase: Phase,
    admitted: bool,
    /// None while this node may serve. After an isolation: the members that have confirmed
    /// since then that they have it in their placement. It serves again when all have.
    lease: Option<BTreeSet<NodeId>>,
    /// A member has gone on without this node, which is leaving and did not reply to it.
    was_given_up: bool,
    /// The node's isolations that this state accounts for.
    isolations: u64,
    /// This node has known another member.
    had_peers: bool,
    /// This node offers all it holds: it was declared down and has rejoined, or it started a
    /// new list among others.
    offers_all: bool,
    /// Members that have this node in their placement and share its read placement.
    confirmed_by: BTreeSet<NodeId>,
    /// The latest status of each member.
    statuses: BTreeMap<NodeId, RebalanceStatus>,
    /// Grows with everything that others are told or that a waiting thread may wait for.
    changes: u64,
    /// Writes that start now belong to this epoch. Each placement starts another one.
    epoch: Arc<WriteEpoch>,
    /// The snapshot of this epoch was published: no later write belongs to an older one.
    is_published: bool,
    /// Older epochs with writes in progress.
    draining: Vec<Arc<WriteEpoch>>,
    /// The largest version of a write that failed after some owners had received it.
    abandoned: Arc<AtomicI64>,
    /// The current attempt to copy.
    attempt_id: AttemptId,
    /// Where copying from each source continues. None when it is done.
    sources: BTreeMap<NodeId, Option<Cursor>>,
}

impl Rebalance {
    /// A node that knows no other member and is not admitted. `replicas` is the number of
    /// copies it requires; None accepts the network's.
    pub fn new(me: NodeId, replicas: Option<usize>, rules: Rules) -> Rebalance {
        let alone = Arc::new(Placement::new([me.clone()]));
        let live = BTreeSet::from([me.clone()]);
        Rebalance {
            members: MemberSnapshot {
                me: me.clone(),
                live,
                leaving: BTreeSet::new(),
            },
            me,
            rules,
            replicas,
            exited: BTreeSet::new(),
            placements: Arc::new(vec![alone]),
            read: None,
            holds_read: false,
            phase: Phase::Installed,
            admitted: false,
            lease: None,
            was_given_up: false,
            isolations: 0,
            had_peers: false,
            offers_all: false,
            confirmed_by: BTreeSet::new(),
            statuses: BTreeMap::new(),
            changes: 0,
            epoch: Arc::default(),
            is_published: false,
            draining: Vec::new(),
            abandoned: Arc::default(),
            attempt_id: 0,
            sources: BTreeMap::new(),
        }
    }

    /// Starts a network: this node holds all there is. Keeps `replicas` copies unless the node
    /// requires another number.
    pub fn bootstrap(&mut self, replicas: usize) {
        self.replicas.get_or_insert(replicas);
        let current = self.current().clone();
        self.admitted = true;
        self.read = Some(current.clone());
        self.holds_read = false;
        self.placements = Arc::new(vec![current]);
        self.restart();
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
        let is_other = |node: &NodeId| *node != self.me;
        self.had_peers |=
            !self.members.leaving.is_empty() || self.members.live.iter().any(is_other);
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

    /// Grows with everything that others are told or that a waiting thread may wait for.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How far this node is with its current placement.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Is the rebalance over, as far as this node knows?
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Settled && self.admitted
    }

    /// Does this node serve clients?
    pub fn is_serving(&self) -> bool {
        self.admitted && self.read.is_some() && self.lease.is_none()
    }

    /// Copies kept of each key. None while unknown.
    pub fn replicas(&self) -> Option<usize> {
        self.replicas
    }

    /// The other processes that take part: live members, and leaving ones that still reply.
    pub fn peers(&self) -> Vec<NodeId> {
        let leaving = self.members.leaving.iter();
        let leaving = leaving.filter(|node| !self.exited.contains(*node));
        let all = self.members.live.iter().chain(leaving);
        all.filter(|node| **node != self.me).cloned().collect()
    }

    /// Is that placement on this node's list? If not, its sender has newer membership.
    pub fn knows(&self, placement_id: u64) -> bool {
        self.placements
            .iter()
            .any(|known| known.id() == placement_id)
    }

    /// Has this process exited, or is it down?
    pub fn is_gone(&self, node: &NodeId) -> bool {
        *node != self.me && (self.is_down(node) || self.exited.contains(node))
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
        let placements = Arc::make_mut(&mut self.placements);
        placements.retain(|known| known.id() != placement.id());
        placements.push(placement);
        self.restart();
    }

    /// Starts over with the current placement.
    fn restart(&mut self) {
        self.draining.push(std::mem::take(&mut self.epoch));
        self.is_published = false;
        self.changes += 1;
        self.phase = Phase::Installed;
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
        let sources = if is_member { self.peers() } else { Vec::new() };
        self.sources = sources
            .into_iter()
            .map(|node| (node, Some(Cursor::default())))
            .collect();
    }

    /// This node was declared down, and the others went on without it: it joins again.
    fn rejoin_as(&mut self, me: NodeId) {
        self.me = me;
        self.admitted = false;
        self.lease = None;
        self.was_given_up = false;
        self.offers_all = true;
        self.confirmed_by.clear();
        self.read = None;
        self.placements = Arc::new(vec![self.current().clone()]);
        self.restart();
    }

    fn adopt_history(&mut self, history: PlacementHistory) {
        let current = self.current().clone();
        self.replicas.get_or_insert(history.replicas);
        let mut placements = history.placements;
        let is_read = |placement: &&Arc<Placement>| placement.id() == history.read_placement_id;
        self.read = placements.iter().find(is_read).cloned();
        self.holds_read = false;
        placements.retain(|placement| placement.id() != current.id());
        placements.push(current);
        self.placements = Arc::new(placements);
        self.confirmed_by.clear();
        self.restart();
    }

    fn take_steps(&mut self) {
        self.restore_lease_if_confirmed();
        self.admit_if_confirmed();
        self.bootstrap_if_no_member_did();
        if self.phase == Phase::Installed && (self.is_drained() || !self.rules.has(Rule::Drain)) {
            self.phase = Phase::Drained;
        }
        let is_copied = self.sources.values().all(Option::is_none);
        if self.phase == Phase::Drained && is_copied && self.read.is_some() {
            self.phase = Phase::Synced;
            self.holds_read |= self.reads_by_current();
        }
        if self.phase == Phase::Synced && self.all_have_reached(Phase::Synced) {
            self.read = Some(self.current().clone());
            self.holds_read = true;
            self.phase = Phase::Switched;
        }
        let all_switched =
            !self.rules.has(Rule::SettleAfterSwitch) || self.all_peers_have_switched();
        if self.phase == Phase::Switched && all_switched {
            self.placements = Arc::new(vec![self.current().clone()]);
            self.offers_all = false;
            self.phase = Phase::Settled;
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
        if self.admitted || self.read.is_some() || !self.had_peers || !is_first {
            return;
        }
        let none_is_admitted = self.peers().iter().all(|node| {
            let status = self.statuses.get(node);
            status.is_some_and(|status| status.placement_id == current.id() && !status.admitted)
        });
        if none_is_admitted {
            let required = self.statuses.values().find_map(|status| status.replicas);
            self.offers_all = true;
            self.bootstrap(required.unwrap_or(DEFAULT_REPLICAS));
        }
    }

    fn admit_if_confirmed(&mut self) {
        let is_confirmed = |node: &NodeId| *node == self.me || self.confirmed_by.contains(node);
        self.admitted |= self.read.is_some()
            && self.current().contains(&self.me)
            && self.current().members().all(is_confirmed);
    }
}
