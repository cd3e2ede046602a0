//! What the programs share: options, logging, signals, output and exit statuses.
//!
//! `-h` is `--host`, as in the original. Help is `--help` only.

mod common;
mod limits;
mod log;
mod options;
mod signals;
mod streams;
mod watch;

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use ::log::error;
use clap::{Args, Command, FromArgMatches, Parser};
use parking_lot::Mutex;
use thrift::server::TProcessor;

use crate::client::Conditional;
use crate::error::Error;
use crate::handler::{LocatorHandler, serve};
use crate::node::Node;
use crate::store::placement::Key;
use common::CommonOptions;

pub use limits::LimitOptions;
pub use options::{ClientOptions, NodeOptions, TlsOptions};
pub use signals::{end_on_signals, end_with_success};
pub use streams::{open, stdout};
pub use watch::{View, watch};

/// The exit statuses of a client program, for its `--help`.
pub const STATUSES: &str =
    "Exit status: 0 done, 2 wrong usage, 3 no peer, 4 the call failed or took too long.";

/// The same of a program that reads or deletes keys.
pub const KEY_STATUSES: &str = "Exit status: 0 done, 1 a key is missing, 2 wrong usage, 3 no peer, 4 the call failed or took \
    too long.";

/// The signals and exit statuses of a node program. The argument is added to what 4 means.
macro_rules! node_statuses {
    ($failed:literal) => {
        concat!(
            "Signals: at SIGINT (ctrl-C), SIGTERM or SIGHUP the node leaves the network; at a second \
             one, half a second later or more, the process exits immediately.\n\n\
             Exit status: 0 left gracefully, 2 wrong usage or port in use, 3 no peer, 4 this host or \
             process lacks a resource",
            $failed,
            ", 130 exited at a second signal."
        )
    };
}

/// The same of a program that makes conditional writes.
pub const WRITE_STATUSES: &str = "Exit status: 0 done, 2 wrong usage, 3 no peer, 4 the call failed or \
    took too long, 5 the key has another version than --if-version or --if-absent says.";

/// The same of a program that makes conditional deletions.
pub const DELETE_STATUSES: &str = "Exit status: 0 done, 1 the key is missing, 2 wrong usage, 3 no \
    peer, 4 the call failed or took too long, 5 the key has another version than --if-version says.";

/// The signals and exit statuses of a node program, for its `--help`.
pub const NODE_STATUSES: &str = node_statuses!("");

/// The same of a store node.
pub const STORE_STATUSES: &str =
    node_statuses!(", keys were not handed over, or the data directory cannot be used");

/// The exit status if the key is missing.
const MISSING: u8 = 1;

/// The exit status if a key has another version than the one that a write depends on.
const DIFFERS: u8 = 5;

/// The exit status if a call failed.
pub const FAILED: u8 = 4;

/// Ports that a node tries, from 9900 upward, as the original's `location`.
const PORTS: u16 = 40;

/// Writes parts of an output to stdout. A closed pipe is not an error.
///
/// # Errors
/// [`Error::Output`] if stdout is closed or cannot be written.
pub fn print(parts: &[&[u8]]) -> Result<(), Error> {
    let mut stdout = stdout()?;
    let mut parts = parts.iter();
    let written = parts.try_for_each(|part| stdout.write_all(part));
    let written = written.and_then(|()| stdout.flush());
    until_closed(written.map_err(Error::Output))
}

/// The same result, but a closed pipe is not an error: its reader has read all that it wants.
pub fn until_closed(written: Result<(), Error>) -> Result<(), Error> {
    match written {
        Err(Error::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes lines to stdout. False if nobody reads it any more.
///
/// # Errors
/// [`Error::Output`] if stdout is closed or cannot be written.
pub fn print_lines(mut lines: impl Iterator<Item = String>) -> Result<bool, Error> {
    let mut stdout = stdout()?;
    let written = lines.try_for_each(|line| writeln!(stdout, "{line}"));
    match written.and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Error::Output),
    }
}

/// Reads a value to the end of the input.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Usage`] if it has more than `max` bytes.
pub fn read_value(input: impl Read, max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut input = input.take(max as u64 + 1);
    input.read_to_end(&mut bytes).map_err(Error::Io)?;
    if bytes.len() > max {
        return Err(Error::Usage(format!(
            "the input has more than {max} bytes, the maximum for a value"
        )));
    }
    Ok(bytes)
}

/// Parses the options of a program, starts logging, runs the body of the program, and returns
/// its exit status. `O` has [`NodeOptions`] or [`ClientOptions`].
///
/// A `quiet` program logs warnings and errors only, as plain sentences, unless `-v` or `RUST_LOG`
/// says otherwise.
pub fn run<O: Parser, T: Termination>(
    quiet: bool,
    body: impl FnOnce(O) -> Result<T, Error>,
) -> ExitCode {
    run_command(O::command(), quiet, body)
}

fn run_command<O: FromArgMatches, T: Termination>(
    command: Command,
    quiet: bool,
    body: impl FnOnce(O) -> Result<T, Error>,
) -> ExitCode {
    let matches = command.clone().get_matches();
    let common = CommonOptions::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let options = || O::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    common.start_log(quiet);
    let done = match common.describe(command) {
        Some(text) => print(&[&text]).map(|()| ExitCode::SUCCESS),
        None => body(options()).map(Termination::report),
    };
    let status = match done {
        Ok(status) => status,
        Err(e) => {
            error!("{e}");
            status(&e)
        }
    };
    log::flush();
    status
}

/// The whole program of a node with a service of its own: parses the options that all nodes have,
/// starts logging, binds the first free port from 9900 on, joins or starts a network, serves, and
/// leaves at a signal. Returns the exit status.
///
/// `about` is the first line of `--help`, `service_type` the last of
/// [`service_types`](crate::handler::BaseHandler::service_types). `handler` makes the handler of
/// the node, and `processor` is the constructor of the generated processor. Blocks.
pub fn run_service<H, P>(
    about: &'static str,
    service_type: &str,
    handler: impl FnOnce(Node) -> H,
    processor: impl FnOnce(H) -> P,
) -> ExitCode
where
    H: LocatorHandler + Clone + 'static,
    P: TProcessor + Send + Sync + 'static,
{
    let program = std::env::args().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    let command = NodeOptions::augment_args(Command::new(name.to_string_lossy().into_owned()));
    let command = command.about(about).version(env!("CARGO_PKG_VERSION"));
    let command = command.disable_help_flag(true).after_help(NODE_STATUSES);
    run_command(command, false, |options: NodeOptions| {
        let node = Node::bind(&options.bind_options(PORTS)?, service_type)?;
        let at_risk = || "the other nodes have to detect that this one is down".into();
        end_on_signals(node.endpoint().shutdown(), at_risk);
        let peers = options.peers(&node);
        serve(handler(node), processor, &peers)
    })
}

/// What a program that waits has seen last, for the message of `--timeout`.
static LAST_SEEN: Mutex<String> = Mutex::new(String::new());

/// A program waits, and this is what it sees: if `--timeout` ends it, its message says that too.
pub fn keeps_waiting(seen: impl Display) {
    *LAST_SEEN.lock() = seen.to_string();
}

/// Ends this process with [`FAILED`] if it still runs after `time`. Only the first call counts.
///
/// # Errors
/// [`Error::Io`] if no thread can be started.
fn exit_after(time: Duration) -> Result<(), Error> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    if IS_STARTED.swap(true, Relaxed) {
        return Ok(());
    }
    let exit = move || {
        thread::sleep(time);
        match LAST_SEEN.lock().as_str() {
            "" => error!("not done after {time:?}"),
            seen => error!("not done after {time:?}: {seen}"),
        }
        log::flush();
        std::process::exit(i32::from(FAILED));
    };
    let watch = thread::Builder::new().name("timeout".into()).spawn(exit);
    watch.map(drop).map_err(Error::Io)
}

/// The exit status of a program that read or deleted `key`. Logs an error if the key is missing.
pub fn status_of_key(key: &[u8], is_found: bool) -> ExitCode {
    if is_found {
        return ExitCode::SUCCESS;
    }
    error!("there is no key {}", Key::new(key));
    ExitCode::from(MISSING)
}

/// The exit status of a program that wrote `key` on a condition. Logs an error if it did not.
pub fn status_of_condition(key: &[u8], result: Conditional) -> ExitCode {
    let Conditional::Differs(version) = result else {
        return ExitCode::SUCCESS;
    };
    let key = Key::new(key);
    match version {
        0 => error!("nothing was written: {key} has no value"),
        _ => error!("nothing was written: {key} has version {version}"),
    }
    ExitCode::from(DIFFERS)
}

/// The exit status for an error.
pub fn status(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::BadLocation(_) | Error::Bind(..) | Error::Usage(_) => 2,
        Error::Unresolved(..)
        | Error::Refused(..)
        | Error::Unreachable(..)
        | Error::Tls(..)
        | Error::WrongNetwork { .. }
        | Error::NoPeer(_) => 3,
        Error::Timeout(..)
        | Error::ConnectionLost(..)
        | Error::Remote(..)
        | Error::NotHandedOver(_)
        | Error::Output(_)
        | Error::Data(_)
        | Error::Io(_) => FAILED,
    })
}
