//! `Execution`: writes of one key in progress at this node, with what they hold.

use std::time::Instant;

use super::durable::committer::Ticket;
use super::durable::row::Change;
use super::key_writes::KeyWrites;
use super::placement::NodeId;
use super::write_locks::WriteGuard;

/// Writes of one key in progress.
pub(super) struct Execution {
    pub writes: KeyWrites,
    /// When they are given up. None for a replay and for a note.
    pub deadline: Option<Instant>,
    /// The indexes of the requests.
    pub indexes: Vec<usize>,
    /// None for a replay.
    pub lock: Option<WriteGuard>,
    /// The version that is on its way to disk here, with its place in the order.
    pub appended: (i64, Ticket),
    /// Of a replay: who coordinated the write, and its number there.
    pub replay_of: Option<(NodeId, i64)>,
}

impl Execution {
    /// Brings what a process that is gone has left unfinished to all owners.
    pub fn replay(writes: KeyWrites, coordinator: NodeId, sequence: i64) -> Execution {
        Execution {
            // What is replayed is here already.
            appended: (writes.version(), Ticket::default()),
            writes,
            deadline: None,
            indexes: Vec::new(),
            lock: None,
            replay_of: Some((coordinator, sequence)),
        }
    }

    /// Tells the owners of a locked key the outcome of the request with that index.
    pub fn of_note(writes: KeyWrites, index: usize, lock: WriteGuard) -> Execution {
        Execution {
            appended: Default::default(),
            writes,
            deadline: None,
            indexes: vec![index],
            lock: Some(lock),
            replay_of: None,
        }
    }

    /// Notes the version that is being written: a copy of another process with a smaller one is
    /// told so, because this one may be undone by what the key had before.
    pub fn note_version(&self) {
        if let (Some(lock), Some(last)) = (&self.lock, self.writes.last())
            && !self.writes.is_replay()
        {
            lock.set_version(last.version);
        }
    }

    /// The change of what stays, unless it is on its way to disk already.
    pub fn change(&self) -> Option<Change> {
        let writes = &self.writes;
        let last = writes.writes().last()?;
        let is_new = self.appended.0 != writes.version();
        let write = last.id.map(|id| (id, last.outcome));
        is_new.then(|| Change::write(writes.key(), &last.entry, write))
    }

    /// The caller has been told to ask again.
    pub fn forget_caller(&mut self) {
        self.indexes.clear();
    }
}
