//! Suspicion: from a call that failed to a member that is DOWN.
//!
//! 1. Any call to a member fails.
//! 2. Three others are asked to `reach` it, since the fault may be ours or the
//!    path's (SWIM).
//! 3. If none does, it is SUSPECT: still on the ring, and everyone hears so, it too.
//! 4. It objects with a higher incarnation, or the time runs out and it is DOWN.

use std::time::Duration;

use super::call::{Call, Failure, Purpose, Request};
use super::core::Membership;
use super::event::Event;
use super::member::{Member, Status};
use crate::location::Location;

/// A member that failed us, while helpers try to reach it.
#[derive(Debug, Clone)]
pub(super) struct Inquiry {
    failure: Failure,
    /// When the call began that failed.
    began: Duration,
    /// What it was then; if it has objected since, the case is closed.
    incarnation: i64,
    /// Helpers that have not answered yet.
    awaited: usize,
    asked: usize,
    /// Helpers that could not reach it either.
    denied: usize,
}

impl Membership {
    /// A call got no good answer.
    pub(super) fn failed(&mut self, call: &Call, failure: Failure) {
        match call.purpose {
            Purpose::Reach => return self.helped(call, None),
            Purpose::Notice => return,
            Purpose::Gossip => self.count(false),
            Purpose::Farewell => self.say_farewell(),
            Purpose::Probe => {}
        }
        // What ran out while we were paused says nothing of the peer.
        let is_ours = failure == Failure::Silent && call.began < self.awake_since;
        match self.members.get(&call.peer).cloned() {
            None => self.tried_in_vain(&call.peer),
            Some(_) if is_ours => {}
            Some(member) if member.status.is_live() => self.inquire(&member, failure, call.began),
            Some(member) => {
                if member.status == Status::Down && failure == Failure::Refused {
                    self.end_grace(&member.location);
                }
            }
        }
    }

    /// A helper answered, or failed to.
    pub(super) fn helped(&mut self, call: &Call, reached: Option<bool>) {
        let Some(target) = &call.target else { return };
        let Some(inquiry) = self.inquiries.get_mut(target) else {
            return;
        };
        inquiry.awaited -= 1;
        match reached {
            Some(true) => {
                self.inquiries.remove(target);
                self.verdicts.remove(target);
                return;
            }
            Some(false) => inquiry.denied += 1,
            None => {}
        }
        if inquiry.awaited == 0 {
            self.conclude(target);
        }
    }

    fn inquire(&mut self, member: &Member, failure: Failure, began: Duration) {
        let peer = &member.location;
        if self.spoke_since(peer, began) || self.is_decided(member, failure) {
            return;
        }
        if let Some(inquiry) = self.inquiries.get_mut(peer) {
            if failure == Failure::Refused {
                inquiry.failure = failure;
            }
            return;
        }
        if !self.has_room() {
            // Nobody is accused because we are too busy to ask: once more, later.
            self.try_soon(peer);
            return;
        }
        let helpers = self.helpers(peer);
        let inquiry = Inquiry {
            failure,
            began,
            incarnation: member.incarnation,
            awaited: helpers.len(),
            asked: helpers.len(),
            denied: 0,
        };
        self.inquiries.insert(peer.clone(), inquiry);
        for helper in &helpers {
            self.call(helper, Purpose::Reach, Request::Reach(peer.clone()));
        }
        if helpers.is_empty() {
            self.conclude(peer);
        }
    }

    /// Would another inquiry change nothing?
    fn is_decided(&self, member: &Member, failure: Failure) -> bool {
        member.status == Status::Suspect && failure == Failure::Silent
    }

    fn conclude(&mut self, peer: &Location) {
        let Some(inquiry) = self.inquiries.remove(peer) else {
            return;
        };
        let Some(member) = self.members.get(peer).cloned() else {
            return;
        };
        if self.spoke_since(peer, inquiry.began) || member.incarnation != inquiry.incarnation {
            return;
        }
        let is_cut_off = inquiry.asked > 0 && inquiry.denied == 0;
        if is_cut_off {
            self.health.worsen();
        }
        // Refused, but helpers do not answer: the fault may well be ours.
        let wait = match inquiry.failure {
            Failure::Refused if !is_cut_off => self.refused_wait(peer),
            _ => self.silent_wait(peer),
        };
        self.suspect(&member, wait);
    }

    fn refused_wait(&self, peer: &Location) -> Duration {
        if self.verdicts.contains(peer) {
            self.settings.verdict_suspicion
        } else {
            self.settings.refused_suspicion
        }
    }

    pub(super) fn silent_wait(&self, peer: &Location) -> Duration {
        self.health.scale(if self.verdicts.contains(peer) {
            self.settings.silent_verdict_suspicion
        } else {
            self.settings.silent_suspicion
        })
    }

    fn suspect(&mut self, member: &Member, wait: Duration) {
        if member.status == Status::Alive {
            self.take(member.with_status(Status::Suspect));
            self.note(Event::Suspected(member.location.clone()));
        }
        let deadline = self.now.monotonic + wait;
        self.suspicions.hasten(&member.location, deadline);
    }

    /// A peer that speaks to us is there, whatever became of our call.
    fn spoke_since(&self, peer: &Location, began: Duration) -> bool {
        self.heard.get(peer).is_some_and(|heard| heard.at > began)
    }

    /// Members to ask, ALIVE ones that know how, as many as there is room for.
    fn helpers(&mut self, target: &Location) -> Vec<Location> {
        let room = self.settings.most_calls.saturating_sub(self.calls.len());
        let wanted = self.settings.helpers.min(room);
        let mut helpers: Vec<Location> = Vec::new();
        // Draws that do not fit are not repeated for ever: in a small or a troubled
        // network there may be no three to ask.
        for _ in 0..8 * wanted {
            let Some(drawn) = self.ring.draw(&mut self.random).cloned() else {
                break;
            };
            let fits = drawn != self.me
                && drawn != *target
                && !helpers.contains(&drawn)
                && !self.originals.contains(&drawn)
                && self.status_of(&drawn) == Some(Status::Alive);
            if fits {
                helpers.push(drawn);
            }
            if helpers.len() == wanted {
                break;
            }
        }
        helpers
    }
}
