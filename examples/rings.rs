//! How long it takes to find the owner of a key, and to add a node to the ring.
//!
//! Lookups are measured in turn with the md5 of the key alone, which is the least that a
//! lookup costs here, and with two other crates with as many points per node. Medians of
//! the rounds are printed, and their ratios to md5 alone.
//!
//!     cargo run --release --example rings

use std::hint::black_box;
use std::time::Instant;

use clap::Parser;
use conhash::ConsistentHash;
use peak_alloc::PeakAlloc;
use thrifty_p2p::hash_ring::{HashRing, point};
use thrifty_p2p::location::Location;

mod common;

use common::{machine, median};

/// Counts the bytes of a ring.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Measures this crate's ring, and lookups on others.
#[derive(Parser)]
struct Options {
    /// Look up keys among so many nodes
    #[arg(value_name = "NODES", default_values_t = [10, 1000, 10_000])]
    sizes: Vec<usize>,

    /// Add a node to so many, and print the memory of a ring of as many
    #[arg(long, value_name = "NODES", default_value_t = 1000)]
    size: usize,
}

/// Points of a node on each ring.
const POINTS: usize = 120;

const ROUNDS: usize = 5;

/// Keys per round, which has keys of its own: so many that the processor's caches do not
/// help the ring that is measured next.
const KEYS: usize = 1_000_000;

/// Additions of a node. They are short, so there are many.
const ADDITIONS: usize = 51;

/// A node on the ring of the crate `conhash`.
#[derive(Clone)]
struct Named(Location);

impl conhash::Node for Named {
    fn name(&self) -> String {
        self.0.to_string()
    }
}

fn main() {
    let Options { sizes, size } = Options::parse();
    println!("{}; medians of {ROUNDS} rounds", machine());
    sizes.into_iter().for_each(measure_lookups);

    let before = ALLOCATOR.current_usage();
    let ring = ring(size);
    let bytes = ALLOCATOR.current_usage() - before;
    let addition = |number| {
        let (ring, node) = (ring.clone(), node(size + number));
        let start = Instant::now();
        let larger = black_box(ring.with(node));
        let time = start.elapsed();
        drop(larger);
        time.as_secs_f64() * 1e6
    };
    let micros = median((0..ADDITIONS).map(addition).collect());
    println!("one more node, {size} nodes: {micros:.0} us");
    println!("memory, {size} nodes: {} kB", bytes / 1000);
}

fn node(number: usize) -> Location {
    let address = format!("10.{}.{}.1", number / 256, number % 256);
    Location::new(&address, 9900).expect("it is an address")
}

fn ring(size: usize) -> HashRing<Location> {
    (0..size).map(node).collect()
}

fn measure_lookups(size: usize) {
    let ours = ring(size);
    let points = (0..size).flat_map(|number| (0..POINTS).map(move |point| (node(number), point)));
    let mut hashring = hashring::HashRing::new();
    hashring.batch_add(points.collect());
    let mut conhash = ConsistentHash::new();
    (0..size).for_each(|number| conhash.add(&Named(node(number)), POINTS));
    let round = |round| {
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key{round}{key:08}")).collect();
        [
            nanos(&keys, point),
            nanos(&keys, |key| ours.owner(key)),
            nanos(&keys, |key| hashring.get(&key)),
            nanos(&keys, |key| conhash.get(key)),
        ]
    };
    let rounds: Vec<[f64; 4]> = (0..ROUNDS).map(round).collect();
    let figure = |(at, name)| {
        let time = median(rounds.iter().map(|times: &[f64; 4]| times[at]).collect());
        let ratio = median(rounds.iter().map(|times| times[at] / times[0]).collect());
        format!("{name} {time:.0} ns ({ratio:.2})")
    };
    let names = ["md5 alone", "HashRing", "hashring", "conhash"];
    let figures: Vec<String> = (0..).zip(names).map(figure).collect();
    println!("lookup, {size} nodes: {}", figures.join(", "));
}

fn nanos<'a, T>(keys: &'a [String], lookup: impl Fn(&'a [u8]) -> T) -> f64 {
    let start = Instant::now();
    for key in keys {
        black_box(lookup(black_box(key.as_bytes())));
    }
    start.elapsed().as_nanos() as f64 / keys.len() as f64
}
