//! Single cases of the membership core, in the simulator: mixed networks, seeds,
//! hearsay, leaving, pauses.

mod simulator;

use std::time::Duration;

use simulator::{Id, Simulator, location, record};
use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{
    Failure, Gossip, Member, Membership, Now, Outcome, Settings, Status,
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Hosts with nothing running yet.
fn hosts(count: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(seed, Settings::default());
    simulator.check_rules();
    for _ in 0..count {
        simulator.add_host();
    }
    simulator
}

/// A network of ours, at rest, on the first `size` of `count` hosts.
fn network(size: usize, count: usize, seed: u64) -> Simulator {
    let mut simulator = hosts(count, seed);
    for id in 0..size {
        simulator.start(id, vec![location(0)]);
    }
    agree_within(&mut simulator, seconds(3));
    simulator.run(seconds(5));
    simulator
}

fn agree_within(simulator: &mut Simulator, limit: Duration) {
    let time = simulator.time_until(limit, Simulator::is_agreed);
    assert!(time.is_some(), "{:?}", simulator.disagreement());
}

fn status(simulator: &Simulator, at: Id, of: Id) -> Option<Status> {
    let node = simulator.node(at).expect("a node of ours");
    node.status_of(&location(of))
}

#[test]
fn ten_nodes_started_at_once_with_one_seed_form_one_network() {
    for seed in 1..=100 {
        let mut simulator = hosts(10, seed);
        for id in (0..10).rev() {
            simulator.start(id, vec![location(0)]);
        }
        agree_within(&mut simulator, seconds(1));
    }
}

#[test]
fn a_node_whose_seed_starts_later_joins_as_soon_as_it_does() {
    let mut simulator = hosts(2, 1);
    simulator.start(1, vec![location(0)]);
    simulator.run(seconds(30));
    simulator.start(0, Vec::new());
    agree_within(&mut simulator, millis(500));
}

#[test]
fn nodes_of_the_original_join_through_ours_and_are_dropped_when_they_die() {
    for seed in 1..=20 {
        let mut simulator = network(3, 5, seed);
        assert!(simulator.start_original(3, 1));
        assert!(simulator.start_original(4, 2));
        agree_within(&mut simulator, seconds(4));
        simulator.kill(3, true);
        agree_within(&mut simulator, seconds(4));
        simulator.kill(4, false);
        agree_within(&mut simulator, seconds(8));
    }
}

#[test]
fn ours_join_through_a_node_of_the_original() {
    for seed in 1..=20 {
        let mut simulator = hosts(4, seed);
        simulator.start_first_original(0);
        // Two at once, next to one another: what the original gets wrong.
        simulator.start(1, vec![location(0)]);
        simulator.start(2, vec![location(0)]);
        agree_within(&mut simulator, seconds(4));
        simulator.start(3, vec![location(0)]);
        agree_within(&mut simulator, seconds(4));
        simulator.leave(1);
        simulator.run(seconds(1));
        agree_within(&mut simulator, seconds(4));
    }
}

#[test]
fn no_one_is_removed_on_hearsay() {
    let mut simulator = network(5, 5, 1);
    simulator.expect_no_death();
    simulator.hear_removal(2, 4);
    simulator.hear_removal(3, 3);
    simulator.run(seconds(10));
    assert!(simulator.is_agreed());
}

#[test]
fn one_whom_a_call_of_the_layer_above_missed_is_tried_before_it_is_accused() {
    let mut simulator = network(5, 5, 1);
    for failure in [Failure::Refused, Failure::Silent] {
        simulator.report_unreachable(1, 3, failure);
        simulator.run(seconds(1));
    }
    let suspicions: u64 = simulator.hosts.iter().map(|host| host.suspicions).sum();
    assert_eq!(suspicions, 0);
}

#[test]
fn a_location_that_was_only_heard_of_is_tried_a_few_times_and_then_down() {
    let mut simulator = network(3, 4, 1);
    simulator.hear_addition(1, 3);
    simulator.run(seconds(20));
    assert_eq!(status(&simulator, 1, 3), Some(Status::Down));
    assert!(simulator.is_agreed(), "no ring has it");
    simulator.start(3, vec![location(0)]);
    agree_within(&mut simulator, seconds(1));
}

#[test]
fn a_restart_is_told_from_a_refutation() {
    let mut simulator = network(5, 5, 1);
    let known = |simulator: &Simulator| {
        let node = simulator.node(0).expect("it runs");
        let member = record(node, &location(3)).clone();
        (member.started, member.incarnation)
    };
    let (started, incarnation) = known(&simulator);
    // A pause long enough to be suspected, and short enough to object.
    simulator.pause(3, seconds(3));
    simulator.run(seconds(6));
    let (after_pause, refuted) = known(&simulator);
    assert!(after_pause == started && refuted > incarnation);
    simulator.kill(3, true);
    simulator.set_clock(3, -3_600_000);
    simulator.start(3, vec![location(1)]);
    agree_within(&mut simulator, seconds(1));
    let (after_restart, returned) = known(&simulator);
    assert!(after_restart < started, "its clock was set back");
    assert!(returned > refuted);
}

#[test]
fn a_clock_that_steps_an_hour_in_either_direction_costs_nobody_anything() {
    const HOUR: i64 = 3_600_000;
    for seed in 1..=20 {
        let mut simulator = network(5, 6, seed);
        simulator.expect_no_death();
        for (id, step) in [(1, HOUR), (2, -HOUR), (1, 0), (2, 0), (3, -HOUR)] {
            simulator.set_clock(id, step);
            simulator.run(seconds(5));
            assert!(simulator.is_agreed(), "{:?}", simulator.disagreement());
        }
        let suspicions: u64 = simulator.hosts.iter().map(|host| host.suspicions).sum();
        assert_eq!(suspicions, 0, "time is told by no wall clock");
        // One whose clock is behind can still object, and learn of a newcomer.
        simulator.pause(3, seconds(3));
        simulator.run(seconds(6));
        simulator.start(5, vec![location(3)]);
        agree_within(&mut simulator, seconds(1));
    }
}

#[test]
fn one_who_leaves_is_told_of_at_once_and_answers_until_it_ends() {
    let mut simulator = network(10, 10, 1);
    simulator.leave(4);
    simulator.run(millis(300));
    assert!(simulator.is_running(4));
    for id in simulator.up() {
        assert_eq!(status(&simulator, id, 4), Some(Status::Left));
    }
    simulator.run(millis(500));
    assert!(!simulator.is_running(4), "told, and gone");
}

#[test]
fn the_last_node_leaves_without_waiting_for_anyone() {
    let mut simulator = hosts(1, 1);
    simulator.start(0, Vec::new());
    simulator.run(seconds(1));
    simulator.leave(0);
    simulator.run(millis(600));
    assert!(!simulator.is_running(0));
}

#[test]
fn one_who_was_paused_for_a_minute_accuses_no_one() {
    for seed in 1..=20 {
        let mut simulator = network(10, 10, seed);
        simulator.pause(4, seconds(60));
        simulator.run(seconds(59));
        let others = simulator.up();
        let suspicions = |simulator: &Simulator| simulator.hosts[4].suspicions;
        let before = suspicions(&simulator);
        simulator.run(seconds(10));
        assert_eq!(suspicions(&simulator), before);
        assert_eq!(others.len(), 9);
        assert!(simulator.is_agreed(), "and it is back");
    }
}

#[test]
fn a_seed_given_by_another_name_is_not_tried_while_its_node_is_here() {
    let at = |millis: u64| Now {
        monotonic: self::millis(millis),
        unix_millis: simulator::START_MILLIS + millis as i64,
    };
    let alias = Location::new("localhost", 9900).unwrap();
    let (network, seeds) = ("test".into(), vec![alias.clone()]);
    let settings = Settings::default();
    let mut node = Membership::new(location(0), network, seeds, settings, at(0), 1);
    let first = node.tick(at(0));
    assert_eq!(first[0].peer, alias);
    let other = Member {
        location: location(1),
        incarnation: simulator::START_MILLIS,
        status: Status::Alive,
        started: simulator::START_MILLIS,
    };
    let reply = Gossip {
        sender: location(1),
        network: node.network().clone(),
        view: 0,
        members: vec![other],
        full: true,
        refused: 0,
    };
    node.reply(at(1), first[0].token, Outcome::Gossip(reply));
    assert!(node.is_on_ring(&location(1)));
    for millis in 2..5_000 {
        for action in node.tick(at(millis)) {
            assert_eq!(action.peer, location(1), "the alias was tried again");
        }
    }
    assert_eq!(node.size(), 2, "the alias is no member");
}

/// One that slept finds old news of its suspicion when it wakes, and objects to that,
/// while it has long been taken for dead. It must not come back as the process it was:
/// others went on without it, and it has missed what they did.
#[test]
fn one_who_objects_to_a_suspicion_after_it_was_given_up_begins_anew() {
    let now = |millis: u64| Now {
        monotonic: Duration::from_millis(millis),
        unix_millis: 1_000_000 + millis as i64,
    };
    let node = |id: Id| {
        Membership::new(
            location(id),
            "test".into(),
            Vec::new(),
            Settings::default(),
            now(0),
            id as u64,
        )
    };
    let gossip = |sender: Id, members: Vec<Member>| Gossip {
        sender: location(sender),
        network: "test".into(),
        view: 0,
        members,
        full: false,
        refused: 0,
    };
    let (mut survivor, mut sleeper) = (node(1), node(2));
    let alive = record(&sleeper, &location(2)).clone();
    survivor.receive(now(1), gossip(2, vec![alive.clone()]));
    survivor.receive(now(2), gossip(3, vec![alive.with_status(Status::Down)]));
    let suspicion = alive.with_status(Status::Suspect);
    sleeper.receive(now(10_000), gossip(3, vec![suspicion]));
    let objection = record(&sleeper, &location(2)).clone();
    assert!(objection.incarnation > alive.incarnation && objection.started == alive.started);

    let answer = survivor.receive(now(10_001), gossip(2, vec![objection.clone()]));
    assert_eq!(survivor.status_of(&location(2)), Some(Status::Down));
    sleeper.receive(now(10_002), answer);
    let anew = record(&sleeper, &location(2)).clone();
    assert!(anew.started > objection.incarnation);
    survivor.receive(now(10_003), gossip(2, vec![anew]));
    assert_eq!(survivor.status_of(&location(2)), Some(Status::Alive));
}
