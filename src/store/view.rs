//! `View`: a ring together with whose processes are on it.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::table::Key;
use crate::hash_ring::HashRing;
use crate::location::Location;

/// A process that holds keys: a location, and since when its process has been a
/// member without interruption. One that restarted there is another: it has lost
/// what it held. One that was thought dead and came back is another too: it has
/// missed what was written meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Where it is reached.
    pub location: Location,
    /// The incarnation with which it became a member.
    pub started: i64,
}

impl Peer {
    /// The process at `location` since `started`.
    pub fn new(location: Location, started: i64) -> Peer {
        Peer { location, started }
    }

    /// Its name in the versions that it makes: two of a network's writers are
    /// unlikely to share one.
    pub fn writer(&self) -> u16 {
        (digest_of(&self.location, self.started) >> 48) as u16
    }
}

/// The members of the network at one time, and the ring that they make.
#[derive(Debug, Clone)]
pub struct View {
    id: u64,
    members: BTreeMap<Location, i64>,
    ring: HashRing<Location>,
}

impl View {
    /// The view of these members.
    pub fn new(members: impl IntoIterator<Item = Peer>) -> View {
        let members: BTreeMap<Location, i64> = members
            .into_iter()
            .map(|peer| (peer.location, peer.started))
            .collect();
        let ring = members.keys().cloned().collect();
        View {
            id: id_of(&members),
            members,
            ring,
        }
    }

    /// The same on every node that has the same members in view: a sum, over
    /// them, of the first eight bytes of the md5 of `location@started`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The members, sorted by location.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Peer> {
        self.members
            .iter()
            .map(|(location, started)| Peer::new(location.clone(), *started))
    }

    /// Is this process in view?
    pub fn contains(&self, peer: &Peer) -> bool {
        self.members.get(&peer.location) == Some(&peer.started)
    }

    /// Has the view no members?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The process that holds `key` first: its primary. None in an empty view.
    pub fn primary(&self, key: Key<'_>) -> Option<Peer> {
        let location = self.ring.owner_of(key.point)?;
        Some(Peer::new(location.clone(), self.members[location]))
    }

    /// Does this process, a member, hold `key` first?
    pub fn is_primary(&self, peer: &Peer, key: Key<'_>) -> bool {
        self.ring.owner_of(key.point) == Some(&peer.location) && self.contains(peer)
    }

    /// The processes that hold `key` when there are `replicas` copies, its primary first.
    pub fn owners(&self, key: Key<'_>, replicas: usize) -> impl Iterator<Item = Peer> {
        self.ring
            .preferred_at(key.point)
            .take(replicas)
            .map(|location| Peer::new(location.clone(), self.members[location]))
    }

    /// Does this process hold `key` when there are `replicas` copies?
    pub fn owns(&self, peer: &Peer, key: Key<'_>, replicas: usize) -> bool {
        self.contains(peer)
            && self
                .ring
                .preferred_at(key.point)
                .take(replicas)
                .any(|owner| *owner == peer.location)
    }
}

fn id_of(members: &BTreeMap<Location, i64>) -> u64 {
    members.iter().fold(0, |sum: u64, (location, started)| {
        sum.wrapping_add(digest_of(location, *started))
    })
}

/// The first eight bytes of the md5 of `location@started`.
fn digest_of(location: &Location, started: i64) -> u64 {
    Md5::digest(format!("{location}@{started}"))
        .iter()
        .take(8)
        .fold(0, |head, byte| head << 8 | u64::from(*byte))
}
