//! `storedel`: deletes one key.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};

/// Deletes KEY; returns when all its copies are deleted
///
/// Exits with 1 if there is no such key.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::DELETE_STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Delete only if the key has this version, which `storeget --json` prints
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,

    /// The key; any bytes
    key: OsString,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let key = options.key.into_vec();
        let store = options.client.store()?;
        match options.if_version {
            None => Ok(cli::status_of_key(&key, store.delete(&key)?)),
            Some(version) => {
                let result = store.delete_if(&key, version)?;
                Ok(cli::status_of_condition(&key, result))
            }
        }
    })
}
