//! `storeput`: writes one key.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::store::limits::MAX_VALUE;

/// Writes VALUE for KEY; returns when all copies are in place
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Read the value from stdin
    #[arg(long, conflicts_with = "value")]
    stdin: bool,

    /// The key; any bytes
    key: OsString,

    /// The value; any bytes, also with a leading `-`
    #[arg(required_unless_present = "stdin", allow_hyphen_values = true)]
    value: Option<OsString>,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let value = match options.value {
            Some(value) => value.into_vec(),
            None => cli::read_stdin(MAX_VALUE)?,
        };
        let store = options.client.store()?;
        store.put(&options.key.into_vec(), &value)
    })
}
