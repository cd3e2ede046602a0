//! Directed schedules: for some rules of the protocol, a short story each that goes wrong without
//! the rule and that hardly happens by chance. The key is "red" at first.

use thrifty_p2p::store::rebalance::{Rule, Rules};

use super::small_store::{Reply, SmallStore, TIMEOUT};

/// A minute in milliseconds.
const MINUTE: u64 = 60_000;

/// Is the outcome right with all rules, and wrong without this one?
fn needs(rule: Rule, is_right: fn(Rules) -> bool) {
    assert!(is_right(Rules::default()), "wrong with all rules");
    assert!(
        !is_right(Rules::without(rule)),
        "right without {rule:?}, too"
    );
}

fn is(read: Option<String>, value: &str) -> bool {
    read.as_deref() == Some(value)
}

/// A client's first attempt to write "blue" is delayed, and its second is acknowledged.
/// Others write "green" for a minute, until no node remembers "blue".
/// Then the first attempt arrives. The key must stay "green".
fn an_attempt_that_arrives_after_a_minute_changes_nothing(rules: Rules) -> bool {
    let store = SmallStore::settled(2, 2, rules);
    let [primary, other] = store.ranked();
    let blue = store.request("blue");
    assert_eq!(store.write(primary, &blue), Reply::Done);
    store.pass(MINUTE);
    // One forgets what is old only when it remembers something in its place.
    for _ in 0..20 {
        let green = store.request("green");
        assert_eq!(store.write(primary, &green), Reply::Done);
    }
    store.write(primary, &blue);
    is(store.read(primary), "green") && is(store.read(other), "green")
}

#[test]
fn requests_that_come_too_late_must_be_refused() {
    needs(
        Rule::RefuseTheLate,
        an_attempt_that_arrives_after_a_minute_changes_nothing,
    );
}

/// The primary writes "blue", and the link to one of the two other owners is cut.
/// Its caller gives up; the key is still read as "red"; a minute later the link is whole.
/// The key must stay "red": the write was given up and must not have effect so late.
fn a_write_that_was_given_up_has_no_effect_when_a_link_is_whole_again(rules: Rules) -> bool {
    let store = SmallStore::settled(3, 3, rules);
    let [primary, near, _far] = store.ranked();
    let blue = store.request("blue");
    let mut writes = store.begin(primary, &blue).expect("it is the primary");
    store.send(primary, &mut writes, &[near]);
    store.pass(TIMEOUT);
    store.give_up_if_late(primary, &blue, &mut writes);
    store.send(primary, &mut writes, &[near]);
    assert!(is(store.read(primary), "red"));
    store.pass(MINUTE);
    store.send_to_all(primary, &mut writes);
    let reply = store.finish(primary, writes);
    let is_red = is(store.read(primary), "red") && is(store.read(near), "red");
    is_red && reply == Reply::Refused
}

#[test]
fn writes_that_are_given_up_must_be_undone() {
    needs(
        Rule::Undo,
        a_write_that_was_given_up_has_no_effect_when_a_link_is_whole_again,
    );
}

/// The primary, whose clock is a minute ahead, undoes a write: it brings "red" to the last owner,
/// with a version of its clock, and dies. The next owner writes "green", which is acknowledged.
/// Then the last owner replays what it has. The key must stay "green".
fn a_write_outlasts_the_undo_of_a_primary_whose_clock_was_ahead(rules: Rules) -> bool {
    let store = SmallStore::settled(3, 3, rules);
    let [dies, next, last] = store.ranked();
    store.set_ahead(dies, MINUTE as i64);
    let blue = store.request("blue");
    let mut writes = store.begin(dies, &blue).expect("it is the primary");
    store.pass(TIMEOUT);
    assert!(store.give_up_if_late(dies, &blue, &mut writes));
    store.send(dies, &mut writes, &[last]);
    store.set_silent(dies, true);
    store.declare_down(next, dies);
    store.push_pull(next, last);
    let green = store.request("green");
    assert_eq!(store.write(next, &green), Reply::Done);
    store.replay(last);
    is(store.read(next), "green") && is(store.read(last), "green")
}

#[test]
fn writes_must_have_larger_versions_than_any_owner() {
    needs(
        Rule::OvertakeOwners,
        a_write_outlasts_the_undo_of_a_primary_whose_clock_was_ahead,
    );
}

/// The primary, whose clock is a minute ahead, hangs before it sends its copies of "blue", and
/// is declared down. "blue" is acknowledged to a retry at the next owner, then "green" is.
/// The primary continues and sends its copies. The key must stay "green".
fn copies_of_a_process_that_was_declared_down_change_nothing(rules: Rules) -> bool {
    let store = SmallStore::settled(3, 3, rules);
    let [hangs, next, last] = store.ranked();
    store.set_ahead(hangs, MINUTE as i64);
    let mut blue = store.request("blue");
    let mut writes = store.begin(hangs, &blue).expect("it is the primary");
    store.set_silent(hangs, true);
    store.declare_down(next, hangs);
    store.push_pull(next, last);
    store.network.exchange(&[next, last], &[next, last]);
    blue.try_again(&store);
    assert_eq!(store.write(next, &blue), Reply::Done);
    let green = store.request("green");
    assert_eq!(store.write(next, &green), Reply::Done);

    store.set_silent(hangs, false);
    store.send(hangs, &mut writes, &[next, last]);
    assert_eq!(store.finish(hangs, writes), Reply::Unfinished);
    store.replay(next);
    store.replay(last);
    is(store.read(next), "green")
}

#[test]
fn copies_of_processes_that_are_gone_must_be_fenced() {
    needs(
        Rule::FenceTheGone,
        copies_of_a_process_that_was_declared_down_change_nothing,
    );
}

/// Three copies. The primary hangs. Only the second owner declares it down; it writes "blue",
/// acknowledges it, and dies. The primary continues, and asks those that are left whether they
/// have gone on without it. It must not answer "red" then.
fn a_primary_that_hung_does_not_answer_without_the_write_it_missed(rules: Rules) -> bool {
    let store = SmallStore::settled(4, 3, rules);
    let [hangs, dies, third, fourth] = store.ranked();
    store.set_silent(hangs, true);
    store.declare_down(dies, hangs);
    let blue = store.request("blue");
    assert_eq!(store.write(dies, &blue), Reply::Done);
    store.set_silent(dies, true);
    store.declare_down(third, dies);
    store.push_pull(third, fourth);

    store.set_silent(hangs, false);
    store.isolate(hangs);
    assert_eq!(store.read(hangs), None, "it has been isolated");
    for other in [third, fourth] {
        store.push_pull(hangs, other);
    }
    let live = [hangs, third, fourth];
    store.network.exchange(&live, &[]);
    let early = store.read(hangs);
    live.iter().for_each(|node| store.replay(*node));
    !is(early, "red") && is(store.read(third), "blue") && is(store.read(hangs), "blue")
}

#[test]
fn copies_must_count_only_where_it_is_known_who_is_gone() {
    needs(
        Rule::TellWhoIsGone,
        a_primary_that_hung_does_not_answer_without_the_write_it_missed,
    );
}

/// Three copies. The primary takes the second owner for dead by mistake, writes "blue" to the
/// others, acknowledges it, and dies. The second owner has heard nothing of all this.
/// A node that knows only of this death asks it next. It must not answer "red".
fn an_owner_that_was_declared_down_by_mistake_does_not_answer(rules: Rules) -> bool {
    let store = SmallStore::settled(5, 3, rules);
    let [dies, mistaken, third, fourth, reader] = store.ranked();
    store.declare_down(dies, mistaken);
    for other in [third, fourth] {
        store.push_pull(dies, other);
    }
    let blue = store.request("blue");
    assert_eq!(store.write(dies, &blue), Reply::Done);
    store.set_silent(dies, true);
    store.declare_down(reader, dies);
    let early = store.read(reader);

    // The news reaches all, and the second owner joins again.
    let live = [reader, third, fourth, mistaken];
    for one in live {
        live.iter().for_each(|other| store.push_pull(one, *other));
    }
    store.network.exchange(&live, &[]);
    live.iter().for_each(|node| store.replay(*node));
    !is(early, "red") && is(store.read(reader), "blue") && is(store.read(mistaken), "blue")
}

#[test]
fn only_the_first_owner_must_answer_as_it_knows_itself() {
    needs(
        Rule::AskFirstOwner,
        an_owner_that_was_declared_down_by_mistake_does_not_answer,
    );
}

/// The primary brings "blue" to one owner, gives it up, brings the undo to the other, and dies.
/// Both replay what they have, the one with "blue" first. "blue" must never be read: "red" is
/// what stays.
#[test]
fn a_replay_shows_no_write_whose_undo_another_owner_has() {
    let store = SmallStore::settled(3, 3, Rules::default());
    let [dies, next, last] = store.ranked();
    let mut blue = store.request("blue");
    let mut writes = store.begin(dies, &blue).expect("it is the primary");
    store.send(dies, &mut writes, &[next]);
    store.pass(TIMEOUT);
    assert!(store.give_up_if_late(dies, &blue, &mut writes));
    store.send(dies, &mut writes, &[last]);
    store.set_silent(dies, true);
    store.declare_down(next, dies);
    store.push_pull(next, last);
    store.replay(next);
    assert_eq!(store.read(next), None, "it may have been undone");
    store.replay(last);
    store.replay(next);
    assert!(is(store.read(next), "red") && is(store.read(last), "red"));
    blue.try_again(&store);
    assert_eq!(store.write(next, &blue), Reply::Refused);
}

/// "red" is there, so a client is told that its "blue" was not written. It had sent it twice: the
/// first attempt is still on its way by way of another node. The primary dies, and "red" is deleted.
/// Then the first attempt arrives. It must not have effect.
fn a_late_attempt_of_a_write_whose_condition_was_not_met_changes_nothing(rules: Rules) -> bool {
    let store = SmallStore::settled(3, 3, rules);
    let [dies, next, last] = store.ranked();
    let mut blue = store.request_if_absent("blue");
    blue.try_again(&store);
    assert_eq!(store.write(dies, &blue), Reply::Unmet);
    store.set_silent(dies, true);
    for node in [next, last] {
        store.declare_down(node, dies);
    }
    store.network.exchange(&[next, last], &[next, last]);
    assert_eq!(store.write(next, &store.deletion()), Reply::Done);
    store.write(next, &blue) == Reply::Unmet && store.read(next).is_none()
}

#[test]
fn conditions_that_were_not_met_must_be_known_to_all_owners() {
    needs(
        Rule::NoteUnmet,
        a_late_attempt_of_a_write_whose_condition_was_not_met_changes_nothing,
    );
}
