//! Does a store work whose nodes are on hosts of their own?
//!
//! The hosts are network namespaces (see `common::hosts`). Where they cannot be created, the tests
//! are skipped with a message.

#![cfg(target_os = "linux")]

mod common;

use common::checker::Workload;
use common::hosts::Hosts;
use common::{SOON, eventually};
use thrifty_p2p::client::StoreClient;

/// Writes through each node, and reads every value through each node.
fn check_every_node(clients: &[StoreClient]) {
    for (number, writer) in clients.iter().enumerate() {
        let key = format!("written through node {number}");
        writer.put(key.as_bytes(), b"value").unwrap();
        for reader in clients {
            let found = reader.get(key.as_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&b"value"[..]), "{key}");
        }
    }
}

/// Starts a store on all hosts, and checks that it works.
fn check_healthy_store(hosts: &Hosts) {
    let nodes = hosts.start_stores(&["--replicas", "3"]);
    let client = |host: usize| StoreClient::new(nodes[host].location.clone());
    let clients: Vec<StoreClient> = (0..nodes.len()).map(client).collect();
    check_every_node(&clients);
    let load = Workload::start("key", 2, 2, || client(nodes.len() - 1));
    eventually("the load continues", SOON, || {
        let report = load.report();
        report.reads > 200 && report.writes > 200
    });
    let report = load.finish(clients);
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn three_stores_on_three_hosts_serve_every_key_through_each_node() {
    if let Some(hosts) = Hosts::create_or_skip(3) {
        check_healthy_store(&hosts);
    }
}

#[test]
fn five_stores_on_five_hosts_serve_every_key_through_each_node() {
    if let Some(hosts) = Hosts::create_or_skip(5) {
        check_healthy_store(&hosts);
    }
}
