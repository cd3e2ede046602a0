//! Listing: the keys of a store that start with a prefix, in the order of their bytes.
//!
//! A table is ordered by hashes, so no node can look up the next key. A page of a listing is found
//! by a scan of all keys of all members ([`NetworkScan`]), from which the one who asks keeps the
//! smallest keys from the cursor on, as many as the page may have. Members are told where the page
//! ends so far, and leave out what lies beyond.
//!
//! So a node holds nothing between two pages, a key costs nothing until somebody lists it, and the
//! memory is bounded by the page. The price: a page of any size takes a walk through all keys. An
//! index in the order of bytes would make pages cheap, but every small key a third larger and
//! every write slower; snapshots of listings would have to be bounded in number, size and time.
//! `storelist` reads two million keys at a time, so most stores are walked once.
//!
//! A cursor is a key, the first one that may be in the next page. Pages are disjoint, and each has
//! every key of its part that had a value during the scan. So a key that has one all the while is
//! listed exactly once.

use std::time::Instant;

use log::debug;

use super::network_scan::{Network, NetworkScan, Part};
use super::placement::{Key, Placement};
use super::store::Store;
use super::table::{Cursor, PAGE, Row, SCAN_LIMIT, STRIPES, stripe_of};
use super::types::{Client, Refusal};
use crate::diststore::{self as wire, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;

/// The most keys in a page of a node: the longest list in a message.
pub const MAX_PAGE_KEYS: usize = 65_536;

/// The most bytes of keys in it, with [`OVERHEAD`] each.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The bytes of a listed key beyond its own.
const OVERHEAD: usize = 40;

/// A key that has a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedKey {
    /// The key.
    pub key: Vec<u8>,
    /// The size of the value.
    pub bytes: u64,
    /// The version of the value.
    pub version: i64,
}

/// Keys in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<ListedKey>,
    /// Where the next page starts. None after the last one.
    pub cursor: Option<Vec<u8>>,
}

/// The smallest keys seen so far, as many as a page may have.
struct Selection {
    keys: Vec<ListedKey>,
    max_keys: usize,
    max_bytes: usize,
    /// The smallest key that was left out.
    end: Option<Vec<u8>>,
}

impl Selection {
    fn add(&mut self, keys: Vec<ListedKey>) {
        let is_before_end = |key: &ListedKey| self.end.as_ref().is_none_or(|end| key.key < *end);
        self.keys.extend(keys.into_iter().filter(is_before_end));
        if self.keys.len() > self.max_keys {
            self.keys.select_nth_unstable(self.max_keys);
            self.end_at(self.max_keys);
        }
        if self.fitting() < self.keys.len() {
            self.keys.sort_unstable();
            self.end_at(self.fitting().max(1));
        }
    }

    /// How many of the first keys fit the bytes.
    fn fitting(&self) -> usize {
        let mut bytes = 0;
        let fits = |key: &&ListedKey| {
            bytes += key.key.len() + OVERHEAD;
            bytes <= self.max_bytes
        };
        self.keys.iter().take_while(fits).count()
    }

    /// Leaves out the keys from this index on, of which the first one is the smallest.
    fn end_at(&mut self, index: usize) {
        if let Some(first) = self.keys.get(index) {
            self.end = Some(first.key.clone());
        }
        self.keys.truncate(index);
    }
}

/// Lists the keys with that prefix from `cursor` on: the first ones, at most `max_keys` and
/// `max_bytes` of them, but at least one. `deadline` tells until when each step must be done. Blocks.
///
/// # Errors
/// As for [`NetworkScan::next_chunk`].
pub(crate) fn list(
    network: &impl Network,
    (prefix, cursor): (&[u8], &[u8]),
    (max_keys, max_bytes): (usize, usize),
    deadline: impl Fn() -> Instant,
) -> Result<KeyPage, Error> {
    let mut selection = Selection {
        keys: Vec::new(),
        max_keys: max_keys.max(1),
        max_bytes,
        end: None,
    };
    let mut scan = NetworkScan::new(network);
    loop {
        let range = key_range(prefix, cursor, selection.end.clone());
        let read = |node: &mut Client, placement_id, cursor: &wire::Cursor| {
            let mut scanned = node.scan_keys(placement_id, cursor.clone(), range.clone(), false)?;
            let keys = from_wire(scanned.keys.take())?;
            let counts = counts(cursor, &mut scanned);
            if counts.iter().map(|(_, count)| count).sum::<u64>() != keys.len() as u64 {
                return Err("another number of keys than of their stripes".into());
            }
            let repeated = |(stripe, count): (usize, u64)| (0..count).map(move |_| stripe);
            let stripes = counts.into_iter().flat_map(repeated);
            Ok(part(stripes.zip(keys).collect(), scanned))
        };
        match scan.next_chunk(deadline(), read)? {
            Some(chunk) => selection.add(chunk.items),
            None => break,
        }
    }
    let Selection { mut keys, end, .. } = selection;
    keys.sort_unstable();
    Ok(KeyPage { keys, cursor: end })
}

/// The number of keys with that prefix. Otherwise as [`list`].
pub(crate) fn count(
    network: &impl Network,
    prefix: &[u8],
    deadline: impl Fn() -> Instant,
) -> Result<u64, Error> {
    let (range, mut total) = (key_range(prefix, b"", None), 0);
    let read = |node: &mut Client, placement_id, cursor: &wire::Cursor| {
        let mut scanned = node.scan_keys(placement_id, cursor.clone(), range.clone(), true)?;
        Ok(part(counts(cursor, &mut scanned), scanned))
    };
    let mut scan = NetworkScan::new(network);
    while let Some(chunk) = scan.next_chunk(deadline(), read)? {
        total += chunk.items.iter().sum::<u64>();
    }
    Ok(total)
}

fn key_range(prefix: &[u8], first: &[u8], until: Option<Vec<u8>>) -> wire::KeyRange {
    wire::KeyRange::new(prefix.to_vec(), first.to_vec(), until)
}

/// The number of keys of each stripe that was scanned.
fn counts(cursor: &wire::Cursor, scanned: &mut wire::ScannedKeys) -> Vec<(usize, u64)> {
    let counts = scanned.counts.take().unwrap_or_default().into_iter();
    let first = cursor.stripe.unwrap_or(0) as usize;
    (first..)
        .zip(counts.map(|count| count.max(0) as u64))
        .collect()
}

fn part<T>(items: Vec<(usize, T)>, scanned: wire::ScannedKeys) -> Part<T> {
    Part {
        items,
        next_page: scanned.next_page,
        is_busy: scanned.busy.unwrap_or(false),
    }
}

/// The keys of a reply.
///
/// # Errors
/// One of them is missing.
fn from_wire(keys: Option<Vec<wire::ListedKey>>) -> thrift::Result<Vec<ListedKey>> {
    let key = |listed: wire::ListedKey| {
        Ok(ListedKey {
            key: listed.key.ok_or("a listed key without its bytes")?,
            bytes: listed.bytes.unwrap_or(0) as u64,
            version: listed.version.unwrap_or(0),
        })
    };
    keys.unwrap_or_default().into_iter().map(key).collect()
}

impl From<KeyPage> for wire::KeyPage {
    fn from(page: KeyPage) -> wire::KeyPage {
        let key = |listed: ListedKey| {
            wire::ListedKey::new(listed.key, listed.bytes as i64, listed.version)
        };
        let keys: Vec<wire::ListedKey> = page.keys.into_iter().map(key).collect();
        wire::KeyPage::new(keys, page.cursor)
    }
}

impl TryFrom<wire::KeyPage> for KeyPage {
    type Error = thrift::Error;

    fn try_from(page: wire::KeyPage) -> thrift::Result<KeyPage> {
        let keys = from_wire(page.keys)?;
        Ok(KeyPage {
            keys,
            cursor: page.cursor,
        })
    }
}

impl Network for Store {
    fn placement(&self) -> Placement {
        Placement::clone(self.routing().current())
    }

    fn call<T>(
        &self,
        member: &Location,
        body: impl Fn(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.peers.call(member, body)
    }

    fn on_wait(&self, why: &Error) {
        debug!("a listing waits: {why}");
    }
}

impl Store {
    /// A page of the keys of the network with that prefix, from `cursor` on. Blocks for some ten
    /// seconds at most.
    ///
    /// # Errors
    /// The limit is not positive; another listing takes long; a member does not answer in time.
    pub fn list_keys(&self, prefix: &[u8], cursor: &[u8], limit: i32) -> Result<KeyPage, Refusal> {
        self.check_quorum()?;
        let max_keys = usize::try_from(limit).unwrap_or(0).min(MAX_PAGE_KEYS);
        if max_keys == 0 {
            return Err(format!("a page of {limit} keys; at least 1 must fit it"));
        }
        let deadline = Store::deadline();
        let permit = self.listing.try_lock_until(deadline);
        let _permit = permit.ok_or("this node lists keys for others: ask again")?;
        let limits = (max_keys, MAX_PAGE_BYTES);
        list(self, (prefix, cursor), limits, || deadline).map_err(|e| e.to_string())
    }

    /// Keys of that range whose primary this node is in that placement, or only their numbers.
    ///
    /// # Errors
    /// This node is not settled in that placement; writes of some of the keys are not finished.
    pub(super) fn scan_keys(
        &self,
        placement_id: u64,
        cursor: &Cursor,
        range: &wire::KeyRange,
        counts_only: bool,
    ) -> Result<wire::ScannedKeys, Refusal> {
        let routing = self.settled_in(placement_id)?;
        let (current, me) = (routing.current(), routing.me());
        let is_busy = self.throttle.is_busy(Instant::now());
        // While clients keep the node busy, one stripe: a millisecond for a million keys.
        let end = if is_busy { cursor.stripe + 1 } else { STRIPES };
        let prefix = range.prefix.as_deref().unwrap_or_default();
        let first = range.first.as_deref().unwrap_or_default();
        let is_wanted = |key: Key<'_>| {
            let is_before_end = range.limit.as_deref().is_none_or(|end| key.bytes < end);
            let is_in_range = key.bytes.starts_with(prefix) && key.bytes >= first && is_before_end;
            is_in_range && current.is_primary(me, key)
        };
        let (mut keys, mut counts, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut scanned) = (0, 0);
        let visit = |row: &Row<'_>| {
            let (key, is_finished) = (row.key(), row.is_finished());
            scanned += 1;
            let is_deleted = row.is_tombstone && is_finished;
            let is_wanted = !is_deleted && is_wanted(key);
            if is_wanted && !is_finished {
                unfinished.push((key.bytes.to_vec(), row.version));
            } else if is_wanted {
                let stripe = stripe_of(key) - cursor.stripe;
                counts.resize(stripe + 1, 0);
                counts[stripe] += 1;
                if !counts_only {
                    let (key, value) = (key.bytes.to_vec(), row.value_len() as i64);
                    bytes += key.len() + OVERHEAD;
                    keys.push(wire::ListedKey::new(key, value, row.version));
                }
            }
            bytes < PAGE && scanned < SCAN_LIMIT
        };
        let next = self.table.walk(cursor, end, |_| true, visit);
        // Keys are dropped only after the placement has changed.
        self.settled_in(placement_id)?;
        if !unfinished.is_empty() {
            // Whether they have a value is known when they are finished.
            self.are_finished(&unfinished);
            return Err("writes of some of the keys are not finished: ask again".into());
        }
        let next_page = next.as_ref().map(wire::Cursor::from);
        Ok(wire::ScannedKeys::new(keys, counts, next_page, is_busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: impl IntoIterator<Item = &'static str>) -> Vec<ListedKey> {
        let key = |name: &str| ListedKey {
            key: name.into(),
            bytes: 1,
            version: 1,
        };
        names.into_iter().map(key).collect()
    }

    fn select(max_keys: usize, max_bytes: usize) -> (Vec<ListedKey>, Option<Vec<u8>>) {
        let mut selection = Selection {
            keys: Vec::new(),
            max_keys,
            max_bytes,
            end: None,
        };
        for chunk in [["f", "b"], ["a", "e"], ["d", "c"]] {
            selection.add(keys(chunk));
        }
        selection.keys.sort_unstable();
        (selection.keys, selection.end)
    }

    #[test]
    fn a_page_has_the_smallest_keys_that_fit_and_ends_before_the_next_one() {
        let all = ["a", "b", "c", "d", "e", "f"];
        let end = |index: usize| all.get(index).map(|key| key.as_bytes().to_vec());
        for count in 1..=7 {
            let some = keys(all.into_iter().take(count));
            assert_eq!(select(count, usize::MAX), (some.clone(), end(count)));
            let bytes = count * (OVERHEAD + 1);
            assert_eq!(select(usize::MAX, bytes), (some, end(count)));
        }
        assert_eq!(select(1, 0), (keys(["a"]), end(1)), "one key always fits");
    }
}
