//! Does a partitioned network merge again without losing a member?
//!
//! The partition is real: the two halves are in network namespaces of their own, joined by a
//! bridge in a third one. A port that is removed from the bridge drops packets silently, as a
//! broken switch does. Creating namespaces needs root and `ip`. Where they cannot be created,
//! the tests are skipped with a message.

mod common;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::network::print_time;
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::location::Location;

/// The number of nodes on each side.
const HALF: usize = 10;

/// How long the merge of the two halves may take.
const MERGE: Duration = Duration::from_secs(4);

/// How long a member that others have declared down stays on a ring. Until then it can still be
/// removed.
const GRACE: Duration = Duration::from_secs(4);

/// Two hosts at one switch.
struct Hosts {
    switch: Namespace,
    left: Namespace,
    right: Namespace,
}

const LEFT: &str = "10.99.0.1";
const RIGHT: &str = "10.99.0.2";

impl Hosts {
    fn create() -> Result<Hosts, String> {
        let hosts = Hosts {
            switch: Namespace::new("switch")?,
            left: Namespace::new("left")?,
            right: Namespace::new("right")?,
        };
        let switch = &hosts.switch;
        switch.ip(&["link", "add", "bridge", "type", "bridge"])?;
        switch.ip(&["link", "set", "bridge", "up"])?;
        for (host, port, address) in [(&hosts.left, "left", LEFT), (&hosts.right, "right", RIGHT)] {
            let to = ["peer", "name", "uplink", "netns", host.name()];
            switch.ip(&[&["link", "add", port, "type", "veth"][..], &to].concat())?;
            switch.ip(&["link", "set", port, "master", "bridge", "up"])?;
            let network = format!("{address}/24");
            host.ip(&["address", "add", &network, "dev", "uplink"])?;
            host.ip(&["link", "set", "uplink", "up"])?;
        }
        Ok(hosts)
    }

    /// As [`create`](Hosts::create). If that fails, prints why the test is skipped.
    fn create_or_skip() -> Option<Hosts> {
        Hosts::create()
            .inspect_err(|e| eprintln!("skipped: no network namespaces can be created: {e}"))
            .ok()
    }

    /// Drops all packets between the hosts.
    fn disconnect(&self) {
        self.switch
            .ip(&["link", "set", "right", "nomaster"])
            .unwrap();
    }

    fn reconnect(&self) {
        self.switch
            .ip(&["link", "set", "right", "master", "bridge"])
            .unwrap();
    }

    /// Starts one network on both hosts, and waits until every node has all others on its ring.
    fn start_network(&self) -> [Vec<NodeProcess>; 2] {
        let mut first = spawn(&self.left, LEFT, None);
        first.wait_until_it_serves();
        let peer = first.at().to_owned();
        let start = |host, address, count| -> Vec<NodeProcess> {
            (0..count)
                .map(|_| spawn(host, address, Some(&peer)))
                .collect()
        };
        let mut left = start(&self.left, LEFT, HALF - 1);
        let mut right = start(&self.right, RIGHT, HALF);
        for node in left.iter_mut().chain(&mut right) {
            node.wait_until_it_serves();
        }
        left.push(first);
        let all: Vec<&NodeProcess> = left.iter().chain(&right).collect();
        all_have(&all, &all, SOON);
        [left, right]
    }
}

fn spawn(host: &Namespace, address: &str, peer: Option<&str>) -> NodeProcess {
    let mut command = host.command("location");
    command.args(["--port", "0", "--advertise", address]);
    command.args(peer.into_iter().flat_map(|peer| ["--host", peer]));
    NodeProcess::spawn_command(command, format!("location at {address}"))
}

/// The nodes on the ring of `node` according to its log, itself included.
fn logged_ring(node: &NodeProcess) -> BTreeSet<Location> {
    let mut ring = BTreeSet::from([node.location.clone()]);
    for line in node.lines() {
        if let Some(location) = after(&line, "added ") {
            ring.insert(location);
        } else if let Some(location) = after(&line, "removed ") {
            ring.remove(&location);
        }
    }
    ring
}

/// The location that follows `verb` in a line of the log.
fn after(line: &str, verb: &str) -> Option<Location> {
    let (_, rest) = line.split_once(verb)?;
    let word = rest.split_whitespace().next()?;
    word.trim_end_matches(':').parse().ok()
}

/// Waits until the rings of `nodes` consist of exactly the nodes `expected`.
fn all_have(nodes: &[&NodeProcess], expected: &[&NodeProcess], timeout: Duration) {
    let expected: BTreeSet<Location> = expected.iter().map(|n| n.location.clone()).collect();
    let mut waiting = nodes.to_vec();
    let what = format!(
        "{} nodes have {} on their rings",
        nodes.len(),
        expected.len()
    );
    eventually(&what, timeout, || {
        waiting.retain(|node| logged_ring(node) != expected);
        waiting.is_empty()
    });
}

/// Has `node` removed a member since that line of its log?
fn has_removed_any(node: &NodeProcess, position: usize) -> bool {
    node.lines()[position..]
        .iter()
        .any(|line| after(line, "removed ").is_some())
}

#[test]
fn two_halves_that_removed_each_other_merge_and_lose_no_member() {
    let Some(hosts) = Hosts::create_or_skip() else {
        return;
    };
    let [left, right] = hosts.start_network();
    let [left, right]: [Vec<&NodeProcess>; 2] = [left.iter().collect(), right.iter().collect()];
    let all = [left.clone(), right.clone()].concat();

    let began = Instant::now();
    hosts.disconnect();
    all_have(&left, &left, Duration::from_secs(30));
    all_have(&right, &right, Duration::from_secs(30));
    print_time(
        "both halves have removed the other",
        began.elapsed(),
        Duration::from_secs(30),
    );

    let positions: Vec<usize> = all.iter().map(|node| node.log_position()).collect();
    let began = Instant::now();
    hosts.reconnect();
    all_have(&all, &all, MERGE);
    print_time("the network has merged", began.elapsed(), MERGE);
    while began.elapsed() < MERGE + GRACE {
        for (node, position) in all.iter().zip(&positions) {
            assert!(
                !has_removed_any(node, *position),
                "{} removed a member",
                node.at()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut status = hosts.right.command("locationstatus");
    let status = status.args(["-h", all[0].at()]).output().unwrap();
    let table = String::from_utf8(status.stdout).unwrap();
    assert!(table.ends_with("20 members, all agree\n"), "{table}");
}

#[test]
fn a_partition_that_is_shorter_than_a_suspicion_removes_no_member() {
    let Some(hosts) = Hosts::create_or_skip() else {
        return;
    };
    let [left, right] = hosts.start_network();
    hosts.disconnect();
    thread::sleep(Duration::from_secs(2));
    hosts.reconnect();
    let began = Instant::now();
    while began.elapsed() < 2 * GRACE {
        for node in left.iter().chain(&right) {
            assert!(!has_removed_any(node, 0), "{} removed a member", node.at());
        }
        thread::sleep(Duration::from_millis(100));
    }
}
