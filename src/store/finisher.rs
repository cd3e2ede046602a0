//! The finisher: a thread of a store that finishes what is left unfinished.
//!
//! * Writes of this node that an owner holds up: they go on until all owners have them, or are
//!   given up at their deadlines and undone.
//! * Copies here whose coordinator is gone, and may have died between two owners: it brings them
//!   to all owners, and then they can be read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::execution::Execution;
use super::key_writes::KeyWrites;
use super::placement::{Key, NodeId};
use super::rebalance::{Rule, WriteTicket};
use super::store::Store;
use crate::retry::jittered;

/// The pause between two rounds.
const RETRY: Duration = Duration::from_millis(10);

/// The pause when nothing is unfinished, unless something comes before.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The most copies that are replayed at the same time.
const MAX_REPLAYS: usize = 10_000;

/// Why a write was given up.
const LATE: &str = "the owners of the key could not be reached in time; the write was undone";

impl Store {
    /// Leaves writes to the finisher. Their callers ask for the results by their ids.
    pub(super) fn finish_later(&self, mut open: Vec<Execution>) {
        open.iter_mut().for_each(Execution::forget_caller);
        self.left_open.lock().append(&mut open);
        self.notify();
    }

    /// The finisher's thread, until the store stops.
    pub(super) fn finish_loop(&self) {
        let mut open: Vec<Execution> = Vec::new();
        while !self.is_stopped() {
            let changes = self.changes();
            open.append(&mut self.left_open.lock());
            self.replay_copies_of_the_gone(&mut open);
            if open.is_empty() {
                self.wait_for_change(changes, IDLE_INTERVAL);
                continue;
            }
            self.give_up_the_late(&mut open);
            self.replicate_round(&mut open);
            self.finish_done(&mut open, &mut []);
            // Also when nothing is left: a replay that was superseded may begin again.
            self.wait_for_change(self.changes(), jittered(RETRY));
        }
    }

    fn give_up_the_late(&self, open: &mut [Execution]) {
        let (now, routing) = (Instant::now(), self.routing());
        for execution in open {
            if execution.deadline.is_some_and(|deadline| deadline <= now)
                && routing.has_rule(Rule::Undo)
            {
                execution.writes.give_up(LATE.into(), &routing);
            }
        }
    }

    /// Adds the unfinished copies whose coordinator is gone.
    fn replay_copies_of_the_gone(&self, open: &mut Vec<Execution>) {
        let routing = self.routing();
        let may_replay = routing.may_replay() && routing.has_rule(Rule::Replay);
        let gone: Vec<NodeId> = self.unfinished.coordinators();
        let gone = gone.into_iter().filter(|node| routing.is_gone(node));
        for coordinator in gone.filter(|_| may_replay) {
            let in_progress = open.iter().filter_map(|open| open.replay_of.as_ref());
            let in_progress: BTreeSet<i64> = in_progress
                .filter(|(node, _)| *node == coordinator)
                .map(|(_, sequence)| *sequence)
                .collect();
            let copies = self.unfinished.of(&coordinator).all();
            for (sequence, copy) in copies {
                if in_progress.contains(&sequence) || open.len() >= MAX_REPLAYS {
                    continue;
                }
                let held = self.table.look_up(Key::new(&copy.key));
                let held = held.filter(|held| held.entry.version == copy.version);
                match held {
                    Some(held) if !held.is_finished => {
                        let ticket = self.begin_replay();
                        let writes = KeyWrites::replay(copy, held.entry, ticket);
                        open.push(Execution::replay(writes, coordinator.clone(), sequence));
                    }
                    // A newer entry has taken its place, or it is finished.
                    _ => self
                        .unfinished
                        .of(&coordinator)
                        .remove(sequence, copy.version),
                }
            }
            self.unfinished.forget(&coordinator);
        }
    }

    pub(super) fn begin_replay(&self) -> WriteTicket {
        loop {
            let routing = self.routing();
            let ticket = routing.begin_replay();
            if self.is_latest(&routing) {
                return ticket;
            }
            drop(ticket);
            self.rebalance().advance();
        }
    }
}
