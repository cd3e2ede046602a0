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
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::load::report::machine;
use thrifty_p2p::load::rounds::median;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::call;

mod beside;

use beside::{Node, program};

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

fn main() -> io::Result<()> {
    let options = Options::parse();
    println!("{}; medians of {} runs", machine(), options.rounds);
    let start_time = |_| Ok(start()?.1.as_secs_f64() * 1e3);
    let starts: io::Result<Vec<f64>> = (0..options.rounds).map(start_time).collect();
    println!(
        "a store node, to its first answer: {:.1} ms",
        median(&starts?)
    );

    let (node, _) = start()?;
    let at = node.location();
    millis(Command::new(program("storeput")?).args(["-h", at.name(), "a", "apple"]))?;
    let mut storeget = Command::new(program("storeget")?);
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

/// A store node, and the time from its start to its first answer.
fn start() -> io::Result<(Node, Duration)> {
    let began = Instant::now();
    let node = Node::start(&["--alone", "--address", "127.0.0.1", "-p", "0"])?;
    let get = |node: &mut StoreSyncClient<_, _>| node.get(b"a".to_vec());
    call(StoreSyncClient::new, node.location(), get).map_err(io::Error::other)?;
    Ok((node, began.elapsed()))
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
