//! What the membership core costs and how fast it is, at 10, 100 and 1000 nodes,
//! measured in the simulator until every live node agrees.

mod simulator;

use std::time::Duration;

use simulator::{Id, Simulator, location};
use thrifty_p2p::membership::Settings;

const SIZES: [usize; 3] = [10, 100, 1000];

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A network of `size` nodes that all know one another, at rest.
fn network(size: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(seed, Settings::default());
    for _ in 0..size {
        simulator.add_host();
    }
    for id in 0..size {
        simulator.start(id, vec![location(0)]);
        simulator.run(millis(1));
    }
    let formed = simulator.time_until(seconds(60), Simulator::is_agreed);
    assert!(formed.is_some(), "{size} nodes did not find one another");
    simulator.run(seconds(5));
    simulator
}

/// How many runs are worth their time: the larger the network, the less they differ.
fn runs(size: usize) -> u64 {
    match size {
        10 => 40,
        100 => 8,
        _ => 1,
    }
}

/// Does something to networks of a size, and says how long it took until all agree.
fn slowest(what: &str, size: usize, act: impl Fn(&mut Simulator)) -> Duration {
    let times = (0..runs(size)).map(|seed| {
        let mut simulator = network(size, seed);
        act(&mut simulator);
        let calls = calls(&simulator);
        let time = simulator.time_until(seconds(60), Simulator::is_agreed);
        let time = time.unwrap_or_else(|| panic!("{what}: {:?}", simulator.disagreement()));
        println!(
            "{what} n={size}: {time:?}, {} calls a node",
            (self::calls(&simulator) - calls) / size as u64
        );
        time
    });
    times.max().unwrap_or_default()
}

fn calls(simulator: &Simulator) -> u64 {
    simulator.hosts.iter().map(|host| host.calls).sum()
}

fn victim(simulator: &Simulator) -> Id {
    simulator.hosts.len() / 2
}

#[test]
fn a_join_is_seen_by_all() {
    for (size, budget) in SIZES
        .into_iter()
        .zip([millis(500), millis(1000), millis(2000)])
    {
        let time = slowest("join", size, |simulator| {
            let id = simulator.add_host();
            simulator.start(id, vec![location(1)]);
        });
        assert!(time <= budget, "{time:?} at {size} nodes");
    }
}

#[test]
fn a_killed_node_is_off_every_ring() {
    for size in SIZES {
        let time = slowest("kill", size, |simulator| {
            simulator.kill(victim(simulator), true);
        });
        assert!(time <= seconds(3), "{time:?} at {size} nodes");
    }
}

#[test]
fn a_hanging_node_is_off_every_ring() {
    for size in SIZES {
        let time = slowest("hang", size, |simulator| {
            simulator.hang(victim(simulator));
        });
        assert!(time <= seconds(7), "{time:?} at {size} nodes");
    }
}

#[test]
fn a_graceful_leave_is_seen_by_all() {
    for (size, budget) in SIZES.into_iter().zip([seconds(1), seconds(1), seconds(2)]) {
        let time = slowest("leave", size, |simulator| {
            simulator.leave(victim(simulator));
        });
        assert!(time <= budget, "{time:?} at {size} nodes");
    }
}

#[test]
fn two_halves_of_a_network_become_one_again_and_lose_no_one() {
    for size in SIZES {
        let time = slowest("heal", size, |simulator| {
            simulator.split((0..size).map(|id| (id % 2) as u8).collect());
            let parted = simulator.time_until(seconds(60), |simulator| {
                let mut nodes = (0..size).filter_map(|id| simulator.node(id));
                nodes.all(|node| node.size() == size / 2)
            });
            assert!(parted.is_some(), "the halves have not parted");
            simulator.network.heal();
            for host in &mut simulator.hosts {
                host.false_deaths = 0;
            }
        });
        assert!(time <= seconds(4), "{time:?} at {size} nodes");
    }
}

#[test]
fn a_thousand_nodes_join_through_one_seed() {
    let mut simulator = Simulator::new(1, Settings::default());
    for _ in 0..1000 {
        simulator.add_host();
    }
    for id in 0..1000 {
        simulator.start(id, vec![location(0)]);
        simulator.run(millis(1));
    }
    let time = simulator.time_until(seconds(30), Simulator::is_agreed);
    println!(
        "mass join: {time:?}, {} calls a node",
        calls(&simulator) / 1000
    );
    assert!(time.is_some_and(|time| time <= seconds(5)), "{time:?}");
}

#[test]
fn a_network_at_rest_sends_little() {
    for size in SIZES {
        let mut simulator = network(size, 1);
        let before: Vec<u64> = simulator.hosts.iter().map(|host| host.sent).collect();
        simulator.run(seconds(20));
        let sent = simulator.hosts.iter().zip(before);
        let sent: Vec<u64> = sent
            .map(|(host, before)| (host.sent - before) / 20)
            .collect();
        let mean = sent.iter().sum::<u64>() / size as u64;
        println!(
            "rest n={size}: {mean} bytes a second, at most {:?}",
            sent.iter().max()
        );
        assert!(mean <= 500, "{mean} bytes a second at {size} nodes");
    }
}

#[test]
fn pauses_kill_no_one() {
    let mut simulator = network(100, 1);
    for id in 0..10 {
        simulator.run(seconds(55));
        simulator.pause(id * 7, seconds(3));
        simulator.run(seconds(5));
    }
    let deaths: u64 = simulator.hosts.iter().map(|host| host.false_deaths).sum();
    assert_eq!(deaths, 0);
    assert!(simulator.is_agreed());
}
