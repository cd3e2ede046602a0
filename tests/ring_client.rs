//! Does a client that calls each key's primary read what any node would return, for keys and
//! values of any size, shared by threads, while nodes join and fail?

mod common;

use std::sync::Arc;
use std::thread;

use common::checker::Workload;
use common::stores::Stores;
use common::{NodeProcess, SOON, eventually};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::limits::{MAX_KEY, MAX_VALUE};
use thrifty_p2p::store::placement::Key;

fn client_of(stores: &Stores, index: usize) -> RingClient {
    RingClient::connect(&stores.nodes[index].location).unwrap()
}

/// Bytes of all values.
fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + index / 251 + seed) as u8)
        .collect()
}

#[test]
fn keys_and_values_of_any_bytes_and_sizes_are_read_as_they_were_written() {
    let stores = Stores::start(3, &["--replicas", "2"]);
    let client = client_of(&stores, 0);
    let sizes = [
        (0, 0),
        (1, 0),
        (0, 1),
        (300, 70_000),
        (MAX_KEY, 5),
        (3, MAX_VALUE),
    ];
    let pairs = sizes.map(|(key, value)| (bytes(key, value), bytes(value, key)));
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
    // The empty key is written twice in one call.
    let all = pairs
        .iter()
        .map(|(key, value)| (Key::new(key), Some(&value[..])));
    let all: Vec<_> = all.collect();
    let existed = client.write_many(&all).unwrap();
    assert_eq!(existed, [false, false, true, false, false, false]);
    let keys: Vec<&[u8]> = pairs.iter().map(|(key, _)| &key[..]).collect();
    let found = client.get_many(&keys).unwrap();
    assert_eq!(
        found[0],
        Some(pairs[2].1.clone()),
        "the last value of a key wins"
    );
    for ((_, value), found) in pairs.iter().zip(&found).skip(1) {
        assert!(found.as_ref() == Some(value), "{} bytes", value.len());
    }
}

#[test]
fn keys_and_values_beyond_the_maximum_are_rejected_without_a_call() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let client = RingClient::connect(&node.location).unwrap();
    drop(node);
    let (key, value) = (vec![0; MAX_KEY + 1], vec![0; MAX_VALUE + 1]);
    let is_rejected = |result: Result<(), Error>| matches!(result, Err(Error::Usage(_)));
    assert!(is_rejected(client.put(b"key", &value)));
    assert!(is_rejected(client.put(&key, b"value")));
    assert!(is_rejected(client.get(&key).map(|_| ())));
    assert!(is_rejected(client.get_many(&[&key]).map(|_| ())));
    let write = (Key::new(b"key"), Some(&value[..]));
    assert!(is_rejected(client.write_many(&[write]).map(|_| ())));
}

#[test]
fn many_keys_and_large_values_are_divided_into_several_messages() {
    let stores = Stores::start(3, &["--replicas", "1"]);
    let client = client_of(&stores, 1);
    let name = |number: usize| format!("key {number}");
    let names: Vec<String> = (0..6000).map(name).collect();
    // More keys than fit into a message. Some of the values are larger than a message.
    let size = |number: usize| {
        if number.is_multiple_of(600) {
            2 << 20
        } else {
            20
        }
    };
    let value = |number: usize| bytes(size(number), number);
    let values: Vec<Vec<u8>> = (0..names.len()).map(value).collect();
    let pairs = names.iter().zip(&values);
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (Key::new(name.as_bytes()), Some(&value[..])))
        .collect();
    let existed = client.write_many(&pairs).unwrap();
    assert!(existed.iter().all(|existed| !existed));
    let found = client.get_many(&names).unwrap();
    assert!(
        found.iter().flatten().eq(&values),
        "other values, or another order"
    );
    let deletions: Vec<_> = pairs.iter().map(|(key, _)| (*key, None)).collect();
    let existed = client.write_many(&deletions).unwrap();
    assert!(existed.iter().all(|existed| *existed));
    assert!(client.get_many(&names).unwrap().iter().all(Option::is_none));
}

#[test]
fn repeated_keys_in_one_call_keep_the_last_value_and_report_the_one_before() {
    let stores = Stores::start(3, &["--replicas", "1"]);
    let client = client_of(&stores, 0);
    let values: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let writes = values.iter().enumerate().map(|(number, value)| {
        let key: &[u8] = if number % 2 == 0 { b"even" } else { b"odd" };
        let value = (number % 10 != 0).then_some(value.as_bytes());
        (Key::new(key), value)
    });
    let existed = client.write_many(&writes.collect::<Vec<_>>()).unwrap();
    let had_value = |number: usize| number >= 2 && !(number - 2).is_multiple_of(10);
    assert!(existed.into_iter().eq((0..10_000).map(had_value)));
    let found = client.get_many(&["even", "odd"]).unwrap();
    assert_eq!(found, [Some(b"9998".to_vec()), Some(b"9999".to_vec())]);
}

#[test]
fn a_shared_client_survives_the_failure_of_the_node_it_was_connected_to() {
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let client = Arc::new(client_of(&stores, 0));
    let load = Workload::start("shared", 8, 8, || client.clone());
    let await_progress = || {
        let before = load.report();
        eventually("the load makes progress", SOON, || {
            let now = load.report();
            now.reads > before.reads + 300 && now.writes > before.writes + 300
        });
    };
    await_progress();
    let gone = stores.kill(0).location.clone();
    let joiner = stores.spawn_joiner();
    stores.admit(joiner);
    await_progress();
    stores.settle();
    await_progress();
    let joined = stores.nodes[3].location.clone();
    eventually("the client knows the members", SOON, || {
        let nodes = client.nodes();
        nodes.contains(&joined) && !nodes.contains(&gone)
    });
    await_progress();
    let report = load.finish(stores.clients());
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn a_refused_write_does_not_fail_others_in_its_batch() {
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
                        let reason = refused.to_string();
                        let expected = "a value of 101 bytes; at most 100 are accepted";
                        assert!(reason.contains(expected), "{reason}");
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
