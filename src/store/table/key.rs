//! `Key`: a key with its point, and as much of it as a line of the log has room for.

use std::cmp::Ordering;
use std::fmt;

use crate::hash_ring::point;

/// The most bytes shown of a key.
const SHOWN: usize = 100;

/// A key with its point, so that the point is computed once for a call. Keys are ordered
/// by their points, and those of one point by their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The key's bytes.
    pub bytes: &'a [u8],
    /// Its point on the ring.
    pub point: u32,
}

impl<'a> Key<'a> {
    /// The key of these bytes.
    pub fn new(bytes: &'a [u8]) -> Key<'a> {
        Key {
            bytes,
            point: point(bytes),
        }
    }

    /// The stripe of the key, from 0 to [`STRIPES`](super::STRIPES) - 1.
    pub fn stripe(&self) -> usize {
        (self.point >> 24) as usize
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_point = self.point.cmp(&other.point);
        by_point.then_with(|| self.bytes.cmp(other.bytes))
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key<'_> {
    /// As much of the key as a line of the log has room for; nothing in it ends the line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(SHOWN)];
        let more = if shown.len() < self.bytes.len() {
            "…"
        } else {
            ""
        };
        let shown = String::from_utf8_lossy(shown);
        write!(f, "{}{more}", shown.escape_debug())
    }
}
