//! The hash ring: decides which node owns a key.
//!
//! Every node has many points on a ring of numbers. A key has one point, and its owner is the
//! node of the first point past it. When a node joins or leaves, only the keys next to its
//! points change their owner.
//!
//! * **Points of a node.** A node has `30 * nodes * weight / total weight` labels, rounded
//!   down: `name-0`, `name-1`, … The first four bytes of a label's md5, read as a number `h`,
//!   give four points: `h`, `h << 4`, `h << 8` and `h << 12`. The shifts are a slip of the
//!   original: keys have 32 bits, but these points have up to 44, so most of them are *far*,
//!   which means past all keys. Keys past the last *near* point belong to the node of the first
//!   far one; the other far points only order the nodes of a preference list. The slip is kept,
//!   because all nodes of a network must agree on every owner.
//! * **Point of a key.** It is the first four bytes of the key's md5. A key of exactly 32
//!   hexadecimal digits counts as an md5 already.
//! * **Ties.** A point that several nodes have belongs to the smallest of them. (In the
//!   original the order of a Python set decides, so two nodes may disagree.)
//! * **Changes.** A ring is immutable: a change makes a new ring, so readers share a ring
//!   without a lock. The new ring copies the points of the nodes that stay, and hashes only
//!   labels that are new.
//!
//! Consistent hashing is by Karger et al., "Consistent hashing and random trees", 1997. The
//! points are those of thrifty-p2p by Adam T. Lindsay, whose ring is based on `hash_ring` by
//! Amir Salihefendic.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::{iter, slice};

use md5::{Digest, Md5};

/// The labels of a node of average weight.
const LABELS: u64 = 30;

/// The number of points that keys can have.
const KEY_SPACE: u64 = 1 << 32;

/// The most nodes that a ring can hold.
pub const MAX_NODES: usize = 1 << 20;

/// The new index of a node that leaves. All bits of its [`entry`] are set, as of no other.
const GONE: u64 = u64::MAX;

/// An immutable consistent-hash ring of nodes of type `N`.
///
/// A node's name on the ring is its `Display` text. Every ring has its own list of nodes, so
/// cloning a node should be cheap.
#[derive(Debug, Clone)]
pub struct HashRing<N> {
    /// Sorted by node, each node once.
    nodes: Vec<Node<N>>,
    /// All points of all nodes, each packed with its node by [`entry`], sorted. Of several
    /// entries with the same point the first counts; the next takes over when its node leaves.
    entries: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Node<N> {
    id: N,
    weight: u32,
    labels: u64,
}

impl<N: Clone + Ord + Display> HashRing<N> {
    /// A ring without nodes.
    pub fn new() -> HashRing<N> {
        let (nodes, entries) = (Vec::new(), Vec::new());
        HashRing { nodes, entries }
    }

    /// A ring of weighted nodes: a node of weight 2 has twice the points of a node of weight 1.
    ///
    /// If a node is given twice, its last weight counts. A node of weight 0 has no points.
    ///
    /// # Panics
    /// With more than [`MAX_NODES`] nodes.
    pub fn weighted(nodes: impl IntoIterator<Item = (N, u32)>) -> HashRing<N> {
        HashRing::new().updated(nodes, &[])
    }

    /// This ring with one more node, of weight 1.
    pub fn with(&self, node: N) -> HashRing<N> {
        self.updated([(node, 1)], &[])
    }

    /// This ring without one node.
    pub fn without(&self, node: &N) -> HashRing<N> {
        self.updated([], slice::from_ref(node))
    }

    /// This ring without the nodes `removed` and with the weighted nodes `added`.
    ///
    /// # Panics
    /// With more than [`MAX_NODES`] nodes.
    pub fn updated(&self, added: impl IntoIterator<Item = (N, u32)>, removed: &[N]) -> HashRing<N> {
        // Each node's weight, and its index on this ring if it has one.
        let old = self.nodes.iter().enumerate();
        let old = old.map(|(index, old)| (old.id.clone(), (old.weight, Some(index))));
        let mut members: BTreeMap<N, (u32, Option<usize>)> = old.collect();
        removed.iter().for_each(|id| _ = members.remove(id));
        for (id, weight) in added {
            members.entry(id).or_default().0 = weight;
        }
        let count = members.len();
        assert!(count <= MAX_NODES, "a ring holds at most {MAX_NODES} nodes");
        let total: u64 = members.values().map(|(weight, _)| u64::from(*weight)).sum();

        let mut nodes = Vec::with_capacity(count);
        let mut new_indexes = vec![GONE; self.nodes.len()];
        let mut new_entries = Vec::new();
        for (index, (id, (weight, old_index))) in (0..).zip(members) {
            let labels = LABELS * count as u64 * u64::from(weight) / total.max(1);
            match old_index.filter(|old| self.nodes[*old].labels == labels) {
                Some(old) => new_indexes[old] = index,
                None => new_entries.extend(entries_of(&id, labels, index)),
            }
            nodes.push(Node { id, weight, labels });
        }
        let entries = self.merged_entries(&new_indexes, new_entries);
        HashRing { nodes, entries }
    }

    /// This ring's entries with the new indexes of their nodes, and `new` entries, sorted.
    /// Entries of nodes that are [`GONE`] are dropped.
    fn merged_entries(&self, new_indexes: &[u64], mut new: Vec<u64>) -> Vec<u64> {
        let renumbered = |old: &u64| entry(point_of(*old), new_indexes[node_of(*old)]);
        let mut merged = Vec::with_capacity(self.entries.len() + new.len());
        merged.extend(self.entries.iter().map(renumbered));
        if new_indexes.contains(&GONE) {
            merged.retain(|entry| *entry != GONE);
        }
        let mut end = merged.len();
        new.sort_unstable();
        merged.extend(&new);
        // From the last new entry to the first, so that each old entry moves once.
        while let Some(entry) = new.pop() {
            let place = merged[..end].partition_point(|old| *old < entry);
            merged.copy_within(place..end, place + new.len() + 1);
            merged[place + new.len()] = entry;
            end = place;
        }
        merged
    }

    /// The nodes, sorted.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &N> {
        self.nodes.iter().map(|node| &node.id)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the ring has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether this node is on the ring.
    pub fn contains(&self, id: &N) -> bool {
        self.nodes.binary_search_by(|node| node.id.cmp(id)).is_ok()
    }

    /// The node that owns `key`; none on an empty ring.
    pub fn owner(&self, key: &[u8]) -> Option<&N> {
        self.owner_at(point(key))
    }

    /// The node that owns the keys at `point`; none on an empty ring.
    pub fn owner_at(&self, point: u32) -> Option<&N> {
        // A ring has at least 30 labels. Their heads are never all below 2^20, so there are far
        // points, and a look-up finds a point without going around.
        let next = self.entries.get(self.arc_at(point))?;
        Some(&self.nodes[node_of(*next)].id)
    }

    /// All nodes, each once, in the order in which they are met from `key` on around the ring.
    /// The first one is its owner.
    pub fn preference_list(&self, key: &[u8]) -> PreferenceList<'_, N> {
        self.preference_list_at(point(key))
    }

    /// The preference list of the keys at `point`.
    pub fn preference_list_at(&self, point: u32) -> PreferenceList<'_, N> {
        self.preference_list_on(self.arc_at(point))
    }

    /// The preference list of all keys on `arc`.
    ///
    /// # Panics
    /// May panic if `arc` is not below [`arcs`](HashRing::arcs).
    pub fn preference_list_on(&self, arc: usize) -> PreferenceList<'_, N> {
        let (behind, ahead) = self.entries.split_at(arc);
        PreferenceList {
            nodes: &self.nodes,
            entries: ahead.iter().chain(behind),
            last_point: None,
            seen: vec![0; self.nodes.len().div_ceil(64)],
        }
    }

    /// The arc that the keys at `point` lie on, by its number: how many points are not past it.
    /// All keys on one arc have the same preference list.
    pub fn arc_at(&self, point: u32) -> usize {
        let is_passed = |entry: &u64| point_of(*entry) <= u64::from(point);
        self.entries.partition_point(is_passed)
    }

    /// The number of arcs: one up to each near point, and one past all near points. An arc
    /// between two equal points has no keys.
    pub fn arcs(&self) -> usize {
        self.arc_at(u32::MAX) + 1
    }

    /// The points at which an arc starts, in order, of those in this range except its first.
    pub fn arc_starts(&self, points: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        let arcs = self.arc_at(*points.start())..self.arc_at(*points.end());
        let starts = self.entries.get(arcs).unwrap_or_default().iter();
        starts.map(|entry| point_of(*entry) as u32)
    }

    /// The share of all keys that have another owner on the ring `other`, from 0 to 1.
    pub fn moved(&self, other: &HashRing<N>) -> f64 {
        let starts = [self, other].map(|ring| ring.arc_starts(0..=u32::MAX));
        let mut starts: Vec<u32> = iter::once(0).chain(starts.into_iter().flatten()).collect();
        starts.sort_unstable();
        let ends = starts.iter().skip(1).map(|start| u64::from(*start));
        let ends = ends.chain([KEY_SPACE]);
        let arcs = starts.iter().zip(ends);
        let moved = arcs.filter(|(start, _)| self.owner_at(**start) != other.owner_at(**start));
        let keys: u64 = moved.map(|(start, end)| end - u64::from(*start)).sum();
        keys as f64 / KEY_SPACE as f64
    }

    /// Each node with its share of all keys; the shares add up to 1.
    pub fn shares(&self) -> Vec<(&N, f64)> {
        let mut shares = vec![0.0; self.nodes.len()];
        let mut start = 0;
        for entry in &self.entries {
            let end = point_of(*entry).min(KEY_SPACE);
            shares[node_of(*entry)] += (end - start) as f64 / KEY_SPACE as f64;
            start = end;
        }
        self.nodes().zip(shares).collect()
    }
}

impl<N: Clone + Ord + Display> Default for HashRing<N> {
    fn default() -> HashRing<N> {
        HashRing::new()
    }
}

impl<N: Clone + Ord + Display> FromIterator<N> for HashRing<N> {
    fn from_iter<I: IntoIterator<Item = N>>(nodes: I) -> HashRing<N> {
        HashRing::weighted(nodes.into_iter().map(|node| (node, 1)))
    }
}

/// An iterator over all nodes of a ring in the order in which they are met from a key on.
#[derive(Debug, Clone)]
pub struct PreferenceList<'a, N> {
    nodes: &'a [Node<N>],
    entries: iter::Chain<slice::Iter<'a, u64>, slice::Iter<'a, u64>>,
    /// The point of the last entry: of several entries with one point only the first counts.
    last_point: Option<u64>,
    /// One bit for each node, set when the node was met.
    seen: Vec<u64>,
}

impl<'a, N> Iterator for PreferenceList<'a, N> {
    type Item = &'a N;

    fn next(&mut self) -> Option<&'a N> {
        for entry in self.entries.by_ref() {
            let (point, node) = (point_of(*entry), node_of(*entry));
            let is_first = self.last_point.replace(point) != Some(point);
            let (seen, bit) = (&mut self.seen[node / 64], 1 << (node % 64));
            if is_first && *seen & bit == 0 {
                *seen |= bit;
                return Some(&self.nodes[node].id);
            }
        }
        None
    }
}

/// The point of a key.
pub fn point(key: &[u8]) -> u32 {
    if key.len() == 32 && key.iter().all(u8::is_ascii_hexdigit) {
        let digits = key[..8].iter();
        let digits = digits.filter_map(|digit| char::from(*digit).to_digit(16));
        return digits.fold(0, |point, digit| point << 4 | digit);
    }
    (u128::from_be_bytes(Md5::digest(key).into()) >> 96) as u32
}

/// The entries of a node with so many labels: four for each label, not sorted.
fn entries_of(node: &impl Display, labels: u64, index: u64) -> impl Iterator<Item = u64> {
    (0..labels).flat_map(move |label| {
        // A label has a hyphen, so it never counts as an md5.
        let head = u64::from(point(format!("{node}-{label}").as_bytes()));
        [0, 4, 8, 12].map(|bits| entry(head << bits, index))
    })
}

/// A point and the index of its node in one number, which sorts by point, then by node.
fn entry(point: u64, node: u64) -> u64 {
    point << 20 | node
}

/// The point of an [`entry`].
fn point_of(entry: u64) -> u64 {
    entry >> 20
}

/// The index of the node of an [`entry`].
fn node_of(entry: u64) -> usize {
    entry as usize % MAX_NODES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> HashRing<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn numbered(count: usize) -> HashRing<String> {
        (0..count).map(|number| format!("node{number}")).collect()
    }

    /// The head of both `node313-8` and `node4782-13`, so that two nodes share four points.
    const TIE: u32 = 0x10f2_fc10;

    fn tied() -> HashRing<String> {
        let numbers = (0..9).chain([4782, 313]);
        numbers.map(|number| format!("node{number}")).collect()
    }

    fn weighted() -> HashRing<String> {
        HashRing::weighted((0..9).map(|weight| (format!("node{weight}"), weight)))
    }

    /// All points of a ring's nodes, each with its smallest node, computed from the labels.
    fn all_points(ring: &HashRing<String>) -> Vec<(u64, &String)> {
        let mut points = Vec::new();
        for Node { id, labels, .. } in &ring.nodes {
            for label in 0..*labels {
                let head = u64::from(point(format!("{id}-{label}").as_bytes()));
                points.extend([1, 16, 256, 4096].map(|factor| (head * factor, id)));
            }
        }
        points.sort();
        points.dedup_by_key(|(point, _)| *point);
        points
    }

    /// The place of the first of these points past a key's; past them all, the first place.
    fn first_past(points: &[(u64, &String)], key: u32) -> usize {
        let place = points.iter().position(|(point, _)| *point > key.into());
        place.unwrap_or(0)
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let alone = ring(&["a:1"]);
        for empty in [
            HashRing::new(),
            alone.without(&"a:1".into()),
            alone.updated([("a:1".into(), 0)], &[]),
        ] {
            assert_eq!(empty.owner(b"a"), None);
            assert_eq!(empty.preference_list(b"a").count(), 0);
            assert!(empty.shares().iter().all(|(_, share)| *share == 0.0));
            assert_eq!(empty.arcs(), 1);
        }
    }

    #[test]
    fn a_key_belongs_to_the_node_of_the_first_point_past_its_own() {
        for ring in [numbered(1), numbered(2), numbered(50), tied(), weighted()] {
            let points = all_points(&ring);
            let near = points
                .iter()
                .map_while(|(point, _)| u32::try_from(*point).ok());
            let near = near.flat_map(|near| [near.saturating_sub(1), near, near.saturating_add(1)]);
            for key in near.chain([0, u32::MAX]) {
                let owner = points[first_past(&points, key)].1;
                assert_eq!(ring.owner_at(key), Some(owner), "{key} of {}", ring.len());
            }
        }
    }

    #[test]
    fn a_preference_list_has_the_nodes_in_the_order_of_all_points() {
        for ring in [numbered(1), numbered(7), numbered(100), tied(), weighted()] {
            let points = all_points(&ring);
            for key in (0..u32::MAX)
                .step_by(100_000_007)
                .chain([TIE - 1, u32::MAX])
            {
                let (behind, ahead) = points.split_at(first_past(&points, key));
                let mut order: Vec<&String> = Vec::new();
                for (_, node) in ahead.iter().chain(behind) {
                    if !order.contains(node) {
                        order.push(node);
                    }
                }
                let list: Vec<&String> = ring.preference_list_at(key).collect();
                assert_eq!(list, order, "{key} of {}", ring.len());
            }
        }
    }

    #[test]
    fn a_shared_point_belongs_to_the_smaller_node_until_it_leaves() {
        let owner = |ring: HashRing<String>| ring.owner_at(TIE - 1).cloned().unwrap();
        assert_eq!(owner(tied()), "node313");
        assert_eq!(owner(tied().without(&"node313".into())), "node4782");
        assert_eq!(owner(tied().without(&"node4782".into())), "node313");
    }

    #[test]
    fn arcs_start_where_their_numbers_change() {
        let ring = ring(&["a:1", "b:1", "c:1"]);
        let starts: Vec<u32> = ring.arc_starts(5_000_000..=u32::MAX).collect();
        assert!(starts.is_sorted());
        for (number, start) in (ring.arc_at(5_000_000)..).zip(&starts) {
            assert_eq!(
                [ring.arc_at(start - 1), ring.arc_at(*start)],
                [number, number + 1]
            );
        }
        assert_eq!(ring.arc_at(u32::MAX) - ring.arc_at(5_000_000), starts.len());
        assert_eq!(ring.arcs(), ring.arc_at(u32::MAX) + 1);
        assert_eq!(
            ring.arc_starts(starts[0]..=starts[1]).collect::<Vec<u32>>(),
            [starts[1]]
        );
    }

    #[test]
    fn a_ring_does_not_depend_on_the_order_of_its_changes() {
        let at_once =
            HashRing::weighted(["a:1", "b:1", "c:1", "d:1"].map(|name| (name.to_string(), 2)));
        let one_by_one = ring(&["d:1", "x:1", "b:1"])
            .with("c:1".into())
            .without(&"x:1".into())
            .with("a:1".into())
            .with("a:1".into());
        let added = [("a:1", 1), ("c:1", 1), ("b:1", 7), ("b:1", 1)];
        let with_three = ring(&["b:1", "d:1", "x:1"]).updated(
            added.map(|(name, weight)| (name.into(), weight)),
            &["x:1".into()],
        );
        for other in [one_by_one, with_three] {
            assert!(at_once.nodes().eq(other.nodes()));
            assert_eq!(at_once.entries, other.entries);
        }
    }

    #[test]
    fn a_key_keeps_its_owner_unless_the_new_node_takes_it() {
        let old = ring(&["a:1", "b:1", "c:1"]);
        let new = old.with("d:1".into());
        assert!(new.contains(&"d:1".into()) && !old.contains(&"d:1".into()));
        for key in (0..1000u32).map(u32::to_be_bytes) {
            let (before, after) = (old.owner(&key), new.owner(&key));
            assert!(before == after || after.is_some_and(|owner| owner == "d:1"));
        }
    }

    #[test]
    fn shares_are_what_lookups_find_and_add_up_to_one() {
        for ring in [weighted(), tied()] {
            let shares = ring.shares();
            assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
            let keys = 20_000u32;
            for (node, share) in shares {
                let owned = (0..keys).filter(|key| ring.owner(&key.to_be_bytes()) == Some(node));
                let found = owned.count() as f64 / f64::from(keys);
                assert!((found - share).abs() < 0.02, "{node}: {found}, not {share}");
            }
        }
    }

    #[test]
    fn the_share_that_moves_is_what_lookups_find() {
        let rings = [
            numbered(9),
            numbered(10),
            weighted(),
            tied(),
            HashRing::new(),
        ];
        let keys = 20_000u32;
        for (one, other) in rings
            .iter()
            .flat_map(|one| rings.iter().map(move |other| (one, other)))
        {
            let has_moved = |key: &u32| {
                let key = key.to_be_bytes();
                one.owner(&key) != other.owner(&key)
            };
            let found = (0..keys).filter(has_moved).count() as f64 / f64::from(keys);
            let (moved, back) = (one.moved(other), other.moved(one));
            assert!(
                (found - moved).abs() < 0.02 && moved == back,
                "{found}, not {moved}"
            );
        }
        assert_eq!(rings[0].moved(&rings[0]), 0.0);
        assert_eq!(rings[0].moved(&rings[4]), 1.0);
        assert!((rings[0].moved(&rings[1]) - 0.1).abs() < 0.05);
    }

    #[test]
    fn a_digest_is_its_own_point_in_either_case() {
        assert_eq!(point(b"0123456789abcdef0123456789abcdef"), 0x0123_4567);
        assert_eq!(point(b"ABCDEF0123456789abcdef0123456789"), 0xabcd_ef01);
        assert_ne!(point(b"0123456789abcdef0123456789abcdeg"), 0x0123_4567);
    }
}
