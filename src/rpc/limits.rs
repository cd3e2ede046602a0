//! `ServerLimits`: what one server accepts from its peers.

use std::net::IpAddr;
use std::time::Duration;

use crate::rpc::message::MAX_MESSAGE;

/// The longest HTTP request accepted, in bytes.
pub const MAX_REQUEST: usize = 8 * 1024;

/// The limits of one server.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Open connections, at least 1. For one more, the longest-idle ones are evicted.
    pub max_connections: usize,
    /// Open connections from one address of another host.
    pub max_per_address: usize,
    /// Open connections from one loopback address, which all programs of this host share.
    pub max_per_loopback: usize,
    /// How long a connection may be idle between calls.
    pub idle_timeout: Duration,
    /// How long a connection may be idle before its first call, if that is shorter.
    pub first_call_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a message may take to arrive once started, and a reply to be read by the
    /// peer. Idle times are checked this often.
    pub message_timeout: Duration,
    /// The largest incoming message, in bytes.
    pub max_message: usize,
    /// How long a stop waits for calls in progress.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            max_connections: 10_000,
            max_per_address: 1_000,
            max_per_loopback: 10_000,
            idle_timeout: Duration::from_secs(600),
            first_call_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(20),
            max_message: MAX_MESSAGE,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl ServerLimits {
    /// How many connections `address` may have, if that is fewer than all.
    pub(super) fn max_from(&self, address: IpAddr) -> Option<usize> {
        let max = if address.to_canonical().is_loopback() {
            self.max_per_loopback
        } else {
            self.max_per_address
        };
        (max < self.max_connections).then_some(max)
    }

    /// How long a single read of a socket may block.
    pub(super) fn read_timeout(&self) -> Duration {
        self.message_timeout
            .min(self.idle_timeout)
            .min(self.first_call_timeout)
    }
}

/// What an HTTP server accepts. A browser keeps a few connections open for each page.
pub fn http_limits() -> ServerLimits {
    ServerLimits {
        max_connections: 1_000,
        max_per_address: 200,
        max_per_loopback: 1_000,
        idle_timeout: Duration::from_secs(60),
        first_call_timeout: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(5),
        message_timeout: Duration::from_secs(5),
        max_message: MAX_REQUEST,
        drain_timeout: Duration::from_secs(1),
    }
}
