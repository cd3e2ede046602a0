//! Calls between processes.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use thrifty_p2p::location::Location;

use super::process::{Health, Id};
use super::tasks::{Task, pause};
use super::world::Net;

/// A call without a reply. It may have been executed, or may still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

/// One in so many polls of a reply from a running process times out.
const LOST: usize = 2_000;

/// Calls the process at `location` and waits for its reply, or until none can be expected.
/// The call is executed there whatever happens to the caller.
pub async fn call<T: 'static, F: Future<Output = T> + 'static>(
    net: &Net,
    location: &Location,
    handle: impl FnOnce(Net, Id) -> F,
) -> Result<T, Unreachable> {
    pause().await;
    let Some(there) = net.borrow().at(location) else {
        return Err(Unreachable);
    };
    let handled = handle(net.clone(), there);
    let reply = spawn_for(net, there, handled);
    loop {
        pause().await;
        if let Some(reply) = reply.borrow_mut().take() {
            return Ok(reply);
        }
        let mut world = net.borrow_mut();
        let is_lost = match world.processes[there].health {
            Health::Running => world.once_in(LOST),
            Health::Hung { .. } => world.once_in(4),
            Health::Ended => true,
        };
        if is_lost {
            return Err(Unreachable);
        }
    }
}

/// Calls as a member does: it reports a peer that does not reply.
pub async fn call_from<T: 'static, F: Future<Output = T> + 'static>(
    net: &Net,
    id: Id,
    location: &Location,
    handle: impl FnOnce(Net, Id) -> F,
) -> Result<T, Unreachable> {
    let reply = call(net, location, handle).await;
    if reply.is_err() {
        net.borrow_mut().report_unreachable(id, location);
    }
    reply
}

/// Runs these at the same time, as threads of one process. Returns their results in order.
pub async fn together<T: 'static>(
    net: &Net,
    id: Id,
    all: Vec<impl Future<Output = T> + 'static>,
) -> Vec<T> {
    let slots: Vec<_> = all.into_iter().map(|one| spawn_for(net, id, one)).collect();
    let mut results = Vec::new();
    for slot in slots {
        let result = loop {
            if let Some(result) = slot.borrow_mut().take() {
                break result;
            }
            pause().await;
        };
        results.push(result);
    }
    results
}

/// Starts a task of a process. Returns where its result will be.
fn spawn_for<T: 'static>(
    net: &Net,
    id: Id,
    work: impl Future<Output = T> + 'static,
) -> Rc<RefCell<Option<T>>> {
    let slot = Rc::new(RefCell::new(None));
    let result = slot.clone();
    net.borrow_mut().tasks.push(Task::new(Some(id), async move {
        let done = work.await;
        *result.borrow_mut() = Some(done);
    }));
    slot
}
