//! `storelist`: lists the keys of a store.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use thrifty_p2p::bulk::tsv::escape;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::list::ListedKey;

/// The keys that are sorted in memory at a time.
const MAX_KEYS: usize = 2_000_000;

/// Prints the keys of the store that start with PREFIX, one a line, in the order of their bytes
///
/// They have the escapes of `storedump`. A key that has a value all the while is printed exactly
/// once, although nodes join and leave. If a member does not answer, the program waits for two
/// minutes, and then fails.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print only the number of keys
    #[arg(long, conflicts_with_all = ["long", "json"])]
    count: bool,

    /// Print after each key the size of its value in bytes, and its version, after tabs
    #[arg(long, conflicts_with = "json")]
    long: bool,

    /// Print one JSON object a line: `key` (with the escapes), `bytes` and `version`
    /// (src/guide/schema/storelist.json)
    #[arg(long)]
    json: bool,

    /// What the keys start with; any bytes [default: all keys]
    prefix: Option<OsString>,
}

fn main() -> ExitCode {
    cli::run(true, |mut options: Options| {
        let client = options.client.ring()?;
        let prefix = options.prefix.take().unwrap_or_default().into_vec();
        if options.count {
            let count = client.count(&prefix)?;
            return cli::print(&[format!("{count}\n").as_bytes()]);
        }
        let output = BufWriter::new(cli::stdout()?);
        cli::until_closed(print_keys(&client, &prefix, &options, output))
    })
}

fn print_keys(
    client: &RingClient,
    prefix: &[u8],
    options: &Options,
    mut output: impl Write,
) -> Result<(), Error> {
    let mut cursor = Some(Vec::new());
    while let Some(from) = cursor {
        let page = client.list(prefix, &from, MAX_KEYS)?;
        for key in &page.keys {
            output
                .write_all(&line(key, options))
                .map_err(Error::Output)?;
        }
        cursor = page.cursor;
    }
    output.flush().map_err(Error::Output)
}

fn line(listed: &ListedKey, options: &Options) -> Vec<u8> {
    let ListedKey {
        key,
        bytes,
        version,
    } = listed;
    let mut line = Vec::new();
    escape(key, &mut line);
    if options.json {
        let key = String::from_utf8_lossy(&line);
        let version = version.to_string();
        line = json!({ "key": key, "bytes": bytes, "version": version })
            .to_string()
            .into();
    } else if options.long {
        line.extend(format!("\t{bytes}\t{version}").bytes());
    }
    line.push(b'\n');
    line
}
