//! `World`: all processes, what each knows of the others, and what clients were told.
//!
//! Membership is the real table of records, merged at every contact. What finds a
//! process down is perfect here: only what has ended, or was condemned while it
//! hung, is ever said to be down.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Member, MemberTable, Rng, Status};
use thrifty_p2p::store::rebalance::{Rebalance, Phase, Rules, MemberSnapshot};
use thrifty_p2p::store::table::{Key, Table};
use thrifty_p2p::store::placement::NodeId;

use super::promises::Promises;
use super::tasks::{Task, pause};

/// Names a process; one that restarts at its address is another.
pub type Id = usize;

/// The world as its tasks share it. Never borrowed across a pause.
pub type Net = Rc<RefCell<World>>;

/// Is a process there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Running,
    /// Stopped in its tracks; its callers wait in vain, but it may go on.
    Hung {
        /// Others may find it down meanwhile.
        condemned: bool,
    },
    /// Its process has ended.
    Ended,
}

impl Health {
    /// Is it there, and not to be found down?
    fn is_sound(self) -> bool {
        !matches!(self, Health::Ended | Health::Hung { condemned: true })
    }
}

/// One process of the network, as it was and is.
pub struct Process {
    pub location: Location,
    pub health: Health,
    pub members: MemberTable,
    pub moves: Rebalance,
    pub table: Rc<Table>,
    /// Has it joined, so that its teller and its puller run?
    pub entered: bool,
    /// Milliseconds that its clock is ahead.
    pub clock: i64,
    /// Keys whose turn is taken by a write under way here.
    pub turns: BTreeSet<Vec<u8>>,
    /// What its teller told last.
    pub told: Option<(u64, Phase, bool)>,
    /// Sources that a page is being copied from.
    pub pulling: BTreeSet<NodeId>,
    /// A copy came from a primary with another view.
    pub disturbed: bool,
}

/// A call that nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

/// Everything that has happened, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// All processes, all tasks, and what holds between them.
pub struct World {
    pub random: Random,
    pub rules: Rules,
    pub replicas: usize,
    pub processes: Vec<Process>,
    pub tasks: Vec<Task>,
    pub promises: Promises,
    pub counts: Counts,
    /// Is the story told while it happens?
    pub narrated: bool,
    /// The first promise that was broken.
    pub broken: Option<String>,
    pub now: i64,
    /// Sudden deaths since all was settled last, and how many may be.
    pub deaths: usize,
    pub tolerated: usize,
    /// The members when all was settled last.
    pub base: BTreeSet<Id>,
}

impl World {
    pub fn new(seed: u64, replicas: usize, rules: Rules) -> World {
        World {
            random: Random::new(seed),
            rules,
            replicas,
            processes: Vec::new(),
            tasks: Vec::new(),
            promises: Promises::default(),
            counts: Counts::new(),
            narrated: std::env::var_os("SCHEDULE_SEED").is_some(),
            broken: None,
            now: 1_000_000,
            deaths: 0,
            tolerated: 0,
            base: BTreeSet::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.narrate(what);
        *self.counts.entry(what).or_default() += 1;
    }

    /// Tells what happens, when one schedule is run again.
    pub fn narrate(&self, what: impl std::fmt::Display) {
        if self.narrated {
            println!("{}: {what}", self.now);
        }
    }

    pub fn check(&mut self, outcome: Result<(), String>, what: &str) {
        if let Err(why) = outcome {
            let at = self.now;
            self.broken
                .get_or_insert(format!("{what}: {why} (at {at})"));
        }
    }

    /// Milliseconds by a node's clock, which is coarse, so that two may agree.
    pub fn millis(&self, id: Id) -> i64 {
        self.now / 200 + self.processes[id].clock
    }

    pub fn choose<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        if some.is_empty() {
            return None;
        }
        let index = self.random.below(some.len());
        Some(some[index])
    }

    /// Happens once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.random.below(times) == 0
    }

    // Processes.

    /// Starts a process, which knows nobody, at `location`; it may insist on a number of copies.
    pub fn start(&mut self, location: Location, replicas: Option<usize>) -> Id {
        self.now += 1;
        let mine = Member {
            location: location.clone(),
            incarnation: self.now,
            status: Status::Alive,
            started: self.now,
        };
        let me = NodeId::new(location.clone(), mine.started);
        let mut members = MemberTable::default();
        members.merge(mine);
        let clock = self.random.below(5) as i64;
        self.processes.push(Process {
            location,
            health: Health::Running,
            members,
            moves: Rebalance::new(me, replicas, self.rules),
            table: Rc::new(Table::new()),
            entered: false,
            clock,
            turns: BTreeSet::new(),
            told: None,
            pulling: BTreeSet::new(),
            disturbed: false,
        });
        self.processes.len() - 1
    }

    /// Those that run now.
    pub fn running(&self) -> Vec<Id> {
        self.which(|process| process.health == Health::Running)
    }

    /// Those that run now and serve as members.
    pub fn members(&self) -> Vec<Id> {
        self.which(|process| process.health == Health::Running && process.entered)
            .into_iter()
            .filter(|id| self.status_of_self(*id) == Status::Alive)
            .collect()
    }

    pub fn which(&self, wanted: impl Fn(&Process) -> bool) -> Vec<Id> {
        (0..self.processes.len())
            .filter(|id| wanted(&self.processes[*id]))
            .collect()
    }

    /// Who is at that address, running or hung.
    pub fn at(&self, location: &Location) -> Option<Id> {
        (0..self.processes.len()).find(|id| {
            let process = &self.processes[*id];
            process.health != Health::Ended && process.location == *location
        })
    }

    pub fn moves(&mut self, id: Id) -> &mut Rebalance {
        &mut self.processes[id].moves
    }

    /// A process ends; whatever it was doing ends with it.
    pub fn end(&mut self, id: Id) {
        self.processes[id].health = Health::Ended;
        self.tasks.retain(|task| task.owner != Some(id));
    }

    /// It goes on after it hung, and finds that it has heard nobody for long.
    pub fn resume(&mut self, id: Id) {
        self.processes[id].health = Health::Running;
        self.moves(id).lose_touch();
    }

    // Membership.

    pub fn status_of_self(&self, id: Id) -> Status {
        let process = &self.processes[id];
        let mine = process.members.get(&process.location);
        mine.map_or(Status::Down, |mine| mine.status)
    }

    pub fn records(&self, id: Id) -> Vec<Member> {
        self.processes[id].members.iter().cloned().collect()
    }

    /// Takes in what another one knows. Who reads of his own death begins anew.
    pub fn merge(&mut self, id: Id, records: Vec<Member>) {
        let now = self.now;
        let process = &mut self.processes[id];
        for record in records {
            process.members.merge(record);
        }
        let mine = process.members.get(&process.location).cloned();
        if let Some(mine) = mine.filter(|mine| mine.status == Status::Down) {
            let incarnation = now.max(mine.incarnation + 1);
            process.members.merge(Member {
                incarnation,
                started: incarnation,
                status: Status::Alive,
                ..mine
            });
            self.count("returns");
        }
        self.stand(id);
    }

    pub fn leave(&mut self, id: Id) {
        let process = &mut self.processes[id];
        if let Some(mine) = process.members.get(&process.location).cloned() {
            process.members.merge(mine.with_status(Status::Left));
        }
        self.stand(id);
    }

    /// A call to that address was in vain: whoever was there is down, if it is.
    pub fn found_unreachable(&mut self, id: Id, location: &Location) {
        let is_there = self
            .at(location)
            .is_some_and(|there| self.processes[there].health != Health::Hung { condemned: true });
        let process = &mut self.processes[id];
        if let Some(record) = process.members.get(location).cloned()
            && record.status == Status::Alive
            && !is_there
        {
            process.members.merge(record.with_status(Status::Down));
            self.stand(id);
        }
    }

    pub fn is_down(&self, id: Id, location: &Location) -> bool {
        let record = self.processes[id].members.get(location);
        record.is_none_or(|record| record.status == Status::Down)
    }

    /// Tells the moves what membership knows, as the shell does whenever it looks.
    fn stand(&mut self, id: Id) {
        let process = &mut self.processes[id];
        let peer = |member: &Member| NodeId::new(member.location.clone(), member.started);
        let Some(mine) = process.members.get(&process.location) else {
            return;
        };
        let live = process.members.iter().filter(|m| m.status.is_live());
        let left = process
            .members
            .iter()
            .filter(|m| m.status == Status::Left && m.location != process.location);
        let standing = MemberSnapshot {
            me: peer(mine),
            live: live.map(peer).collect(),
            leaving: left.map(peer).collect(),
        };
        process.moves.stand(standing);
        let moves = &self.processes[id].moves;
        let (me, view) = (moves.me(), moves.current());
        let members: Vec<String> = view.members().map(|peer| name(&peer)).collect();
        self.narrate(format_args!(
            "{} has {:x}: {}",
            name(me),
            view.id(),
            members.join(" ")
        ));
    }

    // What holds for all.

    /// Is every member at rest, and of one mind?
    pub fn is_settled(&self) -> bool {
        let members = self.members();
        let all = self.which(|process| process.health.is_sound());
        if members != all || members.is_empty() {
            return false;
        }
        let peers: Vec<&NodeId> = members
            .iter()
            .map(|id| self.processes[*id].moves.me())
            .collect();
        members.iter().all(|id| {
            let moves = &self.processes[*id].moves;
            let view = moves.current();
            let same = || peers.iter().all(|peer| view.contains(peer));
            moves.is_settled()
                && moves.is_serving()
                && view.members().len() == peers.len()
                && same()
        })
    }

    /// Would one who is there and not in this leaver's view be alone without it, or with
    /// others who know as little? It may be one that hung as soon as it had met the leaver.
    pub fn would_strand(&self, leaver: Id) -> bool {
        let stays = |id: &Id| {
            self.processes[*id].health.is_sound() && self.status_of_self(*id) == Status::Alive
        };
        let heirs = self.processes[leaver].moves.current();
        (0..self.processes.len()).filter(stays).any(|id| {
            let process = &self.processes[id];
            let knows_another = process.members.iter().any(|member| {
                let other = self.at(&member.location).filter(stays);
                member.status != Status::Left && other.is_some_and(|other| other != id)
            });
            !heirs.contains(process.moves.me()) && (heirs.is_empty() || !knows_another)
        })
    }

    /// Does anybody read by a view that this process is in?
    pub fn is_relied_on(&self, id: Id) -> bool {
        let me = self.processes[id].moves.me();
        let all = self.which(|process| process.health != Health::Ended);
        all.into_iter().any(|other| {
            let read = self.processes[other].moves.read_view();
            read.is_some_and(|read| read.contains(me))
        })
    }

    /// All who answer for the key, as owners in a view that somebody who serves reads
    /// by, must hold that version, or a newer one.
    pub fn check_copies(&mut self, key: &[u8], version: i64) {
        let key = Key::new(key);
        for reader in self.running() {
            let moves = &self.processes[reader].moves;
            let Some(read) = moves.read_view().filter(|_| moves.is_serving()).cloned() else {
                continue;
            };
            let owners: Vec<NodeId> = read.owners(key, self.replicas).collect();
            for id in self.running() {
                let process = &self.processes[id];
                let held = process.table.read(key).map_or(0, |entry| entry.version);
                let moves = &process.moves;
                let is_asked = owners.contains(moves.me()) && moves.may_answer(read.id());
                if is_asked && held < version {
                    let me = process.moves.me().location.clone();
                    let why = format!("{me} has {held}, not {version}");
                    for id in self.running() {
                        let moves = &self.processes[id].moves;
                        self.narrate(format_args!("{:x?}", moves.word(moves.me())));
                    }
                    self.check(Err(why), "an owner lacks what was acknowledged");
                }
            }
        }
    }

    /// Nobody who serves may read by a view in which `id` owns the key.
    pub fn check_dropped(&mut self, id: Id, key: &[u8]) {
        let key = Key::new(key);
        let me = self.processes[id].moves.me().clone();
        let relied = self.running().into_iter().any(|reader| {
            let moves = &self.processes[reader].moves;
            let read = moves.read_view().filter(|_| moves.is_serving());
            read.is_some_and(|read| read.owns(&me, key, self.replicas))
        });
        if relied {
            let why = format!("by {}", me.location);
            self.check(Err(why), "a key was dropped that is still read");
        }
    }
}

/// The port and the start of a process.
pub fn name(peer: &NodeId) -> String {
    format!("{}@{}", peer.location.port(), peer.started % 1_000_000)
}

/// Calls whoever is at `location` and waits for the answer, or until there is
/// clearly none to come. The call is carried out there whatever becomes of the dialer.
pub async fn call<T: 'static, F: Future<Output = T> + 'static>(
    net: &Net,
    location: &Location,
    handle: impl FnOnce(Net, Id) -> F,
) -> Result<T, Unreachable> {
    pause().await;
    let Some(there) = net.borrow().at(location) else {
        return Err(Unreachable);
    };
    let answer = Rc::new(RefCell::new(None));
    let (slot, handled) = (answer.clone(), handle(net.clone(), there));
    net.borrow_mut()
        .tasks
        .push(Task::new(Some(there), async move {
            let answered = handled.await;
            *slot.borrow_mut() = Some(answered);
        }));
    loop {
        pause().await;
        if let Some(answered) = answer.borrow_mut().take() {
            return Ok(answered);
        }
        let mut world = net.borrow_mut();
        let health = world.processes[there].health;
        match health {
            Health::Running => (),
            Health::Hung { .. } if world.once_in(4) => return Err(Unreachable),
            Health::Hung { .. } => (),
            Health::Ended => return Err(Unreachable),
        }
    }
}

/// Calls as a node does: a call in vain is news for the membership.
pub async fn call_from<T: 'static, F: Future<Output = T> + 'static>(
    net: &Net,
    id: Id,
    location: &Location,
    handle: impl FnOnce(Net, Id) -> F,
) -> Result<T, Unreachable> {
    let answered = call(net, location, handle).await;
    if answered.is_err() {
        net.borrow_mut().found_unreachable(id, location);
    }
    answered
}

/// Exchanges what both know of all members; was there an answer?
pub async fn contact(net: &Net, id: Id, location: &Location) -> bool {
    let mine = net.borrow().records(id);
    let exchanged = call_from(net, id, location, |net, there| async move {
        net.borrow_mut().merge(there, mine);
        net.borrow().records(there)
    });
    match exchanged.await {
        Ok(theirs) => {
            net.borrow_mut().merge(id, theirs);
            true
        }
        Err(Unreachable) => false,
    }
}
