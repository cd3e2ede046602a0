//! Do nodes join a store of real processes without a failed call or a lost write?
//!
//! `STORE_LONG=1` runs many more rounds, with tighter bounds for stalls.

mod common;

use common::load::{
    WRITE_STALL, check_large_values, check_stalls, finish, machine, put_large_values, rounds,
    run_for_a_while, start_load,
};
use common::network::free_port;
use common::stores::{SETTLE_TIMEOUT, Stores};
use common::{NodeProcess, eventually};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::status::store::StoreStatus;

#[test]
fn no_call_fails_while_nodes_join_and_leave() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    put_large_values(&stores);
    let load = start_load(&stores, 4);
    for round in 1..=rounds(2, 20) {
        run_for_a_while(&load);
        let joiner = stores.spawn_joiner();
        stores.admit(joiner);
        run_for_a_while(&load);
        stores.settle();
        check_stalls(&format!("join {round}"), &load, WRITE_STALL, WRITE_STALL);
        let mut leaver = stores.interrupt(round * 7 % 5);
        run_for_a_while(&load);
        assert!(leaver.wait().success());
        leaver.wait_for("done.");
        stores.settle();
        check_stalls(&format!("leave {round}"), &load, WRITE_STALL, WRITE_STALL);
    }
    finish("joins and leaves", load, &stores);
    check_large_values(&stores);
}

#[test]
fn a_joiner_with_another_number_of_copies_is_refused() {
    let _machine = machine();
    let stores = Stores::start(2, &["--replicas", "2"]);
    let peer = stores.nodes[0].at();
    let arguments = ["--port", "0", "--host", peer, "--replicas", "3"];
    let mut joiner = NodeProcess::spawn("storeserver", &arguments);
    assert_eq!(joiner.wait().code(), Some(2));
    joiner.wait_for("keeps 2 copies of each key, not 3");
    stores.settle();
}

#[test]
fn two_nodes_started_at_the_same_time_form_one_store() {
    let _machine = machine();
    for _ in 0..rounds(2, 20) {
        let port = free_port().to_string();
        let peer = format!("127.0.0.1:{port}");
        let start =
            |port: &str| NodeProcess::spawn("storeserver", &["--port", port, "--host", &peer]);
        let mut nodes = [start("0"), start(&port)];
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        let clients = nodes
            .each_ref()
            .map(|node| StoreClient::new(node.location.clone()));
        clients[0].put(b"key", b"value").unwrap();
        assert_eq!(clients[1].get(b"key").unwrap(), Some(b"value".to_vec()));
        eventually("both are one store", SETTLE_TIMEOUT, || {
            let status = StoreStatus::ask(&Dialer::default(), &nodes[0].location).unwrap();
            status.is_settled() && status.nodes.len() == 2
        });
    }
}
