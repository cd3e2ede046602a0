//! `Entry`: what a node keeps for a key, and the versions that order entries.
//!
//! Of two entries for a key the one of the larger version wins, everywhere and
//! however often they meet. A deletion is an entry without a value, a tombstone:
//! without it, an older copy that comes late would bring the key back.

use std::sync::Arc;

/// Bits of a version below its milliseconds: so many writes of a key in a
/// millisecond before versions run ahead of the clock.
const COUNTER_BITS: u32 = 16;

/// What a node keeps for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Larger versions win. 0 is older than any that was written.
    pub version: i64,
    /// The value; none for a tombstone. Shared, since it may be on its way to
    /// several connections at once.
    pub value: Option<Arc<[u8]>>,
}

impl Entry {
    /// When the entry was written, in milliseconds since 1970, by its writer's clock.
    pub fn written_at(&self) -> i64 {
        self.version >> COUNTER_BITS
    }

    /// Is this the mark of a deletion?
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// The version of a write at `unix_millis`, when `newest` is the newest version
/// that was seen of the key: larger than that, even where the clock was set back.
pub fn next_version(unix_millis: i64, newest: i64) -> i64 {
    (unix_millis << COUNTER_BITS).max(newest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_even_when_the_clock_goes_back() {
        let first = next_version(1_000, 0);
        let second = next_version(1_000, first);
        let third = next_version(500, second);
        assert!(first < second && second < third);
        assert!(next_version(1_001, third) > third);
        assert_eq!(
            Entry {
                version: third,
                value: None
            }
            .written_at(),
            1_000
        );
    }
}
