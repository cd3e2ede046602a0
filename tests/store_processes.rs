//! Does a store of real processes keep what it has acknowledged, whatever happens to
//! them, while every answer is looked at?
//!
//! `STORE_LONG=1` runs as many rounds as it takes to find what is rare, and holds
//! the stalls to what is promised; without it, a few rounds are run, and stalls are
//! held to what a loaded machine can be asked for. Figures are told on stderr
//! (`--nocapture`).

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::checker::{AnyNode, DELETES, Keeps, Load, Report};
use common::network::free_port;
use common::stores::{SETTLED, Stores, stats, is_copying};
use common::{NodeProcess, SOON, eventually, example};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{KeyValue, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, call};
use thrifty_p2p::status::store::StoreStatus;

/// One network at a time: a machine that is busy with others stalls too.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_long() -> bool {
    std::env::var_os("STORE_LONG").is_some()
}

/// How often something is done: `few` times, or `many` in the long run.
fn rounds(few: usize, many: usize) -> usize {
    if is_long() { many } else { few }
}

/// The longest that a call may take, of which the long run grants no more than is promised.
fn bound(promised: Duration) -> Duration {
    if is_long() {
        promised
    } else {
        promised + Duration::from_secs(3)
    }
}

/// Of the promises: the longest stall of a read and of a write after a node is killed.
const READ_STALL: Duration = Duration::from_millis(100);
const WRITE_STALL: Duration = Duration::from_secs(1);

/// The longest stall of either after a node hangs.
const HANG_STALL: Duration = Duration::from_secs(5);

/// A load of so many writers, and as many readers, on any of the nodes.
fn load(stores: &Stores, writers: usize) -> Load {
    Load::start("key", writers, writers, connector(stores))
}

/// Clients that begin with one node after the other.
fn connector(stores: &Stores) -> impl Fn() -> AnyNode {
    let open = stores.open.clone();
    let choice = std::cell::Cell::new(0);
    move || {
        choice.set(choice.get() + 1);
        AnyNode::new(open.clone(), choice.get())
    }
}

/// Lets the load run until so many more reads and writes were answered.
fn run_for_a_while(load: &Load) {
    let before = load.report();
    eventually("the load goes on", SOON, || {
        let now = load.report();
        now.reads > before.reads + 200 && now.writes > before.writes + 200
    });
}

fn finish(what: &str, load: Load, stores: &Stores) -> Report {
    let report = load.finish(stores.clients());
    eprintln!(
        "{what}: {} reads, {} writes, {} failed, {} missing, {} stale",
        report.reads, report.writes, report.failed, report.missing, report.stale
    );
    assert!(report.is_clean(), "{what}: {report:#?}");
    report
}

/// Tells the longest stalls since they were reset, and holds them to their bounds.
fn judge_stalls(what: &str, load: &Load, read: Duration, write: Duration) {
    let (longest_read, longest_write) = load.reset_stalls();
    eprintln!(
        "{what}: longest read {:.0} ms, longest write {:.0} ms",
        longest_read.as_secs_f64() * 1e3,
        longest_write.as_secs_f64() * 1e3
    );
    assert!(
        longest_read <= bound(read),
        "{what}: a read took {longest_read:?}"
    );
    assert!(
        longest_write <= bound(write),
        "{what}: a write took {longest_write:?}"
    );
}

#[test]
fn nodes_killed_one_by_one_lose_no_acknowledged_write() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    let load = load(&stores, 4);
    run_for_a_while(&load);
    judge_stalls("at rest", &load, READ_STALL, WRITE_STALL);
    for round in 1..=rounds(3, 100) {
        let gone = stores.kill(round * 7 % 5);
        let settled = stores.settle();
        run_for_a_while(&load);
        let what = format!("kill {round}, settled after {settled:.1?}");
        judge_stalls(&what, &load, READ_STALL, WRITE_STALL);
        stores.restart(&gone);
        stores.settle();
        run_for_a_while(&load);
        let what = format!("restart {round}");
        judge_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("kills", load, &stores);
}

#[test]
fn two_nodes_killed_at_once_lose_no_acknowledged_write() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    let load = load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        run_for_a_while(&load);
        load.reset_stalls();
        let (gone, between) = stores.kill_two(round * 7 % 5, round * 3);
        assert!(
            between < Duration::from_millis(10),
            "{between:?} between two kills"
        );
        stores.settle();
        run_for_a_while(&load);
        let what = format!("double kill {round}");
        judge_stalls(&what, &load, READ_STALL, 2 * WRITE_STALL);
        gone.iter().for_each(|node| stores.restart(node));
        stores.settle();
    }
    finish("double kills", load, &stores);
}

/// Values of some size that are there before anything moves, so that a move has pages.
const BULK: usize = 60;

fn bulk_key(index: usize) -> Vec<u8> {
    format!("bulk {index}").into_bytes()
}

fn bulk_value(index: usize) -> Vec<u8> {
    bytes(256 * 1024, index as u8)
}

fn put_bulk(stores: &Stores) {
    let client = &stores.clients()[0];
    for index in 0..BULK {
        client.put(&bulk_key(index), &bulk_value(index)).unwrap();
    }
}

fn bulk_is_there(stores: &Stores) {
    for client in stores.clients() {
        for index in 0..BULK {
            let found = client.get(&bulk_key(index)).unwrap();
            assert!(
                found == Some(bulk_value(index)),
                "bulk value {index} is not what it was"
            );
        }
    }
}

/// A store whose moves take long enough to be met in their middle.
fn slow_stores() -> Stores {
    let stores = Stores::start(5, &["--replicas", "3", "--slow-moves", "150"]);
    put_bulk(&stores);
    stores
}

/// Starts a store and waits until it is in the middle of copying.
fn copying_joiner(stores: &Stores) -> NodeProcess {
    let mut joiner = stores.spawn_joiner();
    joiner.wait_until_it_serves();
    eventually("the joiner copies", SOON, || is_copying(&joiner.location));
    joiner
}

#[test]
fn a_joiner_killed_while_it_copies_costs_nothing() {
    let _machine = machine();
    let stores = slow_stores();
    let load = load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        let mut joiner = copying_joiner(&stores);
        joiner.kill();
        run_for_a_while(&load);
        stores.settle();
        let what = format!("joiner {round} killed");
        judge_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("joiners killed", load, &stores);
    bulk_is_there(&stores);
}

#[test]
fn a_source_killed_while_it_is_copied_from_costs_nothing() {
    let _machine = machine();
    let mut stores = slow_stores();
    let load = load(&stores, 4);
    for round in 1..=rounds(2, 50) {
        let joiner = copying_joiner(&stores);
        stores.kill(round * 7 % 5);
        run_for_a_while(&load);
        stores.admit(joiner);
        stores.settle();
        let what = format!("source {round} killed");
        judge_stalls(&what, &load, READ_STALL, WRITE_STALL);
    }
    finish("sources killed", load, &stores);
    bulk_is_there(&stores);
}

#[test]
fn joins_and_leaves_under_load_fail_no_call() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    put_bulk(&stores);
    let load = load(&stores, 4);
    for round in 1..=rounds(2, 20) {
        run_for_a_while(&load);
        let joiner = stores.spawn_joiner();
        stores.admit(joiner);
        run_for_a_while(&load);
        stores.settle();
        judge_stalls(&format!("join {round}"), &load, WRITE_STALL, WRITE_STALL);
        let mut leaver = stores.send_away(round * 7 % 5);
        run_for_a_while(&load);
        assert!(leaver.wait().success());
        leaver.wait_for("done.");
        stores.settle();
        judge_stalls(&format!("leave {round}"), &load, WRITE_STALL, WRITE_STALL);
    }
    finish("joins and leaves", load, &stores);
    bulk_is_there(&stores);
}

#[test]
fn two_nodes_that_leave_at_once_lose_nothing() {
    let _machine = machine();
    let mut stores = Stores::start(5, &["--replicas", "3"]);
    put_bulk(&stores);
    let load = load(&stores, 4);
    for round in 1..=rounds(1, 20) {
        run_for_a_while(&load);
        let mut leavers = [stores.send_away(round * 7 % 5), stores.send_away(round % 4)];
        run_for_a_while(&load);
        for leaver in &mut leavers {
            assert!(leaver.wait().success());
        }
        stores.settle();
        bulk_is_there(&stores);
        leavers.iter().for_each(|node| stores.restart(node));
        stores.settle();
    }
    finish("double leaves", load, &stores);
}

#[test]
fn a_node_that_hung_gives_no_stale_answer_when_it_returns() {
    let _machine = machine();
    let stores = Stores::start(5, &["--replicas", "3"]);
    let load = load(&stores, 4);
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

/// Stops a node for so long, and reads there all the while that it comes back.
fn hang(stores: &Stores, load: &Load, round: usize, pause: Duration) {
    let node = &stores.nodes[round * 7 % 5];
    let at_any = &stores.clients()[0];
    let its = |number: &usize| at_any.owner(&load.key(*number)).unwrap() == node.location;
    let its: Vec<usize> = (0..load.keys()).filter(its).collect();
    eventually("nobody calls the node", SOON, || {
        !stores.open.avoid(&node.location)
    });
    load.reset_stalls();
    let written = |number: &usize| load.acknowledged(*number);
    let before: Vec<u64> = its.iter().map(written).collect();
    node.signal("STOP");
    let stopped = Instant::now();
    // Requests that wait in its sockets are answered first of all when it goes on.
    let overtaken = || {
        its.iter()
            .zip(&before)
            .any(|(number, before)| load.acknowledged(*number) > before + 1)
    };
    while stopped.elapsed() < pause.mul_f64(0.9) && !overtaken() {
        thread::sleep(Duration::from_millis(5));
    }
    let goes_on = Mutex::new(None);
    thread::scope(|scope| {
        for reader in 0..8 {
            let (its, goes_on) = (&its, &goes_on);
            scope.spawn(move || {
                let mut client = StoreClient::new(node.location.clone());
                let since = || goes_on.lock().unwrap().map(|at: Instant| at.elapsed());
                let mut turn = reader;
                while since().is_none_or(|time| time < Duration::from_secs(3)) {
                    turn += 1;
                    // It may refuse until it knows that the others have it in view.
                    let _ = load.check_at(its[turn % its.len()], &mut client);
                }
            });
        }
        thread::sleep(pause.saturating_sub(stopped.elapsed()));
        node.signal("CONT");
        *goes_on.lock().unwrap() = Some(Instant::now());
    });
    stores.settle();
    let what = format!("a hang of {pause:?}");
    judge_stalls(&what, load, HANG_STALL, HANG_STALL);
    stores.open.add(node.location.clone());
}

/// Bytes of every kind, so many of them.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn keys_and_values_of_every_length_come_back_equal_and_deleted_ones_stay_deleted() {
    const MIB: usize = 1024 * 1024;
    let _machine = machine();
    let mut stores = Stores::start(3, &["--replicas", "2"]);
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = [
        0,
        1,
        7,
        65_535,
        MIB - 1,
        MIB,
        MIB + 1,
        16 * MIB - 1,
        16 * MIB,
    ]
    .iter()
    .enumerate()
    .map(|(index, length)| (bytes(5, index as u8), bytes(*length, index as u8)))
    .collect();
    pairs.push((Vec::new(), b"of the empty key".to_vec()));
    pairs.push((vec![0], vec![0xff, 0, 0xfe]));
    pairs.push((bytes(64 * 1024, 9), b"of the longest key".to_vec()));
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
    let all_as_written = |stores: &Stores, when: &str| {
        for client in stores.clients() {
            for (key, value) in &pairs {
                let found = client
                    .get(key)
                    .unwrap()
                    .map(|found| (found.len(), found == *value));
                let of = format!(
                    "key of {} and value of {} bytes {when}",
                    key.len(),
                    value.len()
                );
                assert_eq!(found, Some((value.len(), true)), "{of}");
            }
            let back = deleted
                .iter()
                .filter(|key| client.get(key).unwrap().is_some())
                .count();
            assert_eq!(back, 0, "deleted keys are back {when}");
        }
    };
    all_as_written(&stores, "at first");
    let joiner = stores.spawn_joiner();
    stores.admit(joiner);
    stores.settle();
    all_as_written(&stores, "after a join");
    assert!(stores.send_away(0).wait().success());
    stores.settle();
    all_as_written(&stores, "after a leave");
    let gone = stores.kill(1);
    stores.settle();
    all_as_written(&stores, "after a crash");
    stores.restart(&gone);
    stores.settle();
    all_as_written(&stores, "after a restart");
    let status = StoreStatus::ask(&Dialer::default(), &stores.nodes[0].location).unwrap();
    assert_eq!(status.keys(), pairs.len() as u64);
}

/// The sentence by which a write was refused.
fn refusal<T: std::fmt::Debug>(outcome: Result<T, thrifty_p2p::error::Error>) -> String {
    outcome.expect_err("this is to be refused").to_string()
}

#[test]
fn what_is_beyond_a_limit_is_refused_with_a_sentence_and_nothing_is_lost() {
    let _machine = machine();
    let stores = Stores::start(1, &["--max-value", "1000", "--max-memory", "20000"]);
    let client = &stores.clients()[0];
    client.put(b"key", &[1; 1000]).unwrap();
    let said = refusal(client.put(b"key", &[2; 1001]));
    assert!(
        said.contains("a value of 1001 bytes; 1000 are taken"),
        "{said}"
    );
    let said = refusal(client.put(&[3; 65_537], b"value"));
    assert!(
        said.contains("a key of 65537 bytes; 65536 are taken"),
        "{said}"
    );
    let mut taken = 0;
    let said = loop {
        match client.put(format!("more {taken}").as_bytes(), &[4; 1000]) {
            Ok(()) => taken += 1,
            Err(e) => break e.to_string(),
        }
        assert!(taken < 20, "memory has no end");
    };
    assert!(
        said.contains("the memory for keys and values is full"),
        "{said}"
    );
    assert_eq!(client.get(b"key").unwrap(), Some(vec![1; 1000]));
    for index in 0..taken {
        let found = client.get(format!("more {index}").as_bytes()).unwrap();
        assert_eq!(found, Some(vec![4; 1000]));
    }
    // A full store still lets go of what it holds, and then has room again.
    client
        .put(b"key", &[5; 1000])
        .expect("a value of the same length takes no more room");
    assert!(client.delete(b"key").unwrap());
    client.put(b"another", &[6; 900]).unwrap();
}

/// Writes these in one call to that node, which leaves it to each key's primary.
fn write_in_one_call(
    at: &Location,
    pairs: &[(&[u8], Option<&[u8]>)],
) -> Result<Vec<bool>, thrifty_p2p::error::Error> {
    let pair = |(key, value): &(&[u8], Option<&[u8]>)| {
        KeyValue::new(key.to_vec(), value.map(<[u8]>::to_vec), 0)
    };
    let pairs = || pairs.iter().map(pair).collect();
    let written = call(StoreSyncClient::new, at, |node| node.write_many(pairs()))?;
    Ok(written
        .iter()
        .map(|one| one.existed == Some(true))
        .collect())
}

#[test]
fn pairs_of_one_call_take_effect_in_their_order() {
    let _machine = machine();
    let stores = Stores::start(2, &[]);
    let client = &stores.clients()[0];
    for node in &stores.nodes {
        let (put, other, delete): (_, _, Option<&[u8]>) = (Some(&b"1"[..]), Some(&b"2"[..]), None);
        let pairs: [(&[u8], _); 7] = [
            (b"gone", put),
            (b"stays", delete),
            (b"gone", delete),
            (b"stays", put),
            (b"gone", delete),
            (b"stays", other),
            (b"beside", put),
        ];
        let existed = write_in_one_call(&node.location, &pairs).unwrap();
        assert_eq!(existed, [false, false, true, false, false, true, false]);
        assert_eq!(client.get(b"gone").unwrap(), None);
        assert_eq!(client.get(b"stays").unwrap().unwrap(), b"2");
        let away = [(&b"stays"[..], delete), (b"beside", delete)];
        assert_eq!(
            write_in_one_call(&node.location, &away).unwrap(),
            [true, true]
        );
    }
}

#[test]
fn pairs_of_one_call_have_room_together_or_are_refused() {
    let _machine = machine();
    let stores = Stores::start(1, &["--max-memory", "20000"]);
    let (at, value) = (&stores.nodes[0].location, vec![1; 1000]);
    let keys: Vec<String> = (0..30).map(|number| format!("key {number}")).collect();
    let pair = |key| (str::as_bytes(key), Some(&value[..]));
    let pairs: Vec<_> = keys.iter().map(|key| pair(key)).collect();
    let said = refusal(write_in_one_call(at, &pairs));
    assert!(
        said.contains("memory for keys and values is full"),
        "{said}"
    );
    assert_eq!(stats(at).unwrap().keys, Some(0));
    write_in_one_call(at, &pairs[..10]).unwrap();
}

#[test]
fn a_value_that_another_owner_has_no_room_for_is_refused_and_the_old_one_stays() {
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
            let said = refusal(client.put(&key, &[1; 5000]));
            assert!(
                said.contains("the memory for keys and values is full"),
                "{said}"
            );
            assert_eq!(client.get(&key).unwrap(), Some(b"old".to_vec()));
        }
    }
}

#[test]
fn a_joiner_with_another_number_of_copies_is_refused() {
    let _machine = machine();
    let stores = Stores::start(2, &["--replicas", "2"]);
    let peer = stores.nodes[0].at();
    let arguments = ["--port", "0", "--host", peer, "--replicas", "3"];
    let mut joiner = NodeProcess::spawn("storeserver", &arguments);
    assert_eq!(joiner.wait().code(), Some(2));
    joiner.wait_for("keeps 2 copies of each key, not 3");
    stores.settle();
}

/// Puts so many keys by the first node.
fn put_few(stores: &Stores, count: usize) {
    let client = &stores.clients()[0];
    let keys = (0..count).map(|index| format!("key {index}").into_bytes());
    keys.for_each(|key| client.put(&key, b"value").unwrap());
}

#[test]
fn the_last_node_says_how_many_keys_end_with_it() {
    let _machine = machine();
    let mut stores = Stores::start(2, &[]);
    put_few(&stores, 17);
    assert!(stores.send_away(0).wait().success());
    stores.settle();
    let mut last = stores.send_away(0);
    assert!(last.wait().success());
    last.wait_for("17 keys end with it");
}

/// A node that hands its keys over when the only other one is killed; the location of that.
fn forsaken_leaver() -> (Stores, NodeProcess, Location) {
    let mut stores = Stores::start(2, &["--replicas", "1", "--slow-moves", "2000"]);
    put_few(&stores, 100);
    let leaver = stores.nodes.remove(1);
    leaver.signal("INT");
    leaver.wait_for("handing over");
    let heir = stores.kill(0).location.clone();
    (stores, leaver, heir)
}

#[test]
fn a_node_that_leaves_says_what_ends_with_it_when_its_heir_is_killed_meanwhile() {
    let _machine = machine();
    let (_, mut leaver, _) = forsaken_leaver();
    assert!(leaver.wait().success());
    leaver.wait_for("keys end with it");
}

#[test]
fn a_node_is_told_that_the_only_one_it_could_join_by_is_leaving() {
    let _machine = machine();
    let (stores, mut leaver, heir) = forsaken_leaver();
    leaver.wait_for(&format!("removed {heir}"));
    let mut comer = stores.spawn("0", leaver.at());
    assert_eq!(comer.wait().code(), Some(3));
    comer.wait_for(&format!("{} is leaving its network", leaver.location));
    assert!(leaver.wait().success());
    leaver.wait_for("keys end with it");
}

#[test]
fn a_second_signal_ends_a_node_at_once_and_says_what_is_at_risk() {
    let _machine = machine();
    for signal in ["INT", "TERM"] {
        let mut stores = Stores::start(2, &["--replicas", "1", "--slow-moves", "2000"]);
        put_few(&stores, 100);
        let keys = stats(&stores.nodes[0].location).unwrap().keys.unwrap();
        let mut leaver = stores.send_away(0);
        leaver.wait_for("once more to end at once");
        eventually("the leaver is off the ring", SOON, || {
            let owner = StoreClient::new(stores.nodes[0].location.clone()).owner(b"any");
            owner.is_ok_and(|owner| owner != leaver.location)
        });
        leaver.signal(signal);
        assert_eq!(leaver.wait().code(), Some(130));
        leaver.wait_for(&format!(
            "ended at once: the {keys} keys here have no other copy"
        ));
    }
}

#[test]
fn a_store_of_one_copy_has_each_key_where_the_ring_says() {
    let _machine = machine();
    for size in [1, 4] {
        let stores = Stores::start(size, &["--replicas", "1"]);
        let client = &stores.clients()[size - 1];
        let keys: Vec<Vec<u8>> = (0..300).map(|i| format!("key {i}").into_bytes()).collect();
        keys.iter()
            .for_each(|key| client.put(key, b"value").unwrap());
        let owners: Vec<Location> = keys.iter().map(|key| client.owner(key).unwrap()).collect();
        for node in &stores.nodes {
            let its = owners
                .iter()
                .filter(|owner| **owner == node.location)
                .count() as i64;
            let held = stats(&node.location).unwrap();
            assert_eq!(
                (held.keys, held.primary_keys),
                (Some(its), Some(its)),
                "{}",
                node.at()
            );
        }
    }
}

#[test]
fn two_stores_started_at_the_same_instant_become_one() {
    let _machine = machine();
    for _ in 0..rounds(2, 20) {
        let port = free_port().to_string();
        let peer = format!("127.0.0.1:{port}");
        let start =
            |port: &str| NodeProcess::spawn("storeserver", &["--port", port, "--host", &peer]);
        let mut nodes = [start("0"), start(&port)];
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        let clients = nodes
            .each_ref()
            .map(|node| StoreClient::new(node.location.clone()));
        clients[0].put(b"key", b"value").unwrap();
        assert_eq!(clients[1].get(b"key").unwrap(), Some(b"value".to_vec()));
        eventually("both are one store", SETTLED, || {
            let status = StoreStatus::ask(&Dialer::default(), &nodes[0].location).unwrap();
            status.is_settled() && status.nodes.len() == 2
        });
    }
}

/// Keeps everything in one map for all its clients, and lies when told to.
#[derive(Clone)]
struct Liar {
    held: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    lie: Lie,
    calls: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// A write in ten is acknowledged and not kept.
    Forgets,
    /// A read in ten finds nothing.
    Misses,
    /// No deletion is carried out.
    KeepsDeleted,
    /// A call in ten is refused.
    Refuses,
}

impl Liar {
    /// Is it this lie's turn?
    fn lies(&mut self, lie: Lie) -> bool {
        self.calls += 1;
        self.lie == lie && (lie == Lie::KeepsDeleted || self.calls.is_multiple_of(10))
    }
}

impl Keeps for Liar {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = self.held.lock().unwrap().get(key).cloned();
        Ok(found.filter(|_| !self.lies(Lie::Misses)))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        if self.lies(Lie::Refuses) {
            return Err("refused".into());
        }
        if self.lies(Lie::Forgets) {
            return Ok(());
        }
        match value {
            Some(value) => drop(
                self.held
                    .lock()
                    .unwrap()
                    .insert(key.to_vec(), value.to_vec()),
            ),
            None if self.lies(Lie::KeepsDeleted) => (),
            None => drop(self.held.lock().unwrap().remove(key)),
        }
        Ok(())
    }
}

fn report_of(lie: Lie) -> Report {
    let liar = Liar {
        held: Arc::default(),
        lie,
        calls: 0,
    };
    let load = Load::start("key", 2, 2, || liar.clone());
    let enough = 2 * 25 * 2 * DELETES;
    eventually("the load goes on", SOON, || load.report().writes > enough);
    load.finish([liar])
}

#[test]
fn the_checker_believes_an_honest_store_and_finds_every_lie() {
    let honest = report_of(Lie::None);
    assert!(honest.is_clean(), "{honest:#?}");
    assert!(
        report_of(Lie::Forgets).stale > 0,
        "a lost write was not noticed"
    );
    assert!(
        report_of(Lie::Misses).missing > 0,
        "a missing key was not noticed"
    );
    assert!(
        report_of(Lie::KeepsDeleted).stale > 0,
        "a deleted key was not missed"
    );
    assert!(
        report_of(Lie::Refuses).failed > 0,
        "a refusal was not counted"
    );
}

#[test]
fn the_example_of_a_checked_load_sees_no_loss_while_a_node_is_killed() {
    let _machine = machine();
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let mut example = Command::new(example("consistency"))
        .args([stores.nodes[0].at(), "--seconds", "4"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(example.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    // The second line is of clients that know all nodes.
    let second = lines.nth(1).unwrap();
    assert!(second.ends_with("4 nodes, settled"), "{second}");
    stores.kill(2);
    let last = lines.last().unwrap();
    assert!(last.contains(" 0 failed, 0 lost, "), "{last}");
    assert!(last.ends_with("3 nodes, settled"), "{last}");
    assert!(example.wait().unwrap().success());
}
