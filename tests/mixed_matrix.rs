//! Do nodes of the original and ours form one network in every order of coming and going?
//!
//! Each case starts some of ours and some legacy nodes, lets one thing happen, with or without a
//! load of writes, and then asks every node for every key. By default a part of the matrix runs;
//! `MIXED_LONG=1` runs all of it, and `MIXED_CASE='our node joins'` only cases of that name.

#[path = "mixed/clients.rs"]
mod clients;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use clients::{Load, get, put};
use common::legacy::LegacyNode;
use common::network::{new_port, ring_of};
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::hash_ring::HashRing;
use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Rng;

/// How long it may take until all is right after something has happened.
const BOUND: Duration = Duration::from_secs(5);

/// How long a put must have been left in peace to count.
const PEACE: Duration = Duration::from_secs(2);

/// Longer than a node takes that does not reply until it is declared down.
const HANG: Duration = Duration::from_secs(7);

/// Cases that run at the same time.
const PARALLEL: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    OurNodeJoins,
    LegacyNodeJoins,
    OurNodeLeaves,
    LegacyNodeLeaves,
    OurNodeIsKilled,
    LegacyNodeIsKilled,
    LegacyNodeHangsAndReturns,
    LegacyNodeRestarts,
    OurLastNodeLeaves,
    LastLegacyNodeLeaves,
    TwoOfOursJoin,
    TwoLegacyNodesJoin,
}

use Event::*;

const EVENTS: [(Event, &str); 12] = [
    (OurNodeJoins, "our node joins"),
    (LegacyNodeJoins, "legacy node joins"),
    (OurNodeLeaves, "our node leaves"),
    (LegacyNodeLeaves, "legacy node leaves"),
    (OurNodeIsKilled, "our node is killed"),
    (LegacyNodeIsKilled, "legacy node is killed"),
    (LegacyNodeHangsAndReturns, "legacy node hangs and returns"),
    (LegacyNodeRestarts, "legacy node restarts"),
    (OurLastNodeLeaves, "our last node leaves"),
    (LastLegacyNodeLeaves, "last legacy node leaves"),
    (TwoOfOursJoin, "two of ours join"),
    (TwoLegacyNodesJoin, "two legacy nodes join"),
];

/// What a key must have: a value, or none after a deletion. Of an unanswered write nothing is
/// known.
type Expected = BTreeMap<String, Option<String>>;

/// A network of nodes of both kinds.
struct Mixed {
    program: &'static str,
    ours: Vec<NodeProcess>,
    legacy: Vec<LegacyNode>,
    /// What every node must answer.
    expected: Expected,
    /// Those of it that were only put to a legacy node, by the node that held them then.
    held_by: BTreeMap<String, Location>,
}

impl Mixed {
    /// Starts `ours` and `legacy` nodes. The first one is ours if `ours_first`. The others join
    /// through all that are there, in turn.
    fn start(program: &'static str, ours: usize, legacy: usize, ours_first: bool) -> Mixed {
        let mut mixed = Mixed {
            program,
            ours: Vec::new(),
            legacy: Vec::new(),
            expected: Expected::new(),
            held_by: BTreeMap::new(),
        };
        let mut kinds = vec![true; ours];
        kinds.extend(vec![false; legacy]);
        if !ours_first {
            kinds.reverse();
        }
        for is_ours in kinds {
            if is_ours {
                mixed.join_ours();
            } else {
                mixed.join_legacy();
            }
        }
        mixed.wait_for_rings(SOON);
        mixed
    }

    fn peer(&self) -> Option<Location> {
        let ours = self.ours.iter().map(|node| &node.location);
        let legacy = self.legacy.iter().map(|node| &node.location);
        let all: Vec<&Location> = ours.chain(legacy).collect();
        let turn = all.len().checked_sub(1)? / 2;
        Some(all[turn].clone())
    }

    fn spawn_ours(&self) -> NodeProcess {
        let port = new_port().to_string();
        let peer = self.peer();
        let start = match &peer {
            Some(peer) => vec!["--host", peer.name()],
            None => vec!["--bootstrap"],
        };
        NodeProcess::spawn(self.program, &[&["--port", &port][..], &start].concat())
    }

    fn join_ours(&mut self) {
        let mut node = self.spawn_ours();
        node.wait_until_it_serves();
        self.ours.push(node);
    }

    fn join_legacy(&mut self) {
        self.legacy
            .push(start_legacy(self.program, self.peer().as_ref()));
    }

    fn locations(&self) -> BTreeSet<Location> {
        let ours = self.ours.iter().map(|node| node.location.clone());
        let legacy = self.legacy.iter().map(|node| node.location.clone());
        ours.chain(legacy).collect()
    }

    /// Waits until the ring of every node consists of exactly all of them.
    fn wait_for_rings(&self, bound: Duration) {
        let all = self.locations();
        let began = Instant::now();
        for location in &all {
            let left = bound.saturating_sub(began.elapsed());
            let what = format!("the ring of {location} is {all:?}");
            eventually(&what, left, || {
                ring_of(location).is_ok_and(|ring| ring == all)
            });
        }
    }

    /// Stores some keys through every node: written and deleted through ours, put through legacy
    /// ones.
    fn prime(&mut self) {
        for (index, node) in self.ours.iter().enumerate() {
            let client = StoreClient::new(node.location.clone());
            for number in 0..12 {
                let key = format!("written {index} {number}");
                client.put(key.as_bytes(), b"value").unwrap();
                let is_deleted = number % 4 == 0;
                if is_deleted {
                    assert!(client.delete(key.as_bytes()).unwrap());
                }
                let value = (!is_deleted).then(|| "value".to_owned());
                self.expected.insert(key, value);
            }
        }
        let ring: HashRing<Location> = self.locations().into_iter().collect();
        for (index, node) in self.legacy.iter().enumerate() {
            for number in 0..12 {
                let key = format!("put {index} {number}");
                put(&node.location, &key, "value").unwrap();
                let owner = ring.owner(key.as_bytes()).unwrap();
                if self.legacy.iter().any(|node| node.location == *owner) {
                    self.held_by.insert(key.clone(), owner.clone());
                }
                self.expected.insert(key, Some("value".to_owned()));
            }
        }
        thread::sleep(PEACE);
    }

    /// Waits until every node answers for every key.
    fn check(&self, bound: Duration) {
        let began = Instant::now();
        self.wait_for_rings(bound);
        for location in self.locations() {
            let wrong = || {
                let wrong = self.expected.iter().filter_map(|(key, value)| {
                    let got = get(&location, key);
                    let value = value.clone().unwrap_or_default();
                    (got.as_ref().ok() != Some(&value))
                        .then(|| format!("{key}: {got:?}, not {value:?}"))
                });
                wrong.take(5).collect::<Vec<String>>()
            };
            let mut last = Vec::new();
            loop {
                let is_late = began.elapsed() > bound;
                let now = wrong();
                if now.is_empty() {
                    break;
                }
                let twice = format!("{last:?}, then {now:?}");
                assert!(!is_late, "wrong at {location} after {bound:?}: {twice}");
                last = now;
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Was none of these declared down by one of ours?
    fn check_nobody_was_declared_down(&self, alive: &BTreeSet<Location>) {
        for node in &self.ours {
            for location in alive {
                let line = format!("removed {location}: it is down");
                assert!(!node.says(&line), "{}: {line}", node.at());
            }
        }
    }

    /// Keys that only this node held are lost with it.
    fn forget_keys_of(&mut self, location: &Location) {
        let held_by = &self.held_by;
        self.expected
            .retain(|key, _| held_by.get(key) != Some(location));
    }

    /// Can it happen in this network, so that a node is left? Legacy nodes alone do not always
    /// agree, so the next thing then is that one of ours joins.
    fn is_possible(&self, event: Event) -> bool {
        let (ours, legacy) = (self.ours.len(), self.legacy.len());
        let has_room = ours + legacy < 7;
        match event {
            OurNodeJoins => has_room,
            LegacyNodeJoins | TwoOfOursJoin | TwoLegacyNodesJoin => has_room && ours > 0,
            OurNodeLeaves => ours > 0 && ours + legacy > 1,
            OurNodeIsKilled => ours > 1,
            LegacyNodeLeaves
            | LegacyNodeIsKilled
            | LegacyNodeHangsAndReturns
            | LegacyNodeRestarts
            | OurLastNodeLeaves
            | LastLegacyNodeLeaves => legacy > 0 && ours > 0,
        }
    }

    /// Lets it happen.
    fn happen(&mut self, event: Event) {
        match event {
            OurNodeJoins => self.join_ours(),
            LegacyNodeJoins => self.join_legacy(),
            TwoOfOursJoin => {
                let mut pair = [self.spawn_ours(), self.spawn_ours()];
                pair.iter_mut().for_each(NodeProcess::wait_until_it_serves);
                self.ours.extend(pair);
            }
            TwoLegacyNodesJoin => {
                let peer = self.peer();
                let start = || start_legacy(self.program, peer.as_ref());
                let pair = thread::scope(|scope| {
                    let other = scope.spawn(start);
                    [start(), other.join().unwrap()]
                });
                self.legacy.extend(pair);
            }
            OurNodeLeaves => {
                let mut node = self.ours.remove(0);
                assert!(node.interrupt().success());
            }
            OurLastNodeLeaves => {
                for mut node in std::mem::take(&mut self.ours) {
                    assert!(node.interrupt().success());
                }
            }
            LegacyNodeLeaves => self.legacy.remove(0).leave(),
            LastLegacyNodeLeaves => {
                for node in std::mem::take(&mut self.legacy) {
                    node.leave();
                    // What it has put to the next one, without an acknowledgement, arrives.
                    thread::sleep(PEACE / 4);
                }
            }
            OurNodeIsKilled => self.ours.remove(0).kill(),
            LegacyNodeIsKilled => {
                let node = self.legacy.remove(0);
                self.forget_keys_of(&node.location);
            }
            LegacyNodeRestarts => {
                let node = self.legacy.remove(0);
                self.forget_keys_of(&node.location);
                let peer = self.peer();
                self.legacy.insert(0, node.restart(peer.as_ref()));
            }
            LegacyNodeHangsAndReturns => self.hang_and_return(),
        }
    }

    /// Writes through the node of ours that is the last to leave.
    fn start_load(&self) -> Load {
        Load::start(self.ours.last().map(|node| node.location.clone()))
    }

    fn hang_and_return(&mut self) {
        self.legacy[0].hang();
        let began = Instant::now();
        let client = StoreClient::new(self.ours[0].location.clone());
        let keys: Vec<String> = self.expected.keys().cloned().collect();
        let (mut slowest, mut slowest_later, mut number) = (Duration::ZERO, Duration::ZERO, 0);
        while began.elapsed() < HANG {
            number += 1;
            let key = &keys[number % keys.len()];
            let call = Instant::now();
            client.get(key.as_bytes()).unwrap();
            slowest = slowest.max(call.elapsed());
            if began.elapsed() > HANG / 2 {
                slowest_later = slowest_later.max(call.elapsed());
            }
            if key.starts_with("written") {
                let value = (number % 3 > 0).then(|| format!("while it hung {number}"));
                match &value {
                    Some(value) => client.put(key.as_bytes(), value.as_bytes()).unwrap(),
                    None => drop(client.delete(key.as_bytes()).unwrap()),
                }
                self.expected.insert(key.clone(), value);
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("the slowest get beside a hung legacy node: {slowest:?}");
        eprintln!("the same once it is suspected: {slowest_later:?}");
        assert!(
            slowest < Duration::from_millis(1_200),
            "{slowest:?} for a get"
        );
        assert!(
            slowest_later < Duration::from_millis(500),
            "{slowest_later:?} for a get beside a suspect"
        );
        self.legacy[0].resume();
    }
}

fn start_legacy(program: &str, peer: Option<&Location>) -> LegacyNode {
    if program == "storeserver" {
        LegacyNode::start_store(peer)
    } else {
        LegacyNode::start(peer)
    }
}

/// One case of the matrix.
#[derive(Debug, Clone, Copy)]
struct Case {
    ours: usize,
    legacy: usize,
    event: Event,
    has_load: bool,
    ours_first: bool,
}

impl Case {
    fn all() -> Vec<Case> {
        let is_long = std::env::var_os("MIXED_LONG").is_some();
        let only = std::env::var("MIXED_CASE").ok();
        let mut cases = Vec::new();
        for (number, (event, name)) in EVENTS.into_iter().enumerate() {
            for (ours, legacy) in (1..=3).flat_map(|ours| (1..=3).map(move |legacy| (ours, legacy)))
            {
                for has_load in [false, true] {
                    // By default: few nodes of each kind, and the load in every other case.
                    let is_usual = [(1, 1), (1, 2), (2, 1), (3, 2)].contains(&(ours, legacy))
                        && has_load == ((number + ours + legacy) % 2 == 0);
                    // What only one node of ours has dies with it.
                    let is_possible = ours > 1 || event != OurNodeIsKilled;
                    let is_wanted = is_possible && only.as_ref().is_none_or(|only| *only == name);
                    if is_wanted && (is_long || is_usual || only.is_some()) {
                        cases.push(Case {
                            ours,
                            legacy,
                            event,

                            has_load,
                            ours_first: (ours + legacy + number) % 3 == 0,
                        });
                    }
                }
            }
        }
        cases
    }

    fn run(&self) {
        let mut mixed = Mixed::start("storeserver", self.ours, self.legacy, self.ours_first);
        mixed.prime();
        mixed.check(BOUND);
        let before = mixed.locations();
        let load = self.has_load.then(|| mixed.start_load());
        thread::sleep(Duration::from_millis(200));
        mixed.happen(self.event);
        if let Some(load) = load {
            thread::sleep(Duration::from_secs(1));
            let (written, refused) = load.stop();
            // Clients of the last node of ours have nobody left to ask.
            let may_refuse =
                self.event == OurLastNodeLeaves || self.event == OurNodeLeaves && self.ours == 1;
            assert!(refused == 0 || may_refuse, "{refused} writes were refused");
            mixed.expected.extend(written);
        }
        if mixed.locations().is_empty() {
            return;
        }
        mixed.check(BOUND);
        let mut alive: BTreeSet<Location> =
            before.intersection(&mixed.locations()).cloned().collect();
        if matches!(self.event, LegacyNodeHangsAndReturns | LegacyNodeRestarts) {
            alive.remove(&mixed.legacy[0].location);
        }
        mixed.check_nobody_was_declared_down(&alive);
    }
}

/// Runs all of these, some at the same time, and fails if one has failed.
fn run_all<C: Copy + Send + std::fmt::Debug>(cases: Vec<C>, run: impl Fn(C) + Sync) {
    let cases = Mutex::new(cases);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop() else {
                        return;
                    };
                    let began = Instant::now();
                    let run = std::panic::AssertUnwindSafe(|| run(case));
                    let result = std::panic::catch_unwind(run);
                    eprintln!("{:.1} s: {case:?}", began.elapsed().as_secs_f64());
                    if result.is_err() {
                        failures.lock().unwrap().push(case);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_key_is_read_through_every_node_whatever_happens() {
    run_all(Case::all(), |case| case.run());
}

#[test]
fn locators_of_both_kinds_agree_whatever_happens() {
    let is_usual = |case: &Case| (case.ours, case.legacy) != (3, 2) && !case.has_load;
    let cases: Vec<Case> = Case::all().into_iter().filter(is_usual).collect();
    run_all(cases, |case| {
        let (ours, legacy) = (case.ours, case.legacy);
        let mut mixed = Mixed::start("location", ours, legacy, case.ours_first);
        if case.event == LegacyNodeHangsAndReturns {
            mixed.legacy[0].hang();
            thread::sleep(HANG);
            mixed.legacy[0].resume();
        } else {
            mixed.happen(case.event);
        }
        mixed.wait_for_rings(BOUND);
    });
}

#[test]
fn every_key_is_read_through_every_node_on_random_walks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let is_long = std::env::var_os("MIXED_LONG").is_some();
    let seeds: Vec<u64> = match number("MIXED_SEED") {
        Some(seed) => vec![seed],
        None => (0..if is_long { 20 } else { 3 }).collect(),
    };
    run_all(seeds, |seed| walk(seed, if is_long { 20 } else { 5 }));
}

/// Lets so many things happen in one network, one after another.
fn walk(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let (ours, legacy) = (1 + rng.below(3), 1 + rng.below(3));
    let mut mixed = Mixed::start("storeserver", ours, legacy, rng.below(2) == 0);
    for step in 0..steps {
        mixed.prime();
        mixed.check(BOUND);
        let possible: Vec<Event> = EVENTS
            .into_iter()
            .map(|(event, _)| event)
            .filter(|event| mixed.is_possible(*event))
            .collect();
        // Seven legacy nodes leave no room for anything else.
        let Some(event) = possible.get(rng.below(possible.len().max(1))) else {
            return;
        };
        let event = *event;
        eprintln!("MIXED_SEED={seed}, step {step}: {event:?}");
        mixed.happen(event);
        mixed.check(BOUND);
    }
}
