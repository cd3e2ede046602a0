//! Does a store return the values that were written, at every node, and hold them where the ring
//! says?

mod common;

use common::load::{bytes, machine};
use common::stores::{Stores, stats, write_in_one_call};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::status::store::StoreStatus;

const MIB: usize = 1024 * 1024;

/// Keys and values of every unusual length.
fn pairs_of_every_length() -> Vec<(Vec<u8>, Vec<u8>)> {
    let lengths = [
        0,
        1,
        7,
        65_535,
        MIB - 1,
        MIB,
        MIB + 1,
        16 * MIB - 1,
        16 * MIB,
    ];
    let mut pairs: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(index, length)| (bytes(5, index as u8), bytes(*length, index as u8)))
        .collect();
    pairs.push((Vec::new(), b"of the empty key".to_vec()));
    pairs.push((vec![0], vec![0xff, 0, 0xfe]));
    pairs.push((bytes(64 * 1024, 9), b"of the longest key".to_vec()));
    pairs
}

#[test]
fn values_of_every_length_stay_equal_and_deleted_keys_stay_deleted() {
    let _machine = machine();
    let mut stores = Stores::start(3, &["--replicas", "2"]);
    let pairs = pairs_of_every_length();
    let deleted: Vec<Vec<u8>> = (0..200)
        .map(|i| format!("deleted {i}").into_bytes())
        .collect();
    let client = &stores.clients()[0];
    for (key, value) in &pairs {
        client.put(key, value).unwrap();
    }
    for key in &deleted {
        client.put(key, b"some value").unwrap();
        assert!(client.delete(key).unwrap());
        assert!(!client.delete(key).unwrap(), "a key was deleted twice");
    }
    let check = |stores: &Stores, when: &str| {
        for client in stores.clients() {
            for (key, value) in &pairs {
                let found = client
                    .get(key)
                    .unwrap()
                    .map(|found| (found.len(), found == *value));
                let pair = format!(
                    "key of {} and value of {} bytes {when}",
                    key.len(),
                    value.len()
                );
                assert_eq!(found, Some((value.len(), true)), "{pair}");
            }
            let back = deleted
                .iter()
                .filter(|key| client.get(key).unwrap().is_some())
                .count();
            assert_eq!(back, 0, "deleted keys are back {when}");
        }
    };
    check(&stores, "at first");
    let joiner = stores.spawn_joiner();
    stores.admit(joiner);
    stores.settle();
    check(&stores, "after a join");
    assert!(stores.interrupt(0).wait().success());
    stores.settle();
    check(&stores, "after a leave");
    let killed = stores.kill(1);
    stores.settle();
    check(&stores, "after a crash");
    stores.restart(&killed);
    stores.settle();
    check(&stores, "after a restart");
    let status = StoreStatus::ask(&Dialer::default(), &stores.nodes[0].location).unwrap();
    assert_eq!(status.keys(), pairs.len() as u64);
}

#[test]
fn pairs_of_one_call_take_effect_in_their_order() {
    let _machine = machine();
    let stores = Stores::start(2, &[]);
    let client = &stores.clients()[0];
    for node in &stores.nodes {
        let (put, other, delete): (_, _, Option<&[u8]>) = (Some(&b"1"[..]), Some(&b"2"[..]), None);
        let pairs: [(&[u8], _); 7] = [
            (b"deleted", put),
            (b"kept", delete),
            (b"deleted", delete),
            (b"kept", put),
            (b"deleted", delete),
            (b"kept", other),
            (b"third", put),
        ];
        let existed = write_in_one_call(&node.location, &pairs).unwrap();
        assert_eq!(existed, [false, false, true, false, false, true, false]);
        assert_eq!(client.get(b"deleted").unwrap(), None);
        assert_eq!(client.get(b"kept").unwrap().unwrap(), b"2");
        let deletions = [(&b"kept"[..], delete), (b"third", delete)];
        assert_eq!(
            write_in_one_call(&node.location, &deletions).unwrap(),
            [true, true]
        );
    }
}

#[test]
fn a_store_with_one_copy_has_each_key_at_its_owner_on_the_ring() {
    let _machine = machine();
    for size in [1, 4] {
        let stores = Stores::start(size, &["--replicas", "1"]);
        let client = &stores.clients()[size - 1];
        let keys: Vec<Vec<u8>> = (0..300).map(|i| format!("key {i}").into_bytes()).collect();
        keys.iter()
            .for_each(|key| client.put(key, b"value").unwrap());
        let owners: Vec<Location> = keys.iter().map(|key| client.owner(key).unwrap()).collect();
        for node in &stores.nodes {
            let owned = owners
                .iter()
                .filter(|owner| **owner == node.location)
                .count() as i64;
            let stats = stats(&node.location).unwrap();
            assert_eq!(
                (stats.keys, stats.primary_keys),
                (Some(owned), Some(owned)),
                "{}",
                node.at()
            );
        }
    }
}
