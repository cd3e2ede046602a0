//! Rows: how an entry is written to disk.
//!
//! The key on disk is the key's point, most significant byte first, then its bytes: rows are in the
//! order of a table, and each stripe is one range. The row has flags, the version, the id of the
//! write if it is known, and the value.

use crate::store::placement::Key;
use crate::store::recent_writes::{WriteId, WriteOutcome};
use crate::store::versions::{Entry, Value};

/// The longest key that fits: the engine takes keys of less than 64 KiB.
pub const MAX_KEY: usize = u16::MAX as usize - POINT;

/// Bytes of a point.
const POINT: usize = 4;

/// Bytes of the flags and the version, and of an id.
const HEAD: usize = 9;
const ID: usize = 16;

/// Flags.
const TOMBSTONE: u8 = 1;
const HAS_ID: u8 = 2;
const EXISTED: u8 = 4;
const UNDONE: u8 = 8;

/// What is to change on disk.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key on disk.
    pub key: Vec<u8>,
    /// The version of the entry that is written. The largest one to remove an entry.
    pub version: i64,
    /// The row. None to remove it.
    pub row: Option<Vec<u8>>,
}

/// An entry that was on disk, with the write that it comes from, if that is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Its entry.
    pub entry: Entry,
    /// The last write of the key, and what became of it.
    pub write: Option<(WriteId, WriteOutcome)>,
}

impl Change {
    /// Writes `entry`, which comes from that write, unless that has only met it.
    pub fn write(key: Key<'_>, entry: &Entry, write: Option<(WriteId, WriteOutcome)>) -> Change {
        let write = write.filter(|(_, outcome)| !outcome.is_unmet);
        let mut flags = if entry.is_tombstone() { TOMBSTONE } else { 0 };
        if let Some((_, outcome)) = write {
            flags |= HAS_ID | if outcome.existed { EXISTED } else { 0 };
            flags |= if outcome.is_undone { UNDONE } else { 0 };
        }
        let mut row = Vec::with_capacity(HEAD + ID + entry.value_len());
        row.push(flags);
        row.extend(entry.version.to_be_bytes());
        if let Some((id, _)) = write {
            row.extend(id.origin.to_be_bytes());
            row.extend(id.number.to_be_bytes());
        }
        row.extend(entry.value.iter().flat_map(|value| value.iter()));
        Change {
            row: Some(row),
            version: entry.version,
            ..Change::remove(key)
        }
    }

    /// Removes the entry of a key that is not in the table any more.
    pub fn remove(key: Key<'_>) -> Change {
        Change {
            key: [&key.point.to_be_bytes(), key.bytes].concat(),
            version: i64::MAX,
            row: None,
        }
    }

    /// The key.
    pub fn table_key(&self) -> Key<'_> {
        key_of(&self.key).unwrap_or(Key::new(&self.key))
    }

    /// About the bytes that it takes in memory.
    pub fn size(&self) -> usize {
        self.key.len() + self.row.as_ref().map_or(0, Vec::len)
    }
}

fn key_of(bytes: &[u8]) -> Option<Key<'_>> {
    let (point, bytes) = bytes.split_first_chunk::<POINT>()?;
    let point = u32::from_be_bytes(*point);
    Some(Key { point, bytes })
}

/// The entry of a row. None if it is damaged.
pub fn decode<'a>(key: &'a [u8], row: &[u8]) -> Option<Stored<'a>> {
    let key = key_of(key)?;
    let (flags, row) = row.split_first()?;
    let (version, mut value) = row.split_first_chunk()?;
    let version = i64::from_be_bytes(*version);
    let mut number = || {
        let (number, rest) = value.split_first_chunk()?;
        value = rest;
        Some(i64::from_be_bytes(*number))
    };
    let mut write = None;
    if flags & HAS_ID != 0 {
        let id = WriteId {
            origin: number()?,
            number: number()?,
        };
        let outcome = WriteOutcome {
            version,
            existed: flags & EXISTED != 0,
            is_undone: flags & UNDONE != 0,
            is_unmet: false,
        };
        write = Some((id, outcome));
    }
    let value = (flags & TOMBSTONE == 0).then(|| Value::of(key.bytes, value));
    let entry = Entry { version, value };
    Some(Stored { key, entry, write })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let key = Key::new(b"key");
        let id = WriteId {
            origin: -7,
            number: 8,
        };
        for value in [None, Some(b"".as_slice()), Some(b"value")] {
            let entry = Entry {
                version: i64::MAX - 3,
                value: value.map(|value| Value::of(key.bytes, value)),
            };
            let outcome = WriteOutcome {
                version: entry.version,
                existed: true,
                ..WriteOutcome::default()
            };
            for write in [None, Some((id, outcome))] {
                let change = Change::write(key, &entry, write);
                let entry = entry.clone();
                let row = change.row.as_deref().unwrap_or_default();
                let expected = Stored { key, entry, write };
                assert_eq!(decode(&change.key, row), Some(expected));
                let cut = &row[..HEAD - 1];
                assert_eq!(decode(&change.key, cut), None);
            }
        }
    }
}
