//! Events: changes of the ring, and what the driver logs.

use std::sync::Arc;
use std::time::Duration;

use super::tags::Tags;
use crate::location::Location;

/// What has changed or was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ring has changed.
    RingChanged(Change),
    /// This node received a false record about itself and refuted it with this new incarnation.
    Refuted(i64),
    /// This node suspects the member itself: a call failed, and so did the indirect probe.
    Suspected(Location),
    /// Others suspect the member.
    SuspectedByOthers(Location),
    /// The member has refuted a suspicion.
    RefutedByMember(Location),
    /// The member does not reply to this node, but to this other one.
    LinkCut(Location, Location),
    /// The member replies to this node again.
    LinkRestored(Location),
    /// The member is DOWN and its process has ended: its host refuses connections.
    Exited(Location),
    /// An operator declared the DOWN member gone for good.
    DeclaredGone(Location),
    /// A peer turned out to be a legacy node.
    LegacyPeer(Location),
    /// A peer that was a legacy node knows `exchange` now.
    UpgradedPeer(Location),
    /// The node at a called location, or a caller, belongs to this other network.
    ForeignNetwork(Location, Arc<str>),
    /// A part of this sender's gossip was rejected.
    GossipRejected(Location, RejectReason),
    /// This process was paused for this time. Calls that timed out during it were ignored.
    ProcessPaused(Duration),
}

/// One change of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The member.
    pub location: Location,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its tags.
    pub tags: Tags,
    /// The process there before it had other ones.
    pub has_other_tags: bool,
}

/// What happened to a member of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was added.
    Added,
    /// It was removed: it could not be reached.
    Down,
    /// It was removed: it announced that it leaves.
    Left,
    /// It has a new generation: its process has restarted and lost its memory, or it was declared
    /// down and has missed what others did since.
    Restarted,
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
