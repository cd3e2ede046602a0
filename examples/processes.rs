//! How long the programs take as whole processes: a store node from its start until it has
//! answered a `get`, and a `storeget`, in turn with `redis-cli get` if there is a Redis.
//!
//!     cargo build --release --bins --examples
//!     redis-server --port 20001 --save '' &
//!     target/release/examples/processes --redis localhost:20001

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::call;

mod common;

use common::{Node, machine, median, program};

/// Starts the programs again and again and prints how long they took.
#[derive(Parser)]
struct Options {
    /// A Redis server. The key `a` is written to its database
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<Location>,

    /// How often each program is started
    #[arg(long, value_name = "N", default_value_t = 21)]
    rounds: usize,
}

fn main() -> io::Result<()> {
    let Options { redis, rounds } = Options::parse();
    println!("{}; medians of {rounds} runs", machine());
    let starts: io::Result<_> = (0..rounds).map(|_| start_millis()).collect();
    println!("start of a store node: {:.1} ms", median(starts?));

    let node = Node::start(None)?;
    let host = ["-h", node.location.name()];
    millis(
        Command::new(program("storeput")?)
            .args(host)
            .args(["a", "apple"]),
    )?;
    let mut storeget = Command::new(program("storeget")?);
    storeget.args(host).arg("a");
    let redis_cli = |redis: &Location, arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", redis.address(), "-p", &redis.port().to_string()]);
        command.args(arguments);
        command
    };
    if let Some(redis) = &redis {
        millis(&mut redis_cli(redis, &["set", "a", "apple"]))?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(millis(&mut storeget)?);
        if let Some(redis) = &redis {
            theirs.push(millis(&mut redis_cli(redis, &["get", "a"]))?);
        }
    }
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
    let ratio = median(ratios.collect());
    println!("storeget: {:.1} ms", median(ours));
    if redis.is_some() {
        println!("redis-cli get: {:.1} ms", median(theirs));
        println!("storeget / redis-cli get: {ratio:.2}");
    }
    Ok(())
}

/// The time from the start of a store node to its first answer.
fn start_millis() -> io::Result<f64> {
    let start = Instant::now();
    let node = Node::start(None)?;
    let get = |node: &mut StoreSyncClient<_, _>| node.get(b"a".to_vec());
    call(StoreSyncClient::new, &node.location, get).map_err(io::Error::other)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The time of a command, which must succeed.
fn millis(command: &mut Command) -> io::Result<f64> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?} ended with {status}")));
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
