//! How fast keys move when nodes join or die, and what clients notice of it: starts stores
//! of its own on this machine, with three copies of each key, and prints figures.
//!
//!     cargo build --release --bins
//!     cargo run --release --example moves

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{NodeStats, Phase, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::rpc::dialer::call;
use thrifty_p2p::store::placement::Key;

mod common;

use common::{Node, machine};

/// Measures joins without and with load, and the repair after a kill.
#[derive(Parser)]
struct Options {
    /// Keys in the store when nodes join
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    keys: usize,

    /// Keys in the store of five nodes of which one is killed
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys_at_kill: usize,

    /// Seconds of load before a node joins, and after it has
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
}

const VALUE: [u8; 100] = [b'v'; 100];

/// Threads that read and write in turn while nodes join.
const THREADS: usize = 16;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let options = Options::parse();
    println!("{}", machine());
    joins(&options)?;
    kill(&options)
}

/// A join without load, then one under load.
fn joins(options: &Options) -> Outcome<()> {
    let (mut nodes, ring) = start(3, options.keys)?;
    let seconds = join(&mut nodes)?;
    let moved = keys_of_last(&nodes);
    let rate = moved as f64 / seconds;
    println!("join without load: {moved} keys in {seconds:.2} s, {rate:.0} keys/s");

    let rest = |seconds| {
        thread::sleep(Duration::from_secs(seconds));
        Ok(())
    };
    under_load(options.keys, &ring, || rest(1))?;
    let before = under_load(options.keys, &ring, || rest(options.seconds))?;
    let during = under_load(options.keys, &ring, || join(&mut nodes).map(drop))?;
    let after = under_load(options.keys, &ring, || rest(options.seconds))?;
    println!("keys moved by a join under load: {}", keys_of_last(&nodes));
    for (when, calls) in [("before", &before), ("during", &during), ("after", &after)] {
        let Calls { rate, p99, failed } = calls;
        println!("{when} the join: {rate:.0} calls/s, p99 {p99:.3} ms, {failed} failed");
    }
    let (rate, p99) = (during.rate / before.rate, during.p99 / before.p99);
    println!("during / before: rate {rate:.2}, p99 {p99:.2}");
    Ok(())
}

/// One of five nodes is killed.
fn kill(options: &Options) -> Outcome<()> {
    let keys = options.keys_at_kill;
    let (mut nodes, _) = start(5, keys)?;
    wait_until(|| are_settled(&nodes))?;
    let (start, before) = (Instant::now(), placement_id(&nodes[0]));
    nodes.pop();
    // Until its death is noticed, the others look settled.
    wait_until(|| placement_id(&nodes[0]) != before && are_settled(&nodes))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("kill -9 of one of five nodes with {keys} keys: settled in {seconds:.2} s");
    Ok(())
}

/// Starts so many nodes and writes the keys.
fn start(count: usize, keys: usize) -> Outcome<(Vec<Node>, RingClient)> {
    let mut nodes = vec![Node::start(None)?];
    for _ in 1..count {
        nodes.push(Node::start(Some(&nodes[0].location))?);
    }
    let ring = RingClient::connect(&nodes[0].location)?;
    let keys: Vec<String> = (0..keys).map(key).collect();
    for some in keys.chunks(10_000) {
        let pair = |key| (Key::new(key), Some(&VALUE[..]));
        let pairs: Vec<_> = some.iter().map(|key| pair(key.as_bytes())).collect();
        ring.write_many(&pairs)?;
    }
    Ok((nodes, ring))
}

fn key(number: usize) -> String {
    format!("key{number:09}")
}

/// Starts one more node; the seconds until the network is settled.
fn join(nodes: &mut Vec<Node>) -> Outcome<f64> {
    let start = Instant::now();
    nodes.push(Node::start(Some(&nodes[0].location))?);
    wait_until(|| are_settled(nodes))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Calls of several threads.
struct Calls {
    rate: f64,
    p99: f64,
    failed: usize,
}

/// The calls that are made while `body` runs.
fn under_load(
    keys: usize,
    ring: &RingClient,
    body: impl FnOnce() -> Outcome<()>,
) -> Outcome<Calls> {
    let (start, is_over) = (Instant::now(), &AtomicBool::new(false));
    let (outcome, calls) = thread::scope(|scope| {
        let calls = |seed| scope.spawn(move || calls(keys, ring, seed, is_over));
        let threads: Vec<_> = (0..THREADS).map(calls).collect();
        let outcome = body();
        is_over.store(true, Relaxed);
        let calls = threads.into_iter().flat_map(|thread| thread.join());
        (outcome, calls.flatten().collect::<Vec<_>>())
    });
    outcome?;
    let mut millis: Vec<f64> = calls.iter().copied().flatten().collect();
    millis.sort_by(f64::total_cmp);
    Ok(Calls {
        rate: millis.len() as f64 / start.elapsed().as_secs_f64(),
        p99: *millis.get(millis.len() * 99 / 100).ok_or("no answer")?,
        failed: calls.len() - millis.len(),
    })
}

/// Reads and writes random keys in turn. Returns the milliseconds of each call, `None` for a
/// failed one.
fn calls(keys: usize, ring: &RingClient, seed: usize, is_over: &AtomicBool) -> Vec<Option<f64>> {
    let (mut random, mut calls) = (seed, Vec::new());
    while !is_over.load(Relaxed) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = key((random >> 33) % keys);
        let start = Instant::now();
        let done = match calls.len() % 2 {
            0 => ring.get(key.as_bytes()).map(drop),
            _ => ring.put(key.as_bytes(), &VALUE),
        };
        calls.push(done.is_ok().then(|| start.elapsed().as_secs_f64() * 1e3));
    }
    calls
}

fn stats(node: &Node) -> Option<NodeStats> {
    let stats = |node: &mut StoreSyncClient<_, _>| node.stats(false);
    call(StoreSyncClient::new, &node.location, stats).ok()
}

fn placement_id(node: &Node) -> Option<i64> {
    stats(node)?.placement_id
}

/// Do all nodes have the same placement, with no keys on their way?
fn are_settled(nodes: &[Node]) -> bool {
    let state = |node| stats(node).map(|s| (s.placement_id, s.phase, s.serving));
    let placement_id = placement_id(&nodes[0]);
    let settled = Some((placement_id, Some(Phase::SETTLED), Some(true)));
    nodes.iter().all(|node| state(node) == settled)
}

/// The keys that the last node holds.
fn keys_of_last(nodes: &[Node]) -> i64 {
    let stats = nodes.last().and_then(stats);
    stats.and_then(|stats| stats.keys).unwrap_or(0)
}

fn wait_until(is_so: impl Fn() -> bool) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        if Instant::now() > deadline {
            return Err("the store does not settle".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
