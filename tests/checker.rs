//! Does the checker of the example `consistency` find every fault of a store?

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::checker::{DELETE_INTERVAL, KeyValueStore, Report, Workload};
use common::stores::Stores;
use common::{SOON, eventually, example};

/// A store in memory with a fault. Clones share their content.
#[derive(Clone)]
struct FaultyStore {
    values: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    fault: Fault,
    calls: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// One write in ten is acknowledged and lost.
    LosesWrites,
    /// One read in ten finds no value.
    MissesKeys,
    /// No key is deleted.
    KeepsDeleted,
    /// One write in ten is refused.
    Refuses,
}

impl FaultyStore {
    /// Does the fault affect this call?
    fn has_fault(&mut self, fault: Fault) -> bool {
        self.calls += 1;
        self.fault == fault && (fault == Fault::KeepsDeleted || self.calls.is_multiple_of(10))
    }
}

impl KeyValueStore for FaultyStore {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = self.values.lock().unwrap().get(key).cloned();
        Ok(found.filter(|_| !self.has_fault(Fault::MissesKeys)))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        if self.has_fault(Fault::Refuses) {
            return Err("refused".into());
        }
        if self.has_fault(Fault::LosesWrites) {
            return Ok(());
        }
        match value {
            Some(value) => {
                let mut values = self.values.lock().unwrap();
                values.insert(key.to_vec(), value.to_vec());
            }
            None if self.has_fault(Fault::KeepsDeleted) => (),
            None => drop(self.values.lock().unwrap().remove(key)),
        }
        Ok(())
    }
}

/// What the checker reports of a store with this fault.
fn report_of(fault: Fault) -> Report {
    let store = FaultyStore {
        values: Arc::default(),
        fault,
        calls: 0,
    };
    let load = Workload::start("key", 2, 2, || store.clone());
    let enough = 2 * 25 * 2 * DELETE_INTERVAL;
    eventually("the load continues", SOON, || load.report().writes > enough);
    load.finish([store])
}

#[test]
fn the_checker_accepts_a_correct_store_and_finds_every_fault() {
    let correct = report_of(Fault::None);
    assert!(correct.is_clean(), "{correct:#?}");
    assert!(
        report_of(Fault::LosesWrites).stale > 0,
        "a lost write was not found"
    );
    assert!(
        report_of(Fault::MissesKeys).missing > 0,
        "a missing key was not found"
    );
    assert!(
        report_of(Fault::KeepsDeleted).stale > 0,
        "a key that was not deleted was not found"
    );
    assert!(
        report_of(Fault::Refuses).failed > 0,
        "a refused write was not counted"
    );
}

#[test]
fn the_example_reports_no_loss_while_a_node_is_killed() {
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let mut example = Command::new(example("consistency"))
        .args([stores.nodes[0].at(), "--seconds", "4"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(example.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    // Once the second line is printed, the clients know all nodes.
    let second = lines.nth(1).unwrap();
    assert!(second.ends_with("4 nodes, settled"), "{second}");
    stores.kill(2);
    let last = lines.last().unwrap();
    assert!(last.contains(" 0 failed, 0 lost, "), "{last}");
    assert!(last.ends_with("3 nodes, settled"), "{last}");
    assert!(example.wait().unwrap().success(), "{last}");
}
