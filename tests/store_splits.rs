//! What becomes of a store in a split?
//!
//! The hosts are network namespaces (see `common::hosts`). Where they cannot be created, the tests
//! are skipped with a message. `STORE_LONG=1` runs many more rounds, with tighter bounds for stalls.

#![cfg(target_os = "linux")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::checker::Workload;
use common::hosts::Hosts;
use common::load::{bound, rounds};
use common::stores::settle;
use common::{NodeProcess, SOON, ended, eventually, run};
use serde_json::Value;
use thrifty_p2p::client::StoreClient;

/// The longest time until the side with most members serves all keys.
const SPLIT_STALL: Duration = Duration::from_secs(5);

/// A split may have begun so long before it is noticed.
const DETECTION: Duration = Duration::from_secs(5);

/// The number of keys that are written before a split: every node is the primary of some.
const KEYS: usize = 60;

fn client(node: &NodeProcess) -> StoreClient {
    StoreClient::new(node.location.clone())
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// The exit status and the last line of `storestatus` at a node.
fn verdict(node: &NodeProcess) -> (Option<i32>, String) {
    let output = run("storestatus", &["-h", node.at()]);
    let table = String::from_utf8_lossy(&output.stdout);
    let last = table.lines().last().unwrap_or_default().to_owned();
    (output.status.code(), last)
}

fn wait_for_verdict(node: &NodeProcess, start: &str) {
    eventually(&format!("{} says {start}", node.at()), SOON, || {
        let (status, last) = verdict(node);
        last.starts_with(start) && (status == Some(0)) == start.starts_with("settled, 3")
    });
}

#[test]
fn both_sides_of_a_split_tell_of_it_refuse_what_they_cannot_know_and_count_what_they_lose() {
    let Some(hosts) = Hosts::create_or_skip(6) else {
        return;
    };
    let nodes = hosts.start_stores(&["--replicas", "3"]);
    let (one, other) = (client(&nodes[0]), client(&nodes[5]));
    (0..KEYS).for_each(|number| one.put(&key(number), b"before").unwrap());
    wait_for_verdict(&nodes[0], "settled, 3 copies");
    // What was written just before the split counts as written in it.
    thread::sleep(DETECTION);

    hosts.split(&[0, 1, 2], &[3, 4, 5]);
    for node in [&nodes[0], &nodes[5]] {
        wait_for_verdict(node, "split: 3 of 6 members out of reach since 20");
    }
    // Some keys had all their copies on the other side.
    let mut refused = 0;
    for number in 0..KEYS {
        match one.get(&key(number)) {
            Ok(value) => assert_eq!(value.as_deref(), Some(&b"before"[..])),
            Err(e) => {
                assert!(e.to_string().contains("not on this side of a split"), "{e}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "every key is on both sides");
    let (status, error) = ended(&run("storeget", &["-h", nodes[0].at(), "no such key"]));
    assert_eq!(status, Some(4), "{error}");
    for name in ["storelist", "storedump"] {
        let (status, error) = ended(&run(name, &["-h", nodes[5].at()]));
        assert_eq!(status, Some(4), "{error}");
        assert!(
            error.contains("may be on the other side of a split"),
            "{error}"
        );
    }
    // A key that is deleted on one side, with a value there or without one, stays deleted.
    for number in 0..KEYS / 2 {
        one.delete(&key(number)).unwrap();
    }
    // Each key milliseconds later on the other side.
    for (side, value) in [(&one, "one"), (&other, "other")] {
        (KEYS / 2..KEYS).for_each(|number| side.put(&key(number), value.as_bytes()).unwrap());
    }

    hosts.heal_all();
    settle(&nodes);
    for node in &nodes {
        for number in 0..KEYS {
            let value = client(node).get(&key(number)).unwrap();
            let expected = (number >= KEYS / 2).then_some(&b"other"[..]);
            assert_eq!(
                value.as_deref(),
                expected,
                "key {number} through {}",
                node.at()
            );
        }
    }
    // Each key once, at one node. Missed are those whose write may have been unfinished when the
    // split ended: the last one of each primary.
    let (written, missed) = ((KEYS - KEYS / 2) as u64, 3);
    let losses = || {
        let json = run("storestatus", &["-h", nodes[5].at(), "--json"]).stdout;
        let json: Value = serde_json::from_slice(&json).unwrap();
        let rows = json["nodes"].as_array().unwrap().iter();
        let losses = rows.map(|row| row["superseded"].as_u64().unwrap());
        losses.collect::<Vec<u64>>()
    };
    eventually("each lost value is counted", SOON, || {
        (written - missed..=written).contains(&losses().iter().sum())
    });
    let counting = losses().iter().filter(|lost| **lost > 0).count();
    eventually("the nodes that count tell of it", SOON, || {
        let is_told = |node: &&NodeProcess| node.says("lost a value that was written in the split");
        nodes.iter().filter(is_told).count() == counting
    });
}

#[test]
fn a_host_that_is_out_of_reach_can_be_declared_gone() {
    let Some(hosts) = Hosts::create_or_skip(3) else {
        return;
    };
    let nodes = hosts.start_stores(&["--replicas", "1"]);
    let one = client(&nodes[0]);
    one.put(b"here", b"value").unwrap();
    let gone = nodes[2].at();
    let declare = || {
        run(
            "storestatus",
            &["-h", nodes[0].at(), "--declare-gone", gone],
        )
    };
    let (status, error) = ended(&declare());
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("is not out of reach"), "{error}");

    hosts.split(&[0, 1], &[2]);
    wait_for_verdict(&nodes[0], "split: 1 of 3 members out of reach since");
    assert!(one.get(b"no such key").is_err());
    let table = String::from_utf8_lossy(&declare().stdout).into_owned();
    let last = table.lines().last().unwrap_or_default();
    assert!(!last.starts_with("split"), "{table}");
    assert_eq!(one.get(b"no such key").unwrap(), None);
    assert!(nodes[1].says(&format!("{gone} was declared gone by an operator")));
}

#[test]
fn a_process_that_was_killed_is_no_split() {
    let Some(hosts) = Hosts::create_or_skip(4) else {
        return;
    };
    let mut nodes = hosts.start_stores(&["--replicas", "3", "--on-split", "stop"]);
    client(&nodes[0]).put(b"key", b"value").unwrap();
    // One after the other, more than half of the members.
    for _ in 0..3 {
        nodes.pop().unwrap().kill();
        settle(&nodes);
        let (_, last) = verdict(&nodes[0]);
        assert!(last.starts_with("settled"), "{last}");
        assert_eq!(client(&nodes[0]).get(b"missing").unwrap(), None);
    }
    let (status, last) = verdict(&nodes[0]);
    assert_eq!(
        last,
        "settled, but 1 of 3 copies: the next death loses keys"
    );
    assert_eq!(status, Some(1));
}

#[test]
fn with_stop_the_side_with_most_members_serves_and_nothing_acknowledged_is_undone() {
    let Some(hosts) = Hosts::create_or_skip(5) else {
        return;
    };
    let nodes = hosts.start_stores(&["--replicas", "3", "--on-split", "stop"]);
    let loads: Vec<Workload> = [0, 4]
        .map(|node| Workload::start(&format!("load{node}"), 2, 2, || client(&nodes[node])))
        .into();
    let is_loaded = |load: &Workload| load.report().reads > 50 && load.report().writes > 50;
    eventually("the load runs", SOON, || loads.iter().all(is_loaded));
    for round in 0..rounds(1, 30) {
        // Which two nodes are cut off, changes.
        let cut_off = [[0, 1], [0, 3], [1, 2]][round % 3];
        let others: Vec<usize> = (0..5).filter(|node| !cut_off.contains(node)).collect();
        _ = loads[1].reset_stalls();
        let failed = loads[1].report().failed;

        hosts.split(&cut_off, &others);
        for side in [cut_off[1], others[1]] {
            wait_for_verdict(&nodes[side], "split: ");
        }
        let minority = client(&nodes[cut_off[0]]);
        let refuses = || minority.get(b"key").is_err();
        eventually("the minority refuses", SOON, refuses);
        assert!(
            verdict(&nodes[cut_off[0]])
                .1
                .ends_with("; this side does not serve")
        );
        let began = Instant::now();
        let refusal = minority.put(b"key", b"value").unwrap_err().to_string();
        assert!(
            refusal.contains("does not reach more than half"),
            "{refusal}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "a refusal needs no wait"
        );
        thread::sleep(Duration::from_secs(3));
        let (reads, writes) = loads[1].reset_stalls();
        println!("on the side with most members: longest read {reads:?}, write {writes:?}");
        assert!(
            reads.max(writes) < bound(SPLIT_STALL),
            "{reads:?}, {writes:?}"
        );
        assert_eq!(loads[1].report().failed, failed, "{:#?}", loads[1].report());

        hosts.heal_all();
        settle(&nodes);
        wait_for_verdict(&nodes[0], "settled, 3 copies");
    }
    for load in loads {
        let report = load.finish(nodes.iter().map(client));
        assert_eq!((report.violations, report.undecided), (0, 0), "{report:#?}");
    }
    let table = run("storestatus", &["-h", nodes[0].at()]).stdout;
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(!table.contains("lost a value"), "{table}");
}

#[test]
fn with_stop_neither_of_two_equal_halves_serves() {
    let Some(hosts) = Hosts::create_or_skip(4) else {
        return;
    };
    let nodes = hosts.start_stores(&["--replicas", "3", "--on-split", "stop"]);
    let clients: Vec<StoreClient> = nodes.iter().map(client).collect();
    clients[0].put(b"key", b"value").unwrap();
    hosts.split(&[0, 1], &[2, 3]);
    for (node, client) in nodes.iter().zip(&clients) {
        let stopped = "this node does not reach more than half of the members: it stops";
        eventually("the node stops", SOON, || node.says(stopped));
        eventually("the node refuses", SOON, || client.get(b"key").is_err());
        assert!(client.put(b"key", b"other").is_err());
    }
    hosts.heal_all();
    settle(&nodes);
    for client in &clients {
        let get = || {
            client
                .get(b"key")
                .is_ok_and(|value| value.as_deref() == Some(b"value"))
        };
        eventually("the key is read again", SOON, get);
    }
}

#[test]
fn a_node_that_requires_another_choice_for_splits_does_not_join() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let mut first = hosts.spawn_store(0, None, &["--on-split", "stop"]);
    first.wait_until_it_serves();
    let mut other = hosts.spawn_store(1, Some(0), &["--on-split", "continue"]);
    assert_eq!(other.wait().code(), Some(2));
    assert!(other.says("has --on-split stop: start with that, or without the option"));
}
