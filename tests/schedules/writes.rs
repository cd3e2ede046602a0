//! Writes, step by step as the product executes them.

use std::rc::Rc;

use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{Routing, WriteTicket};
use thrifty_p2p::store::table::stripe_of;
use thrifty_p2p::store::versions::{Entry, Value};

use super::calls::{Unreachable, call, call_from, together};
use super::guard;
use super::membership::{push_pull, wait_for_members};
use super::process::Id;
use super::reads::{CALL_TIMEOUT, Refused, read_latest};
use super::tasks::pause;
use super::world::{Net, World};

/// Steps that a primary may take for a forwarded write.
const FORWARDED_TIMEOUT: i64 = 1500;

/// A write that was executed.
#[derive(Debug, Clone, Copy)]
struct Written {
    version: i64,
    /// False for the deletion of a missing key: nothing was written. Then this is the version
    /// that the key had.
    is_applied: bool,
}

/// A client writes a key through some process, or deletes it, and checks the result.
pub async fn write(net: Net, through: Id, key: Vec<u8>, value: Option<Value>) {
    let (floor, location) = {
        let world = net.borrow();
        let location = world.processes[through].location.clone();
        (world.promises.floor(&key), location)
    };
    let is_delete = value.is_none();
    let name = key.clone();
    let call = call(&net, &location, |net, there| async move {
        let deadline = net.borrow().now + CALL_TIMEOUT;
        write_at(&net, there, &name, value, deadline).await
    });
    let result = call.await;
    let mut world = net.borrow_mut();
    let Ok(Ok(written)) = result else {
        world.count("writes refused");
        return;
    };
    if !written.is_applied {
        world.count("deletes of nothing");
        let version = Some(written.version).filter(|version| *version > 0);
        let found = version.map(|version| Entry {
            version,
            value: None,
        });
        let result = world.promises.returned(&key, floor, found.as_ref());
        world.check(result.map(drop), "a deletion found nothing");
        return;
    }
    world.count(if is_delete { "deletes" } else { "writes" });
    let result = world.promises.acknowledged(&key, floor, written.version);
    world.check(result, "versions must grow");
}

/// Executes a write here, or forwards it to the primary, until one has executed it.
async fn write_at(
    net: &Net,
    me: Id,
    key: &[u8],
    value: Option<Value>,
    deadline: i64,
) -> Result<Written, Refused> {
    while net.borrow().now < deadline {
        let primary = net.borrow().routing(me).primary(Key::new(key)).cloned();
        pause().await;
        let here = net.borrow().processes[me].location.clone();
        let written = match primary {
            Some(primary) if primary.location == here => {
                write_as_primary(net, me, &primary, key, value.clone(), deadline).await?
            }
            Some(primary) => forward(net, me, primary, key, value.clone()).await?,
            None => None,
        };
        if let Some(written) = written {
            return Ok(written);
        }
        pause().await;
    }
    Err(Refused)
}

async fn forward(
    net: &Net,
    me: Id,
    primary: NodeId,
    key: &[u8],
    value: Option<Value>,
) -> Result<Option<Written>, Refused> {
    let (name, location) = (key.to_vec(), primary.location.clone());
    let forwarded = call_from(net, me, &location, |net, there| async move {
        let deadline = net.borrow().now + FORWARDED_TIMEOUT;
        write_as_primary(&net, there, &primary, &name, value, deadline).await
    });
    forwarded.await.unwrap_or(Ok(None))
}

/// Executes a write as `primary`. None if this process is not, or if the write did not reach
/// all owners.
async fn write_as_primary(
    net: &Net,
    me: Id,
    primary: &NodeId,
    key: &[u8],
    value: Option<Value>,
    deadline: i64,
) -> Result<Option<Written>, Refused> {
    while !net.borrow_mut().processes[me]
        .locked_keys
        .insert(key.to_vec())
    {
        if net.borrow().now >= deadline {
            return Ok(None);
        }
        pause().await;
    }
    let mut written = Ok(None);
    if net.borrow().now < deadline {
        let millis = net.borrow().millis(me);
        pause().await;
        if let Some(ticket) = begin_write(net, me, primary, key).await {
            let write = PendingWrite {
                net: net.clone(),
                me,
                key: key.to_vec(),
                ticket,
                millis,
                deadline,
            };
            written = write.run(value).await;
        }
    }
    net.borrow_mut().processes[me].locked_keys.remove(key);
    written
}

/// Starts a write, if this process is the one that is meant and the primary of the key.
async fn begin_write(net: &Net, me: Id, primary: &NodeId, key: &[u8]) -> Option<WriteTicket> {
    loop {
        let routing = net.borrow().routing(me);
        if routing.me() != primary || !net.borrow().processes[me].is_current(&routing) {
            return None;
        }
        pause().await;
        let ticket = routing.begin_write(Key::new(key));
        pause().await;
        if Rc::ptr_eq(&routing, &net.borrow().routing(me)) {
            return ticket;
        }
        pause().await;
        drop(ticket);
        guard::change(net, me, |process| process.rebalance.advance()).await;
    }
}

/// A write that this process executes as the primary.
struct PendingWrite {
    net: Net,
    me: Id,
    key: Vec<u8>,
    ticket: WriteTicket,
    /// When this process was known to be the primary.
    millis: i64,
    deadline: i64,
}

/// What a write has to apply.
enum Assigned {
    /// Nothing: a missing key was deleted.
    Nothing(Written),
    Entry(Entry, Written),
}

impl PendingWrite {
    async fn run(mut self, value: Option<Value>) -> Result<Option<Written>, Refused> {
        let executed = self.execute(value).await;
        let applied = executed.ok().flatten().filter(|written| written.is_applied);
        let is_valid = self.finish(applied).await;
        executed.map(|written| written.filter(|_| is_valid))
    }

    /// Assigns the version, brings the entry to all owners and applies it. None if it did not
    /// reach all owners.
    async fn execute(&mut self, value: Option<Value>) -> Result<Option<Written>, Refused> {
        let latest = read_latest(&self.net, self.me, &self.key, self.deadline).await?;
        pause().await;
        let (entry, written) = match self.assign(latest, value) {
            Assigned::Nothing(written) => return Ok(Some(written)),
            Assigned::Entry(entry, written) => (entry, written),
        };
        pause().await;
        if !self.replicate(&entry).await {
            let routing = self.net.borrow().routing(self.me);
            routing.abandon(entry.version);
            return Ok(None);
        }
        pause().await;
        apply(&self.net, self.me, &self.key, entry).await;
        pause().await;
        Ok(Some(written))
    }

    fn assign(&self, latest: Option<Entry>, value: Option<Value>) -> Assigned {
        let existed = latest.as_ref().is_some_and(|entry| !entry.is_tombstone());
        let latest = latest.map_or(0, |entry| entry.version);
        if value.is_none() && !existed {
            return Assigned::Nothing(Written {
                version: latest,
                is_applied: false,
            });
        }
        let mut world = self.net.borrow_mut();
        let own = world.processes[self.me].table.version(Key::new(&self.key));
        let newest = latest.max(own.unwrap_or_default());
        let routing = world.routing(self.me);
        let version = routing.next_version(self.millis, newest);
        let entry = Entry { version, value };
        let result = world.promises.assigned(&self.key, &entry);
        world.check(result, "versions must differ");
        world.log(format_args!(
            "{} assigns {version} to {:?}",
            self.me, self.key
        ));
        Assigned::Entry(
            entry,
            Written {
                version,
                is_applied: true,
            },
        )
    }

    /// Brings the entry to all owners in every placement except this process.
    async fn replicate(&mut self, entry: &Entry) -> bool {
        loop {
            let (targets, placement_id) = {
                let routing = self.net.borrow().routing(self.me);
                let targets = routing.targets(&self.ticket, Key::new(&self.key));
                (targets, routing.current().id())
            };
            if targets.is_empty() {
                return true;
            }
            pause().await;
            let copies = targets.iter().map(|owner| {
                let (net, owner) = (self.net.clone(), owner.clone());
                send_copy(
                    net,
                    self.me,
                    owner,
                    self.key.clone(),
                    entry.clone(),
                    placement_id,
                )
            });
            let replies = together(&self.net, self.me, copies.collect()).await;
            let mut all_reached = true;
            for (owner, reply) in targets.into_iter().zip(replies) {
                if has_copy(&self.net, self.me, &owner, reply).await {
                    self.ticket.add_ack(owner);
                } else {
                    all_reached = false;
                }
            }
            if !all_reached && self.net.borrow().now >= self.deadline {
                return false;
            }
            pause().await;
        }
    }

    /// Ends the write. May it be acknowledged, if it has reached all owners?
    async fn finish(self, written: Option<Written>) -> bool {
        let PendingWrite {
            net,
            me,
            key,
            ticket,
            ..
        } = self;
        let routing = net.borrow().routing(me);
        pause().await;
        let is_valid = is_valid(&mut net.borrow_mut(), me, &key, &ticket, written, &routing);
        let is_awaited = ticket.is_older_than(&routing);
        pause().await;
        drop(ticket);
        pause().await;
        if is_awaited || !Rc::ptr_eq(&routing, &net.borrow().routing(me)) {
            guard::change(&net, me, |process| process.rebalance.advance()).await;
        }
        is_valid
    }
}

/// May the write be acknowledged? If so, all readers must find it from now on.
fn is_valid(
    world: &mut World,
    me: Id,
    key: &[u8],
    ticket: &WriteTicket,
    written: Option<Written>,
    routing: &Routing,
) -> bool {
    if !world.processes[me].is_current(routing) || !routing.may_acknowledge(ticket) {
        world.count("writes not acknowledged");
        return false;
    }
    if let Some(Written { version, .. }) = written {
        world.log(format_args!("{me} acknowledges {version} of {key:?}"));
        world.check_copies(key, version);
    }
    true
}

/// Sends a copy to an owner. Returns the placement that the owner has.
async fn send_copy(
    net: Net,
    me: Id,
    owner: NodeId,
    key: Vec<u8>,
    entry: Entry,
    placement_id: u64,
) -> Result<u64, Unreachable> {
    call_from(&net, me, &owner.location, |net, there| async move {
        apply_replicated(&net, there, &key, entry, placement_id).await
    })
    .await
}

/// Has the owner the copy, and does this process know its placement?
async fn has_copy(net: &Net, me: Id, owner: &NodeId, reply: Result<u64, Unreachable>) -> bool {
    match reply {
        Ok(theirs) if net.borrow().routing(me).knows(theirs) => true,
        Ok(_) => catch_up_with(net, me, owner).await,
        // If it is gone, it is not among the targets when the routing accounts for that.
        Err(Unreachable) => false,
    }
}

/// Exchanges the membership with an owner that has another placement, and waits until the
/// routing accounts for it.
async fn catch_up_with(net: &Net, me: Id, owner: &NodeId) -> bool {
    if !push_pull(net, me, &owner.location).await {
        return false;
    }
    wait_for_members(net, me).await
}

/// Applies a copy from a primary with that placement. Returns the placement here.
async fn apply_replicated(net: &Net, me: Id, key: &[u8], entry: Entry, placement_id: u64) -> u64 {
    pause().await;
    if net.borrow().routing(me).current().id() != placement_id {
        net.borrow_mut().processes[me].has_stale_write = true;
    }
    pause().await;
    apply(net, me, key, entry).await;
    pause().await;
    net.borrow().routing(me).current().id()
}

/// Applies an entry to the table, when its stripe is not locked.
pub async fn apply(net: &Net, me: Id, key: &[u8], entry: Entry) {
    let key = Key::new(key);
    while net.borrow().processes[me]
        .locked_stripes
        .contains(&stripe_of(key))
    {
        pause().await;
    }
    net.borrow().processes[me].table.apply(key, entry);
}
