//! `storebench`: puts a load on a store and says what it bore.

mod echo;
mod load;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::handler::SERVICE;

use load::{Load, drive};
use report::Report;

/// Puts a load on a store through one of its nodes: one blocking thread a
/// connection, one call after another on each. Fills the key space first. Prints
/// calls a second and the percentiles of their times.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Connections, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 50)]
    connections: usize,

    /// Seconds that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,

    /// Keys that are read and written
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: usize,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// The share of reads, from 0 (writes only) to 1 (reads only)
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    read_share: f64,

    /// Call the original's unacknowledged methods, `get` and `put`
    #[arg(long)]
    original: bool,

    /// Call each key's primary directly
    #[arg(long)]
    ring: bool,

    /// Only fill the key space, as fast as it goes
    #[arg(long)]
    fill: bool,

    /// Measure in the same run what the machine can do at most: a bare echo of messages
    /// of a `get`'s sizes, by as many threads and connections
    #[arg(long)]
    limit: bool,

    /// Serve as the other side of that echo, with these sizes (it is started by `--limit`)
    #[arg(long, hide = true, num_args = 2, value_names = ["REQUEST", "REPLY"])]
    serve_echo: Option<Vec<usize>>,
}

/// What is not measured yet: connections are made and code is warm after it.
const WARM_UP: Duration = Duration::from_secs(1);

/// The longest that filling may take.
const FILLING: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(true, || {
        if let Some([request, reply]) = options.serve_echo.as_deref() {
            echo::serve(*request, *reply).map_err(Error::Local)?;
            return Ok(ExitCode::SUCCESS);
        }
        let time = Duration::from_secs(options.seconds);
        let caller = options.client.caller()?;
        let peer = options.client.peer(&caller, SERVICE)?;
        let load = Load {
            connections: options.connections.max(1),
            keys: options.keys.max(1),
            value_size: options.value_size,
            read_share: options.read_share,
            original: options.original,
            ring: options
                .ring
                .then(|| RingClient::of(caller.clone(), &peer))
                .transpose()?,
            peer,
            caller,
        };
        let filled = drive(load.fillers()?, Duration::ZERO, FILLING);
        print("fill", &filled)?;
        if options.fill {
            return Ok(status(&filled));
        }
        let measured = drive(load.loaders()?, WARM_UP, time);
        print("load", &measured)?;
        if options.limit {
            let limit = echo::measure(&load, WARM_UP, time).map_err(Error::Local)?;
            print("echo", &limit)?;
            let ratio = measured.rate() / limit.rate();
            cli::print(&[format!("the load is {ratio:.2} of the echo\n").as_bytes()])?;
        }
        Ok(status(&measured))
    })
}

/// Calls that were not answered are failed calls.
fn status(report: &Report) -> ExitCode {
    if report.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(cli::FAILED)
    }
}

fn print(what: &str, report: &Report) -> Result<(), Error> {
    cli::print(&[format!("{what}  {report}\n").as_bytes()])
}
