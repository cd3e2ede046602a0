//! What processes know of each other: the real table of records, merged at every exchange.
//!
//! Failure detection is perfect here: only a process that has ended, or that hangs for long, is
//! declared down. But knowledge arrives late: a change is *decided* in the table, then
//! *published* by the driver, then taken over by the rebalance, each in a step of its own.

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Member, Merge, Status};
use thrifty_p2p::store::placement::NodeId;

use super::calls::{Unreachable, call_from};
use super::process::{Id, Membership, Process};
use super::tasks::pause;
use super::world::{Net, World};

/// The longest that a thread waits for another one of its process, in steps.
const TIMEOUT: usize = 1500;

impl World {
    fn records(&self, id: Id) -> Vec<Member> {
        self.processes[id]
            .membership
            .members
            .iter()
            .cloned()
            .collect()
    }

    /// Changes the records of a process.
    fn decide(&mut self, id: Id, change: impl FnOnce(&mut World)) {
        let before = self.processes[id].snapshot();
        change(self);
        let process = &mut self.processes[id];
        if process.snapshot() != before {
            process.membership.decided += 1;
        }
    }

    /// Merges what another process knows, by the rules of the product.
    pub fn merge(&mut self, id: Id, records: Vec<Member>) {
        self.decide(id, |world| {
            for record in records {
                let has_grace = world.once_in(2);
                if record.location == world.processes[id].location {
                    world.merge_own(id, &record);
                } else {
                    world.processes[id].merge_other(record, has_grace);
                }
            }
        });
    }

    /// A process that learns that it was declared down returns with a new generation, also
    /// when it leaves.
    fn merge_own(&mut self, id: Id, record: &Member) {
        let own = self.processes[id].own_record().clone();
        if own.was_declared_down(record) {
            let incarnation = self.now.max(own.incarnation.max(record.incarnation) + 1);
            self.processes[id].membership.members.merge(Member {
                incarnation,
                generation: incarnation,
                ..own
            });
            self.count(if own.status == Status::Left {
                "returns of leavers that were declared down"
            } else {
                "rejoins"
            });
        }
    }

    pub fn leave(&mut self, id: Id) {
        self.decide(id, |world| {
            let process = &mut world.processes[id];
            let left = process.own_record().with_status(Status::Left);
            process.membership.members.merge(left);
        });
    }

    /// A call to that location failed: a process that is gone is declared down.
    pub fn report_unreachable(&mut self, id: Id, location: &Location) {
        let there = self.at(location);
        let is_there = there.is_some_and(|there| self.processes[there].health.is_sound());
        if is_there {
            return;
        }
        self.decide(id, |world| {
            let membership = &mut world.processes[id].membership;
            membership.in_grace.remove(location);
            if let Some(record) = membership.members.get(location).cloned()
                && record.status == Status::Alive
            {
                membership.members.merge(record.with_status(Status::Down));
            }
        });
    }

    /// Does this process know of no member at that location, or of one that is down?
    pub fn is_down(&self, id: Id, location: &Location) -> bool {
        let record = self.processes[id].membership.members.get(location);
        record.is_none_or(|record| record.status == Status::Down)
    }

    /// The grace of a member that was declared down ends.
    pub fn end_grace(&mut self, id: Id) {
        let in_grace = &self.processes[id].membership.in_grace;
        let all: Vec<Location> = in_grace.iter().cloned().collect();
        if let Some(location) = self.choose(&all) {
            self.decide(id, |world| {
                let membership = &mut world.processes[id].membership;
                membership.in_grace.remove(&location);
            });
        }
    }

    /// The driver publishes what was decided: the ring, then the epoch.
    pub fn publish_members(&mut self, id: Id) {
        let now = self.now;
        let process = &mut self.processes[id];
        let live = process.snapshot().live;
        let is_other = |node: &NodeId| node.location != process.location;
        let is_alone = !live.iter().any(is_other);
        let contact = &mut process.contact;
        if std::mem::replace(&mut contact.is_alone, is_alone) {
            contact.contact_at = contact.contact_at.max(now);
        }
        process.membership.epoch = process.membership.decided;
    }
}

impl Process {
    /// Merges the record of another member. One that is said to be down can stay on the ring
    /// for a while.
    fn merge_other(&mut self, record: Member, has_grace: bool) {
        let Membership {
            members, in_grace, ..
        } = &mut self.membership;
        let (location, status) = (record.location.clone(), record.status);
        let known = members.get(&location);
        if known.is_some_and(|known| record.was_declared_down(known)) {
            return;
        }
        let Merge::Applied(before) = members.merge(record) else {
            return;
        };
        in_grace.remove(&location);
        let was_live = before.is_some_and(|before| before.status.is_live());
        if status == Status::Down && was_live && has_grace {
            in_grace.insert(location);
        }
    }
}

/// Exchanges all records with a peer. False if there was no reply.
async fn exchange(net: &Net, id: Id, peer: &Location) -> bool {
    let own = net.borrow().records(id);
    let reply = call_from(net, id, peer, |net, there| async move {
        net.borrow_mut().merge(there, own);
        pause().await;
        net.borrow().records(there)
    });
    match reply.await {
        Ok(records) => {
            net.borrow_mut().merge(id, records);
            true
        }
        Err(Unreachable) => false,
    }
}

/// A call of the membership itself. A reply proves that the process is not isolated.
pub async fn gossip(net: &Net, id: Id, peer: &Location) {
    let began = net.borrow().now;
    if exchange(net, id, peer).await {
        pause().await;
        net.borrow_mut().processes[id].contact.record(began);
    }
}

/// `Node::push_pull`: exchanges all records, and waits until they are published. False if that
/// failed.
pub async fn push_pull(net: &Net, id: Id, peer: &Location) -> bool {
    exchange(net, id, peer).await && wait_until_published(net, id).await
}

/// Waits until what was decided before is published. False if that takes too long.
pub async fn wait_until_published(net: &Net, id: Id) -> bool {
    let decided = net.borrow().processes[id].membership.decided;
    wait_until(net, |world| world.processes[id].membership.epoch >= decided).await
}

/// `Store::wait_for_members`: waits until the rebalance accounts for what is published. False
/// if that takes too long.
pub async fn wait_for_members(net: &Net, id: Id) -> bool {
    let epoch = net.borrow().processes[id].membership.epoch;
    wait_until(net, |world| world.processes[id].rebalanced_epoch >= epoch).await
}

async fn wait_until(net: &Net, is_done: impl Fn(&World) -> bool) -> bool {
    let deadline = {
        let mut world = net.borrow_mut();
        world.now + world.rng.below(TIMEOUT) as i64
    };
    loop {
        {
            let mut world = net.borrow_mut();
            if is_done(&world) {
                return true;
            }
            if world.now >= deadline {
                world.count("waits that timed out");
                return false;
            }
        }
        pause().await;
    }
}
