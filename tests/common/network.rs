//! Networks of `location` nodes as child processes: what their nodes know, and how fast a change
//! spreads.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, LocatorSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::call;

use super::{NodeProcess, SOON, eventually};

/// The members on the ring of the node at `location`.
pub fn ring_of(location: &Location) -> Result<BTreeSet<Location>, Error> {
    let all = call(LocatorSyncClient::new, location, |peer| peer.get_all())?;
    Ok(all.iter().map(|l| l.try_into().unwrap()).collect())
}

/// Every record of the node at `location`.
pub fn members_of(location: &Location) -> Result<locator::Gossip, Error> {
    call(LocatorSyncClient::new, location, |peer| peer.members())
}

/// Have all of `nodes` the same membership digest?
pub fn have_one_digest<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>) -> bool {
    let digests: BTreeSet<_> = nodes
        .into_iter()
        .map(|node| members_of(&node.location).unwrap().membership_digest)
        .collect();
    digests.len() == 1
}

/// The locations of `nodes`.
pub fn locations<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>) -> BTreeSet<Location> {
    nodes
        .into_iter()
        .map(|node| node.location.clone())
        .collect()
}

/// Waits until the ring of every one of `nodes` consists of exactly these nodes, and all have
/// the same membership digest.
pub fn all_agree<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>, timeout: Duration) {
    let nodes: Vec<&NodeProcess> = nodes.into_iter().collect();
    let expected = locations(nodes.iter().copied());
    let deadline = Instant::now() + timeout;
    for node in &nodes {
        let left = deadline.saturating_duration_since(Instant::now());
        eventually(
            &format!("{} has all {} on its ring", node.at(), nodes.len()),
            left,
            || ring_of(&node.location).is_ok_and(|ring| ring == expected),
        );
    }
    let left = deadline.saturating_duration_since(Instant::now());
    eventually("all have the same digest", left, || {
        have_one_digest(nodes.iter().copied())
    });
}

/// Starts the first node of a new network: its peer is itself, so it probes no other port.
pub fn start_bootstrap() -> NodeProcess {
    let port = free_port().to_string();
    let itself = format!("127.0.0.1:{port}");
    NodeProcess::start_exactly("location", &["--port", &port, "--host", &itself])
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A free port that this process has not used yet. Nodes of ours call legacy nodes that are gone
/// again and again: another network must not get their ports.
pub fn new_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the system chooses.
    let ports = 22_000..32_000;
    loop {
        let next = NEXT.fetch_add(1, Relaxed) + (std::process::id() % 1_000) as u16;
        let port = ports.start + next % (ports.end - ports.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts a network of `size` nodes, all but the first at the same time, and waits until all
/// agree.
pub fn start_network(size: usize) -> Vec<NodeProcess> {
    let mut nodes = vec![start_bootstrap()];
    let mut others: Vec<NodeProcess> = (1..size).map(|_| spawn_joiner(&nodes[0])).collect();
    others
        .iter_mut()
        .for_each(NodeProcess::wait_until_it_serves);
    nodes.append(&mut others);
    all_agree(&nodes, SOON);
    nodes
}

/// Starts a node that joins the network of `peer`. Does not wait until it serves.
pub fn spawn_joiner(peer: &NodeProcess) -> NodeProcess {
    NodeProcess::spawn("location", &["--port", "0", "--host", peer.at()])
}

/// The log line of a node that has added `node` to its ring.
pub fn added(node: &NodeProcess) -> String {
    format!("added {}", node.at())
}

/// The log line of a node that has removed `node` from its ring.
pub fn removed(node: &NodeProcess) -> String {
    format!("removed {}", node.at())
}

/// How many lines each node has logged so far.
pub fn log_positions(nodes: &[NodeProcess]) -> Vec<usize> {
    nodes.iter().map(NodeProcess::log_position).collect()
}

/// Waits until every node has logged one of `texts` since `positions`. Returns the time since
/// `began`.
///
/// The bounds apply to a machine that lets its processes run. If a node logs that it was
/// paused meanwhile, the bound is [`SOON`].
///
/// # Panics
/// If it takes longer than `bound`.
pub fn all_log(
    nodes: &[NodeProcess],
    texts: &[String],
    positions: &[usize],
    began: Instant,
    bound: Duration,
) -> Duration {
    let mut waiting: Vec<_> = nodes.iter().zip(positions).collect();
    loop {
        let time = began.elapsed();
        waiting.retain(|(node, position)| !node.has_logged_since(**position, texts));
        if waiting.is_empty() {
            return time;
        }
        let in_time = time < bound || time < SOON && was_any_paused(nodes, positions);
        assert!(
            in_time,
            "{} of {} nodes have not logged {texts:?} within {time:?}, for example {}",
            waiting.len(),
            nodes.len(),
            waiting[0].0.at(),
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Has a node logged since `positions` that its process was paused?
fn was_any_paused(nodes: &[NodeProcess], positions: &[usize]) -> bool {
    nodes.iter().zip(positions).any(|(node, position)| {
        let lines = node.lines();
        lines[*position..]
            .iter()
            .any(|line| line.contains("this process was paused for"))
    })
}

/// Prints a measured time and its bound to stderr.
pub fn print_time(what: &str, time: Duration, bound: Duration) {
    eprintln!(
        "{what}: {:.2} s of {} s",
        time.as_secs_f64(),
        bound.as_secs()
    );
}
