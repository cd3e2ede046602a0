//! The time and the number of calls that the membership core takes for a change, and the bytes that
//! it sends without one: limits for 10, 100 and 1000 nodes, in the simulator.
//!
//! `-- --nocapture` prints the measurements.

mod simulator;

use std::sync::OnceLock;
use std::time::Duration;

use simulator::{Id, Simulator, location, wire_size};
use thrift::protocol::{
    TBinaryOutputProtocol, TFieldIdentifier, TMessageIdentifier, TMessageType, TOutputProtocol,
    TSerializable, TStructIdentifier, TType,
};
use thrifty_p2p::locator;
use thrifty_p2p::membership::{Config, Failure, Request, Status};

const SIZES: [usize; 3] = [10, 100, 1000];

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `size` nodes that start a millisecond apart, each with the first one as seed.
fn start(size: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(seed, Config::default());
    for _ in 0..size {
        simulator.add_host();
    }
    for id in 0..size {
        simulator.start(id, vec![location(0)]);
        simulator.run(millis(1));
    }
    simulator
}

/// A network of `size` nodes that agree and are cold.
fn network(size: usize, seed: u64) -> Simulator {
    static LARGE: OnceLock<Simulator> = OnceLock::new();
    let form = || {
        let mut simulator = start(size, seed);
        let formed = simulator.time_until(seconds(60), Simulator::is_agreed);
        assert!(formed.is_some(), "{size} nodes did not agree");
        simulator.run(seconds(3));
        simulator
    };
    if size < 1000 {
        return form();
    }
    // It takes seconds of real time to form, so all tests start from the same one.
    let mut simulator = LARGE.get_or_init(form).clone();
    simulator.run(millis(300 + seed * 137));
    simulator
}

/// The number of runs. The larger a network, the less its runs differ.
fn runs(size: usize) -> u64 {
    match size {
        10 => 40,
        100 => 8,
        _ => 1,
    }
}

fn calls(simulator: &Simulator) -> u64 {
    simulator.hosts.iter().map(|host| host.calls).sum()
}

/// What a change took in the worst run.
struct Cost {
    time: Duration,
    /// Calls of each node, in addition to the probes in that time.
    calls: f64,
}

/// Changes networks of `size` nodes and waits until the nodes that are up agree. Counts calls for
/// two more seconds, until the nodes are cold again.
fn cost(name: &str, size: usize, change: impl Fn(&mut Simulator)) -> Cost {
    let mut worst = Cost {
        time: Duration::ZERO,
        calls: 0.0,
    };
    for seed in 1..=runs(size) {
        let mut simulator = network(size, seed);
        change(&mut simulator);
        let before = calls(&simulator);
        let time = simulator.time_until(seconds(60), Simulator::is_agreed);
        let time = time.unwrap_or_else(|| panic!("{name}: {:?}", simulator.disagreement()));
        simulator.run(seconds(2));
        let made = (calls(&simulator) - before) as f64 / size as f64;
        let probes = 2.0 * (time + seconds(2)).as_secs_f64();
        worst.time = worst.time.max(time);
        worst.calls = worst.calls.max(made - probes);
    }
    println!(
        "{name:18} n={size:<4} {:5} ms  {:4.1} calls a node in addition to probes",
        worst.time.as_millis(),
        worst.calls
    );
    worst
}

/// The limit of calls for a crash, which is two rumors, SUSPECT and DOWN. In a small network the
/// calls of the nodes that detect it have a larger share.
fn max_calls_of_a_crash(size: usize) -> f64 {
    if size < 1000 { 20.0 } else { 10.0 }
}

/// The node that a test stops.
fn victim(simulator: &Simulator) -> Id {
    simulator.hosts.len() / 2
}

#[test]
fn all_nodes_know_a_new_member_within_two_seconds() {
    let budgets = [millis(500), millis(1000), millis(2000)];
    for (size, budget) in SIZES.into_iter().zip(budgets) {
        let cost = cost("join", size, |simulator| {
            let id = simulator.add_host();
            simulator.start(id, vec![location(1)]);
        });
        assert!(cost.time <= budget, "{:?} at {size} nodes", cost.time);
        assert!(cost.calls <= 10.0, "{} calls a node", cost.calls);
    }
}

#[test]
fn a_killed_node_is_off_all_rings_within_three_seconds() {
    for size in SIZES {
        let cost = cost("kill -9", size, |simulator| {
            simulator.kill(victim(simulator), true);
        });
        assert!(cost.time <= seconds(3), "{:?} at {size} nodes", cost.time);
        assert!(
            cost.calls <= max_calls_of_a_crash(size),
            "{} calls a node",
            cost.calls
        );
    }
}

#[test]
fn a_hanging_node_is_off_all_rings_within_seven_seconds() {
    for size in SIZES {
        let cost = cost("hang", size, |simulator| {
            simulator.hang(victim(simulator));
        });
        assert!(cost.time <= seconds(7), "{:?} at {size} nodes", cost.time);
        assert!(
            cost.calls <= max_calls_of_a_crash(size),
            "{} calls a node",
            cost.calls
        );
    }
}

#[test]
fn a_leaving_node_is_off_all_rings_within_two_seconds() {
    let budgets = [seconds(1), seconds(1), seconds(2)];
    for (size, budget) in SIZES.into_iter().zip(budgets) {
        let cost = cost("leave", size, |simulator| {
            simulator.leave(victim(simulator));
        });
        assert!(cost.time <= budget, "{:?} at {size} nodes", cost.time);
        assert!(cost.calls <= 10.0, "{} calls a node", cost.calls);
    }
}

#[test]
fn a_healed_partition_merges_within_four_seconds_and_removes_no_member() {
    for size in SIZES {
        let cost = cost("heal", size, |simulator| {
            let sides = (0..size).map(|id| (id % 2) as u8).collect();
            simulator.network.partition(sides);
            let has_split = simulator.time_until(seconds(60), |simulator| {
                let mut nodes = (0..size).filter_map(|id| simulator.node(id));
                nodes.all(|node| node.size() == size / 2)
            });
            assert!(has_split.is_some(), "a half did not remove the other one");
            simulator.network.heal();
            // All members run, so none may be removed from here on.
            simulator.forbid_removals();
        });
        assert!(cost.time <= seconds(4), "{:?} at {size} nodes", cost.time);
    }
}

#[test]
fn a_thousand_nodes_with_one_seed_agree_within_five_seconds_of_the_last_start() {
    let mut simulator = start(1000, 1);
    let time = simulator.time_until(seconds(30), Simulator::is_agreed);
    println!("1000 joins: {time:?} after the last one");
    assert!(time.is_some_and(|time| time <= seconds(5)), "{time:?}");
}

#[test]
fn a_cold_node_sends_at_most_500_bytes_a_second() {
    for size in SIZES {
        let mut simulator = network(size, 1);
        simulator.run(seconds(10));
        let before: Vec<u64> = simulator.hosts.iter().map(|host| host.bytes_sent).collect();
        simulator.run(seconds(20));
        let hosts = simulator.hosts.iter().zip(before);
        let most = hosts
            .map(|(host, before)| (host.bytes_sent - before) / 20)
            .max();
        println!("cold n={size:<4}: at most {most:?} bytes a second");
        assert!(most <= Some(500), "{most:?} bytes a second at {size} nodes");
    }
}

#[test]
fn members_that_pause_for_three_seconds_are_suspected_and_not_removed() {
    let mut simulator = network(100, 1);
    simulator.forbid_removals();
    for id in 0..10 {
        simulator.run(seconds(55));
        simulator.pause(id * 7, seconds(3));
        simulator.run(seconds(5));
    }
    let suspicions = simulator.suspicions();
    assert!(suspicions >= 10, "{suspicions} suspicions in 10 pauses");
    assert!(simulator.is_agreed());
}

#[test]
fn a_crash_that_the_layer_above_reports_is_detected_within_200_ms() {
    for seed in 1..20 {
        let mut simulator = network(10, seed);
        simulator.kill(5, true);
        simulator.report_unreachable(2, 5, Failure::Refused);
        let time = simulator.time_until(seconds(5), |simulator| {
            let node = simulator.node(2);
            node.is_some_and(|node| node.status_of(&location(5)) == Some(Status::Down))
        });
        assert!(time.is_some_and(|time| time <= millis(200)), "{time:?}");
    }
}

#[test]
fn the_simulator_counts_the_bytes_that_thrift_writes() -> thrift::Result<()> {
    let mut simulator = network(10, 1);
    let id = simulator.add_host();
    simulator.start(id, vec![location(1)]);
    let mut node = simulator.node(id).cloned().expect("a node runs");
    let actions = node.tick(simulator.now(id));
    let Some(Request::Exchange(gossip)) = actions.first().map(|action| &action.request) else {
        panic!("the first call of a new node is no exchange");
    };
    assert_eq!(gossip.members.len(), 1);
    let mut bytes = Vec::new();
    let mut out = TBinaryOutputProtocol::new(&mut bytes, true);
    out.write_message_begin(&TMessageIdentifier::new("exchange", TMessageType::Call, 1))?;
    out.write_struct_begin(&TStructIdentifier::new("exchange_args"))?;
    out.write_field_begin(&TFieldIdentifier::new("gossip", TType::Struct, 1))?;
    locator::Gossip::from(gossip).write_to_out_protocol(&mut out)?;
    out.write_field_end()?;
    out.write_field_stop()?;
    out.write_message_end()?;
    assert_eq!(wire_size::exchange(gossip), bytes.len() as u64);
    Ok(())
}
