//! Stdin and stdout, and whether they were closed when the process started.
//!
//! The standard library opens `/dev/null` in place of a closed one before `main`, so a value
//! would be printed nowhere and read as empty without an error. A look before `main` tells; later
//! nothing does, because many programs give their children that very file, open for both.

use std::fs::File;
use std::io::{self, Read, StdoutLock};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;

static NO_STDIN: AtomicBool = AtomicBool::new(false);
static NO_STDOUT: AtomicBool = AtomicBool::new(false);

#[ctor::ctor]
fn look() {
    NO_STDIN.store(is_closed(&io::stdin()), Relaxed);
    NO_STDOUT.store(is_closed(&io::stdout()), Relaxed);
}

fn is_closed(stream: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let is_polled = poll(&mut polled, PollTimeout::ZERO).is_ok();
    let events = polled[0].revents().unwrap_or(PollFlags::empty());
    is_polled && events.contains(PollFlags::POLLNVAL)
}

/// Opens a file to read, or stdin if there is no path or it is `-`. Returns its size if that is
/// known.
///
/// # Errors
/// [`Error::Usage`] if the file cannot be opened; [`Error::Io`] if stdin is closed.
pub fn open(path: Option<&Path>) -> Result<(Box<dyn Read>, Option<u64>), Error> {
    let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
        check(&NO_STDIN, "stdin is closed").map_err(Error::Io)?;
        return Ok((Box::new(io::stdin()), None));
    };
    let failed = |e| Error::Usage(format!("cannot read {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?;
    Ok((Box::new(file), size.is_file().then_some(size.len())))
}

/// Stdout, if the process was started with one.
///
/// # Errors
/// [`Error::Output`] if it was closed.
pub fn stdout() -> Result<StdoutLock<'static>, Error> {
    check(&NO_STDOUT, "stdout is closed").map_err(Error::Output)?;
    Ok(io::stdout().lock())
}

fn check(is_closed: &AtomicBool, message: &str) -> io::Result<()> {
    if is_closed.load(Relaxed) {
        return Err(io::Error::other(message));
    }
    Ok(())
}
