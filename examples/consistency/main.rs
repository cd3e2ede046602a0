//! Writes and reads keys of a store, checks whether it is linearizable, and prints one line a
//! second.
//!
//! Leave it running in one terminal and kill, stop and restart nodes of the store in another one.
//! It calls all nodes. Each line shows the reads and writes so far, the failed calls, the
//! violations, the longest time for which a key could not be read or written since the last line,
//! and the state of the store. If the line ends with `settled`, the next node may be killed without
//! loss. A violation is a part of the history of one key that no order of its operations explains:
//! for example a lost write, or a read that returns an older value than the one before. The first
//! ones are printed at the end.
//!
//! `cargo run --example consistency -- 127.0.0.1:9900`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::cli::TlsOptions;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::plural::counted;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::shutdown::Shutdown;
use thrifty_p2p::status::store::StoreStatus;

#[allow(dead_code, unused_imports)] // The tests use all of it.
#[path = "checker.rs"] // The tests load it by its path too. So its modules are in this folder.
mod checker;

use checker::{AnyNode, KeyValueStore, Nodes, Report, Workload};

/// The threads that write, and the threads that read.
const WRITERS: usize = 4;
const READERS: usize = 4;

/// The time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last reads and the deletions may take.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// The exit status after a second ctrl-C.
const INTERRUPTED: i32 = 130;

/// The exit statuses, for `--help`.
const STATUSES: &str = "Exit status: 0 no call failed and there was no violation, 1 a call failed \
    or there was a violation, 2 wrong usage, or there is no such store, 130 a second ctrl-C.";

/// Writes and reads keys of a store, checks whether it is linearizable, and prints one line a second
#[derive(Parser)]
#[command(after_help = STATUSES)]
struct Options {
    /// Any node of the store
    #[arg(value_name = "HOST:PORT")]
    peer: Location,

    /// Stop after this time [default: run until ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,

    #[command(flatten)]
    tls: TlsOptions,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

/// Runs the workload and prints its lines and, at the end or at ctrl-C, a summary and the first
/// problems. Deletes its keys.
fn run(options: Options) -> Result<Report, Error> {
    let dialer = Dialer::new(options.tls.identity()?);
    let peer = options.peer;
    StoreStatus::ask(&dialer, &peer)?;
    let nodes = Nodes::that_may_exit([peer.clone()]);
    let connect = || AnyNode::of(dialer.clone(), nodes.clone(), 0);
    // The process id keeps the keys of two runs apart.
    let name = format!("consistency {}", std::process::id());
    let workload = Workload::start(&name, WRITERS, READERS, connect);

    let stop = Shutdown::new();
    let on_signal = stop.clone();
    let on_signal = move || {
        if on_signal.is_requested() {
            std::process::exit(INTERRUPTED);
        }
        on_signal.request();
    };
    ctrlc::set_handler(on_signal).map_err(|e| Error::Usage(e.to_string()))?;

    let duration = options.seconds.map(Duration::from_secs);
    let began = Instant::now();
    let (mut longest, mut is_answered) = (Duration::ZERO, true);
    while duration.is_none_or(|duration| began.elapsed() < duration) {
        let line_began = Instant::now();
        let state = refresh(&dialer, &nodes, &peer);
        is_answered = state.is_some();
        let state = state.unwrap_or_else(|| "no node answers".into());
        let is_stopped = stop.wait_for(LINE_INTERVAL.saturating_sub(line_began.elapsed()));
        let (read, write) = workload.reset_stalls();
        longest = longest.max(read).max(write);
        println!("{}  {state}", workload.report().line(read.max(write)));
        if is_stopped {
            break;
        }
    }
    let keys: Vec<Vec<u8>> = (0..workload.keys()).map(|key| workload.key(key)).collect();

    if stop.is_requested() {
        eprintln!("a last look at each key, within 30 s; ctrl-C again ends at once");
    }
    // Without a node there is nothing to wait for.
    let time = if is_answered {
        END_TIMEOUT
    } else {
        Duration::ZERO
    };
    nodes.close_at(Instant::now() + time);
    let report = workload.finish(is_answered.then(connect));
    for problem in &report.problems {
        eprintln!("{problem}");
    }
    let mut store = connect();
    let is_kept = |key: &&Vec<u8>| store.put(key, None).is_err();
    if let kept @ 1.. = keys.iter().filter(is_kept).count() {
        eprintln!(
            "not deleted: {} that start with {name:?}",
            counted(kept, "key")
        );
    }
    let seconds = began.elapsed().as_secs();
    println!("in {seconds} s: {}", report.line(longest));
    Ok(report)
}

/// Replaces `nodes` by those of the store, of which `peer` was one. Returns the state of the store,
/// for a line. None if no node answers.
fn refresh(dialer: &Dialer, nodes: &Nodes, peer: &Location) -> Option<String> {
    let known = nodes.locations();
    let mut replies = known.iter().chain([peer]);
    let status = replies.find_map(|peer| StoreStatus::ask(dialer, peer).ok())?;
    let replied = status.nodes.iter().filter(|node| node.stats.is_some());
    nodes.replace(replied.map(|node| node.location.clone()));
    let count = counted(status.nodes.len(), "node");
    Some(format!("{count}, {}", status.verdict()))
}
