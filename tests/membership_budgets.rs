//! What the membership core costs and how fast it is, at 10, 100 and 1000 nodes,
//! measured in the simulator until every live node agrees.
//!
//! `-- --nocapture` prints what was measured.

mod simulator;

use std::sync::OnceLock;
use std::time::Duration;

use simulator::{Id, Simulator, location, size};
use thrift::protocol::{
    TBinaryOutputProtocol, TFieldIdentifier, TMessageIdentifier, TMessageType, TOutputProtocol,
    TSerializable, TStructIdentifier, TType,
};
use thrifty_p2p::locator;
use thrifty_p2p::membership::{Failure, Request, Settings, Status};

const SIZES: [usize; 3] = [10, 100, 1000];

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `size` nodes, started a millisecond apart, all given the first one.
fn start(size: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(seed, Settings::default());
    for _ in 0..size {
        simulator.add_host();
    }
    for id in 0..size {
        simulator.start(id, vec![location(0)]);
        simulator.run(millis(1));
    }
    simulator
}

/// A network of `size` nodes that all know one another, at rest.
fn network(size: usize, seed: u64) -> Simulator {
    static LARGE: OnceLock<Simulator> = OnceLock::new();
    let form = || {
        let mut simulator = start(size, seed);
        let formed = simulator.time_until(seconds(60), Simulator::is_agreed);
        assert!(formed.is_some(), "{size} nodes did not find one another");
        simulator.run(seconds(3));
        simulator
    };
    if size < 1000 {
        return form();
    }
    // It takes seconds to form, so all tests begin with the same one.
    let mut simulator = LARGE.get_or_init(form).clone();
    simulator.run(millis(300 + seed * 137));
    simulator
}

/// How many runs are worth their time: the larger a network, the less they differ.
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

/// What a change took, in the worst run.
struct Cost {
    time: Duration,
    /// Calls for each node, beyond those made at rest in the same time.
    calls: f64,
}

/// Does something to networks of a size and waits until all agree that are up. The
/// calls are counted until all is quiet again.
fn cost(what: &str, size: usize, act: impl Fn(&mut Simulator)) -> Cost {
    let mut worst = Cost {
        time: Duration::ZERO,
        calls: 0.0,
    };
    for seed in 1..=runs(size) {
        let mut simulator = network(size, seed);
        act(&mut simulator);
        let before = calls(&simulator);
        let time = simulator.time_until(seconds(60), Simulator::is_agreed);
        let time = time.unwrap_or_else(|| panic!("{what}: {:?}", simulator.disagreement()));
        simulator.run(seconds(2));
        let made = (calls(&simulator) - before) as f64 / size as f64;
        let at_rest = 2.0 * (time + seconds(2)).as_secs_f64();
        worst.time = worst.time.max(time);
        worst.calls = worst.calls.max(made - at_rest);
    }
    println!(
        "{what:18} n={size:<4} {:5} ms  {:4.1} calls a node beyond those at rest",
        worst.time.as_millis(),
        worst.calls
    );
    worst
}

/// A death is two changes, SUSPECT and DOWN. In a small network the calls of the few
/// who find it out count for more.
fn most_calls_of_a_death(size: usize) -> f64 {
    if size < 1000 { 20.0 } else { 10.0 }
}

/// A node in the middle of things.
fn victim(simulator: &Simulator) -> Id {
    simulator.hosts.len() / 2
}

#[test]
fn a_join_is_seen_by_all() {
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
fn a_killed_node_is_off_every_ring() {
    for size in SIZES {
        let cost = cost("kill -9", size, |simulator| {
            simulator.kill(victim(simulator), true);
        });
        assert!(cost.time <= seconds(3), "{:?} at {size} nodes", cost.time);
        assert!(
            cost.calls <= most_calls_of_a_death(size),
            "{} calls a node",
            cost.calls
        );
    }
}

#[test]
fn a_hanging_node_is_off_every_ring() {
    for size in SIZES {
        let cost = cost("hang", size, |simulator| {
            simulator.hang(victim(simulator));
        });
        assert!(cost.time <= seconds(7), "{:?} at {size} nodes", cost.time);
        assert!(
            cost.calls <= most_calls_of_a_death(size),
            "{} calls a node",
            cost.calls
        );
    }
}

#[test]
fn a_graceful_leave_is_seen_by_all() {
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
fn two_halves_of_a_network_become_one_again_and_lose_no_one() {
    for size in SIZES {
        let cost = cost("heal", size, |simulator| {
            simulator.split((0..size).map(|id| (id % 2) as u8).collect());
            let parted = simulator.time_until(seconds(60), |simulator| {
                let mut nodes = (0..size).filter_map(|id| simulator.node(id));
                nodes.all(|node| node.size() == size / 2)
            });
            assert!(parted.is_some(), "the halves have not parted");
            simulator.network.heal();
            // Now every member that goes off a ring is one too many.
            simulator.expect_no_death();
        });
        assert!(cost.time <= seconds(4), "{:?} at {size} nodes", cost.time);
    }
}

#[test]
fn a_thousand_nodes_join_through_one_seed() {
    let mut simulator = start(1000, 1);
    let time = simulator.time_until(seconds(30), Simulator::is_agreed);
    println!("1000 joins: {time:?} after the last");
    assert!(time.is_some_and(|time| time <= seconds(5)), "{time:?}");
}

#[test]
fn a_network_at_rest_sends_little() {
    for size in SIZES {
        let mut simulator = network(size, 1);
        simulator.run(seconds(10));
        let before: Vec<u64> = simulator.hosts.iter().map(|host| host.sent).collect();
        simulator.run(seconds(20));
        let sent = simulator.hosts.iter().zip(before);
        let most = sent.map(|(host, before)| (host.sent - before) / 20).max();
        println!("at rest n={size:<4}: at most {most:?} bytes a second");
        assert!(most <= Some(500), "{most:?} bytes a second at {size} nodes");
    }
}

#[test]
fn pauses_kill_no_one() {
    let mut simulator = network(100, 1);
    simulator.expect_no_death();
    for id in 0..10 {
        simulator.run(seconds(55));
        simulator.pause(id * 7, seconds(3));
        simulator.run(seconds(5));
    }
    let suspicions: u64 = simulator.hosts.iter().map(|host| host.suspicions).sum();
    assert!(suspicions >= 10, "{suspicions}: the pauses went unseen");
    assert!(simulator.is_agreed());
}

#[test]
fn a_verdict_that_is_waited_for_takes_a_fifth_of_a_second() {
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

/// The sizes that are reckoned with here are those of Thrift's binary protocol.
#[test]
fn sizes_are_those_on_the_wire() -> thrift::Result<()> {
    let mut simulator = network(10, 1);
    let id = simulator.add_host();
    simulator.start(id, vec![location(1)]);
    let mut node = simulator.node(id).cloned().expect("it was started");
    let actions = node.tick(simulator.now(id));
    let Some(Request::Exchange(gossip)) = actions.first().map(|action| &action.request) else {
        panic!("a newcomer begins with an exchange");
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
    assert_eq!(size::exchange(gossip), bytes.len() as u64);
    Ok(())
}
