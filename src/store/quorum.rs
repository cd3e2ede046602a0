//! `Quorum`: with `--on-split stop`, a node serves only while more than half of the members
//! confirm it.
//!
//! A node asks the other members several times a second. One confirms that it has the same
//! placement, and so promises for [`LEASE_MS`] to confirm no node that has gone on without the
//! one that asked. More than half must have confirmed lately, of each placement on the node's list
//! (as in Raft's joint consensus: Ongaro and Ousterhout, 2014, section 6). Members whose process
//! has ended or has left do not count. So of two sides of a split one serves at most, and it
//! starts to go on without the other when no confirmation of the other counts any more.
//!
//! Only the rates of the clocks matter, not what they show.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::placement::{NodeId, Placement};
use super::rebalance::Routing;
use crate::location::Location;

/// How long a confirmation counts, since it was asked for. Less than the time in which a member
/// that does not reply is declared down.
pub const LEASE_MS: u64 = 2_000;

/// A node without enough confirmations for so long refuses calls at once, and does not wait for
/// them. They are missing for a moment when the members change.
const PATIENCE_MS: u64 = 1_000;

/// Confirmations that one node has received and given. Times are milliseconds of its own clock.
#[derive(Debug, Default)]
pub struct Quorum {
    /// The latest confirmation of each member: when it was asked for, and of which placement.
    confirmed: BTreeMap<NodeId, (u64, Arc<Placement>)>,
    /// When this node last confirmed each member.
    promised: BTreeMap<NodeId, u64>,
    /// Since when it may not serve.
    lost_at: Option<u64>,
}

impl Quorum {
    /// Does this node confirm `member`, which has that placement? `silent` members are down and
    /// may be running.
    pub fn confirm(
        &mut self,
        now: u64,
        (member, placement_id): (&NodeId, u64),
        routing: &Routing,
        silent: &[Location],
    ) -> bool {
        let current = routing.current();
        let is_same = current.id() == placement_id && current.contains(member);
        if !is_same || !self.is_free(now, silent) {
            return false;
        }
        self.promised.retain(|_, at| now < *at + LEASE_MS);
        self.promised.insert(member.clone(), now);
        true
    }

    /// `member` has confirmed this placement. It was asked at that time.
    pub fn record(&mut self, asked_at: u64, member: NodeId, placement: Arc<Placement>) {
        self.confirmed.insert(member, (asked_at, placement));
    }

    /// Until when the node of that snapshot may serve.
    pub fn until(&mut self, now: u64, routing: &Routing, silent: &[Location]) -> u64 {
        if !self.is_free(now, silent) {
            return 0;
        }
        let is_silent = |node: &NodeId| routing.is_gone(node) && silent.contains(&node.location);
        // One that was given before a member went silent may still count for that member.
        let has_silent = |placement: &Placement| placement.members().any(is_silent);
        self.confirmed
            .retain(|node, (_, placement)| !routing.is_gone(node) && !has_silent(placement));
        let until_of = |placement: &Arc<Placement>| {
            let mut times: Vec<u64> = Vec::new();
            for node in placement.members() {
                match self.confirmed.get(node) {
                    _ if node == routing.me() => times.push(u64::MAX),
                    Some((asked_at, _)) => times.push(asked_at + LEASE_MS),
                    None if routing.is_gone(node) && !is_silent(node) => (),
                    None => times.push(0),
                }
            }
            times.sort_unstable_by(|one, other| other.cmp(one));
            // More than half have one that counts at least until then.
            times.get(times.len() / 2).copied().unwrap_or(0)
        };
        let placements = routing.placements().iter();
        placements.map(until_of).min().unwrap_or(0)
    }

    /// Has this node lost its confirmations for longer than a change of the members takes? It may
    /// serve until that time.
    pub fn is_lost(&mut self, now: u64, until: u64) -> bool {
        let lost_at = (now >= until).then(|| self.lost_at.unwrap_or(now));
        self.lost_at = lost_at;
        lost_at.is_some_and(|at| now - at >= PATIENCE_MS)
    }

    /// Has this node promised nothing to a silent member?
    fn is_free(&self, now: u64, silent: &[Location]) -> bool {
        let mut promised = self.promised.iter();
        promised.all(|(node, at)| now >= *at + LEASE_MS || !silent.contains(&node.location))
    }
}

#[cfg(test)]
mod tests;
