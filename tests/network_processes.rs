//! Do real processes, many on a small machine, keep what the protocol promises?
//!
//! Each figure is taken from the event itself, and told on stderr (`--nocapture`).
//! A change counts as seen when the last node has said so; that its ring is the
//! right one is asked of it afterwards, since asking costs more than watching.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::network::{
    added, all_agree, all_say, free_port, marks, removed, spawn_beside, start_network, tell,
};
use common::{NodeProcess, SOON, resident_kilobytes};

/// Nodes of the large network.
const MANY: usize = 50;

/// How long the network is watched at rest.
const WATCH: Duration = Duration::from_secs(10);

/// Clock ticks a second, in which the kernel tells of processor time.
const TICKS: f64 = 100.0;

/// One network at a time: figures are taken on a machine that has nothing else to do.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_termination_and_a_hang_up_end_a_node_gracefully() {
    for signal in ["TERM", "HUP"] {
        let mut node = NodeProcess::start_alone("location");
        node.signal(signal);
        assert!(node.wait().success());
        assert!(node.says("leaving the network") && node.says("done."));
    }
}

#[test]
fn fifty_nodes_keep_every_promise_of_time_and_cost() {
    let _machine = machine();
    let mut nodes = start_network(MANY);
    is_cheap_at_rest(&nodes);
    a_join_is_seen(&mut nodes);
    a_killed_node_is_dropped_and_comes_back_at_its_port(&mut nodes);
    a_node_restarted_before_anyone_noticed_is_seen_anew(&mut nodes);
    a_stopped_node_is_dropped_and_heals(&nodes);
    an_interrupted_node_is_gone(&mut nodes);
    is_small(&nodes);
}

#[test]
fn ten_nodes_started_at_the_same_instant_form_one_network() {
    let _machine = machine();
    let rounds = std::env::var("NETWORK_ROUNDS").map_or(3, |text| text.parse().unwrap());
    for round in 1..=rounds {
        let began = Instant::now();
        let port = free_port().to_string();
        let peer = format!("127.0.0.1:{port}");
        // The peer is one of the ten: nobody is there before the others.
        let mut nodes: Vec<NodeProcess> = (0..10)
            .map(|index| if index == 5 { &port } else { "0" })
            .map(|port| NodeProcess::spawn("location", &["--port", port, "--host", &peer]))
            .collect();
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        all_agree(&nodes, SOON);
        tell(&format!("round {round}: ten agree"), began.elapsed(), SOON);
    }
}

fn a_join_is_seen(nodes: &mut Vec<NodeProcess>) {
    let bound = Duration::from_secs(1);
    let before = marks(nodes);
    let began = Instant::now();
    let mut node = spawn_beside(&nodes[0]);
    node.wait_until_it_serves();
    let time = all_say(nodes, &[added(&node)], &before, began, bound);
    tell("a join is seen by all", time, bound);
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn a_killed_node_is_dropped_and_comes_back_at_its_port(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(3);
    let before = marks(nodes);
    let began = Instant::now();
    node.kill();
    let time = all_say(nodes, &[removed(&node)], &before, began, bound);
    tell("a SIGKILL is seen by all", time, bound);
    all_agree(&*nodes, SOON);

    let bound = Duration::from_secs(2);
    let before = marks(nodes);
    let began = Instant::now();
    let node = restart(&node, &nodes[0]);
    let time = all_say(nodes, &[added(&node)], &before, began, bound);
    tell("a restart at the same port is seen by all", time, bound);
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn a_node_restarted_before_anyone_noticed_is_seen_anew(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(2);
    let before = marks(nodes);
    node.kill();
    let began = Instant::now();
    let node = restart(&node, &nodes[0]);
    let seen = [format!("restarted {}", node.at()), added(&node)];
    let time = all_say(nodes, &seen, &before, began, bound);
    tell(
        "a restart before anyone noticed is seen by all",
        time,
        bound,
    );
    nodes.push(node);
    all_agree(&*nodes, SOON);
}

fn a_stopped_node_is_dropped_and_heals(nodes: &[NodeProcess]) {
    let (node, others) = nodes.split_last().unwrap();
    let bound = Duration::from_secs(8);
    let before = marks(others);
    let began = Instant::now();
    node.signal("STOP");
    let time = all_say(others, &[removed(node)], &before, began, bound);
    tell("a SIGSTOP is seen by all", time, bound);

    let bound = Duration::from_secs(4);
    let before = marks(nodes);
    let began = Instant::now();
    node.signal("CONT");
    let time = all_say(others, &[added(node)], &before, began, bound);
    tell("a SIGCONT is healed for all", time, bound);
    all_agree(nodes, bound.saturating_sub(began.elapsed()));
    for (other, mark) in nodes.iter().zip(before) {
        let lost = nodes.iter().find(|n| other.says_after(mark, &[removed(n)]));
        let lost = lost.map(NodeProcess::at);
        assert_eq!(lost, None, "{} lost a member by the pause", other.at());
    }
}

fn an_interrupted_node_is_gone(nodes: &mut Vec<NodeProcess>) {
    let mut node = nodes.pop().unwrap();
    let bound = Duration::from_secs(1);
    let before = marks(nodes);
    let began = Instant::now();
    node.signal("INT");
    let time = all_say(nodes, &[removed(&node)], &before, began, bound);
    tell("a ctrl-C is seen by all", time, bound);
    assert!(node.wait().success());
    all_agree(&*nodes, SOON);
}

fn is_cheap_at_rest(nodes: &[NodeProcess]) {
    // What was learned last goes on being told for a moment.
    thread::sleep(Duration::from_secs(2));
    let spent = || nodes.iter().map(processor_seconds).sum::<f64>();
    let (began, before) = (Instant::now(), spent());
    thread::sleep(WATCH);
    let time = began.elapsed().as_secs_f64() * nodes.len() as f64;
    let percent = (spent() - before) / time * 100.0;
    eprintln!("at rest a node uses {percent:.3} % of a core");
    assert!(
        percent < 0.3,
        "at rest a node uses {percent:.3} % of a core"
    );
    is_small(nodes);
}

fn is_small(nodes: &[NodeProcess]) {
    let most = nodes.iter().map(resident_kilobytes).max().unwrap();
    eprintln!("a node has {most} kB resident at the most");
    // The promise is for two cores. The allocator keeps up to eight heaps for each
    // core, once as many threads have run at a time, of some 100 kB each.
    let cores = thread::available_parallelism().map_or(2, usize::from) as u64;
    let heaps = cores.saturating_sub(2) * 8 * 100;
    // And it is for programs as they are installed: without optimization, half a
    // megabyte more of the program is resident.
    let unoptimized = if cfg!(debug_assertions) { 512 } else { 0 };
    let bound = 6 * 1024 + heaps + unoptimized;
    assert!(most < bound, "a node has {most} kB resident of {bound}");
}

/// The time that the node has had of any core, of all its threads, gone ones too.
fn processor_seconds(node: &NodeProcess) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime and stime: fields 14 and 15 of the line, whose third is the first here.
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS
}

/// A new process at the location of one that is gone.
fn restart(gone: &NodeProcess, peer: &NodeProcess) -> NodeProcess {
    let port = gone.location.port().to_string();
    NodeProcess::start_exactly("location", &["--port", &port, "--host", peer.at()])
}
