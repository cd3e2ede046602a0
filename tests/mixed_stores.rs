//! Do legacy stores and ours share their keys?

mod common;

use std::time::{Duration, Instant};

use common::legacy::{LegacyNode, wait_for_rings};
use common::network::print_time;
use common::{NodeProcess, SOON, eventually, run, run_with_input};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, call};
use thrifty_p2p::status::store::StoreStatus;

/// How long a program may take for one key in a settled network.
const CALL_BOUND: Duration = Duration::from_secs(5);

/// Starts a store that joins through `peer`, and waits until all have each other on their rings.
fn join_store(peer: &Location, nodes: &[&NodeProcess], legacy: &[&LegacyNode]) -> NodeProcess {
    let node = NodeProcess::start("storeserver", &["--host", peer.name()]);
    wait_for_rings(&[nodes, &[&node]].concat(), legacy);
    node
}

/// Keys with their values.
fn some_pairs() -> Vec<(String, String)> {
    let pair = |i| (format!("key {i}"), format!("value {i}"));
    (0..24).map(pair).collect()
}

/// Puts every pair with the program `storeput`, through each of `nodes` in turn.
fn put_through(nodes: &[&NodeProcess], pairs: &[(String, String)]) {
    for ((key, value), node) in pairs.iter().zip(nodes.iter().cycle()) {
        let began = Instant::now();
        let put = run("storeput", &["-h", node.at(), key, value]);
        let stderr = String::from_utf8_lossy(&put.stderr);
        assert!(
            put.status.success(),
            "{key} through {}: {stderr}",
            node.at()
        );
        let time = began.elapsed();
        assert!(
            time < CALL_BOUND,
            "{time:?} to put {key} through {}",
            node.at()
        );
    }
}

/// Checks that the program `storeget` finds every pair through each of `nodes`, without delay.
fn check_readable(nodes: &[&NodeProcess], pairs: &[(String, String)]) {
    let mut slowest = Duration::ZERO;
    for node in nodes {
        for (key, value) in pairs {
            let began = Instant::now();
            let got = run("storeget", &["-h", node.at(), key]);
            let found = String::from_utf8_lossy(&got.stdout);
            assert_eq!(found.trim_end(), value, "{key} through {}", node.at());
            slowest = slowest.max(began.elapsed());
        }
    }
    print_time("the slowest storeget", slowest, CALL_BOUND);
    assert!(slowest < CALL_BOUND, "{slowest:?} to get a key");
}

#[test]
fn a_write_that_depends_on_a_version_is_refused_beside_legacy_nodes() {
    let legacy = LegacyNode::start_store(None);
    let node = join_store(&legacy.location, &[], &[&legacy]);
    let put = |option| run("storeput", &["-h", node.at(), option, "a", "1"]);
    let mut refused = put("--if-absent");
    eventually("the node serves", SOON, || {
        refused = put("--if-absent");
        String::from_utf8_lossy(&refused.stderr).contains("nodes of the original")
    });
    assert_eq!(refused.status.code(), Some(4));
    assert!(put("-v").status.success(), "other writes are made");
    legacy.leave();
    eventually("the legacy node has left", SOON, || {
        run("storeput", &["-h", node.at(), "--if-absent", "b", "1"])
            .status
            .success()
    });
}

/// The pairs that a legacy node owns on the ring of `node`.
fn owned_by<'a>(
    legacy: &LegacyNode,
    node: &NodeProcess,
    pairs: &'a [(String, String)],
) -> Vec<&'a (String, String)> {
    let client = StoreClient::new(node.location.clone());
    let owner = |key: &str| client.owner(key.as_bytes()).unwrap();
    let owned = pairs
        .iter()
        .filter(|(key, _)| owner(key) == legacy.location);
    let owned: Vec<_> = owned.collect();
    assert!(!owned.is_empty(), "{} owns no key", legacy.location);
    owned
}

/// Waits until a legacy node has the pairs that it owns in its own dictionary.
fn wait_for_owned(legacy: &LegacyNode, node: &NodeProcess, pairs: &[(String, String)]) {
    for (key, value) in owned_by(legacy, node, pairs) {
        eventually(&format!("the legacy node has {key}"), SOON, || {
            legacy.value_of(key).as_deref() == Some(value.as_bytes())
        });
    }
}

#[test]
fn stores_that_join_a_legacy_store_share_its_keys_with_it() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let b = join_store(&a.location, &[&a], &[&x]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    check_readable(&[&a, &b], &pairs);
    wait_for_owned(&x, &a, &pairs);

    // A value that a client puts at the legacy node is read through our nodes.
    let (key, _) = owned_by(&x, &b, &pairs)[0];
    call(StoreSyncClient::new, &x.location, |legacy| {
        legacy.put(key.clone().into_bytes(), b"from its client".to_vec())
    })
    .unwrap();
    eventually("the legacy node has its client's value", SOON, || {
        x.value_of(key).as_deref() == Some(b"from its client")
    });
    let changed = [(key.clone(), "from its client".to_owned())];
    check_readable(&[&a, &b], &changed);

    // A key that is deleted through our nodes is not found at the legacy node either.
    assert!(run("storedel", &["-h", a.at(), key]).status.success());
    eventually("the legacy node has no value for the key", SOON, || {
        x.value_of(key).is_none_or(|value| value.is_empty())
    });
    assert_eq!(run("storeget", &["-h", b.at(), key]).status.code(), Some(1));
}

#[test]
fn a_legacy_store_that_joins_later_gets_the_keys_it_owns() {
    let a = NodeProcess::start_bootstrap("storeserver");
    let b = join_store(&a.location, &[&a], &[]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    let x = LegacyNode::start_store(Some(&b.location));
    wait_for_rings(&[&a, &b], &[&x]);
    wait_for_owned(&x, &a, &pairs);
    check_readable(&[&a, &b], &pairs);
}

#[test]
fn a_value_put_through_our_nodes_outlives_the_legacy_node_that_owns_it() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let b = join_store(&x.location, &[&a], &[&x]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    wait_for_owned(&x, &a, &pairs);
    drop(x);
    check_readable(&[&a, &b], &pairs);
    wait_for_rings(&[&a, &b], &[]);
    check_readable(&[&a, &b], &pairs);
}

#[test]
fn a_ring_client_lets_a_node_route_its_calls_while_there_is_a_legacy_node() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let b = join_store(&a.location, &[&a], &[&x]);
    let client = RingClient::connect(&b.location).unwrap();
    eventually("the client knows no primaries", SOON, || {
        client.primary(b"any").is_none()
    });
    let pairs = some_pairs();
    for (key, value) in &pairs {
        client.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    wait_for_owned(&x, &a, &pairs);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    let found = client.get_many(&keys).unwrap().into_iter().flatten();
    assert!(found.eq(pairs.iter().map(|(_, value)| value.clone().into_bytes())));

    drop(x);
    wait_for_rings(&[&a, &b], &[]);
    eventually("the client calls primaries", SOON, || {
        client.primary(b"key 1").is_some()
    });
    assert_eq!(client.get(b"key 1").unwrap(), Some(b"value 1".to_vec()));
}

/// Puts a key of its own to a legacy store, as a client of the original does, and waits until it
/// has it.
fn put_at(legacy: &LegacyNode, key: &str, value: &str) {
    call(StoreSyncClient::new, &legacy.location, |node| {
        node.put(key.into(), value.into())
    })
    .unwrap();
    eventually("the legacy store has it", SOON, || {
        legacy.value_of(key).as_deref() == Some(value.as_bytes())
    });
}

#[test]
fn a_key_that_only_a_legacy_store_holds_is_deleted_through_ours() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let (key, _) = &owned_by(&x, &a, &some_pairs())[0].clone();
    put_at(&x, key, "value");
    let delete = || run("storedel", &["-h", a.at(), key]).status.code();
    assert_eq!(delete(), Some(0));
    assert_eq!(x.value_of(key).as_deref(), Some(&b""[..]));
    assert_eq!(delete(), Some(1), "it is gone already");

    // Nor does a value return that a read has found at the legacy store.
    for round in 0..5 {
        put_at(&x, key, &format!("value {round}"));
        run("storeget", &["-h", a.at(), key]);
        assert_eq!(delete(), Some(0));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(run("storeget", &["-h", a.at(), key]).status.code(), Some(1));
        assert_eq!(x.value_of(key).as_deref(), Some(&b""[..]));
    }
}

#[test]
fn a_key_that_is_deleted_while_its_legacy_store_hangs_does_not_return_with_it() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let (key, _) = &owned_by(&x, &a, &some_pairs())[0].clone();
    put_at(&x, key, "value");
    x.hang();
    // It is not known that there is a value.
    let deleted = run("storedel", &["-h", a.at(), key]);
    assert_eq!(deleted.status.code(), Some(1));
    wait_for_rings(&[&a], &[]);
    x.resume();
    wait_for_rings(&[&a], &[&x]);
    eventually("the key is gone from it", SOON, || {
        x.value_of(key).as_deref() == Some(b"")
    });
    assert_eq!(run("storeget", &["-h", a.at(), key]).status.code(), Some(1));
}

/// Loads so many pairs through one of ours.
fn load(node: &NodeProcess, pairs: usize) {
    let lines: String = (0..pairs)
        .map(|i| format!("key {i}\tvalue {i}\n"))
        .collect();
    let loaded = run_with_input("storeload", &["-h", node.at()], lines.as_bytes());
    assert!(loaded.status.success());
}

#[test]
fn the_last_of_ours_hands_everything_over_to_legacy_stores() {
    let a = NodeProcess::start_bootstrap("storeserver");
    let x = LegacyNode::start_store(Some(&a.location));
    let y = LegacyNode::start_store(Some(&x.location));
    wait_for_rings(&[&a], &[&x, &y]);
    load(&a, 1_500);
    let mut a = a;
    a.signal("TERM");
    assert!(a.wait().success());
    for number in 0..1_500 {
        let key = format!("key {number}");
        let held = [&x, &y].map(|node| node.value_of(&key).unwrap_or_default());
        let expected = format!("value {number}").into_bytes();
        assert!(held.contains(&expected), "{key}: {held:?}");
    }
}

#[test]
fn what_could_not_be_handed_over_is_counted_and_is_a_failure() {
    let mut a = NodeProcess::start_bootstrap("storeserver");
    let x = LegacyNode::start_store(Some(&a.location));
    wait_for_rings(&[&a], &[&x]);
    x.hang();
    load(&a, 10);
    a.signal("TERM");
    let mut status = None;
    eventually("it gives up", 3 * SOON, || {
        status = a.try_wait();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(4));
    assert!(
        a.says("not handed over and lost: 10 keys"),
        "{:?}",
        a.lines()
    );
}

#[test]
fn a_store_that_is_settled_after_a_kill_stays_so() {
    let x = LegacyNode::start_store(None);
    let a = join_store(&x.location, &[], &[&x]);
    let b = join_store(&a.location, &[&a], &[&x]);
    let mut c = join_store(&a.location, &[&a, &b], &[&x]);
    load(&a, 2_000);
    c.kill();
    let ours = [&a.location, &b.location, &x.location].map(Clone::clone);
    let is_settled = || {
        StoreStatus::ask(&Dialer::default(), &a.location).is_ok_and(|status| {
            let all = status
                .nodes
                .iter()
                .all(|node| ours.contains(&node.location));
            all && status.is_settled()
        })
    };
    eventually("the store is settled", SOON, is_settled);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(is_settled());
    }
}

#[test]
fn two_of_ours_among_many_legacy_stores_keep_serving() {
    let a = NodeProcess::start_bootstrap("storeserver");
    let b = join_store(&a.location, &[&a], &[]);
    let legacy: Vec<LegacyNode> = (0..6)
        .map(|_| LegacyNode::start_store(Some(&a.location)))
        .collect();
    wait_for_rings(&[&a, &b], &legacy.iter().collect::<Vec<_>>());
    let client = StoreClient::new(a.location.clone());
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    // Longer than it takes until nodes are quiet, and until one that hears none is isolated.
    while began.elapsed() < Duration::from_secs(8) {
        let call = Instant::now();
        client.put(b"key", b"value").unwrap();
        assert_eq!(client.get(b"key").unwrap(), Some(b"value".to_vec()));
        slowest = slowest.max(call.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    print_time("the slowest put and get", slowest, Duration::from_secs(2));
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
