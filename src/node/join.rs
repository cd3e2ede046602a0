//! Joining a network, and leaving it.
//!
//! A node serves calls before it looks for a peer, so two nodes that start at the same
//! moment find each other.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
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
use crate::plural::counted;

/// How long a peer that refuses connections is retried: it may be just starting.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer that does not reply is retried, and how long the join itself may then
/// take: hundreds of nodes may start on one host.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt to call the peer may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How many nodes that wait for each other are asked for whom they wait.
const MAX_CIRCLE: usize = 16;

/// After this time the log says for what peer a node waits.
const SAY_AFTER: Duration = Duration::from_millis(500);

/// The pause between two attempts.
const RETRY: Duration = Duration::from_millis(100);

/// How long [`Node::leave`] waits until others are notified.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// Joins the network of one of `peers`, or of a peer found on this host, or starts a new
    /// network. From then on passes changes to `on_change`. Returns whether it started a network.
    /// `may_join` has the last word on the peer.
    ///
    /// The server must be running. Blocks for twenty seconds at most, and a second for each peer.
    ///
    /// # Errors
    /// No peer can be reached, or one belongs to another kind of network; no thread can be started.
    pub(crate) fn join_network(
        &self,
        service_type: &str,
        peers: &[Location],
        may_join: impl FnOnce(&Location) -> Result<(), Error>,
        on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<bool, Error> {
        let peer = self.choose_peer(service_type, peers)?;
        peer.as_ref().map_or(Ok(()), may_join)?;
        self.start(on_change).map_err(Error::Io)?;
        let Some(peer) = peer else {
            let is_returning = self.shared.state.lock().is_returning;
            match is_returning {
                true => info!("Returning to the network {}...", self.network()),
                false => info!("Initiating the network..."),
            }
            let id = RandomState::new().hash_one(self.location());
            self.decide(|membership, _| membership.found(&format!("{id:016x}")));
            self.set_joined();
            return Ok(true);
        };
        info!("Joining the network...");
        self.decide(|membership, now| membership.seed(now, peer.clone()));
        self.wait_for_member(&peer)?;
        self.set_joined();
        Ok(false)
    }

    fn set_joined(&self) {
        self.shared.state.lock().joins = None;
        self.shared.has_joined.store(true, Relaxed);
    }

    /// The peer to join, if there is one, by its IP address. It is ready to be joined.
    fn choose_peer(
        &self,
        service_type: &str,
        peers: &[Location],
    ) -> Result<Option<Location>, Error> {
        if peers.is_empty() {
            let found = find_peer(self.dialer(), service_type, Some(self.location()));
            let Ok(peer) = found.inspect_err(|e| info!("{e}")) else {
                return Ok(None);
            };
            let gossip = self.call(CHECK_TIMEOUT, &peer, |peer| peer.get_all());
            let count = counted(gossip.map_or(0, |nodes| nodes.len()), "node");
            info!("found a {service_type} of {count} at {peer}; --bootstrap starts another");
            return self.wait_for_peer(service_type, &[peer]);
        }
        let (mut others, mut failure) = (Vec::new(), None);
        for given in peers {
            let missing = || io::ErrorKind::NotFound.into();
            let resolved = given.resolve();
            match resolved.and_then(|all| all.first().copied().ok_or_else(missing)) {
                Ok(socket) => others.push(Location::from(socket)),
                Err(e) => failure = Some(Error::Unresolved(given.clone(), e)),
            }
        }
        others.retain(|peer| !self.is_own(peer));
        match failure {
            Some(e) if others.is_empty() => Err(e),
            _ if others.is_empty() => Ok(None),
            _ => self.wait_for_peer(service_type, &others),
        }
    }

    /// Waits until one of the peers replies and has joined a network itself, and checks that it
    /// serves the same type. Of nodes that wait for each other the first one by location founds the
    /// network: then there is no peer.
    fn wait_for_peer(
        &self,
        service_type: &str,
        peers: &[Location],
    ) -> Result<Option<Location>, Error> {
        let began = Instant::now();
        self.shared.state.lock().joins = peers.first().cloned();
        let mut has_said = false;
        loop {
            let (mut failure, mut waits) = (None, None);
            for peer in peers {
                match self.check_peer(service_type, peer) {
                    Ok(Some(gossip)) if gossip.joins.is_some() => {
                        waits = waits.or(Some((peer, gossip)));
                    }
                    Ok(_) => return Ok(Some(peer.clone())),
                    Err(e) if !e.is_unreachable() || matches!(e, Error::Tls(..)) => return Err(e),
                    Err(e) => failure = failure.or(Some(e)),
                }
            }
            if let Some((peer, gossip)) = waits {
                self.shared.state.lock().joins = Some(peer.clone());
                let why = format!("{peer} has not joined a network yet: it waits for a peer too");
                if self.is_first_of_circle(gossip) {
                    return Ok(None);
                }
                failure = Some(Error::NoPeer(why));
            }
            let failure = failure.unwrap_or_else(interrupted);
            let is_slow = !matches!(failure, Error::Refused(..) | Error::ConnectionLost(..));
            let limit = if is_slow { JOIN_TIMEOUT } else { START_TIMEOUT };
            if began.elapsed() + RETRY > limit {
                return Err(failure);
            }
            if !has_said && began.elapsed() > SAY_AFTER {
                has_said = true;
                info!("waiting for a peer: {failure}");
            }
            if self.endpoint().shutdown().wait_for(RETRY) {
                return Err(interrupted());
            }
        }
    }

    /// Does a peer that waits for another one wait for this node in the end, and is this the first
    /// by location of all that wait?
    fn is_first_of_circle(&self, mut gossip: Gossip) -> bool {
        for _ in 0..MAX_CIRCLE {
            match gossip.joins {
                _ if gossip.sender < *self.location() => return false,
                Some(next) if self.is_own(&next) => return true,
                Some(next) => match self.state_of(&next) {
                    Ok(state) => gossip = state,
                    Err(_) => return false,
                },
                None => return false,
            }
        }
        false
    }

    /// What the peer knows, and through which peer it joins if it has not joined yet.
    fn state_of(&self, peer: &Location) -> Result<Gossip, Error> {
        let gossip = self.call(CHECK_TIMEOUT, peer, |peer| peer.members())?;
        Gossip::try_from(gossip).map_err(|e| Error::NoPeer(e.to_string()))
    }

    /// Checks that the peer serves the same type and advertises an address at which it can be
    /// reached. Returns its state; a legacy node has none.
    fn check_peer(&self, service_type: &str, peer: &Location) -> Result<Option<Gossip>, Error> {
        let found = self.call(CHECK_TIMEOUT, peer, |peer| peer.service_type())?;
        if found != service_type {
            return Err(wrong_network(peer, &found, service_type));
        }
        let gossip = match self.state_of(peer) {
            Err(e) if e.is_unknown_method() => return Ok(None),
            gossip => gossip?,
        };
        let (named, address) = (&gossip.sender, peer.address());
        if !is_loopback(peer) && is_loopback(named) && !ip(peer).is_some_and(is_own_address) {
            return Err(Error::NoPeer(format!(
                "the node at {peer} advertises {named}, which leads every other host to itself: \
                 start it with --advertise and an address that others reach, such as {address}, or \
                 let its host name resolve to one"
            )));
        }
        Ok(Some(gossip))
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
