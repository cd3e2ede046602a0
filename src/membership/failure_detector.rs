//! The failure detector: from a failed call to SUSPECT and DOWN.
//!
//! 1. A call to a member fails.
//! 2. `ping_req` is sent to three helpers, other members that probe it too, since the fault may
//!    be this node's or the path's (SWIM).
//! 3. If no helper reaches the member, it is SUSPECT. It stays on the ring, and the suspicion
//!    spreads to all members including the suspect.
//! 4. The suspect refutes with a higher incarnation, or its suspect timeout expires and it is
//!    DOWN.

use std::time::Duration;

use super::action::{Failure, Request};
use super::calls::{Call, Purpose};
use super::core::Membership;
use super::event::Event;
use super::indirect_probe::IndirectProbe;
use super::member::{Member, Status};
use crate::location::Location;

impl Membership {
    /// Takes the failure of a call.
    pub(super) fn on_failure(&mut self, call: &Call, failure: Failure) {
        match call.purpose {
            Purpose::PingReq => return self.on_ping_req_reply(call, None),
            Purpose::LegacyNotify => return,
            Purpose::Gossip => self.count_exchange(false),
            Purpose::Leave => self.announce_leave(),
            Purpose::Probe => {}
        }
        // A timeout that expired while this process was paused is no evidence against the peer.
        let was_paused = failure == Failure::NoReply && call.called_at < self.running_since;
        match self.table.get(&call.peer).cloned() {
            None => self.on_candidate_failure(&call.peer),
            Some(_) if was_paused => {}
            Some(member) if member.status.is_live() => {
                self.start_indirect_probe(&member, failure, call.called_at);
            }
            Some(member) => {
                if member.status == Status::Down && failure == Failure::Refused {
                    self.end_grace(&member.location);
                }
            }
        }
    }

    /// Takes a helper's reply, or None if the helper did not reply.
    pub(super) fn on_ping_req_reply(&mut self, call: &Call, reached: Option<bool>) {
        let Some(target) = &call.target else { return };
        let Some(probe) = self.indirect_probes.get_mut(target) else {
            return;
        };
        if reached == Some(true) {
            self.indirect_probes.remove(target);
            self.urgent.remove(target);
        } else if probe.on_reply(reached == Some(false)) {
            self.finish_indirect_probe(target);
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
        let probe = IndirectProbe::new(failure, called_at, member.incarnation, helpers.len());
        self.indirect_probes.insert(peer.clone(), probe);
        for helper in &helpers {
            self.call(helper, Purpose::PingReq, Request::PingReq(peer.clone()));
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
        let is_cut_off = probe.is_cut_off();
        if is_cut_off {
            self.local_health.degrade();
        }
        // If no helper replies either, even a refused connection may be this node's fault.
        let timeout = match probe.failure {
            Failure::Refused if !is_cut_off => self.refused_suspect_timeout(target),
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
            self.config.urgent_refused_suspect_timeout
        } else {
            self.config.refused_suspect_timeout
        }
    }

    /// From SUSPECT to DOWN if there was no reply, or the failure is not known.
    pub(super) fn suspect_timeout(&self, peer: &Location) -> Duration {
        let timeout = if self.urgent.contains(peer) {
            self.config.urgent_suspect_timeout
        } else {
            self.config.suspect_timeout
        };
        self.local_health.scale_timeout(timeout)
    }

    /// Has a message of `peer` arrived after `time`?
    fn has_contact_since(&self, peer: &Location, time: Duration) -> bool {
        self.contacts
            .get(peer)
            .is_some_and(|contact| contact.at > time)
    }

    /// Chooses up to `ping_req_fanout` ALIVE members that know `ping_req`.
    fn sample_helpers(&mut self, target: &Location) -> Vec<Location> {
        let free_calls = self.config.max_calls.saturating_sub(self.calls.len());
        let wanted = self.config.ping_req_fanout.min(free_calls);
        let mut helpers: Vec<Location> = Vec::new();
        // A small network, or one with many suspects, may not have enough: the number of samples
        // is limited.
        for _ in 0..8 * wanted {
            let Some(sampled) = self.ring.sample(&mut self.rng).cloned() else {
                break;
            };
            let is_fit = sampled != self.me
                && sampled != *target
                && !helpers.contains(&sampled)
                && !self.is_legacy(&sampled)
                && self.status_of(&sampled) == Some(Status::Alive);
            if is_fit {
                helpers.push(sampled);
            }
            if helpers.len() == wanted {
                break;
            }
        }
        helpers
    }
}
