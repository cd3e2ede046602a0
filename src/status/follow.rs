//! `Follower`: the events of a network, as one of its nodes sees them, as they happen.
//!
//! If the node does not answer any more, another one is followed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::Error;
use crate::location::Location;
use crate::locator::{Event, EventKind, Events, LocatorSyncClient, TLocatorSyncClient};
use crate::membership::Gossip;
use crate::rpc::dialer::{Dialer, Timeouts};

/// How long a node is asked to wait for an event, in milliseconds.
const WAIT: i32 = 5_000;

/// Longer than that by as much as a busy node needs to reply.
const TIMEOUTS: Timeouts = Timeouts::of_millis(1_000, 8_000);

/// The most nodes that are remembered to be followed.
const MAX_NODES: usize = 10_000;

/// Follows a network.
pub struct Follower {
    dialer: Dialer,
    node: Location,
    /// Other nodes, to go on with.
    others: BTreeSet<Location>,
    /// The number of the last event that was seen. Negative at first.
    last: i64,
}

/// What a follower has seen.
#[derive(Debug)]
pub enum Seen {
    /// This node is followed from now on, because the other one, if there was one, does not answer.
    Follows(Location, Option<Location>),
    /// Events of this node are missing before those that come next.
    Gap(Location),
    /// The node has seen this.
    Event(Location, Event),
}

impl Follower {
    /// Follows `node`, from the first [`next_seen`](Follower::next_seen) on.
    pub fn new(dialer: Dialer, node: Location) -> Follower {
        Follower {
            dialer,
            node,
            others: BTreeSet::new(),
            last: -1,
        }
    }

    /// What has been seen since the last time, in order. Blocks until there is something, or for
    /// some seconds.
    ///
    /// # Errors
    /// Why the node that is followed does not answer, if no other one does.
    pub fn next_seen(&mut self) -> Result<Vec<Seen>, Error> {
        let node = self.node.clone();
        if self.last < 0 {
            self.begin(&node)?;
            return Ok(vec![Seen::Follows(node, None)]);
        }
        match self.ask(&node, self.last) {
            Ok(reply) => {
                self.last = reply.last.unwrap_or(0).max(0);
                let gap = (reply.is_gap == Some(true)).then(|| Seen::Gap(node.clone()));
                let events = reply.events.unwrap_or_default();
                events.iter().for_each(|event| self.note(event));
                let events = events
                    .into_iter()
                    .map(|event| Seen::Event(node.clone(), event));
                Ok(gap.into_iter().chain(events).collect())
            }
            Err(e) => {
                let mut others = self.others.clone().into_iter();
                let next = others.find(|other| *other != node && self.begin(other).is_ok());
                let next = next.ok_or(e)?;
                self.node = next.clone();
                Ok(vec![Seen::Follows(next, Some(node))])
            }
        }
    }

    /// A node that joins can be followed too.
    fn note(&mut self, event: &Event) {
        let joined = event.location.as_ref().and_then(|at| at.try_into().ok());
        if let Some(joined) = joined.filter(|_| event.kind == Some(EventKind::JOINED))
            && self.others.len() < MAX_NODES
        {
            self.others.insert(joined);
        }
    }

    /// Asks a node for its last number and the members.
    fn begin(&mut self, node: &Location) -> Result<(), Error> {
        let last = self.ask(node, -1)?.last.unwrap_or(0).max(0);
        let members = |node: &mut _| TLocatorSyncClient::members(node);
        let members =
            self.dialer
                .call_with_timeouts(TIMEOUTS, LocatorSyncClient::new, node, members)?;
        let members = Gossip::try_from(members).map_or(Vec::new(), |gossip| gossip.members);
        let live = members.into_iter().filter(|member| member.status.is_live());
        self.others = live.map(|member| member.location).collect();
        self.last = last;
        Ok(())
    }

    fn ask(&self, node: &Location, after: i64) -> Result<Events, Error> {
        let ask = |node: &mut _| TLocatorSyncClient::events(node, after, WAIT);
        self.dialer
            .call_with_timeouts(TIMEOUTS, LocatorSyncClient::new, node, ask)
    }
}

impl Seen {
    /// A line for people.
    pub fn text(&self) -> String {
        match self {
            Seen::Follows(node, None) => format!("following {node}"),
            Seen::Follows(node, Some(before)) => {
                format!("{before} does not answer: following {node}; events may be missing here")
            }
            Seen::Gap(node) => format!("events of {node} are missing here: see all members"),
            Seen::Event(_, event) => {
                let at = Timestamp::from_millisecond(event.at.unwrap_or(0)).unwrap_or_default();
                let text = event.text.as_deref().unwrap_or_default();
                // It comes from another program, and goes to a terminal.
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                format!("{at:.0} {text}")
            }
        }
    }

    /// An object for programs.
    pub fn json(&self) -> Value {
        let (node, kind, event) = match self {
            Seen::Follows(node, _) => (node, "follows", None),
            Seen::Gap(node) => (node, "gap", None),
            Seen::Event(node, event) => (node, word(event.kind), Some(event)),
        };
        let location = event.and_then(|event| event.location.as_ref());
        let location = location.and_then(|at| Location::try_from(at).ok());
        json!({
            "node": node.name(),
            "kind": kind,
            "sequence": event.and_then(|event| event.sequence),
            "at": event.and_then(|event| event.at),
            "location": location.as_ref().map(Location::name),
            "tags": event.and_then(|event| event.tags.as_ref()),
            "moved": event.and_then(|event| event.moved).map(f64::from),
            "text": event.map_or_else(|| Some(self.text()), |event| event.text.clone()),
        })
    }
}

fn word(kind: Option<EventKind>) -> &'static str {
    match kind {
        Some(EventKind::JOINED) => "joined",
        Some(EventKind::LEFT) => "left",
        Some(EventKind::SUSPECTED) => "suspected",
        Some(EventKind::REFUTED) => "refuted",
        Some(EventKind::DOWN) => "down",
        Some(EventKind::RESTARTED) => "restarted",
        Some(EventKind::TAGS_CHANGED) => "tags_changed",
        Some(EventKind::RING_CHANGED) => "ring_changed",
        _ => "notice",
    }
}
