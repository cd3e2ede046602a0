//! What will happen in the simulation, ordered by time.

use std::collections::BTreeMap;
use std::time::Duration;

use thrifty_p2p::membership::{Action, Outcome, Token};

use super::Id;
use super::legacy::Oneway;

/// One process on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    pub host: Id,
    pub boot: u32,
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub enum SimEvent {
    /// A node ticks.
    Wake(ProcessId),
    /// A request arrives.
    Request {
        caller: ProcessId,
        to: Id,
        called_at: Duration,
        action: Action,
    },
    /// A request that arrived during a pause is served. The caller has timed out.
    LateRequest(ProcessId, Action),
    /// The outcome of a call arrives at the caller.
    Reply {
        caller: ProcessId,
        token: Token,
        outcome: Outcome,
    },
    /// A oneway message between legacy nodes, or from one to a node, arrives.
    Message { from: Id, to: Id, message: Oneway },
    /// A paused process continues.
    Resume(ProcessId),
    /// A leaving process ends, if it may.
    EndLeave(ProcessId),
}

/// Events by time. Events of the same time happen in the order in which they were scheduled.
#[derive(Clone, Default)]
pub struct EventQueue {
    events: BTreeMap<(Duration, u64), SimEvent>,
    /// The number of events scheduled so far.
    pub scheduled: u64,
}

impl EventQueue {
    pub fn push(&mut self, time: Duration, event: SimEvent) {
        self.scheduled += 1;
        self.events.insert((time, self.scheduled), event);
    }

    /// Removes the first event, if it happens at `end` or before.
    pub fn pop_until(&mut self, end: Duration) -> Option<(Duration, SimEvent)> {
        let first = self.events.first_entry()?;
        let (time, _) = *first.key();
        (time <= end).then(|| (time, first.remove()))
    }
}
