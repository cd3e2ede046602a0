//! What a test does to a host: crashes, pauses, leaves, wrong clocks, and false messages.

use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::Failure;

use super::event_queue::SimEvent;
use super::{Id, Process, Simulator};

impl Simulator {
    /// Ends the process at once. The host then refuses connections, or does not reply.
    pub fn kill(&mut self, id: Id, refuses: bool) {
        self.boot(id, Process::Absent);
        self.hosts[id].refuses = refuses;
    }

    /// Stops the process for this time.
    pub fn pause(&mut self, id: Id, time: Duration) {
        self.hang(id);
        let process = self.process_id(id);
        self.schedule(time, SimEvent::Resume(process));
    }

    /// Stops the process for good.
    pub fn hang(&mut self, id: Id) {
        self.hosts[id].is_paused = true;
        self.hosts[id].disturbed_at = self.clock;
    }

    /// Lets the node leave. Its process ends when it may.
    pub fn leave(&mut self, id: Id) {
        self.hosts[id].is_leaving = true;
        self.hosts[id].disturbed_at = self.clock;
        self.step(id, |node, now| node.leave(now));
        let process = self.process_id(id);
        self.schedule_end_leave(process);
    }

    /// Reports to host `id` that a call of the layer above to `peer` failed.
    pub fn report_unreachable(&mut self, id: Id, peer: Id, failure: Failure) {
        let peer = self.hosts[peer].location.clone();
        self.step(id, |node, now| {
            node.report_unreachable(now, &peer, failure);
            Vec::new()
        });
    }

    /// Delivers the original's `remove` to host `id`.
    pub fn receive_remove(&mut self, id: Id, removed: Location) {
        self.step(id, |node, now| {
            node.remove(now, removed);
            Vec::new()
        });
    }

    /// Delivers the original's `add` to host `id`.
    pub fn receive_add(&mut self, id: Id, added: Location) {
        self.step(id, |node, now| {
            node.add(now, added);
            Vec::new()
        });
    }

    /// Sets a host's wall clock ahead by so many milliseconds.
    pub fn set_clock(&mut self, id: Id, offset: i64) {
        self.hosts[id].clock_offset = offset;
    }
}
