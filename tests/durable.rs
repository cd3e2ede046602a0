//! Do nodes with a data directory come back with what was acknowledged, and with nothing else?
//!
//! With `STORE_LONG=1` there are many more rounds.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::checker::{CallError, KeyValueStore, Workload};
use common::load::{machine, rounds, run_for_a_while};
use common::network::free_port;
use common::stores::{SETTLE_TIMEOUT, settle, stats};
use common::{NodeProcess, SOON, ended, eventually, run};
use parking_lot::Mutex;
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::location::Location;
use thrifty_p2p::store::durable::engine::{Engine, Fjall, MEMTABLE, SyncMode};
use thrifty_p2p::store::durable::row::{Change, Stored};
use thrifty_p2p::store::placement::Key;
use thrifty_p2p::store::versions::Entry;

/// Nodes with data directories. A node that has ended is None.
struct Durable {
    directory: tempfile::TempDir,
    ports: Vec<u16>,
    nodes: Vec<Option<NodeProcess>>,
}

impl Durable {
    /// Starts a network, and waits until it is settled.
    fn start(size: usize) -> Durable {
        let ports = (0..size).map(|_| free_port()).collect();
        let directory = tempfile::tempdir().unwrap();
        let nodes = (0..size).map(|_| None).collect();
        let mut stores = Durable {
            directory,
            ports,
            nodes,
        };
        stores.spawn(0, &["--bootstrap"]);
        let first = stores.node(0).at().to_owned();
        for index in 1..size {
            stores.spawn(index, &["--host", &first]);
        }
        stores.settle();
        stores
    }

    fn data(&self, index: usize) -> PathBuf {
        self.directory.path().join(index.to_string())
    }

    /// Starts a node, and waits until it serves calls.
    fn spawn(&mut self, index: usize, options: &[&str]) {
        let (port, data) = (self.ports[index].to_string(), self.data(index));
        let data = data.to_str().unwrap();
        let mut arguments = vec!["--advertise", "127.0.0.1", "--port", &port, "--data", data];
        arguments.extend(options);
        let mut node = NodeProcess::spawn("storeserver", &arguments);
        node.wait_until_it_serves();
        self.nodes[index] = Some(node);
    }

    fn node(&self, index: usize) -> &NodeProcess {
        self.nodes[index].as_ref().expect("a node that runs")
    }

    fn client(&self, index: usize) -> StoreClient {
        StoreClient::new(self.node(index).location.clone())
    }

    fn kill(&mut self, index: usize) {
        self.nodes[index].take().expect("a node that runs").kill();
    }

    fn kill_all(&mut self) {
        self.nodes
            .iter_mut()
            .flatten()
            .for_each(NodeProcess::send_kill);
        self.nodes.iter_mut().for_each(|node| drop(node.take()));
    }

    fn settle(&self) {
        settle(self.nodes.iter().flatten());
    }

    /// Keys received since the node was started, by its log.
    fn received(&self, index: usize) -> usize {
        let lines = self.node(index).lines();
        let counts = lines
            .iter()
            .filter_map(|line| line.split_once("rebalance: received "));
        let counts = counts.filter_map(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        counts.sum()
    }
}

/// A client that turns to another node after a failure, which does not count.
struct Patient {
    nodes: Arc<Mutex<Vec<Location>>>,
    at: usize,
    client: Option<StoreClient>,
}

impl Patient {
    fn call<T, E: ToString>(
        &mut self,
        call: impl Fn(&StoreClient) -> Result<T, E>,
    ) -> Result<T, CallError> {
        let nodes = self.nodes.lock().clone();
        let node = nodes[self.at % nodes.len()].clone();
        let client = self.client.get_or_insert_with(|| StoreClient::new(node));
        call(client).map_err(|e| {
            self.at += 1;
            self.client = None;
            std::thread::sleep(Duration::from_millis(10));
            CallError {
                is_expected: true,
                ..CallError::new(e)
            }
        })
    }
}

impl KeyValueStore for Patient {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        self.call(|client| client.get(key))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError> {
        self.call(|client| match value {
            Some(value) => client.put(key, value).map(drop),
            None => client.delete(key).map(drop),
        })
    }
}

fn start_load(stores: &Durable, writers: usize) -> Workload {
    let nodes = stores
        .nodes
        .iter()
        .flatten()
        .map(|node| node.location.clone());
    let nodes = Arc::new(Mutex::new(nodes.collect::<Vec<_>>()));
    let next = std::cell::Cell::new(0);
    Workload::start("key", writers, writers, || {
        next.set(next.get() + 1);
        Patient {
            nodes: nodes.clone(),
            at: next.get(),
            client: None,
        }
    })
}

fn put(client: &StoreClient, key: &str, value: &str) {
    client.put(key.as_bytes(), value.as_bytes()).unwrap();
}

fn value(client: &StoreClient, key: &str) -> Option<String> {
    let value = client.get(key.as_bytes()).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn nodes_that_are_all_killed_at_once_have_all_that_was_acknowledged() {
    let _machine = machine();
    let mut stores = Durable::start(5);
    let load = start_load(&stores, 4);
    for round in 0..rounds(2, 50) {
        run_for_a_while(&load);
        stores.kill_all();
        for nth in 0..5 {
            stores.spawn((nth * (1 + round % 4) + round) % 5, &[]);
        }
        stores.settle();
    }
    run_for_a_while(&load);
    let clients: Vec<Patient> = (0..5)
        .map(|at| Patient {
            nodes: Arc::new(Mutex::new(vec![stores.node(at).location.clone()])),
            at,
            client: None,
        })
        .collect();
    let report = load.finish(clients);
    let (reads, writes, failed) = (report.reads, report.writes, report.failed);
    eprintln!("{reads} reads, {writes} writes, {failed} failed");
    assert!(report.is_clean(), "{}", report.problems.join("\n"));
}

#[test]
fn a_node_that_returns_copies_only_what_has_changed() {
    let _machine = machine();
    let mut stores = Durable::start(4);
    let client = stores.client(0);
    for key in 0..500 {
        put(&client, &format!("key {key}"), "old");
    }
    stores.settle();
    let held = stats(&stores.node(3).location).unwrap().keys.unwrap();
    assert!(held > 200, "{held} keys");
    stores.kill(3);
    for key in 0..10 {
        put(&client, &format!("key {key}"), "new");
        client
            .delete(format!("key {}", 10 + key).as_bytes())
            .unwrap();
    }
    stores.settle();
    stores.spawn(3, &[]);
    stores.settle();
    let (received, returned) = (stores.received(3), stores.client(3));
    assert!(received <= 20, "{received} keys were copied");
    for key in 0..30 {
        let expected = ["new", "", "old"][key / 10];
        let found = value(&returned, &format!("key {key}")).unwrap_or_default();
        assert_eq!(found, expected, "key {key}");
    }
}

#[test]
fn a_key_that_the_network_has_forgotten_does_not_come_back() {
    let _machine = machine();
    let mut stores = Durable::start(3);
    put(&stores.client(0), "key", "value");
    stores.kill(2);
    // As a node would have it that was away when the key was deleted, for longer than the deletion
    // is remembered.
    let add = |data: &Path| {
        let engine = Fjall::open(&data.join("rows"), SyncMode::Always, MEMTABLE).unwrap();
        let entry = Entry {
            version: 1 << 60,
            value: Some(b"old".to_vec().into()),
        };
        engine
            .append(vec![Change::write(Key::new(b"forgotten"), &entry, None)])
            .unwrap();
        engine.sync().unwrap();
    };
    add(&stores.data(2));
    stores.settle();
    stores.spawn(2, &[]);
    stores.settle();
    for index in 0..3 {
        assert_eq!(value(&stores.client(index), "forgotten"), None);
        assert_eq!(
            value(&stores.client(index), "key").as_deref(),
            Some("value")
        );
    }
    stores.kill_all();
    (0..3).for_each(|index| stores.spawn(index, &[]));
    stores.settle();
    assert_eq!(
        value(&stores.client(2), "forgotten"),
        None,
        "it is still on the disk"
    );
}

#[test]
fn a_network_waits_for_the_members_without_which_keys_may_be_missing() {
    let _machine = machine();
    let mut stores = Durable::start(5);
    for key in 0..100 {
        put(&stores.client(0), &format!("key {key}"), "value");
    }
    stores.kill_all();
    stores.spawn(0, &[]);
    stores.spawn(3, &[]);
    let missing = format!("127.0.0.1:{}", stores.ports[4]);
    eventually("the missing member is named", SETTLE_TIMEOUT, || {
        let mut lines = stores.node(0).lines().into_iter();
        lines.any(|line| line.contains("waits for more") && line.contains(&missing))
    });
    let refused = stores.client(3).get(b"key 1").unwrap_err().to_string();
    assert!(
        refused.contains("waits for more of its members"),
        "{refused}"
    );
    let status = run("storestatus", &["-h", stores.node(0).at()]);
    let table = String::from_utf8_lossy(&status.stdout);
    let waiting = table.lines().filter(|line| line.contains("  waiting  "));
    assert_eq!(waiting.count(), 2, "{table}");
    let verdict = table.lines().last().unwrap();
    assert!(
        verdict.starts_with("waiting to start again from the disks: start 127.0.0.1:")
            && verdict.contains(&missing),
        "{verdict}"
    );
    let says = |text| stores.node(0).says(text);
    assert!(says("Returning to the network diststore.Store/") && !says("Initiating"));
    // Two of five are missing for good.
    stores.spawn(2, &[]);
    stores.settle();
    for key in 0..100 {
        let found = value(&stores.client(3), &format!("key {key}"));
        assert_eq!(found.as_deref(), Some("value"));
    }
    stores.kill_all();
    stores.spawn(2, &["--force-bootstrap"]);
    stores.settle();
    let found = (0..100).filter(|key| value(&stores.client(2), &format!("key {key}")).is_some());
    assert!(found.count() > 90, "three nodes had all keys");
}

#[test]
fn a_node_that_died_before_the_others_waits_for_them() {
    let _machine = machine();
    let mut stores = Durable::start(2);
    put(&stores.client(0), "key", "old");
    stores.kill(1);
    stores.settle();
    put(&stores.client(0), "key", "new");
    stores.kill(0);
    stores.spawn(1, &[]);
    stores.node(1).wait_for("waits for more of its members");
    stores.spawn(0, &[]);
    stores.settle();
    assert_eq!(value(&stores.client(1), "key").as_deref(), Some("new"));
}

#[test]
fn a_node_is_the_same_at_another_port() {
    let _machine = machine();
    let mut stores = Durable::start(3);
    put(&stores.client(0), "key", "value");
    stores.kill_all();
    stores.ports = (0..3).map(|_| free_port()).collect();
    stores.spawn(0, &[]);
    let first = stores.node(0).at().to_owned();
    stores.spawn(1, &["--host", &first]);
    stores.spawn(2, &["--host", &first]);
    stores.settle();
    for index in 0..3 {
        assert_eq!(
            value(&stores.client(index), "key").as_deref(),
            Some("value")
        );
    }
}

#[test]
fn the_last_node_that_leaves_keeps_its_keys() {
    let _machine = machine();
    let mut stores = Durable::start(2);
    put(&stores.client(0), "key", "value");
    for index in 0..2 {
        let mut node = stores.nodes[index].take().unwrap();
        assert!(node.interrupt().success());
    }
    stores.spawn(1, &[]);
    eventually("the key is there", SETTLE_TIMEOUT, || {
        stores
            .client(1)
            .get(b"key")
            .is_ok_and(|value| value == Some(b"value".to_vec()))
    });
}

#[test]
fn a_rolling_restart_fails_no_call_and_copies_nothing_twice() {
    let _machine = machine();
    let mut stores = Durable::start(5);
    for key in 0..500 {
        put(&stores.client(0), &format!("more {key}"), "value");
    }
    let load = start_load(&stores, 2);
    for index in 0..5 {
        run_for_a_while(&load);
        let mut node = stores.nodes[index].take().unwrap();
        assert!(node.interrupt().success());
        stores.spawn(index, &[]);
        stores.settle();
        let (received, keys) = (stores.received(index), load.keys());
        assert!(
            received <= keys + 50,
            "node {index} copied {received} keys, {keys} change"
        );
    }
    let clients: Vec<Patient> = (0..5)
        .map(|at| Patient {
            nodes: Arc::new(Mutex::new(vec![stores.node(at).location.clone()])),
            at,
            client: None,
        })
        .collect();
    let report = load.finish(clients);
    eprintln!(
        "{} reads, {} writes, {} failed",
        report.reads, report.writes, report.failed
    );
    assert!(report.is_clean(), "{}", report.problems.join("\n"));
    for key in 0..500 {
        assert!(value(&stores.client(2), &format!("more {key}")).is_some());
    }
}

/// Runs a node that must end at once, with status 4. Returns what it says.
fn refused(data: &Path, options: &[&str]) -> String {
    let data = data.to_str().unwrap();
    let mut arguments = vec!["--advertise", "127.0.0.1", "--port", "0", "--data", data];
    arguments.extend(options);
    let (status, stderr) = ended(&run("storeserver", &arguments));
    assert_eq!(status, Some(4), "{stderr}");
    stderr
}

/// All files of a directory with their contents.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn a_directory_that_is_not_this_nodes_to_use_is_left_as_it_is() {
    let mut stores = Durable::start(1);
    put(&stores.client(0), "key", "value");
    let data = stores.data(0);
    assert!(refused(&data, &["--bootstrap"]).contains("is in use by another process"));
    let other = Durable::start(1);
    stores.kill(0);
    let before = files(&data);
    let unchanged = |why: &str| assert!(files(&data) == before, "{why}");
    let why = refused(&data, &["--network", "other"]);
    assert!(why.contains("belongs to the network"), "{why}");
    unchanged(&why);
    let why = refused(&data, &["--host", other.node(0).at()]);
    assert!(why.contains("belongs to the network"), "{why}");
    let state = data.join("node.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"format\": 1", "\"format\": 3")).unwrap();
    let why = refused(&data, &[]);
    assert!(
        why.contains("has format 3") && why.contains("use a newer one"),
        "{why}"
    );
    fs::write(&state, text.replace("\"replicas\": 3", "\"replicas\": 1")).unwrap();
    let why = refused(&data, &[]);
    assert!(why.contains("node.json is damaged"), "{why}");
    fs::write(&state, text).unwrap();
    stores.spawn(0, &[]);
    assert_eq!(value(&stores.client(0), "key").as_deref(), Some("value"));
}

/// Changes one bit of a file.
fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// All keys and versions in a database.
fn load(rows: &Path, memtable: u64) -> Result<Vec<(Vec<u8>, Entry)>, String> {
    let fjall = Fjall::open(rows, SyncMode::Always, memtable).map_err(|e| e.to_string())?;
    let found = Mutex::new(Vec::new());
    let on_stored = |stored: Stored<'_>| {
        found.lock().push((stored.key.bytes.to_vec(), stored.entry));
    };
    fjall.load(&on_stored).map_err(|e| e.to_string())?;
    let mut found = found.into_inner();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_has_no_effect_or_cuts_the_last_batch() {
    let memory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let (whole, flipped) = (memory.path().join("whole"), memory.path().join("flipped"));
    const MEMTABLE: u64 = 16 * 1024;
    let fjall = Fjall::open(&whole, SyncMode::Always, MEMTABLE).unwrap();
    for number in 0..300_i64 {
        let key = format!("key {}", number % 200);
        let value = format!("value {number} ").repeat(12).into_bytes();
        let entry = Entry {
            version: number + 1,
            value: Some(value.into()),
        };
        fjall
            .append(vec![Change::write(Key::new(key.as_bytes()), &entry, None)])
            .unwrap();
        fjall.sync().unwrap();
    }
    drop(fjall);
    // Without the zeros at the ends of journals, in which a bit matters like any other.
    let all = load(&whole, MEMTABLE).unwrap();
    let last = all.iter().map(|(_, entry)| entry.version).max();
    let files = files(&whole);
    let named = |path: &Path| path.strip_prefix(&whole).unwrap().to_owned();
    let (mut errors, mut harmless, mut cut) = (0, 0, 0);
    for round in 0..rounds(300, 5_000) {
        let (path, bytes) = &files[round % files.len()];
        if bytes.is_empty() {
            continue;
        }
        let _ = fs::remove_dir_all(&flipped);
        copy(&whole, &flipped);
        let bit = round.wrapping_mul(0x9e37_79b9) % (bytes.len() * 8);
        flip(&flipped.join(named(path)), bit);
        let loading = std::panic::catch_unwind(|| load(&flipped, MEMTABLE));
        match loading {
            Err(_) | Ok(Err(_)) => errors += 1,
            Ok(Ok(found)) if found == all => harmless += 1,
            Ok(Ok(found)) => {
                cut += 1;
                let is_cut = found
                    .iter()
                    .all(|row| all.contains(row) || row.1.version < last.unwrap());
                let lacks = all.iter().filter(|row| !found.contains(row)).count();
                assert!(
                    is_cut && lacks <= 1,
                    "{lacks} rows: bit {bit} of {}",
                    path.display()
                );
            }
        }
    }
    eprintln!("{errors} errors, {harmless} without effect, {cut} cut the last batch");
}

/// Runs a node on a small file system in memory, which it does not share. None if that is not
/// permitted.
fn spawn_on_small_disk(mount: &Path, megabytes: u64) -> Option<NodeProcess> {
    let (mount, program) = (mount.to_str()?, common::program("storeserver"));
    let script = format!(
        "mount -t tmpfs -o size={megabytes}m tmpfs {mount} && exec {program} --advertise 127.0.0.1 \
         --port 0 --bootstrap --data {mount}/data"
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", "mount --make-rprivate / && true"]);
    if !unshare.status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut node = NodeProcess::spawn_command(command, "a node on a small disk".to_owned());
    node.wait_until_it_serves();
    Some(node)
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mut node) = spawn_on_small_disk(directory.path(), 160) else {
        return println!("skipped: a file system cannot be mounted without root");
    };
    let client = StoreClient::new(node.location.clone());
    let large = vec![7; 1 << 20];
    let mut written = 0;
    let refused = loop {
        match client.put(format!("large {written}").as_bytes(), &large) {
            Ok(()) => written += 1,
            Err(e) => break e.to_string(),
        }
        assert!(written < 200);
    };
    assert!(refused.contains("is full: writes are refused"), "{refused}");
    assert!(written > 20, "{written}");
    assert_eq!(client.get(b"large 0").unwrap(), Some(large.clone()));
    assert!(node.try_wait().is_none());
    // The file system is seen by the process only.
    let inside = PathBuf::from(format!("/proc/{}/root", node.id()));
    let mount = inside.join(directory.path().strip_prefix("/").unwrap());
    let resize = format!("mount -o remount,size=600m {}", directory.path().display());
    let resized = Command::new("nsenter")
        .args([
            "--mount",
            "--target",
            &node.id().to_string(),
            "sh",
            "-c",
            &resize,
        ])
        .status();
    assert!(mount.exists() && resized.unwrap().success());
    eventually("there is room again", SETTLE_TIMEOUT, || {
        client.put(b"key", b"value").is_ok()
    });
    eventually("the log says so", SOON, || node.says("has room again"));
    assert_eq!(client.get(b"large 0").unwrap(), Some(large));
    node.kill();
}
