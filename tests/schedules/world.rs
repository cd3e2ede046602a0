//! `World`: all processes, all tasks, and what clients know.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Rng, Tags};
use thrifty_p2p::store::rebalance::{Routing, Rules};

use super::histories::Histories;
use super::process::{Health, Id, Process, name};
use super::promises::Promises;
use super::tasks::Task;

/// The world as its tasks share it. Never borrowed across a pause.
pub type Net = Rc<RefCell<World>>;

/// How often each thing has happened.
pub type Counts = BTreeMap<&'static str, u64>;

/// All processes and tasks.
pub struct World {
    pub rng: Rng,
    pub rules: Rules,
    pub replicas: usize,
    /// Processes start in so many zones. 0: none has one.
    pub zones: usize,
    pub processes: Vec<Process>,
    pub tasks: Vec<Task>,
    pub promises: Promises,
    pub histories: Histories,
    pub counts: Counts,
    /// Print what happens?
    pub is_verbose: bool,
    /// The first promise that was broken.
    pub broken: Option<String>,
    /// The number of steps so far, which is also the time.
    pub now: i64,
    /// Sudden deaths since all was last settled, and how many are promised to be harmless.
    pub deaths: usize,
    pub tolerated: usize,
    /// The members when all was last settled.
    pub base: BTreeSet<Id>,
}

impl World {
    pub fn new(seed: u64, replicas: usize, rules: Rules) -> World {
        World {
            rng: Rng::new(seed),
            rules,
            replicas,
            zones: [0, 0, 2, 3][(seed / 3 % 4) as usize],
            processes: Vec::new(),
            tasks: Vec::new(),
            promises: Promises::default(),
            histories: Histories::default(),
            counts: Counts::new(),
            is_verbose: std::env::var_os("SCHEDULE_SEED").is_some(),
            broken: None,
            now: 1_000_000,
            deaths: 0,
            tolerated: 0,
            base: BTreeSet::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.log(what);
        *self.counts.entry(what).or_default() += 1;
    }

    /// Prints what happens when one schedule is repeated.
    pub fn log(&self, what: impl fmt::Display) {
        if self.is_verbose {
            println!("{}: {what}", self.now);
        }
    }

    /// Prints what happens to a process when one schedule is repeated.
    pub fn log_process(&self, what: &str, id: Id) {
        let node = name(self.processes[id].rebalance.me());
        self.log(format_args!("{what}: {id}, {node}"));
    }

    /// Keeps the first promise that was broken.
    pub fn check(&mut self, result: Result<(), String>, what: &str) {
        if let Err(why) = result {
            let at = self.now;
            self.broken
                .get_or_insert(format!("{what}: {why} (at {at})"));
        }
    }

    /// Milliseconds by a process's clock. It is coarse, so that two may agree.
    pub fn millis(&self, id: Id) -> i64 {
        self.now / 200 + self.processes[id].clock
    }

    pub fn choose<T: Clone>(&mut self, some: &[T]) -> Option<T> {
        let index = self.rng.below(some.len());
        some.get(index).cloned()
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.rng.below(times) == 0
    }

    /// Starts a process at `location`. It may require a number of copies.
    pub fn start(&mut self, location: Location, replicas: Option<usize>) -> Id {
        self.now += 1;
        // Another one than that of the process before it at that location.
        let zone = self.processes.len().checked_rem(self.zones);
        let tags = zone.map(|zone| format!("zone=b{zone}"));
        let tags = Tags::parse(&Vec::from_iter(tags)).expect("a short zone");
        if zone.is_some() {
            self.count("starts with a zone");
        }
        let mut process = Process::new(location, tags, self.now, replicas, self.rules);
        process.clock = self.rng.below(5) as i64;
        self.processes.push(process);
        let id = self.processes.len() - 1;
        self.log_process("starts", id);
        id
    }

    /// The processes that run.
    pub fn running(&self) -> Vec<Id> {
        self.which(|process| process.health == Health::Running)
    }

    /// The processes that run, have joined and have not left.
    pub fn members(&self) -> Vec<Id> {
        self.which(|process| {
            process.health == Health::Running && process.has_joined && !process.has_left()
        })
    }

    pub fn which(&self, wanted: impl Fn(&Process) -> bool) -> Vec<Id> {
        (0..self.processes.len())
            .filter(|id| wanted(&self.processes[*id]))
            .collect()
    }

    /// The process at that location, running or hung.
    pub fn at(&self, location: &Location) -> Option<Id> {
        (0..self.processes.len()).find(|id| {
            let process = &self.processes[*id];
            process.health != Health::Ended && process.location == *location
        })
    }

    /// The snapshot by which a request at this process is routed.
    pub fn routing(&self, id: Id) -> Rc<Routing> {
        self.processes[id].routing.clone()
    }

    /// Ends a process, and everything that it was doing.
    pub fn end(&mut self, id: Id) {
        self.processes[id].health = Health::Ended;
        self.tasks.retain(|task| task.owner != Some(id));
    }

    /// A process that hung continues. If it hung for long it has heard nobody for as long.
    pub fn resume(&mut self, id: Id) {
        self.log_process("continues", id);
        let was_long = !self.processes[id].health.is_sound();
        self.processes[id].health = Health::Running;
        if was_long || self.once_in(2) {
            self.isolate(id);
        }
    }

    /// The process has heard no other one for some time.
    pub fn isolate(&mut self, id: Id) {
        self.count("isolations");
        self.log_process("isolated", id);
        self.processes[id].contact.isolated_at = self.now;
    }
}
