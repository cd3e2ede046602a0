//! `storedel`: deletes one key.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use log::error;
use thrifty_p2p::cli::{self, ClientOptions};

/// Deletes KEY; returns when all its copies are deleted
///
/// Exits with 1 if there is no such key.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// The key; any bytes
    key: OsString,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(true, || {
        let key = options.key.into_vec();
        if options.client.store()?.delete(&key)? {
            return Ok(ExitCode::SUCCESS);
        }
        error!("there is no key {}", String::from_utf8_lossy(&key));
        Ok(ExitCode::from(cli::MISSING))
    })
}
