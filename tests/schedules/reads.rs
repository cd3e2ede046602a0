//! Reads, step by step as the product executes them.

use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::ReadRoute;
use thrifty_p2p::store::versions::Entry;

use super::calls::{call, call_from};
use super::process::Id;
use super::promises::Read;
use super::tasks::pause;
use super::world::Net;

/// Steps after which a client's call is refused.
pub const CALL_TIMEOUT: i64 = 3000;

/// The call could not be executed in time.
#[derive(Debug, Clone, Copy)]
pub struct Refused;

/// A client reads a key through some process, and checks the result.
pub async fn read(net: Net, through: Id, key: Vec<u8>) {
    let (floor, location) = {
        let world = net.borrow();
        let location = world.processes[through].location.clone();
        (world.promises.floor(&key), location)
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
        return;
    };
    match world.promises.returned(&key, floor, entry.as_ref()) {
        Ok(Read::Fine) => world.count("reads"),
        Ok(Read::Inversion) => world.count("inversions"),
        Err(why) => world.check(Err(why), "a stale read"),
    }
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
    world.check(result.map(drop), "a stale scan");
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
    let entry = net.borrow().processes[me].table.read(Key::new(key));
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
            ReadRoute::Remote(placement_id, mut owners) => {
                healthy_first(net, &mut owners);
                read_remote(net, me, placement_id, &owners, key).await
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

/// Owners that failed recently are asked last: any of them may have.
fn healthy_first(net: &Net, owners: &mut [NodeId]) {
    let mut world = net.borrow_mut();
    if world.once_in(8) {
        world.rng.shuffle(owners);
    }
}

/// Asks owners in turn until one replies.
async fn read_remote(
    net: &Net,
    me: Id,
    placement_id: u64,
    owners: &[NodeId],
    key: &[u8],
) -> Option<Option<Entry>> {
    for owner in owners {
        let here = net.borrow().processes[me].location.clone();
        let held = if owner.location == here {
            read_as_owner(net, me, placement_id, key).await
        } else {
            let name = key.to_vec();
            let asked = call_from(net, me, &owner.location, |net, there| async move {
                read_as_owner(&net, there, placement_id, &name).await
            });
            asked.await.ok().flatten()
        };
        if held.is_some() {
            return held;
        }
    }
    None
}

/// What this process holds as an owner in that placement. None if it may not answer.
async fn read_as_owner(net: &Net, me: Id, placement_id: u64, key: &[u8]) -> Option<Option<Entry>> {
    let may_read = move |net: &Net| {
        let world = net.borrow();
        let routing = world.routing(me);
        world.processes[me].is_current(&routing) && routing.may_read_at(placement_id)
    };
    if !may_read(net) {
        return None;
    }
    read_local(net, me, key, may_read).await
}

/// Reads the table. None if the key is missing and this process may not say so any more.
async fn read_local(
    net: &Net,
    me: Id,
    key: &[u8],
    is_entitled: impl Fn(&Net) -> bool,
) -> Option<Option<Entry>> {
    pause().await;
    let entry = net.borrow().processes[me].table.read(Key::new(key));
    pause().await;
    (entry.is_some() || is_entitled(net)).then_some(entry)
}
