//! A run of random faults, then calm: does everyone agree in the end?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Settings;

use super::{Id, Simulator};

/// Everything that is done to a network. Each must be seen to have happened.
pub const FAULTS: [&str; 16] = [
    "crash, refused",
    "crash, silent",
    "restart",
    "restart, clock set back",
    "restart before the death is noticed",
    "join",
    "three joins at once",
    "leave",
    "partition in two",
    "partition in three",
    "partition healed",
    "one-way cut",
    "loss",
    "pause",
    "join of an original",
    "crash of an original",
];

/// How many hosts there are at most; a few faults are left out when all are taken.
const MOST_HOSTS: usize = 30;

/// How a run ended.
pub enum End {
    /// Everyone agreed, so long after the faults ended.
    Agreed(Duration),
    /// Nobody could know of the others: the network had fallen apart for good.
    Disconnected,
    /// This is wrong.
    Disagreed(String),
}

/// One run.
pub struct Churn {
    pub simulator: Simulator,
    pub faults: BTreeMap<&'static str, u64>,
    seeds: BTreeMap<Id, Vec<Location>>,
}

impl Churn {
    /// A network of `size`, at rest, in which every node was given up to three peers.
    pub fn new(size: usize, seed: u64, settings: Settings) -> Churn {
        let mut churn = Churn {
            simulator: Simulator::new(seed, settings),
            faults: BTreeMap::new(),
            seeds: BTreeMap::new(),
        };
        churn.simulator.check_rules();
        for _ in 0..size {
            let id = churn.simulator.add_host();
            churn.start(id);
        }
        churn
    }

    /// Lets the network form, does its worst for `time`, and waits for agreement.
    pub fn run(&mut self, time: Duration, calm: Duration) -> End {
        self.simulator.run(Duration::from_secs(5));
        for host in &mut self.simulator.hosts {
            host.disturbed = Duration::ZERO;
        }
        let end = self.simulator.clock + time;
        while self.simulator.clock < end {
            self.fault();
            let wait = 200 + self.simulator.random.below(300) as u64;
            self.simulator.run(Duration::from_millis(wait));
        }
        self.stop_faults();
        let is_connected = self.is_connected();
        match self.simulator.time_until(calm, Simulator::is_agreed) {
            Some(time) => End::Agreed(time),
            None if !is_connected => End::Disconnected,
            None => End::Disagreed(self.simulator.disagreement().unwrap_or_default()),
        }
    }

    fn stop_faults(&mut self) {
        self.simulator.network.heal();
        self.simulator.network.cuts.clear();
        self.simulator.network.loss = 0.0;
        // Pauses end and leavers go by themselves, within this time.
        self.simulator.run(Duration::from_secs(6));
    }

    fn fault(&mut self) {
        let up = self.simulator.up();
        let down = self.down();
        let has_enough = up.len() > 3;
        let has_space = self.simulator.hosts.len() + 3 < MOST_HOSTS;
        let fault = match self.simulator.random.below(100) {
            0..10 if has_enough => self.crash(true),
            10..18 if has_enough => self.crash(false),
            18..30 if !down.is_empty() => self.restart(0),
            30..36 if !down.is_empty() => self.restart(-3_600_000),
            36..42 if has_enough => self.restart_at_once(),
            42..50 if has_space => self.join(1),
            50..53 if has_space => self.join(3),
            53..60 if has_enough => self.leave(),
            60..66 => self.split(2),
            66..69 => self.split(3),
            69..78 => self.heal(),
            78..83 => self.cut(),
            83..87 => self.lose(),
            87..95 if has_enough => self.pause(),
            95..98 if has_space => self.join_original(),
            98..100 => self.crash_original(),
            _ => None,
        };
        if let Some(fault) = fault {
            if self.simulator.tells_story {
                eprintln!("{:?} {fault}", self.simulator.clock);
            }
            *self.faults.entry(fault).or_default() += 1;
        }
    }

    fn start(&mut self, id: Id) {
        let mut up = self.simulator.up();
        self.simulator.random.shuffle(&mut up);
        up.truncate(3);
        let locations = up
            .iter()
            .map(|&peer| self.simulator.hosts[peer].location.clone());
        let seeds: Vec<Location> = locations.collect();
        self.seeds.insert(id, seeds.clone());
        self.simulator.start(id, seeds);
    }

    fn down(&self) -> Vec<Id> {
        let hosts = 0..self.simulator.hosts.len();
        hosts.filter(|&id| !self.simulator.is_running(id)).collect()
    }

    fn one_of(&mut self, hosts: &[Id]) -> Id {
        hosts[self.simulator.random.below(hosts.len())]
    }

    fn one_of_ours(&mut self) -> Option<Id> {
        let up = self.simulator.up();
        let ours: Vec<Id> = up
            .into_iter()
            .filter(|&id| !self.simulator.is_original(id))
            .collect();
        // The last few must stay, or there is no network to speak of.
        (ours.len() > 3).then(|| self.one_of(&ours))
    }

    fn crash(&mut self, refusing: bool) -> Option<&'static str> {
        let id = self.one_of_ours()?;
        self.simulator.kill(id, refusing);
        Some(if refusing { FAULTS[0] } else { FAULTS[1] })
    }

    fn restart(&mut self, shift: i64) -> Option<&'static str> {
        let down = self.down();
        let id = self.one_of(&down);
        self.simulator.set_clock(id, shift);
        self.start(id);
        Some(if shift == 0 { FAULTS[2] } else { FAULTS[3] })
    }

    fn restart_at_once(&mut self) -> Option<&'static str> {
        let id = self.one_of_ours()?;
        self.simulator.kill(id, true);
        self.simulator.run(Duration::from_millis(30));
        self.start(id);
        Some(FAULTS[4])
    }

    fn join(&mut self, nodes: usize) -> Option<&'static str> {
        for _ in 0..nodes {
            let id = self.simulator.add_host();
            self.start(id);
        }
        Some(if nodes == 1 { FAULTS[5] } else { FAULTS[6] })
    }

    fn leave(&mut self) -> Option<&'static str> {
        let id = self.one_of_ours()?;
        self.simulator.leave(id);
        Some(FAULTS[7])
    }

    fn split(&mut self, sides: usize) -> Option<&'static str> {
        let draw = |_| self.simulator.random.below(sides) as u8;
        let sides_of = (0..MOST_HOSTS).map(draw).collect();
        self.simulator.split(sides_of);
        Some(if sides == 2 { FAULTS[8] } else { FAULTS[9] })
    }

    fn heal(&mut self) -> Option<&'static str> {
        let was_split = self.simulator.network.is_split();
        self.simulator.network.heal();
        was_split.then_some(FAULTS[10])
    }

    fn cut(&mut self) -> Option<&'static str> {
        let up = self.simulator.up();
        let (from, to) = (self.one_of(&up), self.one_of(&up));
        let cuts = &mut self.simulator.network.cuts;
        if cuts.len() >= 3 {
            cuts.clear();
        }
        (from != to && cuts.insert((from, to))).then_some(FAULTS[11])
    }

    fn lose(&mut self) -> Option<&'static str> {
        let loss = &mut self.simulator.network.loss;
        *loss = if *loss > 0.0 { 0.0 } else { 0.1 };
        (*loss > 0.0).then_some(FAULTS[12])
    }

    fn pause(&mut self) -> Option<&'static str> {
        let id = self.one_of_ours()?;
        let time = 500 + self.simulator.random.below(5_000) as u64;
        self.simulator.pause(id, Duration::from_millis(time));
        Some(FAULTS[13])
    }

    fn join_original(&mut self) -> Option<&'static str> {
        let peer = self.one_of_ours()?;
        let id = self.simulator.add_host();
        self.simulator
            .start_original(id, peer)
            .then_some(FAULTS[14])
    }

    fn crash_original(&mut self) -> Option<&'static str> {
        let up = self.simulator.up();
        let id = up.into_iter().find(|&id| self.simulator.is_original(id))?;
        self.simulator.kill(id, true);
        Some(FAULTS[15])
    }

    /// Can everyone find everyone, by whom each knows and was given?
    fn is_connected(&self) -> bool {
        let up: BTreeSet<Id> = self.simulator.up().into_iter().collect();
        let mut near: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for &id in &up {
            let seeds = self.seeds.get(&id).into_iter().flatten();
            let seeds = seeds.filter_map(|location| self.simulator.place(location));
            for other in seeds.chain(self.simulator.address_book(id)) {
                near.entry(id).or_default().insert(other);
                near.entry(other).or_default().insert(id);
            }
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<Id> = up.first().copied().into_iter().collect();
        while let Some(id) = open.pop() {
            if up.contains(&id) && found.insert(id) {
                open.extend(near.get(&id).into_iter().flatten());
            }
        }
        found == up
    }
}
