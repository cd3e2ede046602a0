//! What an `exchange` contains: the records of a request, and those of a reply.

use std::collections::BTreeSet;

use super::core::Membership;
use super::gossip::Gossip;
use super::member::{Member, Status};
use crate::location::Location;

impl Membership {
    /// Every record, as the request of a push-pull.
    pub fn full_state(&self) -> Gossip {
        Gossip {
            full: true,
            ..self.gossip_of(self.table.iter().cloned().collect())
        }
    }

    /// The request for `peer`: this node's rumors, or every record if `full`. Its own record is
    /// added if the peer may lack it, and the peer's record if the peer may refute it.
    pub(super) fn gossip_for(&self, peer: &Location, full: bool) -> Gossip {
        let mut included = self.rumors_or_all(full);
        let digest = self.contacts.get(peer).and_then(|contact| contact.digest);
        let has_other_digest = digest.is_some_and(|digest| digest != self.digest());
        if has_other_digest || self.status_of(peer) != Some(Status::Alive) {
            included.insert(&self.me);
        }
        if self.is_refutable(peer) {
            included.insert(peer);
        }
        Gossip {
            full,
            ..self.gossip_of(self.records(included))
        }
    }

    /// The records of a reply: this node's rumors, or every record if the request is full, without
    /// those that the request has; its own record if the digests differ; the sender's record if
    /// the sender may refute it; and the records that are `newer` here than in the request.
    pub(super) fn reply_records(&self, request: &Gossip, newer: Vec<Location>) -> Vec<Member> {
        let mut included = self.rumors_or_all(request.full);
        if request.digest != self.digest() {
            included.insert(&self.me);
        }
        if self.is_refutable(&request.sender) {
            included.insert(&request.sender);
        }
        if !included.is_empty() {
            for member in &request.members {
                included.remove(&member.location);
            }
        }
        included.extend(&newer);
        self.records(included)
    }

    /// A gossip of this node with these records.
    pub(super) fn gossip_of(&self, members: Vec<Member>) -> Gossip {
        Gossip {
            sender: self.me.clone(),
            network: self.network.clone(),
            digest: self.digest(),
            members,
            full: false,
            learned: false,
            refused: 0,
        }
    }

    fn rumors_or_all(&self, all: bool) -> BTreeSet<&Location> {
        if all {
            self.table.iter().map(|member| &member.location).collect()
        } else {
            self.rumors.iter().collect()
        }
    }

    fn records(&self, locations: BTreeSet<&Location>) -> Vec<Member> {
        let records = locations.into_iter().filter_map(|l| self.table.get(l));
        records.cloned().collect()
    }

    /// Does this node know a record of `location` that a process there would refute?
    fn is_refutable(&self, location: &Location) -> bool {
        self.status_of(location).is_some_and(|s| s != Status::Alive)
    }
}
