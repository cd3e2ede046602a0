//! Store nodes as processes of their own.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;

/// A network of stores on this machine, killed when it is dropped.
pub struct Stores {
    nodes: Vec<(Child, Location)>,
}

impl Stores {
    /// Starts so many nodes, one after another.
    pub fn start(count: usize) -> Result<Stores, Error> {
        let mut stores = Stores { nodes: Vec::new() };
        for _ in 0..count {
            stores.add()?;
        }
        Ok(stores)
    }

    /// Starts one more node; returns when it serves.
    pub fn add(&mut self) -> Result<(), Error> {
        let mut command = Command::new(program().map_err(Error::Local)?);
        command.args(["-p", "0"]);
        match self.nodes.first() {
            Some((_, first)) => command.args(["-h", first.name()]),
            None => command.arg("--alone"),
        };
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::Local)?;
        let location = wait_until_it_serves(&mut child).map_err(Error::Local)?;
        self.nodes.push((child, location));
        Ok(())
    }

    /// Ends the node that came last at once, as `kill -9` does.
    pub fn kill_last(&mut self) -> io::Result<()> {
        if let Some((mut child, _)) = self.nodes.pop() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// All nodes.
    pub fn all(&self) -> impl Iterator<Item = &Location> {
        self.nodes.iter().map(|(_, location)| location)
    }

    /// The node that came first.
    pub fn first(&self) -> &Location {
        &self.nodes[0].1
    }

    /// The node that came last.
    pub fn last(&self) -> &Location {
        &self.nodes[self.nodes.len() - 1].1
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            // One that has ended is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `storeserver` of the same build.
fn program() -> io::Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    path.push("storeserver");
    Ok(path)
}

/// Reads the node's own word of where it serves; what it says later is thrown away.
fn wait_until_it_serves(child: &mut Child) -> io::Result<Location> {
    const SERVING: &str = "Starting the server at ";
    let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
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
