//! Calls: what the driver is asked to do, how it went, and which are outstanding.

use std::collections::BTreeMap;
use std::time::Duration;

use super::gossip::Gossip;
use crate::location::Location;

/// Names one call. The driver gives it back with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// A call to make, in a worker, with no lock held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// To be reported with the outcome.
    pub token: Token,
    /// Whom to call.
    pub peer: Location,
    /// What to ask.
    pub request: Request,
}

/// What to ask a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `exchange(gossip)`: reported as [`Outcome::Gossip`].
    Exchange(Gossip),
    /// `reach(location)`: reported as [`Outcome::Reached`].
    Reach(Location),
    /// `get_all()` of a peer of the original: reported as [`Outcome::All`].
    GetAll,
    /// `add(location, authorities)` to a peer of the original: [`Outcome::Done`].
    Add {
        /// Whom to add.
        location: Location,
        /// Everyone, so that the message goes no further.
        authorities: Vec<Location>,
    },
    /// `remove(location, authorities)` to a peer of the original: [`Outcome::Done`].
    Remove {
        /// Whom to remove.
        location: Location,
        /// Everyone, so that the message goes no further.
        authorities: Vec<Location>,
    },
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reply of `exchange`. That it comes from another network is for the core to see.
    Gossip(Gossip),
    /// The reply of `reach`.
    Reached(bool),
    /// The reply of `get_all`.
    All(Vec<Location>),
    /// A oneway call was sent.
    Done,
    /// The peer does not know the method: a node of the original.
    UnknownMethod,
    /// The connection was refused or reset: the host is there, the process is not.
    Refused,
    /// No answer within the timeout, no way to the host, or an answer that cannot
    /// be read. When in doubt, this: it takes longer to convict.
    Silent,
}

/// How a peer failed to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused or reset.
    Refused,
    /// There was no answer.
    Silent,
}

/// What an outstanding call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Spreading news: it teaches, or counts towards being cold.
    Gossip,
    /// Is the peer there? Anything but spreading news.
    Probe,
    /// The peer is told that we leave.
    Farewell,
    /// The peer is asked to reach another for us.
    Reach,
    /// A peer of the original is told of a change.
    Notice,
}

/// An outstanding call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub peer: Location,
    pub purpose: Purpose,
    pub began: Duration,
    /// Our view when it began.
    pub view: u64,
    /// Did it ask for everything? Then its reply is not followed by another one.
    pub full: bool,
    /// Whom a helper was asked to reach.
    pub target: Option<Location>,
}

/// The outstanding calls, bounded in number and in age.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    outstanding: BTreeMap<Token, Call>,
    last: u64,
}

impl Calls {
    pub fn len(&self) -> usize {
        self.outstanding.len()
    }

    pub fn begin(&mut self, call: Call) -> Token {
        self.last += 1;
        self.outstanding.insert(Token(self.last), call);
        Token(self.last)
    }

    pub fn end(&mut self, token: Token) -> Option<Call> {
        self.outstanding.remove(&token)
    }

    /// Is `peer` being asked something already?
    pub fn is_calling(&self, peer: &Location) -> bool {
        self.outstanding.values().any(|call| call.peer == *peer)
    }

    pub fn any(&self, purpose: Purpose) -> bool {
        self.outstanding
            .values()
            .any(|call| call.purpose == purpose)
    }

    /// When the oldest call began. Tokens rise with time.
    pub fn oldest(&self) -> Option<Duration> {
        let (_, call) = self.outstanding.first_key_value()?;
        Some(call.began)
    }

    /// Gives up the calls that began before `limit`: the driver has lost them.
    pub fn forget_before(&mut self, limit: Duration) -> Vec<Call> {
        let mut lost = Vec::new();
        while let Some(entry) = self.outstanding.first_entry()
            && entry.get().began < limit
        {
            lost.push(entry.remove());
        }
        lost
    }
}
