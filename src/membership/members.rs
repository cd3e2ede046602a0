//! `Members`: the table of records, one per location.
//!
//! It only ever takes the larger of two records, so tables that have seen the same
//! records are equal, whatever the order (see [`Member::merge`]). The view is kept
//! as a sum, so a change costs two hashes at any size.

use std::collections::BTreeMap;

use super::member::{Member, Status};
use super::random::Random;
use super::roster::Roster;
use crate::location::Location;

/// All that one node knows of members, live or not.
#[derive(Debug, Clone, Default)]
pub struct Members {
    records: BTreeMap<Location, Member>,
    down: Roster,
    live: usize,
    view: u64,
}

/// What became of a record that was merged into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// It is in the table now, instead of the one given here.
    Taken(Option<Member>),
    /// It was known.
    Known,
    /// A larger one is known.
    Older,
}

impl Members {
    /// Takes `member` if it beats what is known of its location.
    pub fn merge(&mut self, member: Member) -> Merged {
        match self.records.get(&member.location) {
            Some(known) if *known == member => Merged::Known,
            Some(known) if !member.beats(known) => Merged::Older,
            _ => Merged::Taken(self.put(member)),
        }
    }

    /// Forgets all about a location.
    pub fn forget(&mut self, location: &Location) -> Option<Member> {
        let member = self.records.remove(location)?;
        self.discount(&member);
        Some(member)
    }

    /// What is known of a location.
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

    /// The wrapping sum of all live records' digests: it does not depend on their
    /// order, and tombstones are outside it, so that forgetting one changes nothing.
    pub fn view(&self) -> u64 {
        self.view
    }

    /// Some DOWN member, each as likely as another.
    pub fn draw_down(&self, random: &mut Random) -> Option<&Location> {
        self.down.draw(random)
    }

    /// The number of DOWN members.
    pub fn down(&self) -> usize {
        self.down.len()
    }

    fn put(&mut self, member: Member) -> Option<Member> {
        if member.status.is_live() {
            self.live += 1;
            self.view = self.view.wrapping_add(member.digest());
        }
        let location = member.location.clone();
        let is_down = member.status == Status::Down;
        let before = self.records.insert(location.clone(), member);
        if let Some(before) = &before {
            self.discount(before);
        }
        if is_down {
            self.down.insert(&location);
        }
        before
    }

    fn discount(&mut self, member: &Member) {
        if member.status.is_live() {
            self.live -= 1;
            self.view = self.view.wrapping_sub(member.digest());
        }
        if member.status == Status::Down {
            self.down.remove(&member.location);
        }
    }
}
