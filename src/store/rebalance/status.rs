//! What nodes report to each other about their rebalance, and what follows from a report.
//!
//! A status can arrive late: it may wait in the buffers of a process that hangs, while the
//! others declare it down and it rejoins as another [`NodeId`]. So each status names the
//! receiver's generation that its sender knows, and of two statuses the later one counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Rebalance, Saved};
use crate::store::placement::{NodeId, Placement};

/// The most placements of a history that are accepted. The list of a rebalance is far shorter.
const MAX_PLACEMENTS: usize = 1_000;

/// How far a node is with its current placement. See the module above for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Writes that start now go to its owners.
    Installed,
    /// All writes in progress do.
    Drained,
    /// The node holds all that it owns in it.
    Synced,
    /// The node reads by it.
    Switched,
    /// It is the only placement.
    Settled,
}

/// What a node reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebalanceStatus {
    /// The node that reports.
    pub sender: NodeId,
    /// Its current placement.
    pub placement_id: u64,
    /// How far it is with that placement.
    pub phase: Phase,
    /// Is it admitted?
    pub admitted: bool,
    /// The placement that its reads use, if it has one.
    pub read_placement_id: Option<u64>,
    /// All placements on its list, oldest first.
    pub placement_ids: Vec<u64>,
    /// The receiver's generation, if the sender counts on the receiver: as a member of its
    /// current placement, or as one that leaves and still replies.
    pub seen_generation: Option<i64>,
    /// The receiver is leaving and did not reply: the sender has gone on without it.
    pub gave_up: bool,
    /// How many copies of a key it keeps. None while unknown.
    pub replicas: Option<usize>,
    /// Its choice for splits (see [`Routing::stops_on_split`](super::Routing::stops_on_split)).
    /// None while unknown.
    pub stops_on_split: Option<bool>,
    /// Larger in a status that was sent later.
    pub sequence: u64,
    /// Larger for a later read placement.
    pub settlement: u64,
    /// What its directory holds, while it is not admitted. None without a directory.
    pub recovered: Option<Saved>,
    /// It does not want to wait for missing members.
    pub is_forced: bool,
}

/// The list of placements of an admitted node, for one that is not admitted.
#[derive(Debug, Clone)]
pub struct PlacementHistory {
    /// The placements, oldest first.
    pub placements: Vec<Arc<Placement>>,
    /// The placement that reads use.
    pub read_placement_id: u64,
    /// How many copies of a key are kept.
    pub replicas: usize,
    /// The network's choice for splits.
    pub stops_on_split: bool,
    /// Larger for a later read placement.
    pub settlement: u64,
    /// The network is being restored from what the members of this placement have saved.
    pub restored: Option<Arc<Placement>>,
}

impl Rebalance {
    /// This node has been isolated, so that the others may have declared it down: it stops
    /// serving until every member has confirmed that it did not. `isolations` counts how
    /// often that happened.
    pub fn suspend_lease(&mut self, isolations: u64) {
        let has_peers = self.current().members().any(|node| *node != self.me);
        // A confirmation from before this isolation proves nothing after it.
        let is_fresh = self.lease.as_ref().is_some_and(BTreeSet::is_empty);
        if self.isolations != isolations || (has_peers && !is_fresh) {
            self.routing.isolations = isolations;
            self.routing.lease = has_peers.then(BTreeSet::new);
            self.changes += 1;
        }
    }

    /// The status to send to `receiver`.
    pub fn status_for(&self, receiver: &NodeId) -> RebalanceStatus {
        let is_leaving = self.members.leaving.contains(receiver);
        let gave_up = self.exited.contains(receiver);
        let is_known = self.current().contains(receiver) || (is_leaving && !gave_up);
        RebalanceStatus {
            sender: self.me.clone(),
            placement_id: self.current().id(),
            phase: self.phase,
            admitted: self.is_admitted,
            read_placement_id: self.read.as_ref().map(|read| read.id()),
            placement_ids: self.placements.iter().map(|known| known.id()).collect(),
            seen_generation: is_known.then_some(receiver.generation),
            gave_up,
            replicas: self.replicas,
            stops_on_split: self.stops_on_split,
            sequence: self.changes,
            settlement: self.settlement,
            recovered: self.recovered(),
            is_forced: self.is_forced(),
        }
    }

    /// The list of placements, for a node that is not admitted. None while this one is not.
    pub fn history(&self) -> Option<PlacementHistory> {
        let read = self.read.as_ref().filter(|_| self.is_admitted)?;
        Some(PlacementHistory {
            placements: self.placements.to_vec(),
            read_placement_id: read.id(),
            replicas: self.replicas?,
            stops_on_split: self.stops_on_split(),
            settlement: self.settlement,
            restored: self.restored.clone(),
        })
    }

    /// Does this node need the list of an admitted one?
    pub fn wants_history(&self) -> bool {
        !self.is_admitted
    }

    /// The peers whose status this node waits for: those that have not reached its phase of
    /// its placement, or have not confirmed what it needs.
    pub fn lagging_peers(&self) -> Vec<NodeId> {
        let mut peers = self.peers();
        let lease = self.lease.as_ref();
        peers.retain(|node| {
            !self.has_reached(node, self.phase)
                || lease.is_some_and(|confirmed| !confirmed.contains(node))
                || (!self.is_admitted && !self.confirmed_by.contains(node))
        });
        peers
    }

    /// Takes over a member's status, with its list if this node asked for it.
    ///
    /// `asked_at` is [`isolations`](super::Routing::isolations) when the status was asked for. None
    /// for a status that came unasked, which may be older than the last isolation.
    pub fn on_status(
        &mut self,
        asked_at: Option<u64>,
        status: RebalanceStatus,
        history: Option<PlacementHistory>,
    ) {
        let sender = &status.sender;
        let is_peer = self.members.live.contains(sender) || self.members.leaving.contains(sender);
        if !is_peer || status.placement_ids.len() > MAX_PLACEMENTS {
            // A peer that is not known yet sends its status again.
            return;
        }
        let known = self.statuses.get(sender);
        if known.is_some_and(|known| known.sequence > status.sequence) {
            return;
        }
        if asked_at == Some(self.isolations)
            && self.is_seen_by(&status)
            && let Some(confirmed) = &mut self.routing.lease
        {
            confirmed.insert(status.sender.clone());
        }
        self.was_given_up |= asked_at.is_some() && status.gave_up;
        if let Some(history) = history
            && self.should_adopt_list_of(&status)
        {
            self.adopt_history(history);
        }
        if self.is_seen_by(&status) && self.shares_list_with(&status) {
            self.confirmed_by.insert(status.sender.clone());
        }
        self.statuses.insert(status.sender.clone(), status);
        self.changes += 1;
        self.advance();
    }

    fn is_seen_by(&self, status: &RebalanceStatus) -> bool {
        status.seen_generation == Some(self.me.generation)
    }

    /// Should this node adopt the list of the status' sender? Yes in place of an older list of
    /// the same network. Of two networks that meet it keeps to one, as long as any admitted
    /// node does: it would start over with each status otherwise.
    fn should_adopt_list_of(&self, status: &RebalanceStatus) -> bool {
        // A leaving node is in no placement. It needs a list only to hand its keys over.
        let is_lasting = self.is_seen_by(status) || !self.current().contains(&self.me);
        if self.is_admitted || !status.admitted || !is_lasting || self.shares_list_with(status) {
            return false;
        }
        let is_older = |read: &Arc<Placement>| status.placement_ids.contains(&read.id());
        let mut others = self
            .statuses
            .iter()
            .filter(|(node, _)| **node != status.sender);
        self.read.as_ref().is_some_and(is_older)
            || !others.any(|(_, known)| known.admitted && self.shares_list_with(known))
    }

    /// Does each list have the placement that the other node reads by?
    fn shares_list_with(&self, status: &RebalanceStatus) -> bool {
        let Some(read) = &self.read else {
            return false;
        };
        let theirs = status.read_placement_id;
        theirs.is_some_and(|theirs| self.knows(theirs)) && status.placement_ids.contains(&read.id())
    }

    /// Serves again when all members have confirmed that they did not go on without this node.
    pub(super) fn restore_lease_if_confirmed(&mut self) {
        let is_confirmed = self.lease.as_ref().is_some_and(|confirmed| {
            let mut others = self.current().members().filter(|node| **node != self.me);
            others.all(|node| confirmed.contains(node))
        });
        if is_confirmed {
            self.routing.lease = None;
        }
    }
}
