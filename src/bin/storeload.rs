//! `storeload`: writes the pairs of a file into a store.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use log::error;
use thrifty_p2p::bulk::load::{Stopped, load};
use thrifty_p2p::bulk::progress::Progress;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::plural::counted;

/// Writes all pairs of FILE into the store; returns when they are in place
///
/// Each line is a key, a tab and a value. \t, \n, \r, \\ and \x with two hexadecimal digits are
/// escapes. The last line of a key wins. A malformed line ends the load with exit status 2; the
/// lines before it are stored.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// The file, in the format of `storedump`; `-`: stdin [default: stdin]
    file: Option<PathBuf>,
}

/// Bytes that are read at once.
const READ_AHEAD: usize = 256 * 1024;

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let (input, size) = cli::open(options.file.as_deref())?;
        let client = options.client.ring()?;
        let progress = Progress::of(size);
        let input = BufReader::with_capacity(READ_AHEAD, input);
        let loaded = progress.shown_while(|| load(&client, input, &progress));
        let Err(Stopped { line, reason }) = loaded else {
            return Ok(ExitCode::SUCCESS);
        };
        let stored = counted(progress.keys(), "line");
        error!("line {line}: {reason}; stored {stored}");
        Ok(cli::status(&reason))
    })
}
