//! Walks around a ring: over its points, and over its nodes in a key's order of preference.

use std::slice;

use super::{MOVES, Node, is_head, moved, node_of, point_of};

/// All points with their nodes, by their places, once around the ring: in order from an arc
/// to the last point that keys can have, those past it, and up to the arc.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    entries: &'a [u64],
    ahead: slice::Iter<'a, u64>,
    /// What is left of the points past those of keys; none before it comes to that.
    far: Option<[Moved<'a>; 3]>,
    behind: slice::Iter<'a, u64>,
}

impl<'a> Walk<'a> {
    /// A walk over these entries from an arc of their ring on.
    pub(super) fn from(entries: &'a [u64], arc: usize) -> Walk<'a> {
        let (behind, ahead) = entries.split_at(arc);
        Walk {
            entries,
            ahead: ahead.iter(),
            far: None,
            behind: behind.iter(),
        }
    }

    fn next_far(&mut self) -> Option<(u64, usize)> {
        let entries = self.entries;
        let ways = self
            .far
            .get_or_insert_with(|| MOVES.map(|bits| Moved::past(entries, bits)));
        let way = ways
            .iter_mut()
            .min_by_key(|way| way.next.unwrap_or((u64::MAX, 0)))?;
        way.step()
    }
}

impl Iterator for Walk<'_> {
    type Item = (u64, usize);

    fn next(&mut self) -> Option<(u64, usize)> {
        let near = |entry: &u64| (u64::from(point_of(*entry)), node_of(*entry));
        let ahead = self.ahead.next().map(near);
        ahead
            .or_else(|| self.next_far())
            .or_else(|| self.behind.next().map(near))
    }
}

/// The heads, moved by some bits, that are past the points of keys.
#[derive(Debug, Clone)]
struct Moved<'a> {
    bits: u32,
    next: Option<(u64, usize)>,
    /// Those after the next one, and what is no head.
    rest: slice::Iter<'a, u64>,
}

impl<'a> Moved<'a> {
    fn past(entries: &'a [u64], bits: u32) -> Moved<'a> {
        let is_near = |entry: &u64| u32::try_from(moved(point_of(*entry), bits)).is_ok();
        let mut moved = Moved {
            bits,
            next: None,
            rest: entries[entries.partition_point(is_near)..].iter(),
        };
        moved.step();
        moved
    }

    /// Goes on to the next one, and returns the one before.
    fn step(&mut self) -> Option<(u64, usize)> {
        let head = self.rest.find(|entry| is_head(**entry));
        let next = head.map(|entry| (moved(point_of(*entry), self.bits), node_of(*entry)));
        std::mem::replace(&mut self.next, next)
    }
}

/// The nodes of a ring in a key's order of preference.
#[derive(Debug, Clone)]
pub struct Preferred<'a, N> {
    nodes: &'a [Node<N>],
    walk: Walk<'a>,
    /// The point looked at last: only the first entry of a point counts.
    last: Option<u64>,
    /// One bit a node, for the first 64: most rings have no more, and need no memory.
    seen: u64,
    /// One bit for each of the others.
    more_seen: Vec<u64>,
}

impl<'a, N> Preferred<'a, N> {
    pub(super) fn new(nodes: &'a [Node<N>], walk: Walk<'a>) -> Preferred<'a, N> {
        Preferred {
            nodes,
            walk,
            last: None,
            seen: 0,
            more_seen: vec![0; nodes.len().saturating_sub(1) / 64],
        }
    }
}

impl<'a, N> Iterator for Preferred<'a, N> {
    type Item = &'a N;

    fn next(&mut self) -> Option<&'a N> {
        for (point, node) in self.walk.by_ref() {
            if self.last.replace(point) == Some(point) {
                continue;
            }
            let (word, bit) = (node / 64, 1 << (node % 64));
            let seen = match word {
                0 => &mut self.seen,
                _ => &mut self.more_seen[word - 1],
            };
            if *seen & bit == 0 {
                *seen |= bit;
                return Some(&self.nodes[node].node);
            }
        }
        None
    }
}
