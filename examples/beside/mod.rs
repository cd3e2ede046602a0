//! Programs that were built beside an example, in the same way, and store nodes among
//! them as processes of their own.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use thrifty_p2p::location::Location;

/// The path of a program that was built beside this example.
///
/// # Errors
/// Where this example is cannot be told.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    Ok(folder.join(name))
}

/// A store node, killed when it is dropped.
pub struct Node {
    process: Child,
    location: Location,
}

impl Node {
    /// Starts `storeserver` with these arguments; returns when it serves.
    ///
    /// # Errors
    /// It is not there, or has ended.
    pub fn start(arguments: &[impl AsRef<OsStr>]) -> io::Result<Node> {
        let mut command = Command::new(program("storeserver")?);
        command.args(arguments).stdin(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn()?;
        let location = wait_until_it_serves(&mut process)?;
        Ok(Node { process, location })
    }

    /// Where it is called.
    pub fn location(&self) -> &Location {
        &self.location
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads the node's own word of where it serves; what it says later is thrown away.
fn wait_until_it_serves(process: &mut Child) -> io::Result<Location> {
    const SERVING: &str = "Starting the server at ";
    let stderr = process.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut lines = BufReader::new(stderr).lines();
    for line in &mut lines {
        let line = line?;
        let told = line.split_once(SERVING);
        let Some(location) = told.and_then(|(_, at)| at.trim_end_matches('.').parse().ok()) else {
            continue;
        };
        thread::spawn(move || lines.for_each(drop));
        return Ok(location);
    }
    Err(io::Error::other("storeserver ended before it served"))
}
