//! How long do the programs take as whole processes?
//!
//! The start of a store node until it has answered a `get`, and a `storeget`, beside
//! `redis-cli get` if there is a Redis. Those that are compared take turns. The programs
//! are those that were built beside this one, in the same way.
//!
//!     cargo build --release --bins --examples
//!     redis-server --port 20001 --save '' &
//!     target/release/examples/processes --redis localhost:20001

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::load::report::machine;
use thrifty_p2p::load::rounds::median;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::client::call;

/// Starts the programs again and again, and tells how long they took.
#[derive(Parser)]
struct Options {
    /// A server of Redis; its database gets the key `a`
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<Location>,

    /// How often each is started
    #[arg(long, value_name = "N", default_value_t = 21)]
    rounds: usize,
}

/// The longest that a node may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often is tried whether it answers.
const OFTEN: Duration = Duration::from_micros(200);

fn main() -> io::Result<()> {
    let options = Options::parse();
    println!("{}; medians of {} runs", machine(), options.rounds);
    let starts: io::Result<Vec<f64>> = (0..options.rounds).map(|_| start()).collect();
    println!(
        "a store node, to its first answer: {:.1} ms",
        median(&starts?)
    );

    let (node, at) = Node::start()?;
    millis(Command::new(beside("storeput")?).args(["-h", at.name(), "a", "apple"]))?;
    let mut storeget = Command::new(beside("storeget")?);
    storeget.args(["-h", at.name(), "a"]);
    let mut rediscli = options.redis.as_ref().map(|redis| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", redis.address(), "-p", &redis.port().to_string()]);
        command
    });
    if let Some(command) = &mut rediscli {
        let mut set = Command::new("redis-cli");
        millis(set.args(command.get_args()).args(["set", "a", "apple"]))?;
        command.args(["get", "a"]);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        ours.push(millis(&mut storeget)?);
        if let Some(command) = &mut rediscli {
            theirs.push(millis(command)?);
        }
    }
    drop(node);
    println!("storeget: {:.1} ms", median(&ours));
    if rediscli.is_some() {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let (theirs, ratio) = (median(&theirs), median(&ratios));
        println!("redis-cli get: {theirs:.1} ms; storeget takes {ratio:.2} of it");
    }
    Ok(())
}

/// Milliseconds from the start of a node to its first answer.
fn start() -> io::Result<f64> {
    let began = Instant::now();
    let (node, _) = Node::start()?;
    let time = began.elapsed();
    drop(node);
    Ok(time.as_secs_f64() * 1e3)
}

/// A store node, killed when dropped.
struct Node(Child);

impl Node {
    /// Starts a node that is alone, and waits until it has answered a `get`.
    fn start() -> io::Result<(Node, Location)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(beside("storeserver")?);
        command.args(["--alone", "--address", "127.0.0.1", "-p", &port.to_string()]);
        let node = Node(command.stderr(Stdio::null()).spawn()?);
        let at = Location::new("127.0.0.1", port).map_err(io::Error::other)?;
        let began = Instant::now();
        while let Err(e) = call(StoreSyncClient::new, &at, |node| node.get(b"a".to_vec())) {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(e));
            }
            thread::sleep(OFTEN);
        }
        Ok((node, at))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds that a command takes, which is to succeed.
fn millis(command: &mut Command) -> io::Result<f64> {
    let began = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    let time = began.elapsed();
    if !status.success() {
        return Err(io::Error::other(format!("{command:?} ended with {status}")));
    }
    Ok(time.as_secs_f64() * 1e3)
}

/// The path of a program that was built beside this example.
fn beside(program: &str) -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    Ok(folder.join(program))
}
