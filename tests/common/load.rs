//! A checked load on a store: reads and writes that must be linearizable (see `checker`).
//!
//! With `STORE_LONG=1` the tests run many more rounds, and the bounds for stalls are those that
//! the store promises. Otherwise three seconds are added, for a busy machine. Figures are printed
//! to stderr (`--nocapture`).

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::checker::{AnyNode, Report, Workload};
use super::stores::Stores;
use super::{NodeProcess, SOON, eventually};

/// The longest stall of a read after a node is killed.
pub const READ_STALL: Duration = Duration::from_millis(250);

/// The longest stall of a write after a node is killed.
pub const WRITE_STALL: Duration = Duration::from_secs(1);

/// The longest stall of either after a node hangs.
pub const HANG_STALL: Duration = Duration::from_secs(5);

/// Lets only one test of a file run at a time: other networks on the machine cause stalls.
pub fn machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_long() -> bool {
    std::env::var_os("STORE_LONG").is_some()
}

/// The number of rounds: `few`, or `many` in the long run.
pub fn rounds(few: usize, many: usize) -> usize {
    if is_long() { many } else { few }
}

/// The bound for a stall that the store promises to be at most `promised`.
pub fn bound(promised: Duration) -> Duration {
    if is_long() {
        promised
    } else {
        promised + Duration::from_secs(3)
    }
}

/// Starts a load of this many writers and as many readers, which call any of the nodes.
pub fn start_load(stores: &Stores, writers: usize) -> Workload {
    Workload::start("key", writers, writers, connector(stores))
}

/// Makes clients. Each calls another node first.
fn connector(stores: &Stores) -> impl Fn() -> AnyNode {
    let callable = stores.callable.clone();
    let choice = Cell::new(0);
    move || {
        choice.set(choice.get() + 1);
        AnyNode::new(callable.clone(), choice.get())
    }
}

/// Waits until the load has done 200 more reads and 200 more writes.
pub fn run_for_a_while(load: &Workload) {
    let before = load.report();
    eventually("the load continues", SOON, || {
        let now = load.report();
        now.reads > before.reads + 200 && now.writes > before.writes + 200
    });
}

/// Stops the load, reads every key at every node, and checks that the store was linearizable.
pub fn finish(what: &str, load: Workload, stores: &Stores) {
    let report: Report = load.finish(stores.clients());
    eprintln!(
        "{what}: {} reads, {} writes, {} failed, {} violations, {} undecided",
        report.reads, report.writes, report.failed, report.violations, report.undecided
    );
    let problems = report.problems.join("\n");
    assert!(report.is_clean(), "{what}: {problems}");
}

/// Prints the longest stalls since they were last reset, and checks them against their bounds.
pub fn check_stalls(what: &str, load: &Workload, read: Duration, write: Duration) {
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

/// The number of large values, so many that a rebalance copies several pages.
const LARGE_VALUES: usize = 60;

fn large_key(index: usize) -> Vec<u8> {
    format!("large {index}").into_bytes()
}

fn large_value(index: usize) -> Vec<u8> {
    bytes(256 * 1024, index as u8)
}

/// Writes the large values.
pub fn put_large_values(stores: &Stores) {
    let client = &stores.clients()[0];
    for index in 0..LARGE_VALUES {
        client.put(&large_key(index), &large_value(index)).unwrap();
    }
}

/// Checks that every node returns the large values.
pub fn check_large_values(stores: &Stores) {
    for client in stores.clients() {
        for index in 0..LARGE_VALUES {
            let found = client.get(&large_key(index)).unwrap();
            assert!(
                found == Some(large_value(index)),
                "large value {index} has changed"
            );
        }
    }
}

/// Starts one more node, and waits until it is copying its keys.
pub fn start_copying_joiner(stores: &Stores) -> NodeProcess {
    let mut joiner = stores.spawn_joiner();
    joiner.wait_until_it_serves();
    eventually("the joiner is copying", SOON, || {
        super::stores::is_copying(&joiner.location)
    });
    joiner
}

/// Pseudo-random bytes. Equal seeds give equal bytes.
pub fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}
