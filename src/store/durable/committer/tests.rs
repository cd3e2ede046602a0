use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::store::durable::engine::OnStored;
use crate::store::versions::Entry;

/// Keeps rows in memory. A sync waits for the gate, and may fail.
#[derive(Default)]
struct Slow {
    rows: Mutex<BTreeMap<Vec<u8>, i64>>,
    syncs: AtomicUsize,
    gate: Mutex<()>,
    fails: AtomicBool,
}

impl Engine for Slow {
    fn append(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut rows = self.rows.lock();
        for change in changes {
            match change.row {
                Some(_) => rows.insert(change.key, change.version),
                None => rows.remove(&change.key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Relaxed);
        drop(self.gate.lock());
        match self.fails.load(Relaxed) {
            true => Err(io::Error::other("the disk is gone")),
            false => Ok(()),
        }
    }

    fn load(&self, _on_stored: &OnStored<'_>) -> io::Result<()> {
        Ok(())
    }
}

type Failures = Arc<Mutex<Vec<String>>>;

/// A disk on that engine, and what it says when it fails.
fn disk(engine: &Arc<Slow>, sync: SyncMode, newest: i64) -> (Arc<Disk>, Failures) {
    patient_disk(engine, sync, newest, PATIENCE)
}

fn patient_disk(
    engine: &Arc<Slow>,
    sync: SyncMode,
    newest: i64,
    patience: Duration,
) -> (Arc<Disk>, Failures) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = failures.clone();
    let on_failure = Box::new(move |why| told.lock().push(why));
    let newest = Box::new(move |_: Key<'_>| newest);
    let path = std::env::temp_dir();
    let disk = Disk::start(engine.clone(), &path, sync, patience, newest, on_failure).unwrap();
    (Arc::new(disk), failures)
}

fn change(key: &str, version: i64) -> Change {
    let value = Some(b"value".to_vec().into());
    Change::write(Key::new(key.as_bytes()), &Entry { version, value }, None)
}

fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn what_waits_during_a_sync_shares_the_next_one() {
    let engine = Arc::new(Slow::default());
    let (disk, _) = disk(&engine, SyncMode::Always, 0);
    let gate = engine.gate.lock();
    let first = disk.append([change("first", 1)]);
    until(|| engine.syncs.load(Relaxed) == 1);
    let tickets: Vec<Ticket> = (0..100)
        .map(|n| disk.append([change(&n.to_string(), 1)]))
        .collect();
    drop(gate);
    assert!(disk.wait(first) && tickets.into_iter().all(|ticket| disk.wait(ticket)));
    assert_eq!(engine.syncs.load(Relaxed), 2);
    assert_eq!(engine.rows.lock().len(), 101);
}

#[test]
fn nobody_continues_before_the_sync_has_ended() {
    let engine = Arc::new(Slow::default());
    let (disk, _) = disk(&engine, SyncMode::Always, 0);
    let gate = engine.gate.lock();
    let ticket = disk.append([change("key", 1)]);
    let waits = disk.clone();
    let waiter = thread::spawn(move || waits.wait(ticket));
    until(|| engine.syncs.load(Relaxed) == 1);
    assert!(!waiter.is_finished());
    drop(gate);
    assert!(waiter.join().unwrap());
}

#[test]
fn a_failed_sync_ends_all_waits_and_is_not_repeated() {
    let engine = Arc::new(Slow::default());
    engine.fails.store(true, Relaxed);
    let (disk, failures) = disk(&engine, SyncMode::Always, 0);
    assert!(!disk.wait(disk.append([change("key", 1)])));
    assert!(!disk.is_working());
    assert!(!disk.wait(disk.append([change("key", 2)])) && !disk.sync());
    disk.close();
    assert_eq!(engine.syncs.load(Relaxed), 1);
    assert_eq!(*failures.lock(), ["the disk is gone"]);
}

#[test]
fn a_disk_that_does_not_answer_ends_all_waits_and_the_end_does_not_wait_for_it() {
    let engine = Arc::new(Slow::default());
    let patience = Duration::from_millis(50);
    let (disk, failures) = patient_disk(&engine, SyncMode::Always, 0, patience);
    let gate = engine.gate.lock();
    let ticket = disk.append([change("key", 1)]);
    let waits = disk.clone();
    let other = thread::spawn(move || waits.wait(ticket));
    assert!(!disk.wait(ticket) && !other.join().unwrap());
    assert!(!disk.is_working());
    disk.close();
    let failures = failures.lock();
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0].ends_with("has not answered for 50ms"),
        "{failures:?}"
    );
    drop(gate);
}

#[test]
fn an_older_change_does_not_replace_a_newer_one() {
    let engine = Arc::new(Slow::default());
    let (disk, _) = disk(&engine, SyncMode::Always, 5);
    let key = Key::new(b"key");
    for changes in [
        vec![change("key", 6), change("key", 5)],
        vec![change("key", 4)],
        vec![Change::remove(key)],
    ] {
        assert!(disk.wait(disk.append(changes)));
        assert_eq!(engine.rows.lock().values().collect::<Vec<_>>(), [&6]);
    }
}

#[test]
fn with_an_interval_nobody_waits_for_a_sync_and_the_end_does() {
    let engine = Arc::new(Slow::default());
    let (disk, _) = disk(&engine, SyncMode::Interval, 0);
    let gate = engine.gate.lock();
    assert!(disk.wait(disk.append([change("key", 1)])));
    drop(gate);
    until(|| engine.syncs.load(Relaxed) == 1);
    assert!(disk.wait(disk.append([change("key", 2)])));
    disk.close();
    assert_eq!(engine.syncs.load(Relaxed), 2);
}
