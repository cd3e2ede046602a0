//! `Row`: what a table keeps for a key, found by the key.

use std::cmp::Ordering;
use std::sync::Arc;

use super::key::Key;
use crate::store::versions::{Entry, Value, written_at};

/// A key with its entry, in one allocation, or a key alone by which they are looked for.
/// Rows are ordered by their keys, points first: most of those that a search passes are
/// told apart without a look at their bytes.
#[derive(Debug)]
pub(super) struct Row<'a> {
    point: u32,
    version: i64,
    is_tombstone: bool,
    bytes: Bytes<'a>,
}

#[derive(Debug)]
enum Bytes<'a> {
    /// A key of so many bytes, and behind it the value.
    Kept(Arc<[u8]>, u32),
    /// A key that is looked for.
    Wanted(&'a [u8]),
}

impl<'a> Row<'a> {
    /// The entry of a key of at most four gigabytes.
    pub fn new(key: Key<'_>, entry: Entry) -> Row<'a> {
        let Entry { version, value } = entry;
        let is_tombstone = value.is_none();
        let key_and_value = match value {
            Some(value) => value.behind(key.bytes).into_key_and_value(),
            None => key.bytes.into(),
        };
        Row {
            point: key.point,
            version,
            is_tombstone,
            bytes: Bytes::Kept(key_and_value, key.bytes.len() as u32),
        }
    }

    /// What a row of that key is found by.
    pub fn wanted(key: Key<'a>) -> Row<'a> {
        Row {
            point: key.point,
            version: 0,
            is_tombstone: true,
            bytes: Bytes::Wanted(key.bytes),
        }
    }

    pub fn key(&self) -> Key<'_> {
        let bytes = match &self.bytes {
            Bytes::Kept(key_and_value, key) => &key_and_value[..*key as usize],
            Bytes::Wanted(bytes) => bytes,
        };
        let point = self.point;
        Key { bytes, point }
    }

    pub fn entry(&self) -> Entry {
        let value = match &self.bytes {
            Bytes::Kept(key_and_value, key) if !self.is_tombstone => {
                Some(Value::from_parts(key_and_value.clone(), *key as usize))
            }
            _ => None,
        };
        Entry {
            version: self.version,
            value,
        }
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    /// When the key was deleted, in milliseconds since 1970, if this is a tombstone.
    pub fn deleted_at(&self) -> Option<i64> {
        self.is_tombstone.then(|| written_at(self.version))
    }

    /// Bytes of the key and the value.
    pub fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Kept(key_and_value, _) => key_and_value.len(),
            Bytes::Wanted(bytes) => bytes.len(),
        }
    }
}

impl Ord for Row<'_> {
    /// As their keys, which are put together only where the points do not tell: to do so
    /// in each step of a search makes a bulk load a tenth slower.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_point = self.point.cmp(&other.point);
        by_point.then_with(|| self.key().bytes.cmp(other.key().bytes))
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row<'_> {}
