//! `storeput`: writes one key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::store::limits::MAX_VALUE;

/// Writes VALUE for KEY; returns when all copies are in place
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::WRITE_STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Read the value from stdin
    #[arg(long, conflicts_with = "value")]
    stdin: bool,

    /// Write only if the key has this version, which `storeget --json` prints; 0: no value
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,

    /// Write only if the key has no value
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,

    /// The key; any bytes
    key: OsString,

    /// The value; any bytes, also with a leading `-`; @FILE: the bytes of FILE; @@: a leading `@`
    #[arg(required_unless_present = "stdin", allow_hyphen_values = true)]
    value: Option<OsString>,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let read = |file: &Path| cli::read_value(cli::open(Some(file))?.0, MAX_VALUE);
        let value = match options.value.map(OsString::into_vec) {
            None => read(Path::new("-"))?,
            Some(value) => match value.strip_prefix(b"@") {
                None => value,
                Some([b'@', ..]) => value[1..].to_vec(),
                Some(file) => read(Path::new(OsStr::from_bytes(file)))?,
            },
        };
        let store = options.client.store()?;
        let key = options.key.into_vec();
        match options.if_version.or(options.if_absent.then_some(0)) {
            None => store.put(&key, &value).map(|()| ExitCode::SUCCESS),
            Some(version) => {
                let result = store.put_if(&key, &value, version)?;
                Ok(cli::status_of_condition(&key, result))
            }
        }
    })
}
