//! `storetest`: reads the keys that `storeprimer` writes.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};

/// Reads the 26 letters A to Z and prints their values
///
/// For a key without a value, names it on stderr, prints `None received from expected LOCATION`
/// with the owner of the key, and exits with 1 at the end.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::KEY_STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let store = options.client.store()?;
        let mut status = ExitCode::SUCCESS;
        for letter in b'A'..=b'Z' {
            let line = match store.get(&[letter])? {
                Some(value) => value,
                None => {
                    status = cli::status_of_key(&[letter], false);
                    let owner = store.owner(&[letter])?;
                    format!("None received from expected {owner}").into_bytes()
                }
            };
            cli::print(&[&line, b"\n"])?;
        }
        Ok(status)
    })
}
