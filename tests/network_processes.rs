//! Do networks of real processes keep the bounds of the protocol for time and cost?
//!
//! The measured figures are printed to stderr (`--nocapture`). A change has spread when the last
//! node has logged it. The rings are compared afterwards, because calls to all nodes take more
//! time than the change.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::network::{
    added, all_agree, all_log, free_port, log_positions, print_time, removed, spawn_joiner,
    start_network,
};
use common::{NodeProcess, SOON, resident_kilobytes};

/// The number of nodes of the large network.
const NODES: usize = 50;

/// How long the processor time of the network at rest is measured.
const REST: Duration = Duration::from_secs(10);

/// Clock ticks a second, the unit of processor time in `/proc`.
const TICKS: f64 = 100.0;

/// Held by a test that measures: only one network runs at a time.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sigterm_and_sighup_end_a_node_gracefully() {
    for signal in ["TERM", "HUP"] {
        let mut node = NodeProcess::start_bootstrap("location");
        node.signal(signal);
        assert!(node.wait().success());
        assert!(node.says("leaving the network") && node.says("done."));
    }
}

#[test]
fn fifty_nodes_keep_every_bound_of_time_and_cost() {
    let _machine = machine();
    let mut nodes = start_network(NODES);
    check_processor_time(&nodes);
    measure_join(&mut nodes);
    measure_kill_and_restart(&mut nodes);
    measure_quick_restart(&mut nodes);
    measure_pause(&nodes);
    measure_leave(&mut nodes);
    check_memory(&nodes);
}

#[test]
fn ten_nodes_started_at_the_same_time_form_one_network() {
    let _machine = machine();
    let rounds = std::env::var("NETWORK_ROUNDS").map_or(3, |text| text.parse().unwrap());
    for round in 1..=rounds {
        let began = Instant::now();
        let port = free_port().to_string();
        let peer = format!("127.0.0.1:{port}");
        // The peer is one of the ten, so no node is there before the others.
        let mut nodes: Vec<NodeProcess> = (0..10)
            .map(|index| if index == 5 { &port } else { "0" })
            .map(|port| NodeProcess::spawn("location", &["--port", port, "--host", &peer]))
            .collect();
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        all_agree(&nodes, SOON);
        print_time(&format!("round {round}: ten agree"), began.elapsed(), SOON);
    }
}

fn measure_join(nodes: &mut Vec<NodeProcess>) {
    let bound = Duration::from_secs(1);
    let before = log_positions(nodes);
    let began = Instant::now();
    let mut node = spawn_joiner(&nodes[0]);
    node.wait_until_it_serves();
    let time = all_log(nodes, &[added(&node)], &before, began, bound);
    print_time("all have seen a join", time, bound);
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn measure_kill_and_restart(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(3);
    let before = log_positions(nodes);
    let began = Instant::now();
    node.kill();
    let time = all_log(nodes, &[removed(&node)], &before, began, bound);
    print_time("all have seen a SIGKILL", time, bound);
    all_agree(&*nodes, SOON);

    let bound = Duration::from_secs(2);
    let before = log_positions(nodes);
    let began = Instant::now();
    let node = restart(&node, &nodes[0]);
    let time = all_log(nodes, &[added(&node)], &before, began, bound);
    print_time("all have seen a restart at the same port", time, bound);
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn measure_quick_restart(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(2);
    let before = log_positions(nodes);
    node.kill();
    let began = Instant::now();
    let node = restart(&node, &nodes[0]);
    let seen = [format!("restarted {}", node.at()), added(&node)];
    let time = all_log(nodes, &seen, &before, began, bound);
    print_time(
        "all have seen a restart before the node was suspected",
        time,
        bound,
    );
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn measure_pause(nodes: &[NodeProcess]) {
    let (node, others) = nodes.split_last().unwrap();
    let bound = Duration::from_secs(8);
    let before = log_positions(others);
    let began = Instant::now();
    node.signal("STOP");
    let time = all_log(others, &[removed(node)], &before, began, bound);
    print_time("all have seen a SIGSTOP", time, bound);

    let bound = Duration::from_secs(4);
    let before = log_positions(nodes);
    let began = Instant::now();
    node.signal("CONT");
    let time = all_log(others, &[added(node)], &before, began, bound);
    print_time("all have seen a SIGCONT", time, bound);
    all_agree(nodes, bound.saturating_sub(began.elapsed()));
    for (other, position) in nodes.iter().zip(before) {
        let lost = nodes
            .iter()
            .find(|n| other.has_logged_since(position, &[removed(n)]));
        let lost = lost.map(NodeProcess::at);
        assert_eq!(
            lost,
            None,
            "{} removed a member because of the pause",
            other.at()
        );
    }
}

fn measure_leave(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(1);
    let before = log_positions(nodes);
    let began = Instant::now();
    node.signal("INT");
    let time = all_log(nodes, &[removed(&node)], &before, began, bound);
    print_time("all have seen a ctrl-C", time, bound);
    assert!(node.wait().success());
    all_agree(&*nodes, SOON);
}

fn check_processor_time(nodes: &[NodeProcess]) {
    // Gossip about the last changes continues for a moment.
    thread::sleep(Duration::from_secs(2));
    let used = || nodes.iter().map(processor_seconds).sum::<f64>();
    let (began, before) = (Instant::now(), used());
    thread::sleep(REST);
    let time = began.elapsed().as_secs_f64() * nodes.len() as f64;
    let percent = (used() - before) / time * 100.0;
    eprintln!("at rest a node uses {percent:.3} % of a core");
    assert!(
        percent < 0.3,
        "at rest a node uses {percent:.3} % of a core"
    );
    check_memory(nodes);
}

fn check_memory(nodes: &[NodeProcess]) {
    let largest = nodes.iter().map(resident_kilobytes).max().unwrap();
    eprintln!("a node has up to {largest} kB resident");
    // The bound is for two cores. The allocator keeps up to eight heaps for each core, of
    // about 100 kB each, after as many threads have run at the same time.
    let cores = thread::available_parallelism().map_or(2, usize::from) as u64;
    let heaps = cores.saturating_sub(2) * 8 * 100;
    // It is for a release build. Of a debug build, half a megabyte more is resident.
    let unoptimized = if cfg!(debug_assertions) { 512 } else { 0 };
    let bound = 6 * 1024 + heaps + unoptimized;
    assert!(
        largest < bound,
        "a node has {largest} kB resident of {bound}"
    );
}

/// The processor time of all threads that the node has had.
fn processor_seconds(node: &NodeProcess) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime and stime are fields 14 and 15 of the line. Field 3 is the first one here.
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS
}

/// A new process at the location of a process that has ended.
fn restart(ended: &NodeProcess, peer: &NodeProcess) -> NodeProcess {
    let port = ended.location.port().to_string();
    NodeProcess::start_exactly("location", &["--port", &port, "--host", peer.at()])
}
