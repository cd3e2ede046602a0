//! The hash ring: which node a key belongs to.
//!
//! Every node stands on the ring at many points; a key belongs to the node of the
//! first point past the key's own. When a node comes or goes, only the keys next
//! to its points change hands (Karger et al., "Consistent hashing and random
//! trees", 1997). The ring is that of thrifty-p2p, itself Amir Salihefendic's
//! `hash_ring` with changes, point for point: all nodes of a network must agree,
//! so its peculiarities are kept.
//!
//! * A node has `30 * nodes * weight / total weight` labels `name-0`, `name-1`, …,
//!   rounded down: 30 each while all weigh the same.
//! * The md5 of a label gives four points: its first four bytes as a number `h`,
//!   the *head*, then `h << 4`, `h << 8` and `h << 12`. So points reach 44 bits. That is
//!   a slip of the original: keys have 32 bits, and most points of the last three kinds
//!   serve only to order the nodes met after the last low point.
//! * A key's point is the first four bytes of its md5. A key of exactly 32
//!   hexadecimal digits is taken for a digest already.
//! * Where points of two nodes fall together, the smaller node has the point. (In
//!   the original the order of a Python set decides; two nodes could disagree.)
//!
//! A ring never changes: a change makes a new one, so that readers share a ring
//! without waiting. Making it hashes the labels of the nodes that changed and
//! merges their points into a copy of the old ring's. Of points past those of keys,
//! three quarters of all, none is kept: who comes past the last low one is told by the
//! heads, shifted.

mod index;
mod preferred;
mod walk;

use std::fmt::Display;
use std::ops::RangeInclusive;

use index::Index;
use md5::{Digest, Md5};
pub use preferred::PreferenceList;
use walk::Walk;

/// Labels of a node of average weight, each worth four points.
const LABELS: u64 = 30;

/// The bits by which a head is shifted for the other three points of its label.
const SHIFTS: [u32; 3] = [4, 8, 12];

/// The most nodes that a ring holds, far more than a network may have members. Beyond 65,536
/// of them look-ups take somewhat longer.
pub const MAX_NODES: usize = 1 << 20;

/// One past the largest point that a key can have.
const KEY_SPACE: u64 = 1 << 32;

/// What is to be added to an [`entry`] for the node of the next place.
const NEXT_NODE: u64 = 2;

/// An immutable consistent-hash ring of nodes of type `N`.
///
/// A node's name on the ring is what it displays as. Cloning a node should be
/// cheap, because every new ring has its own list of them.
#[derive(Debug, Clone)]
pub struct HashRing<N> {
    /// Sorted, without repetition. Entries refer to nodes by their place here,
    /// so that sorting entries puts the smaller of two nodes first.
    nodes: Vec<Node<N>>,
    /// The points that keys can have, with their nodes ([`entry`]), sorted. Of several
    /// entries with one point the first counts; the others wait for its node to leave.
    entries: Vec<u64>,
    /// Tells most owners without a look at the entries, on rings of up to 65,536 nodes.
    index: Index,
}

#[derive(Debug, Clone)]
struct Node<N> {
    node: N,
    weight: u32,
    labels: u64,
}

impl<N: Clone + Ord + Display> HashRing<N> {
    /// A ring without nodes.
    pub fn new() -> HashRing<N> {
        HashRing {
            nodes: Vec::new(),
            entries: Vec::new(),
            index: Index::of(&[], None, 0),
        }
    }

    /// A ring of weighted nodes: one of weight 2 gets twice the points of one of weight 1.
    ///
    /// Of a node named twice the last weight counts; one of weight 0 has no points.
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
        self.updated([], std::slice::from_ref(node))
    }

    /// This ring with weighted nodes `added` and others `removed`, made at once.
    ///
    /// # Panics
    /// With more than [`MAX_NODES`] nodes.
    pub fn updated(&self, added: impl IntoIterator<Item = (N, u32)>, removed: &[N]) -> HashRing<N> {
        let mut nodes = Vec::with_capacity(self.nodes.len() + 1);
        let mut origins = Vec::with_capacity(self.nodes.len() + 1);
        for (place, old) in self.nodes.iter().enumerate() {
            if !removed.contains(&old.node) {
                nodes.push(old.clone());
                origins.push(Some(place));
            }
        }
        for (node, weight) in added {
            match nodes.binary_search_by(|old| old.node.cmp(&node)) {
                Ok(place) => nodes[place].weight = weight,
                Err(place) => {
                    let labels = 0;
                    nodes.insert(
                        place,
                        Node {
                            node,
                            weight,
                            labels,
                        },
                    );
                    origins.insert(place, None);
                }
            }
        }
        assert!(
            nodes.len() <= MAX_NODES,
            "a ring holds at most {MAX_NODES} nodes"
        );
        count_labels(&mut nodes);
        let (kept, fresh) = self.places(&nodes, &origins);
        let fresh = entries_of(&nodes, &fresh);
        let mut entries = self.kept_entries(&kept, fresh.len());
        merge(&mut entries, &fresh);
        let index = Index::of(&entries, first_on(&entries, entries.len()), nodes.len());
        HashRing {
            nodes,
            entries,
            index,
        }
    }

    /// The nodes, sorted.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &N> {
        self.nodes.iter().map(|node| &node.node)
    }

    /// How many nodes the ring has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Has the ring no nodes?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Is this node on the ring?
    pub fn contains(&self, node: &N) -> bool {
        self.find(node).is_some()
    }

    /// The node that `key` belongs to; none on an empty ring.
    pub fn owner(&self, key: &[u8]) -> Option<&N> {
        self.owner_at(point(key))
    }

    /// The node that the keys at `point` belong to; none on an empty ring.
    pub fn owner_at(&self, point: u32) -> Option<&N> {
        let node = match self.index.owner(point) {
            Some(owner) => usize::from(owner),
            None => first_on(&self.entries, self.arc_at(point))?,
        };
        Some(&self.nodes[node].node)
    }

    /// All nodes in the order in which `key` prefers them: its owner, then each
    /// node met for the first time on the way once around the ring.
    pub fn preference_list(&self, key: &[u8]) -> PreferenceList<'_, N> {
        self.preference_list_at(point(key))
    }

    /// All nodes in the order in which the keys at `point` prefer them.
    pub fn preference_list_at(&self, point: u32) -> PreferenceList<'_, N> {
        self.preference_list_on(self.arc_at(point))
    }

    /// The arc on which the keys at `point` lie, a number below [`arcs`](HashRing::arcs).
    /// All keys on one arc prefer the nodes in the same order.
    pub fn arc_at(&self, point: u32) -> usize {
        let cell = self.index.cell(point);
        let passed = |entry: &u64| point_of(*entry) <= point;
        cell.start + self.entries[cell].partition_point(passed)
    }

    /// How many arcs there are: one before each of the points that keys can have, and one
    /// past them all. On one between two points that fall together no key lies.
    pub fn arcs(&self) -> usize {
        self.entries.len() + 1
    }

    /// The points among these, but for the first one, at which another arc begins, in order.
    pub fn arc_starts(&self, points: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        let (first, last) = points.into_inner();
        let entries = &self.entries[self.arc_at(first)..];
        let points = entries.iter().map(|entry| point_of(*entry));
        points.take_while(move |point| *point <= last)
    }

    /// All nodes in the order in which the keys on this arc prefer them.
    ///
    /// # Panics
    /// With an arc that this ring does not have.
    pub fn preference_list_on(&self, arc: usize) -> PreferenceList<'_, N> {
        PreferenceList::new(&self.nodes, Walk::from(&self.entries, arc))
    }

    /// Each node with its share of the keys, from 0 to 1; together they have all of them.
    pub fn shares(&self) -> Vec<(&N, f64)> {
        let mut widths = vec![0u64; self.nodes.len()];
        let mut from = 0;
        for run in self.entries.chunk_by(|a, b| point_of(*a) == point_of(*b)) {
            let to = u64::from(point_of(run[0]));
            widths[node_of(run[0])] += to - from;
            from = to;
        }
        if let Some(node) = first_on(&self.entries, self.entries.len()) {
            widths[node] += KEY_SPACE - from;
        }
        let shares = widths.iter().map(|width| *width as f64 / KEY_SPACE as f64);
        self.nodes().zip(shares).collect()
    }

    fn find(&self, node: &N) -> Option<usize> {
        self.nodes
            .binary_search_by(|other| other.node.cmp(node))
            .ok()
    }

    /// Where each node of this ring is among `nodes`, if it keeps its labels there, and the
    /// places of those that do not come from here with theirs.
    fn places(
        &self,
        nodes: &[Node<N>],
        origins: &[Option<usize>],
    ) -> (Vec<Option<u32>>, Vec<usize>) {
        let mut kept = vec![None; self.nodes.len()];
        let mut fresh = Vec::new();
        for (place, (new, origin)) in nodes.iter().zip(origins).enumerate() {
            match origin.filter(|origin| self.nodes[*origin].labels == new.labels) {
                Some(origin) => kept[origin] = Some(place as u32),
                None => fresh.push(place),
            }
        }
        (kept, fresh)
    }

    /// The entries of the nodes that are kept, for their new places, with room for `more`.
    fn kept_entries(&self, places: &[Option<u32>], more: usize) -> Vec<u64> {
        let mut entries = Vec::with_capacity(self.entries.len() + more);
        let at = |old: u64, place: u32| entry(point_of(old), place, is_head(old));
        let old = self.entries.iter();
        match places.iter().copied().collect::<Option<Vec<u32>>>() {
            // Mostly all are: then there is nothing to decide for each of the many entries,
            // and beside one newcomer nothing to look up.
            Some(places) => match first_moved_by_one(&places) {
                Some(first) => {
                    let renumbered = |old: u64| old + NEXT_NODE * u64::from(node_of(old) >= first);
                    entries.extend(old.map(|entry| renumbered(*entry)));
                }
                None => entries.extend(old.map(|entry| at(*entry, places[node_of(*entry)]))),
            },
            None => {
                entries.extend(old.filter_map(|entry| Some(at(*entry, places[node_of(*entry)]?))))
            }
        }
        entries
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

/// A key's point on the ring.
pub fn point(key: &[u8]) -> u32 {
    if key.len() == 32 && key.iter().all(u8::is_ascii_hexdigit) {
        let digits = key
            .iter()
            .take(8)
            .filter_map(|digit| (*digit as char).to_digit(16));
        return digits.fold(0, |point, digit| point << 4 | digit);
    }
    first_four(key)
}

/// The points of a node with so many labels that keys can have too, each with whether it is
/// a head.
fn points<N: Display>(node: &N, labels: u64) -> impl Iterator<Item = (u32, bool)> {
    let name = node.to_string();
    (0..labels).flat_map(move |label| {
        let head = first_four(format!("{name}-{label}").as_bytes());
        let others = SHIFTS.into_iter().map(move |bits| shifted(head, bits));
        let low = others.filter_map(|point| Some((u32::try_from(point).ok()?, false)));
        std::iter::once((head, true)).chain(low)
    })
}

/// Another point of a head's label.
fn shifted(head: u32, bits: u32) -> u64 {
    u64::from(head) << bits
}

fn first_four(text: &[u8]) -> u32 {
    let digest = Md5::digest(text);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// A point of the node of that place; is it the head of a label? Entries are sorted by
/// their points, then by their nodes.
fn entry(point: u32, node: u32, is_head: bool) -> u64 {
    u64::from(point) << 32 | u64::from(node) << 1 | u64::from(is_head)
}

fn point_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn node_of(entry: u64) -> usize {
    (entry as u32 >> 1) as usize
}

fn is_head(entry: u64) -> bool {
    entry & 1 == 1
}

/// The node of the first point past the keys of an arc; none on an empty ring.
fn first_on(entries: &[u64], arc: usize) -> Option<usize> {
    Walk::from(entries, arc).next().map(|(_, node)| node)
}

/// The first of the old nodes whose new place, of which these are sorted, is another one; past
/// them all if there is none. None if one has moved by more than one.
fn first_moved_by_one(places: &[u32]) -> Option<usize> {
    let is_moved = |(old, new): (usize, &u32)| old != *new as usize;
    let first = places.iter().enumerate().position(is_moved);
    let last = places.last().map_or(0, |last| *last as usize);
    (last <= places.len()).then(|| first.unwrap_or(places.len()))
}

fn count_labels<N>(nodes: &mut [Node<N>]) {
    let total: u64 = nodes.iter().map(|node| u64::from(node.weight)).sum();
    let labels = LABELS * nodes.len() as u64;
    for node in nodes {
        node.labels = (labels * u64::from(node.weight))
            .checked_div(total)
            .unwrap_or(0);
    }
}

/// The entries of the nodes at these places, sorted.
fn entries_of<N: Display>(nodes: &[Node<N>], places: &[usize]) -> Vec<u64> {
    let of_node = |place: &usize| {
        let (node, place) = (&nodes[*place], *place as u32);
        points(&node.node, node.labels).map(move |(point, is_head)| entry(point, place, is_head))
    };
    let mut entries: Vec<u64> = places.iter().flat_map(of_node).collect();
    entries.sort_unstable();
    entries
}

/// Adds `fresh` entries to others, both sorted; from behind, so that each is moved once.
fn merge(entries: &mut Vec<u64>, fresh: &[u64]) {
    let mut end = entries.len();
    entries.resize(end + fresh.len(), 0);
    for (before, new) in fresh.iter().enumerate().rev() {
        let at = entries[..end].partition_point(|entry| entry < new);
        entries.copy_within(at..end, at + before + 1);
        entries[at + before] = *new;
        end = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> HashRing<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let empty = ring(&[]);
        assert_eq!(empty.owner(b"a"), None);
        assert_eq!(empty.preference_list(b"a").count(), 0);
        assert_eq!(empty.shares(), []);
    }

    fn numbered(count: usize) -> HashRing<String> {
        (0..count).map(|number| format!("node{number}")).collect()
    }

    /// All points of a ring's nodes, those past keys among them, with their nodes, sorted.
    fn all_points(ring: &HashRing<String>) -> Vec<(u64, &String)> {
        let labels = ring.nodes.iter().flat_map(|node| {
            let label = |label| (format!("{}-{label}", node.node), &node.node);
            (0..node.labels).map(label)
        });
        let points = labels.flat_map(|(label, node)| {
            let head = u64::from(first_four(label.as_bytes()));
            [head, head << 4, head << 8, head << 12].map(|point| (point, node))
        });
        let mut points: Vec<(u64, &String)> = points.collect();
        points.sort();
        points.dedup_by_key(|(point, _)| *point);
        points
    }

    /// Where the first of these points past that of a key is; past them all, the first.
    fn first_past(points: &[(u64, &String)], key: u32) -> usize {
        points.partition_point(|(point, _)| *point <= u64::from(key)) % points.len()
    }

    #[test]
    fn a_key_belongs_to_the_node_of_the_first_point_past_its_own() {
        for size in [1, 2, 7, 300] {
            let ring = numbered(size);
            let last = first_on(&ring.entries, ring.entries.len());
            let index = Index::of(&ring.entries, last, MAX_NODES);
            assert_eq!(index.owner(0), None, "so many nodes are too many for it");
            let large = HashRing {
                index,
                ..ring.clone()
            };
            let points = all_points(&ring);
            let near = ring.entries.iter().map(|entry| point_of(*entry));
            let near = near.flat_map(|near| [near.saturating_sub(1), near, near.saturating_add(1)]);
            let even = (0..=u32::MAX).step_by(1_000_003);
            for key in near.chain(even.clone()).chain([u32::MAX]) {
                let owner = Some(points[first_past(&points, key)].1);
                assert_eq!(ring.owner_at(key), owner, "{key} of {size}");
                assert_eq!(large.owner_at(key), owner, "{key} of {size}");
            }
            let told = even.clone().filter(|key| ring.index.owner(*key).is_some());
            assert!(
                told.count() * 10 > even.count() * 9,
                "of {size}, the index tells few"
            );
        }
    }

    #[test]
    fn nodes_are_preferred_in_the_order_of_all_points_those_past_keys_among_them() {
        let weighted = (1..9).map(|weight| (format!("node{weight}"), weight));
        for ring in [
            numbered(1),
            numbered(7),
            numbered(100),
            HashRing::weighted(weighted),
        ] {
            let points = all_points(&ring);
            let (before, after) = (
                (0..u32::MAX).step_by(100_000_007),
                u32::MAX - 1_000..=u32::MAX,
            );
            for key in before.chain(after.step_by(100)) {
                let (behind, ahead) = points.split_at(first_past(&points, key));
                let mut order: Vec<&String> = Vec::new();
                for (_, node) in ahead.iter().chain(behind) {
                    if !order.contains(node) {
                        order.push(node);
                    }
                }
                let preference_list: Vec<&String> = ring.preference_list_at(key).collect();
                assert_eq!(preference_list, order, "{key} of {}", ring.len());
            }
        }
    }

    #[test]
    fn arcs_begin_where_their_numbers_change() {
        let ring = ring(&["a:1", "b:1", "c:1"]);
        let points = 5_000_000..=u32::MAX;
        let begin: Vec<u32> = ring.arc_starts(points).collect();
        assert!(begin.is_sorted());
        for point in &begin {
            assert_ne!(ring.arc_at(point - 1), ring.arc_at(*point), "{point}");
        }
        let arcs = begin.iter().map(|point| ring.arc_at(*point));
        let met: std::collections::BTreeSet<usize> = arcs.chain([ring.arc_at(5_000_000)]).collect();
        let all = (5_000_000..=u32::MAX).step_by(10_007);
        assert!(
            all.into_iter()
                .all(|point| met.contains(&ring.arc_at(point)))
        );
    }

    #[test]
    fn a_ring_is_the_same_however_its_nodes_came() {
        let at_once = ring(&["a:1", "b:1", "c:1", "d:1"]);
        let one_by_one = ring(&["d:1", "x:1", "b:1"])
            .with("c:1".into())
            .without(&"x:1".into())
            .with("a:1".into())
            .with("a:1".into());
        let with_two = ring(&["b:1", "d:1"]).updated([("a:1".into(), 1), ("c:1".into(), 1)], &[]);
        for other in [one_by_one, with_two] {
            assert_eq!(at_once.entries, other.entries);
            assert_eq!(at_once.index, other.index);
        }
    }

    #[test]
    fn a_key_keeps_its_owner_unless_the_newcomer_takes_it() {
        let old = ring(&["a:1", "b:1", "c:1"]);
        let new = old.with("d:1".into());
        for key in 0..1000u32 {
            let (before, after) = (old.owner(&key.to_be_bytes()), new.owner(&key.to_be_bytes()));
            assert!(before == after || after.is_some_and(|owner| owner == "d:1"));
        }
    }

    #[test]
    fn the_smaller_of_two_nodes_has_a_shared_point_until_it_leaves() {
        let mut tied = ring(&["a:1", "b:1"]);
        let shared = tied
            .entries
            .iter()
            .find(|entry| node_of(**entry) == 0)
            .copied()
            .unwrap();
        tied.entries.push(shared + NEXT_NODE);
        tied.entries.sort_unstable();
        let last = first_on(&tied.entries, tied.entries.len());
        tied.index = Index::of(&tied.entries, last, tied.nodes.len());
        let below = point_of(shared) - 1;
        assert_eq!(tied.owner_at(below), Some(&"a:1".to_string()));
        assert_eq!(tied.preference_list_at(below).count(), 2);
        let alone = tied.without(&"a:1".into());
        assert!(alone.entries.contains(&shared));
    }

    #[test]
    fn shares_are_what_lookups_find_and_add_up_to_one() {
        let ring = HashRing::weighted([("a:1".to_string(), 1), ("b:1".to_string(), 3)]);
        let shares = ring.shares();
        assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        let keys = 20_000u32;
        let found = (0..keys)
            .filter(|k| ring.owner(&k.to_be_bytes()) == Some(shares[0].0))
            .count();
        assert!((found as f64 / f64::from(keys) - shares[0].1).abs() < 0.02);
    }

    #[test]
    fn a_digest_is_taken_as_it_is_in_either_case() {
        assert_eq!(point(b"0123456789abcdef0123456789abcdef"), 0x0123_4567);
        assert_eq!(point(b"ABCDEF0123456789abcdef0123456789"), 0xabcd_ef01);
        assert_ne!(point(b"0123456789abcdef0123456789abcdeg"), 0x0123_4567);
    }
}
