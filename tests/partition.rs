//! Does a network that was split find itself again, without losing anyone?
//!
//! The split is a real one: the two halves live in network namespaces of their
//! own, joined by a bridge in a third, and a port that is taken off the bridge
//! swallows packets without a word, as a broken switch does. Making namespaces
//! takes root and `ip`; where they cannot be made the tests are skipped, and say so.

mod common;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::network::tell;
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::location::Location;

/// Nodes on each side.
const HALF: usize = 10;

/// By when a network is whole again that was put together.
const HEALED: Duration = Duration::from_secs(4);

/// How long a member that others buried stays on a ring: nobody is safe before it is over.
const GRACE: Duration = Duration::from_secs(4);

/// Two hosts at one switch.
struct Cable {
    switch: Namespace,
    left: Namespace,
    right: Namespace,
}

const LEFT: &str = "10.99.0.1";
const RIGHT: &str = "10.99.0.2";

impl Cable {
    fn lay() -> Result<Cable, String> {
        let cable = Cable {
            switch: Namespace::new("switch")?,
            left: Namespace::new("left")?,
            right: Namespace::new("right")?,
        };
        let switch = &cable.switch;
        switch.ip(&["link", "add", "bridge", "type", "bridge"])?;
        switch.ip(&["link", "set", "bridge", "up"])?;
        for (host, port, address) in [(&cable.left, "left", LEFT), (&cable.right, "right", RIGHT)] {
            let to = ["peer", "name", "uplink", "netns", host.name()];
            switch.ip(&[&["link", "add", port, "type", "veth"][..], &to].concat())?;
            switch.ip(&["link", "set", port, "master", "bridge", "up"])?;
            let network = format!("{address}/24");
            host.ip(&["address", "add", &network, "dev", "uplink"])?;
            host.ip(&["link", "set", "uplink", "up"])?;
        }
        Ok(cable)
    }

    /// A cable, or a word on why there is none.
    fn lay_or_tell() -> Option<Cable> {
        Cable::lay()
            .inspect_err(|e| {
                eprintln!("skipped, since no network namespaces can be made here: {e}")
            })
            .ok()
    }

    fn cut(&self) {
        self.switch
            .ip(&["link", "set", "right", "nomaster"])
            .unwrap();
    }

    fn mend(&self) {
        self.switch
            .ip(&["link", "set", "right", "master", "bridge"])
            .unwrap();
    }

    /// Starts one network over both hosts and waits until every node has all others.
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
    command.args(["--port", "0", "--address", address]);
    command.args(peer.into_iter().flat_map(|peer| ["--host", peer]));
    NodeProcess::spawn_command(command, format!("a location at {address}"))
}

/// The nodes on the ring of `node` as it tells of it, itself included.
fn ring_as_told(node: &NodeProcess) -> BTreeSet<Location> {
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

fn all_have(nodes: &[&NodeProcess], expected: &[&NodeProcess], time: Duration) {
    let expected: BTreeSet<Location> = expected.iter().map(|n| n.location.clone()).collect();
    let mut waiting = nodes.to_vec();
    let what = format!(
        "{} nodes have {} on their rings",
        nodes.len(),
        expected.len()
    );
    eventually(&what, time, || {
        waiting.retain(|node| ring_as_told(node) != expected);
        waiting.is_empty()
    });
}

fn has_removed_anyone(node: &NodeProcess, mark: usize) -> bool {
    node.lines()[mark..]
        .iter()
        .any(|line| after(line, "removed ").is_some())
}

#[test]
fn two_halves_that_buried_each_other_are_one_network_again_and_lose_nobody() {
    let Some(cable) = Cable::lay_or_tell() else {
        return;
    };
    let [left, right] = cable.start_network();
    let [left, right]: [Vec<&NodeProcess>; 2] = [left.iter().collect(), right.iter().collect()];
    let all = [left.clone(), right.clone()].concat();

    let began = Instant::now();
    cable.cut();
    all_have(&left, &left, Duration::from_secs(30));
    all_have(&right, &right, Duration::from_secs(30));
    tell(
        "both halves are without the other",
        began.elapsed(),
        Duration::from_secs(30),
    );

    let marks: Vec<usize> = all.iter().map(|node| node.mark()).collect();
    let began = Instant::now();
    cable.mend();
    all_have(&all, &all, HEALED);
    tell("the network is whole", began.elapsed(), HEALED);
    while began.elapsed() < HEALED + GRACE {
        for (node, mark) in all.iter().zip(&marks) {
            assert!(
                !has_removed_anyone(node, *mark),
                "{} lost a member",
                node.at()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut status = cable.right.command("locationstatus");
    let status = status.args(["-h", all[0].at()]).output().unwrap();
    let table = String::from_utf8(status.stdout).unwrap();
    assert!(table.ends_with("20 members, all agree\n"), "{table}");
}

#[test]
fn a_cut_that_is_shorter_than_the_suspicion_removes_nobody() {
    let Some(cable) = Cable::lay_or_tell() else {
        return;
    };
    let [left, right] = cable.start_network();
    cable.cut();
    thread::sleep(Duration::from_secs(2));
    cable.mend();
    let began = Instant::now();
    while began.elapsed() < 2 * GRACE {
        for node in left.iter().chain(&right) {
            assert!(!has_removed_anyone(node, 0), "{} lost a member", node.at());
        }
        thread::sleep(Duration::from_millis(100));
    }
}
