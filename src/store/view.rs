//! `View`: a ring together with whose processes are on it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

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
    /// Sorted by location, as on the ring. Their places here stand for them in `owners`.
    members: Vec<Peer>,
    ring: HashRing<Location>,
    /// Who holds the keys of each arc, made when it is first asked for.
    owners: OnceLock<Owners>,
}

/// The places of the first owners of the keys on each arc of the ring.
#[derive(Debug, Clone)]
struct Owners {
    /// How many of each arc, one arc's after the other's.
    each: usize,
    places: Vec<u16>,
}

impl View {
    /// The view of these members. Of two processes at one location the last counts.
    pub fn new(members: impl IntoIterator<Item = Peer>) -> View {
        let members: BTreeMap<Location, i64> = members
            .into_iter()
            .map(|peer| (peer.location, peer.started))
            .collect();
        let ring = members.keys().cloned().collect();
        let peer = |(location, started)| Peer::new(location, started);
        let members: Vec<Peer> = members.into_iter().map(peer).collect();
        View {
            id: id_of(&members),
            members,
            ring,
            owners: OnceLock::new(),
        }
    }

    /// The same on every node that has the same members in view: a sum, over
    /// them, of the first eight bytes of the md5 of `location@started`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The members, sorted by location.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Peer> {
        self.members.iter().cloned()
    }

    /// Is this process in view?
    pub fn contains(&self, peer: &Peer) -> bool {
        self.place_of(peer).is_some()
    }

    /// Has the view no members?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The process that holds `key` first: its primary. None in an empty view.
    pub fn primary(&self, key: Key<'_>) -> Option<Peer> {
        self.member_at(self.primary_location(key)?)
    }

    /// Where the primary of `key` is. None in an empty view.
    pub fn primary_location(&self, key: Key<'_>) -> Option<&Location> {
        self.ring.owner_of(key.point)
    }

    /// The process at that location, if it is a member.
    pub fn member_at(&self, location: &Location) -> Option<Peer> {
        Some(self.members[self.find(location)?].clone())
    }

    /// Does this process, a member, hold `key` first?
    pub fn is_primary(&self, peer: &Peer, key: Key<'_>) -> bool {
        self.primary_location(key) == Some(&peer.location) && self.contains(peer)
    }

    /// The processes that hold `key` when there are `replicas` copies, its primary first.
    pub fn owners(&self, key: Key<'_>, replicas: usize) -> impl Iterator<Item = Peer> {
        let places = self.owner_places(key, replicas);
        (0..places.len()).map(move |nth| self.members[usize::from(places[nth])].clone())
    }

    /// Does this process hold `key` when there are `replicas` copies?
    pub fn owns(&self, peer: &Peer, key: Key<'_>, replicas: usize) -> bool {
        self.place_of(peer)
            .is_some_and(|place| self.owner_places(key, replicas).contains(&place))
    }

    /// The place of this process among the members, sorted; none if it is not in view.
    pub fn place_of(&self, peer: &Peer) -> Option<u16> {
        let place = self.find(&peer.location)?;
        (self.members[place].started == peer.started).then_some(place as u16)
    }

    /// The places of those who hold `key` when there are `replicas` copies, its primary
    /// first: for who asks it of many keys.
    pub fn owner_places(&self, key: Key<'_>, replicas: usize) -> Cow<'_, [u16]> {
        let each = replicas.min(self.members.len());
        let arc = self.ring.arc_of(key.point);
        let owners = self.owners.get_or_init(|| Owners {
            each,
            places: (0..self.ring.arcs())
                .flat_map(|arc| self.places_on(arc, each))
                .collect(),
        });
        let first = arc * owners.each;
        match owners.places.get(first..first + each) {
            Some(places) if each <= owners.each => Cow::Borrowed(places),
            _ => Cow::Owned(self.places_on(arc, each).collect()),
        }
    }

    /// The points among these, but for the first one, from which on other processes may
    /// hold keys.
    pub fn arcs_begin(&self, points: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        self.ring.arcs_begin(points)
    }

    fn places_on(&self, arc: usize, each: usize) -> impl Iterator<Item = u16> {
        let preferred = self.ring.preferred_on(arc).take(each);
        preferred.filter_map(|location| Some(self.find(location)? as u16))
    }

    fn find(&self, location: &Location) -> Option<usize> {
        let by_location = |peer: &Peer| peer.location.cmp(location);
        self.members.binary_search_by(by_location).ok()
    }
}

fn id_of(members: &[Peer]) -> u64 {
    members.iter().fold(0, |sum: u64, peer| {
        sum.wrapping_add(digest_of(&peer.location, peer.started))
    })
}

/// The first eight bytes of the md5 of `location@started`.
fn digest_of(location: &Location, started: i64) -> u64 {
    Md5::digest(format!("{location}@{started}"))
        .iter()
        .take(8)
        .fold(0, |head, byte| head << 8 | u64::from(*byte))
}
