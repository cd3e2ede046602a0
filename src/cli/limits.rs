//! `LimitOptions`: how much a node takes from strangers, within what its process may have.

use std::time::Duration;

use clap::Args;
use log::warn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::rpc::server::Limits;

/// The least `--max-message`: what nodes tell each other of large networks fits well.
const LEAST_MESSAGE: u64 = 1024 * 1024;

/// Of so many file descriptors one is kept for what is no client's connection: the
/// listeners, the log, and the node's own calls to others, without which it would be
/// taken for dead.
const RESERVE: u64 = 4;

/// Options of what a node takes at the most.
#[derive(Debug, Args)]
pub struct LimitOptions {
    /// Have so many connections open; for one more, those that were idle the longest are
    /// closed. It is less where the process may not have a third more file descriptors
    #[arg(long, help_heading = "Limits", value_name = "N", default_value_t = Limits::default().connections as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// The same from one address (IPv6: one /64 network); without it, 1000, and from a
    /// loopback address, which all programs of this host share, as many as in all
    #[arg(long, help_heading = "Limits", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections_per_address: Option<u32>,

    /// Close a connection on which no call came for so long; before the first call, a
    /// minute is enough
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = Limits::default().idle.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_time: u64,

    /// Close a connection on which a message takes longer to come, once begun, or an
    /// answer to be taken
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = Limits::default().message.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    message_time: u64,

    /// Close a connection on which a longer message comes. All nodes of a network should
    /// have the same
    #[arg(long, help_heading = "Limits", value_name = "BYTES", default_value_t = Limits::default().longest as u64,
        value_parser = clap::value_parser!(u64).range(LEAST_MESSAGE..=Limits::default().longest as u64))]
    max_message: u64,
}

impl LimitOptions {
    /// The longest message that is taken, in bytes.
    pub fn longest_message(&self) -> usize {
        self.max_message as usize
    }

    /// The limits of the node's server, with no more connections than the process may
    /// have file descriptors for. Raises its soft limit of those where that helps.
    pub(super) fn limits(&self) -> Limits {
        let wanted = u64::from(self.max_connections);
        let (connections, descriptors) = match raise_descriptors(descriptors_for(wanted)) {
            Ok(descriptors) => (wanted.min(connections_with(descriptors)), descriptors),
            Err(e) => {
                warn!("the limit of file descriptors cannot be known or raised: {e}");
                (wanted, 0)
            }
        };
        if connections < wanted {
            warn!(
                "at most {connections} connections are open at once, not {wanted}: this process \
                may have {descriptors} file descriptors; its hard limit would have to be raised"
            );
        }
        let connections = connections as usize;
        let per_address = self.max_connections_per_address.map(|most| most as usize);
        let default = Limits::default();
        Limits {
            connections,
            connections_of_address: per_address.unwrap_or(default.connections_of_address),
            connections_of_loopback: per_address.unwrap_or(connections),
            idle: Duration::from_secs(self.idle_time),
            message: Duration::from_secs(self.message_time),
            longest: self.longest_message(),
            ..default
        }
    }
}

/// How many descriptors it takes to serve so many connections.
fn descriptors_for(connections: u64) -> u64 {
    connections + connections / (RESERVE - 1) + RESERVE
}

/// How many connections can be served with so many descriptors.
fn connections_with(descriptors: u64) -> u64 {
    (descriptors - descriptors / RESERVE).max(1)
}

/// Raises the soft limit of file descriptors to `wanted`, as far as the hard one
/// permits; what it is now.
fn raise_descriptors(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.min(hard);
    if raised <= soft {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_wanted_are_had_with_the_descriptors_for_them() {
        for wanted in (1..2000).chain([10_000, 1_000_000]) {
            let descriptors = descriptors_for(wanted);
            assert!(connections_with(descriptors) >= wanted, "{wanted}");
            assert!(descriptors - wanted >= wanted / 3, "no reserve at {wanted}");
        }
        assert_eq!(connections_with(1024), 768);
        assert_eq!(connections_with(1), 1);
    }
}
