//! `Index`: whom most points of a ring belong to, without a look at the ring's entries.
//!
//! It takes half the memory of the entries, so that a processor keeps more of it close; on
//! a ring of ten thousand nodes, to fetch one of the entries from afar takes more than half
//! as long as the md5 of a key.
//!
//! The points of keys are divided into cells of equal width, with five to ten entries each
//! on the average. How many entries of its cell a point is past is counted without a
//! branch: a processor would guess it, and be wrong.

use std::ops::Range;

use super::{node_of, point_of};

/// The most entries of a cell on the average; the least are half as many.
const PER_CELL: usize = 10;

/// Entries of a cell of the index that a lookup looks at; seldom has one more.
const AT_A_TIME: usize = 32;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    /// A cell has two to the power of this many points.
    shift: u32,
    /// The place of each cell's first entry; at the end, the number of entries.
    starts: Vec<u32>,
    /// Of each cell the steps of its entries, a byte each, and their nodes, two bytes each,
    /// with the owner of the points after them: the owners of the points before, between
    /// and after its entries. Empty on rings of more nodes than two bytes tell apart.
    cells: Vec<u8>,
}

impl Index {
    /// The index of these entries, which name so many nodes; the points past them belong to
    /// `last`.
    pub(super) fn of(entries: &[u64], last: Option<usize>, nodes: usize) -> Index {
        let bits = entries
            .len()
            .div_ceil(PER_CELL)
            .max(1)
            .next_power_of_two()
            .ilog2()
            .clamp(1, 24);
        let shift = 32 - bits;
        let mut starts = vec![0; (1 << bits) + 1];
        for (place, entry) in entries.iter().enumerate() {
            starts[(point_of(*entry) >> shift) as usize + 1] = place as u32 + 1;
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
        if let Some(last) = last.filter(|_| nodes <= usize::from(u16::MAX) + 1) {
            index.fill_cells(entries, last);
        }
        index
    }

    /// Writes one cell after the other, each where it [begins](begin): with so many entries
    /// in each that takes a third as long as to find the cell of one entry after the other.
    fn fill_cells(&mut self, entries: &[u64], last: usize) {
        let bytes = begin(self.starts.len() - 1, entries.len());
        let mut cells = vec![0; bytes + AT_A_TIME];
        let mut rest = &mut cells[..];
        for bounds in self.starts.windows(2) {
            let (start, end) = (bounds[0] as usize, bounds[1] as usize);
            let own = &entries[start..end];
            let (steps, more) = rest.split_at_mut(own.len());
            let (owners, more) = more.split_at_mut(2 * own.len());
            let (next, later) = more.split_at_mut(2);
            let to = steps.iter_mut().zip(owners.chunks_exact_mut(2));
            for ((to, owner), entry) in to.zip(own) {
                *to = step(point_of(*entry), self.shift);
                owner.copy_from_slice(&short(node_of(*entry)));
            }
            let owner = entries.get(end).map_or(last, |entry| node_of(*entry));
            next.copy_from_slice(&short(owner));
            rest = later;
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

/// The two bytes of a node.
fn short(node: usize) -> [u8; 2] {
    (node as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::hash_ring::entry;

    /// The index of entries at these points, of the nodes that are named with them, on a
    /// ring of so many; points past them all belong to `last`.
    fn index(of: &[(u32, u32)], last: usize, nodes: usize) -> Index {
        let entries = of.iter().map(|(point, node)| entry(*point, *node, true));
        Index::of(&entries.collect::<Vec<u64>>(), Some(last), nodes)
    }

    #[test]
    fn of_two_nodes_at_one_point_the_first_has_it() {
        let index = index(&[(1 << 28, 3), (1 << 28, 5), (1 << 30, 7)], 2, 8);
        assert_eq!(index.owner(0), Some(3));
        assert_eq!(index.owner(1 << 28), None, "the entries tell");
        assert_eq!(index.owner(1 << 29), Some(7));
        assert_eq!(index.owner(u32::MAX), Some(2));
    }

    #[test]
    fn a_cell_of_too_many_entries_is_left_to_them() {
        let crowd: Vec<(u32, u32)> = (0..33).map(|number| (number << 24, number)).collect();
        let all = index(&crowd, 0, 33);
        assert_eq!(all.cell(0).len(), 33);
        assert_eq!(all.owner(1 << 23), None);
        assert_eq!(all.owner(1 << 31), Some(0));
        let fitting = index(&crowd[..32], 0, 33);
        assert_eq!(fitting.owner(31 << 24 | 1 << 23), Some(0));
        assert_eq!(fitting.owner(29 << 24 | 1 << 23), Some(30));
    }

    #[test]
    fn points_past_all_entries_belong_to_the_last_owner() {
        let index = index(&[(9, 1)], 2, 3);
        assert_eq!(index.owner(8), None, "the entries tell");
        assert_eq!(
            [1 << 24, u32::MAX].map(|point| index.owner(point)),
            [Some(2); 2]
        );
    }

    #[test]
    fn it_tells_nothing_of_no_nodes_and_of_too_many() {
        assert_eq!(Index::of(&[], None, 0).owner(0), None);
        let few = [(1 << 31, 65_535)];
        assert_eq!(index(&few, 0, 65_536).owner(0), Some(65_535));
        assert_eq!(index(&few, 0, 65_537).owner(0), None);
    }
}
