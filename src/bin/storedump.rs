//! `storedump`: writes all pairs of a store into a file, in the format of `storeload`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::bulk::dump::dump;
use thrifty_p2p::bulk::progress::Progress;
use thrifty_p2p::cli::{self, ClientOptions};
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
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let client = options.client.ring()?;
        let output = create(options.file.filter(|file| file.as_os_str() != "-"))?;
        let progress = Progress::of(Some(STRIPES as u64));
        match progress.shown_while(|| dump(&client, output, &progress)) {
            // The reader of the pipe has read all that it wants.
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            dumped => dumped,
        }
    })
}

/// Creates the file, or opens stdout.
fn create(file: Option<PathBuf>) -> Result<Box<dyn Write>, Error> {
    let Some(path) = file else {
        return Ok(Box::new(BufWriter::new(cli::stdout()?)));
    };
    let failed = |e| Error::Usage(format!("cannot write {}: {e}", path.display()));
    Ok(Box::new(File::create(&path).map_err(failed)?))
}
