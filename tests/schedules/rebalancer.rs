//! What the announcer, the puller and the membership's thread of a process do.

use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{PlacementHistory, Pull, RebalanceStatus};
use thrifty_p2p::store::table::Page;

use super::calls::{Unreachable, call_from};
use super::guard::{change, look};
use super::membership::{push_pull, wait_for_members, wait_until_published};
use super::process::{Id, name};
use super::reads::wait_for_write;
use super::tasks::pause;
use super::world::Net;
use super::writes::apply;

/// Takes over what membership knows, and suspends the lease after an isolation.
pub async fn update_rebalance(net: &Net, me: Id) {
    let epoch = net.borrow().processes[me].membership.epoch;
    pause().await;
    let is_updated = change(net, me, |process| {
        let (has_contact, isolations) = (process.contact.has_contact(), process.contact.isolations);
        if !has_contact || isolations != process.rebalance.isolations() {
            process.rebalance.suspend_lease(isolations);
        }
        let is_behind = process.rebalanced_epoch != epoch;
        if is_behind {
            let snapshot = process.snapshot();
            process.rebalance.update_members(snapshot);
        }
        is_behind
    });
    if is_updated.await {
        pause().await;
        let mut world = net.borrow_mut();
        let process = &mut world.processes[me];
        process.rebalanced_epoch = epoch;
        let current = process.rebalance.current();
        let members: Vec<String> = current.members().map(name).collect();
        let (me, id) = (name(process.rebalance.me()), current.id());
        world.log(format_args!("{me} has {id:x}: {}", members.join(" ")));
    }
}

/// Sends this process's status to a peer, and takes over the peer's.
pub async fn exchange_status(net: Net, me: Id, peer: NodeId) {
    let (status, wants_history, asked_at) = look(&net, me, |rebalance| {
        let status = rebalance.status_for(&peer);
        (status, rebalance.wants_history(), rebalance.isolations())
    })
    .await;
    let reply = call_from(&net, me, &peer.location, |net, there| async move {
        pause().await;
        on_status(&net, there, status, wants_history).await
    });
    let (status, history) = match reply.await {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(Unreachable) => return on_failed_call(&net, me, &peer).await,
    };
    if !look(&net, me, |rebalance| rebalance.knows(status.placement_id)).await {
        push_pull(&net, me, &peer.location).await;
        update_rebalance(&net, me).await;
    }
    pause().await;
    change(&net, me, |process| {
        let rebalance = &mut process.rebalance;
        rebalance.on_status(Some(asked_at), status, history);
    })
    .await;
}

/// Replies to a status that came unasked.
async fn on_status(
    net: &Net,
    me: Id,
    status: RebalanceStatus,
    wants_history: bool,
) -> Option<(RebalanceStatus, Option<PlacementHistory>)> {
    if !wait_until_published(net, me).await || !wait_for_members(net, me).await {
        return None;
    }
    let sender = status.sender.clone();
    let is_down = net.borrow().is_down(me, &sender.location);
    let reply = change(net, me, |process| {
        let rebalance = &mut process.rebalance;
        rebalance.on_status(None, status, None);
        let history = rebalance.history().filter(|_| wants_history);
        let mut status = rebalance.status_for(&sender);
        if is_down {
            status.seen_generation = None;
        }
        (status, history)
    });
    Some(reply.await)
}

/// A call to a peer failed. If the peer was leaving, its process has exited.
pub async fn on_failed_call(net: &Net, me: Id, peer: &NodeId) {
    let has_exited = {
        let world = net.borrow();
        let there = world.at(&peer.location);
        let is_there = there.is_some_and(|there| world.processes[there].health.is_sound());
        !is_there
    };
    if has_exited {
        net.borrow().log(format_args!(
            "{me} marks {} as exited if it is leaving",
            name(peer)
        ));
        change(net, me, |process| process.rebalance.mark_exited(peer)).await;
    }
}

/// Copies one page from a source.
pub async fn pull_page(net: Net, me: Id, source: NodeId) {
    let (attempt_id, pull) = look(&net, me, |rebalance| {
        let mut pulls = rebalance.pulls().into_iter();
        (
            rebalance.attempt_id(),
            pulls.find(|(node, _)| *node == source),
        )
    })
    .await;
    if let Some((_, pull)) = pull {
        let page = call_from(&net, me, &source.location, |net, there| async move {
            on_pull(&net, there, &pull).await
        });
        match page.await {
            Ok(Some(page)) => {
                for (key, entry) in page.entries {
                    pause().await;
                    apply(&net, me, &key, entry).await;
                    net.borrow_mut().count("keys copied");
                }
                pause().await;
                change(&net, me, |process| {
                    process.rebalance.pulled(attempt_id, &source, page.next);
                })
                .await;
            }
            Ok(None) => (),
            Err(Unreachable) => on_failed_call(&net, me, &source).await,
        }
    }
    net.borrow_mut().processes[me].pulling.remove(&source);
}

/// Sends a page of one key. None while this process is not ready.
async fn on_pull(net: &Net, me: Id, pull: &Pull) -> Option<Page> {
    let routing = net.borrow().routing(me);
    let filter = look(net, me, |rebalance| rebalance.transfer_filter(pull)).await?;
    if !net.borrow().processes[me].is_current(&routing) {
        return None;
    }
    pause().await;
    let table = net.borrow().processes[me].table.clone();
    let page = table.page(
        &pull.cursor,
        1,
        usize::MAX,
        |points| filter.may_include_points(points),
        |key: Key<'_>| filter.includes(key),
    );
    if !net.borrow().processes[me].is_current(&routing) {
        return None;
    }
    for (key, version) in &page.unfinished {
        if !wait_for_write(net, me, key, *version).await {
            return None;
        }
    }
    Some(page)
}
