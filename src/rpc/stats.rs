//! `Counters` of a server, and `ServerStats`, a snapshot of them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thrift::TransportErrorKind;

/// Why a server closed a connection that its peer had not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Too many connections were open, and this one was among the longest idle.
    Evicted,
    /// The same among the connections of its address.
    EvictedByAddress,
    /// No call came within the idle timeout.
    Idle,
    /// A message, or a TLS handshake, was malformed.
    Malformed,
    /// A message took too long to arrive, or a reply to be read.
    TimedOut,
    /// A message was too large.
    TooLarge,
    /// No thread could be started for it.
    NoThread,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [CloseReason; 7] = [
        CloseReason::Evicted,
        CloseReason::EvictedByAddress,
        CloseReason::Idle,
        CloseReason::Malformed,
        CloseReason::TimedOut,
        CloseReason::TooLarge,
        CloseReason::NoThread,
    ];

    /// The reason to close a connection after this error. None if the peer closed it.
    pub(crate) fn of(error: &thrift::Error) -> Option<CloseReason> {
        match error {
            thrift::Error::Transport(e) if e.kind == TransportErrorKind::TimedOut => {
                Some(CloseReason::TimedOut)
            }
            thrift::Error::Transport(_) => None,
            _ => Some(CloseReason::Malformed),
        }
    }

    /// The same for a connection on which reading failed.
    pub(crate) fn of_io(failure: io::ErrorKind) -> Option<CloseReason> {
        match failure {
            io::ErrorKind::TimedOut => Some(CloseReason::TimedOut),
            io::ErrorKind::InvalidData => Some(CloseReason::Malformed),
            io::ErrorKind::FileTooLarge => Some(CloseReason::TooLarge),
            _ => None,
        }
    }
}

/// A server's counters. Any thread updates them without blocking.
#[derive(Default)]
pub(crate) struct Counters {
    /// Connections accepted; also the number of the newest.
    opened: AtomicU64,
    calls: AtomicU64,
    exceptions: AtomicU64,
    failed_accepts: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl Counters {
    /// Counts a connection and returns its number, from 1.
    pub(crate) fn record_open(&self) -> u64 {
        self.opened.fetch_add(1, Relaxed) + 1
    }

    /// The number of the newest connection.
    pub(crate) fn newest(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Counts a served call.
    pub(crate) fn record_call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// Counts a call that ended in an application exception.
    pub(crate) fn record_exception(&self) {
        self.exceptions.fetch_add(1, Relaxed);
    }

    /// Counts a failed accept.
    pub(crate) fn record_failed_accept(&self) {
        self.failed_accepts.fetch_add(1, Relaxed);
    }

    /// Counts connections that the server closed.
    pub(crate) fn close(&self, reason: CloseReason, count: usize) {
        self.closed[reason as usize].fetch_add(count as u64, Relaxed);
    }

    /// A snapshot, with the number of connections that are open now.
    pub(crate) fn stats(&self, open: usize) -> ServerStats {
        ServerStats {
            open: open as u64,
            opened: self.opened.load(Relaxed),
            calls: self.calls.load(Relaxed),
            exceptions: self.exceptions.load(Relaxed),
            failed_accepts: self.failed_accepts.load(Relaxed),
            closed: self.closed.each_ref().map(|count| count.load(Relaxed)),
        }
    }
}

/// A server's counters at one time.
#[derive(Debug, Clone, Default)]
pub struct ServerStats {
    /// Connections open now.
    pub open: u64,
    /// Connections accepted.
    pub opened: u64,
    /// Calls served.
    pub calls: u64,
    /// Calls that ended in an application exception, for example of an unknown method.
    pub exceptions: u64,
    /// Failed attempts to accept a connection.
    pub failed_accepts: u64,
    closed: [u64; CloseReason::ALL.len()],
}

impl ServerStats {
    /// Connections that the server closed for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for (count, reason) in CloseReason::ALL.into_iter().enumerate() {
            counters.close(reason, count + 1);
        }
        let stats = counters.stats(0);
        for (count, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(stats.closed(reason), count as u64 + 1, "{reason:?}");
        }
    }
}
