//! `KeyWrites`: what one process brings to all owners of one key: writes as the key's primary,
//! the undo of writes that were given up, or a copy that a process left unfinished that is gone.
//!
//! It decides; `primary` sends the copies. A write takes effect when the primary
//! applies it to its own table, which it does when all other owners have it. A write that
//! cannot get that far is *given up*: the primary restores what the key had before, by an entry
//! with a larger version, which goes to the owners like any other. So a refused write never
//! takes effect, not even when its copies survive the primary. While a rebalance lets two
//! processes coordinate writes of one key, a write is not undone: its caller is told that it
//! may take effect, and it does.

use std::sync::Arc;
use std::time::Instant;

use super::placement::{Key, NodeId};
use super::rebalance::{Routing, Rule, WriteTicket};
use super::recent_writes::{WriteId, WriteOutcome};
use super::types::Refusal;
use super::unfinished_copies::UnfinishedCopy;
use super::versions::{Entry, Value, undo_of};

/// Why a conditional write is given up.
const OVERTAKEN: &str = "the key was written by another node at the same time, while keys move: \
                         read it and try again";

/// Writes of one key that go to its owners together.
#[derive(Debug)]
pub struct KeyWrites {
    key: Vec<u8>,
    point: u32,
    ticket: WriteTicket,
    /// What the key had before the first of them.
    before: Option<Entry>,
    /// In the order in which they take effect.
    writes: Vec<PendingWrite>,
    /// What the key had before was the condition of the only write.
    is_conditional: bool,
    stage: Stage,
    /// Another process has written the key since they began, or before a replay did.
    has_overtaken: bool,
    /// Those that have kept a copy of a replay.
    kept_by: Vec<NodeId>,
}

/// One write.
#[derive(Debug, Clone)]
pub struct PendingWrite {
    /// Its id. None only for a replay of a copy that came without one.
    pub id: Option<WriteId>,
    /// Its number among the writes of this process.
    pub sequence: i64,
    /// What the owners get.
    pub entry: Entry,
    /// What its caller gets.
    pub outcome: WriteOutcome,
    /// An owner must keep it whether it has room or not.
    pub must_keep: bool,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The writes are brought to the owners.
    Writing,
    /// They were given up, and what the key had before is restored.
    Undoing(Refusal),
    /// What another process wrote is brought to the owners.
    Replaying,
}

/// What a request wants to write.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The key.
    pub key: Vec<u8>,
    /// The value. None deletes the key.
    pub value: Option<Value>,
    /// The same in every attempt.
    pub id: WriteId,
    /// An earlier attempt, which another process got, may have had effect.
    pub is_retry: bool,
    /// When the first attempt started, or before.
    pub started: Instant,
    /// The write must not start later. One that is not finished then is given up.
    pub deadline: Instant,
    /// Nothing is written unless it is met.
    pub condition: Option<Condition>,
}

/// On what a write depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// A client's: the key has this version; 0: it has no value. A tombstone counts as no value.
    Version(i64),
    /// That of a copy from a legacy node: nothing has been written since this version.
    Unchanged(i64),
}

impl Condition {
    /// The outcome of a write if this is not met by what the key has. None if it is met.
    ///
    /// The version of an entry never returns, so only "no value" can be met after it was not.
    pub fn unmet(self, held: Option<&Entry>) -> Option<WriteOutcome> {
        let version = held.map_or(0, |entry| entry.version);
        let existed = held.is_some_and(|entry| !entry.is_tombstone());
        let is_met = match self {
            Condition::Version(0) => !existed,
            Condition::Version(wanted) | Condition::Unchanged(wanted) => wanted == version,
        };
        (!is_met).then_some(WriteOutcome {
            version: if existed { version } else { 0 },
            existed,
            is_undone: false,
            is_unmet: true,
        })
    }
}

/// The reply of a primary to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteReply {
    /// It has taken effect.
    Done(WriteOutcome),
    /// The process is not the primary of the key, and did nothing.
    NotPrimary,
    /// It may be in progress: ask again with the same id.
    Unfinished,
    /// It has not taken effect and never will.
    Refused(Refusal),
}

impl KeyWrites {
    /// Writes of `key` in their order, after `before`, at this time. `own` is the version in this
    /// node's table.
    pub fn new(
        key: Key<'_>,
        ticket: WriteTicket,
        (before, own): (Option<Entry>, i64),
        requests: impl IntoIterator<Item = (WriteId, Option<Value>)>,
        unix_millis: i64,
        routing: &Routing,
    ) -> KeyWrites {
        let mut newest = before.as_ref().map_or(0, |entry| entry.version).max(own);
        let mut existed = before.as_ref().is_some_and(|entry| !entry.is_tombstone());
        let pending = |(id, value): (WriteId, Option<Value>)| {
            newest = routing.next_version(unix_millis, newest);
            let outcome = WriteOutcome {
                version: newest,
                existed,
                ..WriteOutcome::default()
            };
            existed = value.is_some();
            PendingWrite {
                id: Some(id),
                sequence: ticket.sequence().begin(),
                entry: Entry {
                    version: newest,
                    value,
                },
                outcome,
                must_keep: false,
            }
        };
        KeyWrites {
            writes: requests.into_iter().map(pending).collect(),
            key: key.bytes.to_vec(),
            point: key.point,
            ticket,
            before,
            is_conditional: false,
            stage: Stage::Writing,
            has_overtaken: false,
            kept_by: Vec::new(),
        }
    }

    /// The replay of a copy of `entry` that is not finished and whose coordinator is gone.
    pub fn replay(copy: UnfinishedCopy, entry: Entry, ticket: WriteTicket) -> KeyWrites {
        let sequence = ticket.sequence().begin();
        KeyWrites {
            point: Key::new(&copy.key).point,
            ticket,
            before: None,
            is_conditional: false,
            writes: vec![PendingWrite {
                id: copy.id,
                sequence,
                entry,
                outcome: copy.outcome,
                must_keep: true,
            }],
            key: copy.key,
            stage: Stage::Replaying,
            has_overtaken: false,
            kept_by: Vec::new(),
        }
    }

    /// Tells all owners that the condition of a write was not met by `entry`, so that no other
    /// attempt of it runs. The key does not change: what they have is replayed.
    pub fn note(
        key: Key<'_>,
        ticket: WriteTicket,
        entry: Entry,
        id: WriteId,
        outcome: WriteOutcome,
    ) -> KeyWrites {
        let copy = UnfinishedCopy {
            key: key.bytes.to_vec(),
            version: entry.version,
            id: Some(id),
            outcome,
        };
        KeyWrites::replay(copy, entry, ticket)
    }

    /// The only write depends on what the key had before: it must not overtake what others write.
    pub fn conditional(self) -> KeyWrites {
        KeyWrites {
            is_conditional: true,
            ..self
        }
    }

    /// The key.
    pub fn key(&self) -> Key<'_> {
        Key {
            point: self.point,
            bytes: &self.key,
        }
    }

    /// The writes in their order.
    pub fn writes(&self) -> &[PendingWrite] {
        &self.writes
    }

    /// The entry that stays: that of the last write.
    pub fn last(&self) -> Option<&Entry> {
        self.writes.last().map(|write| &write.entry)
    }

    /// The ticket, by which the rebalance counts these writes.
    pub fn ticket(&self) -> &WriteTicket {
        &self.ticket
    }

    /// The owners that do not have all of it yet.
    pub fn targets(&self, routing: &Routing) -> Vec<NodeId> {
        routing.targets(&self.ticket, self.key())
    }

    /// The version that stays: that of the last write.
    pub fn version(&self) -> i64 {
        self.last().map_or(0, |entry| entry.version)
    }

    /// An owner has all of it, as it was when it had that version. If it has another one by now,
    /// the owner must get that too.
    pub fn add_ack(&mut self, owner: NodeId, version: i64) {
        if version == self.version() {
            if self.is_replay() {
                self.kept_by.push(owner.clone());
            }
            self.ticket.add_ack(owner);
        }
    }

    /// An owner has this version of the key, which is larger, of another coordinator. The writes
    /// get larger ones, and all owners get them once more: what is acknowledged must be the newest
    /// of all that any owner has, whatever the clocks say. An undo needs nothing more there, and a
    /// replay is superseded, perhaps by the undo of its write: it must not be shown. A conditional
    /// write is given up, because what it depends on is being replaced: the larger version stays.
    pub fn on_newer(&mut self, owner: &NodeId, version: i64, now: i64, routing: &Routing) {
        if self.is_replay() {
            self.has_overtaken = true;
            self.ticket.add_ack(owner.clone());
            return;
        }
        if self.stage == Stage::Writing && self.is_conditional {
            self.restore(OVERTAKEN.into());
        }
        if self.stage != Stage::Writing || !routing.has_rule(Rule::OvertakeOwners) {
            self.ticket.add_ack(owner.clone());
            return;
        }
        if version < self.version() {
            // Of several owners that are newer, another one has had this effect already.
            return;
        }
        let mut newest = undo_of(version);
        for write in &mut self.writes {
            newest = routing.next_version(now, newest);
            write.entry.version = newest;
            write.outcome.version = newest;
        }
        self.has_overtaken = true;
        self.ticket.forget_acks();
    }

    /// This process has that version of the key itself, as an owner. Called before the writes are
    /// finished: a conditional write is given up if another one has come meanwhile.
    pub fn on_own(&mut self, version: i64) {
        let is_overtaken = version > self.version();
        if self.is_conditional && self.stage == Stage::Writing && is_overtaken {
            self.restore(OVERTAKEN.into());
        }
    }

    /// Gives the writes up for this reason: from now on what the key had before is restored.
    /// False for an undo or a replay, which are not given up, and for writes that may not be
    /// undone: then the owners must keep them.
    ///
    /// A write may be undone only if no other process has coordinated a write of the key since
    /// it began. What the key had before would come back over that one.
    pub fn give_up(&mut self, reason: Refusal, routing: &Routing) -> bool {
        if self.stage != Stage::Writing {
            return false;
        }
        let is_alone = !self.has_overtaken && routing.has_one_placement_since(&self.ticket);
        if !is_alone {
            self.writes
                .iter_mut()
                .for_each(|write| write.must_keep = true);
            return false;
        }
        self.restore(reason);
        true
    }

    /// From now on what the key had before is restored.
    fn restore(&mut self, reason: Refusal) {
        let newest = self.version();
        let before = self.before.take().unwrap_or_default();
        let entry = Entry {
            version: undo_of(newest),
            value: before.value,
        };
        for write in &mut self.writes {
            write.entry = entry.clone();
            write.outcome.is_undone = true;
            write.outcome.version = entry.version;
            write.must_keep = true;
        }
        self.ticket.forget_acks();
        self.stage = Stage::Undoing(reason);
    }

    /// Why the writes were given up, if they were.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.stage {
            Stage::Undoing(reason) => Some(reason),
            Stage::Writing | Stage::Replaying => None,
        }
    }

    /// Does this bring what another process wrote to the owners?
    pub fn is_replay(&self) -> bool {
        self.stage == Stage::Replaying
    }

    /// Is this a replay of a copy for which an owner has something newer?
    pub fn is_superseded(&self) -> bool {
        self.is_replay() && self.has_overtaken
    }

    /// All owners have replied to a superseded replay. Do some keep the copy? It must stay
    /// unfinished there, and is sent again until they have something newer too.
    pub fn is_kept(&self, routing: &Routing) -> bool {
        let mut kept_by = self.kept_by.iter();
        kept_by.any(|node| routing.is_owner(node, self.key()))
    }

    /// Sends a superseded replay to all owners again, with another ticket: what is newer may come
    /// with a rebalance that waits for the end of this one. Returns the ticket that is to be ended.
    pub fn replay_again(&mut self, ticket: WriteTicket) -> WriteTicket {
        if !Arc::ptr_eq(ticket.sequence(), self.ticket.sequence()) {
            // This process was declared down, and goes on as another one.
            return ticket;
        }
        self.kept_by.clear();
        self.has_overtaken = false;
        std::mem::replace(&mut self.ticket, ticket)
    }

    /// Gives the writes up to those that have copies.
    pub fn into_ticket(self) -> WriteTicket {
        self.ticket
    }

    /// All owners have it for good: others may show it. Returns the ticket.
    pub fn finish(self) -> WriteTicket {
        for write in &self.writes {
            self.ticket.sequence().finish(write.sequence);
        }
        self.ticket
    }
}
