//! `Placement`: which processes hold which keys.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use md5::{Digest, Md5};

use crate::hash_ring::{HashRing, point};
use crate::location::Location;
use crate::membership::{Member, Tags};

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
    /// Where it stands, if it says so ([`zone_of`]): the same for all its life. Copies of a key go to
    /// distinct zones.
    pub zone: Option<u32>,
}

impl NodeId {
    /// The process of that generation at `location`, without a zone.
    pub fn new(location: Location, generation: i64) -> NodeId {
        NodeId {
            location,
            generation,
            zone: None,
        }
    }

    /// Identifies the process in the versions that it assigns. Two writers of a network are
    /// unlikely to share an id.
    pub fn writer_id(&self) -> u16 {
        (digest(self) >> 48) as u16
    }
}

impl fmt::Display for NodeId {
    /// `location@generation` or `location@generation@zone`, the zone with eight hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.location, self.generation)?;
        self.zone
            .iter()
            .try_for_each(|zone| write!(f, "@{zone:08x}"))
    }
}

impl From<&Member> for NodeId {
    fn from(member: &Member) -> NodeId {
        NodeId {
            zone: zone_of(&member.tags),
            ..NodeId::new(member.location.clone(), member.generation)
        }
    }
}

/// The members that hold keys at one time, and their ring. Immutable.
///
/// The owners of a key are the first nodes of its preference list: on the ring, in the order in which
/// they are met from the key on. Where nodes have zones, the list begins with the first node of each
/// zone, and the others follow; so the primary is the first one on the ring in any case. A node without
/// a zone is one of its own.
#[derive(Debug, Clone)]
pub struct Placement {
    id: u64,
    /// Sorted by location, as on the ring. `owners` refers to them by index.
    members: Vec<NodeId>,
    ring: HashRing<Location>,
    /// How many zones there are. None if no member has one.
    zones: Option<usize>,
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
        let by_location = members
            .into_iter()
            .map(|node| (node.location.clone(), node));
        let members: BTreeMap<Location, NodeId> = by_location.collect();
        let ring = members.keys().cloned().collect();
        let members: Vec<NodeId> = members.into_values().collect();
        let sum = |sum: u64, node: &NodeId| sum.wrapping_add(digest(node));
        Placement {
            id: members.iter().fold(0, sum),
            zones: zones(members.iter().map(|node| node.zone)),
            members,
            ring,
            owners: OnceLock::new(),
        }
    }

    /// Equal on all nodes that know the same members: the sum, over the members, of the first
    /// eight bytes of the md5 of `location@generation`, with `@zone` behind it if there is one.
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
            _ => Cow::Owned(self.indexes_on(arc, per_arc)),
        }
    }

    /// The points in the range, except its first one, at which the owners of keys can change.
    pub fn arc_starts(&self, points: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        self.ring.arc_starts(points)
    }

    /// The first indexes of the preference list of an arc: always the start of a longer one.
    fn indexes_on(&self, arc: usize, count: usize) -> Vec<u16> {
        let met = self.ring.preference_list_on(arc);
        let met = met.filter_map(|location| Some(self.find(location)? as u16));
        let Some(zones) = self.zones else {
            return met.take(count).collect();
        };
        let zone = |index: u16| self.members[usize::from(index)].zone;
        let (mut first, mut others): (Vec<u16>, Vec<u16>) = (Vec::new(), Vec::new());
        for index in met {
            let is_met = |known: &u16| zone(*known) == zone(index);
            match zone(index).is_some() && first.iter().any(is_met) {
                true => others.push(index),
                false => first.push(index),
            }
            if first.len() == count.min(zones) && first.len() + others.len() >= count {
                break;
            }
        }
        first.extend(others);
        first.truncate(count);
        first
    }

    fn find(&self, location: &Location) -> Option<usize> {
        let by_location = |node: &NodeId| node.location.cmp(location);
        self.members.binary_search_by(by_location).ok()
    }
}

/// The number of the zone in which a member with these tags is: the point of its name. Two zones that
/// share a number, one pair of four thousand million, count as one.
pub fn zone_of(tags: &Tags) -> Option<u32> {
    tags.zone().map(|zone| point(zone.as_bytes()))
}

/// How many zones nodes with these are in, where one without a zone is in one of its own. None if no
/// node has a zone.
pub fn zones(nodes: impl Iterator<Item = Option<u32>>) -> Option<usize> {
    let (named, unnamed): (BTreeSet<_>, usize) = nodes.fold(Default::default(), |mut sum, zone| {
        match zone {
            Some(zone) => _ = sum.0.insert(zone),
            None => sum.1 += 1,
        }
        sum
    });
    (!named.is_empty()).then_some(named.len() + unnamed)
}

/// The first eight bytes of the md5 of `location@generation` or `location@generation@zone`.
fn digest(node: &NodeId) -> u64 {
    Md5::digest(node.to_string())
        .iter()
        .take(8)
        .fold(0, |head, byte| head << 8 | u64::from(*byte))
}
