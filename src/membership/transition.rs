//! Transitions: what a new record changes in timers, on the ring and in the news.

use std::time::Duration;

use super::core::Membership;
use super::event::{Change, Why};
use super::member::{Member, Status};
use super::members::Merged;
use crate::location::Location;

impl Membership {
    /// Merges a record, said by whomever, and draws the consequences.
    pub(super) fn take(&mut self, member: Member) -> Merged {
        let merged = self.members.merge(member.clone());
        if let Merged::Taken(before) = &merged {
            self.transit(before.as_ref(), &member);
        }
        merged
    }

    /// Marks a member DOWN whose suspicion ran out here.
    pub(super) fn convict(&mut self, member: &Member) {
        self.take(member.with_status(Status::Down));
        self.end_grace(&member.location);
    }

    /// Does everything whose time has come.
    pub(super) fn pass_deadlines(&mut self) {
        let now = self.now.monotonic;
        while let Some(location) = self.suspicions.due(now) {
            let member = self.members.get(&location).cloned();
            if let Some(member) = member.filter(|m| m.status == Status::Suspect) {
                self.convict(&member);
            }
        }
        while let Some(location) = self.graces.due(now) {
            self.leave_ring(&location, Why::Down);
        }
        while let Some(location) = self.tombstones.due(now) {
            self.forget(&location);
        }
    }

    /// Takes a DOWN member off the ring now, if it is in grace.
    pub(super) fn end_grace(&mut self, location: &Location) {
        if self.graces.cancel(location) {
            self.leave_ring(location, Why::Down);
        }
    }

    fn transit(&mut self, before: Option<&Member>, member: &Member) {
        let location = &member.location;
        match member.status {
            Status::Alive => {
                self.stop_timers(location);
                self.verdicts.remove(location);
                self.enter_ring(before, member);
            }
            Status::Suspect => {
                self.stop_timers(location);
                self.enter_ring(before, member);
                let wait = self.silent_wait(location);
                let now = self.now.monotonic;
                self.accused.insert(location.clone(), now);
                self.suspicions.set(location, now + wait);
            }
            Status::Down => self.go_down(location),
            Status::Left => {
                self.stop_timers(location);
                self.leave_ring(location, Why::Left);
                self.bury(location, self.settings.left_kept);
            }
        }
        if self.ring.contains(location) && member.status != Status::Alive {
            self.let_object(location);
        }
        // A tombstone of someone never heard of is remembered, not spread: otherwise
        // nodes that forget would remind one another for ever.
        if before.is_some() || member.status.is_live() {
            self.news.add(location, self.settings.most_news);
            self.become_hot();
        }
    }

    /// One who was SUSPECT here has had some time to object; one who jumps from
    /// ALIVE to DOWN has had none, and stays on the ring for the time of grace.
    fn go_down(&mut self, location: &Location) {
        let now = self.now.monotonic;
        let accused = self.accused.get(location).copied();
        self.stop_timers(location);
        let wait = match accused {
            Some(since) => (since + self.settings.refused_suspicion).saturating_sub(now),
            None => self.settings.grace,
        };
        let wait = wait.min(self.settings.grace);
        if self.ring.contains(location) {
            if wait > Duration::ZERO {
                self.graces.set(location, now + wait);
            } else {
                self.leave_ring(location, Why::Down);
            }
        }
        self.bury(location, self.settings.down_kept.max(wait));
    }

    /// One who is accused must hear of it to object. Gossip alone may miss it, the more
    /// so while most of the network cannot be reached; so of all who hear of an
    /// accusation, some ten try the accused themselves, at any size of the network.
    fn let_object(&mut self, location: &Location) {
        let chance = self.settings.tellers as f64 / self.ring.len() as f64;
        if *location != self.me && self.random.fraction() < chance {
            self.try_soon(location);
        }
    }

    fn stop_timers(&mut self, location: &Location) {
        self.accused.remove(location);
        self.suspicions.cancel(location);
        self.graces.cancel(location);
        self.tombstones.cancel(location);
    }

    fn enter_ring(&mut self, before: Option<&Member>, member: &Member) {
        let location = member.location.clone();
        let started = member.started;
        if self.ring.insert(&location) {
            self.changes.push(Change::Added { location, started });
        } else if before.is_some_and(|before| before.started != started) {
            self.changes.push(Change::Restarted { location, started });
        }
    }

    fn leave_ring(&mut self, location: &Location, why: Why) {
        self.heard.remove(location);
        self.verdicts.remove(location);
        if self.ring.remove(location) {
            let location = location.clone();
            self.changes.push(Change::Removed { location, why });
        }
    }

    /// Remembers a dead member for so long, and forgets the oldest if they are too many.
    fn bury(&mut self, location: &Location, kept: Duration) {
        if *location == self.me {
            return;
        }
        self.tombstones.set(location, self.now.monotonic + kept);
        if self.tombstones.len() > self.settings.most_tombstones
            && let Some(oldest) = self.tombstones.drop_earliest()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, location: &Location) {
        self.end_grace(location);
        self.members.forget(location);
    }
}
