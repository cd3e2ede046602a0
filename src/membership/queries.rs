//! The queries: what the driver and the layer above can read.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Contact, Membership};
use super::member::{Member, Status};
use crate::location::Location;

impl Membership {
    /// The location of this node.
    pub fn me(&self) -> &Location {
        &self.me
    }

    /// The name of this node's network: its service type and, behind a slash, its id. A node that
    /// has not joined yet has no id, nor has one that was never called by one with an id.
    pub fn network(&self) -> &Arc<str> {
        &self.network
    }

    /// The incarnation with which this node became a member: when it started, or when it returned
    /// after others had declared it down.
    pub fn generation(&self) -> i64 {
        self.own_record().generation
    }

    /// All records, sorted by location: live members including this node, and tombstones.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter()
    }

    /// The members on the ring, sorted, each with its generation: ALIVE and SUSPECT ones, and DOWN
    /// ones in grace.
    pub fn live(&self) -> impl Iterator<Item = (&Location, i64)> {
        let records = self.ring.iter().filter_map(|l| self.table.get(l));
        records.map(|member| (&member.location, member.generation))
    }

    /// The number of members on the ring.
    pub fn size(&self) -> usize {
        self.ring.len()
    }

    /// Is this location on the ring?
    pub fn is_on_ring(&self, location: &Location) -> bool {
        self.ring.contains(location)
    }

    /// The sum of the live records' digests. Nodes with equal digests have equal live members.
    pub fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// The status of a location. None if it has no record.
    pub fn status_of(&self, location: &Location) -> Option<Status> {
        self.table.get(location).map(|member| member.status)
    }

    /// The last message of a member on the ring. None if there was none yet.
    pub fn contact(&self, location: &Location) -> Option<Contact> {
        self.contacts.get(location).copied()
    }

    /// The members that do not reply to this node, but to the other one.
    pub fn cut_links(&self) -> impl Iterator<Item = (&Location, &Location)> {
        self.cut_links.iter()
    }

    /// The DOWN members that may be running, on the other side of a split: each with the time since
    /// when it is DOWN here, by this node's monotonic clock.
    pub fn silent(&self) -> impl Iterator<Item = (&Location, Duration)> {
        self.silent
            .iter()
            .map(|(location, since)| (location, *since))
    }

    /// Is the member at this location a legacy node? So are those that did not know `exchange`
    /// when they were called, members or not.
    pub fn is_legacy(&self, location: &Location) -> bool {
        match self.table.get(location) {
            Some(member) if member.status.is_live() => member.is_legacy(),
            _ => self.legacy.contains(location),
        }
    }

    /// Are there live members, all of them legacy nodes, and no location that may turn out to be
    /// one of ours?
    pub fn has_only_legacy_peers(&self) -> bool {
        let mut others = self.live().filter(|(location, _)| **location != self.me);
        let has_some = self.ring.len() > 1;
        has_some && others.all(|(_, generation)| generation == 0) && self.candidates.is_empty()
    }
}
