//! Does the checker of the example `consistency` find every fault of a store?

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::checker::workload::Versioned;
use common::checker::{CallError, KeyValueStore, Report, Workload};
use common::stores::Stores;
use common::{NodeProcess, SOON, eventually, example};

/// All values of a key, and none where it was deleted. The last one is the current one.
type Versions = Vec<Option<Vec<u8>>>;

/// A value, or none, for some keys.
type Swapped = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// A store in memory with a fault. Clones share their content.
#[derive(Clone)]
struct FaultyStore {
    values: Arc<Mutex<HashMap<Vec<u8>, Versions>>>,
    fault: Fault,
    calls: usize,
    /// What the last conditional write of each key wrote.
    swapped: Arc<Mutex<Swapped>>,
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
    /// One read in ten returns the value before the current one.
    GoesBack,
    /// One read in ten comes after the write before the last one was made once more.
    WritesTwice,
    /// One conditional write in ten is made whatever its condition is.
    IgnoresConditions,
    /// One read in ten comes after the last conditional write was made once more.
    SwapsTwice,
    /// One write in ten is refused and has no effect.
    Refuses,
}

impl FaultyStore {
    /// Does the fault affect this call?
    fn has_fault(&mut self, fault: Fault) -> bool {
        self.calls += usize::from(self.fault == fault);
        self.fault == fault && (fault == Fault::KeepsDeleted || self.calls.is_multiple_of(10))
    }
}

impl KeyValueStore for FaultyStore {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        let goes_back = self.has_fault(Fault::GoesBack);
        let writes_twice = self.has_fault(Fault::WritesTwice);
        if self.has_fault(Fault::MissesKeys) {
            return Ok(None);
        }
        let swaps_twice = self.has_fault(Fault::SwapsTwice);
        let mut values = self.values.lock().unwrap();
        let versions = values.entry(key.to_vec()).or_default();
        if let Some(value) = self.swapped.lock().unwrap().get(key)
            && swaps_twice
        {
            versions.push(value.clone());
        }
        let before = versions.iter().rev().nth(1).cloned().flatten();
        if writes_twice {
            versions.push(before.clone());
        }
        match goes_back {
            true => Ok(before),
            false => Ok(versions.last().cloned().flatten()),
        }
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError> {
        if self.has_fault(Fault::Refuses) {
            return Err(CallError::new("refused"));
        }
        if self.has_fault(Fault::LosesWrites) {
            return Ok(());
        }
        if value.is_none() && self.has_fault(Fault::KeepsDeleted) {
            return Ok(());
        }
        let mut values = self.values.lock().unwrap();
        let versions = values.entry(key.to_vec()).or_default();
        versions.push(value.map(<[u8]>::to_vec));
        Ok(())
    }

    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, CallError> {
        let mut values = self.values.lock().unwrap();
        let versions = values.entry(key.to_vec()).or_default();
        let value = versions.last().cloned().flatten();
        let version = value.as_ref().map_or(0, |_| versions.len() as i64);
        Ok(Some((value, version)))
    }

    fn put_if(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        version: i64,
    ) -> Result<bool, CallError> {
        let is_ignored = self.has_fault(Fault::IgnoresConditions);
        let mut values = self.values.lock().unwrap();
        let versions = values.entry(key.to_vec()).or_default();
        let has_value = versions.last().is_some_and(Option::is_some);
        let held = if has_value { versions.len() as i64 } else { 0 };
        if held != version && !is_ignored {
            return Ok(false);
        }
        let value = value.map(<[u8]>::to_vec);
        versions.push(value.clone());
        self.swapped.lock().unwrap().insert(key.to_vec(), value);
        Ok(true)
    }
}

/// What the checker reports of a store with this fault.
fn report_of(fault: Fault) -> Report {
    let store = FaultyStore {
        values: Arc::default(),
        fault,
        calls: 0,
        swapped: Arc::default(),
    };
    let load = Workload::start("key", 2, 2, || store.clone());
    eventually("the load continues", SOON, || load.report().writes > 1000);
    load.finish([store])
}

#[test]
fn the_checker_accepts_a_correct_store_and_finds_every_fault() {
    let correct = report_of(Fault::None);
    assert!(correct.is_clean(), "{correct:#?}");
    let faults = [
        Fault::LosesWrites,
        Fault::MissesKeys,
        Fault::KeepsDeleted,
        Fault::GoesBack,
        Fault::WritesTwice,
        Fault::IgnoresConditions,
        Fault::SwapsTwice,
    ];
    for fault in faults {
        let report = report_of(fault);
        assert!(report.violations > 0, "{fault:?} was not found");
        assert_eq!(report.undecided, 0, "{fault:?}");
    }
    let refused = report_of(Fault::Refuses);
    assert!(refused.failed > 0, "a refused write was not counted");
    assert_eq!(refused.violations, 0, "{refused:#?}");
}

#[test]
fn the_example_ends_at_a_signal_although_all_nodes_are_gone() {
    let mut node = NodeProcess::start_bootstrap("storeserver");
    let mut command = Command::new(example("consistency"));
    let example = command.arg(node.at()).stdout(Stdio::piped());
    let mut example = example.stderr(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(example.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    lines.next().unwrap();
    node.kill();
    lines
        .find(|line| line.ends_with("no node answers"))
        .unwrap();
    let began = Instant::now();
    let id = example.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &id]).status();
    assert!(sent.unwrap().success());
    let summary = lines.last().unwrap();
    assert!(summary.contains(" 0 violations, "), "{summary}");
    assert_eq!(example.wait().unwrap().code(), Some(1), "{summary}");
    let time = began.elapsed();
    assert!(time < Duration::from_secs(30), "it ended after {time:?}");
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
    assert!(second.ends_with("4 nodes, settled, 3 copies"), "{second}");
    stores.kill(2);
    let printed: Vec<String> = lines.collect();
    let [.., last, summary] = &printed[..] else {
        panic!("a line and a summary are printed: {printed:?}");
    };
    assert!(last.contains("3 nodes, settled, 3 copies"), "{last}");
    assert!(summary.contains(" 0 failed, 0 violations, "), "{summary}");
    assert!(example.wait().unwrap().success(), "{summary}");
}
