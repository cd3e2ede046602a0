//! `Table`: the keys that one node holds, in memory, shared by threads.
//!
//! Keys lie in stripes by the top bits of their point on the ring, each stripe
//! behind a lock of its own that is held for one look-up or one page. Within a stripe
//! keys are ordered by their points, then by their bytes, so that whoever copies a table
//! can go on after the last key it got, whatever has changed since.
//!
//! A key and its value are one allocation; with its share of the tree's nodes a small
//! key costs some 100 bytes beyond what it says.

mod key;
mod row;

use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::versions::Entry;
use row::Row;

pub use key::Key;

/// Stripes of a table: enough that threads rarely meet in one, and few enough
/// that an empty table is small.
pub const STRIPES: usize = 256;

/// Bytes a key is reckoned to cost beyond itself and its value.
const OVERHEAD: usize = 100;

/// The most bytes of one page for another node or a client.
pub(super) const PAGE: usize = 1024 * 1024;

/// The same while clients keep the giver busy: its copying takes a millisecond or so.
pub(super) const SMALL_PAGE: usize = 128 * 1024;

/// The most keys looked at for such a page, so that it is not long in coming.
pub(super) const LOOKS: usize = 50_000;

/// Where a copy of a table goes on: after this key of this stripe, in the order of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The stripe to look at next.
    pub stripe: usize,
    /// The last key copied of it, if any.
    pub after: Option<Vec<u8>>,
}

/// Some entries of a table, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys with their entries.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

type Stripe = BTreeSet<Row<'static>>;

/// The keys that one node holds. All methods may be called from any thread; none
/// waits for more than a look at one stripe.
#[derive(Debug)]
pub struct Table {
    stripes: Vec<Mutex<Stripe>>,
    /// Keys with a value.
    keys: AtomicI64,
    /// Bytes reckoned for all keys, values and tombstones.
    bytes: AtomicI64,
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Table {
            stripes,
            keys: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
        }
    }

    /// What is held for `key`, a tombstone included.
    pub fn read(&self, key: Key<'_>) -> Option<Entry> {
        let stripe = self.stripe(key.stripe());
        find(&stripe, key).map(Row::entry)
    }

    /// The version of what is held for `key`, a tombstone included.
    pub fn version(&self, key: Key<'_>) -> Option<i64> {
        let stripe = self.stripe(key.stripe());
        find(&stripe, key).map(Row::version)
    }

    /// Keeps `entry` unless one of the same or a larger version is held already; was it
    /// kept? Keys are of at most four gigabytes.
    pub fn apply(&self, key: Key<'_>, entry: Entry) -> bool {
        let row = Row::new(key, entry);
        let version = row.version();
        let mut stripe = self.stripe(key.stripe());
        self.count(&row, 1);
        let mut gone = stripe.replace(row);
        let is_late = gone.as_ref().is_some_and(|held| held.version() >= version);
        if is_late {
            // One search does for all entries but these: few, unless a page is copied again.
            gone = gone.and_then(|held| stripe.replace(held));
        }
        if let Some(gone) = gone {
            self.count(&gone, -1);
        }
        !is_late
    }

    /// By how many bytes the table would grow if `entry` were kept for `key`.
    pub fn growth(&self, key: Key<'_>, entry: &Entry) -> usize {
        let stripe = self.stripe(key.stripe());
        let held = find(&stripe, key).map_or(0, cost);
        reckoned(key, entry).saturating_sub(held)
    }

    /// The entries that are `wanted`, from `cursor` on: as many as are within
    /// `most_bytes` and within `most_looks` looked at, at least one. Stripes in which none
    /// `may_be` wanted, by the points of their keys, are passed over.
    pub fn page(
        &self,
        cursor: &Cursor,
        most_bytes: usize,
        most_looks: usize,
        may_be: impl Fn(RangeInclusive<u32>) -> bool,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Page {
        let mut page = Page::default();
        let (mut bytes, mut looks) = (0, 0);
        let mut after = cursor.after.clone();
        for number in cursor.stripe..STRIPES {
            let stripe = self.stripe(number);
            if stripe.is_empty() || !may_be(points_of(number)) {
                after = None;
                continue;
            }
            let after = after.take();
            let after = after.as_deref().map(|key| Row::wanted(Key::new(key)));
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows: &BTreeSet<Row<'_>> = &stripe;
            let mut last: Option<&Row<'_>> = None;
            for held in rows.range((from, Bound::Unbounded)) {
                if bytes >= most_bytes || looks >= most_looks {
                    let after = last.map(|last| last.key().bytes.into());
                    let stripe = number;
                    page.next = Some(Cursor { stripe, after });
                    return page;
                }
                looks += 1;
                let key = held.key();
                if wanted(key) {
                    bytes += cost(held);
                    page.entries.push((key.bytes.into(), held.entry()));
                }
                last = Some(held);
            }
        }
        page
    }

    /// Drops what `keep` does not want of one stripe, from 0 to [`STRIPES`] - 1;
    /// returns how many values went. It is told when a key was deleted, if it was, in
    /// milliseconds since 1970.
    pub fn sweep(&self, stripe: usize, keep: impl Fn(Key<'_>, Option<i64>) -> bool) -> usize {
        let mut dropped = 0;
        self.stripe(stripe).retain(|held| {
            let kept = keep(held.key(), held.deleted_at());
            if !kept {
                self.count(held, -1);
                dropped += usize::from(!held.is_tombstone());
            }
            kept
        });
        dropped
    }

    /// Counts the keys with a value that are `wanted`.
    pub fn count_keys(&self, wanted: impl Fn(Key<'_>) -> bool) -> usize {
        let is_counted = |held: &&Row<'_>| !held.is_tombstone() && wanted(held.key());
        let count = |stripe: &Stripe| stripe.iter().filter(is_counted).count();
        (0..STRIPES).map(|number| count(&self.stripe(number))).sum()
    }

    /// Keys with a value.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed).max(0) as usize
    }

    /// Bytes that the table takes, as well as can be reckoned.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed).max(0) as usize
    }

    fn count(&self, held: &Row<'_>, sign: i64) {
        self.bytes.fetch_add(sign * cost(held) as i64, Relaxed);
        self.keys
            .fetch_add(sign * i64::from(!held.is_tombstone()), Relaxed);
    }

    /// One stripe; the lock guards its keys and entries.
    fn stripe(&self, number: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The points of the keys of a stripe.
fn points_of(stripe: usize) -> RangeInclusive<u32> {
    let first = (stripe as u32) << 24;
    first..=first | 0x00ff_ffff
}

/// What a stripe holds for `key`.
fn find<'a>(stripe: &'a BTreeSet<Row<'a>>, key: Key<'a>) -> Option<&'a Row<'a>> {
    stripe.get(&Row::wanted(key))
}

/// The bytes that an entry is reckoned to take.
pub(super) fn reckoned(key: Key<'_>, entry: &Entry) -> usize {
    let value = entry.value.as_ref().map_or(0, |value| value.len());
    key.bytes.len() + value + OVERHEAD
}

fn cost(held: &Row<'_>) -> usize {
    held.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::versions::Value;

    fn entry(version: i64, value: &str) -> Entry {
        Entry {
            version,
            value: Some(value.as_bytes().to_vec().into()),
        }
    }

    #[test]
    fn the_larger_version_wins_in_any_order() {
        let table = Table::new();
        let key = Key::new(b"a");
        assert!(table.apply(key, entry(2, "new")));
        let counted = (table.keys(), table.bytes());
        assert!(!table.apply(key, entry(1, "older and longer")));
        assert!(!table.apply(key, entry(2, "again")));
        assert_eq!(table.read(key), Some(entry(2, "new")));
        assert_eq!((table.keys(), table.bytes()), counted);
        assert!(table.apply(
            key,
            Entry {
                version: 3,
                value: None
            }
        ));
        assert_eq!(
            (table.keys(), table.read(key).map(|held| held.version)),
            (0, Some(3))
        );
    }

    #[test]
    fn pages_cover_the_table_however_small_they_are() {
        let table = Table::new();
        let names: Vec<String> = (0..500).map(|i| format!("key{i}")).collect();
        for name in &names {
            table.apply(Key::new(name.as_bytes()), entry(1, "value"));
        }
        for (most_bytes, most_looks) in [
            (1, usize::MAX),
            (usize::MAX, 3),
            (1000, 100),
            (usize::MAX, usize::MAX),
        ] {
            let mut found = Vec::new();
            let mut cursor = Some(Cursor::default());
            while let Some(at) = cursor {
                let page = table.page(
                    &at,
                    most_bytes,
                    most_looks,
                    |_| true,
                    |key| key.bytes != b"key7",
                );
                found.extend(page.entries.into_iter().map(|(key, _)| key));
                cursor = page.next;
            }
            found.sort();
            found.dedup();
            assert_eq!(found.len(), names.len() - 1);
        }
    }

    #[test]
    fn keys_of_one_point_are_told_apart() {
        let table = Table::new();
        // Keys of 32 hexadecimal digits have the point that they say.
        let names: Vec<String> = (0..300).map(|i| format!("{:032x}", i)).collect();
        let keys: Vec<Key<'_>> = names.iter().map(|name| Key::new(name.as_bytes())).collect();
        assert!(keys.iter().all(|key| key.point == 0));
        for (version, key) in (1..).zip(&keys) {
            assert_eq!(table.read(*key), None);
            let value = Value::of(b"another key", b"value".to_vec());
            let value = Some(value);
            assert!(table.apply(*key, Entry { version, value }));
        }
        for (version, key) in (1..).zip(&keys) {
            assert_eq!(table.read(*key), Some(entry(version, "value")));
        }
        let mut found = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let page = table.page(&at, usize::MAX, 7, |_| true, |_| true);
            found.extend(page.entries.into_iter().map(|(key, _)| key));
            cursor = page.next;
        }
        assert_eq!(
            found,
            names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>()
        );
        let is_kept = |key: Key<'_>, _| key.bytes.ends_with(b"0");
        assert_eq!(table.sweep(0, is_kept), 300 - 19);
        assert_eq!(table.read(keys[16]), Some(entry(17, "value")));
        assert_eq!(table.read(keys[17]), None);
    }

    #[test]
    fn a_copy_goes_on_after_a_key_that_is_gone() {
        let table = Table::new();
        let names = ["00a0", "00B0", "00c0", "00D0"].map(|digits| format!("{digits:0<32}"));
        let keys = names.each_ref().map(|name| Key::new(name.as_bytes()));
        for key in keys {
            table.apply(key, entry(1, "value"));
        }
        let page = |cursor: &Cursor| table.page(cursor, usize::MAX, 2, |_| true, |_| true);
        let next = page(&Cursor::default()).next.unwrap();
        assert_eq!(
            next.after.as_deref(),
            Some(keys[1].bytes),
            "in the order of points"
        );
        table.sweep(0, |key, _| key != keys[1]);
        let rest = page(&next).entries;
        let rest: Vec<_> = rest.iter().map(|(key, _)| Key::new(key)).collect();
        assert_eq!(rest, keys[2..]);
    }

    #[test]
    fn the_table_grows_by_as_much_as_is_reckoned() {
        let table = Table::new();
        let key = Key::new(b"key");
        for (version, value) in [(1, "value"), (2, "a longer value"), (3, "short"), (4, "")] {
            let before = table.bytes();
            let growth = table.growth(key, &entry(version, value));
            table.apply(key, entry(version, value));
            assert_eq!(growth, table.bytes().saturating_sub(before), "{value}");
        }
        assert_eq!(table.bytes(), b"key".len() + OVERHEAD);
    }

    #[test]
    fn counts_follow_what_is_held() {
        let table = Table::new();
        for i in 0..100 {
            table.apply(Key::new(format!("key{i}").as_bytes()), entry(1, "value"));
        }
        assert_eq!((table.keys(), table.count_keys(|_| true)), (100, 100));
        let dropped: usize = (0..STRIPES)
            .map(|stripe| table.sweep(stripe, |_, _| false))
            .sum();
        assert_eq!((dropped, table.keys(), table.bytes()), (100, 0, 0));
    }
}
