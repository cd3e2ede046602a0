//! Executing writes as the primary of their keys.
//!
//! A batch of writes, of one client or of many that another node forwards, is executed
//! together: the keys are locked, the latest entries are read, versions are assigned, each
//! other owner gets its copies in one call, the entries are applied here, and all are answered.
//! No key waits for another one: what an owner that does not reply holds up goes on in the
//! background ([`finisher`](super::finisher)), and its caller asks again by the write's id.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use log::debug;

use super::durable::committer::Ticket;
use super::execution::Execution;
use super::key_writes::{Condition, KeyWrites, WriteReply, WriteRequest};
use super::placement::{Key, NodeId};
use super::rebalance::{Rule, WriteTicket};
use super::recent_writes::{Recall, WriteId, WriteOutcome};
use super::replicator::{ReplicaResult, ReplicaWrite};
use super::store::Store;
use super::types::unix_millis;
use super::versions::Entry;
use super::write_locks::WriteGuard;
use crate::diststore::TStoreSyncClient;
use crate::parallel::parallel_map;

/// How long a batch waits for keys that other writes have locked.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a batch waits for the latest entries of its keys.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a batch waits for owners that reply but do not know the members yet.
const ROUNDS_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a write waits until this node's routing accounts for new members.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a conditional write is refused in a mixed network.
const MIXED: &str = "there are nodes of the original, whose puts have no versions: a write cannot \
    depend on one";

/// Peers asked at the same time for what became of a write.
const PARALLEL: usize = 8;

/// Requests for one key, which is locked.
struct LockedKey<'a> {
    key: Key<'a>,
    indexes: Vec<usize>,
    lock: WriteGuard,
}

impl Store {
    /// Executes writes as `primary`. Blocks for about a second at most, however late the deadlines
    /// are.
    ///
    /// The caller names the process that it takes for the primary: a request may have waited
    /// while this process was stopped and declared down. Its sender has turned to another
    /// primary since.
    pub(super) fn write_as_primary(
        &self,
        primary: &NodeId,
        requests: &[WriteRequest],
    ) -> Vec<WriteReply> {
        let mut replies = vec![WriteReply::Unfinished; requests.len()];
        let locked = self.lock_keys(requests);
        // Versions have the time at which this node was known to be the primary: a node that is
        // stopped here and declared down must not return with larger versions.
        let now = unix_millis();
        let open = self.without_known(locked, requests, &mut replies);
        let open = self.begin_writes(primary, open, &mut replies);
        let mut open = self.prepare(open, requests, now, &mut replies);
        self.run(&mut open, &mut replies);
        replies
    }

    /// Locks the keys of requests, in their order. Leaves out those that stay locked.
    fn lock_keys<'a>(&self, requests: &'a [WriteRequest]) -> Vec<LockedKey<'a>> {
        let mut by_key: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
        for (index, request) in requests.iter().enumerate() {
            let key = Key::new(&request.key);
            by_key.entry(key).or_default().push(index);
        }
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let lock = |(key, indexes)| {
            let lock = self.write_locks.lock(key, deadline)?;
            Some(LockedKey { key, indexes, lock })
        };
        by_key.into_iter().filter_map(lock).collect()
    }

    /// Answers the requests whose result is known, those that come too late, and those whose
    /// result another node may know and does not tell.
    fn without_known<'a>(
        &self,
        mut locked: Vec<LockedKey<'a>>,
        requests: &[WriteRequest],
        replies: &mut [WriteReply],
    ) -> Vec<LockedKey<'a>> {
        let all = locked.iter().flat_map(|locked| {
            let indexes = locked.indexes.iter();
            indexes.map(|index| (*index, locked.key))
        });
        let is_doubtful = |(index, key): &(usize, Key<'_>)| {
            let request = &requests[*index];
            request.is_retry || !self.has_owned(*key, request.started)
        };
        let doubtful: Vec<usize> = all.filter(is_doubtful).map(|(index, _)| index).collect();
        let is_known = |id: WriteId| self.recent.recall(id, self.clock_ms()) != Recall::Unknown;
        let ids = doubtful.iter().map(|index| requests[*index].id);
        let ids: Vec<WriteId> = ids.filter(|id| !is_known(*id)).collect();
        let elsewhere = self.recall_from_peers(&ids);
        for locked in &mut locked {
            let key = locked.key;
            locked.indexes.retain(|index| {
                let elsewhere = doubtful.contains(index).then_some(elsewhere.as_ref());
                let known = self.known_reply(key, &requests[*index], elsewhere);
                known.map(|reply| replies[*index] = reply).is_none()
            });
        }
        locked.retain(|locked| !locked.indexes.is_empty());
        locked
    }

    /// Has this node been an owner of the key since then, so that it knows all attempts to write?
    /// Before it serves, it does not know the placements from which it comes.
    fn has_owned(&self, key: Key<'_>, since: Instant) -> bool {
        let routing = self.routing();
        let replicas = routing.replicas().unwrap_or(0);
        let since = since.saturating_duration_since(self.started).as_millis() as u64;
        let placements = &self.recent_placements;
        routing.is_serving() && placements.has_owned(routing.me(), key, replicas, since)
    }

    /// The reply to a request that must not be executed. `elsewhere` is what peers know of it, if
    /// they may know more: None if one did not tell.
    fn known_reply(
        &self,
        key: Key<'_>,
        request: &WriteRequest,
        elsewhere: Option<Option<&HashMap<WriteId, WriteOutcome>>>,
    ) -> Option<WriteReply> {
        let routing = self.routing();
        if Instant::now() >= request.deadline && routing.has_rule(Rule::RefuseTheLate) {
            // An earlier attempt may have had effect.
            return Some(WriteReply::Unfinished);
        }
        let recalled = match self.recent.recall(request.id, self.clock_ms()) {
            _ if !routing.has_rule(Rule::RunOnce) => return None,
            Recall::Known(outcome) => outcome,
            Recall::Running => return Some(WriteReply::Unfinished),
            Recall::Forgotten if elsewhere.is_some() => return Some(WriteReply::Unfinished),
            Recall::Forgotten => return None,
            // This process and all that knew it have ended.
            Recall::Unknown if self.may_have_run_before(request) => {
                return Some(WriteReply::Unfinished);
            }
            Recall::Unknown => match elsewhere? {
                None => return Some(WriteReply::Unfinished),
                Some(known) => *known.get(&request.id)?,
            },
        };
        if !self.is_finished(key) {
            return Some(WriteReply::Unfinished);
        }
        Some(match recalled.is_undone {
            true => WriteReply::Refused("an earlier attempt was given up".into()),
            false => WriteReply::Done(recalled),
        })
    }

    /// Asks all peers what became of these writes. None if one does not tell: it may know.
    fn recall_from_peers(&self, ids: &[WriteId]) -> Option<HashMap<WriteId, WriteOutcome>> {
        let mut known = HashMap::new();
        if ids.is_empty() {
            return Some(known);
        }
        let peers = self.rebalance().peers();
        let wire: Vec<_> = ids.iter().map(|id| (*id).into()).collect();
        let replies = parallel_map(&peers, PARALLEL, |peer| {
            let recalled = self
                .peers
                .call(&peer.location, |client| client.recall_writes(wire.clone()));
            recalled.map_err(|e| {
                let why = self.on_failed_call(peer, &e);
                debug!("writes are not recalled: {why}");
            })
        });
        for reply in replies {
            let results = reply.ok()?;
            for (id, result) in ids.iter().zip(results) {
                match WriteReply::from(result) {
                    WriteReply::Done(outcome) if outcome == WriteOutcome::default() => (),
                    WriteReply::Done(outcome) => drop(known.insert(*id, outcome)),
                    WriteReply::Refused(_) => {
                        let is_undone = true;
                        let outcome = WriteOutcome {
                            is_undone,
                            ..WriteOutcome::default()
                        };
                        known.insert(*id, outcome);
                    }
                    WriteReply::Unfinished | WriteReply::NotPrimary => return None,
                }
            }
        }
        Some(known)
    }

    /// What became of these writes, as far as this node knows. Blocks for a second at most.
    pub(super) fn recall_writes(&self, ids: impl Iterator<Item = WriteId>) -> Vec<WriteReply> {
        ids.map(|id| match self.recent.recall(id, self.clock_ms()) {
            Recall::Unknown => WriteReply::Done(WriteOutcome::default()),
            Recall::Forgotten | Recall::Running => WriteReply::Unfinished,
            Recall::Known(outcome) if self.unfinished.has_version(outcome.version) => {
                WriteReply::Unfinished
            }
            Recall::Known(outcome) if outcome.is_undone => {
                WriteReply::Refused("an earlier attempt was given up".into())
            }
            Recall::Known(outcome) => WriteReply::Done(outcome),
        })
        .collect()
    }

    /// Starts the writes of the keys whose primary this node is, if it is the process that is
    /// meant.
    fn begin_writes<'a>(
        &self,
        primary: &NodeId,
        locked: Vec<LockedKey<'a>>,
        replies: &mut [WriteReply],
    ) -> Vec<(LockedKey<'a>, WriteTicket)> {
        let tickets = loop {
            let routing = self.routing();
            let may_write = routing.me() == primary && self.is_current(&routing);
            let begin = |locked: &LockedKey<'_>| {
                let key = Some(locked.key).filter(|_| may_write)?;
                routing.begin_write(key)
            };
            let tickets: Vec<_> = locked.iter().map(begin).collect();
            // Otherwise a placement may have been drained before these were counted.
            if self.is_latest(&routing) {
                break tickets;
            }
            // The rebalance may have waited for these.
            drop(tickets);
            self.rebalance().advance();
        };
        let mut begun = Vec::new();
        for (locked, ticket) in locked.into_iter().zip(tickets) {
            match ticket {
                Some(ticket) => begun.push((locked, ticket)),
                None => {
                    for index in locked.indexes {
                        replies[index] = WriteReply::NotPrimary;
                    }
                }
            }
        }
        begun
    }

    /// Reads the latest entries, and assigns versions to what there is to write. Refuses what
    /// there is no room for.
    fn prepare(
        &self,
        begun: Vec<(LockedKey<'_>, WriteTicket)>,
        requests: &[WriteRequest],
        now: i64,
        replies: &mut [WriteReply],
    ) -> Vec<Execution> {
        let keys: Vec<Key<'_>> = begun.iter().map(|(locked, _)| locked.key).collect();
        let Ok(mut latest) = self.read_latest(&keys, Instant::now() + READ_TIMEOUT, false) else {
            begun.into_iter().for_each(|(_, ticket)| self.end(ticket));
            return Vec::new();
        };
        let mut indexes = begun.iter().flat_map(|(locked, _)| &locked.indexes);
        if indexes.any(|index| requests[*index].value.is_none()) {
            // A value that only a legacy node holds is deleted too.
            self.read_from_legacy(&keys, &mut latest, false);
        }
        let (mut open, mut used) = (Vec::new(), self.table.bytes());
        for ((mut locked, ticket), before) in begun.into_iter().zip(latest) {
            let noted = self.choose(&mut locked, requests, before.as_ref(), replies);
            if let (Some((index, outcome)), Some(entry)) = (noted, &before) {
                let id = requests[index].id;
                let note = KeyWrites::note(locked.key, ticket, entry.clone(), id, outcome);
                self.recent.begin(id, self.clock_ms());
                open.push(Execution::of_note(note, index, locked.lock));
                continue;
            }
            if locked.indexes.is_empty() {
                self.end(ticket);
                continue;
            }
            let chosen = locked.indexes.iter().map(|index| &requests[*index]);
            let deadline = chosen.clone().map(|request| request.deadline).min();
            // A write with a condition is alone.
            let condition = chosen.clone().find_map(|request| request.condition);
            let is_from_client = !matches!(condition, Some(Condition::Unchanged(_)));
            let own = self.table.version(locked.key).unwrap_or_default();
            let read = before.as_ref().map_or(0, |entry| entry.version);
            let mut writes = KeyWrites::new(
                locked.key,
                ticket,
                (before, own),
                chosen.map(|request| (request.id, request.value.clone())),
                now,
                &self.routing(),
            );
            if condition.is_some() {
                writes = writes.conditional();
                // From now on older copies of others are rejected. One that came before is waited
                // for: the condition is looked at again when it is finished.
                locked.lock.set_version(writes.version());
                if self.table.version(locked.key).unwrap_or_default() > read {
                    self.end(writes.finish());
                    continue;
                }
            }
            let entries = writes.writes().iter().map(|write| &write.entry);
            let entries: Vec<_> = entries.map(|entry| (locked.key, entry)).collect();
            if let Err(why) = self.check_room_beside(&mut used, entries.iter().copied()) {
                for index in locked.indexes {
                    replies[index] = WriteReply::Refused(why.clone());
                }
                self.end(writes.finish());
                continue;
            }
            for id in writes.writes().iter().filter_map(|write| write.id) {
                self.recent.begin(id, self.clock_ms());
            }
            if is_from_client {
                self.put_to_legacy_owners(&entries);
            }
            open.push(Execution {
                writes,
                deadline,
                indexes: locked.indexes,
                lock: Some(locked.lock),
                appended: Default::default(),
                replay_of: None,
            });
        }
        open
    }

    /// Leaves only the requests for a key that are to be executed now. Those whose condition is
    /// not met are answered, or returned with the outcome if earlier attempts may have gone to
    /// other processes: all owners must know it first.
    fn choose(
        &self,
        locked: &mut LockedKey<'_>,
        requests: &[WriteRequest],
        before: Option<&Entry>,
        replies: &mut [WriteReply],
    ) -> Option<(usize, WriteOutcome)> {
        for index in std::mem::take(&mut locked.indexes) {
            let request = &requests[index];
            let Some(condition) = request.condition else {
                locked.indexes.push(index);
                continue;
            };
            if !locked.indexes.is_empty() {
                // It depends on a write that may still be undone: it is asked again, after that.
                break;
            }
            let is_version = matches!(condition, Condition::Version(_));
            if is_version && self.node.has_legacy() {
                replies[index] = WriteReply::Refused(MIXED.into());
                continue;
            }
            match condition.unmet(before) {
                None => {
                    // Alone: it is given up if others write the key.
                    locked.indexes.push(index);
                    break;
                }
                Some(unmet) if request.is_retry && condition == Condition::Version(0) => {
                    return Some((index, unmet));
                }
                Some(unmet) => {
                    self.recent.record(request.id, unmet, self.clock_ms());
                    replies[index] = WriteReply::Done(unmet);
                }
            }
        }
        None
    }

    /// Brings the writes to their owners, and finishes those that arrive everywhere soon. The
    /// others are left to the finisher.
    fn run(&self, open: &mut Vec<Execution>, replies: &mut [WriteReply]) {
        let until = Instant::now() + ROUNDS_TIMEOUT;
        loop {
            let all_reached = self.replicate_round(open);
            self.finish_done(open, replies);
            if open.is_empty() {
                return;
            }
            if !all_reached || !self.pause_until(until) {
                return self.finish_later(std::mem::take(open));
            }
        }
    }

    /// Sends what owners lack, to all owners at the same time. False if one did not reply.
    pub(super) fn replicate_round(&self, open: &mut [Execution]) -> bool {
        open.iter().for_each(Execution::note_version);
        // They come to disk here while the copies are on their way.
        let durable = self.append(open);
        let routing = self.routing().clone();
        let placement_id = routing.current().id();
        let mut copies = Vec::new();
        let mut targets = Vec::new();
        for (at, execution) in open.iter().enumerate() {
            let writes = &execution.writes;
            for owner in writes.targets(&routing) {
                let copy = |write| ReplicaWrite::new(writes, write, placement_id);
                let sent = writes.writes().iter().map(copy);
                copies.extend(sent.map(|copy| (owner.location.clone(), copy)));
                targets.push((at, owner, writes.version()));
            }
        }
        let mut results = self.replicator.send(copies).into_iter();
        let mut all_reached = self.disk.wait(durable);
        let mut behind: Vec<NodeId> = Vec::new();
        let now = unix_millis();
        for (at, owner, version) in targets {
            let writes = &mut open[at].writes;
            let sent = writes.writes().len();
            let of_owner: Vec<_> = results.by_ref().take(sent).collect();
            // The first that is not simply kept decides.
            let is_kept = |result: &&Option<ReplicaResult>| matches!(result, Some(ReplicaResult::Kept(id)) if routing.counts_copy_at(*id));
            match of_owner.into_iter().find(|result| !is_kept(&result)) {
                None => writes.add_ack(owner, version),
                Some(None) => all_reached = false,
                Some(Some(ReplicaResult::Unreachable { has_ended })) => {
                    all_reached = false;
                    self.note_silence(&owner, has_ended);
                }
                Some(Some(ReplicaResult::Newer(newer, finished))) => {
                    if let Some(entry) = finished {
                        self.keep(writes.key(), entry);
                    }
                    writes.on_newer(&owner, newer, now, &routing);
                }
                Some(Some(ReplicaResult::Rejected(why))) => {
                    debug!("{} rejects a copy: {why}", owner.location);
                    all_reached &= writes.give_up(why, &routing);
                }
                Some(Some(ReplicaResult::Kept(_) | ReplicaResult::Fenced)) => behind.push(owner),
            }
        }
        behind.sort_unstable();
        behind.dedup();
        for owner in behind {
            self.catch_up_with(&owner);
        }
        all_reached
    }

    /// Starts to bring what stays of each to disk here.
    fn append(&self, open: &mut [Execution]) -> Ticket {
        if !self.disk.is_durable() {
            return Ticket::default();
        }
        let changed = |execution: &mut Execution| {
            let change = execution.change()?;
            // Its ticket follows.
            execution.appended = (execution.writes.version(), Ticket::LAST);
            Some(change)
        };
        let ticket = self.disk.append(open.iter_mut().filter_map(changed));
        for execution in open.iter_mut() {
            execution.appended.1 = execution.appended.1.min(ticket);
        }
        open.iter()
            .map(|execution| execution.appended.1)
            .max()
            .unwrap_or_default()
    }

    /// Finishes the writes that all other owners have, and answers them. Drops those that are not
    /// this process's to finish any more.
    pub(super) fn finish_done(&self, open: &mut Vec<Execution>, replies: &mut [WriteReply]) {
        let all = std::mem::take(open);
        for mut execution in all {
            let routing = self.routing();
            if !routing.coordinates(execution.writes.ticket()) {
                // It was declared down: those that have copies finish them.
                drop(routing);
                self.abandon(&execution);
                self.end(execution.writes.into_ticket());
                continue;
            }
            let own = self.table.version(execution.writes.key());
            execution.writes.on_own(own.unwrap_or_default());
            let has_all = execution.writes.targets(&routing).is_empty();
            if has_all && execution.writes.is_superseded() {
                if execution.writes.is_kept(&routing) {
                    drop(routing);
                    let ticket = execution.writes.replay_again(self.begin_replay());
                    self.end(ticket);
                    open.push(execution);
                    continue;
                }
                let is_owner = routing.is_owner(routing.me(), execution.writes.key());
                drop(routing);
                self.abandon(&execution);
                // An owner gets what is newer too, and may replay the copy until then.
                if !is_owner {
                    self.end_replay(&execution);
                }
                self.end(execution.writes.finish());
                continue;
            }
            if has_all && self.is_current(&routing) && routing.may_finish(execution.writes.ticket())
            {
                self.finish(execution, replies);
            } else {
                open.push(execution);
            }
        }
    }

    /// Writes are not executed here any more, and are not finished.
    fn abandon(&self, execution: &Execution) {
        for id in execution.writes.writes().iter().filter_map(|one| one.id) {
            self.recent.abandon(id);
        }
    }

    /// Takes writes into effect here, remembers their ids, and lets others show them.
    fn finish(&self, execution: Execution, replies: &mut [WriteReply]) {
        let writes = &execution.writes;
        let key = writes.key();
        if execution.replay_of.is_some() {
            self.end_replay(&execution);
        } else if let Some(last) = writes.last() {
            self.table.apply(key, last.clone());
        }
        let now = self.clock_ms();
        for (nth, write) in writes.writes().iter().enumerate() {
            if let Some(id) = write.id {
                self.recent.record(id, write.outcome, now);
            }
            let reply = execution
                .indexes
                .get(nth)
                .and_then(|index| replies.get_mut(*index));
            if let Some(reply) = reply {
                *reply = match writes.refusal() {
                    Some(why) => WriteReply::Refused(why.clone()),
                    None => WriteReply::Done(write.outcome),
                };
            }
        }
        self.end(execution.writes.finish());
    }

    /// The copy that was replayed is finished here.
    fn end_replay(&self, execution: &Execution) {
        if let Some((coordinator, sequence)) = &execution.replay_of {
            let version = execution.writes.version();
            self.table.finish(execution.writes.key(), version);
            let mut copies = self.unfinished.of(coordinator);
            copies.remove(*sequence, version);
        }
    }

    /// Ends what a ticket was for. A rebalance may wait for that.
    fn end(&self, ticket: WriteTicket) {
        let routing = self.routing();
        let is_older = ticket.is_older_than(&routing);
        drop(ticket);
        // Also if a placement came meanwhile: its rebalance may have seen this ticket.
        if is_older || !self.is_latest(&routing) {
            self.rebalance().advance();
        }
    }

    /// Exchanges the membership with an owner that has another placement, and waits until this
    /// node's routing accounts for it: a write must reach the owners in that placement too, and
    /// the owner must know who is gone.
    fn catch_up_with(&self, owner: &NodeId) {
        match self.node.push_pull(&owner.location) {
            Ok(_) => drop(self.wait_for_members(CATCH_UP_TIMEOUT)),
            Err(e) => debug!("no exchange with an owner that has another placement: {e}"),
        }
    }
}
