//! Writing keys: each write is brought to its primary, as often as it takes, and takes effect
//! once. Copies of writes are kept for the primaries of other keys.

use std::time::Instant;

use super::durable::row::Change;
use super::key_writes::{Condition, WriteReply, WriteRequest};
use super::limits::MAX_VALUE;
use super::placement::{Key, NodeId};
use super::rebalance::Rule;
use super::recent_writes::WriteOutcome;
use super::store::Store;
use super::table::Applied;
use super::types::{Mutation, Refusal, unix_millis};
use super::unfinished_copies::UnfinishedCopy;
use super::versions::Value;
use super::wire::{from_copy, to_read_result};
use crate::diststore::{self as wire, Rejection, ReplicateResult};

/// A write without a result so far.
struct OpenWrite {
    /// The index among the writes of the call.
    index: usize,
    request: WriteRequest,
    /// The process that may have executed the last attempt.
    tried_at: Option<NodeId>,
}

impl Store {
    /// Writes `value`, or deletes the key without one. Returns when the write is in place on
    /// all owners. Blocks for ten seconds at most.
    ///
    /// # Errors
    /// The key or the value is too long, an owner has no room, or no primary could be reached
    /// in that time. Unless the reason says so, the write has not taken effect and never will.
    pub fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> Result<WriteOutcome, Refusal> {
        self.write_one(key, value, None)
    }

    /// [`write`](Store::write) if the key has that version; 0: if it has no value. Otherwise nothing
    /// is written, and the outcome `is_unmet`.
    ///
    /// # Errors
    /// As for [`write`](Store::write); there are legacy nodes.
    pub fn write_if(
        &self,
        key: &[u8],
        value: Option<Vec<u8>>,
        version: i64,
    ) -> Result<WriteOutcome, Refusal> {
        self.write_one(key, value, Some(Condition::Version(version)))
    }

    fn write_one(
        &self,
        key: &[u8],
        value: Option<Vec<u8>>,
        condition: Option<Condition>,
    ) -> Result<WriteOutcome, Refusal> {
        let value = value.map(|value| Value::of(key, &value));
        let request = WriteRequest {
            condition,
            ..self.request((key.to_vec(), value), Store::deadline())
        };
        let mut results = self.write_requests(vec![request])?;
        results.pop().unwrap_or(Err(String::new()))
    }

    /// [`write`](Store::write) of several pairs. Each takes effect by itself, not all at one
    /// time. Of several values of one key the last one stays.
    ///
    /// # Errors
    /// They are too large together: then none is written. Or for each as for one pair.
    pub fn write_many(
        &self,
        pairs: Vec<Mutation>,
    ) -> Result<Vec<Result<WriteOutcome, Refusal>>, Refusal> {
        let deadline = Store::deadline();
        let requests = pairs.into_iter().map(|pair| self.request(pair, deadline));
        self.write_requests(requests.collect())
    }

    fn request(&self, (key, value): Mutation, deadline: Instant) -> WriteRequest {
        WriteRequest {
            key,
            value,
            id: self.ids.next(),
            is_retry: false,
            started: Instant::now(),
            deadline,
            condition: None,
        }
    }

    /// Executes writes with their own ids and deadlines.
    ///
    /// # Errors
    /// They are too large together: then none is written. Or for each as for one pair.
    pub(super) fn write_requests(
        &self,
        requests: Vec<WriteRequest>,
    ) -> Result<Vec<Result<WriteOutcome, Refusal>>, Refusal> {
        self.check_lengths(&requests)?;
        self.check_quorum()?;
        let late = "the primary and all owners of the key could not be reached in time; the write \
            may have taken effect";
        let mut results = vec![Err(late.to_owned()); requests.len()];
        let open = requests.into_iter().enumerate();
        let mut open: Vec<OpenWrite> = open
            .map(|(index, request)| OpenWrite {
                index,
                request,
                tried_at: None,
            })
            .collect();
        while !open.is_empty() {
            let primaries = self.primaries_of(&mut open);
            let replies = self.write_at(&primaries, &open);
            let mut attempts = primaries.into_iter().zip(replies);
            open.retain_mut(|write| {
                let (primary, reply) = attempts.next().unwrap_or_default();
                match reply {
                    Some(WriteReply::Done(outcome)) => results[write.index] = Ok(outcome),
                    Some(WriteReply::Refused(why)) => results[write.index] = Err(why),
                    Some(WriteReply::NotPrimary) => return true,
                    Some(WriteReply::Unfinished) | None => {
                        write.tried_at = primary.or(write.tried_at.take());
                        return true;
                    }
                }
                false
            });
            let last = open.iter().map(|write| write.request.deadline).max();
            if last.is_some_and(|deadline| !self.pause_until(deadline)) {
                break;
            }
        }
        Ok(results)
    }

    fn check_lengths(&self, requests: &[WriteRequest]) -> Result<(), Refusal> {
        let mut total = 0;
        for request in requests {
            let value = request.value.as_ref().map_or(0, |value| value.len());
            self.limits.check(request.key.len(), value, 0, 0)?;
            total += value;
        }
        if total > MAX_VALUE {
            return Err(format!(
                "values of {total} bytes in one call; at most {MAX_VALUE} are accepted"
            ));
        }
        Ok(())
    }

    /// The primary of each write. An attempt after one that another process may have executed is
    /// a retry.
    fn primaries_of(&self, open: &mut [OpenWrite]) -> Vec<Option<NodeId>> {
        let routing = self.routing();
        let primary = |write: &mut OpenWrite| {
            let primary = routing.primary(Key::new(&write.request.key)).cloned();
            let moved = write.tried_at.is_some() && write.tried_at != primary;
            write.request.is_retry |= moved;
            primary
        };
        open.iter_mut().map(primary).collect()
    }

    /// Sends each write to its primary, which may be this node. No reply where there was none.
    fn write_at(
        &self,
        primaries: &[Option<NodeId>],
        open: &[OpenWrite],
    ) -> Vec<Option<WriteReply>> {
        let mut replies = vec![None; open.len()];
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        for (at, primary) in primaries.iter().enumerate() {
            match primary {
                Some(primary) if primary.location == *self.node.location() => local.push(at),
                Some(_) => remote.push(at),
                None => (),
            }
        }
        let send = || {
            let writes = remote.iter().filter_map(|at| {
                let primary = primaries[*at].clone()?;
                Some((primary, open[*at].request.clone()))
            });
            self.forwarder.send(writes.collect())
        };
        let execute = || {
            let primary = local.first().and_then(|at| primaries[*at].as_ref());
            let requests = local.iter().map(|at| open[*at].request.clone());
            primary.map(|primary| self.write_as_primary(primary, &requests.collect::<Vec<_>>()))
        };
        let (executed, sent) = match (local.is_empty(), remote.is_empty()) {
            (false, false) => std::thread::scope(|scope| {
                let sent = scope.spawn(send);
                (execute(), sent.join().unwrap_or_default())
            }),
            (true, _) => (None, send()),
            (false, true) => (execute(), Vec::new()),
        };
        for (at, reply) in local.iter().zip(executed.unwrap_or_default()) {
            replies[*at] = Some(reply);
        }
        for (at, reply) in remote.iter().zip(sent) {
            replies[*at] = reply;
        }
        replies
    }

    /// Keeps copies from a primary with that current placement, except those that there is no
    /// room for, that are malformed, or that are older than what is here. None is kept of a
    /// process that does not take part as this node knows: others may have gone on without it.
    ///
    /// All writes of the primary before `finished` are finished.
    pub(super) fn apply_replicated(
        &self,
        primary: &NodeId,
        copies: Vec<wire::Copy>,
        placement_id: u64,
        finished: i64,
    ) -> ReplicateResult {
        let is_fenced = || {
            let routing = self.routing();
            routing.is_gone(primary) && routing.has_rule(Rule::FenceTheGone)
        };
        // Before its copies are locked, so that none are kept for processes that never were.
        let unfinished = (!is_fenced()).then(|| self.unfinished.of(primary));
        let current = self.routing().current().id();
        // And afterwards: who then lists the copies of a process that is gone finds all.
        let Some(mut unfinished) = unfinished.filter(|_| !is_fenced()) else {
            return ReplicateResult::new(current as i64, Vec::new(), true);
        };
        if current != placement_id {
            // Before the copies are applied: a sweep then sees this, or has ended before.
            *self.stale_write_at.lock() = Some(Instant::now());
        }
        let (now, clock) = (unix_millis(), self.clock_ms());
        let routing = self.routing().clone();
        let mut changes = Vec::new();
        // Before a copy is kept, and afterwards: a write that begins meanwhile has looked for it.
        let check_pending = |key: Key<'_>, version: i64| {
            let pending = self.write_locks.pending_version(key);
            if pending < version || !routing.has_rule(Rule::OvertakeOwners) {
                return Ok(());
            }
            let why = "this node is writing a newer version".to_owned();
            Err(Rejection::new(0, why, pending, None))
        };
        let mut apply = |copy| -> Result<(), Rejection> {
            let rejected = |why: Refusal| Rejection::new(0, why, None, None);
            let (key, write) = from_copy(copy, now).map_err(rejected)?;
            let (key, version) = (Key::new(&key), write.entry.version);
            check_pending(key, version)?;
            if !write.must_keep {
                self.check_room([(key, &write.entry)]).map_err(rejected)?;
            }
            let stored = write.id.map(|id| (id, write.outcome));
            let is_durable = self.disk.is_durable();
            let mut change = is_durable.then(|| Change::write(key, &write.entry, stored));
            self.note_recovered(key, &write.entry);
            let is_new = match self.table.apply_copy(key, write.entry) {
                Applied::Older(newer) => {
                    // A replay has to know what takes its place.
                    let held = self.table.look_up(key).filter(|held| held.is_finished);
                    let finished = held.filter(|_| write.must_keep);
                    let finished = finished.map(|held| to_read_result(Some(held.entry)));
                    let why = "there is a newer version".to_owned();
                    return Err(Rejection::new(0, why, newer, finished));
                }
                Applied::Kept => true,
                Applied::Known(is_finished) => {
                    // Its row has the id of the write that it comes from.
                    change.take_if(|_| write.outcome.is_unmet);
                    !is_finished
                }
            };
            changes.extend(change);
            if let Some(id) = write.id {
                self.recent.record(id, write.outcome, clock);
            }
            let copy = UnfinishedCopy {
                key: key.bytes.to_vec(),
                version,
                id: write.id,
                outcome: write.outcome,
            };
            if is_new && !unfinished.add(write.sequence, copy) {
                self.table.finish(key, version);
            }
            check_pending(key, version)
        };
        let rejected = |(index, copy)| {
            let rejection = apply(copy).err()?;
            let index = Some(index as i32);
            Some(Rejection { index, ..rejection })
        };
        let rejections: Vec<_> = copies
            .into_iter()
            .enumerate()
            .filter_map(rejected)
            .collect();
        for copy in unfinished.finish_before(finished) {
            self.table.finish(Key::new(&copy.key), copy.version);
        }
        drop(unfinished);
        let is_durable = self.disk.wait(self.disk.append(changes));
        let current = self.routing().current().id();
        ReplicateResult::new(current as i64, rejections, !is_durable)
    }
}
