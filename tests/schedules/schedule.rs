//! `Schedule`: one random order of everything that can happen, from one seed.

use std::cell::RefCell;
use std::rc::Rc;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Status;
use thrifty_p2p::store::rebalance::Rules;

use super::copies::replay_copies_of_the_gone;
use super::guard::change;
use super::membership::gossip;
use super::process::{Health, Id, Process};
use super::reads::{read, scan};
use super::rebalancer::{exchange_status, pull_page, update_rebalance};
use super::sweeper::sweep;
use super::tasks::{Task, pause};
use super::world::{Counts, Net, World};
use super::writes::{write, write_if};

/// Keys that are read and written.
const KEYS: [&[u8]; 4] = [b"apple", b"pear", b"plum", b"fig"];

/// Addresses at which processes start, again and again.
pub const ADDRESSES: u16 = 8;

/// Clients that are active at a time.
const CLIENTS: usize = 6;

/// Tasks in progress at a time, except those that clients start. With more of them, most
/// statuses are out of date when they arrive.
const MAX_TASKS: usize = 30;

/// A schedule that has not settled after so many steps never will.
const MAX_STEPS_TO_REST: usize = 40_000;

/// The result of a schedule.
pub struct Outcome {
    pub counts: Counts,
    /// The first promise that was broken.
    pub broken: Option<String>,
}

/// Runs the schedule of `seed`: so many steps with churn, then until all is at rest.
pub fn run(seed: u64, steps: usize, rules: Rules) -> Outcome {
    let replicas = 1 + (seed % 3) as usize;
    let schedule = Schedule {
        net: Rc::new(RefCell::new(World::new(seed, replicas, rules))),
    };
    schedule.begin();
    for _ in 0..steps {
        schedule.step(true);
        if schedule.is_broken() {
            return schedule.outcome();
        }
    }
    schedule.come_to_rest();
    if !schedule.is_broken() {
        let mut world = schedule.net.borrow_mut();
        world.check_all_copies(&KEYS);
        let result = world.histories.check();
        world.check(result, "the history is not linearizable");
    }
    schedule.outcome()
}

/// The driver of one world.
pub struct Schedule {
    pub net: Net,
}

pub fn address(number: u16) -> Location {
    let location = Location::new("10.0.0.1", 9000 + number);
    location.expect("an address and a port")
}

impl Schedule {
    /// One process bootstraps and others join it, or several start at once, each with the
    /// address of another, and none bootstraps.
    fn begin(&self) {
        let (count, is_together) = {
            let mut world = self.net.borrow_mut();
            let count = 1 + world.rng.below(4);
            let replicas = world.replicas;
            for number in 0..count {
                world.start(address(number as u16), Some(replicas));
            }
            let is_together = count > 1 && world.once_in(2);
            if !is_together {
                let process = &mut world.processes[0];
                process.rebalance.bootstrap(replicas);
                process.rebalance.mark_joined();
                process.publish_at_once();
                process.has_joined = true;
            }
            (count, is_together)
        };
        for id in usize::from(!is_together)..count {
            let next = (id + 1) % count;
            self.join(id, if is_together { next } else { 0 }, is_together);
        }
    }

    /// A process joins by way of `peer`, or of any that serves, until it knows another member: that
    /// one, if it `waits_for_peer`, unless that has ended.
    pub fn join(&self, id: Id, peer: Id, waits_for_peer: bool) {
        let net = self.net.clone();
        let steps = async move {
            let first = peer;
            let mut peer = peer;
            loop {
                let location = net.borrow().processes[peer].location.clone();
                gossip(&net, id, &location).await;
                {
                    let mut world = net.borrow_mut();
                    let awaited = &world.processes[first];
                    let is_running = awaited.health != Health::Ended && !awaited.has_left();
                    let live = world.processes[id].snapshot().live;
                    let is_member = live.iter().any(|node| node.location == awaited.location);
                    if live.len() > 1 && (is_member || !waits_for_peer || !is_running) {
                        break;
                    }
                    let serves = |p: &Process| p.health != Health::Ended && p.routing.is_serving();
                    let serving = world.which(serves);
                    peer = world.choose(&serving).unwrap_or(peer);
                }
                pause().await;
            }
            change(&net, id, |process| process.rebalance.mark_joined()).await;
            net.borrow_mut().processes[id].has_joined = true;
        };
        self.spawn(Some(id), steps);
    }

    fn spawn(&self, owner: Option<Id>, steps: impl Future<Output = ()> + 'static) {
        self.net.borrow_mut().tasks.push(Task::new(owner, steps));
    }

    fn is_broken(&self) -> bool {
        self.net.borrow().broken.is_some()
    }

    fn outcome(self) -> Outcome {
        let mut world = self.net.borrow_mut();
        // Tasks hold the world that holds them.
        let tasks = std::mem::take(&mut world.tasks);
        let outcome = Outcome {
            counts: std::mem::take(&mut world.counts),
            broken: world.broken.take(),
        };
        drop(world);
        drop(tasks);
        outcome
    }

    /// One thing happens: with `churn` anything, otherwise only what leads to rest.
    fn step(&self, churn: bool) {
        let (chance, is_busy) = {
            let mut world = self.net.borrow_mut();
            world.now += 1;
            world.settle_if_all_is();
            let is_busy = world.tasks.len() > MAX_TASKS && !world.once_in(4);
            if !churn && world.is_settled() && !world.tasks.is_empty() {
                // What is in progress ends before anything else starts.
                (1000, is_busy)
            } else {
                (world.rng.below(1000), is_busy)
            }
        };
        match chance {
            0..5 if churn => self.churn(),
            5..30 if churn => self.start_client(),
            30..70 if !is_busy => self.step_announcer(),
            70..120 if !is_busy => self.step_puller(),
            120..150 if !is_busy => self.gossip(),
            150..170 => self.exit_leavers(),
            170..220 => self.publish_members(),
            220..280 => self.update_rebalance(),
            280..290 => self.end_grace(),
            290..310 => self.step_finisher(),
            _ => (0..4).for_each(|_| self.step_task()),
        }
    }

    fn step_task(&self) {
        let mut task = {
            let mut world = self.net.borrow_mut();
            let runs = |owner: Id| world.processes[owner].health == Health::Running;
            let ready: Vec<usize> = (0..world.tasks.len())
                .filter(|index| world.tasks[*index].owner.is_none_or(runs))
                .collect();
            let Some(index) = world.choose(&ready) else {
                return;
            };
            world.tasks.swap_remove(index)
        };
        let continues = task.step();
        let mut world = self.net.borrow_mut();
        let has_ended = |owner: Id| world.processes[owner].health == Health::Ended;
        if continues && !task.owner.is_some_and(has_ended) {
            world.tasks.push(task);
        }
    }

    fn start_client(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.which(|p| p.health == Health::Running && p.has_joined);
        let clients = world.tasks.iter().filter(|task| task.owner.is_none());
        let has_room = clients.count() < CLIENTS;
        let Some(through) = world.choose(&members).filter(|_| has_room) else {
            return;
        };
        let key = KEYS[world.rng.below(KEYS.len())].to_vec();
        let what = world.rng.below(16);
        let value = world.rng.bits().to_be_bytes().to_vec().into();
        drop(world);
        let net = self.net.clone();
        match what {
            0..5 => self.spawn(None, async move { drop(read(net, through, key).await) }),
            5..9 => self.spawn(None, write(net, through, key, Some(value), None)),
            9 => self.spawn(None, scan(net, through, key)),
            10 => self.spawn(None, write(net, through, key, None, None)),
            11..15 => self.spawn(None, write_if(net, through, key, Some(value))),
            _ => self.spawn(None, write_if(net, through, key, None)),
        }
    }

    /// A process announces its state when it has changed, or asks one of its peers again.
    fn step_announcer(&self) {
        let mut world = self.net.borrow_mut();
        let joined = world.which(|p| p.health == Health::Running && p.has_joined);
        let Some(id) = world.choose(&joined) else {
            return;
        };
        let process = &world.processes[id];
        let rebalance = &process.rebalance;
        if process.is_locked {
            return;
        }
        let placement_id = rebalance.current().id();
        let state = (placement_id, rebalance.phase(), rebalance.is_serving());
        let peers = if process.announced == Some(state) {
            let lagging = rebalance.lagging_peers();
            world.choose(&lagging).into_iter().collect()
        } else {
            rebalance.peers()
        };
        world.processes[id].announced = Some(state);
        drop(world);
        for peer in peers {
            self.spawn(Some(id), exchange_status(self.net.clone(), id, peer));
        }
    }

    /// A process copies a page, or sweeps its table when all is settled.
    fn step_puller(&self) {
        let mut world = self.net.borrow_mut();
        let joined = world.which(|p| p.health == Health::Running && p.has_joined);
        let Some(id) = world.choose(&joined) else {
            return;
        };
        let process = &world.processes[id];
        if process.is_locked || process.is_sweeping {
            return;
        }
        let mut sources: Vec<_> = process
            .rebalance
            .pulls()
            .into_iter()
            .map(|(source, _)| source)
            .collect();
        sources.retain(|source| !process.pulling.contains(source));
        let is_idle = process.pulling.is_empty();
        let may_sweep = is_idle && process.rebalance.is_settled() && !process.has_stale_write;
        let net = self.net.clone();
        if let Some(source) = world.choose(&sources) {
            world.processes[id].pulling.insert(source.clone());
            drop(world);
            self.spawn(Some(id), pull_page(net, id, source));
        } else if may_sweep {
            world.processes[id].is_sweeping = true;
            drop(world);
            self.spawn(Some(id), sweep(net, id, &KEYS));
        }
    }

    /// A process exchanges records with another one that it knows.
    fn gossip(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        let Some(id) = world.choose(&running) else {
            return;
        };
        let process = &world.processes[id];
        let members = process.membership.members.iter();
        let others = members
            .filter(|member| member.status != Status::Left && member.location != process.location);
        let others: Vec<Location> = others.map(|member| member.location.clone()).collect();
        let Some(peer) = world.choose(&others) else {
            return;
        };
        drop(world);
        let net = self.net.clone();
        self.spawn(Some(id), async move { gossip(&net, id, &peer).await });
    }

    /// Leaving processes exit when they may, or when they are the last. Each waits for those
    /// that would know no other one, as long as it takes.
    fn exit_leavers(&self) {
        let mut world = self.net.borrow_mut();
        for id in world.running() {
            let process = &world.processes[id];
            let rebalance = &process.rebalance;
            let may_exit = rebalance.may_exit() || rebalance.current().is_empty();
            let is_leaving = process.has_left() && !process.is_behind() && !process.is_locked;
            if is_leaving && may_exit && !world.is_only_contact(id) {
                world.log_process("exits", id);
                world.end(id);
                world.count("leaves");
            }
        }
    }

    fn publish_members(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        if let Some(id) = world.choose(&running) {
            world.publish_members(id);
        }
    }

    /// A process takes over what its membership has published.
    fn update_rebalance(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        let Some(id) = world.choose(&running) else {
            return;
        };
        let process = &world.processes[id];
        let is_behind = process.rebalanced_epoch != process.membership.epoch;
        if is_behind || !process.is_current(&process.routing) {
            drop(world);
            let net = self.net.clone();
            self.spawn(Some(id), async move { update_rebalance(&net, id).await });
        }
    }

    /// A process looks for copies whose coordinator is gone.
    fn step_finisher(&self) {
        let mut world = self.net.borrow_mut();
        let joined = world.which(|p| p.health == Health::Running && p.has_joined);
        let Some(id) = world.choose(&joined) else {
            return;
        };
        let is_idle = world.processes[id].unfinished.coordinators().is_empty();
        drop(world);
        if !is_idle {
            self.spawn(Some(id), replay_copies_of_the_gone(self.net.clone(), id));
        }
    }

    fn end_grace(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        if let Some(id) = world.choose(&running) {
            world.end_grace(id);
        }
    }

    /// Nothing else starts. All that is in progress ends, and all settles.
    fn come_to_rest(&self) {
        let is_hung = |process: &Process| matches!(process.health, Health::Hung { .. });
        let hung = self.net.borrow().which(is_hung);
        for id in hung {
            self.net.borrow_mut().resume(id);
        }
        for step in 0..MAX_STEPS_TO_REST {
            self.step(false);
            if self.is_broken() {
                return;
            }
            let world = self.net.borrow();
            if step > 100 && world.tasks.is_empty() && world.is_at_rest() {
                drop(world);
                return self.net.borrow_mut().check_sequences();
            }
        }
        let mut world = self.net.borrow_mut();
        let why = world.describe();
        world.check(Err(why), "it never settles");
    }
}
