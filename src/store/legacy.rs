//! Legacy nodes (of the original) in a store's network: called by its own methods, never
//! counted as a copy, without any promise.
//!
//! They are on the ring, so keys belong to them too, and their clients look for these keys
//! there. A key that belongs to one is put to it in addition to its owners among ours, and is
//! read from it first.

use log::debug;

use super::placement::Key;
use super::store::Store;
use super::table::Cursor;
use super::types::{Client, PEER_TIMEOUTS};
use super::versions::Entry;
use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;

/// The most bytes of keys and values of one page.
const PAGE: usize = 1024 * 1024;

/// The version of what a legacy node holds: older than any of ours.
const UNVERSIONED: i64 = 1;

impl Store {
    /// What a legacy node holds for a key that belongs to it. None if it holds nothing or an
    /// empty value, or does not reply. Blocks for one call.
    pub(super) fn fetch_from_legacy(&self, key: Key<'_>) -> Option<Entry> {
        let peer = self.legacy_owner(key)?;
        let value = self.call_legacy(&peer, |peer| peer.get(key.bytes.to_vec()));
        let value = value.ok().filter(|value| !value.is_empty())?;
        Some(Entry {
            version: UNVERSIONED,
            value: Some(value.into()),
        })
    }

    /// Puts a key that belongs to a legacy node to it. Blocks for one call.
    pub(super) fn put_to_legacy_owner(&self, key: Key<'_>, value: &[u8]) {
        if let Some(peer) = self.legacy_owner(key)
            && let Err(e) = self.put(&peer, key.bytes, value)
        {
            debug!("{e}");
        }
    }

    /// Puts to every legacy node the keys that belong to it and are this node's to give: those
    /// whose primary it is or, when none of our nodes is left, all.
    pub(super) fn put_to_legacy(&self) {
        for peer in self.node.legacy_nodes() {
            if let Err(e) = self.put_all_to(&peer) {
                debug!("{e}");
            }
        }
    }

    /// Stops at the first failure: a node that does not reply is not tried for each key.
    fn put_all_to(&self, peer: &Location) -> Result<(), Error> {
        let ring = self.node.ring();
        let routing = self.routing().clone();
        let (current, me) = (routing.current(), routing.me());
        let is_for_peer = |key: Key<'_>| {
            let belongs = ring.owner_at(key.point) == Some(peer);
            belongs && current.primary(key).is_none_or(|primary| primary == me)
        };
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor.filter(|_| !self.is_stopped()) {
            let page = self
                .table
                .page(&at, PAGE, usize::MAX, |_| true, is_for_peer);
            for (key, entry) in &page.entries {
                if let Some(value) = &entry.value {
                    self.put(peer, key, value)?;
                }
            }
            cursor = page.next;
        }
        Ok(())
    }

    /// The key's owner on the ring, if that is a legacy node.
    fn legacy_owner(&self, key: Key<'_>) -> Option<Location> {
        if !self.node.has_legacy() {
            return None;
        }
        let owner = self.node.ring().owner_at(key.point).cloned()?;
        self.node.is_legacy(&owner).then_some(owner)
    }

    fn put(&self, peer: &Location, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.call_legacy(peer, |peer| peer.put(key.to_vec(), value.to_vec()))
    }

    fn call_legacy<T>(
        &self,
        peer: &Location,
        body: impl FnOnce(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let dialer = self.node.dialer();
        dialer.call_with_timeouts(PEER_TIMEOUTS, StoreSyncClient::new, peer, body)
    }
}
