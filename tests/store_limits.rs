//! Does a store refuse writes beyond its limits with a reason, and lose nothing?

mod common;

use std::fmt::Debug;

use common::NodeProcess;
use common::load::machine;
use common::stores::{Stores, stats};
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient, Write};
use thrifty_p2p::error::Error;
use thrifty_p2p::rpc::dialer::call;

/// The text of the error by which a write was refused.
fn refusal<T: Debug>(result: Result<T, Error>) -> String {
    result.expect_err("the write is accepted").to_string()
}

#[test]
fn a_write_beyond_a_limit_is_refused_with_a_reason_and_nothing_is_lost() {
    let _machine = machine();
    let stores = Stores::start(1, &["--max-value", "1000", "--max-memory", "20000"]);
    let client = &stores.clients()[0];
    client.put(b"key", &[1; 1000]).unwrap();
    let reason = refusal(client.put(b"key", &[2; 1001]));
    assert!(
        reason.contains("a value of 1001 bytes; at most 1000 are accepted"),
        "{reason}"
    );
    let reason = refusal(client.put(&[3; 65_537], b"value"));
    assert!(
        reason.contains("a key of 65537 bytes; at most 65536 are accepted"),
        "{reason}"
    );
    let mut accepted = 0;
    let reason = loop {
        match client.put(format!("more {accepted}").as_bytes(), &[4; 1000]) {
            Ok(()) => accepted += 1,
            Err(e) => break e.to_string(),
        }
        assert!(accepted < 20, "the memory limit has no effect");
    };
    assert!(
        reason.contains("the memory for keys and values is full"),
        "{reason}"
    );
    assert_eq!(client.get(b"key").unwrap(), Some(vec![1; 1000]));
    for index in 0..accepted {
        let found = client.get(format!("more {index}").as_bytes()).unwrap();
        assert_eq!(found, Some(vec![4; 1000]));
    }
    client
        .put(b"key", &[5; 1000])
        .expect("a value of the same length needs no more memory");
    assert!(client.delete(b"key").unwrap());
    // The deletion has made room.
    client.put(b"another", &[6; 900]).unwrap();
}

#[test]
fn pairs_of_one_call_that_have_no_room_are_refused_and_the_others_are_written() {
    let _machine = machine();
    let stores = Stores::start(1, &["--max-memory", "20000"]);
    let (at, value) = (&stores.nodes[0].location, vec![1; 1000]);
    let keys: Vec<String> = (0..30).map(|number| format!("key {number}")).collect();
    let write = |key: &String| {
        Write::new(
            key.clone().into_bytes(),
            value.clone(),
            None,
            false,
            None,
            None,
            None,
        )
    };
    let results = call(StoreSyncClient::new, at, |node| {
        node.write_many(keys.iter().map(write).collect())
    });
    let results = results.unwrap();
    let refused = results.iter().filter_map(|result| result.refused.as_ref());
    let reasons: Vec<&String> = refused.collect();
    let is_full = |reason: &&String| reason.contains("memory for keys and values is full");
    assert!(reasons.iter().all(is_full), "{reasons:?}");
    let written = keys.len() - reasons.len();
    assert!((10..20).contains(&written), "{written} have room");
    assert_eq!(stats(at).unwrap().keys, Some(written as i64));
}

#[test]
fn a_value_without_room_at_another_owner_is_refused_and_the_old_value_stays() {
    let _machine = machine();
    let mut stores = Stores::start(1, &["--replicas", "2"]);
    let peer = stores.nodes[0].at().to_owned();
    let small = ["--port", "0", "--host", &peer, "--max-memory", "5000"];
    stores.admit(NodeProcess::spawn("storeserver", &small));
    stores.settle();
    for client in stores.clients() {
        for index in 0..10 {
            let key = format!("key {index}").into_bytes();
            client.put(&key, b"old").unwrap();
            let reason = refusal(client.put(&key, &[1; 5000]));
            assert!(
                reason.contains("the memory for keys and values is full"),
                "{reason}"
            );
            assert_eq!(client.get(&key).unwrap(), Some(b"old".to_vec()));
        }
    }
}
