//! `CallTable`: the calls in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::Token;
use crate::location::Location;

/// Why a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Spreads rumors. The result decides how long the node stays hot.
    Gossip,
    /// Finds out whether the peer replies, or compares all records. Every other exchange.
    Probe,
    /// Announces that this node leaves.
    Leave,
    /// Lets the peer probe another member.
    PingReq,
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
    /// The member that a `ping_req` is about.
    pub target: Option<Location>,
}

/// The calls in flight, by token. Tokens increase with time.
#[derive(Debug, Clone, Default)]
pub(super) struct CallTable {
    calls: BTreeMap<Token, Call>,
    last: u64,
}

impl CallTable {
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn insert(&mut self, call: Call) -> Token {
        self.last += 1;
        self.calls.insert(Token(self.last), call);
        Token(self.last)
    }

    pub fn remove(&mut self, token: Token) -> Option<Call> {
        self.calls.remove(&token)
    }

    /// Is a call to `peer` in flight?
    pub fn is_calling(&self, peer: &Location) -> bool {
        self.calls.values().any(|call| call.peer == *peer)
    }

    /// Is a call of this purpose in flight?
    pub fn has(&self, purpose: Purpose) -> bool {
        self.calls.values().any(|call| call.purpose == purpose)
    }

    /// When the oldest call was made.
    pub fn oldest(&self) -> Option<Duration> {
        let (_, call) = self.calls.first_key_value()?;
        Some(call.called_at)
    }

    /// Removes and returns the calls made before `limit`.
    pub fn remove_before(&mut self, limit: Duration) -> Vec<Call> {
        let mut expired = Vec::new();
        while let Some(entry) = self.calls.first_entry()
            && entry.get().called_at < limit
        {
            expired.push(entry.remove());
        }
        expired
    }
}
