//! Reading keys: from this node's table, or from another owner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use super::placement::{Key, NodeId};
use super::rebalance::{ReadRoute, Routing, Rule};
use super::remote_read::{ReadReply, ReadRequest};
use super::store::Store;
use super::table::{Cursor, PAGE, Page, SCAN_LIMIT};
use super::types::Refusal;
use super::versions::Entry;
use crate::diststore::TStoreSyncClient;

/// The most bytes of values in one reply. The keys beyond it are left to another call, so that
/// a message is never too large, whatever its first value is.
const MAX_REPLY: usize = 1024 * 1024;

/// The pause before a copy is read again whose coordinator is gone.
const GONE_PAUSE: Duration = Duration::from_millis(10);

/// A key that another node has to be asked for.
struct RemoteKey<'a> {
    /// The index among the keys of the call.
    index: usize,
    key: Key<'a>,
    /// The owner to ask, as an owner in this placement.
    placement_id: u64,
    owner: NodeId,
    /// The owner's reply had no room for the value before.
    is_repeated: bool,
}

impl Store {
    /// What the network holds for `key`: the newest acknowledged entry, or a newer one. Blocks
    /// for ten seconds at most.
    ///
    /// # Errors
    /// No owner could be asked in that time.
    pub fn fetch(&self, key: &[u8]) -> Result<Option<Entry>, Refusal> {
        self.fetch_until(key, Store::deadline())
    }

    /// [`fetch`](Store::fetch) with another deadline.
    ///
    /// # Errors
    /// No owner could be asked until then.
    pub(super) fn fetch_until(
        &self,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Option<Entry>, Refusal> {
        let held = self.read_for_client(&[Key::new(key)], deadline)?;
        let held = held.into_iter().next().flatten();
        if held.as_ref().is_some_and(|entry| !entry.is_tombstone()) {
            debug!("found {}", Key::new(key));
        }
        Ok(held)
    }

    /// [`fetch`](Store::fetch) of several keys: of as many of the first ones, at least one, as
    /// have values that fit one message.
    ///
    /// # Errors
    /// No owner of one of them could be asked in time.
    pub fn fetch_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Entry>>, Refusal> {
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key.as_ref())).collect();
        let mut held = self.read_for_client(&keys, Store::deadline())?;
        held.truncate(fitting(&held));
        Ok(held)
    }

    /// The newest acknowledged entries of these keys, or newer ones.
    fn read_for_client(
        &self,
        keys: &[Key<'_>],
        deadline: Instant,
    ) -> Result<Vec<Option<Entry>>, Refusal> {
        self.check_quorum()?;
        let held = self.read_latest(keys, deadline, true)?;
        if held.iter().any(Option::is_none) {
            self.check_missing()?;
        }
        Ok(held)
    }

    /// The newest acknowledged entries of these keys, or newer ones, from their read owners and,
    /// if it `asks_legacy` nodes, from those that own them too.
    ///
    /// # Errors
    /// No owner of one of them could be asked until the deadline.
    pub(super) fn read_latest(
        &self,
        keys: &[Key<'_>],
        deadline: Instant,
        asks_legacy: bool,
    ) -> Result<Vec<Option<Entry>>, Refusal> {
        let mut results: Vec<Option<Option<Entry>>> = vec![None; keys.len()];
        loop {
            let remote = self.read_local_keys(keys, &mut results, asks_legacy);
            self.read_remote_keys(remote, &mut results, deadline);
            if results.iter().all(Option::is_some) {
                return Ok(results.into_iter().flatten().collect());
            }
            if !self.pause_until(deadline) {
                return Err("no owner of the key could be asked in time".into());
            }
        }
    }

    /// Reads the keys without a result that are read at this node. Returns those that are read
    /// at others.
    fn read_local_keys<'a>(
        &self,
        keys: &[Key<'a>],
        results: &mut [Option<Option<Entry>>],
        asks_legacy: bool,
    ) -> Vec<RemoteKey<'a>> {
        let mut remote = Vec::new();
        let mut local = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if results[index].is_some() {
                continue;
            }
            match self.read_route(*key) {
                ReadRoute::Local => {
                    let is_local = || self.read_route(*key) == ReadRoute::Local;
                    results[index] = self.read_local(*key, is_local);
                    local.extend(results[index].is_some().then_some(index));
                }
                ReadRoute::Remote(placement_id, owner) => remote.push(RemoteKey {
                    index,
                    key: *key,
                    placement_id,
                    owner,
                    is_repeated: false,
                }),
                ReadRoute::Unavailable => (),
            }
        }
        if asks_legacy && self.node.has_legacy() {
            let local_keys: Vec<Key<'_>> = local.iter().map(|index| keys[*index]).collect();
            let entries = local.iter().map(|index| results[*index].take().flatten());
            let mut held: Vec<Option<Entry>> = entries.collect();
            self.read_from_legacy(&local_keys, &mut held, true);
            for (index, held) in local.into_iter().zip(held) {
                results[index] = Some(held);
            }
        }
        remote
    }

    /// Asks the owners of all keys together, again where a reply had no room. Starts no call
    /// after the deadline.
    fn read_remote_keys(
        &self,
        mut open: Vec<RemoteKey<'_>>,
        results: &mut [Option<Option<Entry>>],
        deadline: Instant,
    ) {
        while !open.is_empty() && Instant::now() < deadline {
            let requests = open.iter().map(|remote| {
                let request = ReadRequest {
                    placement_id: remote.placement_id,
                    key: remote.key.bytes.to_vec(),
                    is_repeated: remote.is_repeated,
                };
                (remote.owner.location.clone(), request)
            });
            let mut replies = self.remote_reader.read(requests.collect()).into_iter();
            open.retain_mut(|remote| match replies.next().flatten() {
                Some(ReadReply::Held(held)) => {
                    results[remote.index] = Some(held);
                    false
                }
                Some(ReadReply::NoRoom) => {
                    remote.is_repeated = true;
                    true
                }
                Some(ReadReply::Unreachable { has_ended }) => {
                    self.note_silence(&remote.owner, has_ended);
                    false
                }
                None => false,
            });
        }
    }

    /// What this node holds as an owner in that placement, for as many of the first keys as
    /// fit a message. None if it may not answer for it.
    pub(super) fn read_as_owner(
        &self,
        placement_id: u64,
        keys: &[Key<'_>],
    ) -> Option<Vec<Option<Entry>>> {
        let may_read = |key: Key<'_>| {
            let routing = self.routing();
            self.is_current(&routing) && routing.may_answer(placement_id, key)
        };
        let read = |key: &Key<'_>| {
            let may_read = || may_read(*key);
            let held = may_read().then(|| self.read_local(*key, may_read));
            held.flatten()
        };
        let mut held = keys.iter().map(read).collect::<Option<Vec<_>>>()?;
        self.read_from_legacy(keys, &mut held, true);
        held.truncate(fitting(&held));
        Some(held)
    }

    /// A page of the pairs whose primary this node is in that placement.
    ///
    /// # Errors
    /// This node is not settled in that placement.
    pub(super) fn scan(&self, placement_id: u64, cursor: &Cursor) -> Result<Page, Refusal> {
        let routing = self.settled_in(placement_id)?;
        let (current, me) = (routing.current(), routing.me());
        let is_primary = |key: Key<'_>| current.is_primary(me, key);
        let mut page = self
            .table
            .page(cursor, PAGE, SCAN_LIMIT, |_| true, is_primary);
        page.entries.retain(|(_, entry)| !entry.is_tombstone());
        // Keys are dropped only after the placement has changed.
        self.settled_in(placement_id)?;
        if !self.are_finished(&page.unfinished) {
            return Err("writes of some of the keys are not finished".into());
        }
        Ok(page)
    }

    /// The routing while this node may be scanned in that placement.
    ///
    /// # Errors
    /// It is not settled in it, or keys may be on the other side of a split.
    pub(super) fn settled_in(&self, placement_id: u64) -> Result<Arc<Routing>, Refusal> {
        let routing = self.routing().clone();
        let is_settled = routing.is_settled() && routing.is_serving();
        let is_same = routing.current().id() == placement_id;
        if !is_settled || !is_same || !self.is_current(&routing) {
            return Err("this node is not settled in that placement".into());
        }
        self.check_missing()?;
        Ok(routing)
    }

    /// Where `key` is read now.
    fn read_route(&self, key: Key<'_>) -> ReadRoute {
        let routing = self.routing();
        if self.is_current(&routing) {
            routing.read_route(key)
        } else {
            ReadRoute::Unavailable
        }
    }

    /// Reads the table, when the write of what it has is finished. None if that takes too long,
    /// or if a missing key may have been dropped meanwhile, because `is_entitled` is false
    /// afterwards.
    fn read_local(&self, key: Key<'_>, is_entitled: impl Fn() -> bool) -> Option<Option<Entry>> {
        loop {
            match self.table.look_up(key) {
                None => return is_entitled().then_some(None),
                Some(held) if held.is_finished => return Some(Some(held.entry)),
                Some(held) => {
                    if !self.routing().has_rule(Rule::FinishBeforeReading) {
                        return Some(Some(held.entry));
                    }
                    if !self.wait_for_write(key, held.entry.version) {
                        return None;
                    }
                }
            }
        }
    }

    /// Is the write of what this node has for `key` finished? Waits for its coordinator.
    pub(super) fn is_finished(&self, key: Key<'_>) -> bool {
        let is_entitled = || true;
        self.read_local(key, is_entitled).is_some()
    }

    /// Are the writes of these copies finished? Waits for their coordinators.
    pub(super) fn are_finished(&self, copies: &[(Vec<u8>, i64)]) -> bool {
        copies
            .iter()
            .all(|(key, version)| self.wait_for_write(Key::new(key), *version))
    }

    /// Waits until the coordinator of a write has finished it, for a second at most. False if it
    /// has not, or is gone: then this node finishes the write itself (`finisher`).
    pub(super) fn wait_for_write(&self, key: Key<'_>, version: i64) -> bool {
        let is_gone = |node: &NodeId| self.routing().is_gone(node);
        let found = self.unfinished.coordinator(key.bytes, version, is_gone);
        let Some((coordinator, sequence)) = found else {
            // It is finished, or its copy has just arrived.
            return true;
        };
        if self.routing().is_gone(&coordinator) {
            debug!("{key} waits until its copy is brought to all owners");
            self.rest(GONE_PAUSE);
            return false;
        }
        let generation = coordinator.generation;
        let asked = self.peers.call(&coordinator.location, |client| {
            client.wait_until_finished(generation, sequence)
        });
        match asked {
            Ok(true) => {
                self.unfinished.of(&coordinator).remove(sequence, version);
                self.table.finish(key, version);
                true
            }
            Ok(false) => {
                debug!("{key} waits for a write of {}", coordinator.location);
                false
            }
            Err(e) => {
                // Not in the log line: it has an effect.
                let why = self.on_failed_call(&coordinator, &e);
                debug!("{why}");
                false
            }
        }
    }
}

/// How many of the first entries fit one reply, at least one.
fn fitting(held: &[Option<Entry>]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Option<Entry>| {
        bytes += entry.as_ref().map_or(0, Entry::value_len);
        bytes <= MAX_REPLY
    };
    held.iter().take_while(fits).count().max(1).min(held.len())
}
