//! Single cases of the membership core in the simulator: seeds, legacy nodes, candidates, leaving,
//! pauses, and wrong clocks.

mod simulator;

use std::time::Duration;

use simulator::{Id, Simulator, location, record};
use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{
    Config, Failure, Gossip, Member, Membership, Now, Outcome, Status, Tags,
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Hosts on which nothing runs.
fn hosts(count: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(seed, Config::default());
    simulator.check_invariants();
    for _ in 0..count {
        simulator.add_host();
    }
    simulator
}

/// A network of cold nodes on the first `size` of `count` hosts.
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
    let node = simulator.node(at).expect("a node runs");
    node.status_of(&location(of))
}

/// A gossip with these records.
fn gossip(sender: Id, members: Vec<Member>) -> Gossip {
    Gossip {
        sender: location(sender),
        network: "test".into(),
        digest: 0,
        members,
        full: false,
        learned: false,
        joins: None,
        refused: 0,
    }
}

/// A node outside the simulator.
fn node(id: Id) -> Membership {
    let (network, config) = ("test".into(), Config::default());
    Membership::new(location(id), network, Vec::new(), config, now(0), id as u64)
}

/// The time of a node outside the simulator.
fn now(millis: u64) -> Now {
    Now {
        monotonic: Duration::from_millis(millis),
        unix_millis: simulator::START_UNIX_MILLIS + millis as i64,
    }
}

#[test]
fn ten_nodes_that_start_at_once_with_one_seed_form_one_network() {
    for seed in 1..=100 {
        let mut simulator = hosts(10, seed);
        for id in (0..10).rev() {
            simulator.start(id, vec![location(0)]);
        }
        agree_within(&mut simulator, seconds(1));
    }
}

#[test]
fn a_node_joins_within_half_a_second_of_the_start_of_its_seed() {
    let mut simulator = hosts(2, 1);
    simulator.start(1, vec![location(0)]);
    simulator.run(seconds(30));
    simulator.start(0, Vec::new());
    agree_within(&mut simulator, millis(500));
}

#[test]
fn legacy_nodes_join_through_any_node_and_are_removed_after_a_crash() {
    for seed in 1..=20 {
        let mut simulator = network(3, 5, seed);
        assert!(simulator.start_legacy(3, 1));
        assert!(simulator.start_legacy(4, 2));
        agree_within(&mut simulator, seconds(4));
        simulator.kill(3, true);
        agree_within(&mut simulator, seconds(4));
        simulator.kill(4, false);
        agree_within(&mut simulator, seconds(8));
    }
}

#[test]
fn nodes_join_through_a_legacy_node() {
    for seed in 1..=20 {
        let mut simulator = hosts(4, seed);
        simulator.start_first_legacy(0);
        // Legacy nodes alone lose one of two nodes that join at once.
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
fn a_remove_message_about_a_running_member_removes_it_from_no_ring() {
    let mut simulator = network(5, 5, 1);
    simulator.forbid_removals();
    simulator.receive_remove(2, location(4));
    simulator.receive_remove(3, location(3));
    simulator.run(seconds(10));
    assert!(simulator.is_agreed());
}

#[test]
fn a_member_reported_as_unreachable_is_not_suspected_if_it_replies_to_a_probe() {
    let mut simulator = network(5, 5, 1);
    for failure in [Failure::Refused, Failure::NoReply] {
        simulator.report_unreachable(1, 3, failure);
        simulator.run(seconds(1));
    }
    assert_eq!(simulator.suspicions(), 0);
}

fn cut_links(simulator: &Simulator, at: Id) -> Vec<Location> {
    let node = simulator.node(at).expect("a node runs");
    node.cut_links().map(|(peer, _)| peer.clone()).collect()
}

#[test]
fn a_member_that_only_this_node_cannot_call_is_known_with_who_can_until_it_replies() {
    let mut simulator = network(5, 5, 1);
    simulator.network.cuts.insert((1, 3));
    simulator.report_unreachable(1, 3, Failure::NoReply);
    simulator.run(seconds(2));
    assert_eq!(cut_links(&simulator, 1), [location(3)]);
    let node = simulator.node(1).expect("a node runs");
    let (_, helper) = node.cut_links().next().expect("a link is cut");
    assert!(![location(1), location(3)].contains(helper));
    assert!(
        (0..5)
            .filter(|id| *id != 1)
            .all(|id| cut_links(&simulator, id).is_empty())
    );
    // Without traffic the probes of the schedule find it, and they go on.
    simulator.run(seconds(20));
    assert_eq!(cut_links(&simulator, 1), [location(3)]);
    assert_eq!(simulator.suspicions(), 0);
    simulator.network.cuts.clear();
    simulator.run(seconds(2));
    assert!(cut_links(&simulator, 1).is_empty());
}

#[test]
fn a_cut_link_ends_with_the_member() {
    let mut simulator = network(5, 5, 2);
    simulator.network.cuts.insert((1, 3));
    simulator.report_unreachable(1, 3, Failure::NoReply);
    simulator.run(seconds(2));
    simulator.kill(3, true);
    simulator.run(seconds(10));
    assert!(cut_links(&simulator, 1).is_empty());
}

fn silent(simulator: &Simulator, at: Id) -> Vec<Location> {
    let node = simulator.node(at).expect("a node runs");
    node.silent()
        .map(|(location, _)| location.clone())
        .collect()
}

#[test]
fn a_member_is_silent_until_its_host_says_that_no_process_listens() {
    let mut simulator = network(5, 5, 3);
    simulator.kill(2, true);
    simulator.run(seconds(10));
    assert_eq!(status(&simulator, 0, 2), Some(Status::Down));
    assert!(silent(&simulator, 0).is_empty(), "it has ended");
    simulator.hang(3);
    simulator.run(seconds(20));
    for id in [0, 1, 4] {
        assert_eq!(silent(&simulator, id), [location(3)]);
    }
    simulator.kill(3, true);
    simulator.run(seconds(60));
    for id in [0, 1, 4] {
        assert!(silent(&simulator, id).is_empty(), "it has ended since");
    }
}

#[test]
fn a_silent_member_that_returns_or_is_declared_gone_is_none_any_more() {
    let mut simulator = network(3, 4, 4);
    simulator.network.partition(vec![0, 0, 1, 0]);
    simulator.run(seconds(20));
    assert_eq!(silent(&simulator, 0), [location(2)]);
    let (mut node, now) = (simulator.node(0).unwrap().clone(), simulator.now(0));
    assert!(!node.declare_gone(now, &location(1)), "it is not down");
    assert!(node.declare_gone(now, &location(2)));
    assert_eq!(node.silent().count(), 0);
    assert!(!node.declare_gone(now, &location(2)), "it is gone already");
    assert!(
        node.members().all(|member| member.location != location(2)),
        "no joiner learns of it"
    );
    // The minority of one has two silent members.
    assert_eq!(silent(&simulator, 2), [location(0), location(1)]);
    simulator.network.heal();
    agree_within(&mut simulator, seconds(10));
    simulator.run(seconds(1));
    assert!((0..3).all(|id| silent(&simulator, id).is_empty()));
}

#[test]
fn a_candidate_that_never_replies_is_down_and_on_no_ring() {
    let mut simulator = network(3, 4, 1);
    simulator.receive_add(1, location(3));
    simulator.run(seconds(20));
    assert_eq!(status(&simulator, 1, 3), Some(Status::Down));
    assert!(simulator.is_agreed(), "a ring has the candidate");
    simulator.start(3, vec![location(0)]);
    agree_within(&mut simulator, seconds(1));
}

#[test]
fn a_restart_changes_the_generation_and_a_refutation_does_not() {
    let mut simulator = network(5, 5, 1);
    let known = |simulator: &Simulator| {
        let node = simulator.node(0).expect("a node runs");
        let member = record(node, &location(3)).clone();
        (member.generation, member.incarnation)
    };
    let (generation, incarnation) = known(&simulator);
    // Long enough for a suspicion, and short enough for a refutation.
    simulator.pause(3, seconds(3));
    simulator.run(seconds(6));
    let (after_pause, refuted) = known(&simulator);
    assert!(after_pause == generation && refuted > incarnation);
    simulator.kill(3, true);
    simulator.set_clock(3, -3_600_000);
    simulator.start(3, vec![location(1)]);
    agree_within(&mut simulator, seconds(1));
    let (after_restart, returned) = known(&simulator);
    assert!(
        after_restart < generation,
        "a restart with a clock set back has a smaller generation"
    );
    assert!(returned > refuted, "incarnations grow at any clock");
}

#[test]
fn a_wall_clock_that_is_set_an_hour_forward_or_back_causes_no_suspicion() {
    const HOUR: i64 = 3_600_000;
    for seed in 1..=20 {
        let mut simulator = network(5, 6, seed);
        simulator.forbid_removals();
        for (id, step) in [(1, HOUR), (2, -HOUR), (1, 0), (2, 0), (3, -HOUR)] {
            simulator.set_clock(id, step);
            simulator.run(seconds(5));
            assert!(simulator.is_agreed(), "{:?}", simulator.disagreement());
        }
        assert_eq!(simulator.suspicions(), 0);
        // A node whose clock is behind can refute, and lets a new node join.
        simulator.pause(3, seconds(3));
        simulator.run(seconds(6));
        simulator.start(5, vec![location(3)]);
        agree_within(&mut simulator, seconds(1));
    }
}

#[test]
fn all_nodes_know_of_a_leave_within_300_ms_and_the_process_ends_after_that() {
    let mut simulator = network(10, 10, 1);
    simulator.leave(4);
    simulator.run(millis(300));
    assert!(simulator.is_running(4));
    for id in simulator.up() {
        assert_eq!(status(&simulator, id, 4), Some(Status::Left));
    }
    simulator.run(millis(500));
    assert!(!simulator.is_running(4), "the leaving process still runs");
}

#[test]
fn the_last_node_leaves_within_600_ms() {
    let mut simulator = hosts(1, 1);
    simulator.start(0, Vec::new());
    simulator.run(seconds(1));
    simulator.leave(0);
    simulator.run(millis(600));
    assert!(!simulator.is_running(0));
}

#[test]
fn a_node_that_was_paused_for_a_minute_suspects_no_member() {
    for seed in 1..=20 {
        let mut simulator = network(10, 10, seed);
        simulator.pause(4, seconds(60));
        simulator.run(seconds(59));
        let suspicions = |simulator: &Simulator| simulator.hosts[4].suspicions;
        let before = suspicions(&simulator);
        simulator.run(seconds(10));
        assert_eq!(suspicions(&simulator), before);
        assert!(simulator.is_agreed(), "{:?}", simulator.disagreement());
    }
}

#[test]
fn a_seed_that_is_an_alias_of_a_live_member_is_not_called_again() {
    let alias = Location::new("localhost", 9900).unwrap();
    let (network, seeds) = ("test".into(), vec![alias.clone()]);
    let config = Config::default();
    let mut node = Membership::new(location(0), network, seeds, config, now(0), 1);
    let first = node.tick(now(0));
    assert_eq!(first[0].peer, alias);
    let other = Member {
        location: location(1),
        incarnation: simulator::START_UNIX_MILLIS,
        status: Status::Alive,
        generation: simulator::START_UNIX_MILLIS,
        tags: Tags::default(),
    };
    let reply = gossip(1, vec![other]);
    node.reply(now(1), first[0].token, Outcome::Gossip(reply));
    assert!(node.is_on_ring(&location(1)));
    for millis in 2..5_000 {
        for action in node.tick(now(millis)) {
            assert_eq!(action.peer, location(1), "the alias was called again");
        }
    }
    assert_eq!(node.size(), 2, "the alias is a member");
}

#[test]
fn a_reply_has_learned_set_exactly_if_the_request_changed_the_table() {
    let mut server = node(1);
    let request = gossip(2, vec![record(&node(2), &location(2)).clone()]);
    for learned in [true, false] {
        let reply = server.on_exchange(now(1), request.clone());
        assert_eq!((reply.learned, reply.full), (learned, false));
    }
}

/// After a long pause a node may receive an old suspicion first and refute that, although it was
/// declared down since. The others continued without it, and it has missed what they did, so it
/// must not return with its old generation.
#[test]
fn a_node_that_refutes_a_suspicion_after_it_was_declared_down_returns_with_a_new_generation() {
    let (mut other, mut paused) = (node(1), node(2));
    let alive = record(&paused, &location(2)).clone();
    other.on_exchange(now(1), gossip(2, vec![alive.clone()]));
    other.on_exchange(now(2), gossip(3, vec![alive.with_status(Status::Down)]));
    let suspicion = alive.with_status(Status::Suspect);
    paused.on_exchange(now(10_000), gossip(3, vec![suspicion]));
    let refutation = record(&paused, &location(2)).clone();
    assert!(refutation.incarnation > alive.incarnation);
    assert_eq!(refutation.generation, alive.generation);

    let reply = other.on_exchange(now(10_001), gossip(2, vec![refutation.clone()]));
    assert_eq!(other.status_of(&location(2)), Some(Status::Down));
    paused.on_exchange(now(10_002), reply);
    let returned = record(&paused, &location(2)).clone();
    assert!(returned.generation > refutation.incarnation);
    other.on_exchange(now(10_003), gossip(2, vec![returned]));
    assert_eq!(other.status_of(&location(2)), Some(Status::Alive));
}

/// A node may hang as soon as it leaves, and be declared down by nodes that have not heard of
/// that. They continued without it, and must not wait for it or rely on it again.
#[test]
fn a_node_that_was_declared_down_while_it_left_leaves_with_a_new_generation() {
    let (mut other, mut leaver) = (node(1), node(2));
    let alive = record(&leaver, &location(2)).clone();
    other.on_exchange(now(1), gossip(2, vec![alive.clone()]));
    leaver.leave(now(1));
    other.on_exchange(now(2), gossip(3, vec![alive.with_status(Status::Down)]));
    let left = record(&leaver, &location(2)).clone();
    assert_eq!(left.status, Status::Left);

    let reply = other.on_exchange(now(10_001), gossip(2, vec![left.clone()]));
    assert_eq!(other.status_of(&location(2)), Some(Status::Down));
    leaver.on_exchange(now(10_002), reply);
    let returned = record(&leaver, &location(2)).clone();
    assert_eq!(returned.status, Status::Left);
    assert!(returned.generation > left.generation);
    other.on_exchange(now(10_003), gossip(2, vec![returned.clone()]));
    assert_eq!(record(&other, &location(2)), &returned);
}
