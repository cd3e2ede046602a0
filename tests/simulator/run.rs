//! Running: the time advances from event to event, and nodes act on them.

use std::time::Duration;

use thrifty_p2p::membership::{Action, Event, Membership, Now};

use super::event_queue::{ProcessId, SimEvent};
use super::invariants::removed_as_down;
use super::{Id, Process, Simulator};

/// How often the simulator asks whether a leaving process may end.
const LEAVE_POLL: Duration = Duration::from_millis(20);

impl Simulator {
    /// Runs for this time.
    pub fn run(&mut self, time: Duration) {
        let end = self.clock + time;
        while let Some((time, event)) = self.queue.pop_until(end) {
            self.clock = time;
            self.handle(event);
        }
        self.clock = end;
    }

    /// Runs until `is_done`, which is evaluated every 10 ms, and returns the time that took. None
    /// after `limit`.
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

    /// Schedules an event after `delay`.
    pub(super) fn schedule(&mut self, delay: Duration, event: SimEvent) {
        self.queue.push(self.clock + delay, event);
    }

    fn handle(&mut self, event: SimEvent) {
        match event {
            SimEvent::Wake(process) => self.on_wake(process),
            SimEvent::Request {
                caller,
                to,
                called_at,
                action,
            } => self.on_request(caller, to, called_at, action),
            SimEvent::LateRequest(process, action) => {
                if self.is_current(process) {
                    self.serve(process.host, &action);
                }
            }
            SimEvent::Reply {
                caller,
                token,
                outcome,
            } => self.on_reply(caller, token, outcome),
            SimEvent::Message { from, to, message } => self.on_message(from, to, message),
            SimEvent::Resume(process) => self.on_resume(process),
            SimEvent::EndLeave(process) => self.on_end_leave(process),
        }
    }

    fn on_wake(&mut self, process: ProcessId) {
        let is_current = self.is_current(process);
        let host = &mut self.hosts[process.host];
        if is_current && !host.is_paused && host.wake_at == Some(self.clock) {
            host.wake_at = None;
            self.step(process.host, |node, now| node.tick(now));
        }
    }

    fn on_resume(&mut self, process: ProcessId) {
        if !self.is_current(process) {
            return;
        }
        let host = &mut self.hosts[process.host];
        host.is_paused = false;
        host.disturbed_at = self.clock;
        // The threads of a driver continue in any order.
        let mut backlog = std::mem::take(&mut host.backlog);
        self.rng.shuffle(&mut backlog);
        for event in backlog {
            let delay = self.network.delay(&mut self.rng);
            self.schedule(delay, event);
        }
        let delay = Duration::from_micros(self.rng.below(3_000) as u64);
        self.hosts[process.host].wake_at = Some(self.clock + delay);
        self.schedule(delay, SimEvent::Wake(process));
    }

    /// Ends a leaving process when it may end.
    pub(super) fn schedule_end_leave(&mut self, process: ProcessId) {
        self.schedule(LEAVE_POLL, SimEvent::EndLeave(process));
    }

    fn on_end_leave(&mut self, process: ProcessId) {
        if !self.is_current(process) {
            return;
        }
        let now = self.now(process.host);
        if self.node(process.host).is_some_and(|node| node.left(now)) {
            self.kill(process.host, true);
        } else {
            self.schedule_end_leave(process);
        }
    }

    /// Gives an input to a node, makes its calls, and checks its state. Does nothing if no node
    /// runs on the host.
    pub(super) fn step(&mut self, id: Id, input: impl FnOnce(&mut Membership, Now) -> Vec<Action>) {
        let now = self.now(id);
        if let Process::Node(node) = &mut self.hosts[id].process {
            let actions = input(node, now);
            self.after_step(id, actions);
        }
    }

    pub(super) fn after_step(&mut self, id: Id, actions: Vec<Action>) {
        for action in actions {
            self.make_call(id, action);
        }
        let Process::Node(node) = &mut self.hosts[id].process else {
            return;
        };
        let events = node.events();
        let wake_at = node.wake_at().max(self.clock);
        self.check_removals(id, &events);
        let suspicions = events.iter().filter(|e| matches!(e, Event::Suspected(_)));
        self.hosts[id].suspicions += suspicions.count() as u64;
        if self.prints_events {
            for event in &events {
                eprintln!("{:?} host {id}: {event:?}", self.clock);
            }
        }
        if let Some(mut invariants) = self.invariants.take() {
            invariants.check(self, id, &events);
            self.invariants = Some(invariants);
        }
        let host = &mut self.hosts[id];
        if host.wake_at.is_none_or(|scheduled| scheduled > wake_at) {
            host.wake_at = Some(wake_at);
            let process = self.process_id(id);
            self.schedule(wake_at - self.clock, SimEvent::Wake(process));
        }
    }

    fn check_removals(&self, id: Id, events: &[Event]) {
        if self.forbids_removals {
            for removed in removed_as_down(events).filter_map(|l| self.id_of(l)) {
                let is_up = self.is_running(removed) && !self.hosts[removed].is_leaving;
                assert!(!is_up, "host {id} removed host {removed}, which runs");
            }
        }
    }
}
