//! How the reads of one node scale with threads: calls its `fetch` in this process, so that
//! neither sockets nor Thrift are measured. Two threads should do 1.9 times as many reads
//! as one, where there are two cores.
//!
//!     cargo run --release --example scaling

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::diststore::StoreSyncProcessor;
use thrifty_p2p::endpoint::BindOptions;
use thrifty_p2p::handler::serve;
use thrifty_p2p::node::Node;
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::StoreLimits;
use thrifty_p2p::store::store::Store;

mod common;

use common::{machine, median};

/// Measures the reads of one store node, in this process, by several threads.
#[derive(Parser)]
struct Options {
    /// Keys in the store
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: usize,

    /// Rounds, in each of which all numbers of threads are measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,

    /// Milliseconds of each measurement
    #[arg(long, value_name = "N", default_value_t = 1000)]
    millis: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    println!("{}; medians of {} rounds", machine(), options.rounds);
    let place = BindOptions {
        advertise: Some(Ipv4Addr::LOCALHOST.into()),
        ..BindOptions::at(0..=0)
    };
    let node = Node::bind(&place, SERVICE)?;
    let handler = StoreHandler::new(node.clone(), None, StoreLimits::default());
    let served = handler.clone();
    thread::scope(|scope| {
        // A node that is given itself as its peer starts a new network.
        let own = node.location().clone();
        let serving = scope.spawn(move || serve(served, StoreSyncProcessor::new, &[own]));
        let measured = measure(&options, handler.store());
        node.endpoint().shutdown().request();
        serving.join().expect("the server does not panic")?;
        Ok(measured?)
    })
}

/// Writes the keys, then prints rates and their ratios to one thread.
fn measure(options: &Options, store: &Store) -> Result<(), String> {
    let keys: Vec<String> = (0..options.keys)
        .map(|key| format!("key{key:09}"))
        .collect();
    for key in &keys {
        store.write(key.as_bytes(), Some(vec![b'v'; 100]))?;
    }
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut counts = vec![1, 2, 4, 8, 16];
    counts.retain(|threads| *threads <= cores.max(2));
    let time = Duration::from_millis(options.millis);
    let round = |_| {
        counts
            .iter()
            .map(|threads| rate(store, &keys, *threads, time))
            .collect()
    };
    let rounds: Vec<Vec<f64>> = (0..options.rounds).map(round).collect();
    for (at, threads) in counts.iter().enumerate() {
        let rate = median(rounds.iter().map(|rates| rates[at]).collect());
        let ratio = median(rounds.iter().map(|rates| rates[at] / rates[0]).collect());
        println!("threads {threads}: {rate:.0} reads/s, {ratio:.2} times one thread");
    }
    Ok(())
}

/// Reads per second by so many threads at the same time.
fn rate(store: &Store, keys: &[String], threads: usize, time: Duration) -> f64 {
    let barrier = Barrier::new(threads);
    let reads = |thread: usize| {
        barrier.wait();
        let start = Instant::now();
        // Each thread starts at another key. A stride that is prime visits all keys.
        let mut at = keys.len() * thread / threads;
        let mut reads = 0;
        while reads % 64 != 0 || start.elapsed() < time {
            let found = store.fetch(keys[at].as_bytes());
            assert!(matches!(found, Ok(Some(_))), "{found:?}");
            at = (at + 7919) % keys.len();
            reads += 1;
        }
        reads as f64 / start.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let reads = &reads;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || reads(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no read fails"))
            .sum()
    })
}
