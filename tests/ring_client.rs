//! Does a client that calls each key's primary itself get what any node would answer,
//! whatever the sizes, whoever shares it, and whatever nodes come and go?

mod common;

use std::sync::Arc;
use std::thread;

use common::checker::{Keeps, Load};
use common::stores::Stores;
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::limits::{MAX_KEY, MAX_VALUE};
use thrifty_p2p::store::table::Key;

/// A client that threads share.
#[derive(Clone)]
struct Shared(Arc<RingClient>);

impl Keeps for Shared {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.0.get(key).map_err(|e| e.to_string())
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let done = match value {
            Some(value) => self.0.put(key, value),
            None => self.0.delete(key).map(|_| ()),
        };
        done.map_err(|e| e.to_string())
    }
}

fn client_of(stores: &Stores, index: usize) -> RingClient {
    RingClient::connect(&stores.nodes[index].location).unwrap()
}

/// Bytes of that length, of all kinds.
fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 7 + at / 251 + seed) as u8)
        .collect()
}

#[test]
fn keys_and_values_of_any_bytes_and_lengths_come_back() {
    let stores = Stores::start(3, &["--replicas", "2"]);
    let client = client_of(&stores, 0);
    let lengths = [
        (0, 0),
        (1, 0),
        (0, 1),
        (300, 70_000),
        (MAX_KEY, 5),
        (3, MAX_VALUE),
    ];
    let pairs = lengths.map(|(key, value)| (bytes(key, value), bytes(value, key)));
    for (key, value) in &pairs {
        assert_eq!(client.get(key).unwrap(), None);
        client.put(key, value).unwrap();
        assert!(
            client.get(key).unwrap().as_ref() == Some(value),
            "{} bytes",
            value.len()
        );
        assert!(client.delete(key).unwrap() && !client.delete(key).unwrap());
    }
    // The empty key was put twice, of which the last is meant.
    let all = pairs
        .iter()
        .map(|(key, value)| (Key::new(key), Some(&value[..])));
    let all: Vec<_> = all.collect();
    let existed = client.write_many(&all).unwrap();
    assert_eq!(existed, [false, false, true, false, false, false]);
    let keys: Vec<&[u8]> = pairs.iter().map(|(key, _)| &key[..]).collect();
    let found = client.get_many(&keys).unwrap();
    assert_eq!(found[0], Some(pairs[2].1.clone()), "the last of a key wins");
    for ((_, value), found) in pairs.iter().zip(&found).skip(1) {
        assert!(found.as_ref() == Some(value), "{} bytes", value.len());
    }
}

#[test]
fn what_no_store_takes_is_refused_without_a_call() {
    let node = NodeProcess::start_alone("storeserver");
    let client = RingClient::connect(&node.location).unwrap();
    drop(node);
    let (key, value) = (vec![0; MAX_KEY + 1], vec![0; MAX_VALUE + 1]);
    let usage = |outcome: Result<(), Error>| matches!(outcome, Err(Error::Usage(_)));
    assert!(usage(client.put(b"key", &value)));
    assert!(usage(client.put(&key, b"value")));
    assert!(usage(client.get(&key).map(|_| ())));
    assert!(usage(client.get_many(&[&key]).map(|_| ())));
    let pair = (Key::new(b"key"), Some(&value[..]));
    assert!(usage(client.write_many(&[pair]).map(|_| ())));
}

#[test]
fn answers_that_fit_no_message_come_in_several() {
    let stores = Stores::start(3, &["--replicas", "1"]);
    let client = client_of(&stores, 1);
    let name = |number: usize| format!("key {number}");
    let names: Vec<String> = (0..6000).map(name).collect();
    // More keys than a message has, and some of the values are a message each.
    let value = |number: usize| {
        bytes(
            if number.is_multiple_of(600) {
                2 << 20
            } else {
                20
            },
            number,
        )
    };
    let values: Vec<Vec<u8>> = (0..names.len()).map(value).collect();
    let pairs = names.iter().zip(&values);
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (Key::new(name.as_bytes()), Some(&value[..])))
        .collect();
    assert!(
        client
            .write_many(&pairs)
            .unwrap()
            .iter()
            .all(|existed| !existed)
    );
    let found = client.get_many(&names).unwrap();
    assert!(
        found.iter().flatten().eq(&values),
        "not what was written, in order"
    );
    let gone: Vec<_> = pairs.iter().map(|(key, _)| (*key, None)).collect();
    assert!(
        client
            .write_many(&gone)
            .unwrap()
            .iter()
            .all(|existed| *existed)
    );
    assert!(client.get_many(&names).unwrap().iter().all(Option::is_none));
}

#[test]
fn of_one_keys_values_the_last_stays_and_each_is_told_what_was_before() {
    let stores = Stores::start(3, &["--replicas", "1"]);
    let client = client_of(&stores, 0);
    let values: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let pairs = values.iter().enumerate().map(|(number, value)| {
        let key: &[u8] = if number % 2 == 0 { b"even" } else { b"odd" };
        (
            Key::new(key),
            (number % 10 != 0).then_some(value.as_bytes()),
        )
    });
    let existed = client.write_many(&pairs.collect::<Vec<_>>()).unwrap();
    let was_there = |number: usize| number >= 2 && !(number - 2).is_multiple_of(10);
    assert!(existed.into_iter().eq((0..10_000).map(was_there)));
    let found = client.get_many(&["even", "odd"]).unwrap();
    assert_eq!(found, [Some(b"9998".to_vec()), Some(b"9999".to_vec())]);
}

#[test]
fn a_client_shared_by_many_outlives_the_node_it_learned_from() {
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let client = Shared(Arc::new(client_of(&stores, 0)));
    let load = Load::start("shared", 8, 8, || client.clone());
    let go_on = || {
        let before = load.report();
        eventually("the load goes on", SOON, || {
            let now = load.report();
            now.reads > before.reads + 300 && now.writes > before.writes + 300
        });
    };
    go_on();
    let gone = stores.kill(0).location.clone();
    let joiner = stores.spawn_joiner();
    stores.admit(joiner);
    go_on();
    stores.settle();
    go_on();
    let joined = stores.nodes[3].location.clone();
    eventually("the client knows who is there", SOON, || {
        let nodes = client.0.nodes();
        nodes.contains(&joined) && !nodes.contains(&gone)
    });
    go_on();
    let report = load.finish(stores.clients());
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn a_refused_write_fails_no_other_that_shares_its_message() {
    let stores = Stores::start(2, &["--replicas", "2", "--max-value", "100"]);
    let client = client_of(&stores, 0);
    thread::scope(|scope| {
        for number in 0..16 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..200 {
                    let key = format!("{number} {round}").into_bytes();
                    if number % 4 == 0 {
                        let refused = client.put(&key, &[0; 101]).unwrap_err();
                        assert!(refused.is_refused(), "{refused}");
                        let told = refused.to_string();
                        assert!(
                            told.contains("a value of 101 bytes; 100 are taken"),
                            "{told}"
                        );
                    } else {
                        client.put(&key, &key).unwrap();
                    }
                }
            });
        }
    });
    let other = StoreClient::new(stores.nodes[1].location.clone());
    for number in 0..16 {
        let key = format!("{number} 199").into_bytes();
        let expected = (number % 4 != 0).then_some(key.clone());
        assert_eq!(other.get(&key).unwrap(), expected);
    }
}
