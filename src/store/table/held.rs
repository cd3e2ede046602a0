//! `Held`: what a table keeps for a key, found by the key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::Key;
use crate::store::versions::{Entry, Value};

/// A key with its entry, in one allocation. They are ordered by their points, and only
/// those of one point by their bytes: most of those that a search passes are told apart
/// without a look at that allocation.
#[derive(Debug)]
pub(super) struct Held {
    point: u32,
    /// Bytes of the key.
    key: u32,
    key_and_value: Arc<[u8]>,
    version: i64,
    is_tombstone: bool,
}

impl Held {
    /// The entry of a key of at most four gigabytes.
    pub fn new(key: Key<'_>, entry: Entry) -> Held {
        let Entry { version, value } = entry;
        Held {
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

impl Named for Held {
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
        let (one, other) = (self.name(), other.name());
        let by_point = one.point.cmp(&other.point);
        by_point.then_with(|| one.bytes.cmp(other.bytes))
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

impl<'a> Borrow<dyn Named + 'a> for Held {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        (self as &dyn Named).cmp(other)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}
