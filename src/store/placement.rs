//! `Placement`: which processes hold which keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use md5::{Digest, Md5};

use crate::hash_ring::{HashRing, point};
use crate::location::Location;

/// The most bytes of a key shown in a log line.
const MAX_SHOWN: usize = 100;

/// A key with its point on the ring, which is computed once for a call. Keys are ordered by
/// their points, those of one point by their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    /// Its point on the ring.
    pub point: u32,
    /// The key's bytes.
    pub bytes: &'a [u8],
}

impl<'a> Key<'a> {
    /// The key of these bytes.
    pub fn new(bytes: &'a [u8]) -> Key<'a> {
        Key {
            bytes,
            point: point(bytes),
        }
    }
}

impl fmt::Display for Key<'_> {
    /// The start of the key, escaped so that it fits a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(MAX_SHOWN)];
        let is_cut = shown.len() < self.bytes.len();
        let ellipsis = if is_cut { "…" } else { "" };
        let shown = String::from_utf8_lossy(shown);
        write!(f, "{}{ellipsis}", shown.escape_debug())
    }
}

/// A process that holds keys: a location, and the generation of the process there.
///
/// A process that restarts is another one, since it has lost what it held. So is a process
/// that returns after being declared down, since it has missed writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Where it is reached.
    pub location: Location,
    /// The incarnation with which it became a member.
    pub generation: i64,
}

impl NodeId {
    /// The process of that generation at `location`.
    pub fn new(location: Location, generation: i64) -> NodeId {
        NodeId {
            location,
            generation,
        }
    }

    /// Identifies the process in the versions that it assigns. Two writers of a network are
    /// unlikely to share an id.
    pub fn writer_id(&self) -> u16 {
        (digest(self) >> 48) as u16
    }
}

/// The members that hold keys at one time, and their ring. Immutable.
#[derive(Debug, Clone)]
pub struct Placement {
    id: u64,
    /// Sorted by location, as on the ring. `owners` refers to them by index.
    members: Vec<NodeId>,
    ring: HashRing<Location>,
    /// The owners of each arc. Computed when they are first needed.
    owners: OnceLock<Owners>,
}

/// The indexes of the first owners of the keys on each arc of the ring.
#[derive(Debug, Clone)]
struct Owners {
    /// Owners of each arc.
    per_arc: usize,
    /// Those of one arc after those of another.
    indexes: Vec<u16>,
}

impl Placement {
    /// The placement of these members. Of two processes at one location the last one counts.
    pub fn new(members: impl IntoIterator<Item = NodeId>) -> Placement {
        let members: BTreeMap<Location, i64> = members
            .into_iter()
            .map(|node| (node.location, node.generation))
            .collect();
        let ring = members.keys().cloned().collect();
        let node = |(location, generation)| NodeId::new(location, generation);
        let members: Vec<NodeId> = members.into_iter().map(node).collect();
        let sum = |sum: u64, node: &NodeId| sum.wrapping_add(digest(node));
        Placement {
            id: members.iter().fold(0, sum),
            members,
            ring,
            owners: OnceLock::new(),
        }
    }

    /// Equal on all nodes that know the same members: the sum, over the members, of the first
    /// eight bytes of the md5 of `location@generation`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The members, sorted by location.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &NodeId> {
        self.members.iter()
    }

    /// Is this process a member?
    pub fn contains(&self, node: &NodeId) -> bool {
        self.index_of(node).is_some()
    }

    /// Are there no members?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The primary of `key`: its first owner. None in an empty placement.
    pub fn primary(&self, key: Key<'_>) -> Option<&NodeId> {
        self.member_at(self.primary_location(key)?)
    }

    /// The location of the primary of `key`. None in an empty placement.
    pub fn primary_location(&self, key: Key<'_>) -> Option<&Location> {
        self.ring.owner_at(key.point)
    }

    /// The member at that location.
    pub fn member_at(&self, location: &Location) -> Option<&NodeId> {
        Some(&self.members[self.find(location)?])
    }

    /// Is this process the primary of `key`?
    pub fn is_primary(&self, node: &NodeId, key: Key<'_>) -> bool {
        self.primary_location(key) == Some(&node.location) && self.contains(node)
    }

    /// The owners of `key` when there are `replicas` copies, its primary first.
    pub fn owners(&self, key: Key<'_>, replicas: usize) -> impl Iterator<Item = &NodeId> {
        let indexes = self.owner_indexes(key, replicas);
        (0..indexes.len()).map(move |nth| &self.members[usize::from(indexes[nth])])
    }

    /// Is this process an owner of `key` when there are `replicas` copies?
    pub fn owns(&self, node: &NodeId, key: Key<'_>, replicas: usize) -> bool {
        self.index_of(node)
            .is_some_and(|index| self.owner_indexes(key, replicas).contains(&index))
    }

    /// The index of this process among the sorted members.
    pub fn index_of(&self, node: &NodeId) -> Option<u16> {
        let index = self.find(&node.location)?;
        (self.members[index].generation == node.generation).then_some(index as u16)
    }

    /// The indexes of the owners of `key` when there are `replicas` copies, its primary
    /// first. Cheaper than [`owners`](Placement::owners) when there are many keys.
    pub fn owner_indexes(&self, key: Key<'_>, replicas: usize) -> Cow<'_, [u16]> {
        let per_arc = replicas.min(self.members.len());
        let arc = self.ring.arc_at(key.point);
        let owners = self.owners.get_or_init(|| Owners {
            per_arc,
            indexes: (0..self.ring.arcs())
                .flat_map(|arc| self.indexes_on(arc, per_arc))
                .collect(),
        });
        let first = arc * owners.per_arc;
        match owners.indexes.get(first..first + per_arc) {
            Some(indexes) if per_arc <= owners.per_arc => Cow::Borrowed(indexes),
            _ => Cow::Owned(self.indexes_on(arc, per_arc).collect()),
        }
    }

    /// The points in the range, except its first one, at which the owners of keys can change.
    pub fn arc_starts(&self, points: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        self.ring.arc_starts(points)
    }

    fn indexes_on(&self, arc: usize, count: usize) -> impl Iterator<Item = u16> {
        let preference_list = self.ring.preference_list_on(arc).take(count);
        preference_list.filter_map(|location| Some(self.find(location)? as u16))
    }

    fn find(&self, location: &Location) -> Option<usize> {
        let by_location = |node: &NodeId| node.location.cmp(location);
        self.members.binary_search_by(by_location).ok()
    }
}

/// The first eight bytes of the md5 of `location@generation`.
fn digest(node: &NodeId) -> u64 {
    Md5::digest(format!("{}@{}", node.location, node.generation))
        .iter()
        .take(8)
        .fold(0, |head, byte| head << 8 | u64::from(*byte))
}
