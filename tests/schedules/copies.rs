//! Copies of writes, at their owners.

use thrifty_p2p::store::key_writes::{KeyWrites, PendingWrite};
use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{Rule, WriteTicket};
use thrifty_p2p::store::table::{Applied, stripe_of};
use thrifty_p2p::store::unfinished_copies::UnfinishedCopy;
use thrifty_p2p::store::versions::Entry;

use super::calls::{call, call_from, spawn, together};
use super::guard;
use super::process::Id;
use super::tasks::pause;
use super::world::Net;
use super::writes::finish_later;

/// What an owner made of a copy.
#[derive(Debug, Clone)]
pub enum Sent {
    /// It has the copy. Its current placement.
    Kept(u64),
    /// It has a larger version.
    Newer(i64, Option<Entry>),
    /// It keeps no copies of this process.
    Fenced,
}

/// A copy as it travels.
#[derive(Clone)]
struct Copy {
    coordinator: NodeId,
    key: Vec<u8>,
    write: PendingWrite,
    placement_id: u64,
    finished: i64,
}

/// Sends copies to owners at the same time. None for an owner that did not reply.
pub async fn send_copies(
    net: &Net,
    me: Id,
    owners: &[NodeId],
    writes: &KeyWrites,
) -> Vec<Option<Sent>> {
    let sequence = writes.ticket().sequence();
    let copy = Copy {
        coordinator: sequence.coordinator().clone(),
        key: writes.key().bytes.to_vec(),
        write: writes.writes()[0].clone(),
        placement_id: net.borrow().routing(me).current().id(),
        finished: sequence.first_unfinished(),
    };
    let send = |owner: &NodeId| {
        let (net, owner, copy) = (net.clone(), owner.clone(), copy.clone());
        async move { send_copy(net, me, owner, copy).await }
    };
    together(net, me, owners.iter().map(send).collect()).await
}

async fn send_copy(net: Net, me: Id, owner: NodeId, copy: Copy) -> Option<Sent> {
    if net.borrow_mut().is_repeated() {
        // The network delivers the copy twice.
        let (net, location, copy) = (net.clone(), owner.location.clone(), copy.clone());
        spawn(&net.clone(), None, async move {
            let _ = call(&net, &location, |net, there| keep(net, there, copy)).await;
        });
    }
    let sent = call_from(&net, me, &owner.location, |net, there| {
        keep(net, there, copy)
    });
    sent.await.ok()
}

/// Keeps a copy, if its coordinator takes part as this process knows.
async fn keep(net: Net, me: Id, copy: Copy) -> Sent {
    pause().await;
    let key = Key::new(&copy.key);
    let is_locked = |net: &Net| {
        let locked = &net.borrow().processes[me].locked_stripes;
        locked.contains(&stripe_of(key))
    };
    while is_locked(&net) {
        pause().await;
    }
    {
        let mut world = net.borrow_mut();
        let routing = world.routing(me);
        if routing.is_gone(&copy.coordinator) && world.rules.has(Rule::FenceTheGone) {
            world.count("copies that were fenced");
            return Sent::Fenced;
        }
        if routing.current().id() != copy.placement_id {
            world.processes[me].has_stale_write = true;
        }
        let now = world.now as u64;
        let overtakes = world.rules.has(Rule::OvertakeOwners);
        let process = &world.processes[me];
        let pending = process.locked_keys.get(&copy.key).copied().unwrap_or(0);
        if pending >= copy.write.entry.version && overtakes {
            return Sent::Newer(pending, None);
        }
        let mut unfinished = process.unfinished.of(&copy.coordinator);
        let version = copy.write.entry.version;
        let is_new = match process.table.apply_copy(key, copy.write.entry.clone()) {
            Applied::Older(newer) => {
                let held = process.table.look_up(key).filter(|held| held.is_finished);
                let held = held.filter(|_| copy.write.must_keep);
                return Sent::Newer(newer, held.map(|held| held.entry));
            }
            Applied::Kept => true,
            Applied::Known(is_finished) => !is_finished,
        };
        if let Some(id) = copy.write.id {
            process.recent.record(id, copy.write.outcome, now);
        }
        let kept = UnfinishedCopy {
            key: copy.key.clone(),
            version,
            id: copy.write.id,
            outcome: copy.write.outcome,
        };
        if is_new && !unfinished.add(copy.write.sequence, kept) {
            process.table.finish(key, version);
        }
        for copy in unfinished.finish_before(copy.finished) {
            process.table.finish(Key::new(&copy.key), copy.version);
        }
    }
    pause().await;
    Sent::Kept(net.borrow().routing(me).current().id())
}

/// Starts to bring the unfinished copies of processes that are gone to all owners.
pub async fn replay_copies_of_the_gone(net: Net, me: Id) {
    let routing = net.borrow().routing(me);
    if !routing.may_replay() || !routing.has_rule(Rule::Replay) {
        return;
    }
    let unfinished = net.borrow().processes[me].unfinished.clone();
    for coordinator in unfinished.coordinators() {
        if !routing.is_gone(&coordinator) {
            continue;
        }
        let copies = unfinished.of(&coordinator).all();
        for (sequence, copy) in copies {
            let is_in_progress = net.borrow().processes[me].replays.contains_key(&copy.key);
            if is_in_progress {
                continue;
            }
            let table = net.borrow().processes[me].table.clone();
            let held = table.look_up(Key::new(&copy.key));
            match held.filter(|held| held.entry.version == copy.version) {
                Some(held) if !held.is_finished => {
                    let of = (coordinator.clone(), sequence);
                    let key = copy.key.clone();
                    net.borrow_mut().processes[me].replays.insert(key, of);
                    let ticket = begin_replay(&net, me).await;
                    let writes = KeyWrites::replay(copy, held.entry, ticket);
                    let (shared, net) = (net.clone(), net.clone());
                    spawn(&shared, Some(me), async move {
                        finish_later(&net, me, writes, None).await;
                    });
                }
                _ => unfinished.of(&coordinator).remove(sequence, copy.version),
            }
        }
        unfinished.forget(&coordinator);
    }
}

/// Starts a replay.
pub async fn begin_replay(net: &Net, me: Id) -> WriteTicket {
    loop {
        let routing = net.borrow().routing(me);
        let ticket = routing.begin_replay();
        pause().await;
        if std::rc::Rc::ptr_eq(&routing, &net.borrow().routing(me)) {
            return ticket;
        }
        drop(ticket);
        guard::change(net, me, |process| process.rebalance.advance()).await;
    }
}
