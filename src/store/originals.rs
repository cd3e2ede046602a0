//! Nodes of the original in a store's network: spoken to in its own methods, never
//! counted as a copy, without any promise.
//!
//! They are on the ring, so keys belong to them too, and their own clients look for
//! these keys there. What belongs to one is put to it besides being kept by its
//! owners among ours, and is read from it first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use log::debug;

use super::operations::{Client, PEER_PATIENCE, Store};
use super::table::Cursor;
use super::versions::Entry;
use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::rpc::client::Caller;

/// The most bytes of keys and values looked up at once to be put.
const BATCH: usize = 1024 * 1024;

/// The version of what a node of the original holds: older than any of ours.
const UNVERSIONED: i64 = 1;

impl Store {
    /// What a node of the original holds for a key that belongs to it; nothing if it
    /// holds nothing or an empty value, or is not there. Blocks for one call.
    pub(super) fn fetch_from_original(&self, key: &[u8]) -> Option<Entry> {
        let peer = self.original_owner(key)?;
        let get = |p: &mut Client| p.get(key.to_vec());
        let caller = self.node.caller();
        let value = caller.call_within(PEER_PATIENCE, StoreSyncClient::new, &peer, get);
        let value = value.ok()?;
        let entry = Entry {
            version: UNVERSIONED,
            value: Some(value.into()),
        };
        entry
            .value
            .as_ref()
            .is_some_and(|value| !value.is_empty())
            .then_some(entry)
    }

    /// Puts a key that belongs to a node of the original to it. Blocks for one call.
    pub(super) fn put_through_to_original(&self, key: &[u8], value: &[u8]) {
        if let Some(peer) = self.original_owner(key) {
            put(self.node.caller(), &peer, key, value);
        }
    }

    /// Puts to nodes of the original what belongs to them, if the ring is another one
    /// than `known`, which becomes the ring that it is.
    pub(super) fn greet_originals(&self, known: &mut Arc<HashRing<Location>>) {
        let ring = self.node.ring();
        if self.node.has_originals() && !Arc::ptr_eq(&ring, known) {
            self.put_to_originals();
        }
        *known = ring;
    }

    /// Puts to every node of the original what belongs to it and is for this node to
    /// give: the keys whose primary it is, or, when none of ours is left, all.
    pub(super) fn put_to_originals(&self) {
        for original in self.node.originals() {
            if let Err(e) = self.put_all_to(&original) {
                debug!("{e}");
            }
        }
    }

    /// Stops at the first failure: a node that does not answer is not asked for each key.
    fn put_all_to(&self, original: &Location) -> Result<(), Error> {
        let ring = self.node.ring();
        let (current, me) = {
            let moves = self.moves();
            (moves.current().clone(), moves.me().clone())
        };
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor.filter(|_| !self.stopped.load(Relaxed)) {
            let page = self.table.page(
                &at,
                BATCH,
                usize::MAX,
                |_| true,
                |key| {
                    let is_its = ring.owner_of(key.point) == Some(original);
                    is_its && current.primary(key).is_none_or(|primary| primary == me)
                },
            );
            for (key, entry) in &page.entries {
                if let Some(value) = &entry.value {
                    let send = |p: &mut Client| p.put(key.clone(), value.to_vec());
                    let caller = self.node.caller();
                    caller.call_within(PEER_PATIENCE, StoreSyncClient::new, original, send)?;
                }
            }
            cursor = page.next;
        }
        Ok(())
    }

    /// The key's owner on the ring, if that is a node of the original.
    fn original_owner(&self, key: &[u8]) -> Option<Location> {
        if !self.node.has_originals() {
            return None;
        }
        let owner = self.node.ring().owner(key).cloned()?;
        self.node.is_original(&owner).then_some(owner)
    }
}

fn put(caller: &Caller, peer: &Location, key: &[u8], value: &[u8]) {
    let put = |p: &mut Client| p.put(key.to_vec(), value.to_vec());
    if let Err(e) = caller.call_within(PEER_PATIENCE, StoreSyncClient::new, peer, put) {
        debug!("{e}");
    }
}
