//! A run of random faults, then a time without: do all nodes agree in the end?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Config;

use super::{Id, Simulator};

/// What is done to a network. Many runs must contain each one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    CrashRefusing,
    CrashSilent,
    Restart,
    RestartWithClockSetBack,
    RestartBeforeDetection,
    Join,
    ThreeJoins,
    Leave,
    PartitionInTwo,
    PartitionInThree,
    PartitionHealed,
    OneWayCut,
    Loss,
    Pause,
    LegacyJoin,
    LegacyCrash,
}

pub const FAULTS: [Fault; 16] = [
    Fault::CrashRefusing,
    Fault::CrashSilent,
    Fault::Restart,
    Fault::RestartWithClockSetBack,
    Fault::RestartBeforeDetection,
    Fault::Join,
    Fault::ThreeJoins,
    Fault::Leave,
    Fault::PartitionInTwo,
    Fault::PartitionInThree,
    Fault::PartitionHealed,
    Fault::OneWayCut,
    Fault::Loss,
    Fault::Pause,
    Fault::LegacyJoin,
    Fault::LegacyCrash,
];

/// The limit of hosts. Without a free one, no node joins.
const MAX_HOSTS: usize = 30;

/// How a run ended.
pub enum End {
    /// All nodes agreed, this time after the last fault.
    Agreed(Duration),
    /// The nodes cannot find each other: no node of one group knows one of another.
    Disconnected,
    /// The nodes do not agree, although they can find each other.
    Disagreed(String),
}

/// One run.
pub struct Churn {
    pub simulator: Simulator,
    pub faults: BTreeMap<Fault, u64>,
    seeds: BTreeMap<Id, Vec<Location>>,
}

impl Churn {
    /// A network of `size` nodes, each with up to three seeds.
    pub fn new(size: usize, seed: u64, config: Config) -> Churn {
        let mut churn = Churn {
            simulator: Simulator::new(seed, config),
            faults: BTreeMap::new(),
            seeds: BTreeMap::new(),
        };
        churn.simulator.check_invariants();
        for _ in 0..size {
            let id = churn.simulator.add_host();
            churn.start(id);
        }
        churn
    }

    /// Lets the network form, causes faults for `faulty`, and waits `calm` for agreement.
    pub fn run(&mut self, faulty: Duration, calm: Duration) -> End {
        self.simulator.run(Duration::from_secs(5));
        for host in &mut self.simulator.hosts {
            host.disturbed_at = Duration::ZERO;
        }
        let end = self.simulator.clock + faulty;
        while self.simulator.clock < end {
            self.cause_fault();
            let pause = 200 + self.simulator.rng.below(300) as u64;
            self.simulator.run(Duration::from_millis(pause));
        }
        self.end_faults();
        let is_connected = self.is_connected();
        match self.simulator.time_until(calm, Simulator::is_agreed) {
            Some(time) => End::Agreed(time),
            None if !is_connected => End::Disconnected,
            None => End::Disagreed(self.simulator.disagreement().unwrap_or_default()),
        }
    }

    fn end_faults(&mut self) {
        self.simulator.network.heal();
        self.simulator.network.cuts.clear();
        self.simulator.network.loss = 0.0;
        // Pauses end and leaving processes exit within this time.
        self.simulator.run(Duration::from_secs(6));
    }

    fn cause_fault(&mut self) {
        let has_enough = self.simulator.up().len() > 3;
        let has_stopped = !self.stopped_hosts().is_empty();
        let has_space = self.simulator.hosts.len() + 3 < MAX_HOSTS;
        let fault = match self.simulator.rng.below(100) {
            0..10 if has_enough => self.crash(true),
            10..18 if has_enough => self.crash(false),
            18..30 if has_stopped => self.restart(0),
            30..36 if has_stopped => self.restart(-3_600_000),
            36..42 if has_enough => self.restart_at_once(),
            42..50 if has_space => self.join(1),
            50..53 if has_space => self.join(3),
            53..60 if has_enough => self.leave(),
            60..66 => self.partition(2),
            66..69 => self.partition(3),
            69..78 => self.heal(),
            78..83 => self.cut(),
            83..87 => self.toggle_loss(),
            87..95 if has_enough => self.pause(),
            95..98 if has_space => self.join_legacy(),
            98..100 => self.crash_legacy(),
            _ => None,
        };
        if let Some(fault) = fault {
            if self.simulator.prints_events {
                eprintln!("{:?} {fault:?}", self.simulator.clock);
            }
            *self.faults.entry(fault).or_default() += 1;
        }
    }

    fn start(&mut self, id: Id) {
        let mut up = self.simulator.up();
        self.simulator.rng.shuffle(&mut up);
        up.truncate(3);
        let locations = up
            .iter()
            .map(|&peer| self.simulator.hosts[peer].location.clone());
        let seeds: Vec<Location> = locations.collect();
        self.seeds.insert(id, seeds.clone());
        self.simulator.start(id, seeds);
    }

    fn stopped_hosts(&self) -> Vec<Id> {
        let hosts = 0..self.simulator.hosts.len();
        hosts.filter(|&id| !self.simulator.is_running(id)).collect()
    }

    fn sample(&mut self, hosts: &[Id]) -> Id {
        hosts[self.simulator.rng.below(hosts.len())]
    }

    /// A node that is up. None if only a few are left, because the network must not end.
    fn sample_node(&mut self) -> Option<Id> {
        let up = self.simulator.up();
        let nodes: Vec<Id> = up
            .into_iter()
            .filter(|&id| !self.simulator.is_legacy(id))
            .collect();
        (nodes.len() > 3).then(|| self.sample(&nodes))
    }

    fn crash(&mut self, refuses: bool) -> Option<Fault> {
        let id = self.sample_node()?;
        self.simulator.kill(id, refuses);
        Some(if refuses {
            Fault::CrashRefusing
        } else {
            Fault::CrashSilent
        })
    }

    fn restart(&mut self, clock_offset: i64) -> Option<Fault> {
        let stopped = self.stopped_hosts();
        let id = self.sample(&stopped);
        self.simulator.set_clock(id, clock_offset);
        self.start(id);
        Some(if clock_offset == 0 {
            Fault::Restart
        } else {
            Fault::RestartWithClockSetBack
        })
    }

    fn restart_at_once(&mut self) -> Option<Fault> {
        let id = self.sample_node()?;
        self.simulator.kill(id, true);
        self.simulator.run(Duration::from_millis(30));
        self.start(id);
        Some(Fault::RestartBeforeDetection)
    }

    fn join(&mut self, nodes: usize) -> Option<Fault> {
        for _ in 0..nodes {
            let id = self.simulator.add_host();
            self.start(id);
        }
        Some(if nodes == 1 {
            Fault::Join
        } else {
            Fault::ThreeJoins
        })
    }

    fn leave(&mut self) -> Option<Fault> {
        let id = self.sample_node()?;
        self.simulator.leave(id);
        Some(Fault::Leave)
    }

    fn partition(&mut self, count: usize) -> Option<Fault> {
        let random_side = |_| self.simulator.rng.below(count) as u8;
        let sides = (0..MAX_HOSTS).map(random_side).collect();
        self.simulator.network.partition(sides);
        Some(if count == 2 {
            Fault::PartitionInTwo
        } else {
            Fault::PartitionInThree
        })
    }

    fn heal(&mut self) -> Option<Fault> {
        let was_partitioned = self.simulator.network.is_partitioned();
        self.simulator.network.heal();
        was_partitioned.then_some(Fault::PartitionHealed)
    }

    fn cut(&mut self) -> Option<Fault> {
        let up = self.simulator.up();
        let (from, to) = (self.sample(&up), self.sample(&up));
        let cuts = &mut self.simulator.network.cuts;
        if cuts.len() >= 3 {
            cuts.clear();
        }
        (from != to && cuts.insert((from, to))).then_some(Fault::OneWayCut)
    }

    fn toggle_loss(&mut self) -> Option<Fault> {
        let loss = &mut self.simulator.network.loss;
        *loss = if *loss > 0.0 { 0.0 } else { 0.1 };
        (*loss > 0.0).then_some(Fault::Loss)
    }

    fn pause(&mut self) -> Option<Fault> {
        let id = self.sample_node()?;
        let time = 500 + self.simulator.rng.below(5_000) as u64;
        self.simulator.pause(id, Duration::from_millis(time));
        Some(Fault::Pause)
    }

    fn join_legacy(&mut self) -> Option<Fault> {
        let peer = self.sample_node()?;
        let id = self.simulator.add_host();
        let has_joined = self.simulator.start_legacy(id, peer);
        has_joined.then_some(Fault::LegacyJoin)
    }

    fn crash_legacy(&mut self) -> Option<Fault> {
        let up = self.simulator.up();
        let id = up.into_iter().find(|&id| self.simulator.is_legacy(id))?;
        self.simulator.kill(id, true);
        Some(Fault::LegacyCrash)
    }

    /// Is there a path between any two nodes, from a node to those that it knows or has as seeds,
    /// or back?
    fn is_connected(&self) -> bool {
        let up: BTreeSet<Id> = self.simulator.up().into_iter().collect();
        let mut neighbors: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for &id in &up {
            let seeds = self.seeds.get(&id).into_iter().flatten();
            let seeds = seeds.filter_map(|location| self.simulator.id_of(location));
            for other in seeds.chain(self.simulator.known_hosts(id)) {
                neighbors.entry(id).or_default().insert(other);
                neighbors.entry(other).or_default().insert(id);
            }
        }
        let mut reached = BTreeSet::new();
        let mut open: Vec<Id> = up.first().copied().into_iter().collect();
        while let Some(id) = open.pop() {
            if up.contains(&id) && reached.insert(id) {
                open.extend(neighbors.get(&id).into_iter().flatten());
            }
        }
        reached == up
    }
}
