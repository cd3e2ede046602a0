//! `storedump`: writes all pairs of a store into a file, in the format of `storeload`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::bulk::dump::dump;
use thrifty_p2p::bulk::progress::Progress;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::table::STRIPES;

/// Writes all pairs of the store into FILE
///
/// Each line is a key, a tab and a value, in the order of the keys on the ring. \t, \n, \r, \\ and
/// \x with two hexadecimal digits are escapes. Nodes may join and leave meanwhile. A pair that is
/// written or deleted meanwhile may be included or not.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// The file; `-`: stdout [default: stdout]
    ///
    /// It is replaced when the dump is complete. A dump that breaks off leaves it as it was.
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let client = options.client.ring()?;
        let file = options.file.filter(|file| file.as_os_str() != "-");
        let progress = Progress::of(Some(STRIPES as u64));
        cli::until_closed(match file {
            None => dump_to(&client, BufWriter::new(cli::stdout()?), &progress),
            Some(path) => dump_into(&client, &path, &progress),
        })
    })
}

fn dump_to(client: &RingClient, output: impl Write, progress: &Progress) -> Result<(), Error> {
    progress.shown_while(|| dump(client, output, progress))
}

/// Writes a file beside `path` and renames it when it is complete and on the disk: a dump that
/// fails leaves the file of the last one. A device or a pipe is written as it is.
fn dump_into(client: &RingClient, path: &Path, progress: &Progress) -> Result<(), Error> {
    let failed = |e| Error::Usage(format!("cannot write {}: {e}", path.display()));
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        let file = OpenOptions::new().write(true).open(path);
        return dump_to(client, file.map_err(failed)?, progress);
    }
    // A link stays one.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.clone().into_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let file = File::create(&name).map_err(failed)?;
    let dumped = dump_to(client, &file, progress).and_then(|()| {
        let renamed = file.sync_all().and_then(|()| std::fs::rename(&name, &path));
        renamed.map_err(Error::Output)
    });
    if dumped.is_err() {
        // It is of no use, and reports no error of its own.
        let _ = std::fs::remove_file(&name);
    }
    dumped
}
