//! Does a store of real processes keep every acknowledged write while nodes are killed and hang?
//!
//! `STORE_LONG=1` runs many more rounds, with tighter bounds for stalls.

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::checker::Workload;
use common::load::{
    HANG_STALL, READ_STALL, WRITE_STALL, check_large_values, check_stalls, finish, machine,
    put_large_values, rounds, run_for_a_while, start_copying_joiner, start_load,
};
use common::stores::Stores;
use common::{SOON, eventually};
use thrifty_p2p::client::StoreClient;

#[test]
fn nodes_killed_one_by_one_lose_no_acknowledged_write() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    let load = start_load(&stores, 4);
    run_for_a_while(&load);
    check_stalls("at rest", &load, READ_STALL, WRITE_STALL);
    for round in 1..=rounds(3, 100) {
        let killed = stores.kill(round * 7 % 5);
        let settled = stores.settle();
        run_for_a_while(&load);
        let what = format!("kill {round}, settled after {settled:.1?}");
        check_stalls(&what, &load, READ_STALL, WRITE_STALL);
        stores.restart(&killed);
        stores.settle();
        run_for_a_while(&load);
        let what = format!("restart {round}");
        check_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("kills", load, &stores);
}

#[test]
fn two_nodes_killed_at_once_lose_no_acknowledged_write() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    let load = start_load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        run_for_a_while(&load);
        load.reset_stalls();
        let (killed, between) = stores.kill_two(round * 7 % 5, round * 3);
        assert!(
            between < Duration::from_millis(10),
            "{between:?} between two kills"
        );
        stores.settle();
        run_for_a_while(&load);
        let what = format!("double kill {round}");
        check_stalls(&what, &load, READ_STALL, 2 * WRITE_STALL);
        killed.iter().for_each(|node| stores.restart(node));
        stores.settle();
    }
    finish("double kills", load, &stores);
}

/// A store with large values that copies slowly, so that a test can act during a rebalance.
fn slow_stores() -> Stores {
    let stores = Stores::start(5, &["--replicas", "3", "--page-delay", "150"]);
    put_large_values(&stores);
    stores
}

#[test]
fn a_joiner_that_is_killed_while_it_copies_loses_no_write() {
    let _machine = machine();
    let stores = slow_stores();
    let load = start_load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        let mut joiner = start_copying_joiner(&stores);
        joiner.kill();
        run_for_a_while(&load);
        stores.settle();
        let what = format!("joiner {round} killed");
        check_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("joiners killed", load, &stores);
    check_large_values(&stores);
}

#[test]
fn a_node_that_is_killed_while_a_joiner_copies_from_it_loses_no_write() {
    let _machine = machine();
    let mut stores = slow_stores();
    let load = start_load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        let joiner = start_copying_joiner(&stores);
        stores.kill(round * 7 % 5);
        run_for_a_while(&load);
        stores.admit(joiner);
        stores.settle();
        let what = format!("source {round} killed");
        check_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("sources killed", load, &stores);
    check_large_values(&stores);
}

#[test]
fn a_node_that_hung_returns_no_stale_value_afterwards() {
    let _machine = machine();
    let stores = Stores::start(5, &["--replicas", "3"]);
    let load = start_load(&stores, 4);
    let pauses = [
        10_000, 2_500, 3_000, 3_500, 4_000, 4_500, 5_000, 5_500, 6_000, 7_000,
    ];
    for round in 0..rounds(1, 20) {
        run_for_a_while(&load);
        hang(
            &stores,
            &load,
            round,
            Duration::from_millis(pauses[round % pauses.len()]),
        );
    }
    finish("hangs", load, &stores);
}

/// Stops a node for that time. Clients call it before it continues and for three seconds
/// afterwards.
fn hang(stores: &Stores, load: &Workload, round: usize, pause: Duration) {
    let node = &stores.nodes[round * 7 % 5];
    let client = &stores.clients()[0];
    let is_owned = |number: &usize| client.owner(&load.key(*number)).unwrap() == node.location;
    let owned: Vec<usize> = (0..load.keys()).filter(is_owned).collect();
    eventually("no client calls the node", SOON, || {
        !stores.callable.exclude(&node.location)
    });
    load.reset_stalls();
    let acknowledged = |number: &usize| load.acknowledged(*number);
    let before: Vec<u64> = owned.iter().map(acknowledged).collect();
    node.signal("STOP");
    let stopped = Instant::now();
    // The node will first serve the requests that wait in its sockets. They must arrive after
    // a write that it has missed.
    let has_missed_writes = || {
        owned
            .iter()
            .zip(&before)
            .any(|(number, before)| load.acknowledged(*number) > before + 1)
    };
    while stopped.elapsed() < pause.mul_f64(0.9) && !has_missed_writes() {
        thread::sleep(Duration::from_millis(5));
    }
    let continued_at = Mutex::new(None);
    thread::scope(|scope| {
        for reader in 0..8 {
            let (owned, continued_at) = (&owned, &continued_at);
            scope.spawn(move || {
                let mut client = StoreClient::new(node.location.clone());
                let time = || continued_at.lock().unwrap().map(|at: Instant| at.elapsed());
                let mut turn = reader;
                while time().is_none_or(|time| time < Duration::from_secs(3)) {
                    turn += 1;
                    // The node may refuse reads until it is in the placement of the others.
                    let _ = load.check_at(owned[turn % owned.len()], &mut client);
                }
            });
        }
        thread::sleep(pause.saturating_sub(stopped.elapsed()));
        node.signal("CONT");
        *continued_at.lock().unwrap() = Some(Instant::now());
    });
    stores.settle();
    let what = format!("a hang of {pause:?}");
    check_stalls(&what, load, HANG_STALL, HANG_STALL);
    stores.callable.add(node.location.clone());
}
