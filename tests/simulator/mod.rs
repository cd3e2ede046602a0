//! A seeded discrete-event simulator of the real membership core.
//!
//! Hosts stand in a [`Network`]; on each runs a node of ours, one of the original,
//! or nothing. Time is virtual, so what is slow is only what is computed. One seed
//! gives one run, always.

// Each test file uses its own part of the simulator.
#![allow(dead_code)]

pub mod churn;
mod network;
mod original;
mod rules;
pub mod size;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{
    Action, Event, Failure, Gossip, Member, Membership, Now, Outcome, Random, Request, Settings,
    Status, Token,
};

pub use network::{Id, Network};
use original::{Oneway, Original};
use rules::Rules;

/// The wall clock when a simulation begins, in milliseconds.
pub const START_MILLIS: i64 = 1_700_000_000_000;

/// What runs on a host.
#[derive(Clone)]
enum Process {
    Nothing,
    Ours(Box<Membership>),
    Original(Original),
}

/// A place where a process can run.
#[derive(Clone)]
pub struct Host {
    pub location: Location,
    process: Process,
    /// Counts the processes that ran here: what was meant for an earlier one is void.
    boot: u32,
    /// With nothing running: does the host itself still refuse connections?
    refuses: bool,
    /// Stopped (SIGSTOP): it takes connections, and does nothing.
    is_paused: bool,
    /// What came while it was paused.
    backlog: Vec<Happening>,
    is_leaving: bool,
    /// The next tick that is scheduled.
    wake: Option<Duration>,
    /// How wrong its wall clock is.
    clock_shift: i64,
    /// When something was last done to it.
    pub disturbed: Duration,
    outstanding: usize,
    /// Bytes sent in requests and replies.
    pub sent: u64,
    /// Calls made.
    pub calls: u64,
    /// Members that it suspected itself.
    pub suspicions: u64,
}

#[derive(Debug, Clone)]
enum Happening {
    Wake(Id, u32),
    Arrival {
        from: Id,
        boot: u32,
        to: Id,
        sent: Duration,
        action: Action,
    },
    /// Served when the host runs again; its caller has gone.
    Late(Id, u32, Action),
    Return {
        to: Id,
        boot: u32,
        token: Token,
        outcome: Outcome,
    },
    Message {
        from: Id,
        to: Id,
        message: Oneway,
    },
    Resume(Id, u32),
    Departure(Id, u32),
}

#[derive(Clone)]
struct Entry(Duration, u64, Happening);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
impl Entry {
    fn key(&self) -> (Duration, u64) {
        (self.0, self.1)
    }
}

#[derive(Clone)]
pub struct Simulator {
    pub clock: Duration,
    pub network: Network,
    pub hosts: Vec<Host>,
    pub random: Random,
    pub settings: Settings,
    /// Checked after every step, when there.
    rules: Option<Rules>,
    /// Changes replies on their way, given the request: for rules broken on purpose.
    pub tamper: Option<fn(&Gossip, &mut Gossip)>,
    /// All wall clocks show 1 and stand still: for rules broken on purpose.
    pub clocks_stand: bool,
    no_death: bool,
    /// Prints what happens.
    pub tells_story: bool,
    name: Arc<str>,
    places: BTreeMap<Location, Id>,
    queue: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

/// Where host number `id` is.
pub fn location(id: Id) -> Location {
    let address = format!("10.0.{}.{}", id / 250, id % 250 + 1);
    Location::new(&address, 9900).unwrap()
}

impl Simulator {
    pub fn new(seed: u64, settings: Settings) -> Simulator {
        Simulator {
            clock: Duration::from_secs(100),
            network: Network::new(),
            hosts: Vec::new(),
            random: Random::new(seed),
            settings,
            rules: None,
            tamper: None,
            clocks_stand: false,
            no_death: false,
            tells_story: false,
            name: "diststore.Store".into(),
            places: BTreeMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// From now on the rules are checked after every step.
    pub fn check_rules(&mut self) {
        self.rules = Some(Rules::default());
    }

    // Hosts and what is done to them.

    /// A new host, with nothing running.
    pub fn add_host(&mut self) -> Id {
        let id = self.hosts.len();
        let location = location(id);
        self.places.insert(location.clone(), id);
        self.hosts.push(Host {
            location,
            process: Process::Nothing,
            boot: 0,
            refuses: true,
            is_paused: false,
            backlog: Vec::new(),
            is_leaving: false,
            wake: None,
            clock_shift: 0,
            disturbed: self.clock,
            outstanding: 0,
            sent: 0,
            calls: 0,
            suspicions: 0,
        });
        id
    }

    /// Starts a node of ours on a host where nothing runs.
    pub fn start(&mut self, id: Id, seeds: Vec<Location>) {
        let now = self.now(id);
        let node = Membership::new(
            self.hosts[id].location.clone(),
            self.name.clone(),
            seeds,
            self.settings.clone(),
            now,
            self.random.bits(),
        );
        self.boot(id, Process::Ours(Box::new(node)));
        self.after_step(id, Vec::new());
    }

    /// Starts a node of the original, which joins through `peer`; without an answer
    /// from there it gives up, as the original does.
    pub fn start_original(&mut self, id: Id, peer: Id) -> bool {
        if !self.answers(id, peer) {
            return false;
        }
        let known = self.get_all(peer);
        self.boot_original(id, known);
        let me = self.hosts[id].location.clone();
        self.send(id, peer, Oneway::Join(me));
        true
    }

    /// Starts a network of the original.
    pub fn start_first_original(&mut self, id: Id) {
        self.boot_original(id, Vec::new());
    }

    fn boot_original(&mut self, id: Id, known: Vec<Location>) {
        let me = self.hosts[id].location.clone();
        if let Some(rules) = &mut self.rules {
            rules.speaks_for_no_one(&me);
        }
        self.boot(id, Process::Original(Original::new(me, known)));
    }

    /// The process ends at once. A host that is `refusing` still says so.
    pub fn kill(&mut self, id: Id, refusing: bool) {
        self.boot(id, Process::Nothing);
        self.hosts[id].refuses = refusing;
    }

    /// Stops the process for a while.
    pub fn pause(&mut self, id: Id, time: Duration) {
        let host = &mut self.hosts[id];
        host.is_paused = true;
        host.disturbed = self.clock;
        let boot = host.boot;
        self.schedule(time, Happening::Resume(id, boot));
    }

    /// Stops the process for good.
    pub fn hang(&mut self, id: Id) {
        self.hosts[id].is_paused = true;
        self.hosts[id].disturbed = self.clock;
    }

    /// The node leaves, and its process ends when it may.
    pub fn leave(&mut self, id: Id) {
        self.hosts[id].is_leaving = true;
        self.hosts[id].disturbed = self.clock;
        self.step(id, |node, now| node.leave(now));
        let boot = self.hosts[id].boot;
        self.schedule(Duration::from_millis(20), Happening::Departure(id, boot));
    }

    /// The layer above failed to reach `peer` from host `id`.
    pub fn report_unreachable(&mut self, id: Id, peer: Id, failure: Failure) {
        let peer = self.hosts[peer].location.clone();
        self.step(id, |node, now| {
            node.unreachable(now, &peer, failure);
            Vec::new()
        });
    }

    /// Someone tells host `id`, in the original's words, that `other` is gone.
    pub fn hear_removal(&mut self, id: Id, other: Id) {
        let other = self.hosts[other].location.clone();
        self.step(id, |node, now| {
            node.remove(now, other);
            Vec::new()
        });
    }

    /// Someone tells host `id`, in the original's words, that `other` is there.
    pub fn hear_addition(&mut self, id: Id, other: Id) {
        let other = self.hosts[other].location.clone();
        self.step(id, |node, now| {
            node.add(now, other);
            Vec::new()
        });
    }

    /// From now on a member that goes off a ring while it runs ends the test.
    pub fn expect_no_death(&mut self) {
        self.no_death = true;
    }

    /// Sets a host's wall clock wrong by so many milliseconds.
    pub fn set_clock(&mut self, id: Id, shift: i64) {
        self.hosts[id].clock_shift = shift;
    }

    pub fn split(&mut self, sides: Vec<u8>) {
        self.network.split(sides);
    }

    fn boot(&mut self, id: Id, process: Process) {
        let host = &mut self.hosts[id];
        host.process = process;
        host.boot += 1;
        host.refuses = true;
        host.is_paused = false;
        host.is_leaving = false;
        host.backlog.clear();
        host.wake = None;
        host.outstanding = 0;
        host.disturbed = self.clock;
        if let Some(rules) = &mut self.rules {
            rules.process_changed(id);
        }
    }

    // What can be seen.

    /// The node of ours on a host.
    pub fn node(&self, id: Id) -> Option<&Membership> {
        match &self.hosts[id].process {
            Process::Ours(node) => Some(node),
            _ => None,
        }
    }

    pub fn is_running(&self, id: Id) -> bool {
        !matches!(self.hosts[id].process, Process::Nothing)
    }

    pub fn is_original(&self, id: Id) -> bool {
        matches!(self.hosts[id].process, Process::Original(_))
    }

    /// Runs, is not stopped, and has not begun to leave.
    pub fn is_up(&self, id: Id) -> bool {
        let host = &self.hosts[id];
        self.is_running(id) && !host.is_paused && !host.is_leaving
    }

    pub fn up(&self) -> Vec<Id> {
        (0..self.hosts.len()).filter(|&id| self.is_up(id)).collect()
    }

    pub fn now(&self, id: Id) -> Now {
        let millis = START_MILLIS + self.clock.as_millis() as i64 + self.hosts[id].clock_shift;
        Now {
            monotonic: self.clock,
            unix_millis: if self.clocks_stand { 1 } else { millis },
        }
    }

    /// Do all that are up have one view of just those that are up?
    pub fn is_agreed(&self) -> bool {
        self.disagreement().is_none()
    }

    /// Who sees what otherwise, if anyone.
    pub fn disagreement(&self) -> Option<String> {
        let up = self.up();
        let view = up
            .iter()
            .find_map(|&id| self.node(id))
            .map(Membership::view);
        for &id in &up {
            let size = match &self.hosts[id].process {
                Process::Ours(node) if Some(node.view()) != view => {
                    return Some(format!("host {id} has another view"));
                }
                Process::Ours(node) => node.size(),
                Process::Original(original) => original.ring.len(),
                Process::Nothing => 0,
            };
            if size != up.len() {
                return Some(format!("host {id} sees {size} of {}", up.len()));
            }
        }
        // Sizes and views are equal: it remains to see whether they are right.
        let node = up.iter().find_map(|&id| self.node(id))?;
        let strange = up.iter().find(|&&id| !self.is_rightly_known(node, id))?;
        Some(format!("host {strange} is not rightly known"))
    }

    fn is_rightly_known(&self, node: &Membership, id: Id) -> bool {
        let location = &self.hosts[id].location;
        let mine = self.node(id).map(|other| record(other, location).started);
        node.is_on_ring(location)
            && mine.is_none_or(|started| record(node, location).started == started)
    }

    /// Whom a running host could try to find the others: live members, DOWN ones
    /// and seeds.
    pub fn address_book(&self, id: Id) -> Vec<Id> {
        let places = |location: &Location| self.places.get(location).copied();
        match &self.hosts[id].process {
            Process::Ours(node) => {
                let known = node.members().filter(|m| m.status != Status::Left);
                known.filter_map(|m| places(&m.location)).collect()
            }
            // It waits to be called.
            Process::Original(_) | Process::Nothing => Vec::new(),
        }
    }

    /// A run is to be repeated in every detail: this tells whether it was.
    pub fn fingerprint(&self) -> u64 {
        let views = self.hosts.iter().enumerate().map(|(id, host)| {
            let view = self.node(id).map_or(0, Membership::view);
            view ^ host.sent.rotate_left(17) ^ host.calls.rotate_left(40)
        });
        views.fold(self.sequence, |sum, part| sum.rotate_left(7) ^ part)
    }

    // Time.

    /// Lets so much time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.clock + time;
        self.run_until(end, |_| false);
    }

    /// Runs until `is_done`, asked every 10 ms, and says how long that took; nothing
    /// if `limit` passed first.
    pub fn time_until(
        &mut self,
        limit: Duration,
        is_done: impl Fn(&Simulator) -> bool,
    ) -> Option<Duration> {
        let start = self.clock;
        while self.clock < start + limit {
            if is_done(self) {
                return Some(self.clock - start);
            }
            self.run(Duration::from_millis(10));
        }
        None
    }

    fn run_until(&mut self, end: Duration, is_done: impl Fn(&Simulator) -> bool) {
        while let Some(Reverse(next)) = self.queue.peek()
            && next.0 <= end
            && !is_done(self)
        {
            if let Some(Reverse(Entry(time, _, happening))) = self.queue.pop() {
                self.clock = time;
                self.happen(happening);
            }
        }
        self.clock = end;
    }

    fn schedule(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        let entry = Entry(self.clock + wait, self.sequence, happening);
        self.queue.push(Reverse(entry));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(id, boot) => self.wake(id, boot),
            Happening::Arrival {
                from,
                boot,
                to,
                sent,
                action,
            } => self.arrive(from, boot, to, sent, action),
            Happening::Late(to, boot, action) => {
                if self.hosts[to].boot == boot {
                    self.serve(to, &action);
                }
            }
            Happening::Return {
                to,
                boot,
                token,
                outcome,
            } => self.come_back(to, boot, token, outcome),
            Happening::Message { from, to, message } => self.hear(from, to, message),
            Happening::Resume(id, boot) => self.resume(id, boot),
            Happening::Departure(id, boot) => self.depart(id, boot),
        }
    }

    fn wake(&mut self, id: Id, boot: u32) {
        let host = &mut self.hosts[id];
        if host.boot != boot || host.is_paused || host.wake != Some(self.clock) {
            return;
        }
        host.wake = None;
        self.step(id, |node, now| node.tick(now));
    }

    fn resume(&mut self, id: Id, boot: u32) {
        if self.hosts[id].boot != boot {
            return;
        }
        let host = &mut self.hosts[id];
        host.is_paused = false;
        host.disturbed = self.clock;
        // The threads of the driver run in any order.
        let mut backlog = std::mem::take(&mut host.backlog);
        self.random.shuffle(&mut backlog);
        for happening in backlog {
            let wait = self.network.delay(&mut self.random);
            self.schedule(wait, happening);
        }
        let wake = self.random.below(3_000) as u64;
        self.hosts[id].wake = Some(self.clock + Duration::from_micros(wake));
        self.schedule(Duration::from_micros(wake), Happening::Wake(id, boot));
    }

    fn depart(&mut self, id: Id, boot: u32) {
        if self.hosts[id].boot != boot {
            return;
        }
        let now = self.now(id);
        if self.node(id).is_some_and(|node| node.left(now)) {
            self.kill(id, true);
        } else {
            self.schedule(Duration::from_millis(20), Happening::Departure(id, boot));
        }
    }

    // Nodes of ours, and the calls they make.

    /// Lets a node do something, makes its calls, and checks what it believes.
    fn step(&mut self, id: Id, act: impl FnOnce(&mut Membership, Now) -> Vec<Action>) {
        let now = self.now(id);
        if let Process::Ours(node) = &mut self.hosts[id].process {
            let actions = act(node, now);
            self.after_step(id, actions);
        }
    }

    fn after_step(&mut self, id: Id, actions: Vec<Action>) {
        for action in actions {
            self.make_call(id, action);
        }
        let clock = self.clock;
        let Process::Ours(node) = &mut self.hosts[id].process else {
            return;
        };
        let events = node.events();
        let wake = node.wake_at().max(clock);
        self.note_deaths(id, &events);
        if self.tells_story {
            for event in &events {
                eprintln!("{:?} host {id}: {event:?}", self.clock);
            }
        }
        self.check(id, &events);
        let host = &mut self.hosts[id];
        if host.wake.is_none_or(|scheduled| scheduled > wake) {
            host.wake = Some(wake);
            let boot = host.boot;
            self.schedule(wake - clock, Happening::Wake(id, boot));
        }
    }

    fn make_call(&mut self, from: Id, action: Action) {
        let host = &mut self.hosts[from];
        host.calls += 1;
        host.outstanding += 1;
        host.sent += size::request(&action.request);
        let boot = host.boot;
        let wait = self.network.delay(&mut self.random);
        let sent = self.clock;
        match self.places.get(&action.peer) {
            Some(&to) => self.schedule(
                wait,
                Happening::Arrival {
                    from,
                    boot,
                    to,
                    sent,
                    action,
                },
            ),
            None => self.give_back(from, boot, action.token, Outcome::Refused, wait),
        }
    }

    /// Hands the outcome to the caller after `wait`, or the silence when it is due.
    fn give_back(&mut self, to: Id, boot: u32, token: Token, outcome: Outcome, wait: Duration) {
        let happening = Happening::Return {
            to,
            boot,
            token,
            outcome,
        };
        self.schedule(wait, happening);
    }

    fn arrive(&mut self, from: Id, boot: u32, to: Id, sent: Duration, action: Action) {
        let token = action.token;
        let timeout = (sent + self.settings.call_timeout).saturating_sub(self.clock);
        let is_lost = self.network.loses(&mut self.random);
        let is_heard = !is_lost || self.random.below(2) == 0;
        let connects = self.network.connects(from, to);
        let host = &mut self.hosts[to];
        if connects && is_heard && host.is_paused {
            let late = Happening::Late(to, host.boot, action);
            host.backlog.push(late);
            return self.give_back(from, boot, token, Outcome::Silent, timeout);
        }
        let refused = matches!(host.process, Process::Nothing) && host.refuses;
        let answers = connects && is_heard && self.is_running(to);
        let outcome = if answers {
            self.serve(to, &action)
        } else if connects && refused {
            Some((Outcome::Refused, Duration::ZERO))
        } else {
            None
        };
        let way = self.network.delay(&mut self.random);
        match outcome {
            Some((outcome, work)) if !is_lost && work + way < timeout => {
                self.give_back(from, boot, token, outcome, work + way);
            }
            _ => self.give_back(from, boot, token, Outcome::Silent, timeout),
        }
    }

    /// What a running host answers, and how long it works on that.
    fn serve(&mut self, id: Id, action: &Action) -> Option<(Outcome, Duration)> {
        if matches!(self.hosts[id].process, Process::Original(_)) {
            return Some((self.serve_as_original(id, &action.request), Duration::ZERO));
        }
        match &action.request {
            Request::Exchange(gossip) => {
                let reply = self.exchange(id, gossip)?;
                Some((Outcome::Gossip(reply), Duration::ZERO))
            }
            Request::Reach(target) => Some(self.reach(id, target)),
            Request::GetAll => Some((Outcome::All(self.get_all(id)), Duration::ZERO)),
            Request::Add { location, .. } => {
                self.step(id, |node, now| {
                    node.add(now, location.clone());
                    Vec::new()
                });
                Some((Outcome::Done, Duration::ZERO))
            }
            Request::Remove { location, .. } => {
                self.step(id, |node, now| {
                    node.remove(now, location.clone());
                    Vec::new()
                });
                Some((Outcome::Done, Duration::ZERO))
            }
        }
    }

    fn exchange(&mut self, id: Id, gossip: &Gossip) -> Option<Gossip> {
        let mut reply = None;
        self.step(id, |node, now| {
            reply = Some(node.receive(now, gossip.clone()));
            Vec::new()
        });
        let mut reply = reply?;
        if let Some(tamper) = self.tamper {
            tamper(gossip, &mut reply);
        }
        self.hosts[id].sent += size::exchange(&reply);
        Some(reply)
    }

    fn reach(&mut self, id: Id, target: &Location) -> (Outcome, Duration) {
        self.hosts[id].sent += size::reached();
        let Some(&target) = self.places.get(target) else {
            return (Outcome::Reached(false), Duration::ZERO);
        };
        let is_lost = self.network.loses(&mut self.random);
        let connects = self.network.connects(id, target) && !is_lost;
        let host = &self.hosts[target];
        let is_there = self.is_running(target) && !host.is_paused;
        let is_refused = !self.is_running(target) && host.refuses;
        if connects && (is_there || is_refused) {
            let way = self.network.delay(&mut self.random) * 2;
            (Outcome::Reached(is_there), way)
        } else {
            (Outcome::Reached(false), self.settings.reach_timeout)
        }
    }

    fn come_back(&mut self, to: Id, boot: u32, token: Token, outcome: Outcome) {
        let host = &mut self.hosts[to];
        if host.boot != boot {
            return;
        }
        if host.is_paused {
            // When it runs again, its timer may be seen before the reply.
            let outcome = if self.random.below(2) == 0 {
                Outcome::Silent
            } else {
                outcome
            };
            host.backlog.push(Happening::Return {
                to,
                boot,
                token,
                outcome,
            });
            return;
        }
        host.outstanding -= 1;
        self.step(to, |node, now| node.reply(now, token, outcome));
    }

    // Nodes of the original.

    fn serve_as_original(&mut self, id: Id, request: &Request) -> Outcome {
        let message = match request {
            Request::GetAll => return Outcome::All(self.get_all(id)),
            Request::Exchange(_) | Request::Reach(_) => return Outcome::UnknownMethod,
            Request::Add {
                location,
                authorities,
            } => Oneway::Add(location.clone(), authorities.clone()),
            Request::Remove {
                location,
                authorities,
            } => Oneway::Remove(location.clone(), authorities.clone()),
        };
        self.pass_on(id, message);
        Outcome::Done
    }

    fn get_all(&self, id: Id) -> Vec<Location> {
        match &self.hosts[id].process {
            Process::Ours(node) => node.live().map(|(location, _)| location.clone()).collect(),
            Process::Original(original) => original.ring.iter().cloned().collect(),
            Process::Nothing => Vec::new(),
        }
    }

    fn answers(&self, from: Id, to: Id) -> bool {
        self.is_up(to) && self.network.connects(from, to)
    }

    fn send(&mut self, from: Id, to: Id, message: Oneway) {
        let wait = self.network.delay(&mut self.random);
        self.schedule(wait, Happening::Message { from, to, message });
    }

    /// An original hears a message, and passes it to the next.
    fn pass_on(&mut self, id: Id, message: Oneway) {
        if let Process::Original(original) = &mut self.hosts[id].process
            && let Some((next, message)) = original.hear(message)
            && let Some(&to) = self.places.get(&next)
        {
            self.send(id, to, message);
        }
    }

    /// A message between hosts of which one is of the original.
    fn hear(&mut self, from: Id, to: Id, message: Oneway) {
        if !self.answers(from, to) {
            let location = self.hosts[to].location.clone();
            if let Process::Original(original) = &mut self.hosts[from].process
                && let Some((next, message)) = original.undeliverable(&location, message)
                && let Some(&next) = self.places.get(&next)
            {
                self.send(from, next, message);
            }
            return;
        }
        self.step(to, |node, now| {
            match &message {
                Oneway::Join(location) => node.join(now, location.clone()),
                Oneway::Add(location, _) => node.add(now, location.clone()),
                Oneway::Remove(location, _) => node.remove(now, location.clone()),
            }
            Vec::new()
        });
        self.pass_on(to, message);
    }

    // Rules.

    fn note_deaths(&mut self, id: Id, events: &[Event]) {
        let deaths = rules::deaths(events).filter(|dead| {
            let dead = self.places.get(*dead).copied();
            dead.is_some_and(|dead| self.is_running(dead) && !self.hosts[dead].is_leaving)
        });
        let deaths = deaths.count();
        assert!(!self.no_death || deaths == 0, "host {id} lost one who runs");
        let suspicions = events.iter().filter(|e| matches!(e, Event::Suspected(_)));
        self.hosts[id].suspicions += suspicions.count() as u64;
    }

    fn check(&mut self, id: Id, events: &[Event]) {
        let Some(mut rules) = self.rules.take() else {
            return;
        };
        rules.check(self, id, events);
        self.rules = Some(rules);
    }

    /// Calls that a host waits for.
    pub fn outstanding(&self, id: Id) -> usize {
        self.hosts[id].outstanding
    }

    pub fn place(&self, location: &Location) -> Option<Id> {
        self.places.get(location).copied()
    }
}

/// What `node` knows of a member.
pub fn record<'a>(node: &'a Membership, location: &Location) -> &'a Member {
    let mut members = node.members();
    let found = members.find(|member| member.location == *location);
    found.unwrap_or_else(|| panic!("{location} is not known"))
}
