//! Calls to legacy nodes: one connection for each group of calls, and short timeouts.
//!
//! A legacy node serves one connection to its end before it accepts the next, and nobody else
//! while it forwards a call. So a failed call says little about it, but costs its caller time:
//! the next calls leave it out for a moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::debug;

use super::puts::WaitingPut;
use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::locator::TBaseSyncClient;
use crate::rpc::dialer::Timeouts;
use crate::store::placement::Key;
use crate::store::store::Store;
use crate::store::types::{Client, unix_millis};
use crate::store::versions::{Entry, written_at};

/// For each call of a connection. A read makes two to a node that does not reply, at most.
const TIMEOUTS: Timeouts = Timeouts::of_millis(200, 300);

/// After this time the calls of one read or write start no more: the rest of a read is answered
/// from our copies, the rest of a write is put later.
const CALLS_TIME: Duration = Duration::from_millis(300);

/// Puts that are confirmed together: a legacy node takes some milliseconds for them.
const PUTS: usize = 64;

/// The version of what only a legacy node holds: older than any of ours.
const UNVERSIONED: i64 = 1;

impl Store {
    /// Replaces entries of ours by what legacy nodes hold, where that counts. Called for keys
    /// that this node reads as an owner. Blocks for a second at most.
    /// Our nodes `copy` what is new to them.
    pub(in crate::store) fn read_from_legacy(
        &self,
        keys: &[Key<'_>],
        held: &mut [Option<Entry>],
        copy: bool,
    ) {
        if !self.node.has_legacy() {
            return;
        }
        let deadline = Instant::now() + CALLS_TIME;
        for (peer, indexes) in self.by_legacy_owner(keys.iter().copied()) {
            let is_asked = |index: &usize| self.should_ask(&peer, keys[*index], &held[*index]);
            let asked: Vec<usize> = indexes.into_iter().filter(is_asked).collect();
            if asked.is_empty() || Instant::now() >= deadline {
                continue;
            }
            let read = self.call_legacy(&peer, |client| {
                self.check_ring_after_change(&peer, client)?;
                for index in asked {
                    let value = client.get(keys[index].bytes.to_vec())?;
                    let held = &mut held[index];
                    self.merge_legacy_value(&peer, keys[index], held, value, copy);
                    if Instant::now() >= deadline {
                        break;
                    }
                }
                Ok(())
            });
            if let Err(e) = read {
                debug!("not read from a legacy node: {e}");
            }
        }
    }

    /// Puts entries to the legacy nodes that their keys belong to, and waits until those have
    /// processed them. Called at the primary of the keys, before the entries are applied.
    pub(in crate::store) fn put_to_legacy_owners(&self, entries: &[(Key<'_>, &Entry)]) {
        if !self.node.has_legacy() {
            return;
        }
        let deadline = Instant::now() + CALLS_TIME;
        for (peer, indexes) in self.by_legacy_owner(entries.iter().map(|(key, _)| *key)) {
            let put = self.call_legacy(&peer, |client| {
                self.check_ring_after_change(&peer, client)?;
                for some in indexes.chunks(PUTS) {
                    if Instant::now() >= deadline {
                        return Err("there are too many for one write".into());
                    }
                    for index in some {
                        let (key, entry) = &entries[*index];
                        let value = entry.value.as_deref().unwrap_or_default();
                        client.put(key.bytes.to_vec(), value.to_vec())?;
                    }
                    // It processes what arrives on a connection in order.
                    client.ping()?;
                }
                Ok(())
            });
            if let Err(e) = put {
                debug!("not put to a legacy node yet: {e}");
                let times = indexes.iter().map(|index| entries[*index].1.version);
                if let Some(oldest) = times.map(written_at).min() {
                    self.doubts.lock().add(&peer, oldest, unix_millis());
                }
            }
        }
    }

    /// Makes calls on one connection to a legacy node.
    ///
    /// # Errors
    /// A call failed, or the node is not called at present.
    pub(in crate::store) fn call_legacy<T>(
        &self,
        peer: &Location,
        body: impl FnOnce(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        if !self.doubts.lock().may_call(peer, unix_millis()) {
            let paused = std::io::ErrorKind::TimedOut;
            return Err(Error::Unreachable(peer.clone(), paused.into()));
        }
        let dialer = self.node.dialer();
        let result = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, peer, body);
        if let Err(e) = &result {
            self.doubts.lock().on_failure(peer, unix_millis());
            if e.is_unreachable() {
                self.node.report_unreachable(peer, e);
            }
        }
        result
    }

    /// A legacy node that does not know of a change yet forwards what it is asked, perhaps to a
    /// node that does not reply, and waits for that for ever.
    fn check_ring_after_change(&self, peer: &Location, client: &mut Client) -> thrift::Result<()> {
        if self.doubts.lock().has_ring_changed(unix_millis()) {
            self.check_ring(peer, client)?;
        }
        Ok(())
    }

    /// The legacy node that the key belongs to, if there is one.
    pub(in crate::store) fn legacy_owner(&self, key: Key<'_>) -> Option<Location> {
        let owner = self.node.ring().owner_at(key.point).cloned()?;
        self.node.is_legacy(&owner).then_some(owner)
    }

    /// The indexes of the keys that belong to legacy nodes, by these.
    fn by_legacy_owner<'a>(
        &self,
        keys: impl Iterator<Item = Key<'a>>,
    ) -> BTreeMap<Location, Vec<usize>> {
        let mut groups: BTreeMap<Location, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.enumerate() {
            if let Some(peer) = self.legacy_owner(key) {
                groups.entry(peer).or_default().push(index);
            }
        }
        groups
    }

    /// Can the legacy node have another value that counts? The key's primary asks it, unless it
    /// may lack our entry; others do if they have none.
    fn should_ask(&self, peer: &Location, key: Key<'_>, held: &Option<Entry>) -> bool {
        let routing = self.routing();
        let primary = routing.primary(key);
        let is_primary = primary.is_none_or(|primary| primary == routing.me());
        held.as_ref()
            .is_none_or(|entry| is_primary && !self.doubts.lock().may_lack(peer, entry))
    }

    fn merge_legacy_value(
        &self,
        peer: &Location,
        key: Key<'_>,
        held: &mut Option<Entry>,
        value: Vec<u8>,
        copy: bool,
    ) {
        let known = held.as_ref().and_then(|entry| entry.value.as_deref());
        if value.is_empty() {
            if known.is_some_and(|known| !known.is_empty()) {
                // It has lost the value, and perhaps others.
                let now = unix_millis();
                self.doubts.lock().add(peer, now, now);
            }
        } else if known != Some(&value) {
            let seen = held.as_ref().map(|entry| entry.version);
            if copy {
                let put = WaitingPut {
                    value: value.clone(),
                    at: unix_millis(),
                    seen: Some(seen.unwrap_or(0)),
                };
                self.waiting_puts.lock().add_if_none(key.bytes, put);
            }
            let version = seen.unwrap_or(UNVERSIONED);
            *held = Some(Entry {
                version,
                value: Some(value.into()),
            });
        }
    }
}
