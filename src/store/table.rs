//! `Table`: the keys that one node holds, in memory, shared by threads.
//!
//! Keys are divided into stripes by the top bits of their points on the ring. Each stripe has
//! a lock, which is held for one look-up or for one bounded scan. Within a stripe, keys are
//! ordered by their points, then by their bytes, so a copy can resume after the last key it
//! received, whatever has changed meanwhile.
//!
//! A copy that a primary sends is *unfinished* at first: it must not be read before the write is
//! finished (`unfinished_copies`).
//!
//! A key and its value are one allocation. With its share of the tree's nodes a small key
//! costs about 100 bytes beyond its own.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use super::placement::Key;
use super::versions::{Entry, Value, written_at};

/// Stripes of a table: enough that threads rarely meet in one, few enough that an empty
/// table is small.
pub const STRIPES: usize = 256;

/// Estimated bytes of a key beyond itself and its value.
const OVERHEAD: usize = 100;

/// The most bytes of one page for another node or a client.
pub(super) const PAGE: usize = 1024 * 1024;

/// The same while clients keep the source busy: copying it takes about a millisecond.
pub(super) const SMALL_PAGE: usize = 128 * 1024;

/// The most keys scanned for such a page, so that it does not take long.
pub(super) const SCAN_LIMIT: usize = 50_000;

/// The most keys that are counted one by one. Of more, one stripe in sixteen is counted.
const COUNTED: usize = 50_000;
const SAMPLED: usize = 16;

/// The most keys scanned while one stripe is locked: about 50 µs.
const LOCKED_SCAN: usize = 512;

/// The parts of a stripe, by points, that two nodes compare.
pub const BUCKETS: usize = 256;

/// Where the copy of a table resumes: after this key of this stripe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The stripe to scan next.
    pub stripe: usize,
    /// The last key scanned in it, if any.
    pub after: Option<Vec<u8>>,
}

/// Some entries of a table, and where to continue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys with their entries.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// The keys and versions of those that are not finished.
    pub unfinished: Vec<(Vec<u8>, i64)>,
    /// Buckets of the stripe without entries here, because the puller has the same.
    pub same: Vec<usize>,
    /// Where the next page starts. None after the last one.
    pub next: Option<Cursor>,
}

/// What a table has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The entry, which may be a tombstone.
    pub entry: Entry,
    /// It may be read: it is no copy of a write that is not finished.
    pub is_finished: bool,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The table has it now.
    Kept,
    /// The table had it already, and this says whether it is finished.
    Known(bool),
    /// The table has this larger version.
    Older(i64),
}

/// A tombstone, as a sweep sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// When the key was deleted, in milliseconds since 1970 by the clock of the primary.
    pub deleted_at: i64,
    /// How many sweeps that count the age have passed it.
    pub age: u8,
}

/// The keys that one node holds. Methods may be called from any thread; none holds a lock for
/// more than a bounded scan of one stripe.
#[derive(Debug)]
pub struct Table {
    stripes: Vec<Mutex<Stripe>>,
    /// Keys with a value.
    keys: AtomicI64,
    tombstones: AtomicI64,
    /// Estimated bytes of all keys, values and tombstones.
    bytes: AtomicI64,
}

type Stripe = BTreeSet<Row<'static>>;

impl Default for Table {
    fn default() -> Table {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Table {
            stripes,
            keys: AtomicI64::new(0),
            tombstones: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
        }
    }
}

impl Table {
    /// The entry of `key`, which may be a tombstone or unfinished.
    pub fn read(&self, key: Key<'_>) -> Option<Entry> {
        self.look_up(key).map(|held| held.entry)
    }

    /// What the table has for `key`.
    pub fn look_up(&self, key: Key<'_>) -> Option<Held> {
        find(&self.stripe(stripe_of(key)), key).map(|row| Held {
            entry: row.entry(),
            is_finished: !row.is_unfinished.get(),
        })
    }

    /// The version of the entry of `key`, which may be a tombstone.
    pub fn version(&self, key: Key<'_>) -> Option<i64> {
        find(&self.stripe(stripe_of(key)), key).map(|row| row.version)
    }

    /// Keeps a finished `entry` unless the table has the same or a larger version. Returns whether
    /// it was kept. A key has at most 4 GiB.
    pub fn apply(&self, key: Key<'_>, entry: Entry) -> bool {
        let version = entry.version;
        let applied = self.apply_row(Row::new(key, entry));
        if applied == Applied::Known(false) {
            self.finish(key, version);
        }
        applied == Applied::Kept
    }

    /// Keeps a copy, which is unfinished, unless the table has the same or a larger version.
    pub fn apply_copy(&self, key: Key<'_>, entry: Entry) -> Applied {
        let row = Row::new(key, entry);
        row.is_unfinished.set(true);
        self.apply_row(row)
    }

    fn apply_row(&self, row: Row<'static>) -> Applied {
        let mut stripe = self.stripe(stripe_at(row.point));
        if let Some(held) = stripe.get(&row)
            && held.version >= row.version
        {
            return match held.version == row.version {
                true => Applied::Known(!held.is_unfinished.get()),
                false => Applied::Older(held.version),
            };
        }
        self.add(&row, 1);
        if let Some(replaced) = stripe.replace(row) {
            self.add(&replaced, -1);
        }
        Applied::Kept
    }

    /// The write of that version is finished: it may be read, if the table still has it.
    pub fn finish(&self, key: Key<'_>, version: i64) {
        let stripe = self.stripe(stripe_of(key));
        if let Some(row) = find(&stripe, key)
            && row.version == version
        {
            row.is_unfinished.set(false);
        }
    }

    /// How many bytes the table would grow by if `entry` were kept for `key`.
    pub fn growth(&self, key: Key<'_>, entry: &Entry) -> usize {
        let held = find(&self.stripe(stripe_of(key)), key).map_or(0, Row::size);
        estimated_size(key, entry).saturating_sub(held)
    }

    /// The entries that `wanted` selects, from `cursor` on: at least one row is scanned, then
    /// as many as `max_bytes` of entries and `max_scanned` rows allow. Stripes for which
    /// `may_be_wanted` is false, by the points of their keys, are skipped.
    pub fn page(
        &self,
        cursor: &Cursor,
        max_bytes: usize,
        max_scanned: usize,
        may_be_wanted: impl Fn(RangeInclusive<u32>) -> bool,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Page {
        let limits = (max_bytes, max_scanned, STRIPES);
        self.page_until(cursor, limits, may_be_wanted, wanted)
    }

    /// [`page`](Table::page) that ends before a stripe.
    pub fn page_until(
        &self,
        cursor: &Cursor,
        (max_bytes, max_scanned, end): (usize, usize, usize),
        may_be_wanted: impl Fn(RangeInclusive<u32>) -> bool,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Page {
        let mut page = Page::default();
        let (mut bytes, mut scanned) = (0, 0);
        page.next = self.walk(cursor, end, may_be_wanted, |row| {
            scanned += 1;
            if wanted(row.key()) {
                bytes += row.size();
                page.entries.push((row.key().bytes.into(), row.entry()));
                if row.is_unfinished.get() {
                    page.unfinished.push((row.key().bytes.into(), row.version));
                }
            }
            bytes < max_bytes && scanned < max_scanned
        });
        page
    }

    /// Visits the rows from `cursor` on and before the stripe `end`, in short parts, as long as
    /// `visit` returns true. Returns where to continue. Stripes for which `may_be_wanted` is false,
    /// by the points of their keys, are skipped. `visit` is called while the stripe is locked, and
    /// must be quick.
    pub(super) fn walk(
        &self,
        cursor: &Cursor,
        end: usize,
        may_be_wanted: impl Fn(RangeInclusive<u32>) -> bool,
        mut visit: impl FnMut(&Row<'_>) -> bool,
    ) -> Option<Cursor> {
        let mut next = Some(cursor.clone());
        let mut goes_on = true;
        while let Some(at) = next.take_if(|at| at.stripe < end && goes_on) {
            if at.after.is_none() && !may_be_wanted(points_of(at.stripe)) {
                next = next_stripe(at.stripe);
                continue;
            }
            let stripe = self.stripe(at.stripe);
            let mut last = None;
            for row in rows_after(&stripe, at.after.as_deref()).take(LOCKED_SCAN) {
                last = Some(row);
                goes_on = visit(row);
                if !goes_on {
                    break;
                }
            }
            next = match last {
                Some(row) => Some(Cursor {
                    stripe: at.stripe,
                    after: Some(row.key().bytes.into()),
                }),
                None => next_stripe(at.stripe),
            };
        }
        next
    }

    /// For each bucket of a stripe, a digest of the rows in it that `wanted` selects. Those of two
    /// nodes are equal if they have the same finished versions of the same points.
    pub fn digests(&self, stripe: usize, wanted: impl Fn(Key<'_>) -> bool) -> Vec<u64> {
        let mut digests = vec![0_u64; BUCKETS];
        self.each_row(stripe, |row| {
            if wanted(row.key()) {
                let version = row.version ^ -i64::from(row.is_unfinished.get());
                let digest = mix(version as u64 ^ mix(row.point.into()));
                let sum = &mut digests[bucket_of(row.point)];
                *sum = sum.wrapping_add(digest);
            }
        });
        digests
    }

    /// The keys and entries of one stripe that `wanted` selects.
    pub fn rows_of(
        &self,
        stripe: usize,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Vec<(Vec<u8>, Entry)> {
        let mut rows = Vec::new();
        self.each_row(stripe, |row| {
            if wanted(row.key()) {
                rows.push((row.key().bytes.to_vec(), row.entry()));
            }
        });
        rows
    }

    /// Takes the rows of another table over, where they are newer.
    #[allow(clippy::mutable_key_type)]
    pub fn absorb(&self, other: &Table) {
        for stripe in &other.stripes {
            let rows = std::mem::take(&mut *stripe.lock());
            rows.into_iter().for_each(|row| {
                self.apply_row(row);
            });
        }
    }

    /// Visits the rows of a stripe, in short parts.
    fn each_row(&self, stripe: usize, mut visit: impl FnMut(&Row<'_>)) {
        let after = None;
        let visit = |row: &Row<'_>| {
            visit(row);
            true
        };
        self.walk(&Cursor { stripe, after }, stripe + 1, |_| true, visit);
    }

    /// Drops rows of one stripe, from 0 to [`STRIPES`] - 1, that `keep` rejects. Returns how
    /// many values were dropped, or None if `may_drop` was false before the end.
    ///
    /// Copies that are not finished stay: if their coordinator dies, only they may be left of what
    /// it wrote.
    ///
    /// Tombstones become older by one if the sweep `counts_age`. `may_drop` is called while the
    /// stripe is locked, before each part of it: no entry can be added between its answer and
    /// the drop. `may_drop` and `keep` must be quick.
    pub fn sweep(
        &self,
        stripe: usize,
        counts_age: bool,
        may_drop: impl Fn() -> bool,
        keep: impl Fn(Key<'_>, Option<Tombstone>) -> bool,
    ) -> Option<usize> {
        let mut dropped = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut locked = self.stripe(stripe);
            if !may_drop() {
                return None;
            }
            let (mut last, mut rejected) = (None, Vec::new());
            for row in rows_after(&locked, after.as_deref()).take(LOCKED_SCAN) {
                last = Some(row.key().bytes);
                row.age.set(row.age.get().saturating_add(counts_age.into()));
                if !row.is_unfinished.get() && !keep(row.key(), row.tombstone()) {
                    rejected.push(Row::new(row.key(), Entry::default()));
                }
            }
            after = last.map(<[u8]>::to_vec);
            for wanted in &rejected {
                if let Some(row) = locked.take(wanted) {
                    self.add(&row, -1);
                    dropped += usize::from(!row.is_tombstone);
                }
            }
            if after.is_none() {
                return Some(dropped);
            }
        }
    }

    /// How many keys with a value `wanted` selects. In a large table that is estimated from every
    /// sixteenth stripe, so that the question does not walk through all keys.
    pub fn count(&self, wanted: impl Fn(Key<'_>) -> bool) -> usize {
        let step = if self.keys() > COUNTED { SAMPLED } else { 1 };
        let stripes = (0..STRIPES).step_by(step);
        let counted: usize = stripes.map(|at| self.count_stripe(at, &wanted)).sum();
        counted * step
    }

    fn count_stripe(&self, stripe: usize, wanted: &impl Fn(Key<'_>) -> bool) -> usize {
        let mut count = 0;
        self.each_row(stripe, |row| {
            count += usize::from(!row.is_tombstone && wanted(row.key()));
        });
        count
    }

    /// Keys with a value.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed).max(0) as usize
    }

    /// Deleted keys that are remembered.
    pub fn tombstones(&self) -> usize {
        self.tombstones.load(Relaxed).max(0) as usize
    }

    /// The estimated bytes of the table.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed).max(0) as usize
    }

    /// Adds a row to the totals, or with the sign -1 subtracts it.
    fn add(&self, row: &Row<'_>, sign: i64) {
        self.bytes.fetch_add(sign * row.size() as i64, Relaxed);
        let count = if row.is_tombstone {
            &self.tombstones
        } else {
            &self.keys
        };
        count.fetch_add(sign, Relaxed);
    }

    /// One stripe. Its lock guards its rows and is held for a bounded scan at most.
    fn stripe(&self, number: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[number].lock()
    }
}

#[allow(clippy::mutable_key_type)] // Rows are ordered by their keys, which do not change.
fn find<'a>(rows: &'a BTreeSet<Row<'a>>, key: Key<'a>) -> Option<&'a Row<'a>> {
    rows.get(&Row::wanted(key))
}

/// The rows after that key, or all.
#[allow(clippy::mutable_key_type)]
fn rows_after<'a>(
    rows: &'a BTreeSet<Row<'a>>,
    key: Option<&'a [u8]>,
) -> impl Iterator<Item = &'a Row<'a>> {
    let after = key.map(|key| Row::wanted(Key::new(key)));
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    rows.range((start, Bound::Unbounded))
}

/// The stripe of a key, from 0 to [`STRIPES`] - 1.
pub fn stripe_of(key: Key<'_>) -> usize {
    stripe_at(key.point)
}

/// The stripe of the keys at a point.
pub fn stripe_at(point: u32) -> usize {
    (point >> 24) as usize
}

/// The bucket of its stripe of the keys at a point.
pub fn bucket_of(point: u32) -> usize {
    (point >> 16) as usize % BUCKETS
}

/// Spreads a number over all bits, always in the same way: the finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The points of the keys of a stripe.
fn points_of(stripe: usize) -> RangeInclusive<u32> {
    let first = (stripe as u32) << 24;
    first..=first | 0x00ff_ffff
}

fn next_stripe(stripe: usize) -> Option<Cursor> {
    let after = None;
    let stripe = stripe + 1;
    (stripe < STRIPES).then_some(Cursor { stripe, after })
}

/// The estimated bytes of an entry in a table.
fn estimated_size(key: Key<'_>, entry: &Entry) -> usize {
    key.bytes.len() + entry.value_len() + OVERHEAD
}

/// A key with its entry in one allocation, or a key alone to search by. Rows are ordered like
/// their keys: most comparisons are decided by the points, without reading the bytes.
#[derive(Debug)]
pub(super) struct Row<'a> {
    point: u32,
    pub version: i64,
    pub is_tombstone: bool,
    is_unfinished: Cell<bool>,
    /// Sweeps that count the age and have passed the row.
    age: Cell<u8>,
    bytes: Bytes<'a>,
}

#[derive(Debug)]
enum Bytes<'a> {
    /// A key of that length, followed by the value.
    Stored(Arc<[u8]>, u32),
    /// A key to search by.
    Wanted(&'a [u8]),
}

impl<'a> Row<'a> {
    /// The entry of a key of at most 4 GiB.
    fn new(key: Key<'_>, entry: Entry) -> Row<'a> {
        let Entry { version, value } = entry;
        let is_tombstone = value.is_none();
        let key_and_value = match value {
            Some(value) => value.with_key(key.bytes).into_key_and_value(),
            None => key.bytes.into(),
        };
        Row {
            point: key.point,
            version,
            is_tombstone,
            is_unfinished: Cell::new(false),
            age: Cell::new(0),
            bytes: Bytes::Stored(key_and_value, key.bytes.len() as u32),
        }
    }

    /// Searches for the row of that key.
    fn wanted(key: Key<'a>) -> Row<'a> {
        Row {
            point: key.point,
            version: 0,
            is_tombstone: true,
            is_unfinished: Cell::new(false),
            age: Cell::new(0),
            bytes: Bytes::Wanted(key.bytes),
        }
    }

    pub fn key(&self) -> Key<'_> {
        let bytes = match &self.bytes {
            Bytes::Stored(key_and_value, length) => &key_and_value[..*length as usize],
            Bytes::Wanted(bytes) => bytes,
        };
        let point = self.point;
        Key { bytes, point }
    }

    fn entry(&self) -> Entry {
        let value = match &self.bytes {
            Bytes::Stored(key_and_value, length) if !self.is_tombstone => {
                Some(Value::from_parts(key_and_value.clone(), *length as usize))
            }
            _ => None,
        };
        Entry {
            version: self.version,
            value,
        }
    }

    fn tombstone(&self) -> Option<Tombstone> {
        self.is_tombstone.then(|| Tombstone {
            deleted_at: written_at(self.version),
            age: self.age.get(),
        })
    }

    /// Its write is finished: it may be read.
    pub fn is_finished(&self) -> bool {
        !self.is_unfinished.get()
    }

    /// The bytes of the value.
    pub fn value_len(&self) -> usize {
        self.size() - OVERHEAD - self.key().bytes.len()
    }

    /// The estimated bytes in a table.
    fn size(&self) -> usize {
        let length = match &self.bytes {
            Bytes::Stored(key_and_value, _) => key_and_value.len(),
            Bytes::Wanted(bytes) => bytes.len(),
        };
        length + OVERHEAD
    }
}

impl Ord for Row<'_> {
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

#[cfg(test)]
mod tests;
