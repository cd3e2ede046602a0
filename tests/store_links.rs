//! Does a store work whose nodes are on hosts of their own?
//!
//! The hosts are network namespaces (see `common::hosts`). Where they cannot be created, the tests
//! are skipped with a message. `STORE_LONG=1` runs many more rounds, with tighter bounds for stalls.

#![cfg(target_os = "linux")]

mod common;

use std::thread;
use std::time::Duration;

use common::checker::Workload;
use common::hosts::Hosts;
use common::load::{bound, rounds};
use common::stores::settle;
use common::{NodeProcess, SOON, eventually, run};
use thrifty_p2p::client::StoreClient;

/// How long a fault lasts. Without another way, the writes of some keys would wait all this time.
const FAULT: Duration = Duration::from_secs(6);

/// The longest time for which a key may not be read or written while a link is cut.
const CUT_STALL: Duration = Duration::from_secs(1);

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

/// Runs load through all nodes of this many hosts, while `fault` disturbs links, again and again.
/// `check` is called while it does, with the time for which a key could not be read or written.
fn check_fault(hosts: usize, fault: impl Fn(&Hosts), check: impl Fn(&[NodeProcess], Duration)) {
    let Some(hosts) = Hosts::create_or_skip(hosts) else {
        return;
    };
    let nodes = hosts.start_stores(&["--replicas", "3"]);
    let client = |node: &NodeProcess| StoreClient::new(node.location.clone());
    let numbered = nodes.iter().enumerate();
    let mut loads: Vec<Workload> = numbered
        .map(|(number, node)| Workload::start(&format!("load{number}"), 2, 2, || client(node)))
        .collect();
    let is_loaded = |load: &Workload| load.report().reads > 50 && load.report().writes > 50;
    eventually("the load runs", SOON, || loads.iter().all(is_loaded));
    for round in 0..rounds(1, 30) {
        loads.iter().for_each(|load| _ = load.reset_stalls());
        fault(&hosts);
        thread::sleep(FAULT);
        let stalls = loads.iter().map(Workload::reset_stalls);
        let longest = stalls
            .map(|(reads, writes)| reads.max(writes))
            .max()
            .unwrap();
        println!("round {round}: longest {longest:?}");
        check(&nodes, longest);
        hosts.heal_all();
        settle(&nodes);
    }
    let reports = loads
        .drain(..)
        .map(|load| load.finish(nodes.iter().map(client)));
    let reports: Vec<_> = reports.collect();
    let operations: u64 = reports
        .iter()
        .map(|report| report.reads + report.writes)
        .sum();
    println!("{operations} operations");
    for report in reports {
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Cuts a link from the first node to the second. Writes must go on soon, by way of others.
fn check_cut_link(hosts: usize, cut: impl Fn(&Hosts)) {
    check_fault(hosts, cut, |nodes, longest| {
        assert!(longest < bound(CUT_STALL), "{longest:?}");
        let [one, other] = [0, 1].map(|node| nodes[node].at());
        assert!(nodes[0].says(&format!("the link to {other} is cut")));
        let status = run("storestatus", &["-h", one]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let told = format!("the link from {one} to {other} is cut");
        assert!(status.contains(&told), "{status}");
    });
}

#[test]
fn while_one_link_of_three_nodes_is_cut_writes_go_by_way_of_the_third() {
    check_cut_link(3, |hosts| hosts.cut(0, 1));
}

#[test]
fn while_one_direction_of_a_link_is_cut_writes_go_by_way_of_another_node() {
    check_cut_link(3, |hosts| hosts.cut_one_way(0, 1));
}

#[test]
fn while_one_link_of_five_nodes_is_cut_writes_go_by_way_of_another_node() {
    check_cut_link(5, |hosts| hosts.cut(0, 1));
}

#[test]
fn a_link_that_loses_every_third_frame_costs_no_promise() {
    check_fault(3, |hosts| hosts.lose(0, 1, 0.3), |_, _| ());
}

#[test]
fn a_link_with_a_long_delay_costs_no_promise() {
    check_fault(
        3,
        |hosts| hosts.delay(0, 1, Duration::from_millis(300)),
        |_, _| (),
    );
}

#[test]
fn all_links_of_a_node_that_are_slow_and_lossy_cost_no_promise() {
    let disturb = |hosts: &Hosts| {
        for other in 1..4 {
            hosts.delay(0, other, Duration::from_millis(40));
            hosts.lose(0, other, 0.05);
        }
    };
    check_fault(4, disturb, |_, _| ());
}
