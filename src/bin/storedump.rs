//! `storedump`: all pairs of a store, as `storeload` takes them.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::bulk::dump::Dump;
use thrifty_p2p::bulk::progress::Progress;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::error::Error;
use thrifty_p2p::store::table::STRIPES;

/// Writes every pair of the store as a line: the key, a tab and the value, with \t, \n,
/// \r, \\ and \x with two hexadecimal digits for the bytes that they name. The lines are
/// in the order of the keys on the ring. Nodes may come and go meanwhile; of what is
/// written meanwhile, each pair may or may not be among them.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// The file to write; stdout without it, or with `-`
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(true, || {
        let client = options.client.ring()?;
        let mut output = create(options.file.filter(|file| file.as_os_str() != "-"))?;
        let progress = Progress::of(Some(STRIPES as u64));
        let dump = Dump::new(&client, &progress);
        // Who reads may end when it has seen enough: nobody is left to be told more.
        let is_heard = Cell::new(true);
        let heard = |written: io::Result<()>| match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                is_heard.set(false);
                Err(Error::Local(e))
            }
            other => other.map_err(Error::Local),
        };
        let told = progress.shown_while(|| {
            dump.tell(|lines| heard(output.write_all(lines)))?;
            heard(output.flush())
        });
        match told {
            Err(_) if !is_heard.get() => Ok(ExitCode::SUCCESS),
            told => told.map(|()| ExitCode::SUCCESS),
        }
    })
}

/// The file, or stdout.
fn create(file: Option<PathBuf>) -> Result<Box<dyn Write>, Error> {
    let Some(path) = file else {
        return Ok(Box::new(BufWriter::new(io::stdout().lock())));
    };
    let uncreated = |e| Error::Usage(format!("cannot write {}: {e}", path.display()));
    Ok(Box::new(File::create(&path).map_err(uncreated)?))
}
