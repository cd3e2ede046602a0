//! `Schedule`: one random interleaving of everything that can happen, from one seed.

use std::cell::RefCell;
use std::rc::Rc;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Status;
use thrifty_p2p::store::rebalance::Rules;
use thrifty_p2p::store::table::{Cursor, Key};
use thrifty_p2p::store::versions::Entry;
use thrifty_p2p::store::placement::Placement;

use super::store::{pull_page, read, sweep, tell, write};
use super::tasks::{Task, pause};
use super::world::{Counts, Health, Id, Net, Process, World, contact};

/// Keys that are read and written.
const KEYS: [&[u8]; 4] = [b"apple", b"pear", b"plum", b"fig"];

/// Addresses that processes start at, again and again.
const ADDRESSES: u16 = 8;

/// Clients at work at a time.
const CLIENTS: usize = 6;

/// Tasks under way at a time, but for those that clients begin: with more of them,
/// what is told is mostly out of date.
const MOST_TASKS: usize = 30;

/// Steps after which what has not settled never will.
const LONGEST: usize = 20_000;

/// What became of a schedule.
pub struct Outcome {
    pub counts: Counts,
    /// The first promise that was broken.
    pub broken: Option<String>,
}

/// Runs the schedule of `seed`, for so many steps before it comes to rest.
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
        schedule.check_all_copies();
    }
    schedule.outcome()
}

/// The driver of one world.
pub struct Schedule {
    pub net: Net,
}

fn address(number: u16) -> Location {
    match Location::new("10.0.0.1", 9000 + number) {
        Ok(location) => location,
        Err(e) => panic!("{e}"),
    }
}

impl Schedule {
    /// One that founds and others that join it, or some that come at once, of whom
    /// each finds another one and nobody founds.
    fn begin(&self) {
        let (count, together) = {
            let mut world = self.net.borrow_mut();
            let count = 1 + world.random.below(4);
            for number in 0..count {
                let replicas = world.replicas;
                world.start(address(number as u16), Some(replicas));
            }
            let together = count > 1 && world.once_in(2);
            if !together {
                let replicas = world.replicas;
                world.moves(0).found(replicas);
                world.processes[0].entered = true;
            }
            (count, together)
        };
        for id in usize::from(!together)..count {
            self.join(id, if together { (id + 1) % count } else { 0 });
        }
    }

    /// `id` comes in by way of `peer`, or of anybody there who serves, until it has company.
    fn join(&self, id: Id, peer: Id) {
        let net = self.net.clone();
        let steps = async move {
            let mut peer = peer;
            loop {
                let location = net.borrow().processes[peer].location.clone();
                contact(&net, id, &location).await;
                if net.borrow().processes[id].moves.others().is_empty() {
                    let mut world = net.borrow_mut();
                    let serving =
                        world.which(|p| p.health != Health::Ended && p.moves.is_serving());
                    peer = world.choose(&serving).unwrap_or(peer);
                } else {
                    net.borrow_mut().processes[id].entered = true;
                    return;
                }
                pause().await;
            }
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

    /// One thing happens: with `churn`, anything, else only what leads to rest.
    fn step(&self, churn: bool) {
        let (chance, busy) = {
            let mut world = self.net.borrow_mut();
            world.now += 1;
            world.settle_if_all_is();
            let busy = world.tasks.len() > MOST_TASKS && !world.once_in(4);
            if !churn && world.is_settled() && !world.tasks.is_empty() {
                // What is under way ends before anything else begins.
                (1000, busy)
            } else {
                (world.random.below(1000), busy)
            }
        };
        match chance {
            0..5 if churn => self.upheave(),
            5..30 if churn => self.begin_client(),
            30..70 if !busy => self.step_teller(),
            70..120 if !busy => self.step_puller(),
            120..150 if !busy => self.gossip(),
            150..170 => self.end_relieved(),
            _ => (0..3).for_each(|_| self.step_task()),
        }
    }

    fn step_task(&self) {
        let mut task = {
            let mut world = self.net.borrow_mut();
            let ready: Vec<usize> = (0..world.tasks.len())
                .filter(|place| {
                    let owner = world.tasks[*place].owner;
                    owner.is_none_or(|owner| world.processes[owner].health == Health::Running)
                })
                .collect();
            let Some(place) = world.choose(&ready) else {
                return;
            };
            world.tasks.swap_remove(place)
        };
        let goes_on = task.step();
        let mut world = self.net.borrow_mut();
        let ended = task
            .owner
            .is_some_and(|owner| world.processes[owner].health == Health::Ended);
        if goes_on && !ended {
            world.tasks.push(task);
        }
    }

    fn begin_client(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.which(|p| p.health == Health::Running && p.entered);
        let clients = world.tasks.iter().filter(|t| t.owner.is_none()).count();
        let (Some(through), true) = (world.choose(&members), clients < CLIENTS) else {
            return;
        };
        let key = KEYS[world.random.below(KEYS.len())].to_vec();
        let what = world.random.below(10);
        let value = world.random.bits().to_be_bytes().to_vec().into();
        drop(world);
        let net = self.net.clone();
        match what {
            0..5 => self.spawn(None, read(net, through, key)),
            5..9 => self.spawn(None, write(net, through, key, Some(value))),
            _ => self.spawn(None, write(net, through, key, None)),
        }
    }

    fn step_teller(&self) {
        let mut world = self.net.borrow_mut();
        let tellers = world.which(|p| p.health == Health::Running && p.entered);
        let Some(id) = world.choose(&tellers) else {
            return;
        };
        let moves = &world.processes[id].moves;
        let state = (moves.current().id(), moves.phase(), moves.is_serving());
        let at_rest = moves.is_settled() && moves.is_serving();
        let others = moves.others();
        let told = if world.processes[id].told != Some(state) {
            world.processes[id].told = Some(state);
            others
        } else if !at_rest && !others.is_empty() {
            let one = world.random.below(others.len());
            vec![others[one].clone()]
        } else {
            return;
        };
        drop(world);
        for peer in told {
            self.spawn(Some(id), tell(self.net.clone(), id, peer));
        }
    }

    fn step_puller(&self) {
        let mut world = self.net.borrow_mut();
        let pullers = world.which(|p| p.health == Health::Running && p.entered);
        let Some(id) = world.choose(&pullers) else {
            return;
        };
        let process = &world.processes[id];
        let mut sources: Vec<_> = process
            .moves
            .pulls()
            .into_iter()
            .map(|pull| pull.0)
            .collect();
        sources.retain(|source| !process.pulling.contains(source));
        let settled = process.moves.is_settled() && !process.disturbed;
        if !sources.is_empty() {
            let one = world.random.below(sources.len());
            let source = sources.swap_remove(one);
            world.processes[id].pulling.insert(source.clone());
            drop(world);
            self.spawn(Some(id), pull_page(self.net.clone(), id, source));
        } else if settled {
            let stripes = KEYS.iter().map(|key| Key::new(key).stripe()).collect();
            drop(world);
            self.spawn(Some(id), sweep(self.net.clone(), id, stripes));
        }
    }

    /// Somebody exchanges news with somebody he knows of.
    fn gossip(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        let Some(id) = world.choose(&running) else {
            return;
        };
        let Process {
            members, location, ..
        } = &world.processes[id];
        let known: Vec<Location> = members
            .iter()
            .filter(|member| member.status != Status::Left && member.location != *location)
            .map(|member| member.location.clone())
            .collect();
        if known.is_empty() {
            return;
        }
        let peer = known[world.random.below(known.len())].clone();
        drop(world);
        let net = self.net.clone();
        self.spawn(Some(id), async move {
            contact(&net, id, &peer).await;
        });
    }

    /// A leaving node ends when it may, or when it is the last. It waits for those who
    /// would know nobody else, as long as it takes.
    fn end_relieved(&self) {
        let mut world = self.net.borrow_mut();
        for id in world.running() {
            let moves = &world.processes[id].moves;
            let may_end = moves.may_end() || moves.current().is_empty();
            let leaves = world.status_of_self(id) == Status::Left;
            if leaves && may_end && !world.would_strand(id) {
                world.end(id);
                world.count("leaves");
            }
        }
    }

    // Upheavals.

    fn upheave(&self) {
        let what = self.net.borrow_mut().random.below(100);
        match what {
            0..30 => self.join_somebody(),
            30..45 => self.leave_somebody(),
            45..70 => self.crash_somebody(),
            70..85 => self.hang_somebody(),
            _ => self.resume_somebody(),
        }
    }

    /// One joins, or two at once; where one has died, as its restart.
    fn join_somebody(&self) {
        let how_many = 1 + usize::from(self.net.borrow_mut().once_in(3));
        for _ in 0..how_many {
            let mut world = self.net.borrow_mut();
            let free: Vec<u16> = (0..ADDRESSES)
                .filter(|number| world.at(&address(*number)).is_none())
                .collect();
            let members = world.members();
            let (Some(number), Some(peer)) = (world.choose(&free), world.choose(&members)) else {
                return;
            };
            let again = world.which(|p| p.location == address(number));
            world.count(if again.is_empty() {
                "joins"
            } else {
                "restarts"
            });
            let replicas = world.once_in(2).then_some(world.replicas);
            let id = world.start(address(number), replicas);
            drop(world);
            self.join(id, peer);
        }
    }

    fn leave_somebody(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.members();
        if members.len() < 2 {
            return;
        }
        if let Some(id) = world.choose(&members)
            && world.processes[id].moves.current().members().len() > 1
        {
            // The last one that others have not given up would end with all there is.
            world.leave(id);
        }
    }

    fn crash_somebody(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        if let Some(id) = world.choose(&running)
            && world.may_die(id)
        {
            world.end(id);
            world.count("crashes");
        }
    }

    /// One stops in its tracks. Others may find it down, as if it had died.
    fn hang_somebody(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.members();
        if let Some(id) = world.choose(&members) {
            let condemned = world.once_in(2) && world.may_die(id);
            world.processes[id].health = Health::Hung { condemned };
            world.count(if condemned {
                "found down while alive"
            } else {
                "hangs"
            });
        }
    }

    fn resume_somebody(&self) {
        let mut world = self.net.borrow_mut();
        let hung = world.which(|p| matches!(p.health, Health::Hung { .. }));
        if let Some(id) = world.choose(&hung) {
            world.resume(id);
        }
    }

    // The end.

    /// Nothing more begins; all that is under way ends, and all settles.
    fn come_to_rest(&self) {
        let hung = self
            .net
            .borrow()
            .which(|p| matches!(p.health, Health::Hung { .. }));
        for id in hung {
            self.net.borrow_mut().resume(id);
        }
        for step in 0..LONGEST {
            self.step(false);
            if self.is_broken() {
                return;
            }
            let mut world = self.net.borrow_mut();
            if step > 100 && world.tasks.is_empty() && world.is_at_rest() {
                return;
            }
        }
        let mut world = self.net.borrow_mut();
        let states: Vec<String> = world
            .running()
            .into_iter()
            .map(|id| {
                let process = &world.processes[id];
                let status = world.status_of_self(id);
                let moves = &process.moves;
                format!(
                    "\n  {status:?}, tasks {}, turns {}, copying from {:?}, disturbed {}, serving {}, pulls from {:?}, others {:?}, {:x?}",
                    world.tasks.iter().filter(|task| task.owner == Some(id)).count(),
                    process.turns.len(),
                    process.pulling,
                    process.disturbed,
                    moves.is_serving(),
                    moves.pulls().len(),
                    moves.others(),
                    moves.word(moves.me()),
                )
            })
            .collect();
        world.check(Err(states.join("; ")), "it never settles");
    }

    /// Exactly the owners hold each key, with what was acknowledged last. Where a
    /// primary ended in the middle of a write, some may hold that write as well.
    fn check_all_copies(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.members();
        let peers = members
            .iter()
            .map(|id| world.processes[*id].moves.me().clone());
        let view = Placement::new(peers);
        for name in KEYS {
            let key = Key::new(name);
            let mut copies: Vec<Option<Entry>> = Vec::new();
            for id in members.iter().copied() {
                let process = &world.processes[id];
                let entry = process.table.read(key);
                if view.owns(process.moves.me(), key, world.replicas) {
                    let outcome = world.promises.kept(name, entry.as_ref());
                    let what = format!("at {}, what was acknowledged is lost", process.location);
                    world.check(outcome, &what);
                    copies.push(entry);
                } else if let Some(entry) = entry {
                    let why = format!("{} of {}", entry.version, process.location);
                    world.check(Err(why), "a copy was not dropped");
                }
            }
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                world.count("keys left unlike by a write that was never acknowledged");
            }
        }
    }
}

impl World {
    /// All is settled: from now on, as many may die as there are copies but one.
    fn settle_if_all_is(&mut self) {
        if self.is_settled() {
            self.deaths = 0;
            self.base = self.members().into_iter().collect();
            self.tolerated = self.replicas.min(self.base.len()) - 1;
        }
        // Nobody writes by another view any more when all have the same.
        let running = self.which(|p| p.health != Health::Ended && p.entered);
        let mut views: Vec<u64> = running
            .iter()
            .map(|id| self.processes[*id].moves.current().id())
            .collect();
        views.dedup();
        if views.len() == 1 && !self.tasks.iter().any(|task| task.owner.is_none()) {
            for id in running {
                self.processes[id].disturbed = false;
            }
        }
    }

    /// Is one more death, of this process, within what is promised? Counts it.
    fn may_die(&mut self, id: Id) -> bool {
        let left = self
            .members()
            .into_iter()
            .any(|other| other != id && self.base.contains(&other));
        if !left {
            return false;
        }
        if !self.is_relied_on(id) {
            self.count("deaths of joiners");
            return true;
        }
        let within = self.deaths < self.tolerated;
        self.deaths += usize::from(within);
        within
    }

    /// Is all settled, and has each dropped what it does not own?
    fn is_at_rest(&mut self) -> bool {
        self.is_settled()
            && self.members().into_iter().all(|id| {
                let process = &self.processes[id];
                let moves = &process.moves;
                let current = moves.current();
                let strange = |key: Key<'_>| !current.owns(moves.me(), key, self.replicas);
                let page = process
                    .table
                    .page(&Cursor::default(), 1, usize::MAX, |_| true, strange);
                page.entries.is_empty()
            })
    }
}
