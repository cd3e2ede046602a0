//! Joining a network, and leaving it.
//!
//! A node serves calls before it looks for a peer, so two nodes that start at the same
//! moment find each other.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::info;

use super::Node;
use super::shared::State;
use crate::discover::find_peer;
use crate::endpoint::is_own_address;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{TBaseSyncClient, TLocatorSyncClient};
use crate::membership::{Change, Gossip, Status};

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
            let id = RandomState::new().hash_one(self.location());
            self.decide(|membership, _| membership.found(&format!("{id:016x}")));
            self.shared.state.lock().joins = None;
            return Ok(true);
        };
        info!("Joining the network...");
        self.decide(|membership, now| membership.seed(now, peer.clone()));
        self.wait_for_member(&peer)?;
        self.shared.state.lock().joins = None;
        Ok(false)
    }

    /// The peer to join, if there is one, by its IP address. It is ready to be joined.
    fn choose_peer(
        &self,
        service_type: &str,
        peer: Option<&Location>,
    ) -> Result<Option<Location>, Error> {
        let Some(given) = peer else {
            let found = find_peer(self.dialer(), service_type, Some(self.location()));
            let Ok(peer) = found.inspect_err(|e| info!("{e}")) else {
                return Ok(None);
            };
            return self.wait_for_peer(service_type, peer);
        };
        let resolved = given
            .resolve()
            .map_err(|e| Error::Unresolved(given.clone(), e))?;
        let Some(socket) = resolved.first() else {
            let missing = io::ErrorKind::NotFound.into();
            return Err(Error::Unresolved(given.clone(), missing));
        };
        let peer = Location::from(*socket);
        if self.is_own(&peer) {
            return Ok(None);
        }
        self.wait_for_peer(service_type, peer)
    }

    /// Waits until the peer replies and has joined a network itself, and checks that it serves the
    /// same type. Of two nodes that join each other the first one by location founds the network:
    /// then there is no peer.
    fn wait_for_peer(&self, service_type: &str, peer: Location) -> Result<Option<Location>, Error> {
        let began = Instant::now();
        self.shared.state.lock().joins = Some(peer.clone());
        loop {
            let failure = match self.check_peer(service_type, &peer) {
                Ok((_, None)) => return Ok(Some(peer)),
                Ok((named, Some(other))) if self.is_own(&other) && *self.location() < named => {
                    return Ok(None);
                }
                Ok((_, Some(other))) => Error::NoPeer(format!(
                    "{peer} has not joined a network yet: it tries to join {other}"
                )),
                Err(e) if !e.is_unreachable() || matches!(e, Error::Tls(..)) => return Err(e),
                Err(e) => e,
            };
            let is_slow = !matches!(failure, Error::Refused(..) | Error::ConnectionLost(..));
            let limit = if is_slow { JOIN_TIMEOUT } else { START_TIMEOUT };
            if began.elapsed() + RETRY > limit {
                return Err(failure);
            }
            if self.endpoint().shutdown().wait_for(RETRY) {
                return Err(interrupted());
            }
        }
    }

    /// Checks that the peer serves the same type and advertises an address at which it can be
    /// reached. Returns its location, and through which peer it joins if it has not joined yet.
    fn check_peer(
        &self,
        service_type: &str,
        peer: &Location,
    ) -> Result<(Location, Option<Location>), Error> {
        let found = self.call(CHECK_TIMEOUT, peer, |peer| peer.service_type())?;
        if found != service_type {
            return Err(wrong_network(peer, &found, service_type));
        }
        let gossip = match self.call(CHECK_TIMEOUT, peer, |peer| peer.members()) {
            Err(e) if e.is_unknown_method() => return Ok((peer.clone(), None)),
            gossip => gossip?,
        };
        let gossip = Gossip::try_from(gossip).map_err(|e| Error::NoPeer(e.to_string()))?;
        let (named, address) = (gossip.sender, peer.address());
        if !is_loopback(peer) && is_loopback(&named) && !ip(peer).is_some_and(is_own_address) {
            return Err(Error::NoPeer(format!(
                "the node at {peer} advertises {named}, which leads every other host to itself: \
                 start it with --advertise and an address that others reach, such as {address}, or \
                 let its host name resolve to one"
            )));
        }
        Ok((named, gossip.joins))
    }

    /// Is this the node's own location, or the same port of a loopback address?
    fn is_own(&self, other: &Location) -> bool {
        let own = self.location();
        let is_own_host = is_loopback(other) || other.address() == own.address();
        is_own_host && other.port() == own.port()
    }

    /// Waits until another member is known.
    fn wait_for_member(&self, peer: &Location) -> Result<(), Error> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        let mut state = self.shared.state.lock();
        while state.membership.live().nth(1).is_none() {
            if let Some((foreign, network)) = &state.foreign_peer
                && foreign == peer
            {
                let own = state.membership.network();
                return Err(wrong_network(peer, network, own));
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

/// The IP address of a location.
fn ip(location: &Location) -> Option<IpAddr> {
    location.address().parse().ok()
}

fn is_loopback(location: &Location) -> bool {
    ip(location).is_some_and(|ip| ip.is_loopback())
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
