//! How fast keys move, and what a load on the store feels of it: starts stores of its
//! own on this machine, fills them, lets nodes join and kills one, and prints figures.
//!
//!     cargo build --release --bins
//!     cargo run --release --example moves

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{Holdings, Phase, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::client::call;
use thrifty_p2p::store::table::Key;

mod load;
mod stores;

use load::{Calls, Load};
use stores::Stores;

/// Measures joins at rest and under load, and the repair after a kill, with three
/// copies of each key.
#[derive(Parser)]
struct Options {
    /// Keys in the store when nodes join
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    keys: usize,

    /// Keys in the store of five nodes of which one is killed
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys_at_kill: usize,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// Threads that read and write while nodes join, half of their calls each
    #[arg(long, value_name = "N", default_value_t = 16)]
    threads: usize,

    /// Seconds of load before a node joins
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
}

/// The longest that a store may take to settle.
const SETTLED: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let options = Options::parse();
    let measured = joins(&options).and_then(|()| kill(&options));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// A join at rest, then one under load.
fn joins(options: &Options) -> Result<(), Error> {
    let mut stores = Stores::start(3)?;
    let client = RingClient::connect(stores.first())?;
    fill(&client, options.keys, options.value_size)?;

    let began = Instant::now();
    stores.add()?;
    wait_until_settled(&stores)?;
    let moved = keys_of_last(&stores);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "join at rest: {moved} keys in {seconds:.2} s from the start of the process, {:.0} a second",
        moved as f64 / seconds
    );

    let load = Load::start(client, options.threads, options.keys, options.value_size);
    load.measure(Duration::from_secs(1), || false);
    let before = load.measure(Duration::from_secs(options.seconds), || false);
    stores.add()?;
    let during = load.measure(SETTLED, || is_settled(&stores));
    let moved = keys_of_last(&stores);
    let seconds = during.elapsed.as_secs_f64();
    println!("load before: {before}");
    println!("load during a join of {moved} keys in {seconds:.2} s: {during}");
    println!(
        "during the join: {:.2} of the calls a second, p99 {:.1} times that before",
        during.rate() / before.rate(),
        during.p99() / before.p99()
    );
    let failed = load.stop();
    println!("failed calls: {failed}");
    Ok(())
}

/// One of five nodes is killed.
fn kill(options: &Options) -> Result<(), Error> {
    let mut stores = Stores::start(5)?;
    let client = RingClient::connect(stores.first())?;
    fill(&client, options.keys_at_kill, options.value_size)?;
    wait_until_settled(&stores)?;
    let (began, before) = (Instant::now(), view(&stores));
    stores.kill_last().map_err(Error::Local)?;
    // Until its death is noticed, the others look settled.
    wait_until(|| view(&stores) != before)?;
    wait_until_settled(&stores)?;
    let seconds = began.elapsed().as_secs_f64();
    let keys = options.keys_at_kill;
    println!("after kill -9 of one of five nodes with {keys} keys: settled in {seconds:.2} s");
    Ok(())
}

/// Writes so many keys, many in each call.
fn fill(client: &RingClient, keys: usize, value_size: usize) -> Result<(), Error> {
    const AT_ONCE: usize = 10_000;
    let value = vec![b'v'; value_size];
    for first in (0..keys).step_by(AT_ONCE) {
        let numbers = first..keys.min(first + AT_ONCE);
        let names: Vec<Vec<u8>> = numbers.map(load::key).collect();
        let pair = |name| (Key::new(name), Some(value.as_slice()));
        let pairs: Vec<_> = names.iter().map(|name| pair(name)).collect();
        client.write_many(&pairs)?;
    }
    Ok(())
}

/// What a node holds; nothing if it does not answer.
fn holdings(node: &Location) -> Option<Holdings> {
    call(StoreSyncClient::new, node, |node| node.holdings(false)).ok()
}

/// The view of the first node.
fn view(stores: &Stores) -> Option<i64> {
    holdings(stores.first())?.view
}

/// Is nothing on its way, for all nodes in one view?
fn is_settled(stores: &Stores) -> bool {
    let view = view(stores);
    stores.all().all(|node| {
        holdings(node).is_some_and(|held| {
            held.phase == Some(Phase::SETTLED) && held.serving == Some(true) && held.view == view
        })
    })
}

fn wait_until_settled(stores: &Stores) -> Result<(), Error> {
    wait_until(|| is_settled(stores))
}

fn wait_until(is_so: impl Fn() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + SETTLED;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(Error::Local(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The keys that the node which came last holds.
fn keys_of_last(stores: &Stores) -> i64 {
    let held = holdings(stores.last());
    held.and_then(|held| held.keys).unwrap_or(0)
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} calls/s, p99 {:.3} ms", self.rate(), self.p99())
    }
}
