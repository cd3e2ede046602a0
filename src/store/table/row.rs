//! `Row`: what a table keeps for a key, found by the key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::key::Key;
use crate::store::versions::{Entry, Value};

/// A key with its entry, in one allocation. They are ordered by their points, and only
/// those of one point by their bytes: most of those that a search passes are told apart
/// without a look at that allocation.
#[derive(Debug)]
pub(super) struct Row {
    point: u32,
    /// Bytes of the key.
    key: u32,
    key_and_value: Arc<[u8]>,
    version: i64,
    is_tombstone: bool,
}

impl Row {
    /// The entry of a key of at most four gigabytes.
    pub fn new(key: Key<'_>, entry: Entry) -> Row {
        let Entry { version, value } = entry;
        Row {
            point: key.point,
            key: key.bytes.len() as u32,
            version,
            is_tombstone: value.is_none(),
            key_and_value: match value {
                Some(value) => value.behind(key.bytes).into_key_and_value(),
                None => key.bytes.into(),
            },
        }
    }

    pub fn key(&self) -> Key<'_> {
        Key {
            bytes: &self.key_and_value[..self.key as usize],
            point: self.point,
        }
    }

    pub fn entry(&self) -> Entry {
        let value = || Value::from_parts(self.key_and_value.clone(), self.key as usize);
        Entry {
            version: self.version,
            value: (!self.is_tombstone).then(value),
        }
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    /// Bytes of the key and the value.
    pub fn len(&self) -> usize {
        self.key_and_value.len()
    }
}

/// What is found by its key: what is held, and a key by which it is looked for.
pub(super) trait Named {
    fn name(&self) -> Key<'_>;
}

impl Named for Row {
    fn name(&self) -> Key<'_> {
        self.key()
    }
}

impl Named for Key<'_> {
    fn name(&self) -> Key<'_> {
        *self
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Named + '_ {}

impl<'a> Borrow<dyn Named + 'a> for Row {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Row) -> Ordering {
        (self as &dyn Named).cmp(other)
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Row) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row {}
