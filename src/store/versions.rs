//! `Entry`: what a node holds for a key, and the versions that order entries.
//!
//! Of two entries of a key the one with the larger version wins, on every node and in any
//! order. A deletion is an entry without a value, a tombstone: without it, an older copy that
//! arrives late would bring the key back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Low bits of a version, which identify its writer.
const WRITER_BITS: u32 = 16;

/// Bits of a version below its milliseconds: the writer's, and four that count the writes of
/// a key in one millisecond. Further ones make the version run ahead of the clock.
const BELOW_MILLIS: u32 = WRITER_BITS + 4;

/// What a node holds for a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Larger versions win. 0 is older than any that was written.
    pub version: i64,
    /// The value. None for a tombstone.
    pub value: Option<Value>,
}

/// The bytes of a value, usually in one allocation with its key, as a table keeps them. Cheap
/// to clone, because several connections may send it at once.
#[derive(Clone)]
pub struct Value {
    key_and_value: Arc<[u8]>,
    /// Where the value starts.
    start: usize,
}

impl Value {
    /// A value in one allocation with its key.
    pub fn of(key: &[u8], value: &[u8]) -> Value {
        Value::from_parts([key, value].concat().into(), key.len())
    }

    /// The same value in one allocation with that key.
    pub(super) fn with_key(self, key: &[u8]) -> Value {
        if self.key_and_value[..self.start] == *key {
            self
        } else {
            Value::of(key, &self)
        }
    }

    /// The value that starts there, after its key.
    pub(super) fn from_parts(key_and_value: Arc<[u8]>, start: usize) -> Value {
        Value {
            key_and_value,
            start,
        }
    }

    /// The bytes of the key followed by those of the value.
    pub(super) fn into_key_and_value(self) -> Arc<[u8]> {
        self.key_and_value
    }
}

impl From<Vec<u8>> for Value {
    /// A value without its key. A table adds the key.
    fn from(value: Vec<u8>) -> Value {
        Value::from_parts(value.into(), 0)
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.key_and_value[self.start..]
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
    /// Is this a deletion?
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// The length of the value, 0 for a tombstone.
    pub fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// The writer in a version: the number that was passed to [`next_version`], but for its last bit.
pub fn writer_of(version: i64) -> u16 {
    (version & !UNDO) as u16
}

/// The version of a write by `writer` at `unix_millis`, when `newest` is the newest known
/// version of the key: larger than that, even if the clock was set back.
///
/// No other writer assigns the same version. A primary may die in the middle of a write; the
/// next one, which has not seen the write, must not give its own write that version.
pub fn next_version(unix_millis: i64, newest: i64, writer: u16) -> i64 {
    let least = (unix_millis << BELOW_MILLIS).max(newest + 1);
    let version = least >> WRITER_BITS << WRITER_BITS | i64::from(writer) & !UNDO;
    if version < least {
        version + (1 << WRITER_BITS)
    } else {
        version
    }
}

/// In a version: the entry undoes the write that has the version without this bit.
const UNDO: i64 = 1;

/// The version that undoes the write of that version. No other version is between the two, so a
/// later write is newer than both.
pub fn undo_of(version: i64) -> i64 {
    version | UNDO
}

/// When the entry of this version was written, in milliseconds since 1970 by its writer's
/// clock, unless versions ran ahead of that.
pub fn written_at(version: i64) -> i64 {
    version >> BELOW_MILLIS
}

/// How far ahead of this node's clock a version may be, in milliseconds: one day.
const MAX_AHEAD: i64 = 24 * 3_600_000;

/// Can a node with a roughly correct clock have assigned this version? A version from the far
/// future would win over every write for a long time.
pub fn is_plausible(version: i64, unix_millis: i64) -> bool {
    version > 0 && written_at(version) <= unix_millis + MAX_AHEAD
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
            // A node takes it whose clock is right, or an hour behind.
            assert!(is_plausible(version, now) && is_plausible(version, now - HOUR));
            newest = version;
        }
    }

    #[test]
    fn versions_of_a_broken_clock_are_told_from_others() {
        assert!(is_plausible(next_version(1_000, 0, 7), 1_000));
        assert!(is_plausible(next_version(MAX_AHEAD, 0, 7), 0));
        for version in [
            0,
            -1,
            i64::MIN,
            i64::MAX,
            next_version(MAX_AHEAD + 2_000, 0, 7),
        ] {
            assert!(!is_plausible(version, 1_000), "{version}");
        }
    }

    #[test]
    fn an_undo_is_newer_than_its_write_and_older_than_any_later_write() {
        let write = next_version(1_000, 0, 7);
        assert!(undo_of(write) > write);
        for writer in [0, 1, 6, 7, 8, u16::MAX] {
            let later = next_version(0, write, writer);
            assert!(later > undo_of(write), "writer {writer}");
        }
    }

    #[test]
    fn two_writers_never_make_the_same_version() {
        for newest in [0, next_version(1_000, 0, 5), next_version(2_000, 0, 6) + 1] {
            let one = next_version(1_000, newest, 2);
            let other = next_version(1_000, newest, 4);
            assert!(one > newest && other > newest && one != other);
        }
    }
}
