//! `Counters`: what a server counts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thrift::TransportErrorKind;

use crate::diststore::ServerStats;

/// Why a server closed a connection that its peer had not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
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
    /// The reason to close a connection on which this failed. None if the peer closed it.
    pub fn of_io(failure: io::ErrorKind) -> Option<CloseReason> {
        match failure {
            io::ErrorKind::TimedOut => Some(CloseReason::TimedOut),
            io::ErrorKind::InvalidData => Some(CloseReason::Malformed),
            io::ErrorKind::FileTooLarge => Some(CloseReason::TooLarge),
            _ => None,
        }
    }

    /// The same after this error of a call.
    pub fn of(error: &thrift::Error) -> Option<CloseReason> {
        CloseReason::of_io(match error {
            thrift::Error::Transport(e) if e.kind == TransportErrorKind::TimedOut => {
                io::ErrorKind::TimedOut
            }
            thrift::Error::Transport(_) => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        })
    }
}

/// A server's counters. Any thread updates them without blocking.
#[derive(Default)]
pub(crate) struct Counters {
    /// Connections accepted; also the number of the newest.
    pub opened: AtomicU64,
    /// Calls served.
    pub calls: AtomicU64,
    /// Calls that ended in an application exception.
    pub exceptions: AtomicU64,
    /// Failed attempts to accept a connection.
    pub failed_accepts: AtomicU64,
    /// Connections that the server closed, by [`CloseReason`].
    closed: [AtomicU64; 7],
}

impl Counters {
    /// Counts connections that the server closed.
    pub fn close(&self, reason: CloseReason, count: usize) {
        self.closed[reason as usize].fetch_add(count as u64, Relaxed);
    }

    /// A snapshot, with the number of connections that are open now.
    pub fn stats(&self, open: usize) -> ServerStats {
        let count = |counter: &AtomicU64| Some(counter.load(Relaxed) as i64);
        let closed = |reason| count(&self.closed[reason as usize]);
        ServerStats {
            open: Some(open as i64),
            opened: count(&self.opened),
            calls: count(&self.calls),
            evicted: closed(CloseReason::Evicted),
            evicted_by_address: closed(CloseReason::EvictedByAddress),
            idle: closed(CloseReason::Idle),
            malformed: closed(CloseReason::Malformed),
            timed_out: closed(CloseReason::TimedOut),
            too_large: closed(CloseReason::TooLarge),
            exceptions: count(&self.exceptions),
            no_thread: closed(CloseReason::NoThread),
            failed_accepts: count(&self.failed_accepts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        use CloseReason::{
            Evicted, EvictedByAddress, Idle, Malformed, NoThread, TimedOut, TooLarge,
        };
        let counters = Counters::default();
        let reasons = [
            Evicted,
            EvictedByAddress,
            Idle,
            Malformed,
            TimedOut,
            TooLarge,
            NoThread,
        ];
        for (count, reason) in (1..).zip(reasons) {
            counters.close(reason, count);
        }
        let stats = counters.stats(0);
        let closed = [
            stats.evicted,
            stats.evicted_by_address,
            stats.idle,
            stats.malformed,
            stats.timed_out,
            stats.too_large,
            stats.no_thread,
        ];
        assert_eq!(closed, [1, 2, 3, 4, 5, 6, 7].map(Some));
    }
}
