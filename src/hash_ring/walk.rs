//! `Walk`: once around a ring, over all its points, those past the points of keys among them.

use std::slice;

use super::{SHIFTS, is_head, node_of, point_of, shifted};

/// Points with the places of their nodes: from an arc to the last *low* point, which a key
/// can have too, then the *far* ones, which none can have, then from the first low one up to
/// the arc. Of several at one point the smaller node comes first.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    entries: &'a [u64],
    ahead: slice::Iter<'a, u64>,
    /// What is left of the far points, by how far heads are shifted for them; none before
    /// the walk comes there, as few do.
    far: Option<[Shifted<'a>; 3]>,
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
        let kinds = self
            .far
            .get_or_insert_with(|| SHIFTS.map(|bits| Shifted::of(entries, bits)));
        let nearest = kinds
            .iter_mut()
            .min_by_key(|kind| kind.next.unwrap_or((u64::MAX, 0)))?;
        nearest.step()
    }
}

impl Iterator for Walk<'_> {
    type Item = (u64, usize);

    fn next(&mut self) -> Option<(u64, usize)> {
        let low = |entry: &u64| (u64::from(point_of(*entry)), node_of(*entry));
        let ahead = self.ahead.next().map(low);
        ahead
            .or_else(|| self.next_far())
            .or_else(|| self.behind.next().map(low))
    }
}

/// The far points that are heads, shifted by so many bits.
#[derive(Debug, Clone)]
struct Shifted<'a> {
    bits: u32,
    next: Option<(u64, usize)>,
    /// Where those after the next one are looked for.
    rest: slice::Iter<'a, u64>,
}

impl<'a> Shifted<'a> {
    fn of(entries: &'a [u64], bits: u32) -> Shifted<'a> {
        let is_low = |entry: &u64| u32::try_from(shifted(point_of(*entry), bits)).is_ok();
        let mut far = Shifted {
            bits,
            next: None,
            rest: entries[entries.partition_point(is_low)..].iter(),
        };
        far.step();
        far
    }

    /// Goes on to the next one, and returns the one before.
    fn step(&mut self) -> Option<(u64, usize)> {
        let head = self.rest.find(|entry| is_head(**entry));
        let next = head.map(|entry| (shifted(point_of(*entry), self.bits), node_of(*entry)));
        std::mem::replace(&mut self.next, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_ring::entry;

    /// The walk from the first arc of heads at these points, of the nodes named with them.
    fn walk(heads: &[(u32, u32)]) -> Vec<(u64, usize)> {
        let entries = heads.iter().map(|(head, node)| entry(*head, *node, true));
        let mut entries: Vec<u64> = entries.collect();
        entries.sort_unstable();
        Walk::from(&entries, 0).collect()
    }

    #[test]
    fn of_two_heads_that_are_shifted_to_one_point_the_smaller_node_comes_first() {
        let walk = walk(&[(0x0200_0000, 1), (0x2000_0000, 0)]);
        let shared: Vec<usize> = walk
            .iter()
            .filter(|(point, _)| *point == 0x2_0000_0000)
            .map(|(_, node)| *node)
            .collect();
        assert_eq!(shared, [0, 1]);
        assert!(walk.is_sorted());
        assert_eq!(
            walk.len(),
            2 + 6 - 1,
            "0x0200_0000 << 4 is low, and not an entry here"
        );
    }

    #[test]
    fn what_is_no_head_is_not_shifted() {
        let entries = [entry(0x4000_0000, 0, true), entry(0x5000_0000, 1, false)];
        let nodes: Vec<usize> = Walk::from(&entries, 1).map(|(_, node)| node).collect();
        assert_eq!(nodes, [1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_walk_without_far_points_goes_on_at_the_first_low_one() {
        assert_eq!(walk(&[(0x000f_ffff, 3)]), [(0x000f_ffff, 3)]);
        let entries = [entry(1, 0, true), entry(2, 1, true)];
        let nodes: Vec<usize> = Walk::from(&entries, 2).map(|(_, node)| node).collect();
        assert_eq!(nodes, [0, 1]);
        assert_eq!(Walk::from(&[], 0).next(), None);
    }
}
