//! What must hold for all processes together.

use std::cell::RefCell;

use thrifty_p2p::store::placement::{Key, NodeId, Placement};
use thrifty_p2p::store::table::{Cursor, Tombstone};
use thrifty_p2p::store::versions::Entry;

use super::process::{Health, Id};
use super::world::World;

impl World {
    /// Is every process a member, settled, and in the same placement as all others?
    pub fn is_settled(&self) -> bool {
        let members = self.members();
        let all = self.which(|process| process.health.is_sound());
        if members != all || members.is_empty() {
            return false;
        }
        let nodes: Vec<&NodeId> = members
            .iter()
            .map(|id| self.processes[*id].routing.me())
            .collect();
        members.iter().all(|id| {
            let process = &self.processes[*id];
            let routing = &process.routing;
            let current = routing.current();
            routing.is_settled()
                && routing.is_serving()
                && process.is_current(routing)
                && !process.is_behind()
                && current.members().len() == nodes.len()
                && nodes.iter().all(|node| current.contains(node))
        })
    }

    /// Is all settled, and has each process dropped what it does not own?
    pub fn is_at_rest(&self) -> bool {
        self.is_settled()
            && self.members().into_iter().all(|id| {
                let process = &self.processes[id];
                let routing = &process.routing;
                let current = routing.current();
                let is_foreign = |key: Key<'_>| !current.owns(routing.me(), key, self.replicas);
                let page =
                    process
                        .table
                        .page(&Cursor::default(), 1, usize::MAX, |_| true, is_foreign);
                page.entries.is_empty()
            })
    }

    /// At rest, no process has writes that are not finished: copies of all that came later would
    /// stay unfinished.
    pub fn check_sequences(&mut self) {
        for id in self.members() {
            let sequence = self.processes[id].routing.sequence().clone();
            let next = sequence.begin();
            let first = sequence.first_unfinished();
            sequence.finish(next);
            if first != next {
                let why = format!("{first} of {}", self.processes[id].location);
                self.check(Err(why), "a write is never finished");
            }
        }
    }

    /// Does any process read by a placement that this one is in? Or does it leave, and waits
    /// for a member that takes over what it holds?
    pub fn is_relied_on(&self, id: Id) -> bool {
        let rebalance = &self.processes[id].rebalance;
        let me = rebalance.me();
        if rebalance.current().is_empty() {
            return true;
        }
        let all = self.which(|process| process.health != Health::Ended);
        all.into_iter().any(|other| {
            let process = &self.processes[other];
            let published = process.routing.read_placement();
            let decided = process.rebalance.read_placement();
            let reads = published.into_iter().chain(decided);
            reads.into_iter().any(|read| read.contains(me))
        })
    }

    /// Does a process that is not admitted need this leaving one, because it knows no other, or
    /// only others that are not admitted either? It may have hung as soon as it had met it.
    pub fn is_only_contact(&self, leaver: Id) -> bool {
        let stays = |id: &Id| {
            let process = &self.processes[*id];
            process.health.is_sound() && !process.has_left()
        };
        let needs_list = |id: &Id| stays(id) && self.processes[*id].rebalance.wants_history();
        let successors = self.processes[leaver].rebalance.current();
        (0..self.processes.len()).filter(needs_list).any(|id| {
            let process = &self.processes[id];
            let snapshot = process.snapshot();
            let knows_another = snapshot.live.iter().any(|node| {
                let other = self.at(&node.location).filter(stays);
                other.is_some_and(|other| other != id)
            });
            let is_successor = successors.contains(process.rebalance.me());
            !is_successor && (successors.is_empty() || !knows_another)
        })
    }

    /// Every process that answers for the key, as an owner in a placement by which some
    /// serving process reads, must hold that version or a newer one. For the undo of a write it is
    /// enough that the process is writing a newer one: it holds what was restored.
    pub fn check_copies(&mut self, key: &[u8], version: i64, is_undo: bool) {
        let key = Key::new(key);
        for read in self.read_placements() {
            for id in self.running() {
                let process = &self.processes[id];
                let routing = &process.routing;
                let is_asked = read.owns(routing.me(), key, self.replicas)
                    && routing.may_read_at(read.id())
                    && process.is_current(routing);
                let held = process.table.version(key).unwrap_or_default();
                let pending = process.locked_keys.get(key.bytes).filter(|_| is_undo);
                let held = held.max(pending.copied().unwrap_or_default());
                if is_asked && held < version {
                    let why = format!("{} has {held}, not {version}", process.location);
                    self.log_statuses();
                    self.check(Err(why), "an owner lacks what was acknowledged");
                }
            }
        }
    }

    /// Drops keys of one stripe of a process's table, and checks that no serving process reads
    /// by a placement in which that process owns one of them.
    pub fn sweep_stripe(&mut self, id: Id, stripe: usize, keep: impl Fn(Key<'_>) -> bool) {
        let dropped = RefCell::new(Vec::new());
        let table = self.processes[id].table.clone();
        let keep_and_note = |key: Key<'_>, _: Option<Tombstone>| {
            let is_kept = keep(key);
            if !is_kept {
                dropped.borrow_mut().push(key.bytes.to_vec());
            }
            is_kept
        };
        table.sweep(stripe, false, || true, keep_and_note);
        let me = self.processes[id].routing.me().clone();
        for key in dropped.into_inner() {
            self.count("keys dropped");
            let mut reads = self.read_placements().into_iter();
            if reads.any(|read| read.owns(&me, Key::new(&key), self.replicas)) {
                let why = format!("by {}", me.location);
                self.check(Err(why), "a key was dropped that is still read");
            }
        }
    }

    /// The placements by which the processes that serve now read.
    fn read_placements(&self) -> Vec<std::sync::Arc<Placement>> {
        let readers = self.running().into_iter().filter_map(|id| {
            let process = &self.processes[id];
            let routing = &process.routing;
            let serves = routing.is_serving() && process.is_current(routing);
            routing.read_placement().filter(|_| serves).cloned()
        });
        readers.collect()
    }

    /// Exactly the owners hold each key, with what was acknowledged last. If a primary ended
    /// in the middle of a write, some may hold that write as well.
    pub fn check_all_copies(&mut self, keys: &[&[u8]]) {
        let members = self.members();
        let nodes = members
            .iter()
            .map(|id| self.processes[*id].routing.me().clone());
        let placement = Placement::new(nodes);
        for name in keys {
            let key = Key::new(name);
            let mut copies: Vec<Option<Entry>> = Vec::new();
            for id in members.iter().copied() {
                let process = &self.processes[id];
                let entry = process.table.read(key);
                if placement.owns(process.routing.me(), key, self.replicas) {
                    let result = self.promises.held(name, entry.as_ref());
                    let what = format!("at {}, what was acknowledged is lost", process.location);
                    self.check(result, &what);
                    copies.push(entry);
                } else if let Some(entry) = entry {
                    let why = format!("{} of {}", entry.version, process.location);
                    self.check(Err(why), "a copy was not dropped");
                }
            }
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                let why = format!("{} is {copies:?}", name.escape_ascii());
                self.check(Err(why), "the owners of a key have different entries");
            }
        }
    }

    fn log_statuses(&self) {
        for id in self.running() {
            let rebalance = &self.processes[id].rebalance;
            self.log(format_args!("{:x?}", rebalance.status_for(rebalance.me())));
        }
    }

    /// What each running process waits for.
    pub fn describe(&self) -> String {
        let describe = |id: Id| {
            let process = &self.processes[id];
            let rebalance = &process.rebalance;
            let tasks = self.tasks.iter().filter(|task| task.owner == Some(id));
            format!(
                "\n  left {}, tasks {}, locked keys {}, copying from {:?}, stale write {}, \
                 behind {}, serving {}, current {}, pulls from {}, peers {:?}, {:x?}",
                process.has_left(),
                tasks.count(),
                process.locked_keys.len(),
                process.pulling,
                process.has_stale_write,
                process.is_behind(),
                rebalance.is_serving(),
                process.is_current(&process.routing),
                rebalance.pulls().len(),
                rebalance.peers(),
                rebalance.status_for(rebalance.me()),
            )
        };
        let all: Vec<String> = self.running().into_iter().map(describe).collect();
        all.join("; ")
    }
}
