//! What the measuring examples share: programs built beside them, a store node as a child
//! process, and the words for results.

#![allow(dead_code)] // Each example uses a part of it.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use thrifty_p2p::location::Location;

/// The path of a program that was built in the same way as this example.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let folder = example.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    Ok(folder.join(name))
}

/// A store node, killed when this is dropped.
pub struct Node {
    process: Child,
    /// Where it is called.
    pub location: Location,
}

impl Node {
    /// Starts `storeserver` on a free port and returns when it serves: in the network of
    /// `peer`, or in a new one.
    pub fn start(peer: Option<&Location>) -> io::Result<Node> {
        const SERVING: &str = "Starting the server at ";
        let mut command = Command::new(program("storeserver")?);
        command.args(["--advertise", "127.0.0.1", "-p", "0"]);
        match peer {
            Some(peer) => command.args(["-h", peer.name()]),
            None => command.arg("--bootstrap"),
        };
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let stderr = process.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let location = lines.find_map(|line| {
            let (_, location) = line.split_once(SERVING)?;
            location.trim_end_matches('.').parse().ok()
        });
        // The node must not block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        let ended = || io::Error::other("storeserver ended before it served");
        let location = location.ok_or_else(ended)?;
        Ok(Node { process, location })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value in the middle, or the upper one of two. NaN if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The machine, and whether figures measured by this build are worth anything.
pub fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, |cores| cores.get());
    let build = ["", ", a debug build: not for measurements"][usize::from(cfg!(debug_assertions))];
    format!("{cores} cores{build}")
}
