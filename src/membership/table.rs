//! `MemberTable`: all records of a node, one for each location.
//!
//! A merge keeps the larger of two records, so tables that have merged the same records are equal,
//! in whatever order (see [`Member::merge`]). The digest is a running sum: a change costs two
//! hashes in a table of any size.

use std::collections::{BTreeMap, BTreeSet};

use super::member::{Member, Status};
use super::rng::Rng;
use crate::location::Location;

/// The records of live members and of those that are gone.
#[derive(Debug, Clone, Default)]
pub struct MemberTable {
    records: BTreeMap<Location, Member>,
    down: BTreeSet<Location>,
    /// The live members that are legacy nodes.
    legacy: BTreeSet<Location>,
    live: usize,
    digest: u64,
}

/// The result of merging a record into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// The record is in the table now. It replaced this one.
    Applied(Option<Member>),
    /// The table had the same record.
    Unchanged,
    /// The table has a larger record.
    Stale,
}

impl MemberTable {
    /// Stores `member` if it supersedes the record of its location.
    pub fn merge(&mut self, member: Member) -> Merge {
        match self.records.get(&member.location) {
            Some(known) if *known == member => Merge::Unchanged,
            Some(known) if !member.supersedes(known) => Merge::Stale,
            _ => Merge::Applied(self.insert(member)),
        }
    }

    /// Removes the record of a location.
    pub fn forget(&mut self, location: &Location) {
        if let Some(member) = self.records.remove(location) {
            self.uncount(&member);
        }
    }

    /// The record of a location.
    pub fn get(&self, location: &Location) -> Option<&Member> {
        self.records.get(location)
    }

    /// All records, sorted by location.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.records.values()
    }

    /// The number of members that are ALIVE or SUSPECT.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The wrapping sum of all live records' digests. It does not depend on their order. Tombstones
    /// are not part of it, so nodes may drop them at different times.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The live members that are legacy nodes, sorted.
    pub fn legacy(&self) -> &BTreeSet<Location> {
        &self.legacy
    }

    /// A random DOWN member.
    pub fn sample_down(&self, rng: &mut Rng) -> Option<&Location> {
        rng.choose(&self.down)
    }

    /// The number of DOWN members.
    pub fn down(&self) -> usize {
        self.down.len()
    }

    /// Stores a record and returns the one that it replaces.
    fn insert(&mut self, member: Member) -> Option<Member> {
        if member.status.is_live() {
            self.live += 1;
            self.digest = self.digest.wrapping_add(member.digest());
        }
        let before = self.records.get(&member.location).cloned();
        if let Some(before) = &before {
            self.uncount(before);
        }
        if member.status.is_live() && member.is_legacy() {
            self.legacy.insert(member.location.clone());
        }
        if member.status == Status::Down {
            self.down.insert(member.location.clone());
        }
        self.records.insert(member.location.clone(), member);
        before
    }

    /// Takes a record that is no longer in the table out of the counts.
    fn uncount(&mut self, member: &Member) {
        if member.status.is_live() {
            self.live -= 1;
            self.digest = self.digest.wrapping_sub(member.digest());
            self.legacy.remove(&member.location);
        }
        if member.status == Status::Down {
            self.down.remove(&member.location);
        }
    }
}
