//! Cases that hardly happen by chance: words that come late, networks that meet, founders among others.

use std::collections::BTreeSet;

use super::{Moves, Phase, Rules, Standing};
use crate::location::Location;
use crate::store::view::Peer;

fn peer(port: u16, started: i64) -> Peer {
    Peer::new(Location::new("127.0.0.1", port).unwrap(), started)
}

fn moves(me: &Peer) -> Moves {
    Moves::new(me.clone(), Some(2), Rules::default())
}

fn stand(moves: &mut Moves, me: &Peer, live: &[&Peer], leaving: &[&Peer]) {
    moves.stand(Standing {
        me: me.clone(),
        live: live.iter().copied().cloned().collect(),
        leaving: leaving.iter().copied().cloned().collect(),
    });
}

/// One that founded, and one that joined it.
fn two_settled(one: &Peer, other: &Peer) -> (Moves, Moves) {
    let (mut first, mut second) = (moves(one), moves(other));
    first.found(2);
    stand(&mut first, one, &[one, other], &[]);
    stand(&mut second, other, &[one, other], &[]);
    settle(&mut first, &mut second);
    (first, second)
}

/// Each asks the other how far it is, and copies the little there is, until all is settled.
fn settle(one: &mut Moves, other: &mut Moves) {
    for _ in 0..5 {
        ask(one, other);
        ask(other, one);
    }
    assert!(one.is_settled() && other.is_settled());
    assert!(one.is_serving() && other.is_serving());
}

fn ask(asker: &mut Moves, asked: &Moves) {
    asker.hear(Some(asker.asking()), asked.word(&asker.me), asked.history());
    copy_nothing(asker);
}

/// All sources have nothing to give.
fn copy_nothing(moves: &mut Moves) {
    for (source, _) in moves.pulls() {
        moves.pulled(moves.attempt(), &source, None);
    }
}

#[test]
fn what_was_said_to_one_given_up_does_not_let_in_who_comes_back() {
    let (one, other, again) = (peer(1, 1), peer(2, 1), peer(2, 2));
    let (mut stays, mut hangs) = two_settled(&one, &other);

    let (asked, late) = (hangs.asking(), stays.word(&other));
    let history = stays.history();
    stand(&mut stays, &one, &[&one], &[]);
    assert!(stays.is_settled(), "it goes on without the other");
    stand(&mut hangs, &again, &[&one, &again], &[]);
    hangs.hear(Some(asked), late.clone(), history);
    hangs.hear(None, late, None);
    assert!(!hangs.is_serving(), "it lacks what was written meanwhile");

    stand(&mut stays, &one, &[&one, &again], &[]);
    settle(&mut stays, &mut hangs);
}

#[test]
fn of_two_words_the_one_said_later_counts() {
    let (one, other, guest) = (peer(1, 1), peer(2, 1), peer(3, 1));
    let (mut mine, mut theirs) = two_settled(&one, &other);

    // The view is the same again after a guest has come and gone.
    let late = theirs.word(&one);
    for live in [&[&one, &other, &guest][..], &[&one, &other]] {
        stand(&mut mine, &one, live, &[]);
        stand(&mut theirs, &other, live, &[]);
        ask(&mut mine, &theirs);
    }
    assert_eq!(late.view, mine.current().id());
    mine.hear(None, late, None);
    assert_eq!(mine.phase(), Phase::Synced, "the other one copies still");
    settle(&mut mine, &mut theirs);
}

#[test]
fn who_joins_two_networks_that_meet_keeps_to_the_list_of_one() {
    let [one, other, new] = [1, 2, 3].map(|port| peer(port, 1));
    let [mut first, mut second, mut joins] = [&one, &other, &new].map(moves);
    first.found(2);
    second.found(2);
    for (node, me) in [
        (&mut first, &one),
        (&mut second, &other),
        (&mut joins, &new),
    ] {
        stand(node, me, &[&one, &other, &new], &[]);
    }
    let mut attempts = BTreeSet::new();
    for told in [&first, &second, &first, &second] {
        joins.hear(Some(joins.asking()), told.word(&new), told.history());
        attempts.insert(joins.attempt());
    }
    assert_eq!(attempts.len(), 1, "it copies anew with each word");

    copy_nothing(&mut joins);
    assert_eq!(joins.phase(), Phase::Synced);
    for _ in 0..4 {
        ask(&mut first, &joins);
        ask(&mut first, &second);
        ask(&mut second, &joins);
        ask(&mut second, &first);
        ask(&mut joins, &first);
        ask(&mut joins, &second);
    }
    for node in [first, second, joins] {
        assert!(node.is_settled() && node.is_serving(), "{node:?}");
    }
}

#[test]
fn who_founds_among_others_answers_for_nothing_before_all_of_it_is_here() {
    let [one, other, new] = [1, 2, 3].map(|port| peer(port, 1));
    let [mut founder, mut holder] = [&one, &other].map(moves);
    holder.found(2);
    // The one that holds everything is given up and comes back: nobody is enrolled.
    let again = peer(2, 2);
    stand(&mut holder, &again, &[&one, &again], &[]);
    stand(&mut founder, &one, &[&one, &again], &[]);
    founder.hear(Some(founder.asking()), holder.word(&one), None);
    let founded = founder.current().id();
    assert_eq!(founder.read_view().map(|view| view.id()), Some(founded));
    holder.hear(
        Some(holder.asking()),
        founder.word(&again),
        founder.history(),
    );

    for (node, me) in [(&mut founder, &one), (&mut holder, &again)] {
        assert!(!node.may_answer(founded));
        stand(node, me, &[&one, &again, &new], &[]);
        assert!(
            !node.may_answer(founded),
            "a view later nothing was copied yet"
        );
    }
}

#[test]
fn only_a_list_whose_teller_has_this_node_in_view_is_taken_over() {
    let (one, new) = (peer(1, 1), peer(2, 1));
    let (mut first, mut joins) = (moves(&one), moves(&new));
    first.found(2);
    stand(&mut joins, &new, &[&one, &new], &[]);
    joins.hear(Some(joins.asking()), first.word(&new), first.history());
    assert!(joins.read_view().is_none(), "it may be forgotten meanwhile");
    stand(&mut first, &one, &[&one, &new], &[]);
    settle(&mut first, &mut joins);
}

#[test]
fn who_reads_by_a_view_that_is_not_known_here_lets_nobody_in() {
    let (one, new) = (peer(1, 1), peer(2, 1));
    let (mut first, mut joins) = (moves(&one), moves(&new));
    first.found(2);
    for (node, me) in [(&mut first, &one), (&mut joins, &new)] {
        stand(node, me, &[&one, &new], &[]);
    }
    let mut word = first.word(&new);
    word.views.push(77);
    word.read = Some(77);
    joins.hear(Some(joins.asking()), word, first.history());
    assert!(
        !joins.is_serving(),
        "writes here would not go where that one reads"
    );
    joins.hear(Some(joins.asking()), first.word(&new), first.history());
    assert!(joins.is_serving());
}
