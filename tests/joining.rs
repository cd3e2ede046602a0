//! Whom does a node join, and whom does it not?

mod common;

use std::net::TcpListener;
use std::process::Output;
use std::thread;
use std::time::Duration;

use common::hosts::{Hosts, address};
use common::{NodeProcess, SOON, ended, eventually, run};
use serde_json::Value;

/// A port that is free, for a node that is started later.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn at(port: &str) -> String {
    format!("127.0.0.1:{port}")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The network of a node, and its live members.
fn network_and_members(node: &str) -> (String, Vec<String>) {
    let output = run("locationstatus", &["--json", "-h", node]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let members = json["members"].as_array().unwrap().iter();
    let live = members.filter(|member| member["state"] == "alive");
    let name = |member: &Value| member["location"].as_str().unwrap().to_owned();
    let network = json["network"].as_str().unwrap().to_owned();
    (network, live.map(name).collect())
}

fn wait_for_members(node: &NodeProcess, mut expected: Vec<&str>) {
    expected.sort_unstable();
    eventually("a node has these members", SOON, || {
        let (_, mut members) = network_and_members(node.at());
        members.sort_unstable();
        members == expected
    });
}

#[test]
fn a_network_keeps_its_id_when_its_founder_is_gone_and_another_one_has_another_id() {
    let mut founder = NodeProcess::start_bootstrap("storeserver");
    let second = NodeProcess::start("storeserver", &["-h", founder.at()]);
    let (id, _) = network_and_members(founder.at());
    assert!(
        id.starts_with("diststore.Store/") && id.len() == 16 + 16,
        "{id}"
    );
    assert_eq!(network_and_members(second.at()).0, id);
    assert!(founder.interrupt().success());
    let third = NodeProcess::start("storeserver", &["-h", second.at()]);
    assert_eq!(network_and_members(third.at()).0, id);
    let table = text(&run("storestatus", &["-h", third.at()]));
    assert!(table.contains(&format!("\nnetwork {id}\n")), "{table}");
    let other = NodeProcess::start_bootstrap("storeserver");
    assert_ne!(network_and_members(other.at()).0, id);
}

#[test]
fn two_networks_stay_apart_when_a_port_is_taken_by_a_node_of_the_other_one() {
    let one = NodeProcess::start_bootstrap("storeserver");
    let mut moved = NodeProcess::start("storeserver", &["-h", one.at()]);
    let port = moved.location.port().to_string();
    wait_for_members(&one, vec![one.at(), moved.at()]);
    moved.kill();
    let other = NodeProcess::start_exactly("storeserver", &["--bootstrap", "-p", &port]);
    let third = NodeProcess::start("storeserver", &["-h", other.at()]);
    // The first node calls the location that it has lost every two seconds.
    one.wait_for("is of another network: diststore.Store/");
    wait_for_members(&one, vec![one.at()]);
    wait_for_members(&third, vec![other.at(), third.at()]);
    assert!(
        run("storeput", &["-h", one.at(), "k", "one"])
            .status
            .success()
    );
    assert!(
        run("storeput", &["-h", third.at(), "k", "other"])
            .status
            .success()
    );
    assert_eq!(text(&run("storeget", &["-h", one.at(), "k"])), "one\n");
    assert_eq!(text(&run("storeget", &["-h", other.at(), "k"])), "other\n");
}

#[test]
fn a_node_joins_only_the_network_whose_name_it_is_given() {
    let named = NodeProcess::start("location", &["--bootstrap", "--network", "blue"]);
    assert_eq!(network_and_members(named.at()).0, "locator.Locator/blue");
    let same = NodeProcess::start("location", &["--network", "blue", "-h", named.at()]);
    let any = NodeProcess::start("location", &["-h", named.at()]);
    wait_for_members(&named, vec![named.at(), same.at(), any.at()]);
    assert_eq!(network_and_members(any.at()).0, "locator.Locator/blue");
    let other = run(
        "location",
        &["-p", "0", "--network", "red", "-h", named.at()],
    );
    let (code, stderr) = ended(&other);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        stderr.contains("locator.Locator/blue, not of locator.Locator/red"),
        "{stderr}"
    );
    wait_for_members(&named, vec![named.at(), same.at(), any.at()]);
}

#[test]
fn a_node_that_has_not_joined_says_so_and_is_not_joined() {
    // A peer that accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap().to_string();
    let port = free_port();
    let joiner = NodeProcess::spawn("storeserver", &["-p", &port, "-h", &peer]);
    eventually("the joiner says that it is joining", SOON, || {
        let output = run("locationstatus", &["-h", &at(&port)]);
        output.status.code() == Some(1) && text(&output).contains("1 joining: ")
    });
    let status = run("storestatus", &["-h", &at(&port)]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(text(&status).contains("joining"), "{}", text(&status));
    let (code, stderr) = ended(&run("storeserver", &["-p", "0", "-h", &at(&port)]));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(!stderr.contains("Starting the server"), "{stderr}");
    drop(joiner);
}

#[test]
fn two_nodes_that_join_each_other_are_one_network() {
    for _ in 0..3 {
        let ports = [free_port(), free_port()];
        let start = |own: usize| {
            let peer = format!("localhost:{}", ports[1 - own]);
            NodeProcess::spawn("location", &["-p", &ports[own], "-h", &peer])
        };
        let mut nodes = [start(0), start(1)];
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        let [one, other] = &nodes;
        wait_for_members(one, vec![one.at(), other.at()]);
        wait_for_members(other, vec![one.at(), other.at()]);
        assert_eq!(
            network_and_members(one.at()).0,
            network_and_members(other.at()).0
        );
    }
}

#[test]
fn the_first_of_several_peers_that_answers_is_joined_and_called() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let dead = at(&free_port());
    let peers = format!("{dead},{}", node.at());
    let second = NodeProcess::start("storeserver", &["-h", &peers]);
    wait_for_members(&node, vec![node.at(), second.at()]);
    assert!(
        run("storeput", &["-h", &peers, "a", "apple"])
            .status
            .success()
    );
    assert_eq!(text(&run("storeget", &["-h", &peers, "a"])), "apple\n");
    let (code, stderr) = ended(&run("storeget", &["-h", &format!("{dead},{dead}"), "a"]));
    assert_eq!(code, Some(3), "{stderr}");
}

/// Starts nodes at these ports at the same instant, each with its own peers, and waits until all are
/// one network.
fn start_at_once(nodes: &[(&String, String)]) {
    let spawn = |(port, peers): &(&String, String)| {
        NodeProcess::spawn("storeserver", &["-p", port, "-h", peers])
    };
    let mut started: Vec<NodeProcess> = nodes.iter().map(spawn).collect();
    started
        .iter_mut()
        .for_each(NodeProcess::wait_until_it_serves);
    let founders = started
        .iter()
        .filter(|node| node.says("Initiating the network"));
    assert_eq!(founders.count(), 1);
    let all: Vec<&str> = started.iter().map(NodeProcess::at).collect();
    started
        .iter()
        .for_each(|node| wait_for_members(node, all.clone()));
}

#[test]
fn three_nodes_that_join_each_other_in_a_ring_are_one_network() {
    let ports = [(); 3].map(|()| free_port());
    let [a, b, c] = &ports;
    start_at_once(&[(a, at(b)), (b, at(c)), (c, at(a))]);
}

#[test]
fn three_nodes_with_the_same_list_of_peers_are_one_network_and_each_returns_to_it() {
    let ports = [(); 3].map(|()| free_port());
    let list = ports.each_ref().map(|port| at(port)).join(",");
    let spawn = |port: &String| NodeProcess::spawn("storeserver", &["-p", port, "-h", &list]);
    let mut nodes = ports.each_ref().map(spawn);
    nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
    let (id, _) = network_and_members(nodes[0].at());
    for (node, port) in nodes.iter_mut().zip(&ports) {
        node.kill();
        *node = spawn(port);
        node.wait_until_it_serves();
        assert_eq!(
            network_and_members(node.at()).0,
            id,
            "the founder came back too"
        );
    }
}

#[test]
fn each_of_several_peers_is_waited_for() {
    let (late, never) = (free_port(), free_port());
    let peers = format!("{},{}", at(&never), at(&late));
    let mut joiner = NodeProcess::spawn("location", &["-p", "0", "-h", &peers]);
    joiner.wait_for("waiting for a peer: nothing listens at");
    let node = NodeProcess::start_exactly("location", &["--bootstrap", "-p", &late]);
    joiner.wait_until_it_serves();
    wait_for_members(&node, vec![node.at(), joiner.at()]);
}

#[test]
fn a_node_with_another_number_of_copies_ends_before_it_is_a_member() {
    let node = NodeProcess::start_bootstrap("storeserver");
    for wrong in [["--replicas", "2"], ["--on-split", "stop"]] {
        let arguments = ["-p", "0", "-h", node.at(), wrong[0], wrong[1]];
        let (code, stderr) = ended(&run("storeserver", &arguments));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(!stderr.contains("Joining the network"), "{stderr}");
    }
    assert!(!node.says("added"), "{:?}", node.lines());
}

#[test]
fn a_node_that_joins_over_ipv6_loopback_advertises_it() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this host has no IPv6 loopback address");
        return;
    }
    let first = NodeProcess::start("location", &["--bootstrap", "--advertise", "::1"]);
    let port = first.location.port();
    let second = NodeProcess::start("location", &["-h", &format!("[::1]:{port}")]);
    assert_eq!(second.location.address(), "::1");
    wait_for_members(&first, vec![first.at(), second.at()]);
}

#[test]
fn a_node_whose_peer_comes_late_does_not_say_that_it_did_not_run() {
    let port = free_port();
    let mut early = NodeProcess::spawn("location", &["-p", "0", "-h", &at(&port)]);
    thread::sleep(Duration::from_secs(2));
    let late = NodeProcess::start_exactly("location", &["--bootstrap", "-p", &port]);
    early.wait_until_it_serves();
    wait_for_members(&late, vec![early.at(), late.at()]);
    assert!(!early.says("did not run"), "{:?}", early.lines());
}

#[test]
fn a_peer_that_advertises_loopback_to_other_hosts_is_not_joined_and_told_so() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let port = "9900";
    let mut command = hosts.command(0, "storeserver");
    command.args([
        "--bootstrap",
        "-p",
        port,
        "--bind",
        "0.0.0.0",
        "--advertise",
        "127.0.0.1",
    ]);
    let mut first = NodeProcess::spawn_command(command, "a node at all addresses".to_owned());
    first.wait_until_it_serves();
    let peer = format!("{}:{port}", address(0));
    let mut joiner = hosts.spawn(1, "storeserver", &["-h", &peer]);
    assert_eq!(joiner.wait().code(), Some(3), "{:?}", joiner.lines());
    let expected = format!("the node at {peer} advertises 127.0.0.1:{port}");
    assert!(joiner.says(&expected), "{:?}", joiner.lines());
    assert!(joiner.says("--advertise"), "{:?}", joiner.lines());
}
