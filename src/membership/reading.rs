//! What the driver and the layer above can read of a node's knowledge.

use std::sync::Arc;

use super::core::{Heard, Membership};
use super::member::{Member, Status};
use crate::location::Location;

impl Membership {
    /// This node.
    pub fn me(&self) -> &Location {
        &self.me
    }

    /// The incarnation with which this node became a member: at its start, or when it
    /// came back after others had taken it for dead.
    pub fn started(&self) -> i64 {
        self.mine().started
    }

    /// The network's name.
    pub fn network(&self) -> &Arc<str> {
        &self.network
    }

    /// All records, sorted by location: live members, this one, and tombstones.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The members on the ring, sorted, each with the start of its process: ALIVE,
    /// SUSPECT, and DOWN ones in grace.
    pub fn live(&self) -> impl Iterator<Item = (&Location, i64)> {
        let records = self.ring.iter().filter_map(|l| self.members.get(l));
        records.map(|member| (&member.location, member.started))
    }

    /// The number of members on the ring.
    pub fn size(&self) -> usize {
        self.ring.len()
    }

    /// Is this location on the ring?
    pub fn is_on_ring(&self, location: &Location) -> bool {
        self.ring.contains(location)
    }

    /// The sum of the live records' digests; two nodes of equal views know the same
    /// live members.
    pub fn view(&self) -> u64 {
        self.members.view()
    }

    /// What is believed of a location; nothing of one never heard of.
    pub fn status_of(&self, location: &Location) -> Option<Status> {
        self.members.get(location).map(|member| member.status)
    }

    /// What a live member said last, if it ever spoke with us.
    pub fn heard(&self, location: &Location) -> Option<Heard> {
        self.heard.get(location).copied()
    }

    /// Does this location speak only the original's methods, as far as we know?
    pub fn is_original(&self, location: &Location) -> bool {
        self.originals.contains(location)
    }

    /// Was the last word of every member that spoke with us the view that we have?
    /// In a large network, a member's last word can be old: see [`Heard::at`].
    pub fn is_agreed(&self) -> bool {
        let mut views = self.heard.values().filter_map(|heard| heard.view);
        views.all(|view| view == self.view())
    }

    /// 0 when this node trusts its judgement, up to 3 when it has reason not to.
    pub fn health(&self) -> u32 {
        self.health.score()
    }

    /// Is there news that this node still spreads?
    pub fn is_hot(&self) -> bool {
        self.gossip_at.is_some()
    }
}
