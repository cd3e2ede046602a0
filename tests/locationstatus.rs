//! Does `locationstatus` show the members of a network and whether they agree?

mod common;

use std::net::TcpListener;

use common::network::{all_agree, start_network};
use common::{NodeProcess, SOON, eventually, run};
use serde_json::Value;
use thrifty_p2p::locator::{LocatorSyncClient, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// The exit status and stdout.
fn status_of(node: &NodeProcess, options: &[&str]) -> (Option<i32>, String) {
    let output = run("locationstatus", &[&["-h", node.at()], options].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), stdout)
}

fn json_of(node: &NodeProcess) -> Value {
    let (_, output) = status_of(node, &["--json"]);
    serde_json::from_str(&output).unwrap_or_else(|e| panic!("{e} in {output}"))
}

#[test]
fn all_members_of_a_stable_network_agree() {
    let nodes = start_network(5);
    let (code, table) = status_of(&nodes[2], &[]);
    assert_eq!(code, Some(0), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines.len(),
        8,
        "a head, five members, the network, a summary: {table}"
    );
    assert!(lines[6].starts_with("network locator.Locator/"), "{table}");
    assert!(lines[0].ends_with("  DIGEST  TAGS"), "{table}");
    assert_eq!(lines[7], "5 members, all agree");
    for node in &nodes {
        let is_its_line = |line: &&&str| line.starts_with(&format!("{} ", node.at()));
        let line = lines.iter().find(is_its_line);
        let line = line.expect("every member has a line");
        assert!(
            line.contains("alive") && line.ends_with("agrees"),
            "{table}"
        );
    }

    let json = json_of(&nodes[3]);
    assert_eq!(json["agreed"], true);
    let network = json["network"].as_str().unwrap();
    assert!(network.starts_with("locator.Locator/"), "{network}");
    let members = json["members"].as_array().unwrap();
    let shares: f64 = members.iter().map(|m| m["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6, "the shares add up to {shares}");
    assert!(members.iter().all(|m| m["agrees"] == true));
}

#[test]
fn a_killed_member_is_shown_without_answer_until_it_is_down() {
    let mut nodes = start_network(4);
    let mut dead = nodes.pop().unwrap();
    dead.kill();
    let (code, table) = status_of(&nodes[0], &[]);
    let expected = format!("4 members, 1 without answer: {}", dead.at());
    assert_eq!(code, Some(1), "{table}");
    assert_eq!(table.lines().last(), Some(expected.as_str()), "{table}");
    eventually("the dead node is down", SOON, || {
        let (code, table) = status_of(&nodes[0], &[]);
        code == Some(0) && table.ends_with("3 members, all agree\n")
    });
    let json = json_of(&nodes[1]);
    let gone = json["members"].as_array().unwrap().last().unwrap();
    assert_eq!(gone["location"], dead.at());
    assert_eq!(gone["state"], "down");
    assert!(gone["share"].is_null() && gone["agrees"].is_null());
}

#[test]
fn a_paused_member_is_shown_without_answer_until_it_continues() {
    let nodes = start_network(3);
    nodes[2].signal("STOP");
    let (code, table) = status_of(&nodes[0], &[]);
    let expected = format!("3 members, 1 without answer: {}", nodes[2].at());
    assert_eq!(code, Some(1), "{table}");
    assert_eq!(table.lines().last(), Some(expected.as_str()), "{table}");
    nodes[2].signal("CONT");
    all_agree(&nodes, SOON);
    assert_eq!(status_of(&nodes[2], &[]).0, Some(0));
}

#[test]
fn without_a_peer_it_exits_with_3_and_prints_nothing_on_stdout() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let output = run("locationstatus", &["-h", &unused.unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing listens at"));
}

#[test]
fn without_an_option_it_finds_a_peer_on_this_host() {
    // At the first free port from 9900 upward. Other nodes may run on this host.
    let node = NodeProcess::start_exactly("location", &[]);
    let output = run("locationstatus", &[]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code().is_some_and(|code| code <= 1),
        "{table}"
    );
    if node.location.port() == 9900 {
        assert!(table.contains(node.at()), "{table}");
    }
}

#[test]
fn debug_logs_every_member_and_its_last_contact() {
    let nodes = start_network(3);
    call(LocatorSyncClient::new, &nodes[0].location, |peer| {
        peer.debug()
    })
    .unwrap();
    nodes[0].wait_for("knows 3 live members, digest ");
    for node in &nodes {
        nodes[0].wait_for(&format!("{}  alive  incarnation ", node.at()));
    }
    eventually("the last contact is logged", SOON, || {
        let contacts = ["agreed", "differed"].map(|word| format!("% of the keys, {word} "));
        contacts.iter().any(|contact| nodes[0].says(contact))
    });
}
