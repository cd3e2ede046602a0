//! Does a node that leaves a store hand its keys over, or log which keys are lost?
//!
//! `STORE_LONG=1` runs many more rounds.

mod common;

use common::load::{
    check_large_values, finish, machine, put_large_values, rounds, run_for_a_while, start_load,
};
use common::stores::{Stores, stats};
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::location::Location;

#[test]
fn two_nodes_that_leave_at_once_lose_no_write() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    put_large_values(&stores);
    let load = start_load(&stores, 4);
    for round in 1..=rounds(1, 20) {
        run_for_a_while(&load);
        let mut leavers = [stores.interrupt(round * 7 % 5), stores.interrupt(round % 4)];
        run_for_a_while(&load);
        for leaver in &mut leavers {
            assert!(leaver.wait().success());
        }
        stores.settle();
        check_large_values(&stores);
        leavers.iter().for_each(|node| stores.restart(node));
        stores.settle();
    }
    finish("double leaves", load, &stores);
}

/// Writes this many keys through the first node.
fn put_keys(stores: &Stores, count: usize) {
    let client = &stores.clients()[0];
    let keys = (0..count).map(|index| format!("key {index}").into_bytes());
    keys.for_each(|key| client.put(&key, b"value").unwrap());
}

#[test]
fn the_last_node_logs_how_many_keys_end_with_it() {
    let _machine = machine();
    let mut stores = Stores::start(2, &[]);
    put_keys(&stores, 17);
    assert!(stores.interrupt(0).wait().success());
    stores.settle();
    let mut last = stores.interrupt(0);
    assert!(last.wait().success());
    last.wait_for("lost with it: 17 keys");
}

/// A node that is leaving and whose only successor was killed during the handoff. Returns the
/// location of that successor too.
fn leaver_without_successor() -> (Stores, NodeProcess, Location) {
    let mut stores = Stores::start(2, &["--replicas", "1", "--page-delay", "2000"]);
    put_keys(&stores, 100);
    let leaver = stores.nodes.remove(1);
    leaver.signal("INT");
    leaver.wait_for("handoff: ");
    let successor = stores.kill(0).location.clone();
    (stores, leaver, successor)
}

#[test]
fn a_leaver_whose_only_successor_is_killed_logs_how_many_keys_end_with_it() {
    let _machine = machine();
    let (_, mut leaver, _) = leaver_without_successor();
    assert!(leaver.wait().success());
    leaver.wait_for("lost with it: ");
}

#[test]
fn a_node_whose_only_peer_is_leaving_does_not_join_and_logs_why() {
    let _machine = machine();
    let (stores, mut leaver, successor) = leaver_without_successor();
    leaver.wait_for(&format!("removed {successor}"));
    let mut joiner = stores.spawn("0", leaver.at());
    assert_eq!(joiner.wait().code(), Some(3));
    joiner.wait_for(&format!("{} is leaving its network", leaver.location));
    assert!(leaver.wait().success());
    leaver.wait_for("lost with it: ");
}

#[test]
fn a_second_signal_ends_a_node_at_once_and_logs_what_is_at_risk() {
    let _machine = machine();
    for signal in ["INT", "TERM"] {
        let mut stores = Stores::start(2, &["--replicas", "1", "--page-delay", "2000"]);
        put_keys(&stores, 100);
        let keys = stats(&stores.nodes[0].location).unwrap().keys.unwrap();
        let mut leaver = stores.interrupt(0);
        leaver.wait_for("repeat the signal to exit immediately");
        eventually("the leaver is off the ring", SOON, || {
            let owner = StoreClient::new(stores.nodes[0].location.clone()).owner(b"any");
            owner.is_ok_and(|owner| owner != leaver.location)
        });
        let mut status = None;
        eventually(
            "a signal half a second after the first ends it",
            SOON,
            || {
                status = leaver.try_wait();
                if status.is_none() {
                    leaver.signal(signal);
                }
                status.is_some()
            },
        );
        assert_eq!(status.and_then(|status| status.code()), Some(130));
        leaver.wait_for(&format!(
            "ended at once: no other node holds the {keys} keys here"
        ));
    }
}
