//! Merging: what a node does with the records that arrive in an `exchange`.

use std::sync::Arc;

use super::action::{Call, Failure, Purpose};
use super::config;
use super::core::{Contact, Membership, Now};
use super::event::{Event, RejectReason};
use super::gossip::Gossip;
use super::member::{Member, Status};
use super::table::Merge;
use crate::location::Location;

/// What the merge of one gossip changed.
#[derive(Default)]
struct MergeResult {
    /// A record of the table was added or replaced.
    learned: bool,
    /// Locations whose records are newer here than in the gossip.
    newer: Vec<Location>,
}

impl Membership {
    /// Serves an `exchange`: merges the request and returns the reply.
    ///
    /// It makes no call, so no two nodes can wait for each other; calls that follow are made in
    /// the next tick. The reply to another network has this network's name and no records.
    pub fn on_exchange(&mut self, now: Now, request: Gossip) -> Gossip {
        self.advance_to(now);
        if !self.is_of_network(&request.network) {
            self.report_foreign_network(&request.sender, &request.network);
            return self.gossip_of(Vec::new());
        }
        let result = self.merge_gossip(&request);
        self.record_exchange(&request.sender, request.digest);
        let members = self.reply_records(&request, result.newer);
        Gossip {
            learned: result.learned,
            ..self.gossip_of(members)
        }
    }

    /// Does a gossip of `network` belong to this node's? A node without an id takes the first one
    /// that it hears.
    fn is_of_network(&mut self, network: &Arc<str>) -> bool {
        let is_with_id = |long: &str, short: &str| {
            let id = long.strip_prefix(short);
            id.is_some_and(|id| id.starts_with('/'))
        };
        if is_with_id(network, &self.network) {
            self.network = network.clone();
        }
        *network == self.network || is_with_id(&self.network, network)
    }

    /// Takes the reply to an `exchange`.
    pub(super) fn on_exchange_reply(&mut self, call: Call, reply: Gossip) {
        if !self.is_of_network(&reply.network) {
            self.report_foreign_network(&call.peer, &reply.network);
            return self.on_failure(&call, Failure::Refused);
        }
        let was_alone = self.is_alone();
        let digest_before = self.digest();
        let result = self.merge_gossip(&reply);
        if was_alone && call.full {
            // A node that joins learns what all others know: only its own record is a rumor.
            self.rumors.clear();
            self.rumors.add(&self.me, config::MAX_RUMORS);
        }
        self.record_exchange(&reply.sender, reply.digest);
        if reply.sender != call.peer {
            return self.on_other_sender(&call, reply.sender);
        }
        self.candidates.remove(&call.peer);
        self.end_cut_link(&call.peer);
        let is_gossip = call.purpose == Purpose::Gossip;
        let is_useful = result.learned || reply.learned;
        if is_gossip {
            self.count_exchange(is_useful);
        } else {
            self.recover_health();
        }
        // Useful gossip is followed by more of it. And records that changed here during the call
        // were not in the request.
        let is_explained = is_gossip && is_useful || digest_before != call.digest;
        if reply.digest != self.digest() && !call.full && !is_explained {
            self.push_pull(&call.peer);
        }
    }

    /// The node at `call.peer` uses another location for itself: `call.peer` is an alias, or
    /// another node has taken over the address.
    fn on_other_sender(&mut self, call: &Call, sender: Location) {
        if let Some(advertised) = self.seeds.get_mut(&call.peer) {
            *advertised = Some(sender);
        }
        self.candidates.remove(&call.peer);
        if self.table.get(&call.peer).is_some() {
            self.on_failure(call, Failure::Refused);
        }
    }

    fn merge_gossip(&mut self, gossip: &Gossip) -> MergeResult {
        let mut result = MergeResult::default();
        if gossip.refused > 0 {
            let reason = RejectReason::Unreadable(gossip.refused);
            self.report_rejected(&gossip.sender, reason);
        }
        for member in &gossip.members {
            let merged = if member.location == self.me {
                self.merge_own(member)
            } else {
                self.merge_other(member)
            };
            match merged {
                Ok(Merge::Applied(_)) => result.learned = true,
                Ok(Merge::Unchanged) => {
                    let limit = config::MAX_USELESS_EXCHANGES;
                    self.rumors.count_duplicate(&member.location, limit);
                }
                Ok(Merge::Stale) => result.newer.push(member.location.clone()),
                Err(reason) => self.report_rejected(&gossip.sender, reason),
            }
        }
        result
    }

    /// Merges the record of another member.
    fn merge_other(&mut self, member: &Member) -> Result<Merge, RejectReason> {
        // Nearly all records that arrive are known, so these cases come first.
        let known = self.table.get(&member.location);
        let is_new = match known {
            Some(known) if known == member => return Ok(Merge::Unchanged),
            Some(known) if !member.supersedes(known) => return Ok(Merge::Stale),
            Some(known) => !known.status.is_live(),
            None => true,
        };
        if member.incarnation > self.max_incarnation(1) {
            return Err(RejectReason::ClockSkew);
        }
        let is_full = self.table.live() >= self.config.max_live;
        if member.status.is_live() && is_new && is_full {
            return Err(RejectReason::TableFull);
        }
        if known.is_some_and(|known| member.was_declared_down(known)) {
            // The member refuted a suspicion or leaves, and does not know that it was declared
            // down since. The others continued without it, so it must return with a new
            // generation, even if only to leave.
            self.apply(member.with_status(Status::Down));
            return Ok(Merge::Stale);
        }
        let before = known.map(|known| known.status);
        let merged = self.apply(member.clone());
        let location = || member.location.clone();
        match (before, member.status) {
            (Some(Status::Alive), Status::Suspect) => {
                self.push_event(Event::SuspectedByOthers(location()));
            }
            (Some(Status::Suspect), Status::Alive) => {
                self.push_event(Event::RefutedByMember(location()));
            }
            _ => {}
        }
        Ok(merged)
    }

    /// Compares a record of this node with its own, and refutes it if it is larger.
    fn merge_own(&mut self, received: &Member) -> Result<Merge, RejectReason> {
        let own = self.own_record();
        if *received == own {
            return Ok(Merge::Unchanged);
        }
        if received.supersedes(&own) || own.was_declared_down(received) {
            // Twice the limit of other records: a record that others accept must be refutable.
            if received.incarnation > self.max_incarnation(2) {
                return Err(RejectReason::ClockSkew);
            }
            let is_this_process = received.generation == own.generation;
            if is_this_process && received.status != Status::Alive {
                self.degrade_health();
            }
            let was_removed = is_this_process && !received.status.is_live();
            let incarnation = received.incarnation.max(own.incarnation);
            self.refute(own, incarnation, was_removed);
        }
        Ok(Merge::Stale)
    }

    /// Writes ALIVE, or LEFT if this node leaves, with an incarnation above `refuted`. If this node
    /// `was_removed` from the rings of others, it gets a new generation: it has missed what they
    /// did since.
    fn refute(&mut self, own: Member, refuted: i64, was_removed: bool) {
        let incarnation = self.now.unix_millis.max(refuted + 1);
        let generation = if was_removed {
            incarnation
        } else {
            own.generation
        };
        self.apply(Member {
            incarnation,
            generation,
            ..own
        });
        self.push_event(Event::Refuted(incarnation));
    }

    /// Records that `sender` exchanged with this node: it is no legacy node.
    fn record_exchange(&mut self, sender: &Location, digest: u64) {
        if self.legacy.remove(sender) {
            self.push_event(Event::UpgradedPeer(sender.clone()));
        }
        self.record_contact(sender, Some(digest));
    }

    /// Records that a message of `sender` arrived: its process runs.
    pub(super) fn record_contact(&mut self, sender: &Location, digest: Option<u64>) {
        if *sender != self.me && self.ring.contains(sender) {
            let at = self.now.monotonic;
            self.urgent.remove(sender);
            self.contacts.insert(sender.clone(), Contact { digest, at });
        }
    }

    /// The largest incarnation that is accepted: `times` the allowed clock skew ahead.
    fn max_incarnation(&self, times: i64) -> i64 {
        let skew = config::MAX_CLOCK_SKEW.as_millis() as i64;
        let now = self.now.unix_millis;
        now.saturating_add(skew.saturating_mul(times))
    }
}
