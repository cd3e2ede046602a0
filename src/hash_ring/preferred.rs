//! `PreferenceList`: the nodes of a ring in the order in which a key prefers them.

use super::Node;
use super::walk::Walk;

/// The nodes of a ring in a key's order of preference.
#[derive(Debug, Clone)]
pub struct PreferenceList<'a, N> {
    nodes: &'a [Node<N>],
    walk: Walk<'a>,
    /// The point looked at last: only the first entry of a point counts.
    last: Option<u64>,
    /// One bit a node, for the first 64: most rings have no more, and need no memory.
    seen: u64,
    /// One bit for each of the others.
    more_seen: Vec<u64>,
}

impl<'a, N> PreferenceList<'a, N> {
    /// The nodes that a walk meets, in that order.
    pub(super) fn new(nodes: &'a [Node<N>], walk: Walk<'a>) -> PreferenceList<'a, N> {
        PreferenceList {
            nodes,
            walk,
            last: None,
            seen: 0,
            more_seen: vec![0; nodes.len().saturating_sub(1) / 64],
        }
    }
}

impl<'a, N> Iterator for PreferenceList<'a, N> {
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
