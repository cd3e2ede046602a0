//! `storeload`: puts the pairs of a file into a store.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use log::error;
use thrifty_p2p::bulk::load::load;
use thrifty_p2p::bulk::progress::Progress;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::error::Error;

/// Puts every pair of FILE into the store, many at a time, and returns when all are in
/// place. Each line is a key, a tab and a value; \t, \n, \r, \\ and \x with two
/// hexadecimal digits stand for the bytes that they name. The last line of a key wins.
/// At the first line that is wrong it stops, with 2; what came before is stored.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// The file, as `storedump` writes it; stdin without it, or with `-`
    file: Option<PathBuf>,
}

/// Bytes read at once.
const READ_AHEAD: usize = 256 * 1024;

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(true, || {
        let (input, size) = open(options.file.filter(|file| file.as_os_str() != "-"))?;
        let client = options.client.ring()?;
        let progress = Progress::of(size);
        let input = BufReader::with_capacity(READ_AHEAD, input);
        Ok(
            match progress.shown_while(|| load(&client, input, &progress)) {
                Ok(_) => ExitCode::SUCCESS,
                Err(stopped) => {
                    error!("{stopped}");
                    cli::status(&stopped.why)
                }
            },
        )
    })
}

/// The file, or stdin, and its size if that is known.
fn open(file: Option<PathBuf>) -> Result<(Box<dyn Read>, Option<u64>), Error> {
    let Some(path) = file else {
        return Ok((Box::new(io::stdin()), None));
    };
    let unopened = |e| Error::Usage(format!("cannot read {}: {e}", path.display()));
    let file = File::open(&path).map_err(unopened)?;
    let size = file.metadata().map_err(unopened)?;
    Ok((Box::new(file), size.is_file().then_some(size.len())))
}
