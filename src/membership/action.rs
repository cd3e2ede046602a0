//! Calls to other nodes: what the driver has to do, and what it reports.

use std::time::Duration;

use super::gossip::Gossip;
use crate::location::Location;

/// Identifies one call. The driver returns it with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(super) u64);

/// One call that the driver has to make, without holding the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Identifies the call in [`reply`](super::Membership::reply).
    pub token: Token,
    /// The node to call.
    pub peer: Location,
    /// The method and its arguments.
    pub request: Request,
}

/// The method and the arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `exchange(gossip)`. Its reply is an [`Outcome::Gossip`].
    Exchange(Gossip),
    /// `ping_req(location)`. Its reply is an [`Outcome::PingReq`].
    PingReq(Location),
    /// `get_all()`, for a legacy node. Its reply is an [`Outcome::All`].
    GetAll,
    /// `add(location, authorities)`, for a legacy node. The authorities are all members, so that it
    /// does not forward the message. Reported as [`Outcome::Done`].
    Add(Location, Vec<Location>),
    /// `remove(location, authorities)`, as `add`.
    Remove(Location, Vec<Location>),
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reply to `exchange`. The core checks whether it comes from the same network.
    Gossip(Gossip),
    /// The reply to `ping_req`: could the peer reach the location?
    PingReq(bool),
    /// The reply to `get_all`.
    All(Vec<Location>),
    /// A oneway call was sent.
    Done,
    /// The peer does not know the method: it is a legacy node.
    UnknownMethod,
    /// The connection was refused or reset: the host replies, the process is gone.
    Refused,
    /// No reply within the timeout, no route to the host, or a reply that cannot be read. The
    /// driver reports this if in doubt, because the suspect timeout is longer.
    NoReply,
}

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused or reset.
    Refused,
    /// There was no reply.
    NoReply,
}

/// Why a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Spreads rumors. The result decides how long the node stays hot.
    Gossip,
    /// Finds out whether the peer replies, or compares all records. Every other exchange.
    Probe,
    /// Announces that this node leaves.
    Leave,
    /// Lets the peer probe this other member.
    PingReq(Location),
    /// Informs a legacy node of a change.
    LegacyNotify,
}

/// One call in flight.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub peer: Location,
    pub purpose: Purpose,
    pub called_at: Duration,
    /// This node's digest at the time of the call.
    pub digest: u64,
    /// The request had all records of this node. No push-pull has to follow its reply.
    pub full: bool,
}
