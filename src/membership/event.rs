//! Events: changes of the ring, and what the driver logs.

use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;

/// What has changed or was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ring has changed: all changes since the last such event.
    RingChanged(Vec<Change>),
    /// This node received a false record about itself and refuted it.
    Refuted {
        /// The new incarnation of this node.
        incarnation: i64,
    },
    /// This node suspects the member itself: a call failed, and so did the indirect probe.
    Suspected(Location),
    /// A peer turned out to be a legacy node, or to have become a node with `exchange`.
    LegacyPeer {
        /// The peer.
        location: Location,
        /// True if it is a legacy node now.
        is_legacy: bool,
    },
    /// The node at a called location, or a caller, belongs to this other network.
    ForeignNetwork(Location, Arc<str>),
    /// A part of this sender's gossip was rejected.
    GossipRejected(Location, RejectReason),
    /// This process was paused for this time. Calls that timed out during it were ignored.
    ProcessPaused(Duration),
}

/// One change of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member was added.
    Added {
        /// The member.
        location: Location,
        /// The incarnation with which its process became a member.
        generation: i64,
    },
    /// A member was removed.
    Removed {
        /// The member.
        location: Location,
        /// Why.
        reason: RemovalReason,
    },
    /// A member on the ring has a new generation: its process has restarted and lost its memory,
    /// or it was declared down and has missed what others did since.
    Restarted {
        /// The member.
        location: Location,
        /// The incarnation with which its new process became a member.
        generation: i64,
    },
}

impl Change {
    /// The member that was added, removed or restarted.
    pub fn location(&self) -> &Location {
        match self {
            Change::Added { location, .. }
            | Change::Removed { location, .. }
            | Change::Restarted { location, .. } => location,
        }
    }
}

/// Why a member was removed from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// It could not be reached.
    Down,
    /// It announced that it leaves.
    Left,
}

/// Why a part of a gossip was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// This number of records had no location, no status, or an impossible incarnation.
    #[error("{0} records cannot be read")]
    Unreadable(usize),
    /// An incarnation is too far ahead of this node's clock: one of the two clocks is wrong.
    #[error("an incarnation is far in the future: this node's clock or the sender's is wrong")]
    ClockSkew,
    /// The table has its maximum of live members.
    #[error("the table of members is full")]
    TableFull,
}
