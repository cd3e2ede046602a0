//! How fast keys move, and what a load on the store feels of it: starts stores of its
//! own on this machine, fills them, lets nodes join and kills one, and prints figures.
//!
//!     cargo build --release --bins
//!     cargo run --release --example moves

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::error::Error;
use thrifty_p2p::load::keys::Keys;
use thrifty_p2p::load::report::Report;
use thrifty_p2p::load::store::{Load, Through};
use thrifty_p2p::load::{Span, drive};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;

#[path = "../beside/mod.rs"]
mod beside;
mod load;
mod stores;

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

    /// Seconds of load before a node joins, and after it has
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
    fill(stores.first(), options.keys, options.value_size)?;

    let began = Instant::now();
    stores.add()?;
    wait_until(|| stores.are_settled())?;
    let moved = stores.keys_of_last();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "join at rest: {moved} keys in {seconds:.2} s from the start of the process, {:.0} a second",
        moved as f64 / seconds
    );

    join_under_load(options, &mut stores)
}

/// One more node joins under load; what the load is before, during and after that.
fn join_under_load(options: &Options, stores: &mut Stores) -> Result<(), Error> {
    let load = Load {
        connections: options.threads,
        batch: 1,
        ..load_of(stores.first(), options.keys, options.value_size)
    };
    load::under(&load, "warm-up", || rest(1))?;
    let ((), before) = load::under(&load, "before", || rest(options.seconds))?;
    stores.add()?;
    let ((), during) = load::under(&load, "join", || wait_until(|| stores.are_settled()))?;
    let moved = stores.keys_of_last();
    let ((), after) = load::under(&load, "after", || rest(options.seconds))?;
    println!("load before a join: {}", words(&before));
    println!("load during a join of {moved} keys: {}", words(&during));
    println!("load after a join: {}", words(&after));
    println!(
        "during the join: {:.2} of the calls a second, p99 {:.1} times that before",
        during.rate() / before.rate(),
        during.percentile(0.99) / before.percentile(0.99)
    );
    println!(
        "after the join: {:.2} of the calls a second before it",
        after.rate() / before.rate()
    );
    let failed = before.failed() + during.failed() + after.failed();
    println!("failed calls: {failed}");
    Ok(())
}

/// One of five nodes is killed.
fn kill(options: &Options) -> Result<(), Error> {
    let mut stores = Stores::start(5)?;
    let keys = options.keys_at_kill;
    fill(stores.first(), keys, options.value_size)?;
    wait_until(|| stores.are_settled())?;
    let (began, before) = (Instant::now(), stores.view());
    stores.kill_last();
    // Until its death is noticed, the others look settled.
    wait_until(|| stores.view() != before)?;
    wait_until(|| stores.are_settled())?;
    let seconds = began.elapsed().as_secs_f64();
    println!("after kill -9 of one of five nodes with {keys} keys: settled in {seconds:.2} s");
    Ok(())
}

/// Writes every key once, many in each call.
fn fill(peer: &Location, keys: usize, value_size: usize) -> Result<(), Error> {
    let load = load_of(peer, keys, value_size);
    let filled = drive("fill", load.fillers()?, Span::ALL);
    if filled.failed() > 0 {
        return Err(Error::Usage(format!("{peer} has not taken all keys")));
    }
    Ok(())
}

/// Half reads, half writes, of many keys a call, by one client.
fn load_of(peer: &Location, keys: usize, value_size: usize) -> Load {
    Load {
        dialer: Dialer::default(),
        peer: peer.clone(),
        through: Through::SharedRing,
        connections: 1,
        keys: Keys::First(keys),
        value_size,
        read_share: 0.5,
        batch: 10_000,
        original: false,
    }
}

fn rest(seconds: u64) -> Result<(), Error> {
    thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

fn wait_until(is_so: impl Fn() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + SETTLED;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(Error::Io(io::ErrorKind::TimedOut.into()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn words(report: &Report) -> String {
    let (rate, p99) = (report.rate(), report.percentile(0.99));
    format!("{rate:.0} calls/s, p99 {p99:.3} ms")
}
