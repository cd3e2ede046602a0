//! `LimitOptions`: what a node accepts from its peers, within the resources of its process.

use std::time::Duration;

use clap::Args;
use log::warn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::rpc::limits::ServerLimits;

/// The smallest `--max-message-size`. The gossip of a large network fits well.
const MIN_MESSAGE_SIZE: u64 = 1024 * 1024;

/// One file descriptor out of this many is reserved for listeners, the log, and the node's own
/// calls. Without these calls other nodes would declare the node down.
const RESERVE: u64 = 4;

/// The options that limit what a node accepts.
#[derive(Debug, Args)]
pub struct LimitOptions {
    /// Evict the longest-idle connections if more than this many are open
    ///
    /// The number is smaller if the process cannot have a third more file descriptors than this.
    #[arg(long, help_heading = "Limits", value_name = "N", default_value_t = ServerLimits::default().max_connections as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// The same for connections from one address (IPv6: one /64 network) [default: 1000]
    ///
    /// All programs of this host share a loopback address. By default it may have all connections.
    #[arg(long, help_heading = "Limits", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections_per_ip: Option<u32>,

    /// Close a connection without a call for this time; before the first call, after 60 s
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = ServerLimits::default().idle_timeout.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_timeout: u64,

    /// Close a connection if a message takes longer to arrive, or a reply to be read
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = ServerLimits::default().message_timeout.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    message_timeout: u64,

    /// Close a connection on which a larger message arrives; set it equally on all nodes
    #[arg(long, help_heading = "Limits", value_name = "BYTES", default_value_t = ServerLimits::default().max_message as u64,
        value_parser = clap::value_parser!(u64).range(MIN_MESSAGE_SIZE..=ServerLimits::default().max_message as u64))]
    max_message_size: u64,
}

impl LimitOptions {
    /// The largest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.max_message_size as usize
    }

    /// The limits of the node's server. Raises the process's soft limit of file descriptors if
    /// that is needed, and reduces the connections if it is not possible.
    pub(super) fn server_limits(&self) -> ServerLimits {
        let max_connections = available_connections(u64::from(self.max_connections)) as usize;
        let per_ip = self.max_connections_per_ip.map(|max| max as usize);
        let default = ServerLimits::default();
        ServerLimits {
            max_connections,
            max_per_address: per_ip.unwrap_or(default.max_per_address),
            max_per_loopback: per_ip.unwrap_or(max_connections),
            idle_timeout: Duration::from_secs(self.idle_timeout),
            message_timeout: Duration::from_secs(self.message_timeout),
            max_message: self.max_message(),
            ..default
        }
    }
}

/// How many of these connections the process has file descriptors for.
fn available_connections(wanted: u64) -> u64 {
    let raised = raise_descriptors(descriptors_for(wanted))
        .inspect_err(|e| warn!("the limit of file descriptors cannot be read or raised: {e}"));
    let Ok(descriptors) = raised else {
        return wanted;
    };
    let available = wanted.min(connections_with(descriptors));
    if available < wanted {
        warn!(
            "at most {available} connections are open at once, not {wanted}: the hard limit of \
             this process is {descriptors} file descriptors"
        );
    }
    available
}

/// The descriptors that are needed for this many connections.
fn descriptors_for(connections: u64) -> u64 {
    connections + connections / (RESERVE - 1) + RESERVE
}

/// The connections that are possible with this many descriptors.
fn connections_with(descriptors: u64) -> u64 {
    (descriptors - descriptors / RESERVE).max(1)
}

/// Raises the soft limit of file descriptors to `wanted`, or to the hard limit if that is lower.
/// Returns the soft limit, which may have been higher already.
fn raise_descriptors(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.min(hard).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_for_some_connections_suffice_for_them() {
        for wanted in (1..2000).chain([10_000, 1_000_000]) {
            let descriptors = descriptors_for(wanted);
            assert!(connections_with(descriptors) >= wanted, "{wanted}");
            assert!(descriptors - wanted >= wanted / 3, "no reserve at {wanted}");
        }
        assert_eq!(connections_with(1024), 768);
        assert_eq!(connections_with(1), 1);
    }
}
