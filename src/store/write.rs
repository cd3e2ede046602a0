//! Writing keys: at their primary, which brings each write to all owners.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::limits::MAX_VALUE;
use super::placement::{Key, NodeId};
use super::rebalance::{Routing, WriteTicket};
use super::replicator::ReplicaWrite;
use super::store::Store;
use super::types::{Client, Mutation, NOT_PRIMARY, Refusal, refusal, unix_millis};
use super::versions::{Entry, Value};
use super::wire::from_key_value;
use crate::diststore::{KeyValue, Rejection, ReplicateResult, TStoreSyncClient, WriteResult};
use crate::parallel::parallel_map;

/// Primaries called at the same time for the pairs of one call.
const PARALLEL: usize = 8;

/// How long a write waits until this node's routing accounts for new members.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// A write that this node executes as the primary.
struct PendingWrite<'a> {
    /// The index among the pairs of the call.
    index: usize,
    key: Key<'a>,
    ticket: WriteTicket,
    /// What to apply. Version 0 until it is assigned.
    entry: Entry,
    existed: bool,
    state: WriteState,
}

/// Where a write comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client.
    Client,
    /// A read has found it at the legacy node that the key belongs to, when our nodes had this
    /// version. What was written since then counts.
    LegacyOwner(i64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteState {
    /// Some owners may not have it.
    Replicating,
    /// All other owners have it, so it may be applied here; or there is nothing to write.
    Replicated,
    /// An owner rejected it.
    Rejected,
}

impl Store {
    /// Writes `value`, or deletes the key without one. Returns when the write is in place on
    /// all owners. Blocks for ten seconds at most.
    ///
    /// # Errors
    /// The key or the value is too long, an owner has no room, or no primary could be reached
    /// in that time. The write may have taken effect on some owners.
    pub fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> Result<WriteResult, Refusal> {
        let value = value.map(|value| Value::of(key, &value));
        let results = self.write_many(&[(key.to_vec(), value)])?;
        Ok(results.into_iter().next().unwrap_or_default())
    }

    /// [`write`](Store::write) of several pairs. Each takes effect by itself, not all at one
    /// time. Of several values of one key the last one stays.
    ///
    /// # Errors
    /// As for one pair, or they are too large together. Any of them may have taken effect.
    pub fn write_many(&self, pairs: &[Mutation]) -> Result<Vec<WriteResult>, Refusal> {
        self.check_lengths(pairs)?;
        let deadline = Store::deadline();
        let mut results: Vec<Option<WriteResult>> = vec![None; pairs.len()];
        loop {
            let groups: Vec<_> = self.group_by_primary(pairs, &results).into_iter().collect();
            let replies = parallel_map(&groups, PARALLEL, |(primary, indexes)| {
                let pairs: Vec<&Mutation> = indexes.iter().map(|index| &pairs[*index]).collect();
                (indexes, self.write_at(primary, &pairs, deadline))
            });
            for (indexes, reply) in replies {
                for (index, result) in indexes.iter().zip(reply?) {
                    results[*index] = result;
                }
            }
            if results.iter().all(Option::is_some) {
                return Ok(results.into_iter().flatten().collect());
            }
            if !self.pause_until(deadline) {
                let late = "the primary and all owners of the key could not be reached in time";
                return Err(late.into());
            }
        }
    }

    fn check_lengths(&self, pairs: &[Mutation]) -> Result<(), Refusal> {
        let mut total = 0;
        for (key, value) in pairs {
            let value = value.as_ref().map_or(0, |value| value.len());
            self.limits.check(key.len(), value, 0, 0)?;
            total += value;
        }
        if total > MAX_VALUE {
            return Err(format!(
                "values of {total} bytes in one call; at most {MAX_VALUE} are accepted"
            ));
        }
        Ok(())
    }

    /// The indexes of the pairs without a result, by their primaries.
    fn group_by_primary(
        &self,
        pairs: &[Mutation],
        results: &[Option<WriteResult>],
    ) -> BTreeMap<NodeId, Vec<usize>> {
        let mut groups: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        let routing = self.routing();
        for (index, (key, _)) in pairs.iter().enumerate() {
            if results[index].is_none()
                && let Some(primary) = routing.primary(Key::new(key))
            {
                groups.entry(primary.clone()).or_default().push(index);
            }
        }
        groups
    }

    /// Writes at the primary. No result for pairs whose primary it is not, and none at all if
    /// it could not be reached.
    fn write_at(
        &self,
        primary: &NodeId,
        pairs: &[&Mutation],
        deadline: Instant,
    ) -> Result<Vec<Option<WriteResult>>, Refusal> {
        if primary.location == *self.node.location() {
            return self.write_as_primary(primary, pairs, Origin::Client, deadline);
        }
        let to_wire = |(key, value): &&Mutation| {
            let value = value.as_ref().map(|value| value.to_vec());
            KeyValue::new(key.clone(), value, 0)
        };
        let send = |client: &mut Client| {
            client.write_as_primary(pairs.iter().map(to_wire).collect(), primary.generation)
        };
        let is_done = |result: &WriteResult| result.version != Some(NOT_PRIMARY);
        match self.primaries.call(&primary.location, send) {
            Ok(results) => {
                let results = results.into_iter();
                Ok(results.map(|one| Some(one).filter(is_done)).collect())
            }
            // A legacy node may have taken the place of the primary.
            Err(e) if e.is_unreachable() || e.is_unknown_method() => {
                self.node.report_unreachable(&primary.location, &e);
                Ok(Vec::new())
            }
            Err(e) => Err(refusal(&e)),
        }
    }

    /// Executes writes as `primary`. No result for pairs whose primary this node is not, or
    /// that did not reach all owners until the deadline. Blocks until then at most.
    ///
    /// The caller names the process that it takes for the primary: a request may have waited
    /// while this process was stopped and declared down. Its sender has turned to another
    /// primary since, and an old value must not return with a new version.
    ///
    /// # Errors
    /// The latest versions could not be read in time, or an owner rejected a copy.
    pub(super) fn write_as_primary(
        &self,
        primary: &NodeId,
        pairs: &[&Mutation],
        origin: Origin,
        deadline: Instant,
    ) -> Result<Vec<Option<WriteResult>>, Refusal> {
        let mut results = vec![None; pairs.len()];
        let keys: Vec<Key<'_>> = pairs.iter().map(|(key, _)| Key::new(key)).collect();
        // After the deadline the caller has given up, and may have written newer values.
        let locked = self.write_locks.lock(&keys, deadline);
        let Some(_locked) = locked.filter(|_| Instant::now() < deadline) else {
            return Ok(results);
        };
        // Versions have the time at which this node was known to be the primary: a node that is
        // stopped here and declared down must not return with larger versions.
        let now = unix_millis();
        let mut pending = self.begin_writes(primary, pairs, &keys);
        let executed = self.execute(&mut pending, origin, now, deadline);
        for write in pending {
            let result = WriteResult::new(write.entry.version, write.existed);
            let is_replicated = write.state == WriteState::Replicated;
            if self.finish(write.ticket) && is_replicated {
                results[write.index] = Some(result);
            }
        }
        executed.map(|()| results)
    }

    /// Starts the writes whose primary this node is, if it is the process that is meant.
    fn begin_writes<'a>(
        &self,
        primary: &NodeId,
        pairs: &[&Mutation],
        keys: &[Key<'a>],
    ) -> Vec<PendingWrite<'a>> {
        loop {
            let routing = self.routing();
            if routing.me() != primary || !self.is_current(&routing) {
                return Vec::new();
            }
            let begin = |(index, key): (usize, &Key<'a>)| {
                let value = pairs[index].1.clone();
                Some(PendingWrite {
                    index,
                    key: *key,
                    ticket: routing.begin_write(*key)?,
                    entry: Entry { version: 0, value },
                    existed: false,
                    state: WriteState::Replicating,
                })
            };
            let pending: Vec<_> = keys.iter().enumerate().filter_map(begin).collect();
            // Otherwise a placement may have been drained before these were counted.
            if self.is_latest(&routing) {
                return pending;
            }
            // The rebalance may have waited for these.
            drop(pending);
            self.rebalance().advance();
        }
    }

    /// Ends a write. May it be acknowledged, if it has reached all owners?
    fn finish(&self, ticket: WriteTicket) -> bool {
        let routing = self.routing();
        let is_valid = self.is_current(&routing) && routing.may_acknowledge(&ticket);
        let is_older = ticket.is_older_than(&routing);
        drop(ticket);
        // Also if a placement came meanwhile: its rebalance may have seen this ticket.
        if is_older || !self.is_latest(&routing) {
            self.rebalance().advance();
        }
        is_valid
    }

    /// Assigns each write its version, brings it to all owners and applies it.
    fn execute(
        &self,
        pending: &mut [PendingWrite<'_>],
        origin: Origin,
        now: i64,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let keys: Vec<Key<'_>> = pending.iter().map(|write| write.key).collect();
        let mut latest = self.read_latest(&keys, deadline, false)?;
        if let Origin::LegacyOwner(seen) = origin {
            let version = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.version);
            if latest.iter().any(|latest| version(latest) != seen) {
                return Ok(());
            }
        }
        if pending.iter().any(|write| write.entry.is_tombstone()) {
            // A value that only a legacy node holds is deleted too.
            self.read_from_legacy(&keys, &mut latest, false);
        }
        self.assign_versions(pending, latest, now);
        let entries = pending.iter().map(|write| (write.key, &write.entry));
        let mut executed = self.check_room(entries);
        if executed.is_ok() {
            if origin == Origin::Client {
                self.put_pending_to_legacy_owners(pending);
            }
            executed = self.replicate(pending, deadline);
        }
        for write in pending {
            let entry = write.entry.clone();
            if write.state != WriteState::Replicated {
                self.routing().abandon(entry.version);
            } else if entry.version > 0 {
                self.table.apply(write.key, entry);
            }
        }
        executed
    }

    fn put_pending_to_legacy_owners(&self, pending: &[PendingWrite<'_>]) {
        let is_new = |write: &&PendingWrite<'_>| write.state == WriteState::Replicating;
        let new = pending.iter().filter(is_new);
        let entries: Vec<_> = new.map(|write| (write.key, &write.entry)).collect();
        self.put_to_legacy_owners(&entries);
    }

    /// Assigns versions larger than the latest one of each key. For the second and later writes
    /// of one key in this call that is the version of the one before. The deletion of a
    /// missing key is done already, unless a legacy node may have it.
    fn assign_versions(
        &self,
        pending: &mut [PendingWrite<'_>],
        latest: Vec<Option<Entry>>,
        now: i64,
    ) {
        let keys = pending.iter().map(|write| write.key);
        let mut latest: BTreeMap<Key<'_>, Option<Entry>> = keys.zip(latest).collect();
        let routing = self.routing();
        // A legacy node that does not reply may have the key, and return with it.
        let leaves_tombstone = self.node.has_legacy() || self.doubts.lock().has_peers();
        for write in pending {
            let latest = latest.entry(write.key).or_default();
            write.existed = latest.as_ref().is_some_and(|entry| !entry.is_tombstone());
            let version = latest.as_ref().map_or(0, |entry| entry.version);
            if write.entry.value.is_none() && !write.existed && !leaves_tombstone {
                write.entry.version = version;
                write.state = WriteState::Replicated;
                continue;
            }
            let own = self.table.version(write.key).unwrap_or_default();
            write.entry.version = routing.next_version(now, version.max(own));
            *latest = Some(write.entry.clone());
        }
    }

    /// Brings every entry to all its owners in every placement except this node, until the
    /// deadline.
    ///
    /// # Errors
    /// Why an owner rejected one. The others are brought to all owners nevertheless.
    fn replicate(
        &self,
        pending: &mut [PendingWrite<'_>],
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let mut rejection = Ok(());
        loop {
            let routing = self.routing().clone();
            let missing = missing_copies(&routing, pending);
            if missing.is_empty() {
                return rejection;
            }
            let copy = |(at, owner): &(usize, NodeId)| {
                let (write, placement_id) = (&pending[*at], routing.current().id());
                let copy = ReplicaWrite::new(write.key, &write.entry, placement_id);
                (owner.location.clone(), copy)
            };
            let copies = missing.iter().map(copy).collect();
            let mut all_reached = true;
            for ((at, owner), result) in missing.into_iter().zip(self.replicator.send(copies)) {
                match result {
                    Some(Ok(placement_id)) if self.catch_up_with(&owner, placement_id) => {
                        pending[at].ticket.add_ack(owner);
                    }
                    // An owner that is gone is no target once the routing accounts for that.
                    Some(Ok(_)) | None => all_reached = false,
                    Some(Err(why)) => {
                        pending[at].state = WriteState::Rejected;
                        rejection = Err(why);
                    }
                }
            }
            if !all_reached && !self.pause_until(deadline) {
                return rejection;
            }
        }
    }

    /// Does this node know the current placement of an owner? If not, it exchanges the
    /// membership with the owner and waits until the routing accounts for it: a write must reach
    /// the owners in that placement too. False if that failed or took too long.
    fn catch_up_with(&self, owner: &NodeId, placement_id: u64) -> bool {
        self.routing().knows(placement_id)
            || (self.node.push_pull(&owner.location).unwrap_or(false)
                && self.wait_for_members(CATCH_UP_TIMEOUT))
    }

    /// Keeps copies from a primary with that current placement, except those that there is no
    /// room for or that are malformed.
    pub(super) fn apply_replicated(
        &self,
        pairs: Vec<KeyValue>,
        placement_id: u64,
    ) -> ReplicateResult {
        if self.routing().current().id() != placement_id {
            // Before the copies are applied: a sweep then sees this, or has ended before.
            *self.stale_write_at.lock() = Some(Instant::now());
        }
        let now = unix_millis();
        let apply = |pair| -> Result<(), Refusal> {
            let (key, entry) = from_key_value(pair, now)?;
            let key = Key::new(&key);
            self.check_room([(key, &entry)])?;
            self.table.apply(key, entry);
            Ok(())
        };
        let rejected = |(index, pair)| Some(Rejection::new(index as i32, apply(pair).err()?));
        let rejections: Vec<_> = pairs.into_iter().enumerate().filter_map(rejected).collect();
        ReplicateResult::new(self.routing().current().id() as i64, rejections)
    }
}

/// The writes, by their indexes, with the owners that each must still reach.
fn missing_copies(routing: &Routing, pending: &mut [PendingWrite<'_>]) -> Vec<(usize, NodeId)> {
    let mut missing = Vec::new();
    for (at, write) in pending.iter_mut().enumerate() {
        if write.state == WriteState::Replicating {
            let targets = routing.targets(&write.ticket, write.key);
            if targets.is_empty() {
                write.state = WriteState::Replicated;
            }
            missing.extend(targets.into_iter().map(|owner| (at, owner)));
        }
    }
    missing
}
