//! Leave it running in a terminal, kill nodes of a store in another one, and see
//! whether anything is lost.
//!
//! Writers and readers call any node of the store and look at every single answer. A
//! line a second tells how many were answered, how many calls failed, how many answers
//! were missing or stale, the longest call since the last line, and whether the store
//! is settled: then the next node may be killed without a thought.
//!
//!     cargo run --example consistency -- 127.0.0.1:9900

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::cli::TlsOptions;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::status::store::StoreStatus;

#[allow(dead_code)] // The tests use all of it.
mod checker;

use checker::{AnyNode, Load, Nodes, Report};

/// Writes and reads keys of a store, through any of its nodes, and checks every answer.
#[derive(Parser)]
#[command(after_help = "Exit status: 0 nothing failed and nothing was lost, 1 something was.")]
struct Options {
    /// Any node of the store
    #[arg(value_name = "HOST:PORT")]
    peer: Location,

    /// End after so long; without it, run until ctrl-C
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    #[command(flatten)]
    tls: TlsOptions,
}

fn main() -> ExitCode {
    match check(Options::parse()) {
        Ok(report) => ExitCode::from(u8::from(!report.is_clean())),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn check(options: Options) -> Result<Report, Error> {
    let dialer = Dialer::new(options.tls.identity()?);
    let nodes = Nodes::forgiving([options.peer]);
    let connect = {
        let (dialer, nodes) = (dialer.clone(), nodes.clone());
        move || AnyNode::of(dialer.clone(), nodes.clone(), 0)
    };
    // Of an earlier run of this program, other keys may be there.
    let load = Load::start(
        &format!("consistency {}", std::process::id()),
        4,
        4,
        connect,
    );
    let began = Instant::now();
    let is_over = || {
        let seconds = options.seconds.map(Duration::from_secs);
        seconds.is_some_and(|seconds| began.elapsed() >= seconds)
    };
    while !is_over() {
        let second = Instant::now();
        let network = look(&dialer, &nodes);
        thread::sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
        println!("{}  {network}", line(&load));
    }
    let report = load.finish([AnyNode::of(dialer, nodes, 0)]);
    for complaint in &report.complaints {
        eprintln!("{complaint}");
    }
    Ok(report)
}

/// The state of the store in a few words; takes in the nodes that have come.
fn look(dialer: &Dialer, nodes: &Nodes) -> String {
    for peer in nodes.locations() {
        if let Ok(status) = StoreStatus::ask(dialer, &peer) {
            let found = status.nodes.iter();
            nodes.replace(
                found
                    .filter(|n| n.stats.is_some())
                    .map(|n| n.location.clone()),
            );
            return format!("{} nodes, {}", status.nodes.len(), status.summary());
        }
    }
    "no node answers".into()
}

fn line(load: &Load) -> String {
    let (read, write) = load.reset_stalls();
    let Report {
        reads,
        writes,
        failed,
        missing,
        stale,
        ..
    } = load.report();
    let lost = missing + stale;
    let longest = read.max(write).as_millis();
    format!("{reads} reads, {writes} writes, {failed} failed, {lost} lost, longest {longest} ms")
}
