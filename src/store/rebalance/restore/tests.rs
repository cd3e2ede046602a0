use std::collections::BTreeSet;

use super::*;
use crate::location::Location;
use crate::store::rebalance::{MemberSnapshot, Rules};

fn node(port: u16, generation: i64) -> NodeId {
    NodeId::new(Location::new("127.0.0.1", port).unwrap(), generation)
}

/// What a node of that life has saved of a placement of these.
fn saved(life: &NodeId, placement: &[&NodeId], settlement: u64) -> Saved {
    Saved {
        lives: vec![life.clone()],
        placement: Some(Arc::new(Placement::new(placement.iter().copied().cloned()))),
        settlement,
    }
}

/// A node that starts again with this, when these are members.
fn started(me: &NodeId, live: &[&NodeId], saved: Option<Saved>) -> Rebalance {
    let mut rebalance = Rebalance::new(me.clone(), Some(3), Rules::default());
    rebalance.use_storage(saved.unwrap_or_default(), false);
    rebalance.update_members(MemberSnapshot {
        me: me.clone(),
        live: live.iter().copied().cloned().collect(),
        leaving: BTreeSet::new(),
    });
    rebalance.mark_joined();
    rebalance.on_published();
    rebalance
}

/// One takes over the status of the other, and does what its caller has to do.
fn ask(asker: &mut Rebalance, asked: &Rebalance) {
    let (asked_at, status) = (asker.isolations(), asked.status_for(&asker.me));
    asker.on_status(Some(asked_at), status, asked.history());
    for _ in 0..3 {
        asker.on_published();
        if asker.must_absorb() {
            asker.on_absorbed();
        }
        for (source, _) in asker.pulls() {
            asker.pulled(asker.attempt_id(), &source, None);
        }
        if let Some(saved) = asker.wanted_save() {
            asker.on_saved(saved);
        }
    }
}

#[test]
fn a_node_that_stayed_alone_serves_alone_and_one_that_died_before_it_waits() {
    let [one, two] = [node(1, 1), node(2, 1)];
    let [one_again, two_again] = [node(1, 2), node(2, 2)];
    let stayed = started(&one_again, &[&one_again], Some(saved(&one, &[&one], 2)));
    assert!(stayed.missing().is_empty() && stayed.is_serving());
    let died = started(
        &two_again,
        &[&two_again],
        Some(saved(&two, &[&one, &two], 1)),
    );
    assert_eq!(died.missing(), std::slice::from_ref(&one));
    assert!(!died.is_serving());
}

#[test]
fn more_than_half_of_the_newest_placement_restore_it_and_others_offer_nothing() {
    let [one, two, three] = [node(1, 1), node(2, 1), node(3, 1)];
    let [one_again, two_again, three_again] = [node(1, 2), node(2, 2), node(3, 2)];
    let live = [&one_again, &two_again, &three_again];
    // The third one was away when the two others went on.
    let newest = [&one, &two];
    let mut first = started(&one_again, &live, Some(saved(&one, &newest, 2)));
    let mut away = started(
        &three_again,
        &live,
        Some(saved(&three, &[&one, &two, &three], 1)),
    );
    ask(&mut first, &away);
    ask(&mut away, &first);
    assert_eq!(first.missing(), std::slice::from_ref(&two));
    assert_eq!(away.missing(), std::slice::from_ref(&two));
    let mut second = started(&two_again, &live, Some(saved(&two, &newest, 2)));
    for _ in 0..6 {
        ask(&mut first, &second);
        ask(&mut first, &away);
        ask(&mut second, &first);
        ask(&mut second, &away);
        let had_read = away.read.is_some();
        ask(&mut away, &first);
        assert!(had_read || !away.offers_all(), "what it has may be old");
        ask(&mut away, &second);
    }
    for rebalance in [&first, &second, &away] {
        assert!(rebalance.is_settled() && rebalance.is_serving());
        assert_eq!(rebalance.settlement, 3);
        let storage = rebalance.storage.as_ref().unwrap();
        assert_eq!(storage.saved.lives, std::slice::from_ref(&rebalance.me));
    }
}

#[test]
fn a_node_switches_only_when_that_is_saved() {
    let me = node(1, 1);
    let mut alone = started(&me, &[&me], None);
    alone.bootstrap(3);
    alone.on_published();
    assert_eq!(alone.phase(), Phase::Drained);
    let synced = alone.wanted_save().unwrap();
    assert_eq!(synced.lives, std::slice::from_ref(&me));
    assert!(synced.placement.is_none());
    alone.on_saved(synced);
    assert_eq!(alone.phase(), Phase::Synced);
    let switched = alone.wanted_save().unwrap();
    assert!(switched.placement.is_some());
    alone.on_saved(switched);
    assert_eq!(alone.phase(), Phase::Settled);
    assert_eq!(alone.wanted_save(), None);
}
