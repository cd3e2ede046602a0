//! Entering a network, and leaving it.
//!
//! Calls are answered before a node looks for a peer: of two that start at the same
//! moment, each then finds the other.

use std::io;
use std::time::{Duration, Instant};

use log::info;

use super::{Node, patience};
use crate::discover::find_peer;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{BaseSyncClient, TBaseSyncClient};
use crate::membership::{Change, Status};
use crate::rpc::client::Caller;
use crate::shutdown::Shutdown;

/// How long [`Node::enter`] tries a peer at which nobody listens: one that was
/// started at the same moment needs some of it.
const APPEARANCE: Duration = Duration::from_secs(3);

/// How long it tries a peer that is there but slow, and how long it then waits to
/// be let in: a host on which hundreds of nodes start at once needs some of it.
const ENTRY: Duration = Duration::from_secs(10);

/// How long a knock at a peer that does not answer yet is put off.
const RETRY: Duration = Duration::from_millis(100);

/// The longest that [`Node::leave`] waits for others to be told.
const FAREWELL: Duration = Duration::from_secs(2);

impl Node {
    /// Takes part in the network: joins that of `peer` or of a peer found on this
    /// host, or starts a new one, and begins to hand changes to `on_change`. Tells
    /// whether it started a new one.
    ///
    /// Calls must be served already. Blocks for twenty seconds at the most.
    ///
    /// # Errors
    /// The peer given cannot be reached, or belongs to another kind of network; no
    /// thread can be started.
    pub(crate) fn enter(
        &self,
        service_type: &str,
        peer: Option<&Location>,
        on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<bool, Error> {
        let peer = self.choose_peer(service_type, peer)?;
        self.start(on_change).map_err(Error::Local)?;
        let Some(peer) = peer else {
            info!("Initiating the network...");
            return Ok(true);
        };
        info!("Joining the network...");
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.seed(now, peer.clone()));
        self.wait_for_company(&peer).map(|()| false)
    }

    /// The peer to join, if there is one, by an address and not by a host's name.
    fn choose_peer(
        &self,
        service_type: &str,
        peer: Option<&Location>,
    ) -> Result<Option<Location>, Error> {
        let Some(given) = peer else {
            let found = find_peer(self.caller(), service_type, Some(self.location()));
            return Ok(found.inspect_err(|e| info!("{e}")).ok());
        };
        let resolved = given
            .resolve()
            .map_err(|e| Error::Unresolved(given.clone(), e))?;
        let Some(socket) = resolved.first() else {
            return Err(Error::Unresolved(
                given.clone(),
                io::ErrorKind::NotFound.into(),
            ));
        };
        let own = socket.ip().is_loopback() || socket.ip().to_string() == self.location().address();
        if own && socket.port() == self.location().port() {
            return Ok(None);
        }
        knock(
            self.caller(),
            service_type,
            &Location::from(*socket),
            self.endpoint().shutdown(),
        )
        .map(Some)
    }

    fn wait_for_company(&self, peer: &Location) -> Result<(), Error> {
        let deadline = Instant::now() + ENTRY;
        let mut state = self.shared.state();
        while state.membership.live().nth(1).is_none() {
            if let Some((foreigner, network)) = &state.foreigner
                && foreigner == peer
            {
                return Err(Error::Foreign {
                    peer: peer.clone(),
                    found: network.to_string(),
                    expected: self.shared.network.to_string(),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NoPeer(match state.membership.status_of(peer) {
                    Some(Status::Left) => format!(
                        "{peer} is leaving its network, and no other node of it answers: join by one that stays"
                    ),
                    _ => format!("{peer} answers, but does not let this node in"),
                }));
            }
            if self.endpoint().shutdown().is_requested() {
                return Err(asked_to_end());
            }
            state = self.shared.wait(state, left.min(RETRY));
        }
        Ok(())
    }

    /// Leaves the network: tells members, and returns when they know or cannot be told.
    ///
    /// Calls are served on; the ring is without this node from here on. Blocks for
    /// two seconds at the most.
    pub fn leave(&self) {
        let now = self.shared.now();
        let actions = self.shared.decide(|membership| membership.leave(now));
        self.shared.dispatch(actions);
        let deadline = Instant::now() + FAREWELL;
        let mut state = self.shared.state();
        while !state.membership.left(self.shared.now()) && Instant::now() < deadline {
            state = self.shared.wait(state, Duration::from_millis(20));
        }
    }
}

fn asked_to_end() -> Error {
    Error::NoPeer("ended before it had joined a network".into())
}

/// Waits until the peer answers, and makes sure that it serves the same. Asked to
/// end meanwhile, it fails.
fn knock(
    caller: &Caller,
    service_type: &str,
    peer: &Location,
    shutdown: &Shutdown,
) -> Result<Location, Error> {
    let began = Instant::now();
    loop {
        let patience = patience(Duration::from_secs(1));
        match caller.call_within(patience, BaseSyncClient::new, peer, |peer| {
            peer.service_type()
        }) {
            Ok(found) if found == service_type => return Ok(peer.clone()),
            Ok(found) => {
                let expected = service_type.to_owned();
                return Err(Error::Foreign {
                    peer: peer.clone(),
                    found,
                    expected,
                });
            }
            Err(e) if !e.is_unreachable() || matches!(e, Error::Untrusted(..)) => return Err(e),
            Err(e) => {
                let slow = matches!(e, Error::Silent(..) | Error::Unreached(..));
                let limit = if slow { ENTRY } else { APPEARANCE };
                if began.elapsed() + RETRY > limit {
                    return Err(e);
                }
                if shutdown.wait_for(RETRY) {
                    return Err(asked_to_end());
                }
            }
        }
    }
}
