//! `Index`: whom most points of a ring belong to, without a look at the ring's entries.
//!
//! It takes half the memory of the entries that keys can meet, so that a processor keeps
//! more of it close; on a ring of ten thousand nodes, to fetch one of the entries from afar
//! takes more than half as long as the md5 of a key.
//!
//! The points of keys are divided into cells of equal width, with two to five entries each
//! on the average. How many entries of its cell a point is past is counted without a
//! branch: a processor would guess it, and be wrong.

use std::ops::Range;

use super::{KEY_SPACE, NODE_BITS, node_of};

/// The most entries of a cell on the average; the least are half as many.
const PER_CELL: usize = 5;

/// Entries of a cell of the index that a lookup looks at; seldom has one more.
const AT_A_TIME: usize = 16;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    /// A cell has two to the power of this many points.
    shift: u32,
    /// The place of each cell's first entry; at the end, that of the first one past them all.
    starts: Vec<u32>,
    /// Of each cell the steps of its entries, a byte each, and their nodes, two bytes each,
    /// with that of the next entry after them: the owners of the points before, between
    /// and after its entries. Empty on rings of more nodes than two bytes tell apart.
    cells: Vec<u8>,
}

impl Index {
    /// The index of these entries, which name so many nodes.
    pub(super) fn of(entries: &[u64], nodes: usize) -> Index {
        let met = entries.partition_point(|entry| entry >> NODE_BITS < KEY_SPACE);
        let bits = (met / PER_CELL)
            .max(1)
            .next_power_of_two()
            .ilog2()
            .clamp(1, 24);
        let shift = 32 - bits;
        let mut starts = vec![0; (1 << bits) + 1];
        for (place, entry) in entries[..met].iter().enumerate() {
            starts[(entry >> NODE_BITS >> shift) as usize + 1] = place as u32 + 1;
        }
        let mut start = 0;
        for ends in &mut starts {
            start = start.max(*ends);
            *ends = start;
        }
        let mut index = Index {
            shift,
            starts,
            cells: Vec::new(),
        };
        if nodes <= usize::from(u16::MAX) + 1 {
            index.fill_cells(entries);
        }
        index
    }

    /// Entry by entry: a loop for each cell would end at another number each time, which
    /// a processor would guess wrong too.
    fn fill_cells(&mut self, entries: &[u64]) {
        let Some(first) = entries.first() else {
            return;
        };
        let met = self.starts.last().copied().unwrap_or_default() as usize;
        let bytes = begin(self.starts.len() - 1, met);
        let mut cells = vec![0; bytes + AT_A_TIME];
        let starts = &self.starts[..];
        for (place, entry) in entries[..met].iter().enumerate() {
            let point = (entry >> NODE_BITS) as u32;
            let cell = (point >> self.shift) as usize;
            let (start, end) = (starts[cell] as usize, starts[cell + 1] as usize);
            let at = begin(cell, start);
            cells[at + place - start] = step(point, self.shift);
            let at = at + end - start + 2 * (place - start);
            cells[at..at + 2].copy_from_slice(&short(*entry));
        }
        for (cell, end) in starts[1..].iter().enumerate() {
            let next = entries.get(*end as usize).unwrap_or(first);
            let at = begin(cell + 1, *end as usize) - 2;
            cells[at..at + 2].copy_from_slice(&short(*next));
        }
        self.cells = cells;
    }

    /// The places of the entries of the point's cell.
    pub(super) fn cell(&self, point: u32) -> Range<usize> {
        let cell = (point >> self.shift) as usize;
        self.starts[cell] as usize..self.starts[cell + 1] as usize
    }

    /// The node that owns `point`; none if only the entries tell, since one of them is in the
    /// same step, its cell has too many, or nodes are too many for the index.
    pub(super) fn owner(&self, point: u32) -> Option<u16> {
        let entries = self.cell(point);
        let many = entries.len();
        let cell = begin((point >> self.shift) as usize, entries.start);
        let some = self.cells.get(cell..)?.first_chunk::<AT_A_TIME>()?;
        let step = step(point, self.shift);
        let (mut passed, mut reached) = (0, 0);
        for (number, other) in some.iter().enumerate() {
            let is_of_cell = number < many;
            passed += u8::from(is_of_cell & (*other < step));
            reached += u8::from(is_of_cell & (*other <= step));
        }
        if passed != reached || many > AT_A_TIME {
            return None;
        }
        let owners = self.cells.get(cell + many..)?;
        let owner = owners.get(2 * usize::from(passed)..)?.first_chunk()?;
        Some(u16::from_le_bytes(*owner))
    }
}

/// Where the bytes of a cell begin whose first entry has that place.
fn begin(cell: usize, start: usize) -> usize {
    3 * start + 2 * cell
}

/// The 256th in which a point is of its cell of two to the power of `shift` points.
fn step(point: u32, shift: u32) -> u8 {
    (point >> (shift - 8)) as u8
}

/// The two bytes of an entry's node.
fn short(entry: u64) -> [u8; 2] {
    (node_of(entry) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries at these points, of the nodes that are named with them.
    fn entries(of: &[(u64, u64)]) -> Vec<u64> {
        of.iter()
            .map(|(point, node)| point << NODE_BITS | node)
            .collect()
    }

    #[test]
    fn of_two_nodes_at_one_point_the_first_has_it() {
        let index = Index::of(&entries(&[(1 << 28, 3), (1 << 28, 5), (1 << 30, 7)]), 8);
        assert_eq!(index.owner(0), Some(3));
        assert_eq!(index.owner(1 << 28), None, "the entries tell");
        assert_eq!(index.owner(1 << 29), Some(7));
        assert_eq!(index.owner(u32::MAX), Some(3), "once around the ring");
    }

    #[test]
    fn a_cell_of_too_many_entries_is_left_to_them() {
        let crowd: Vec<(u64, u64)> = (0..17).map(|number| (number << 24, number)).collect();
        let index = Index::of(&entries(&crowd), 17);
        assert_eq!(index.cell(0).len(), 17);
        assert_eq!(index.owner(1 << 27), None);
        assert_eq!(index.owner(1 << 31), Some(0));
        let index = Index::of(&entries(&crowd[..16]), 17);
        assert_eq!(index.owner(15 << 24 | 1 << 23), Some(0));
        assert_eq!(index.owner(13 << 24 | 1 << 23), Some(14));
    }

    #[test]
    fn points_past_those_of_keys_come_after_all_cells() {
        let index = Index::of(&entries(&[(1 << 40, 2), (1 << 41, 1)]), 3);
        assert_eq!([0, u32::MAX].map(|point| index.owner(point)), [Some(2); 2]);
        let index = Index::of(&entries(&[(9, 1), (1 << 40, 2)]), 3);
        assert_eq!(index.owner(u32::MAX), Some(2));
    }

    #[test]
    fn it_tells_nothing_of_no_nodes_and_of_too_many() {
        assert_eq!(Index::of(&[], 0).owner(0), None);
        let few = entries(&[(1 << 31, 65_535)]);
        assert_eq!(Index::of(&few, 65_536).owner(0), Some(65_535));
        assert_eq!(Index::of(&few, 65_537).owner(0), None);
    }
}
