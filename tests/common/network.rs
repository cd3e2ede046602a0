//! Networks of child processes, what their nodes know, and how long they take to know it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, LocatorSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::call;

use super::{NodeProcess, SOON, eventually};

/// The nodes on the ring of the node there.
pub fn ring_of(location: &Location) -> Result<BTreeSet<Location>, Error> {
    let all = call(LocatorSyncClient::new, location, |peer| peer.get_all())?;
    Ok(all.iter().map(|l| l.try_into().unwrap()).collect())
}

/// All that the node there tells of its network.
pub fn told_by(location: &Location) -> Result<locator::Gossip, Error> {
    call(LocatorSyncClient::new, location, |peer| peer.members())
}

/// The locations of `nodes`.
pub fn locations<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>) -> BTreeSet<Location> {
    nodes
        .into_iter()
        .map(|node| node.location.clone())
        .collect()
}

/// Waits until every one of `nodes` has them all on its ring and no one else, and
/// all have the same view.
pub fn all_agree<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>, time: Duration) {
    let nodes: Vec<&NodeProcess> = nodes.into_iter().collect();
    let expected = locations(nodes.iter().copied());
    let deadline = Instant::now() + time;
    for node in &nodes {
        let left = deadline.saturating_duration_since(Instant::now());
        eventually(
            &format!("{} has all {} on its ring", node.at(), nodes.len()),
            left,
            || ring_of(&node.location).is_ok_and(|ring| ring == expected),
        );
    }
    let left = deadline.saturating_duration_since(Instant::now());
    eventually("all views are one", left, || {
        let views: BTreeSet<_> = nodes
            .iter()
            .map(|node| told_by(&node.location).unwrap().view)
            .collect();
        views.len() == 1
    });
}

/// Starts a node of a network of its own, whoever else is on this host: it is told
/// to join itself, and so knocks at nobody's port.
pub fn start_alone() -> NodeProcess {
    let port = free_port().to_string();
    let itself = format!("127.0.0.1:{port}");
    NodeProcess::start_exactly("location", &["--port", &port, "--host", &itself])
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts `size` nodes on this host, all but the first at once, each at a port that
/// the system chooses, and waits until all agree.
pub fn start_network(size: usize) -> Vec<NodeProcess> {
    let mut nodes = vec![start_alone()];
    let mut others: Vec<NodeProcess> = (1..size).map(|_| spawn_beside(&nodes[0])).collect();
    others
        .iter_mut()
        .for_each(NodeProcess::wait_until_it_serves);
    nodes.append(&mut others);
    all_agree(&nodes, SOON);
    nodes
}

/// Starts one more node of the network of `peer`, without waiting until it serves.
pub fn spawn_beside(peer: &NodeProcess) -> NodeProcess {
    NodeProcess::spawn("location", &["--port", "0", "--host", peer.at()])
}

/// How a node says that another is on its ring now.
pub fn added(node: &NodeProcess) -> String {
    format!("added {}", node.at())
}

/// How a node says that another is off its ring now.
pub fn removed(node: &NodeProcess) -> String {
    format!("removed {}", node.at())
}

/// How much each node has said so far.
pub fn marks(nodes: &[NodeProcess]) -> Vec<usize> {
    nodes.iter().map(NodeProcess::mark).collect()
}

/// Waits until every node has said one of `texts` since `marks`, and returns how
/// long that took since `began`.
///
/// The promises are made for a machine that lets its processes run. Where a node
/// says that it was kept from running meanwhile, only the end is waited for.
///
/// # Panics
/// When it took longer than `bound`.
pub fn all_say(
    nodes: &[NodeProcess],
    texts: &[String],
    marks: &[usize],
    began: Instant,
    bound: Duration,
) -> Duration {
    let mut waiting: Vec<_> = nodes.iter().zip(marks).collect();
    loop {
        let time = began.elapsed();
        waiting.retain(|(node, mark)| !node.says_after(**mark, texts));
        if waiting.is_empty() {
            return time;
        }
        let in_time = time < bound || time < SOON && was_kept_from_running(nodes, marks);
        assert!(
            in_time,
            "{} of {} nodes have not said {texts:?} within {time:?}, {} among them",
            waiting.len(),
            nodes.len(),
            waiting[0].0.at(),
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn was_kept_from_running(nodes: &[NodeProcess], marks: &[usize]) -> bool {
    nodes.iter().zip(marks).any(|(node, mark)| {
        let lines = node.lines();
        lines[*mark..]
            .iter()
            .any(|line| line.contains("this node did not run for"))
    })
}

/// Tells a figure that was measured.
pub fn tell(what: &str, time: Duration, bound: Duration) {
    eprintln!(
        "{what}: {:.2} s of {} s",
        time.as_secs_f64(),
        bound.as_secs()
    );
}
