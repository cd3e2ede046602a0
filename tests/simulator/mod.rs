//! A seeded discrete-event simulator of the real membership core.
//!
//! Each host of the simulated [`Network`] runs a node, a legacy node, or nothing. Time is virtual,
//! so only computation takes real time. Equal seeds give equal runs.
//!
//! `run` advances the time, `calls` delivers calls between nodes, `legacy` stands in for nodes
//! without `exchange`; `faults` has what a test does to hosts, `measure` what it can observe;
//! `invariants` is checked after every step, `churn` runs random faults.

// Each test file uses its own part of the simulator.
#![allow(dead_code)]

mod calls;
pub mod churn;
mod event_queue;
mod faults;
mod invariants;
mod legacy;
mod measure;
mod network;
mod run;
pub mod wire_size;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Config, Gossip, Membership, Now, Rng};

use event_queue::{EventQueue, ProcessId, SimEvent};
use invariants::Invariants;
use legacy::LegacyNode;
pub use measure::record;
pub use network::{Id, Network};

/// The wall clock at the start of a simulation, in milliseconds since 1970.
pub const START_UNIX_MILLIS: i64 = 1_700_000_000_000;

/// What runs on a host.
#[derive(Clone)]
enum Process {
    Absent,
    Node(Box<Membership>),
    Legacy(LegacyNode),
}

/// A machine on which one process at a time can run.
#[derive(Clone)]
pub struct Host {
    pub location: Location,
    process: Process,
    /// The number of processes that were started here. Events for an earlier one are dropped.
    boot: u32,
    /// While no process runs: does the host refuse connections, or does it not reply?
    refuses: bool,
    /// The process is stopped (SIGSTOP): it accepts connections and does nothing.
    is_paused: bool,
    /// What has arrived during the pause.
    backlog: Vec<SimEvent>,
    is_leaving: bool,
    /// The time of the next scheduled tick.
    wake_at: Option<Duration>,
    /// What the wall clock is ahead, in milliseconds.
    clock_offset: i64,
    /// When the test last started, paused or stopped the process.
    pub disturbed_at: Duration,
    calls_in_flight: usize,
    /// Bytes sent in requests and replies.
    pub bytes_sent: u64,
    /// Calls made.
    pub calls: u64,
    /// Suspicions raised by this host itself.
    pub suspicions: u64,
}

/// All hosts, the network, and the time.
#[derive(Clone)]
pub struct Simulator {
    pub clock: Duration,
    pub network: Network,
    pub hosts: Vec<Host>,
    pub rng: Rng,
    pub config: Config,
    /// Checked after every step, if set.
    invariants: Option<Invariants>,
    /// Changes a reply, given its request. Breaks a rule of the protocol on purpose.
    pub tamper: Option<fn(&Gossip, &mut Gossip)>,
    /// All wall clocks show 1 forever. Breaks a rule of the protocol on purpose.
    pub are_clocks_stopped: bool,
    /// A running member that is removed from a ring fails the test.
    forbids_removals: bool,
    /// Prints all events.
    pub prints_events: bool,
    network_name: Arc<str>,
    ids: BTreeMap<Location, Id>,
    queue: EventQueue,
}

/// The location of host number `id`.
pub fn location(id: Id) -> Location {
    let address = format!("10.0.{}.{}", id / 250, id % 250 + 1);
    Location::new(&address, 9900).unwrap()
}

impl Simulator {
    pub fn new(seed: u64, config: Config) -> Simulator {
        Simulator {
            clock: Duration::from_secs(100),
            network: Network::new(),
            hosts: Vec::new(),
            rng: Rng::new(seed),
            config,
            invariants: None,
            tamper: None,
            are_clocks_stopped: false,
            forbids_removals: false,
            prints_events: false,
            network_name: "diststore.Store".into(),
            ids: BTreeMap::new(),
            queue: EventQueue::default(),
        }
    }

    /// Checks the invariants after every step from now on.
    pub fn check_invariants(&mut self) {
        self.invariants = Some(Invariants::default());
    }

    /// Fails the test from now on if a running member is removed from a ring.
    pub fn forbid_removals(&mut self) {
        self.forbids_removals = true;
    }

    /// Adds a host on which nothing runs.
    pub fn add_host(&mut self) -> Id {
        let id = self.hosts.len();
        let location = location(id);
        self.ids.insert(location.clone(), id);
        self.hosts.push(Host {
            location,
            process: Process::Absent,
            boot: 0,
            refuses: true,
            is_paused: false,
            backlog: Vec::new(),
            is_leaving: false,
            wake_at: None,
            clock_offset: 0,
            disturbed_at: self.clock,
            calls_in_flight: 0,
            bytes_sent: 0,
            calls: 0,
            suspicions: 0,
        });
        id
    }

    /// Starts a node on a host where nothing runs.
    pub fn start(&mut self, id: Id, seeds: Vec<Location>) {
        let now = self.now(id);
        let node = Membership::new(
            self.hosts[id].location.clone(),
            self.network_name.clone(),
            seeds,
            self.config.clone(),
            now,
            self.rng.bits(),
        );
        self.boot(id, Process::Node(Box::new(node)));
        self.after_step(id, Vec::new());
    }

    /// Replaces the process of a host.
    fn boot(&mut self, id: Id, process: Process) {
        let host = &mut self.hosts[id];
        host.process = process;
        host.boot += 1;
        host.refuses = true;
        host.is_paused = false;
        host.is_leaving = false;
        host.backlog.clear();
        host.wake_at = None;
        host.calls_in_flight = 0;
        host.disturbed_at = self.clock;
        if let Some(invariants) = &mut self.invariants {
            invariants.on_boot(id);
        }
    }

    /// The process that runs on a host.
    fn process_id(&self, host: Id) -> ProcessId {
        let boot = self.hosts[host].boot;
        ProcessId { host, boot }
    }

    /// Does this process still run?
    fn is_current(&self, process: ProcessId) -> bool {
        self.hosts[process.host].boot == process.boot
    }

    /// The time by the clocks of a host.
    pub fn now(&self, id: Id) -> Now {
        let elapsed = self.clock.as_millis() as i64;
        let unix_millis = START_UNIX_MILLIS + elapsed + self.hosts[id].clock_offset;
        Now {
            monotonic: self.clock,
            unix_millis: if self.are_clocks_stopped {
                1
            } else {
                unix_millis
            },
        }
    }
}
