//! `Entry`: what a node keeps for a key, and the versions that order entries.
//!
//! Of two entries for a key the one of the larger version wins, everywhere and
//! however often they meet. A deletion is an entry without a value, a tombstone:
//! without it, an older copy that comes late would bring the key back.

use std::sync::Arc;

/// Bits of a version that name its writer, below all others.
const WRITER_BITS: u32 = 16;

/// Bits of a version below its milliseconds: the writer's, and four to count the
/// writes of a key in a millisecond before versions run ahead of the clock.
const BELOW_MILLIS: u32 = WRITER_BITS + 4;

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
        self.version >> BELOW_MILLIS
    }

    /// Is this the mark of a deletion?
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// The version of a write by `writer` at `unix_millis`, when `newest` is the newest
/// version that was seen of the key: larger than that, even where the clock was set
/// back. No other writer makes the same one: a primary may end in the middle of a
/// write, and the next one, who has not seen it, must not give its own write that version.
pub fn next_version(unix_millis: i64, newest: i64, writer: u16) -> i64 {
    let least = (unix_millis << BELOW_MILLIS).max(newest + 1);
    let version = least >> WRITER_BITS << WRITER_BITS | i64::from(writer);
    if version < least {
        version + (1 << WRITER_BITS)
    } else {
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_even_when_the_clock_goes_back() {
        let first = next_version(1_000, 0, 7);
        let second = next_version(1_000, first, 3);
        let third = next_version(500, second, 9);
        assert!(first < second && second < third);
        assert!(next_version(1_001, third, 0) > third);
        assert_eq!(
            Entry {
                version: third,
                value: None
            }
            .written_at(),
            1_000
        );
    }

    #[test]
    fn two_writers_never_make_the_same_version() {
        for newest in [0, next_version(1_000, 0, 5), next_version(2_000, 0, 6) + 1] {
            let one = next_version(1_000, newest, 3);
            let other = next_version(1_000, newest, 4);
            assert!(one > newest && other > newest && one != other);
        }
    }
}
