//! The sweep of a table, step by step as the product executes it.

use thrifty_p2p::store::placement::Key;
use thrifty_p2p::store::table::stripe_of;

use super::process::Id;
use super::reads::is_finished;
use super::tasks::pause;
use super::world::Net;

/// Drops keys that this process does not own, stripe by stripe.
///
/// The stripe stays locked from the check to the drop, and the check is over when the drop
/// begins: so anything else may happen in between, except in that stripe.
pub async fn sweep(net: Net, me: Id, keys: &[&[u8]]) {
    let routing = net.borrow().routing(me);
    let (current, node) = (routing.current(), routing.me());
    let replicas = routing.replicas().filter(|_| current.contains(node));
    let mut stripes: Vec<usize> = keys.iter().map(|key| stripe_of(Key::new(key))).collect();
    stripes.sort_unstable();
    stripes.dedup();
    if let Some(replicas) = replicas {
        for key in keys {
            if !current.owns(node, Key::new(key), replicas) {
                is_finished(&net, me, key).await;
            }
        }
        for stripe in stripes {
            pause().await;
            let may_drop = {
                let mut world = net.borrow_mut();
                let process = &mut world.processes[me];
                process.locked_stripes.insert(stripe);
                let now = &process.routing;
                let is_same = now.is_settled() && now.current().id() == current.id();
                is_same && !process.has_stale_write
            };
            pause().await;
            if may_drop {
                let keep = |key: Key<'_>| current.owns(node, key, replicas);
                net.borrow_mut().sweep_stripe(me, stripe, keep);
            }
            net.borrow_mut().processes[me]
                .locked_stripes
                .remove(&stripe);
            if !may_drop {
                break;
            }
        }
    }
    net.borrow_mut().processes[me].is_sweeping = false;
}
