//! Access to a process's rebalance under its lock, as the product's `RebalanceGuard`.

use std::rc::Rc;

use thrifty_p2p::store::rebalance::Rebalance;

use super::process::{Id, Process};
use super::tasks::pause;
use super::world::Net;

/// Reads the state of the rebalance under its lock.
pub async fn look<T>(net: &Net, me: Id, look: impl FnOnce(&Rebalance) -> T) -> T {
    wait_for_lock(net, me).await;
    look(&net.borrow().processes[me].rebalance)
}

/// Changes the rebalance under its lock, and publishes the change.
pub async fn change<T>(net: &Net, me: Id, change: impl FnOnce(&mut Process) -> T) -> T {
    wait_for_lock(net, me).await;
    let (result, before) = {
        let mut world = net.borrow_mut();
        let process = &mut world.processes[me];
        process.is_locked = true;
        let before = process.rebalance.changes();
        (change(process), before)
    };
    publish(net, me, before).await;
    net.borrow_mut().processes[me].is_locked = false;
    result
}

async fn wait_for_lock(net: &Net, me: Id) {
    while net.borrow().processes[me].is_locked {
        pause().await;
    }
}

/// Publishes a snapshot after each change since `before`. In the pauses, requests act by the
/// snapshot before.
async fn publish(net: &Net, me: Id, mut before: u64) {
    loop {
        {
            let process = &net.borrow().processes[me];
            if process.rebalance.changes() == before {
                return;
            }
            before = process.rebalance.changes();
        }
        pause().await;
        {
            let mut world = net.borrow_mut();
            let now = world.now as u64;
            let process = &mut world.processes[me];
            process.routing = Rc::new(process.rebalance.routing());
            let placements = process.routing.placements();
            process.recent_placements.update(placements, now);
        }
        pause().await;
        net.borrow_mut().processes[me].rebalance.on_published();
    }
}
