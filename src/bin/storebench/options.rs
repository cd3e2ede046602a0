//! The options of `storebench`, but for those of its [`Workload`].

use std::time::Duration;

use clap::Parser;
use thrifty_p2p::cli::ClientOptions;
use thrifty_p2p::location::Location;

use crate::run::RunLength;
use crate::store::Routing;
use crate::worker::Workload;

/// The exit statuses.
const STATUSES: &str = "Exit status: 0 done, 2 wrong usage, 3 no peer, 4 a call failed or took too long, \
    130 a second ctrl-C.";

/// Generates load on a store and measures it
///
/// Each worker makes one call after another. All keys are written first, under names of their own,
/// and deleted at the end. Prints the rate of operations and percentiles of the times of calls, for
/// the store and for servers to compare it with; at ctrl-C those so far.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = STATUSES)]
pub struct Options {
    #[command(flatten)]
    pub client: ClientOptions,

    #[command(flatten)]
    pub workload: Workload,

    /// Measure for this time
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,

    /// Measure until so many operations are done, instead of for some seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    operations: Option<u64>,

    /// Make calls for this time before the measurement starts
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub warm_up: u64,

    /// Measure each contender so many times, in turn, and print medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to::<1000>)]
    pub rounds: usize,

    /// How a call gets to the primary of its keys
    #[arg(long, value_enum, default_value_t = Routing::Proxy)]
    pub routing: Routing,

    /// Call the original's unacknowledged methods, `get` and `put` (a node of the original
    /// serves one connection at a time: use --connections 1)
    #[arg(long, conflicts_with_all = ["batch", "routing"])]
    pub legacy: bool,

    /// Write the keys, keep them, and stop
    #[arg(long)]
    pub load_only: bool,

    /// Measure the store also while so many other connections to it are open and idle
    #[arg(long, value_name = "N", conflicts_with = "routing")]
    pub idle_connections: Option<usize>,

    /// Measure also a bare echo server, whose messages have the sizes of a read: the
    /// fastest that this machine can be
    #[arg(long)]
    pub baseline: bool,

    /// Measure also this Redis server. The keys are written to its database
    #[arg(long, value_name = "HOST:PORT")]
    pub redis: Option<Location>,

    /// Let each write to Redis wait until so many replicas have it (0: do not wait)
    #[arg(long, value_name = "N", default_value_t = 2, requires = "redis")]
    redis_wait: usize,

    /// Measure also this memcached server. The keys are written to it
    #[arg(long, value_name = "HOST:PORT")]
    pub memcached: Option<Location>,

    /// Print one JSON object, at the end (src/guide/schema/storebench.json)
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Which part of each run is measured.
    pub fn length(&self) -> RunLength {
        let seconds = Duration::from_secs(self.seconds);
        RunLength {
            warm_up: Duration::from_secs(self.warm_up),
            time: self.operations.map_or(seconds, |_| RunLength::UNLIMITED),
            operations: self.operations.unwrap_or(u64::MAX),
        }
    }

    /// How many replicas a write to Redis waits for. Where only reads are measured, Redis
    /// needs no replicas.
    pub fn redis_wait(&self) -> usize {
        let has_writes = self.workload.read_ratio < 1.0;
        if has_writes { self.redis_wait } else { 0 }
    }
}

/// Reads a number of an option.
pub fn from_1_to<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {MAX}")),
    }
}
