//! Do legacy nodes and ours form one network?

mod common;

use common::legacy::{LegacyNode, wait_for_rings};
use common::network::{have_one_digest, spawn_joiner, start_bootstrap};
use common::{NodeProcess, SOON, eventually, run};
use thrifty_p2p::location::Location;

fn wait_for_one_digest(nodes: &[&NodeProcess]) {
    eventually("all have the same digest", SOON, || {
        have_one_digest(nodes.iter().copied())
    });
}

/// Starts a node that joins the network of `peer`, and waits until it serves.
fn start_joiner(peer: &Location) -> NodeProcess {
    NodeProcess::start("location", &["--host", peer.name()])
}

#[test]
fn each_kind_joins_through_the_other_and_all_have_all_on_their_rings() {
    let a = start_bootstrap();
    let x = LegacyNode::start(Some(&a.location));
    wait_for_rings(&[&a], &[&x]);
    let b = start_joiner(&x.location);
    let y = LegacyNode::start(Some(&x.location));
    let c = start_joiner(&b.location);
    let z = LegacyNode::start(Some(&c.location));
    wait_for_rings(&[&a, &b, &c], &[&x, &y, &z]);
    wait_for_one_digest(&[&a, &b, &c]);
}

#[test]
fn our_nodes_join_a_network_of_legacy_nodes() {
    let x = LegacyNode::start(None);
    let y = LegacyNode::start(Some(&x.location));
    let z = LegacyNode::start(Some(&y.location));
    let a = start_joiner(&z.location);
    let b = start_joiner(&x.location);
    wait_for_rings(&[&a, &b], &[&x, &y, &z]);
    wait_for_one_digest(&[&a, &b]);
}

#[test]
fn a_killed_node_of_either_kind_is_removed_by_both_kinds() {
    let a = start_bootstrap();
    let x = LegacyNode::start(Some(&a.location));
    let mut b = start_joiner(&x.location);
    let y = LegacyNode::start(Some(&b.location));
    let c = start_joiner(&a.location);
    wait_for_rings(&[&a, &b, &c], &[&x, &y]);
    drop(y);
    wait_for_rings(&[&a, &b, &c], &[&x]);
    b.kill();
    wait_for_rings(&[&a, &c], &[&x]);
    wait_for_one_digest(&[&a, &c]);
}

#[test]
fn a_leaving_node_of_either_kind_is_removed_by_both_kinds() {
    let a = start_bootstrap();
    let x = LegacyNode::start(Some(&a.location));
    let mut b = start_joiner(&x.location);
    let y = LegacyNode::start(Some(&b.location));
    let c = start_joiner(&y.location);
    wait_for_rings(&[&a, &b, &c], &[&x, &y]);
    y.leave();
    wait_for_rings(&[&a, &b, &c], &[&x]);
    assert!(b.interrupt().success());
    wait_for_rings(&[&a, &c], &[&x]);
    wait_for_one_digest(&[&a, &c]);
}

#[test]
fn two_nodes_that_join_at_once_beside_a_legacy_node_get_one_digest() {
    let a = start_bootstrap();
    let x = LegacyNode::start(Some(&a.location));
    wait_for_rings(&[&a], &[&x]);
    let mut nodes = vec![a];
    for round in 0..4 {
        let through_legacy = || {
            let peer = x.location.name();
            NodeProcess::spawn("location", &["--port", "0", "--host", peer])
        };
        let mut pair = if round % 2 == 0 {
            [through_legacy(), through_legacy()]
        } else {
            [through_legacy(), spawn_joiner(&nodes[0])]
        };
        pair.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        nodes.extend(pair);
        let nodes: Vec<&NodeProcess> = nodes.iter().collect();
        wait_for_rings(&nodes, &[&x]);
        wait_for_one_digest(&nodes);
    }
}

#[test]
fn locationstatus_names_a_legacy_node_whose_members_differ() {
    let a = start_bootstrap();
    let x = LegacyNode::start(Some(&a.location));
    let b = start_joiner(&a.location);
    wait_for_rings(&[&a, &b], &[&x]);
    x.hide(Some(b.location.clone()));
    let status = |peer: &str| {
        let output = run("locationstatus", &["-h", peer]);
        let table = String::from_utf8(output.stdout).unwrap();
        let last = table.lines().last().unwrap_or("nothing").to_owned();
        (output.status.code(), last)
    };
    let disagree = format!("3 members, 1 disagree: {}", x.location);
    assert_eq!(status(a.at()), (Some(1), disagree));
    x.hide(None);
    let agree = "3 members, all agree".to_owned();
    assert_eq!(status(x.location.name()), (Some(0), agree));
}
