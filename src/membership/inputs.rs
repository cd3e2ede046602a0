//! The inputs of the core: what the driver calls when time passes, a call ends, or a message
//! arrives. Requests of `exchange` are in `merge`.

use std::time::Duration;

use super::action::{Action, Failure, Outcome, Purpose, Token};
use super::config;
use super::core::{Membership, Now};
use super::event::Event;
use super::member::Status;
use crate::location::Location;

impl Membership {
    /// Adds a seed: the node calls it until it is live, and again whenever it is not.
    pub fn seed(&mut self, now: Now, location: Location) {
        self.advance_to(now);
        self.seeds.entry(location).or_insert(None);
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
        let lifetime = config::CALL_LIFETIME;
        let oldest_call = self.calls.values().next();
        let call_expiry = oldest_call.map(|call| call.called_at + lifetime);
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
        if let Some(call) = self.calls.remove(&token) {
            match outcome {
                Outcome::Gossip(gossip) => self.on_exchange_reply(call, gossip),
                Outcome::PingReq(reached) => {
                    if let Purpose::PingReq(target) = &call.purpose {
                        self.on_ping_req_reply(target, &call.peer, Some(reached));
                    }
                }
                Outcome::All(locations) => self.on_legacy_reply(&call.peer, &locations),
                Outcome::Done => {}
                Outcome::UnknownMethod => self.on_unknown_method(&call),
                Outcome::Refused => self.on_failure(&call, Failure::Refused),
                Outcome::NoReply => self.on_failure(&call, Failure::NoReply),
            }
        }
        self.take_actions()
    }

    /// Serves the original's `join` and `add`: `location` asks to become a member, or a peer names
    /// it as one. If it is not live, it is called in the next tick, by `exchange` or, if it does
    /// not know that, by `get_all`. Only its own reply makes it a member.
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
            let legacy: Vec<Location> = self.table.legacy().iter().cloned().collect();
            for peer in &legacy {
                self.probe_soon(peer);
            }
        } else if self.ring.contains(&location) {
            self.probe_soon(&location);
        }
    }

    /// Reports a failed call of the layer above. The member is probed in the next tick. If that
    /// fails and no indirect probe succeeds, it is DOWN after `URGENT_REFUSED_SUSPECT_TIMEOUT` or
    /// `URGENT_SUSPECT_TIMEOUT`. [`status_of`](Membership::status_of) and the events show the
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

    /// An operator declares a silent member gone: its process has ended, or will never return. Its
    /// record is dropped. False if the member is not silent.
    pub fn declare_gone(&mut self, now: Now, location: &Location) -> bool {
        self.advance_to(now);
        let is_silent = self.silent.contains_key(location);
        if is_silent {
            self.tombstone_timers.cancel(location);
            self.forget(location);
            self.push_event(Event::DeclaredGone(location.clone()));
        }
        is_silent
    }

    /// Writes LEFT and announces it to `LEAVE_FANOUT` members. The node continues to reply and
    /// to tick until [`left`](Membership::left). A second call does nothing.
    pub fn leave(&mut self, now: Now) -> Vec<Action> {
        self.advance_to(now);
        if self.leaving_since.is_none() {
            self.leaving_since = Some(now.monotonic);
            let left = self.own_record().with_status(Status::Left);
            self.apply(left);
            self.notify_legacy_of_leave();
            for _ in 0..config::LEAVE_FANOUT {
                self.announce_leave();
            }
        }
        self.take_actions()
    }

    /// May the process end? True after `LEAVE_LINGER`, as soon as no announcement is in flight,
    /// and one `CALL_TIMEOUT` later in any case.
    pub fn left(&self, now: Now) -> bool {
        let Some(linger_end) = self.linger_end() else {
            return false;
        };
        let is_announcing = self
            .calls
            .values()
            .any(|call| call.purpose == Purpose::Leave);
        let wait = if is_announcing {
            config::CALL_TIMEOUT
        } else {
            Duration::ZERO
        };
        now.monotonic >= linger_end + wait
    }

    /// When a leaving node no longer announces that it leaves.
    fn linger_end(&self) -> Option<Duration> {
        Some(self.leaving_since? + config::LEAVE_LINGER)
    }

    /// Sends this node's LEFT record to one random member. Does nothing if the process is about
    /// to end or enough members were called.
    pub(super) fn announce_leave(&mut self) {
        let is_late = self
            .linger_end()
            .is_none_or(|end| self.now.monotonic >= end);
        // As many failed announcements are repeated as there are announcements.
        if is_late || self.leave_calls >= 2 * config::LEAVE_FANOUT {
            return;
        }
        self.leave_calls += 1;
        for _ in 0..config::MAX_CALLS {
            let sampled = self.rng.choose(&self.ring).cloned();
            let peer = sampled.filter(|peer| !self.is_legacy(peer));
            if peer.is_some_and(|peer| self.exchange_with(&peer, Purpose::Leave)) {
                return;
            }
        }
    }

    /// Starts a new network with this id, unless it has one already.
    pub fn found(&mut self, id: &str) {
        if !self.network.contains('/') {
            self.network = format!("{}/{id}", self.network).into();
        }
    }

    /// The first input of a node that waited for its peer: that wait is no pause.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
        self.running_since = now.monotonic;
        self.probe_at = self.probe_at.max(now.monotonic);
        self.reconnect_at = now.monotonic;
    }

    /// Sets the time. Every input calls this first. A late input means that the process was
    /// paused.
    pub(super) fn advance_to(&mut self, now: Now) {
        let expected = self.wake_at().max(self.now.monotonic);
        self.now = now;
        let late = now.monotonic.saturating_sub(expected);
        if late > config::PAUSE_THRESHOLD {
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
        self.degrade_health();
        self.push_event(Event::ProcessPaused(length));
        // Other nodes may suspect this one by now: exchange with them soon.
        self.become_hot();
    }
}
