//! `Entry`: what a node keeps for a key, and the versions that order entries.
//!
//! Of two entries for a key the one of the larger version wins, everywhere and
//! however often they meet. A deletion is an entry without a value, a tombstone:
//! without it, an older copy that comes late would bring the key back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bits of a version that name its writer, below all others.
const WRITER_BITS: u32 = 16;

/// Bits of a version below its milliseconds: the writer's, and four to count the
/// writes of a key in a millisecond before versions run ahead of the clock.
const BELOW_MILLIS: u32 = WRITER_BITS + 4;

/// Bytes of a key and a value that are joined without memory beside that of both.
const SMALL: usize = 256;

/// What a node keeps for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Larger versions win. 0 is older than any that was written.
    pub version: i64,
    /// The value; none for a tombstone.
    pub value: Option<Value>,
}

/// What is held for a key, a tombstone included; nothing if nothing ever was.
pub type Held = Option<Entry>;

/// The bytes of a value, mostly behind those of its key: a table keeps the two in one
/// allocation. Cheap to clone, since it may be on its way to several connections at once.
#[derive(Clone)]
pub struct Value {
    key_and_value: Arc<[u8]>,
    /// Where the value begins.
    begin: usize,
}

impl Value {
    /// This value of that key.
    pub fn of(key: &[u8], mut value: Vec<u8>) -> Value {
        let begin = key.len();
        let mut small = [0; SMALL];
        let key_and_value = match small.get_mut(..begin + value.len()) {
            Some(both) => {
                both[..begin].copy_from_slice(key);
                both[begin..].copy_from_slice(&value);
                Arc::from(&*both)
            }
            None => {
                value.splice(..0, key.iter().copied());
                Arc::from(value)
            }
        };
        Value::from_parts(key_and_value, begin)
    }

    /// The value, behind that key and no other.
    pub(super) fn behind(self, key: &[u8]) -> Value {
        if self.key_and_value[..self.begin] == *key {
            self
        } else {
            Value::of(key, self.to_vec())
        }
    }

    /// The value that begins there, in the same allocation as its key.
    pub(super) fn from_parts(key_and_value: Arc<[u8]>, begin: usize) -> Value {
        Value {
            key_and_value,
            begin,
        }
    }

    /// The key's bytes, and behind them the value's.
    pub(super) fn into_key_and_value(self) -> Arc<[u8]> {
        self.key_and_value
    }
}

impl From<Vec<u8>> for Value {
    /// A value without its key, until a table keeps it.
    fn from(value: Vec<u8>) -> Value {
        Value::from_parts(value.into(), 0)
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.key_and_value[self.begin..]
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl Entry {
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

/// When what has this version was written, in milliseconds since 1970, by its writer's
/// clock, unless versions had run ahead of that.
pub fn written_at(version: i64) -> i64 {
    version >> BELOW_MILLIS
}

/// How far ahead of this node's clock a version may be, in milliseconds: one day.
const MOST_AHEAD: i64 = 24 * 3_600_000;

/// Can this version have been given by a node whose clock is about right? Another one
/// would outdo every write for ever.
pub fn is_plausible(version: i64, unix_millis: i64) -> bool {
    version > 0 && written_at(version) <= unix_millis + MOST_AHEAD
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
        assert_eq!(written_at(third), 1_000);
    }

    #[test]
    fn a_clock_that_steps_an_hour_orders_writes_as_they_were_made() {
        const HOUR: i64 = 3_600_000;
        let now = 1_000 * HOUR;
        let mut newest = 0;
        // Right, ahead, right again, behind: each writer has seen what was written before.
        for (writer, clock) in [now, now + HOUR, now + 1, now - HOUR]
            .into_iter()
            .enumerate()
        {
            let version = next_version(clock, newest, writer as u16);
            assert!(version > newest, "write {writer}");
            // Whoever has the right time, or is an hour behind, takes it.
            assert!(is_plausible(version, now) && is_plausible(version, now - HOUR));
            newest = version;
        }
    }

    #[test]
    fn versions_of_a_broken_clock_are_told_from_others() {
        assert!(is_plausible(next_version(1_000, 0, 7), 1_000));
        assert!(is_plausible(next_version(MOST_AHEAD, 0, 7), 0));
        for version in [
            0,
            -1,
            i64::MIN,
            i64::MAX,
            next_version(MOST_AHEAD + 2_000, 0, 7),
        ] {
            assert!(!is_plausible(version, 1_000), "{version}");
        }
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
