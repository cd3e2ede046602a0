//! How does a store bear a load beside Redis and memcached?
//!
//! All are called by the same threads, one a connection, with the same keys and values,
//! each in its own protocol: one system call to send, and one to receive what fits a
//! packet. They take turns, beside a bare echo of the same sizes; the ratios are those of
//! the rates within each round.
//!
//!     redis-server --port 20001 --save '' &
//!     memcached -u nobody -p 20002 -t 2 &
//!     cargo run --release --bin storeserver -- --alone -p 20000 &
//!     cargo run --release --example compare -- --store localhost:20000 \
//!         --redis localhost:20001 --memcached localhost:20002

mod memcached;
mod other;
mod redis;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::load::echo;
use thrifty_p2p::load::keys::Keys;
use thrifty_p2p::load::report::{Report, machine};
use thrifty_p2p::load::rounds::{Ratio, Side, in_turn, median_rate};
use thrifty_p2p::load::store::{Load, Through};
use thrifty_p2p::load::{Measured, Span, drive};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Caller;

use memcached::Memcached;
use other::{Dialect, Other};
use redis::Redis;

/// Calls a store and others in turn, and tells the ratios of their rates.
#[derive(Parser)]
#[command(after_help = cli::STATUSES)]
struct Options {
    /// A node of a store
    #[arg(long, value_name = "HOST:PORT")]
    store: Location,

    /// A server of Redis; its database gets the keys `key000000000` and so on
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<Location>,

    /// A server of memcached, which gets them too
    #[arg(long, value_name = "HOST:PORT")]
    memcached: Option<Location>,

    /// Write, instead of reading
    #[arg(long, conflicts_with = "batch")]
    write: bool,

    /// When writing to Redis, wait for so many replicas after each `SET`
    #[arg(long, value_name = "N", default_value_t = 2)]
    wait: usize,

    /// Keys of a call: `fetch_many`, pipelined `GET`s, one `get` of memcached
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,

    /// Connections, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 50)]
    connections: usize,

    /// Keys that are read and written
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: usize,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,

    /// Seconds that each is measured in a round, after one that is not
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u64,
}

/// The name of the store among those that are compared.
const STORE: &str = "store";

fn main() -> ExitCode {
    if let Some(sizes) = echo::asked_to_serve() {
        let served = echo::serve(sizes);
        return served.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    cli::run(true, || compare(&options))
}

fn compare(options: &Options) -> Result<ExitCode, Error> {
    let load = &options.load();
    let failed = drive("fill", load.fillers()?, Span::ALL).failed();
    let mut sides: Vec<Side<'_, Error>> = Vec::new();
    let span = options.span();
    sides.push(Box::new(move || Ok(drive(STORE, load.callers()?, span))));
    if let Some(server) = &options.redis {
        let wait = if options.write { options.wait } else { 0 };
        sides.push(options.side("redis", server, Redis { wait }, load)?);
    }
    if let Some(server) = &options.memcached {
        sides.push(options.side("memcached", server, Memcached, load)?);
    }
    let sizes = load.sizes();
    sides.push(Box::new(move || {
        echo::measure(load.connections, sizes, load.batch, span).map_err(Error::Io)
    }));
    println!("{}", options.head());
    let reports = in_turn(options.rounds, sides, |report| {
        println!("{}", report.row());
        Ok(())
    })?;
    tell_ratios(&reports);
    let failed = failed + reports.iter().flatten().map(Report::failed).sum::<u64>();
    Ok(ExitCode::from(if failed > 0 { cli::FAILED } else { 0 }))
}

/// The medians, and the ratio of the store's rates to those of each other one.
fn tell_ratios(reports: &[Vec<Report>]) {
    for side in reports {
        let name = side.first().map_or("", Report::name);
        print!("the median of {name} is {:.0}", median_rate(side));
        if name != STORE {
            print!("; {STORE} is {} of it", Ratio::of(&reports[0], side));
        }
        println!();
    }
}

impl Options {
    fn load(&self) -> Load {
        Load {
            caller: Caller::default(),
            peer: self.store.clone(),
            through: Through::Node,
            connections: self.connections.max(1),
            keys: Keys::First(self.keys.max(1)),
            value_size: self.value_size,
            read_share: if self.write { 0.0 } else { 1.0 },
            batch: self.batch.max(1),
            original: false,
        }
    }

    fn span(&self) -> Span {
        Span {
            warm_up: Duration::from_secs(1),
            measured: Measured::Time(Duration::from_secs(self.seconds)),
        }
    }

    /// Fills a server and makes a side of it.
    fn side<'a>(
        &self,
        name: &'static str,
        server: &'a Location,
        dialect: impl Dialect + 'a,
        load: &'a Load,
    ) -> Result<Side<'a, Error>, Error> {
        let not_called = move |e: io::Error| Error::Unreachable(server.clone(), e);
        Other::connect(server, dialect, load, 0)
            .and_then(|mut other| other.fill())
            .map_err(not_called)?;
        let span = self.span();
        Ok(Box::new(move || {
            let connect = |number| Other::connect(server, dialect, load, number);
            let callers: io::Result<Vec<_>> = (0..load.connections).map(connect).collect();
            Ok(drive(name, callers.map_err(not_called)?, span))
        }))
    }

    fn head(&self) -> String {
        let what = match (self.write, self.batch) {
            (true, _) => format!("writes; Redis: SET, then WAIT for {} replicas", self.wait),
            (false, 0 | 1) => "reads".to_owned(),
            (false, count) => format!("reads of {count} keys a call; Redis: as many GETs at once"),
        };
        format!(
            "{}\n{what}; {} connections, {} keys with values of {} bytes\n{}",
            machine(),
            self.connections,
            self.keys,
            self.value_size,
            Report::heads("keys")
        )
    }
}
