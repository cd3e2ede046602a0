//! What the driver is told: changes of the ring, and what is worth a line in the log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ring of live members is another one. All changes since the last one.
    RingChanged(Vec<Change>),
    /// Something was said of us that is not so; we said ALIVE anew.
    Refuted {
        /// Our new incarnation.
        incarnation: i64,
    },
    /// We suspect this member ourselves: it failed us, and no helper reached it.
    Suspected(Location),
    /// A member turned out to be a node of the original, or not to be one any more.
    Original {
        /// Who.
        location: Location,
        /// Whether it is one now.
        is_one: bool,
    },
    /// A node of another network lives at an address that we call, or called us.
    ForeignNetwork(Location, Arc<str>),
    /// Of this sender's gossip, something was not believed.
    Disbelieved(Location, Disbelief),
    /// This node did not run for so long. It accuses no one for what it missed.
    Paused(Duration),
}

/// One change of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member came.
    Added {
        /// Who.
        location: Location,
        /// The start of its process.
        started: i64,
    },
    /// A member went.
    Removed {
        /// Who.
        location: Location,
        /// How.
        why: Why,
    },
    /// A member's process is another one: what it had in memory is gone.
    Restarted {
        /// Who.
        location: Location,
        /// The start of its new process.
        started: i64,
    },
}

impl Change {
    /// Whom the change is about.
    pub fn location(&self) -> &Location {
        match self {
            Change::Added { location, .. }
            | Change::Removed { location, .. }
            | Change::Restarted { location, .. } => location,
        }
    }
}

/// How a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It could not be reached.
    Down,
    /// It said that it leaves.
    Left,
}

/// Why something in a gossip was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disbelief {
    /// So many records named no place, no status, or an impossible incarnation.
    Unreadable(usize),
    /// A record's incarnation is far ahead of our clock: one of two clocks is wrong.
    Ahead,
    /// The table has as many live members as it may.
    TableFull,
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disbelief::Unreadable(records) => write!(f, "{records} records cannot be read"),
            Disbelief::Ahead => f.write_str(
                "a record is from far in the future: this node's clock or the other's is wrong",
            ),
            Disbelief::TableFull => f.write_str("there are more members than this node can know"),
        }
    }
}
