//! What `storebench` can be told.

use std::time::Duration;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::error::Error;
use thrifty_p2p::load::keys::{Keys, MOST_KEYS};
use thrifty_p2p::load::store::{Load, Through};
use thrifty_p2p::load::{Measured, Span};
use thrifty_p2p::store::handler::SERVICE;

/// Puts a load on a store: one blocking thread a connection, one call after another on
/// each. Fills the key space first. Prints operations a second, and the percentiles of
/// the times of calls.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
pub struct Options {
    #[command(flatten)]
    pub client: ClientOptions,

    /// Connections, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = from_1_to::<10_000>)]
    connections: usize,

    /// Seconds that are measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,

    /// Measure until so many operations are done, instead of for some seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    operations: Option<u64>,

    /// Seconds before them, in which the load is there and not measured
    #[arg(long, value_name = "N", default_value_t = 1)]
    warm_up: u64,

    /// Measure so many times, and tell the medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to::<1000>)]
    pub rounds: usize,

    /// Keys that are read and written
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = from_1_to::<MOST_KEYS>)]
    pub keys: usize,

    /// Of these, only those that the peer passes on: their primary is another node
    #[arg(long)]
    pub passed_on: bool,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// The share of reads, from 0 (writes only) to 1 (reads only)
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    read_share: f64,

    /// Keys of a call; the rate counts keys, the times are those of calls
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to::<4096>)]
    batch: usize,

    /// How keys get to their owners
    #[arg(long, value_enum, default_value_t = Through::Node)]
    through: Through,

    /// Call the original's unacknowledged methods, `get` and `put`. (A node of the
    /// original serves one connection at a time: give it no more)
    #[arg(long, conflicts_with_all = ["batch", "through"])]
    original: bool,

    /// Only fill the key space, as fast as it goes
    #[arg(long)]
    pub fill: bool,

    /// Measure also the load beside so many connections that are open and idle
    ///
    /// They make a call each before the load begins.
    #[arg(long, value_name = "N")]
    pub idle: Option<usize>,

    /// Measure in the same run what the machine can do at most: a bare echo of messages of
    /// the sizes of a read, by as many threads and connections
    #[arg(long)]
    pub limit: bool,

    /// Print one JSON object, at the end
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// What is measured of each run.
    pub fn span(&self) -> Span {
        let seconds = Measured::Time(Duration::from_secs(self.seconds));
        Span {
            warm_up: Duration::from_secs(self.warm_up),
            measured: self.operations.map_or(seconds, Measured::Operations),
        }
    }

    /// The load that is put on the peer.
    ///
    /// # Errors
    /// There is no peer, or it passes on no keys and is to.
    pub fn load(&self) -> Result<Load, Error> {
        let dialer = self.client.dialer()?;
        let peer = self.client.peer(&dialer, SERVICE)?;
        let keys = if self.passed_on {
            Keys::passed_on_by(&dialer, &peer, self.keys)?
        } else {
            Keys::First(self.keys)
        };
        Ok(Load {
            dialer,
            peer,
            through: self.through,
            connections: self.connections,
            keys,
            value_size: self.value_size,
            read_share: self.read_share,
            batch: self.batch,
            original: self.original,
        })
    }
}

fn from_1_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {MOST}")),
    }
}
