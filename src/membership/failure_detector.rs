//! The failure detector: from a failed call to SUSPECT and DOWN.
//!
//! 1. A call to a member fails.
//! 2. `ping_req` is sent to three helpers, other members that probe it too, since the fault may
//!    be this node's or the path's (SWIM).
//! 3. If no helper reaches the member, it is SUSPECT. It stays on the ring, and the suspicion
//!    spreads to all members including the suspect.
//! 4. The suspect refutes with a higher incarnation, or its suspect timeout expires and it is
//!    DOWN.
//!
//! If a helper does reach the member, only the link to it is cut. The node remembers the helper, by
//! which the layer above can reach the member, and probes the member once a second until it
//! replies.
//!
//! A DOWN member is *silent* until it is known to have ended: its host answers that no process
//! listens, it returns, or an operator declares it gone. Each node finds that out for itself. A
//! silent member may be running on the other side of a split.
//!
//! To a node that is slow itself, all others seem slow. So each node keeps a score of signs that
//! it is the slow one, and the worse the score, the longer are its suspect timeouts (local health
//! multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018).

use std::time::Duration;

use super::action::{Call, Failure, Purpose, Request};
use super::config;
use super::core::{IndirectProbe, Membership};
use super::event::Event;
use super::member::{Member, Status};
use crate::location::Location;

/// The worst local health. 3: a member that does not reply is DOWN after four times the suspect
/// timeout, which is 16 s.
const WORST_HEALTH: u32 = 3;

impl Membership {
    /// Takes the failure of a call.
    pub(super) fn on_failure(&mut self, call: &Call, failure: Failure) {
        match &call.purpose {
            Purpose::PingReq(target) => return self.on_ping_req_reply(target, &call.peer, None),
            Purpose::LegacyNotify => return,
            Purpose::Gossip => self.count_exchange(false),
            Purpose::Leave => self.announce_leave(),
            Purpose::Probe => {}
        }
        if self.cut_links.contains_key(&call.peer) {
            self.probe_later(&call.peer, config::PROBE_INTERVAL);
        }
        // A timeout that expired while this process was paused is no evidence against the peer.
        let was_paused = failure == Failure::NoReply && call.called_at < self.running_since;
        match self.table.get(&call.peer).cloned() {
            None => self.on_candidate_failure(&call.peer),
            Some(_) if was_paused => {}
            Some(member) if member.status.is_live() => {
                self.start_indirect_probe(&member, failure, call.called_at);
            }
            Some(member) if member.status == Status::Down && failure == Failure::Refused => {
                self.end_grace(&member.location);
                self.on_exited(&member.location);
            }
            Some(_) => {}
        }
    }

    /// Takes a helper's reply about `target`, or None if the helper did not reply.
    pub(super) fn on_ping_req_reply(
        &mut self,
        target: &Location,
        helper: &Location,
        reached: Option<bool>,
    ) {
        let Some(probe) = self.indirect_probes.get_mut(target) else {
            return;
        };
        probe.awaited -= 1;
        probe.is_cut_off &= reached.is_none();
        if reached == Some(true) {
            let called_at = probe.called_at;
            self.indirect_probes.remove(target);
            self.urgent.remove(target);
            if !self.has_contact_since(target, called_at) {
                self.on_cut_link(target, helper);
            }
        } else if probe.awaited == 0 {
            self.finish_indirect_probe(target);
        }
    }

    /// A member replies to a helper and not to this node.
    fn on_cut_link(&mut self, peer: &Location, helper: &Location) {
        let before = self.cut_links.insert(peer.clone(), helper.clone());
        if before.as_ref() != Some(helper) {
            self.push_event(Event::LinkCut(peer.clone(), helper.clone()));
            self.probe_later(peer, config::PROBE_INTERVAL);
        }
    }

    /// A member has replied to this node, or is not on the ring any more.
    pub(super) fn end_cut_link(&mut self, peer: &Location) {
        if self.cut_links.remove(peer).is_some() {
            self.push_event(Event::LinkRestored(peer.clone()));
        }
    }

    /// The process of a DOWN member has ended.
    fn on_exited(&mut self, location: &Location) {
        if self.silent.remove(location).is_some() {
            self.push_event(Event::Exited(location.clone()));
        }
    }

    /// Sends `ping_req` about a member to which a call failed. Does nothing if the member has sent
    /// a message since the call, or is being probed already.
    fn start_indirect_probe(&mut self, member: &Member, failure: Failure, called_at: Duration) {
        let peer = &member.location;
        // It is known that a SUSPECT member does not reply.
        let is_known = member.status == Status::Suspect && failure == Failure::NoReply;
        if is_known || self.has_contact_since(peer, called_at) {
            return;
        }
        if let Some(probe) = self.indirect_probes.get_mut(peer) {
            if failure == Failure::Refused {
                probe.failure = failure;
            }
            return;
        }
        if !self.can_call() {
            // No member is suspected without an indirect probe: repeat the probe later.
            self.probe_soon(peer);
            return;
        }
        let helpers = self.sample_helpers(peer);
        let probe = IndirectProbe {
            failure,
            called_at,
            incarnation: member.incarnation,
            awaited: helpers.len(),
            is_cut_off: !helpers.is_empty(),
        };
        self.indirect_probes.insert(peer.clone(), probe);
        for helper in &helpers {
            let purpose = Purpose::PingReq(peer.clone());
            self.call(helper, purpose, Request::PingReq(peer.clone()));
        }
        if helpers.is_empty() {
            self.finish_indirect_probe(peer);
        }
    }

    /// Suspects the target of an indirect probe that no helper could reach.
    fn finish_indirect_probe(&mut self, target: &Location) {
        let Some(probe) = self.indirect_probes.remove(target) else {
            return;
        };
        let Some(member) = self.table.get(target).cloned() else {
            return;
        };
        let has_refuted = member.incarnation != probe.incarnation;
        if has_refuted || self.has_contact_since(target, probe.called_at) {
            return;
        }
        if probe.is_cut_off {
            self.degrade_health();
        }
        // If no helper replies either, even a refused connection may be this node's fault.
        let timeout = match probe.failure {
            Failure::Refused if !probe.is_cut_off => self.refused_suspect_timeout(target),
            _ => self.suspect_timeout(target),
        };
        self.suspect(&member, timeout);
    }

    fn suspect(&mut self, member: &Member, timeout: Duration) {
        if member.status == Status::Alive {
            self.apply(member.with_status(Status::Suspect));
            self.push_event(Event::Suspected(member.location.clone()));
        }
        let deadline = self.now.monotonic + timeout;
        self.suspect_timers.shorten(&member.location, deadline);
    }

    /// From SUSPECT to DOWN if the connection was refused.
    fn refused_suspect_timeout(&self, peer: &Location) -> Duration {
        if self.urgent.contains(peer) {
            config::URGENT_REFUSED_SUSPECT_TIMEOUT
        } else {
            config::REFUSED_SUSPECT_TIMEOUT
        }
    }

    /// From SUSPECT to DOWN if there was no reply, or the failure is not known.
    pub(super) fn suspect_timeout(&self, peer: &Location) -> Duration {
        let timeout = if self.urgent.contains(peer) {
            config::URGENT_SUSPECT_TIMEOUT
        } else {
            config::SUSPECT_TIMEOUT
        };
        timeout * (self.local_health + 1)
    }

    /// Records a sign that this node is the slow one: it was paused, it had to refute a suspicion,
    /// or none of its helpers replied.
    pub(super) fn degrade_health(&mut self) {
        self.local_health = (self.local_health + 1).min(WORST_HEALTH);
    }

    /// Records that a peer replied in time.
    pub(super) fn recover_health(&mut self) {
        self.local_health = self.local_health.saturating_sub(1);
    }

    /// Has a message of `peer` arrived after `time`?
    fn has_contact_since(&self, peer: &Location, time: Duration) -> bool {
        self.contacts
            .get(peer)
            .is_some_and(|contact| contact.at > time)
    }

    /// Chooses up to `PING_REQ_FANOUT` ALIVE members that know `ping_req`.
    fn sample_helpers(&mut self, target: &Location) -> Vec<Location> {
        let free_calls = config::MAX_CALLS.saturating_sub(self.calls.len());
        let wanted = config::PING_REQ_FANOUT.min(free_calls);
        let mut members: Vec<&Location> = self.ring.iter().collect();
        self.rng.shuffle(&mut members);
        let helpers = members.into_iter().filter(|&member| {
            *member != self.me
                && member != target
                && !self.is_legacy(member)
                && self.status_of(member) == Some(Status::Alive)
        });
        helpers.take(wanted).cloned().collect()
    }
}
