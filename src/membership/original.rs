//! Peers of the original, which know no `exchange`, and members known by hearsay.
//!
//! A location that others speak of in the original's words is tried before it is
//! believed. One that answers "unknown method" is asked `get_all` instead, in every
//! exchange's place: that it answers is its heartbeat; what its list lacks or has
//! too much it is told by `add` and `remove`, with everyone as authorities, so that
//! the message goes no further. It cannot speak for itself, so whoever reaches it
//! says ALIVE for it: the one exception to the rule that only the owner does.

use std::collections::BTreeSet;

use super::call::{Call, Purpose, Request};
use super::core::Membership;
use super::event::Event;
use super::member::{Member, Status};
use crate::location::Location;

/// Most peers of the original that are remembered to be that.
const MOST_ORIGINALS: usize = 1_000;

impl Membership {
    /// Someone spoke of `location`. If it is no live member, it is tried soon.
    pub(super) fn hear_of(&mut self, location: &Location) {
        let is_known =
            *location == self.me || self.status_of(location).is_some_and(Status::is_live);
        if is_known {
            return;
        }
        if self.status_of(location).is_none() {
            if self.hearsay.len() >= self.settings.most_waiting {
                return;
            }
            self.hearsay.entry(location.clone()).or_insert(0);
        }
        if !self.try_soon(location) {
            self.hearsay.remove(location);
        }
    }

    /// A location known by hearsay only did not answer. It may be just starting, so
    /// it is tried again; in the end it is DOWN, which whoever lives there can outdo.
    pub(super) fn tried_in_vain(&mut self, location: &Location) {
        let Some(tries) = self.hearsay.get_mut(location) else {
            return;
        };
        *tries += 1;
        if *tries < self.settings.attempts {
            let next = self.now.monotonic + self.settings.heal_interval / 4 * *tries;
            self.errands.add(location, next, self.settings.most_waiting);
        } else {
            self.hearsay.remove(location);
            self.take(Member {
                location: location.clone(),
                incarnation: 0,
                status: Status::Down,
                started: 0,
            });
        }
    }

    /// The peer does not know the method we called.
    pub(super) fn does_not_know(&mut self, call: &Call) {
        let is_new = !self.originals.contains(&call.peer);
        if is_new && self.originals.len() < MOST_ORIGINALS {
            self.originals.insert(call.peer.clone());
            let location = call.peer.clone();
            self.note(Event::Original {
                location,
                is_one: true,
            });
        }
        match call.purpose {
            Purpose::Reach => self.helped(call, None),
            Purpose::Farewell => self.say_farewell(),
            Purpose::Notice => {}
            Purpose::Gossip | Purpose::Probe => {
                if call.purpose == Purpose::Gossip {
                    self.count(false);
                }
                self.contact(&call.peer, Purpose::Probe);
            }
        }
    }

    /// A peer of the original answered with its list.
    pub(super) fn met_original(&mut self, peer: &Location, listed: &[Location]) {
        self.hearsay.remove(peer);
        self.health.improve();
        self.vouch_for(peer);
        self.hear_from(peer, None);
        let listed: BTreeSet<&Location> = listed.iter().collect();
        self.tell_what_is_missing(peer, &listed);
        for location in listed {
            match self.status_of(location) {
                Some(Status::Down | Status::Left) if !self.ring.contains(location) => {
                    self.tell_of_removal(peer, location);
                }
                None => self.hear_of(location),
                _ => {}
            }
        }
    }

    pub(super) fn tell_originals_of_leaving(&mut self) {
        let originals: Vec<Location> = self.originals.iter().cloned().collect();
        let me = self.me.clone();
        for original in originals.iter().take(self.settings.told_of_leaving) {
            self.tell_of_removal(original, &me);
        }
    }

    fn vouch_for(&mut self, peer: &Location) {
        let known = self.members.get(peer).cloned();
        if known.as_ref().is_some_and(|m| m.status == Status::Alive) {
            return;
        }
        let last = known.as_ref().map_or(0, |member| member.incarnation);
        let incarnation = self.now.unix_millis.max(last + 1);
        // A suspect has not died; of one that was gone, we cannot know.
        let suspect = known.filter(|member| member.status == Status::Suspect);
        self.take(Member {
            location: peer.clone(),
            incarnation,
            status: Status::Alive,
            started: suspect.map_or(incarnation, |member| member.started),
        });
    }

    fn tell_what_is_missing(&mut self, peer: &Location, listed: &BTreeSet<&Location>) {
        let missing = self
            .ring
            .iter()
            .filter(|l| !listed.contains(l) && *l != peer);
        // As many as there is room for; the next probe tells of the rest.
        let missing: Vec<Location> = missing.take(self.settings.most_calls).cloned().collect();
        for location in missing {
            if !self.has_room() {
                return;
            }
            let authorities = self.ring.iter().cloned().collect();
            let request = Request::Add {
                location,
                authorities,
            };
            self.call(peer, Purpose::Notice, request);
        }
    }

    fn tell_of_removal(&mut self, peer: &Location, location: &Location) {
        if self.has_room() {
            let request = Request::Remove {
                location: location.clone(),
                authorities: self.ring.iter().cloned().collect(),
            };
            self.call(peer, Purpose::Notice, request);
        }
    }
}
