//! `SmallStore`: a [`SmallNetwork`] whose nodes write and read its key, each step when a test
//! says so. The steps decide as those of the schedules do (`writes`, `copies`, `reads`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Instant;

use thrifty_p2p::store::key_writes::{Condition, KeyWrites};
use thrifty_p2p::store::placement::NodeId;
use thrifty_p2p::store::rebalance::{MemberSnapshot, ReadRoute, Routing, Rule, Rules};
use thrifty_p2p::store::recent_writes::{Recall, RecentWrites, WriteId};
use thrifty_p2p::store::table::Applied;
use thrifty_p2p::store::unfinished_copies::{UnfinishedCopies, UnfinishedCopy};
use thrifty_p2p::store::versions::{Entry, Value};

use super::copies::Sent;
use super::small_network::SmallNetwork;

/// Milliseconds after which a caller gives up.
pub const TIMEOUT: u64 = 10_000;

/// Rounds in which a write reaches all owners that can be reached.
const ROUNDS: usize = 4;

/// A small network, and what its nodes know of writes and of each other.
pub struct SmallStore {
    pub network: SmallNetwork,
    rules: Rules,
    nodes: Vec<Node>,
    /// Milliseconds since the start.
    now: Cell<u64>,
    /// The number of the last write.
    last: Cell<i64>,
}

#[derive(Default)]
struct Node {
    /// It is dead or hangs: calls to it fail.
    is_silent: Cell<bool>,
    /// Milliseconds that its clock is ahead.
    ahead: Cell<i64>,
    recent: RecentWrites,
    unfinished: UnfinishedCopies,
    /// The version that is being written here, 0 if none.
    pending: Cell<i64>,
    /// The processes that it has heard of, and those of them that are down.
    known: RefCell<BTreeSet<NodeId>>,
    down: RefCell<BTreeSet<NodeId>>,
}

/// A write of the key.
pub struct Request {
    id: WriteId,
    /// None to delete the key.
    value: Option<Value>,
    condition: Option<Condition>,
    /// Another process may have executed an earlier attempt.
    is_retry: bool,
    deadline: u64,
}

impl Request {
    /// The client tries again, perhaps by way of another process.
    pub fn try_again(&mut self, store: &SmallStore) {
        self.is_retry = true;
        self.deadline = store.now.get() + TIMEOUT;
    }
}

/// The reply of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Done,
    NotPrimary,
    Unfinished,
    Refused,
    /// Its condition was not met.
    Unmet,
}

impl SmallStore {
    /// So many settled nodes. The key has the value "red" at its owners.
    pub fn settled(count: usize, replicas: usize, rules: Rules) -> SmallStore {
        let network = SmallNetwork::new(count, replicas, rules);
        let all: Vec<usize> = (0..count).collect();
        network.change(0, |rebalance| rebalance.bootstrap(replicas));
        let ids: BTreeSet<NodeId> = all.iter().map(|n| network.at(*n).me().clone()).collect();
        let node = |_: &usize| Node {
            known: RefCell::new(ids.clone()),
            ..Node::default()
        };
        let store = SmallStore {
            nodes: all.iter().map(node).collect(),
            network,
            rules,
            now: Cell::new(1_000),
            last: Cell::new(0),
        };
        all.iter().for_each(|node| store.learn(*node));
        store.network.exchange(&all, &all);
        for node in all {
            assert!(store.network.at(node).is_settled());
            let routing = store.routing(node);
            let me = routing.me();
            if routing.current().owns(me, SmallNetwork::key(), replicas) {
                store.network.apply(node);
            }
        }
        store
    }

    /// All nodes, in the order in which they own the key. The first is its primary.
    pub fn ranked<const N: usize>(&self) -> [usize; N] {
        let routing = self.routing(0);
        let owners = routing.current().owners(SmallNetwork::key(), N);
        let ranked: Vec<usize> = owners.map(|owner| self.node_at(owner)).collect();
        ranked.try_into().expect("as many nodes")
    }

    /// So many milliseconds pass.
    pub fn pass(&self, millis: u64) {
        self.now.set(self.now.get() + millis);
    }

    /// The clock of a node is that far ahead, in milliseconds.
    pub fn set_ahead(&self, node: usize, millis: i64) {
        self.nodes[node].ahead.set(millis);
    }

    /// A node dies or hangs, or continues.
    pub fn set_silent(&self, node: usize, is_silent: bool) {
        self.nodes[node].is_silent.set(is_silent);
    }

    /// A node finds that it has heard no other one for long.
    pub fn isolate(&self, node: usize) {
        self.network.change(node, |rebalance| {
            rebalance.suspend_lease(rebalance.isolations() + 1);
        });
    }

    /// The node `at` declares another one down.
    pub fn declare_down(&self, at: usize, node: usize) {
        let id = self.network.at(node).me().clone();
        self.nodes[at].down.borrow_mut().insert(id);
        self.learn(at);
    }

    /// Two nodes tell each other what they know of the members.
    pub fn push_pull(&self, one: usize, other: usize) {
        // A process that hears that it was declared down tells that it joins again.
        for (from, to) in [(one, other), (other, one), (one, other)] {
            let (from, to_node) = (&self.nodes[from], &self.nodes[to]);
            let known = from.known.borrow().clone();
            to_node.known.borrow_mut().extend(known);
            let down = from.down.borrow().clone();
            to_node.down.borrow_mut().extend(down);
            self.learn(to);
        }
    }

    /// The rebalance of a node accounts for what it knows of the members. One that was declared
    /// down joins again.
    fn learn(&self, node: usize) {
        let mut me = self.network.at(node).me().clone();
        let (mut known, down) = (
            self.nodes[node].known.borrow_mut(),
            self.nodes[node].down.borrow(),
        );
        if down.contains(&me) {
            me.generation += 1;
            known.insert(me.clone());
        }
        let members = MemberSnapshot {
            me,
            live: known.difference(&down).cloned().collect(),
            leaving: BTreeSet::new(),
        };
        self.network
            .change(node, |rebalance| rebalance.update_members(members));
    }

    fn routing(&self, node: usize) -> Routing {
        self.network.at(node).routing()
    }

    /// The node at the location of that process.
    fn node_at(&self, process: &NodeId) -> usize {
        let is_there = |node: &usize| self.network.at(*node).me().location == process.location;
        let node = (0..self.nodes.len()).find(is_there);
        node.expect("a node of the network")
    }

    fn millis(&self, node: usize) -> i64 {
        self.now.get() as i64 + self.nodes[node].ahead.get()
    }

    /// A client wants to write this value.
    pub fn request(&self, value: &str) -> Request {
        Request {
            value: Some(value.as_bytes().to_vec().into()),
            ..self.deletion()
        }
    }

    /// A client wants to write this value if the key has none.
    pub fn request_if_absent(&self, value: &str) -> Request {
        Request {
            condition: Some(Condition::Version(0)),
            ..self.request(value)
        }
    }

    /// A client wants to delete the key.
    pub fn deletion(&self) -> Request {
        self.last.set(self.last.get() + 1);
        Request {
            id: WriteId {
                origin: 1,
                number: self.last.get(),
            },
            value: None,
            condition: None,
            is_retry: false,
            deadline: self.now.get() + TIMEOUT,
        }
    }

    /// A request arrives at `node`, which executes it as far as it can.
    pub fn write(&self, node: usize, request: &Request) -> Reply {
        match self.begin(node, request) {
            Ok(mut writes) => {
                self.send_to_all(node, &mut writes);
                self.finish(node, writes)
            }
            Err(reply) => reply,
        }
    }

    /// Finds out whether the write is to be executed at `node`, and assigns its version.
    pub fn begin(&self, node: usize, request: &Request) -> Result<KeyWrites, Reply> {
        if self.now.get() >= request.deadline && self.rules.has(Rule::RefuseTheLate) {
            return Err(Reply::Unfinished);
        }
        if self.rules.has(Rule::RunOnce) {
            self.recall(node, request)?;
        }
        let (key, routing) = (SmallNetwork::key(), self.routing(node));
        let ticket = routing.begin_write(key).ok_or(Reply::NotPrimary)?;
        let before = self.read_entry(node).ok_or(Reply::Unfinished)?;
        let own = self.network.table(node).version(key).unwrap_or_default();
        if let Some(condition) = request.condition
            && let Some(outcome) = condition.unmet(before.as_ref())
        {
            let is_noted = request.is_retry && self.rules.has(Rule::NoteUnmet);
            if let Some(entry) = before.filter(|_| is_noted) {
                return Ok(KeyWrites::note(key, ticket, entry, request.id, outcome));
            }
            let recent = &self.nodes[node].recent;
            recent.record(request.id, outcome, self.now.get());
            return Err(Reply::Unmet);
        }
        let write = (request.id, request.value.clone());
        let millis = self.millis(node);
        let mut writes = KeyWrites::new(key, ticket, (before, own), [write], millis, &routing);
        if request.condition.is_some() {
            writes = writes.conditional();
        }
        self.nodes[node].recent.begin(request.id, self.now.get());
        Ok(writes)
    }

    /// Answers a write whose result is known here or, if this is a retry, elsewhere.
    fn recall(&self, node: usize, request: &Request) -> Result<(), Reply> {
        let recall = |node: usize| self.nodes[node].recent.recall(request.id, self.now.get());
        let mut recalled = recall(node);
        if recalled == Recall::Unknown && request.is_retry {
            for peer in self.network.at(node).peers() {
                let peer = self.node_at(&peer);
                let elsewhere = match self.nodes[peer].is_silent.get() {
                    true => Recall::Running,
                    false => recall(peer),
                };
                if elsewhere != Recall::Unknown {
                    recalled = elsewhere;
                }
            }
        }
        match recalled {
            Recall::Unknown => Ok(()),
            Recall::Known(outcome) if self.read_local(node).is_some() => {
                Err(match outcome.is_undone {
                    true => Reply::Refused,
                    false if outcome.is_unmet => Reply::Unmet,
                    false => Reply::Done,
                })
            }
            _ => Err(Reply::Unfinished),
        }
    }

    /// Gives a write up that is late. False if it goes on.
    pub fn give_up_if_late(&self, node: usize, request: &Request, writes: &mut KeyWrites) -> bool {
        self.now.get() >= request.deadline
            && self.rules.has(Rule::Undo)
            && writes.give_up("late".into(), &self.routing(node))
    }

    /// Sends copies to all owners that lack them and can be reached.
    pub fn send_to_all(&self, node: usize, writes: &mut KeyWrites) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for _ in 0..ROUNDS {
            self.send(node, writes, &all);
        }
    }

    /// Sends copies to those of the owners that lack them and are among `reachable`.
    pub fn send(&self, node: usize, writes: &mut KeyWrites, reachable: &[usize]) {
        if !writes.is_replay() {
            self.nodes[node].pending.set(writes.version());
        }
        let routing = self.routing(node);
        for owner in writes.targets(&routing) {
            let there = self.node_at(&owner);
            if !reachable.contains(&there) || self.nodes[there].is_silent.get() {
                continue;
            }
            match self.keep(there, writes) {
                Sent::Kept(id) if routing.counts_copy_at(id) => {
                    writes.add_ack(owner, writes.version());
                }
                Sent::Kept(_) | Sent::Fenced => self.push_pull(node, there),
                Sent::Newer(newer, finished) => {
                    if let Some(entry) = finished.filter(|_| writes.is_replay()) {
                        self.network.table(node).apply(SmallNetwork::key(), entry);
                    }
                    writes.on_newer(&owner, newer, self.millis(node), &routing);
                }
            }
        }
    }

    /// A node keeps a copy, if its coordinator takes part as it knows.
    fn keep(&self, node: usize, writes: &KeyWrites) -> Sent {
        let (key, routing) = (SmallNetwork::key(), self.routing(node));
        let sequence = writes.ticket().sequence();
        let coordinator = sequence.coordinator();
        if routing.is_gone(coordinator) && self.rules.has(Rule::FenceTheGone) {
            return Sent::Fenced;
        }
        let (table, here) = (self.network.table(node), &self.nodes[node]);
        let write = &writes.writes()[0];
        let version = write.entry.version;
        let pending = here.pending.get();
        if pending >= version && self.rules.has(Rule::OvertakeOwners) {
            return Sent::Newer(pending, None);
        }
        let is_new = match table.apply_copy(key, write.entry.clone()) {
            Applied::Older(newer) => {
                let held = table.look_up(key).filter(|held| held.is_finished);
                return Sent::Newer(newer, held.map(|held| held.entry));
            }
            Applied::Kept => true,
            Applied::Known(is_finished) => !is_finished,
        };
        if let Some(id) = write.id {
            here.recent.record(id, write.outcome, self.now.get());
        }
        let copy = UnfinishedCopy {
            key: key.bytes.to_vec(),
            version,
            id: write.id,
            outcome: write.outcome,
        };
        let mut copies = here.unfinished.of(coordinator);
        if is_new && !copies.add(write.sequence, copy) {
            table.finish(key, version);
        }
        for copy in copies.finish_before(sequence.first_unfinished()) {
            table.finish(key, copy.version);
        }
        Sent::Kept(routing.current().id())
    }

    /// Finishes a write that all owners have. Otherwise the process ends it without a result.
    pub fn finish(&self, node: usize, writes: KeyWrites) -> Reply {
        let (key, routing) = (SmallNetwork::key(), self.routing(node));
        let (table, here) = (self.network.table(node), &self.nodes[node]);
        let write = writes.writes()[0].clone();
        let may_finish = routing.may_finish(writes.ticket());
        let is_replay = writes.is_replay();
        let has_all = writes.targets(&routing).is_empty() && !writes.is_superseded();
        let reply = if !may_finish || !has_all {
            Reply::Unfinished
        } else {
            match is_replay {
                true => table.finish(key, write.entry.version),
                false => drop(table.apply(key, write.entry)),
            }
            if let Some(id) = write.id {
                here.recent.record(id, write.outcome, self.now.get());
            }
            let is_undone = writes.refusal().is_some();
            drop(writes.finish());
            match is_undone {
                true => Reply::Refused,
                false if write.outcome.is_unmet => Reply::Unmet,
                false => Reply::Done,
            }
        };
        if !is_replay {
            here.pending.set(0);
        }
        self.network.change(node, |rebalance| rebalance.advance());
        reply
    }

    /// A node brings the unfinished copies of processes that are gone to all owners.
    pub fn replay(&self, node: usize) {
        let (key, routing) = (SmallNetwork::key(), self.routing(node));
        if !routing.may_replay() || !self.rules.has(Rule::Replay) {
            return;
        }
        let unfinished = &self.nodes[node].unfinished;
        for coordinator in unfinished.coordinators() {
            if !routing.is_gone(&coordinator) {
                continue;
            }
            let copies = unfinished.of(&coordinator).all();
            for (sequence, copy) in copies {
                let version = copy.version;
                let held = self.network.table(node).look_up(key);
                if let Some(held) = held.filter(|held| held.entry.version == version)
                    && !held.is_finished
                {
                    let mut writes = KeyWrites::replay(copy, held.entry, routing.begin_replay());
                    self.send_to_all(node, &mut writes);
                    if self.finish(node, writes) != Reply::Done {
                        continue;
                    }
                }
                unfinished.of(&coordinator).remove(sequence, version);
            }
            unfinished.forget(&coordinator);
        }
    }

    /// A client reads the key through `node`. None if the read is refused, or if it has no value.
    pub fn read(&self, node: usize) -> Option<String> {
        let entry = self.read_entry(node)??;
        Some(String::from_utf8_lossy(&entry.value?).into_owned())
    }

    /// What the first owner of the key holds, as `node` knows. None if that may not answer.
    fn read_entry(&self, node: usize) -> Option<Option<Entry>> {
        match self.routing(node).read_route(SmallNetwork::key()) {
            ReadRoute::Local => self.read_local(node),
            ReadRoute::Remote(placement_id, owner) => {
                let there = self.node_at(&owner);
                let may_answer = !self.nodes[there].is_silent.get()
                    && self
                        .routing(there)
                        .may_answer(placement_id, SmallNetwork::key());
                may_answer.then(|| self.read_local(there))?
            }
            ReadRoute::Unavailable => None,
        }
    }

    /// What a node holds, when the write of it is finished.
    fn read_local(&self, node: usize) -> Option<Option<Entry>> {
        let (key, table) = (SmallNetwork::key(), self.network.table(node));
        let Some(held) = table.look_up(key) else {
            return Some(None);
        };
        if held.is_finished || !self.rules.has(Rule::FinishBeforeReading) {
            return Some(Some(held.entry));
        }
        let unfinished = &self.nodes[node].unfinished;
        let version = held.entry.version;
        let (coordinator, sequence) = unfinished.coordinator(key.bytes, version, |_| false)?;
        let there = self.node_at(&coordinator);
        if self.routing(node).is_gone(&coordinator) || self.nodes[there].is_silent.get() {
            return None;
        }
        let routing = self.routing(there);
        let is_finished = *routing.me() == coordinator
            && (routing.sequence()).wait_until_finished(sequence, Instant::now());
        is_finished.then(|| {
            unfinished.of(&coordinator).remove(sequence, version);
            table.finish(key, version);
            Some(held.entry)
        })
    }
}
