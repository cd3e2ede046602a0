//! Does a listing have each key exactly once and in order, whatever becomes of the nodes?

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use common::stores::Stores;
use common::{NodeProcess, SOON, ended, eventually, program, run, run_with_input};
use thrifty_p2p::bulk::tsv::{decode_key, encode};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::list::{KeyPage, ListedKey};
use thrifty_p2p::store::placement::Key;

/// Keys with the sizes of their values.
type Model = BTreeMap<Vec<u8>, u64>;

/// A sequence of pseudorandom numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit
    }

    /// Some bytes of a few, so that many keys have the same prefix.
    fn bytes(&mut self, max_length: usize) -> Vec<u8> {
        const BYTES: [u8; 6] = [0, 0xff, b'a', b'b', b'\n', 0xc3];
        let length = self.below(max_length + 1);
        (0..length)
            .map(|_| BYTES[self.below(BYTES.len())])
            .collect()
    }
}

/// Writes or deletes keys, in the store and in the model.
fn write(client: &RingClient, model: &mut Model, changes: Vec<(Vec<u8>, Option<usize>)>) {
    let values: Vec<Option<Vec<u8>>> = changes
        .iter()
        .map(|(_, size)| size.map(|size| vec![b'v'; size]))
        .collect();
    let writes = changes.iter().zip(&values);
    let writes: Vec<_> = writes
        .map(|((key, _), value)| (Key::new(key), value.as_deref()))
        .collect();
    client.write_many(&writes).unwrap();
    for (key, size) in changes {
        match size {
            Some(size) => drop(model.insert(key, size as u64)),
            None => drop(model.remove(&key)),
        }
    }
}

/// The pages of a listing, one after another.
fn pages(list: impl Fn(&[u8]) -> Result<KeyPage, Error>) -> Vec<ListedKey> {
    let (mut keys, mut cursor) = (Vec::new(), Some(Vec::new()));
    while let Some(from) = cursor {
        let page = list(&from).unwrap();
        assert!(
            page.cursor.is_none() || !page.keys.is_empty(),
            "no progress"
        );
        keys.extend(page.keys);
        cursor = page.cursor;
    }
    keys
}

/// The keys of some lines of `storelist`.
fn keys_of(lines: &[u8]) -> Vec<Vec<u8>> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    let key = |line: &[u8]| decode_key(&line[..line.len() - 1]).unwrap().into_owned();
    lines.map(key).collect()
}

#[test]
fn a_listing_has_the_keys_with_a_prefix_in_order_and_no_deleted_ones() {
    let stores = Stores::start(3, &["--replicas", "2"]);
    let ring = RingClient::connect(&stores.nodes[0].location).unwrap();
    let node = StoreClient::new(stores.nodes[1].location.clone());
    let host = ["-h", stores.nodes[2].at()];
    let (mut model, mut random) = (Model::new(), Random(0x9e37_79b9_7f4a_7c15));
    let new = (0..3000).map(|_| (random.bytes(9), Some(random.below(50))));
    let mut new: Vec<_> = new.collect();
    new.push((Vec::new(), Some(0)));
    new.push((vec![0xff; 64 * 1024], Some(1)));
    write(&ring, &mut model, new);
    let deleted: Vec<Vec<u8>> = model.keys().step_by(3).cloned().collect();
    let deleted = deleted.into_iter().map(|key| (key, None)).collect();
    write(&ring, &mut model, deleted);
    assert!(model.len() > 500);

    for round in 0..40 {
        let prefix = random.bytes(round % 4);
        let has_prefix = |(key, _): &(&Vec<u8>, &u64)| key.starts_with(&prefix);
        let expected: Vec<(&Vec<u8>, &u64)> = model.iter().filter(has_prefix).collect();
        let is_expected = |keys: &[ListedKey]| {
            let keys = keys.iter().map(|listed| (&listed.key, &listed.bytes));
            keys.eq(expected.iter().copied())
        };
        let size = 1 + expected.len() / (1 + random.below(9));
        let shown = prefix.escape_ascii();
        let by_ring = pages(|cursor| ring.list(&prefix, cursor, size));
        assert!(
            is_expected(&by_ring),
            "{shown} by {size}, with a ring client"
        );
        let by_node = pages(|cursor| node.list(&prefix, cursor, size));
        assert!(is_expected(&by_node), "{shown} by {size}, by one node");
        assert!(by_node.iter().all(|listed| listed.version > 0));
        assert_eq!(ring.count(&prefix).unwrap(), expected.len() as u64);
    }
    let printed = run("storelist", &host);
    assert_eq!(ended(&printed), (Some(0), String::new()));
    assert!(keys_of(&printed.stdout).iter().eq(model.keys()));
    let count = run("storelist", &[&host[..], &["--count"]].concat());
    assert_eq!(count.stdout, format!("{}\n", model.len()).into_bytes());
}

/// More keys than fit a message, of which a node may look at some in one call only.
#[test]
fn a_page_of_a_node_ends_before_it_is_too_large() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let ring = RingClient::connect(&node.location).unwrap();
    let client = StoreClient::new(node.location.clone());
    let (mut model, long) = (Model::new(), vec![b'l'; 60_000]);
    let short = (0..70_000).map(|number| (format!("s{number:06}").into(), Some(1)));
    write(&ring, &mut model, short.collect());
    let long = (0..100_u8).map(|number| ([&long[..], &[number]].concat(), Some(1)));
    write(&ring, &mut model, long.collect());
    let list = |prefix: &[u8]| client.list(prefix, b"", usize::MAX).unwrap();
    let short = list(b"s");
    assert_eq!(short.keys.len(), 65_536);
    assert_eq!(short.cursor.as_deref(), Some(&b"s065536"[..]));
    let long = list(b"l");
    assert!((60..100).contains(&long.keys.len()), "{}", long.keys.len());
    let all = pages(|cursor| client.list(b"", cursor, usize::MAX));
    assert!(all.iter().map(|listed| &listed.key).eq(model.keys()));
    let error = client.list(b"", b"", 0).unwrap_err().to_string();
    assert!(error.contains("a page of 0 keys; at least 1"), "{error}");
}

#[test]
fn each_key_that_is_there_all_the_while_is_listed_once_while_nodes_come_and_go() {
    let mut stores = Stores::start(4, &["--replicas", "3", "--page-delay", "20"]);
    let (at, location) = (
        stores.nodes[0].at().to_owned(),
        stores.nodes[0].location.clone(),
    );
    let ring = RingClient::connect(&location).unwrap();
    let mut model = Model::new();
    let fixed = (0..20_000).map(|number| (format!("key{number:05}").into(), Some(9)));
    write(&ring, &mut model, fixed.collect());
    let fixed: BTreeSet<Vec<u8>> = model.into_keys().collect();
    let is_over = AtomicBool::new(false);
    let check = |keys: &[Vec<u8>]| {
        assert!(
            keys.is_sorted_by(|one, next| one < next),
            "twice, or not in order"
        );
        let others = keys.iter().filter(|key| !fixed.contains(*key));
        let is_other = |key: &Vec<u8>| key.len() > 8 && fixed.contains(&key[..8]);
        assert!(others.clone().all(is_other), "a key that was never written");
        assert_eq!(keys.len() - others.count(), fixed.len(), "keys are missing");
    };
    let churn = || {
        let (mut random, mut writes) = (Random(7), 0);
        while !is_over.load(Relaxed) {
            let key = format!("key{:05} {}", random.below(20_000), random.below(9));
            match random.below(2) {
                0 => ring.put(key.as_bytes(), b"value").unwrap(),
                _ => drop(ring.delete(key.as_bytes()).unwrap()),
            }
            writes += 1;
        }
        writes
    };
    let list = || {
        let (client, mut listings) = (StoreClient::new(location.clone()), 0);
        while !is_over.load(Relaxed) {
            let printed = run("storelist", &["-h", &at]);
            let (status, stderr) = ended(&printed);
            assert_eq!(status, Some(0), "{stderr}");
            check(&keys_of(&printed.stdout));
            let listed = pages(|cursor| {
                // The network may not be settled for longer than a node waits.
                let attempt = |_| client.list(b"key", cursor, 3000).ok();
                Ok((0..12).find_map(attempt).expect("a page in two minutes"))
            });
            check(
                &listed
                    .into_iter()
                    .map(|listed| listed.key)
                    .collect::<Vec<_>>(),
            );
            listings += 1;
        }
        listings
    };
    thread::scope(|scope| {
        let (churn, list) = (scope.spawn(churn), scope.spawn(list));
        let joiner = stores.spawn_joiner();
        stores.admit(joiner);
        stores.kill(2);
        stores.settle();
        stores.interrupt(1).wait();
        let joiner = stores.spawn_joiner();
        stores.admit(joiner);
        stores.settle();
        is_over.store(true, Relaxed);
        let (writes, listings) = (churn.join().unwrap(), list.join().unwrap());
        println!("{listings} listings beside {writes} writes");
        assert!(listings > 0 && writes > 0);
    });
}

#[test]
fn a_member_that_hangs_delays_a_listing_or_makes_it_fail_and_leaves_out_no_key() {
    for (replicas, is_complete) in [("3", true), ("1", false)] {
        let stores = Stores::start(3, &["--replicas", replicas]);
        let host = ["-h", stores.nodes[0].at()];
        let pairs: String = (0..900)
            .map(|number| format!("key{number:03}\tv\n"))
            .collect();
        let loaded = run_with_input("storeload", &host, pairs.as_bytes());
        assert!(loaded.status.success());
        stores.nodes[2].signal("STOP");
        let soon = run("storelist", &[&host[..], &["--timeout", "1"]].concat());
        assert_eq!(ended(&soon), (Some(4), "not done after 1s\n".into()));
        assert_eq!(soon.stdout, b"");
        let printed = run("storelist", &host);
        let (status, stderr) = ended(&printed);
        let client = StoreClient::new(stores.nodes[1].location.clone());
        if is_complete {
            assert_eq!(
                (status, keys_of(&printed.stdout).len()),
                (Some(0), 900),
                "{stderr}"
            );
            assert_eq!(client.list(b"", b"", 1000).unwrap().keys.len(), 900);
        } else {
            let reason = "keys may be on the other side of a split, at 1 member out of reach";
            assert_eq!(
                (status, &printed.stdout[..]),
                (Some(4), &b""[..]),
                "{stderr}"
            );
            assert!(stderr.contains(reason), "{stderr}");
            let refused = client.list(b"", b"", 1000).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        stores.nodes[2].signal("CONT");
        eventually("all keys are listed again", SOON, || {
            client
                .list(b"", b"", 1000)
                .is_ok_and(|page| page.keys.len() == 900)
        });
    }
}

#[test]
fn keys_are_escaped_and_printed_with_sizes_and_versions_or_as_json() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    let mut lines = Vec::new();
    encode(b"a\tb", b"value", &mut lines);
    encode(b"a\xff", b"", &mut lines);
    encode("caf\u{e9}".as_bytes(), b"v", &mut lines);
    assert!(run_with_input("storeload", &host, &lines).status.success());
    let list = |arguments: &[&str]| {
        let printed = run("storelist", &[&host[..], arguments].concat());
        assert_eq!(ended(&printed), (Some(0), String::new()));
        String::from_utf8(printed.stdout).unwrap()
    };
    assert_eq!(list(&[]), "a\\tb\na\\xff\ncaf\u{e9}\n");
    assert_eq!(list(&["c"]), "caf\u{e9}\n");
    assert_eq!(
        (list(&["none"]), list(&["none", "--count"])),
        (String::new(), "0\n".into())
    );
    let long = list(&["a", "--long"]);
    let columns: Vec<Vec<&str>> = long
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(
        [&columns[0][..2], &columns[1][..2]],
        [["a\\tb", "5"], ["a\\xff", "0"]]
    );
    let version = columns[1][2];
    assert!(version.parse::<i64>().unwrap() > 0);
    let json = list(&["--json", "a"]);
    let expected = format!(r#"{{"bytes":0,"key":"a\\xff","version":"{version}"}}"#);
    assert_eq!(json.lines().nth(1), Some(&expected[..]));
    assert_eq!(
        run("storelist", &[&host[..], &["--count", "--long"]].concat())
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_listing_into_a_pipe_that_is_closed_early_succeeds() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let pairs: String = (0..20_000)
        .map(|number| format!("key{number:05}\tv\n"))
        .collect();
    let loaded = run_with_input("storeload", &["-h", node.at()], pairs.as_bytes());
    assert!(loaded.status.success());
    let mut list = Command::new(program("storelist"));
    list.args(["-h", node.at()]);
    let list = list.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut list = list.spawn().unwrap();
    let mut first = [0; 9];
    list.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"key00000\n");
    assert_eq!(
        ended(&list.wait_with_output().unwrap()),
        (Some(0), String::new())
    );
}
