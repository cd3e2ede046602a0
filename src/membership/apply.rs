//! Applying a record: what a changed record causes in the timers, the ring and the rumors.

use std::time::Duration;

use super::config;
use super::core::Membership;
use super::event::{Change, ChangeKind, Event};
use super::member::{Member, Status};
use super::table::Merge;
use super::tags::Tags;
use crate::location::Location;

/// Nodes that call a DOWN member at once, on average, to find out whether its process has ended: in
/// a network of that size or a smaller one all do. The others find out when they reconnect.
const PROVERS: f64 = 100.0;

impl Membership {
    /// Merges a record into the table, and updates everything that depends on it.
    pub(super) fn apply(&mut self, member: Member) -> Merge {
        let merged = self.table.merge(member.clone());
        if let Merge::Applied(before) = &merged {
            self.on_change(before.as_ref(), &member);
        }
        merged
    }

    /// Writes DOWN about a member whose suspect timeout has expired here.
    pub(super) fn declare_down(&mut self, member: &Member) {
        self.apply(member.with_status(Status::Down));
        self.end_grace(&member.location);
    }

    /// Runs everything whose timer has expired.
    pub(super) fn run_timers(&mut self) {
        let now = self.now.monotonic;
        while let Some(location) = self.suspect_timers.pop_due(now) {
            let member = self.table.get(&location).cloned();
            if let Some(member) = member.filter(|m| m.status == Status::Suspect) {
                self.declare_down(&member);
            }
        }
        while let Some(location) = self.grace_timers.pop_due(now) {
            self.remove_from_ring(&location, ChangeKind::Down);
        }
        while let Some(location) = self.tombstone_timers.pop_due(now) {
            self.forget(&location);
        }
    }

    /// Removes a DOWN member from the ring now, if it is in grace.
    pub(super) fn end_grace(&mut self, location: &Location) {
        if self.grace_timers.cancel(location) {
            self.remove_from_ring(location, ChangeKind::Down);
        }
    }

    fn on_change(&mut self, before: Option<&Member>, member: &Member) {
        let location = &member.location;
        self.silent.remove(location);
        match member.status {
            Status::Alive => {
                if !member.is_legacy() {
                    self.legacy.remove(location);
                }
                self.cancel_timers(location);
                self.urgent.remove(location);
                self.add_to_ring(before, member);
            }
            Status::Suspect => {
                self.cancel_timers(location);
                self.add_to_ring(before, member);
                let now = self.now.monotonic;
                let deadline = now + self.suspect_timeout(location);
                self.suspect_since.insert(location.clone(), now);
                self.suspect_timers.set(location, deadline);
            }
            Status::Down => self.on_down(location),
            Status::Left => {
                self.cancel_timers(location);
                self.remove_from_ring(location, ChangeKind::Left);
                self.add_tombstone(location, config::LEFT_RETENTION);
            }
        }
        if self.ring.contains(location) && member.status != Status::Alive {
            self.notify_suspect(location);
        }
        // The tombstone of a location that was not in the table is kept and not spread. Otherwise
        // nodes that drop a tombstone at different times would return it to each other forever.
        if before.is_some() || member.status.is_live() {
            self.rumors.add(location, config::MAX_RUMORS);
            self.become_hot();
        }
    }

    /// Starts the grace of a DOWN member, or removes it from the ring. A member that was SUSPECT
    /// here had that time to refute; one that was ALIVE until now has the whole grace.
    fn on_down(&mut self, location: &Location) {
        let now = self.now.monotonic;
        let suspect_since = self.suspect_since.get(location).copied();
        self.cancel_timers(location);
        let grace = match suspect_since {
            Some(since) => (since + config::REFUSED_SUSPECT_TIMEOUT).saturating_sub(now),
            None => self.config.grace,
        };
        let grace = grace.min(self.config.grace);
        if self.ring.contains(location) {
            if grace > Duration::ZERO {
                self.grace_timers.set(location, now + grace);
            } else {
                self.remove_from_ring(location, ChangeKind::Down);
            }
        }
        self.add_tombstone(location, self.config.down_retention.max(grace));
        let known = self.table.get(location);
        if known.is_some_and(|member| !member.is_legacy()) {
            self.silent.insert(location.clone(), now);
            if self.rng.fraction() < PROVERS / self.ring.len().max(1) as f64 {
                self.probe_soon(location);
            }
        }
    }

    /// Calls a suspect in the next tick, so that it learns of the suspicion and can refute.
    /// Rumors alone can miss it, above all while it reaches few nodes. Of all nodes that learn of
    /// the suspicion, `SUSPECT_NOTIFIERS` call it on average, in a network of any size.
    fn notify_suspect(&mut self, location: &Location) {
        let chance = config::SUSPECT_NOTIFIERS as f64 / self.ring.len() as f64;
        if *location != self.me && self.rng.fraction() < chance {
            self.probe_soon(location);
        }
    }

    fn cancel_timers(&mut self, location: &Location) {
        self.suspect_since.remove(location);
        self.suspect_timers.cancel(location);
        self.grace_timers.cancel(location);
        self.tombstone_timers.cancel(location);
    }

    fn add_to_ring(&mut self, before: Option<&Member>, member: &Member) {
        let has_other_tags = before.is_some_and(|before| before.tags != member.tags);
        if self.ring.insert(member.location.clone()) {
            self.compare_legacy_soon();
            self.push_change(&member.location, ChangeKind::Added, has_other_tags);
        } else if before.is_some_and(|before| before.generation != member.generation) {
            self.push_change(&member.location, ChangeKind::Restarted, has_other_tags);
        }
    }

    fn remove_from_ring(&mut self, location: &Location, kind: ChangeKind) {
        self.contacts.remove(location);
        self.urgent.remove(location);
        self.end_cut_link(location);
        if self.ring.remove(location) {
            self.compare_legacy_soon();
            self.push_change(location, kind, false);
        }
    }

    fn push_change(&mut self, location: &Location, kind: ChangeKind, has_other_tags: bool) {
        let record = self.table.get(location);
        self.push_event(Event::RingChanged(Change {
            location: location.clone(),
            kind,
            tags: record.map_or_else(Tags::default, |member| member.tags.clone()),
            has_other_tags,
        }));
    }

    /// Keeps the record of a member that is gone for `retention`, and drops the oldest tombstone
    /// if there are too many.
    fn add_tombstone(&mut self, location: &Location, retention: Duration) {
        if *location == self.me {
            return;
        }
        let expiry = self.now.monotonic + retention;
        self.tombstone_timers.set(location, expiry);
        if self.tombstone_timers.len() > self.config.max_tombstones
            && let Some(oldest) = self.tombstone_timers.pop_due(Duration::MAX)
        {
            self.forget(&oldest);
        }
    }

    pub(super) fn forget(&mut self, location: &Location) {
        self.end_grace(location);
        self.listed_by.remove(location);
        self.silent.remove(location);
        self.table.forget(location);
    }
}
