//! `Counters`: what came to a server since it started, and `Traffic`, what they show.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thrift::TransportErrorKind;

/// Why a server ended a connection that its peer had not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many were open, and this one was idle the longest.
    CrowdedOut,
    /// The same, of those that came from its address.
    AddressFull,
    /// No call came for too long.
    Idle,
    /// What came was no message that the server understands, or no handshake.
    Garbage,
    /// A message took too long to come, or its answer to be taken.
    Slow,
    /// A message was too long.
    Long,
    /// A call ended in an application exception, an unknown method say.
    Exception,
    /// There was no thread to serve it.
    NoThread,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 8] = [
        Reason::CrowdedOut,
        Reason::AddressFull,
        Reason::Idle,
        Reason::Garbage,
        Reason::Slow,
        Reason::Long,
        Reason::Exception,
        Reason::NoThread,
    ];

    /// Why a server ends a connection on which this has happened; none if it was the
    /// peer that broke it off.
    pub(crate) fn of(error: &thrift::Error) -> Option<Reason> {
        match error {
            thrift::Error::Transport(e) if e.kind == TransportErrorKind::TimedOut => {
                Some(Reason::Slow)
            }
            thrift::Error::Transport(_) => None,
            thrift::Error::Protocol(_) => Some(Reason::Garbage),
            thrift::Error::Application(_) | thrift::Error::User(_) => Some(Reason::Exception),
        }
    }

    /// The same where a message could not be read to its end.
    pub(crate) fn of_reading(failure: io::ErrorKind) -> Option<Reason> {
        match failure {
            io::ErrorKind::TimedOut => Some(Reason::Slow),
            io::ErrorKind::InvalidData => Some(Reason::Long),
            _ => None,
        }
    }
}

/// Counts, from any thread and without waiting.
#[derive(Default)]
pub(crate) struct Counters {
    /// Connections that were accepted; also the number of the newest.
    opened: AtomicU64,
    calls: AtomicU64,
    failed_accepts: AtomicU64,
    closed: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// One more connection; its number, from 1 upward.
    pub(crate) fn open(&self) -> u64 {
        self.opened.fetch_add(1, Relaxed) + 1
    }

    /// The number of the newest connection.
    pub(crate) fn newest(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// How many calls were served.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// One more call was served; its number, from 1 upward.
    pub(crate) fn call(&self) -> u64 {
        self.calls.fetch_add(1, Relaxed) + 1
    }

    /// A connection could not be accepted.
    pub(crate) fn fail_accept(&self) {
        self.failed_accepts.fetch_add(1, Relaxed);
    }

    /// The server has ended so many connections.
    pub(crate) fn close(&self, reason: Reason, many: usize) {
        self.closed[reason as usize].fetch_add(many as u64, Relaxed);
    }

    /// The counts, `open` connections being open now.
    pub(crate) fn traffic(&self, open: usize) -> Traffic {
        Traffic {
            open: open as u64,
            opened: self.opened.load(Relaxed),
            calls: self.calls(),
            failed_accepts: self.failed_accepts.load(Relaxed),
            closed: self.closed.each_ref().map(|count| count.load(Relaxed)),
        }
    }
}

/// What came to a server since it started.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were accepted.
    pub opened: u64,
    /// Calls that were served.
    pub calls: u64,
    /// Times that a connection could not be accepted: no file descriptors left, say.
    pub failed_accepts: u64,
    closed: [u64; Reason::ALL.len()],
}

impl Traffic {
    /// Connections that the server ended for this reason.
    pub fn closed(&self, reason: Reason) -> u64 {
        self.closed[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let counters = Counters::default();
        for (many, reason) in Reason::ALL.into_iter().enumerate() {
            counters.close(reason, many + 1);
        }
        let traffic = counters.traffic(0);
        for (many, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(traffic.closed(reason), many as u64 + 1, "{reason:?}");
        }
    }
}
