//! `storeget`: prints the value of one key.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use thrifty_p2p::cli::{self, ClientOptions};

/// Prints the value of KEY
///
/// Without a value, prints an empty line and exits with 1.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print only the bytes of the value, without a newline
    #[arg(long)]
    raw: bool,

    /// Print one JSON object: `found`, the bytes as `hex`, and `value` if they are text
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// The key; any bytes
    key: OsString,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let key = options.key.into_vec();
        let value = options.client.store()?.get(&key)?;
        let is_found = value.is_some();
        let output = if options.json {
            json(value.as_deref()).to_string().into_bytes()
        } else {
            value.unwrap_or_default()
        };
        cli::print(&[&output, if options.raw { b"" } else { b"\n" }])?;
        Ok(cli::status_of_key(&key, is_found))
    })
}

/// The JSON object of a value. `hex` represents any bytes, `value` only text.
fn json(value: Option<&[u8]>) -> Value {
    let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
    json!({ "found": value.is_some(), "value": text, "hex": value.map(hex) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
