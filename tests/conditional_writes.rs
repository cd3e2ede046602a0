//! Are conditional writes made once, and only if their conditions are met?

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use common::stores::Stores;
use common::{SOON, eventually};
use thrifty_p2p::client::{Conditional, StoreClient};
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient, Write, WriteId, WriteResult};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, call};

const KEY: &[u8] = b"key";

/// A write of `KEY`, perhaps on a condition.
fn write(value: Option<&str>, if_version: Option<i64>) -> Write {
    Write {
        key: Some(KEY.to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
        if_version,
        deadline: None,
        started: None,
        ..Write::default()
    }
}

/// Makes writes in one call. Returns for each whether it `differs`, and its version.
fn write_many(node: &Location, writes: &[Write]) -> Vec<(bool, i64)> {
    let many = |node: &mut StoreSyncClient<_, _>| node.write_many(writes.to_vec());
    let results = call(StoreSyncClient::new, node, many).unwrap();
    let result = |result: WriteResult| {
        assert_eq!(result.refused, None);
        (result.differs.unwrap(), result.version.unwrap())
    };
    results.into_iter().map(result).collect()
}

#[test]
fn each_node_writes_if_the_version_is_the_one_that_stands() {
    let stores = Stores::start(4, &["--replicas", "3"]);
    let clients = stores.clients();
    for (one, other) in clients.iter().zip(clients.iter().rev()) {
        let Conditional::Written(first) = one.put_if(KEY, b"1", 0).unwrap() else {
            panic!("the key has no value");
        };
        assert_eq!(other.read(KEY).unwrap().version, first);
        let differs = Conditional::Differs(first);
        assert_eq!(other.put_if(KEY, b"2", 0).unwrap(), differs);
        assert_eq!(other.delete_if(KEY, first - 1).unwrap(), differs);
        let Conditional::Written(second) = other.put_if(KEY, b"2", first).unwrap() else {
            panic!("the key has that version");
        };
        assert!(second > first);
        assert_eq!(one.get(KEY).unwrap(), Some(b"2".to_vec()));
        assert!(matches!(
            one.delete_if(KEY, second).unwrap(),
            Conditional::Written(_)
        ));
        let gone = one.read(KEY).unwrap();
        assert_eq!((gone.value, gone.version), (None, 0));
        assert_eq!(
            one.put_if(KEY, b"3", second).unwrap(),
            Conditional::Differs(0)
        );
    }
}

#[test]
fn of_the_writes_of_one_call_each_depends_on_those_before_it() {
    let stores = Stores::start(3, &[]);
    for node in &stores.nodes {
        let [
            (false, first),
            (true, second),
            (false, third),
            (true, fourth),
        ] = write_many(
            &node.location,
            &[
                write(Some("a"), Some(0)),
                write(Some("b"), Some(0)),
                write(Some("c"), None),
                write(None, Some(1)),
            ],
        )[..]
        else {
            panic!("the first and the third are made");
        };
        assert_eq!((second, fourth), (first, third));
        let deleted = write_many(&node.location, &[write(None, Some(third))]);
        assert!(!deleted[0].0);
    }
}

#[test]
fn a_repeated_write_whose_condition_was_not_met_is_not_made_later() {
    let stores = Stores::start(3, &[]);
    let [one, other, _] = [0, 1, 2].map(|index| &stores.nodes[index].location);
    let client = StoreClient::new(one.clone());
    client.put(KEY, b"red").unwrap();
    let late = Write {
        id: Some(WriteId::new(1, 2)),
        ..write(Some("blue"), Some(0))
    };
    let version = client.read(KEY).unwrap().version;
    assert_eq!(
        write_many(one, std::slice::from_ref(&late)),
        [(true, version)]
    );
    assert!(client.delete(KEY).unwrap());
    assert_eq!(write_many(other, &[late]), [(true, version)]);
    assert_eq!(client.get(KEY).unwrap(), None);
}

#[test]
fn every_increment_is_counted_once_while_nodes_join_and_die() {
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let nodes: Vec<Location> = stores
        .nodes
        .iter()
        .map(|node| node.location.clone())
        .collect();
    stores.clients()[0].put(KEY, b"0").unwrap();
    let (done, unknown) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_stopped = AtomicBool::new(false);
    let increment = |client: &StoreClient| {
        let held = client.read(KEY).ok()?;
        let value = String::from_utf8(held.value?).ok()?.parse::<u64>().ok()?;
        let next = (value + 1).to_string();
        match client.put_if(KEY, next.as_bytes(), held.version) {
            Ok(Conditional::Written(_)) => done.fetch_add(1, SeqCst),
            Ok(Conditional::Differs(_)) => return None,
            Err(_) => unknown.fetch_add(1, SeqCst),
        };
        Some(())
    };
    thread::scope(|scope| {
        for turn in 0..4 {
            let mut nodes = nodes.clone();
            nodes.rotate_left(turn);
            let (increment, is_stopped) = (&increment, &is_stopped);
            scope.spawn(move || {
                let client = StoreClient::of(Dialer::default(), nodes);
                while !is_stopped.load(SeqCst) {
                    increment(&client);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let counted = || {
            let before = done.load(SeqCst);
            eventually("increments", SOON, || done.load(SeqCst) > before + 100);
        };
        counted();
        stores.kill(3);
        counted();
        let joiner = stores.spawn_joiner();
        stores.admit(joiner);
        counted();
        stores.kill(2);
        counted();
        is_stopped.store(true, SeqCst);
    });
    let held = stores.clients()[0].get(KEY).unwrap().unwrap();
    let value: u64 = String::from_utf8(held).unwrap().parse().unwrap();
    let (done, unknown) = (done.load(SeqCst), unknown.load(SeqCst));
    eprintln!("{value} counted, {done} acknowledged, {unknown} without a reply");
    assert!((done..=done + unknown).contains(&value));
}
