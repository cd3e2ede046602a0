//! Is everything that was acknowledged on disk after a power cut, at whatever moment it comes?
//!
//! A process keeps entries in a data directory, in several lives that end by a kill, while strace
//! records its changes of files and its syncs. For each of many moments the directory is built as a
//! power cut could have left it (`power/disk.rs`), opened, and read.
//!
//! `STORE_CUTS` is the number of moments.

#[path = "power/disk.rs"]
mod disk;
#[path = "power/trace.rs"]
mod trace;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use disk::Disk as CutDisk;
use thrifty_p2p::store::durable::committer::{Disk, PATIENCE};
use thrifty_p2p::store::durable::engine::{Engine, Fjall, OnStored, SyncMode};
use thrifty_p2p::store::durable::row::Change;
use thrifty_p2p::store::placement::Key;
use thrifty_p2p::store::table::Table;
use thrifty_p2p::store::versions::{Entry, Value};
use trace::Event;

/// Bytes in memory: few, so that tables are written and merged.
const MEMTABLE: u64 = 24 * 1024;

const LIVES: u64 = 4;
const THREADS: u64 = 3;
const BATCHES: u64 = 60;
const KEYS: usize = 80;

/// Tells the traced process where to work, which life it is, and whether it syncs.
const DIRECTORY: &str = "POWER_CUTS_DIRECTORY";
const LIFE: &str = "POWER_CUTS_LIFE";
const NO_SYNC: &str = "POWER_CUTS_NO_SYNC";

/// Numbers that depend on the seed only.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// An engine that forgets to sync.
struct Unsynced(Fjall);

impl Engine for Unsynced {
    fn append(&self, changes: Vec<Change>) -> io::Result<()> {
        self.0.append(changes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn load(&self, on_stored: &OnStored<'_>) -> io::Result<()> {
        self.0.load(on_stored)
    }
}

/// The value of that version: some are much longer than others.
fn value(key: &str, version: i64) -> Option<Value> {
    let length = version as usize * 7_919 % if version % 10 == 0 { 3_000 } else { 120 };
    let text = format!("{version:x}.").repeat(length / 3 + 1);
    (version % 5 != 0).then(|| Value::of(key.as_bytes(), text.as_bytes()))
}

/// Keeps entries in the directory until it is killed. Runs in a process of its own.
#[test]
fn the_traced_process_writes() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let life: u64 = std::env::var(LIFE).unwrap().parse().unwrap();
    let fjall = Fjall::open(&directory.join("rows"), SyncMode::Always, MEMTABLE).unwrap();
    let table = Arc::new(Table::default());
    fjall
        .load(&|stored| assert!(table.apply(stored.key, stored.entry)))
        .unwrap();
    let engine: Arc<dyn Engine> = match std::env::var(NO_SYNC) {
        Ok(_) => Arc::new(Unsynced(fjall)),
        Err(_) => Arc::new(fjall),
    };
    let known = table.clone();
    let newest = Box::new(move |key: Key<'_>| known.version(key).unwrap_or(0));
    let on_failure = Box::new(|why| panic!("{why}"));
    let mode = SyncMode::Always;
    let kept = Disk::start(engine, directory, mode, PATIENCE, newest, on_failure).unwrap();
    let acks = File::options()
        .append(true)
        .create(true)
        .open(directory.join("acks"))
        .unwrap();
    let versions = AtomicU64::new(life * 1_000_000);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (kept, acks, table, versions) = (&kept, &acks, &table, &versions);
            scope.spawn(move || {
                let mut random = Random(life * 100 + number);
                for _ in 0..BATCHES {
                    let mut acknowledged = String::new();
                    let mut changes = Vec::new();
                    for _ in 0..1 + random.below(4) {
                        // Each thread has keys of its own.
                        let key = format!("{number}.{}", random.below(KEYS));
                        let version = versions.fetch_add(1, Relaxed) as i64;
                        let entry = Entry {
                            version,
                            value: value(&key, version),
                        };
                        let at = Key::new(key.as_bytes());
                        table.apply(at, entry.clone());
                        changes.push(Change::write(at, &entry, None));
                        acknowledged += &format!("{key} {version}\n");
                    }
                    assert!(kept.wait(kept.append(changes)));
                    let mut acks = acks;
                    acks.write_all(acknowledged.as_bytes()).unwrap();
                }
            });
        }
    });
    std::process::abort();
}

/// Runs the lives of the process in the directory. None if there is no strace.
fn record(directory: &Path, syncs: bool) -> Option<Vec<Event>> {
    let mut text = String::new();
    for life in 0..LIVES {
        let output = directory.join("trace");
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "-xx",
            "-s",
            "1000000",
            "-e",
            "signal=none",
            "-e",
        ]);
        strace
            .arg(format!("trace={}", trace::CALLS))
            .arg("-o")
            .arg(&output);
        strace.arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "the_traced_process_writes", "--nocapture"]);
        strace.env(DIRECTORY, directory).env(LIFE, life.to_string());
        if !syncs {
            strace.env(NO_SYNC, "1");
        }
        match strace.output() {
            Err(_) => return None,
            Ok(ended) => {
                let stderr = String::from_utf8_lossy(&ended.stderr);
                assert!(
                    !ended.status.success() && !stderr.contains("panicked"),
                    "{stderr}"
                );
            }
        }
        text += &fs::read_to_string(&output).unwrap();
    }
    Some(trace::events(
        &text,
        &directory.join("rows"),
        &directory.join("acks"),
    ))
}

/// Cuts the power at many moments. Returns how many cuts lost something that was acknowledged, with
/// the first such loss.
fn cut(directory: &Path, events: &[Event], cuts: usize) -> (usize, Option<String>) {
    let mut random = Random(1);
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.below(events.len())).collect();
    moments.sort_unstable();
    let mut moments = moments.into_iter().peekable();
    let mut on_disk = CutDisk::default();
    let mut acknowledged: BTreeMap<String, i64> = BTreeMap::new();
    // In memory, where there is such a file system: a sync costs nothing there.
    let memory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let (rows, after) = (directory.join("rows"), memory.path().join("after"));
    let (mut losses, mut first) = (0, None);
    for (number, event) in events.iter().enumerate() {
        while moments.next_if_eq(&number).is_some() {
            let _ = fs::remove_dir_all(&after);
            fs::create_dir_all(&after).unwrap();
            on_disk.cut(&rows, &after, &mut |limit| random.below(limit));
            let found = open_and_compare(&after, &acknowledged);
            if let Err(why) = found {
                losses += 1;
                first.get_or_insert(format!("at event {number} of {}: {why}", events.len()));
            }
        }
        on_disk.take(number, event);
        if let Event::Ack(lines) = event {
            for line in lines.lines() {
                let (key, version) = line.split_once(' ').expect("a key and a version");
                acknowledged.insert(key.to_owned(), version.parse().unwrap());
            }
        }
    }
    (losses, first)
}

/// Has the directory everything that was acknowledged, and nothing that was not written?
fn open_and_compare(directory: &Path, acknowledged: &BTreeMap<String, i64>) -> Result<(), String> {
    // Twice: the first time repairs what is torn.
    for _ in 0..2 {
        let fjall =
            Fjall::open(directory, SyncMode::Always, MEMTABLE).map_err(|e| e.to_string())?;
        let table = Table::default();
        fjall
            .load(&|stored| assert!(table.apply(stored.key, stored.entry)))
            .map_err(|e| e.to_string())?;
        for (key, least) in acknowledged {
            let entry = table
                .read(Key::new(key.as_bytes()))
                .ok_or(format!("{key} is missing"))?;
            let (version, is_same) = (entry.version, entry.value == value(key, entry.version));
            if version < *least || !is_same {
                return Err(format!(
                    "{key} has version {version}, not {least}; value: {is_same}"
                ));
            }
        }
    }
    Ok(())
}

fn cuts(default: usize) -> usize {
    let cuts = std::env::var("STORE_CUTS").ok();
    cuts.map_or(default, |cuts| cuts.parse().unwrap())
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let Some(events) = record(directory.path(), true) else {
        return println!("skipped: strace is not installed");
    };
    let syncs = events
        .iter()
        .filter(|event| matches!(event, Event::Sync(..)))
        .count();
    println!("{} events, {syncs} syncs", events.len());
    let (losses, first) = cut(directory.path(), &events, cuts(1_000));
    assert_eq!(losses, 0, "{}", first.unwrap_or_default());
}

#[test]
fn without_the_sync_a_power_cut_loses_acknowledged_entries() {
    let directory = tempfile::tempdir().unwrap();
    let Some(events) = record(directory.path(), false) else {
        return println!("skipped: strace is not installed");
    };
    let (losses, first) = cut(directory.path(), &events, 40);
    assert!(losses > 10, "{losses} of 40 cuts; {first:?}");
}
