//! Reads, step by step as the product executes them.

use std::time::Instant;

use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{ReadRoute, Rule};
use thrifty_p2p::store::versions::Entry;

use super::calls::{Unreachable, call, call_from};
use super::process::Id;
use super::rebalancer::on_failed_call;
use super::tasks::pause;
use super::world::Net;

/// Steps after which a client's call is refused.
pub const CALL_TIMEOUT: i64 = 3000;

/// Steps that a coordinator lets somebody wait for the end of a write.
const WAIT_FOR_WRITE: usize = 100;

/// The call could not be executed in time.
#[derive(Debug, Clone, Copy)]
pub struct Refused;

/// A client reads a key through some process, and checks the result. Returns what it has, if that
/// could be read.
pub async fn read(net: Net, through: Id, key: Vec<u8>) -> Option<Entry> {
    let (floor, location) = {
        let world = net.borrow();
        let location = world.processes[through].location.clone();
        (world.promises.floor(&key), location)
    };
    let operation = {
        let mut world = net.borrow_mut();
        let now = world.now;
        world.histories.begin_read(&key, now)
    };
    let name = key.clone();
    let fetched = call(&net, &location, |net, there| async move {
        let deadline = net.borrow().now + CALL_TIMEOUT;
        read_latest(&net, there, &name, deadline).await
    });
    let result = fetched.await;
    let mut world = net.borrow_mut();
    let Ok(Ok(entry)) = result else {
        world.count("reads refused");
        return None;
    };
    world.count("reads");
    let value = entry.as_ref().and_then(|entry| entry.value.as_deref());
    let now = world.now;
    world.histories.end_read(&operation, value, now);
    let result = world.promises.returned(&key, floor, entry.as_ref());
    world.check(result, "a stale read");
    entry
}

/// A client scans the primary of a key for it, and checks the result.
pub async fn scan(net: Net, through: Id, key: Vec<u8>) {
    let (floor, routing) = {
        let world = net.borrow();
        (world.promises.floor(&key), world.routing(through))
    };
    let Some(primary) = routing.primary(Key::new(&key)) else {
        return;
    };
    let (name, placement_id) = (key.clone(), routing.current().id());
    let page = call(&net, &primary.location, |net, there| async move {
        scan_at(&net, there, placement_id, &name).await
    });
    let result = page.await;
    let mut world = net.borrow_mut();
    let Ok(Some(entry)) = result else {
        world.count("scans refused");
        return;
    };
    world.count("scans");
    let result = world.promises.returned(&key, floor, entry.as_ref());
    world.check(result, "a stale scan");
}

/// What this process holds as the primary of the key, if it is settled in that placement.
async fn scan_at(net: &Net, me: Id, placement_id: u64, key: &[u8]) -> Option<Option<Entry>> {
    let settled = || {
        let world = net.borrow();
        let routing = world.routing(me);
        let is_settled = routing.is_settled() && routing.is_serving();
        let is_same = routing.current().id() == placement_id;
        let is_current = world.processes[me].is_current(&routing);
        (is_settled && is_same && is_current).then_some(routing)
    };
    let routing = settled()?;
    let is_primary = routing.current().is_primary(routing.me(), Key::new(key));
    pause().await;
    let entry = read_local(net, me, key, |_| true).await?;
    pause().await;
    settled()?;
    is_primary.then_some(entry)
}

/// The newest acknowledged entry of the key, or a newer one, from one of its read owners.
pub async fn read_latest(
    net: &Net,
    me: Id,
    key: &[u8],
    deadline: i64,
) -> Result<Option<Entry>, Refused> {
    while net.borrow().now < deadline {
        let route = read_route(net, me, key);
        pause().await;
        let held = match route {
            ReadRoute::Local => {
                let is_local = |net: &Net| read_route(net, me, key) == ReadRoute::Local;
                read_local(net, me, key, is_local).await
            }
            ReadRoute::Remote(placement_id, owner) => {
                read_remote(net, me, placement_id, &owner, key).await
            }
            ReadRoute::Unavailable => None,
        };
        if let Some(held) = held {
            return Ok(held);
        }
        pause().await;
    }
    Err(Refused)
}

/// Where the key is read now.
fn read_route(net: &Net, me: Id, key: &[u8]) -> ReadRoute {
    let world = net.borrow();
    let routing = world.routing(me);
    if world.processes[me].is_current(&routing) {
        routing.read_route(Key::new(key))
    } else {
        ReadRoute::Unavailable
    }
}

/// Asks an owner.
async fn read_remote(
    net: &Net,
    me: Id,
    placement_id: u64,
    owner: &NodeId,
    key: &[u8],
) -> Option<Option<Entry>> {
    let name = key.to_vec();
    let asked = call_from(net, me, &owner.location, |net, there| async move {
        read_as_owner(&net, there, placement_id, &name).await
    });
    match asked.await {
        Ok(held) => held,
        Err(Unreachable) => {
            on_failed_call(net, me, owner).await;
            None
        }
    }
}

/// What this process holds as an owner in that placement. None if it may not answer.
async fn read_as_owner(net: &Net, me: Id, placement_id: u64, key: &[u8]) -> Option<Option<Entry>> {
    let may_read = |net: &Net| {
        let world = net.borrow();
        let routing = world.routing(me);
        let may_answer = routing.may_answer(placement_id, Key::new(key));
        world.processes[me].is_current(&routing) && may_answer
    };
    if !may_read(net) {
        return None;
    }
    read_local(net, me, key, may_read).await
}

/// Reads the table, when the write of what it has is finished. None if that takes too long, or
/// if the key is missing and this process may not say so any more.
async fn read_local(
    net: &Net,
    me: Id,
    key: &[u8],
    is_entitled: impl Fn(&Net) -> bool,
) -> Option<Option<Entry>> {
    loop {
        pause().await;
        let held = net.borrow().processes[me].table.look_up(Key::new(key));
        pause().await;
        match held {
            None => return is_entitled(net).then_some(None),
            Some(held) if held.is_finished => return Some(Some(held.entry)),
            Some(held) => {
                if !net.borrow().rules.has(Rule::FinishBeforeReading) {
                    return Some(Some(held.entry));
                }
                net.borrow_mut().count("reads that waited for a write");
                if !wait_for_write(net, me, key, held.entry.version).await {
                    return None;
                }
            }
        }
    }
}

/// Is the write of what this process has for the key finished?
pub async fn is_finished(net: &Net, me: Id, key: &[u8]) -> bool {
    read_local(net, me, key, |_| true).await.is_some()
}

/// Waits until the coordinator of a write has finished it. False if it has not, or is gone.
pub async fn wait_for_write(net: &Net, me: Id, key: &[u8], version: i64) -> bool {
    let unfinished = net.borrow().processes[me].unfinished.clone();
    let routing = net.borrow().routing(me);
    let is_gone = |node: &NodeId| routing.is_gone(node);
    let Some((coordinator, sequence)) = unfinished.coordinator(key, version, is_gone) else {
        return true;
    };
    if net.borrow().routing(me).is_gone(&coordinator) {
        return false;
    }
    let generation = coordinator.generation;
    let asked = call_from(net, me, &coordinator.location, |net, there| async move {
        let routing = net.borrow().routing(there);
        if routing.me().generation != generation {
            return false;
        }
        for _ in 0..WAIT_FOR_WRITE {
            if routing
                .sequence()
                .wait_until_finished(sequence, Instant::now())
            {
                return true;
            }
            pause().await;
        }
        false
    });
    let replied = asked.await;
    if replied.is_err() {
        on_failed_call(net, me, &coordinator).await;
    }
    let is_finished = replied == Ok(true);
    if is_finished {
        unfinished.of(&coordinator).remove(sequence, version);
        let table = net.borrow().processes[me].table.clone();
        table.finish(Key::new(key), version);
    }
    is_finished
}
