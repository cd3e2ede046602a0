//! Calls between processes.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use thrifty_p2p::location::Location;

use super::process::{Health, Id};
use super::tasks::{Task, pause};
use super::world::{Net, World};

/// A call without a reply. It may have been executed, or may still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

/// One in so many polls of a reply from a running process times out.
const LOST: usize = 2_000;

/// One in so many requests waits in the network: its sender may have given up when it arrives.
const DELAYED: usize = 40;

/// One in so many messages of a write is delivered twice.
const REPEATED: usize = 20;

/// The longest that it waits, in steps.
const LONGEST_DELAY: usize = 5_000;

/// One in so many polls of the reply to such a request times out.
const LOST_DELAYED: usize = 100;

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
    let arrives_at = net.borrow_mut().arrival();
    let is_delayed = arrives_at > 0;
    let handled = {
        let handled = handle(net.clone(), there);
        let net = net.clone();
        async move {
            while net.borrow().now < arrives_at {
                pause().await;
            }
            handled.await
        }
    };
    let reply = spawn_for(net, there, handled);
    loop {
        pause().await;
        if let Some(reply) = reply.borrow_mut().take() {
            return Ok(reply);
        }
        let mut world = net.borrow_mut();
        let is_lost = match world.processes[there].health {
            Health::Running if is_delayed => world.once_in(LOST_DELAYED),
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

impl World {
    /// Does the network deliver a message once more? Where a key has one copy, the only process
    /// that knows a write may have left when an attempt arrives so late: that is not promised.
    pub fn is_repeated(&mut self) -> bool {
        self.replicas > 1 && self.once_in(REPEATED)
    }

    /// When a request arrives: 0 for at once.
    fn arrival(&mut self) -> i64 {
        if self.replicas == 1 || !self.once_in(DELAYED) {
            return 0;
        }
        self.count("requests that were delayed");
        self.now + self.rng.below(LONGEST_DELAY) as i64
    }
}

/// Starts a task of a process, or of a client or the network.
pub fn spawn(net: &Net, owner: Option<Id>, work: impl Future<Output = ()> + 'static) {
    net.borrow_mut().tasks.push(Task::new(owner, work));
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
