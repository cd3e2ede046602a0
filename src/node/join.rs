//! Joining a network, and leaving it.
//!
//! A node serves calls before it looks for a peer, so two nodes that start at the same
//! moment find each other.

use std::io;
use std::time::{Duration, Instant};

use log::info;

use super::Node;
use super::shared::State;
use crate::discover::find_peer;
use crate::error::Error;
use crate::location::Location;
use crate::locator::TBaseSyncClient;
use crate::membership::{Change, Status};

/// How long a peer that refuses connections is retried: it may be just starting.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer that does not reply is retried, and how long the join itself may then
/// take: hundreds of nodes may start on one host.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt to call the peer may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const RETRY: Duration = Duration::from_millis(100);

/// How long [`Node::leave`] waits until others are notified.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// Joins the network of `peer`, or of a peer found on this host, or starts a new network.
    /// From then on passes changes to `on_change`. Returns whether it started a network.
    ///
    /// The server must be running. Blocks for twenty seconds at most.
    ///
    /// # Errors
    /// The given peer cannot be reached or belongs to another kind of network; no thread can
    /// be started.
    pub(crate) fn join_network(
        &self,
        service_type: &str,
        peer: Option<&Location>,
        on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<bool, Error> {
        let peer = self.choose_peer(service_type, peer)?;
        self.start(on_change).map_err(Error::Io)?;
        let Some(peer) = peer else {
            info!("Initiating the network...");
            return Ok(true);
        };
        info!("Joining the network...");
        self.decide(|membership, now| membership.seed(now, peer.clone()));
        self.wait_for_member(&peer).map(|()| false)
    }

    /// The peer to join, if there is one, by its IP address.
    fn choose_peer(
        &self,
        service_type: &str,
        peer: Option<&Location>,
    ) -> Result<Option<Location>, Error> {
        let Some(given) = peer else {
            let found = find_peer(self.dialer(), service_type, Some(self.location()));
            return Ok(found.inspect_err(|e| info!("{e}")).ok());
        };
        let resolved = given
            .resolve()
            .map_err(|e| Error::Unresolved(given.clone(), e))?;
        let Some(socket) = resolved.first() else {
            let missing = io::ErrorKind::NotFound.into();
            return Err(Error::Unresolved(given.clone(), missing));
        };
        let own = self.location();
        let is_own_host = socket.ip().is_loopback() || socket.ip().to_string() == own.address();
        if is_own_host && socket.port() == own.port() {
            return Ok(None);
        }
        let peer = Location::from(*socket);
        self.wait_for_peer(service_type, &peer)?;
        Ok(Some(peer))
    }

    /// Waits until the peer replies, and checks that it serves the same type.
    fn wait_for_peer(&self, service_type: &str, peer: &Location) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let failure = match self.call(CHECK_TIMEOUT, peer, |peer| peer.service_type()) {
                Ok(found) if found == service_type => return Ok(()),
                Ok(found) => return Err(wrong_network(peer, &found, service_type)),
                Err(e) if !e.is_unreachable() || matches!(e, Error::Tls(..)) => return Err(e),
                Err(e) => e,
            };
            let is_slow = matches!(failure, Error::Timeout(..) | Error::Unreachable(..));
            let limit = if is_slow { JOIN_TIMEOUT } else { START_TIMEOUT };
            if began.elapsed() + RETRY > limit {
                return Err(failure);
            }
            if self.endpoint().shutdown().wait_for(RETRY) {
                return Err(interrupted());
            }
        }
    }

    /// Waits until another member is known.
    fn wait_for_member(&self, peer: &Location) -> Result<(), Error> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        let mut state = self.shared.state.lock();
        while state.membership.live().nth(1).is_none() {
            if let Some((foreign, network)) = &state.foreign_peer
                && foreign == peer
            {
                return Err(wrong_network(peer, network, &self.shared.network));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_joined(peer, &state));
            }
            if self.endpoint().shutdown().is_requested() {
                return Err(interrupted());
            }
            self.shared.changed.wait_for(&mut state, left.min(RETRY));
        }
        drop(state);
        self.wait_until_published(RETRY);
        Ok(())
    }

    /// Leaves the network: notifies members, and returns when they know or cannot be reached.
    ///
    /// The node continues to serve calls, but is off the ring. Blocks for two seconds at most.
    pub fn leave(&self) {
        let actions = self.decide(|membership, now| membership.leave(now));
        self.dispatch(actions);
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let mut state = self.shared.state.lock();
        while !state.membership.left(self.shared.now()) && Instant::now() < deadline {
            let poll = Duration::from_millis(20);
            self.shared.changed.wait_for(&mut state, poll);
        }
    }
}

fn not_joined(peer: &Location, state: &State) -> Error {
    Error::NoPeer(match state.membership.status_of(peer) {
        Some(Status::Left) => format!(
            "{peer} is leaving its network, and no other node of it replies: name a node that stays"
        ),
        _ => format!("{peer} replies, but this node did not become a member in time"),
    })
}

fn interrupted() -> Error {
    Error::NoPeer("ended before it had joined a network".into())
}

fn wrong_network(peer: &Location, found: &str, expected: &str) -> Error {
    Error::WrongNetwork {
        peer: peer.clone(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}
