//! How long does it take to find a key's owner, and to add a node to the ring?
//!
//! Beside this crate's ring stand the md5 of the key alone, which is the least that a
//! lookup costs here, and two other crates, each with as many points a node. They take
//! turns; what is shown is the median of the rounds, and its ratio to md5 alone.
//!
//!     cargo run --release --example rings

use std::hint::black_box;
use std::time::Instant;

use clap::Parser;
use conhash::ConsistentHash;
use peak_alloc::PeakAlloc;
use thrifty_p2p::hash_ring::{HashRing, point};
use thrifty_p2p::load::keys::{KEY, Keys, MOST_KEYS};
use thrifty_p2p::load::report::machine;
use thrifty_p2p::load::rounds::median;
use thrifty_p2p::location::Location;

/// Counts the bytes that rings take.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Measures this crate's ring beside others.
#[derive(Parser)]
struct Options {
    /// Look up among so many nodes
    #[arg(value_name = "NODES", default_values_t = [10, 1000, 10_000])]
    sizes: Vec<usize>,

    /// Add a node to so many, and tell the memory that a ring of as many takes
    #[arg(long, value_name = "NODES", default_value_t = 1000)]
    size: usize,
}

/// Points of a node on each ring: this crate's are four each for 30 labels.
const POINTS: usize = 120;

/// Rounds of lookups.
const ROUNDS: usize = 5;

/// Keys that are looked up in a round, other ones in each: so many that it does not count
/// what the other rings have left of this one in the processor's caches.
const KEYS: usize = 1_000_000;

/// Rounds of additions, which are short: what disturbs one is over in the next.
const ADDITIONS: usize = 51;

/// What is compared, in the order of the columns.
const NAMES: [&str; 4] = ["md5 alone", "HashRing", "hashring", "conhash"];

/// One point of a node on the ring of the crate `hashring`.
#[derive(Clone, Hash)]
struct Spot {
    node: Location,
    number: usize,
}

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
    println!(
        "{}; medians of {ROUNDS} rounds of lookups, {ADDITIONS} of additions",
        machine()
    );
    println!("lookup of a key in ns, and its ratio to md5 alone");
    let heads: String = NAMES.iter().map(|name| format!("{name:>18}")).collect();
    println!("{:>6} nodes{heads}", "");
    for size in sizes {
        let cells = lookups(size).map(|(time, ratio)| format!("{time:11.1} ({ratio:.2})"));
        println!(
            "{size:6} nodes{:>18}{:>18}{:>18}{:>18}",
            cells[0], cells[1], cells[2], cells[3]
        );
    }
    println!("one more node at {size}, in us");
    println!(
        "{:12}{:18}{}",
        "",
        "",
        row(additions(size).map(|time| format!("{time:.0}")))
    );
    println!("memory at {size} nodes, in kB");
    println!(
        "{:12}{:18}{}",
        "",
        "",
        row(memory(size).map(|bytes| format!("{}", bytes / 1000)))
    );
}

fn row(cells: [String; 3]) -> String {
    cells.map(|cell| format!("{cell:>18}")).concat()
}

fn node(number: usize) -> Location {
    let address = format!("10.{}.{}.1", number / 256, number % 256);
    Location::new(&address, 9900).expect("it is an address")
}

fn spots(node: &Location) -> Vec<Spot> {
    let spot = |number| Spot {
        node: node.clone(),
        number,
    };
    (0..POINTS).map(spot).collect()
}

fn ours(size: usize) -> HashRing<Location> {
    (0..size).map(node).collect()
}

fn hashring(size: usize) -> hashring::HashRing<Spot> {
    let mut ring = hashring::HashRing::new();
    ring.batch_add((0..size).flat_map(|number| spots(&node(number))).collect());
    ring
}

fn conhash(size: usize) -> ConsistentHash<Named> {
    let mut ring = ConsistentHash::new();
    (0..size).for_each(|number| ring.add(&Named(node(number)), POINTS));
    ring
}

/// Nanoseconds of a lookup among so many nodes, and their ratios to md5 alone.
fn lookups(size: usize) -> [(f64, f64); 4] {
    let (ours, hashring, conhash) = (ours(size), hashring(size), conhash(size));
    let key = |number| Keys::First(MOST_KEYS).at(number);
    let rounds: Vec<[f64; 4]> = (0..ROUNDS)
        .map(|round| {
            let keys: Vec<_> = (round * KEYS..(round + 1) * KEYS).map(key).collect();
            [
                nanos(&keys, |key| point(key)),
                nanos(&keys, |key| ours.owner(key)),
                nanos(&keys, |key| hashring.get(key)),
                nanos(&keys, |key| conhash.get(key)),
            ]
        })
        .collect();
    let middle =
        |figure: &dyn Fn(&[f64; 4]) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    std::array::from_fn(|at| {
        (
            middle(&|round| round[at]),
            middle(&|round| round[at] / round[0]),
        )
    })
}

fn nanos<'a, T>(keys: &'a [[u8; KEY]], lookup: impl Fn(&'a [u8; KEY]) -> T) -> f64 {
    let began = Instant::now();
    for key in keys {
        black_box(lookup(black_box(key)));
    }
    began.elapsed().as_nanos() as f64 / keys.len() as f64
}

/// Microseconds to add a node to a ring that was made, or copied, just before: this crate's
/// makes a new one of it, and the others change.
fn additions(size: usize) -> [f64; 3] {
    let (old, old_hashring) = (ours(size), hashring(size));
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for number in size..size + ADDITIONS {
        let fresh = node(number);
        let ring = old.clone();
        rounds[0].push(micros(|| ring.with(fresh.clone())));
        let mut ring = old_hashring.clone();
        rounds[1].push(micros(|| ring.batch_add(spots(&fresh))));
        let mut ring = conhash(size);
        rounds[2].push(micros(|| ring.add(&Named(fresh.clone()), POINTS)));
    }
    rounds.map(|times| median(&times))
}

fn micros<T>(body: impl FnOnce() -> T) -> f64 {
    let began = Instant::now();
    let made = black_box(body());
    let time = began.elapsed();
    drop(made);
    time.as_secs_f64() * 1e6
}

/// Bytes that a ring takes.
fn memory(size: usize) -> [usize; 3] {
    [
        bytes(|| ours(size)),
        bytes(|| hashring(size)),
        bytes(|| conhash(size)),
    ]
}

fn bytes<T>(make: impl FnOnce() -> T) -> usize {
    let before = ALLOCATOR.current_usage();
    let made = make();
    let bytes = ALLOCATOR.current_usage() - before;
    drop(made);
    bytes
}
