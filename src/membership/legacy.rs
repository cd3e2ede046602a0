//! Legacy nodes, which do not know `exchange`, and candidates.
//!
//! A candidate is a location that another node named by `join`, `add` or `get_all`. It is called
//! first and becomes a member when it replies. If it does not know `exchange`, it is a legacy
//! node, and is sent `get_all` instead: the reply is its heartbeat, and its list is compared with
//! the ring. Differences are corrected by `add` and `remove`, with all members as authorities so
//! that the legacy node does not forward them. A legacy node cannot write its own record, so
//! each node that reaches it writes ALIVE for it: the only exception to the rule that a member
//! alone does. Its generation is 0, which tells all members what it is. When it may have
//! restarted, its incarnation is raised: the layer above then gives it again what it should have.

use std::collections::BTreeSet;
use std::time::Duration;

use super::action::{Call, Purpose, Request};
use super::config;
use super::core::Membership;
use super::event::Event;
use super::member::{Member, Status};
use super::tags::Tags;
use crate::location::Location;

/// How long after a change of the ring, or a correction, the lists of legacy nodes are compared
/// with it. The original takes that long to pass a change on.
const COMPARE_AFTER: Duration = Duration::from_millis(300);

/// Nodes that compare the list of one legacy node after a change, on average.
const COMPARERS: f64 = 3.0;

/// Legacy nodes that are remembered as such.
const MAX_LEGACY: usize = 1_000;

/// A legacy node that is said to join, or that lacks this node, may have restarted if its record
/// is older than this, in milliseconds. Otherwise it has just joined.
const RESTART_AGE: i64 = 2_000;

impl Membership {
    /// Calls `location` in the next tick, unless it is a live member.
    pub(super) fn add_candidate(&mut self, location: &Location) {
        let is_live = *location == self.me || self.status_of(location).is_some_and(Status::is_live);
        if is_live {
            self.note_legacy_restart(location);
            return;
        }
        if self.status_of(location).is_none() {
            if self.candidates.len() >= config::MAX_QUEUED_PROBES {
                return;
            }
            self.candidates.entry(location.clone()).or_insert(0);
        }
        if !self.probe_soon(location) {
            self.candidates.remove(location);
        }
    }

    /// Calls a candidate again later, because it may be starting. After `MAX_ATTEMPTS` it is DOWN,
    /// with an incarnation that a process there supersedes.
    pub(super) fn on_candidate_failure(&mut self, location: &Location) {
        let Some(attempts) = self.candidates.get_mut(location) else {
            return;
        };
        *attempts += 1;
        if *attempts < config::MAX_ATTEMPTS {
            let delay = config::RECONNECT_INTERVAL / 4 * *attempts;
            self.probe_later(location, delay);
        } else {
            self.candidates.remove(location);
            self.apply(Member {
                location: location.clone(),
                incarnation: 0,
                status: Status::Down,
                generation: 0,
                tags: Tags::default(),
            });
        }
    }

    /// Takes the outcome that the peer does not know the method.
    pub(super) fn on_unknown_method(&mut self, call: &Call) {
        let is_new = !self.legacy.contains(&call.peer);
        if is_new && self.legacy.len() < MAX_LEGACY {
            self.legacy.insert(call.peer.clone());
            self.push_event(Event::LegacyPeer(call.peer.clone()));
        }
        match &call.purpose {
            Purpose::PingReq(target) => self.on_ping_req_reply(target, &call.peer, None),
            Purpose::Leave => self.announce_leave(),
            Purpose::LegacyNotify => {}
            Purpose::Gossip | Purpose::Probe => {
                if call.purpose == Purpose::Gossip {
                    self.count_exchange(false);
                }
                self.exchange_with(&call.peer, Purpose::Probe);
            }
        }
    }

    /// Takes the list of a legacy node, and corrects it.
    pub(super) fn on_legacy_reply(&mut self, peer: &Location, listed: &[Location]) {
        self.candidates.remove(peer);
        self.recover_health();
        self.mark_legacy_alive(peer);
        self.record_contact(peer, None);
        let listed: BTreeSet<&Location> = listed.iter().collect();
        if listed.contains(&self.me) {
            self.listed_by.insert(peer.clone());
        } else if self.listed_by.remove(peer) {
            self.note_legacy_restart(peer);
        }
        self.add_missing_to_legacy(peer, &listed);
        for location in listed {
            match self.status_of(location) {
                Some(Status::Down | Status::Left) if !self.ring.contains(location) => {
                    self.remove_from_legacy(peer, location);
                }
                None => self.add_candidate(location),
                _ => {}
            }
        }
    }

    /// The ring has changed: a few of our nodes ask each legacy node soon whether it knows.
    pub(super) fn compare_legacy_soon(&mut self) {
        let legacy: Vec<Location> = self.table.legacy().iter().cloned().collect();
        let ours = self.table.live() - legacy.len();
        let chance = COMPARERS / ours.max(1) as f64;
        for peer in &legacy {
            if self.rng.fraction() < chance {
                self.probe_later(peer, COMPARE_AFTER);
            }
        }
    }

    /// Removes this node from the lists of all legacy nodes: there may be no other node to do it.
    pub(super) fn notify_legacy_of_leave(&mut self) {
        let legacy: Vec<Location> = self.table.legacy().iter().cloned().collect();
        let me = self.me.clone();
        for peer in &legacy {
            self.remove_from_legacy(peer, &me);
        }
    }

    /// Raises the incarnation of a live legacy node that may have restarted.
    fn note_legacy_restart(&mut self, location: &Location) {
        let now = self.now.unix_millis;
        let known = self.table.get(location).cloned();
        let is_old = |member: &Member| now - member.incarnation >= RESTART_AGE;
        let is_legacy = |member: &Member| member.is_legacy() && member.status == Status::Alive;
        if let Some(member) = known.filter(|member| is_legacy(member) && is_old(member)) {
            self.apply(Member {
                incarnation: now,
                ..member
            });
        }
    }

    /// Writes ALIVE for a legacy node that replied.
    fn mark_legacy_alive(&mut self, peer: &Location) {
        let known = self.table.get(peer);
        if known.is_some_and(|known| known.status == Status::Alive && known.is_legacy()) {
            return;
        }
        let last = known.map_or(0, |member| member.incarnation);
        self.apply(Member {
            location: peer.clone(),
            incarnation: self.now.unix_millis.max(last + 1),
            status: Status::Alive,
            generation: 0,
            tags: Tags::default(),
        });
    }

    /// Sends an `add` for each member that a legacy node does not list.
    fn add_missing_to_legacy(&mut self, peer: &Location, listed: &BTreeSet<&Location>) {
        let missing = self
            .ring
            .iter()
            .filter(|l| !listed.contains(l) && *l != peer);
        // As many as calls are allowed; the next probe sends the rest.
        let missing: Vec<Location> = missing.take(config::MAX_CALLS).cloned().collect();
        if !missing.is_empty() {
            self.probe_later(peer, COMPARE_AFTER);
        }
        for location in missing {
            if !self.can_call() {
                return;
            }
            // The peer may hold older values of the keys that it hands over to it now.
            self.note_legacy_restart(&location);
            let request = Request::Add(location, self.ring.iter().cloned().collect());
            self.call(peer, Purpose::LegacyNotify, request);
        }
    }

    /// Sends a `remove` to a legacy node, if a call is allowed.
    fn remove_from_legacy(&mut self, peer: &Location, location: &Location) {
        self.probe_later(peer, COMPARE_AFTER);
        if self.can_call() {
            let authorities = self.ring.iter().cloned().collect();
            let request = Request::Remove(location.clone(), authorities);
            self.call(peer, Purpose::LegacyNotify, request);
        }
    }
}
