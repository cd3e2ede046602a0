//! The inputs of the core: what the driver calls when time passes, a call ends, or a message
//! arrives. Requests of `exchange` are in `merge`, leaving is in `leave`.

use std::time::Duration;

use super::action::{Action, Failure, Outcome, Token};
use super::core::{Membership, Now, Seed};
use super::event::Event;
use crate::location::Location;

impl Membership {
    /// Adds a seed: the node calls it until it is live, and again whenever it is not.
    pub fn seed(&mut self, now: Now, location: Location) {
        self.advance_to(now);
        self.seeds.push(Seed::new(location));
        self.reconnect_at = now.monotonic;
    }

    /// Does everything that is due and returns the calls to make. An early tick does nothing.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        self.advance_to(now);
        self.expire_calls();
        self.run_timers();
        self.probe_queued();
        self.probe();
        self.reconnect();
        self.gossip();
        self.take_actions()
    }

    /// When the next tick is needed, by the monotonic clock. May be in the past. Any other input
    /// can bring it forward.
    pub fn wake_at(&self) -> Duration {
        let queued_probe = self.probe_queue.earliest().filter(|_| self.can_call());
        let lifetime = self.config.call_lifetime;
        let call_expiry = self.calls.oldest().map(|called_at| called_at + lifetime);
        [
            self.gossip_at,
            queued_probe,
            call_expiry,
            self.suspect_timers.earliest(),
            self.grace_timers.earliest(),
            self.tombstone_timers.earliest(),
        ]
        .into_iter()
        .flatten()
        .fold(self.probe_at.min(self.reconnect_at), Duration::min)
    }

    /// Takes the outcome of a call and returns the calls that follow from it. The outcome of a
    /// call that is not in flight is ignored.
    pub fn reply(&mut self, now: Now, token: Token, outcome: Outcome) -> Vec<Action> {
        self.advance_to(now);
        if let Some(call) = self.calls.remove(token) {
            match outcome {
                Outcome::Gossip(gossip) => self.on_exchange_reply(call, gossip),
                Outcome::PingReq(reached) => self.on_ping_req_reply(&call, Some(reached)),
                Outcome::All(locations) => self.on_legacy_reply(&call.peer, &locations),
                Outcome::Done => {}
                Outcome::UnknownMethod => self.on_unknown_method(&call),
                Outcome::Refused => self.on_failure(&call, Failure::Refused),
                Outcome::NoReply => self.on_failure(&call, Failure::NoReply),
            }
        }
        self.take_actions()
    }

    /// Serves the original's `join`: `location` asks to become a member. If it is not live, it is
    /// called in the next tick, by `exchange` or, if it does not know that, by `get_all`.
    pub fn join(&mut self, now: Now, location: Location) {
        self.advance_to(now);
        self.add_candidate(&location);
    }

    /// Serves the original's `add`: a peer names `location` as a member. Handled like
    /// [`join`](Membership::join): only a reply of `location` itself makes it a member.
    pub fn add(&mut self, now: Now, location: Location) {
        self.advance_to(now);
        self.add_candidate(&location);
    }

    /// Serves the original's `remove`: a peer names `location` as gone. A member on the ring
    /// is probed in the next tick, and stays if it replies. If the location is this node's own,
    /// all legacy nodes are called, and those that miss this node get an `add`.
    pub fn remove(&mut self, now: Now, location: Location) {
        self.advance_to(now);
        if location == self.me {
            let members = self.ring.iter().filter(|peer| self.is_legacy(peer));
            let legacy: Vec<Location> = members.cloned().collect();
            for peer in &legacy {
                self.probe_soon(peer);
            }
        } else if self.ring.contains(&location) {
            self.probe_soon(&location);
        }
    }

    /// Reports a failed call of the layer above. The member is probed in the next tick. If that
    /// fails and no indirect probe succeeds, it is DOWN after `urgent_refused_suspect_timeout` or
    /// `urgent_suspect_timeout`. [`status_of`](Membership::status_of) and the events show the
    /// result.
    pub fn report_unreachable(&mut self, now: Now, location: &Location, failure: Failure) {
        self.advance_to(now);
        if *location != self.me && self.ring.contains(location) {
            self.urgent.insert(location.clone());
            if failure == Failure::NoReply {
                // A member that is SUSPECT already gets no second indirect probe.
                let deadline = self.now.monotonic + self.suspect_timeout(location);
                self.suspect_timers.shorten(location, deadline);
            }
            self.probe_soon(location);
        }
    }

    /// Returns and removes the events since the last call. The driver takes them after every
    /// method that takes `&mut self`, and changes its ring under the same lock.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.changes.is_empty() {
            events.push(Event::RingChanged(std::mem::take(&mut self.changes)));
        }
        events.extend(self.pending_events.drain(..));
        events
    }

    /// Sets the time. Every input calls this first. A late input means that the process was
    /// paused.
    pub(super) fn advance_to(&mut self, now: Now) {
        let expected = self.wake_at().max(self.now.monotonic);
        self.now = now;
        let late = now.monotonic.saturating_sub(expected);
        if late > self.config.pause_threshold {
            self.on_pause(late);
        }
    }

    /// Extends all timers by the length of the pause: a timeout that expired during it is no
    /// evidence against another member.
    fn on_pause(&mut self, length: Duration) {
        self.running_since = self.now.monotonic;
        self.suspect_timers.postpone(length);
        self.grace_timers.postpone(length);
        for since in self.suspect_since.values_mut() {
            *since += length;
        }
        self.local_health.degrade();
        self.push_event(Event::ProcessPaused(length));
        // Other nodes may suspect this one by now: exchange with them soon.
        self.become_hot();
    }
}
