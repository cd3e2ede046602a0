//! What the programs share: options, logging, signals, output and exit statuses.
//!
//! `-h` is `--host`, as in the original. Help is `--help` only.

mod common;
mod limits;
mod log;
mod options;
mod signals;
mod streams;

use std::io::{self, Read, Write};
use std::process::{ExitCode, Termination};
use std::thread;
use std::time::Duration;

use ::log::error;
use clap::{Args, FromArgMatches, Parser};

use crate::error::Error;
use common::CommonOptions;

pub use limits::LimitOptions;
pub use options::{ClientOptions, NodeOptions, TlsOptions};
pub use signals::end_on_signals;
pub use streams::{open, stdout};

/// The exit statuses of a client program, for its `--help`.
pub const STATUSES: &str =
    "Exit status: 0 done, 1 key missing, 2 wrong usage, 3 no peer, 4 the call failed.";

/// The signals and exit statuses of a node program, for its `--help`.
pub const NODE_STATUSES: &str = "\
Signals: at SIGINT (ctrl-C), SIGTERM or SIGHUP the node leaves the network; at a second one the \
process exits immediately.\n\n\
Exit status: 0 left gracefully, 2 wrong usage or port in use, 3 no peer, 4 this host or process \
lacks a resource, or keys could not be handed over, 130 exited at a second signal.";

/// The exit status if the key is missing.
pub const MISSING: u8 = 1;

/// The exit status if a call failed.
pub const FAILED: u8 = 4;

/// Writes parts of an output to stdout. A closed pipe is not an error.
///
/// # Errors
/// [`Error::Io`] if stdout is closed or cannot be written.
pub fn print(parts: &[&[u8]]) -> Result<(), Error> {
    let mut stdout = stdout()?;
    let written = parts
        .iter()
        .try_for_each(|part| stdout.write_all(part))
        .and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Io(e)),
        _ => Ok(()),
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
/// its exit status.
///
/// A `quiet` program logs warnings and errors only, unless `-v` or `RUST_LOG` says otherwise.
pub fn run<O: Parser, T: Termination>(
    quiet: bool,
    body: impl FnOnce(O) -> Result<T, Error>,
) -> ExitCode {
    let matches = CommonOptions::augment_args(O::command()).get_matches();
    let common = CommonOptions::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let options = || O::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    common.start_log(quiet);
    let done = match common.describe(CommonOptions::augment_args(O::command())) {
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

/// Ends this process with [`FAILED`] if it still runs after `time`.
///
/// # Errors
/// [`Error::Io`] if no thread can be started.
fn exit_after(time: Duration) -> Result<(), Error> {
    let exit = move || {
        thread::sleep(time);
        error!("not done after {time:?}: a write may have taken effect or not");
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
    error!("there is no key {}", String::from_utf8_lossy(key));
    ExitCode::from(MISSING)
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
        | Error::Io(_) => FAILED,
    })
}
