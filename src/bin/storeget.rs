//! `storeget`: prints the values of keys.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use thrifty_p2p::bulk::tsv::{decode_key, read_line};
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::client::{StoreClient, Versioned};
use thrifty_p2p::error::Error;
use thrifty_p2p::status::key::KeyStatus;

/// Prints the value of each KEY, one a line
///
/// For a key without a value, prints an empty line, and exits with 1 at the end.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::KEY_STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print only the bytes of the values, without newlines
    #[arg(long)]
    raw: bool,

    /// Print one JSON object a line: `key`, `found`, `version` (0: no value), the bytes as `hex`, and
    /// `value` if they are text (src/guide/schema/storeget.json)
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// Tell on stderr where each key lies, who holds it, and how long the answer took
    #[arg(long)]
    trace: bool,

    /// Read keys from FILE too (`-`: stdin), one a line, with the escapes of `storedump`
    #[arg(long, value_name = "FILE")]
    keys_from: Option<PathBuf>,

    /// The keys; any bytes
    #[arg(required_unless_present = "keys_from")]
    key: Vec<OsString>,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let mut keys: Vec<Vec<u8>> = options.key.into_iter().map(OsString::into_vec).collect();
        if let Some(file) = options.keys_from {
            keys.extend(read_keys(BufReader::new(cli::open(Some(&file))?.0))?);
        }
        let traced = options.trace.then(|| options.client.store_peer());
        let traced = traced.transpose()?;
        let store = match &traced {
            Some((dialer, peer)) => StoreClient::of(dialer.clone(), vec![peer.clone()]),
            None => options.client.store()?,
        };
        let mut status = ExitCode::SUCCESS;
        for key in &keys {
            let began = Instant::now();
            let read = store.read(key)?;
            if let Some((dialer, peer)) = &traced {
                let time = began.elapsed();
                let status = KeyStatus::ask(dialer, peer, key)?;
                eprint!("{}{}", status.hops(peer, time), status.text());
            }
            if read.value.is_none() {
                status = cli::status_of_key(key, false);
            }
            let output = if options.json {
                json(key, &read).to_string().into_bytes()
            } else {
                read.value.unwrap_or_default()
            };
            cli::print(&[&output, if options.raw { b"" } else { b"\n" }])?;
        }
        Ok(status)
    })
}

/// Reads a key from each line.
fn read_keys(mut input: impl BufRead) -> Result<Vec<Vec<u8>>, Error> {
    let (mut keys, mut line) = (Vec::new(), Vec::new());
    while read_line(&mut input, &mut line).map_err(Error::Io)? {
        let number = keys.len() + 1;
        let key = decode_key(&line).map_err(|e| Error::Usage(format!("line {number}: {e}")))?;
        keys.push(key.into_owned());
    }
    Ok(keys)
}

/// The JSON object of a pair. `hex` represents any bytes, `value` only text.
fn json(key: &[u8], read: &Versioned) -> Value {
    let value = read.value.as_deref();
    let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let key = String::from_utf8_lossy(key);
    // Text, because many programs read numbers of this size inexactly.
    let (found, version) = (value.is_some(), read.version.to_string());
    json!({ "key": key, "found": found, "version": version, "value": text, "hex": value.map(hex) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
