//! Does `locationstatus` show the network as it is?

mod common;

use std::net::TcpListener;

use common::network::{all_agree, start_network};
use common::{NodeProcess, SOON, eventually, run};
use serde_json::Value;
use thrifty_p2p::locator::{LocatorSyncClient, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// The exit status and what stands on stdout.
fn status_of(node: &NodeProcess, more: &[&str]) -> (Option<i32>, String) {
    let output = run("locationstatus", &[&["-h", node.at()], more].concat());
    let answer = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), answer)
}

fn json_of(node: &NodeProcess) -> Value {
    let (_, answer) = status_of(node, &["--json"]);
    serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e} in {answer}"))
}

#[test]
fn a_network_at_rest_is_shown_as_agreed() {
    let nodes = start_network(5);
    let (code, table) = status_of(&nodes[2], &[]);
    assert_eq!(code, Some(0), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines.len(),
        7,
        "a head, a line for each, and a last one: {table}"
    );
    assert_eq!(lines[6], "5 members, all agree");
    for node in &nodes {
        let own = |line: &&&str| line.starts_with(&format!("{} ", node.at()));
        let line = lines.iter().find(own).expect("every member has its line");
        assert!(
            line.contains("alive") && line.ends_with("agrees"),
            "{table}"
        );
    }

    let json = json_of(&nodes[3]);
    assert_eq!(json["agreed"], true);
    assert_eq!(json["network"], "locator.Locator");
    let members = json["members"].as_array().unwrap();
    let shares: f64 = members.iter().map(|m| m["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6, "the shares make {shares}");
    assert!(members.iter().all(|m| m["agrees"] == true));
}

#[test]
fn a_member_that_does_not_answer_is_named_until_it_is_down() {
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
fn a_stopped_member_is_named_until_it_goes_on() {
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
fn without_a_peer_to_ask_it_fails_with_3_and_says_nothing_on_stdout() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let output = run("locationstatus", &["-h", &nobody.unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody answers"));
}

#[test]
fn a_peer_is_found_on_this_host() {
    // At the first free port from 9900 upward, beside whoever is there already.
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
fn debug_tells_the_log_every_member_and_what_it_was_last_heard_to_see() {
    let nodes = start_network(3);
    call(LocatorSyncClient::new, &nodes[0].location, |peer| {
        peer.debug()
    })
    .unwrap();
    nodes[0].wait_for("knows 3 live members, view ");
    for node in &nodes {
        nodes[0].wait_for(&format!("{}  alive  incarnation ", node.at()));
    }
    nodes[0].wait_for("% of the keys, saw ");
}
