//! Port knocking: finding a peer of one's own kind on this host.

use std::time::Duration;

use log::debug;

use crate::endpoint::FIRST_PORT;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{BaseSyncClient, TBaseSyncClient};
use crate::rpc::client::{Caller, Input, Output, Patience};

/// Ports that are tried, from [`FIRST_PORT`] on.
pub const PORTS: u16 = 10;

/// For each port: who does not answer on this host in this time is passed over.
const KNOCK: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_millis(500),
};

/// The first peer on this host whose `service_type` is the one given.
///
/// Blocks for half a second for each port that takes the connection and does not answer.
/// `own` is the asker's own location, which is passed over.
///
/// # Errors
/// [`Error::NoPeer`] when none is found.
pub fn find_peer(
    caller: &Caller,
    service_type: &str,
    own: Option<&Location>,
) -> Result<Location, Error> {
    find(caller, service_type, own, |peer| {
        Ok(peer.service_type()? == service_type)
    })
}

/// The first peer on this host that has `service_type` in its line of descent, for
/// programs that speak to every kind of it.
///
/// Blocks as [`find_peer`] does.
///
/// # Errors
/// [`Error::NoPeer`] when none is found.
pub fn find_peer_of_kind(caller: &Caller, service_type: &str) -> Result<Location, Error> {
    find(caller, service_type, None, |peer| {
        let types = peer.service_types()?;
        Ok(types.iter().any(|found| found == service_type))
    })
}

fn find(
    caller: &Caller,
    service_type: &str,
    own: Option<&Location>,
    is_wanted: impl Fn(&mut BaseSyncClient<Input, Output>) -> thrift::Result<bool>,
) -> Result<Location, Error> {
    let knock = |location: &Location| {
        caller
            .call_within(KNOCK, BaseSyncClient::new, location, &is_wanted)
            .inspect_err(|e| debug!("knocked at {location}: {e}"))
            .unwrap_or(false)
    };
    (FIRST_PORT..FIRST_PORT + PORTS)
        .filter(|port| own.is_none_or(|own| own.port() != *port))
        .filter_map(|port| Location::new("127.0.0.1", port).ok())
        .find(knock)
        .ok_or_else(|| {
            Error::NoPeer(format!(
                "no {service_type} found on localhost at ports {FIRST_PORT} to {}: name a peer with -h",
                FIRST_PORT + PORTS - 1
            ))
        })
}

/// Makes sure that the peer's line of descent has `service_type` in it.
///
/// # Errors
/// [`Error::Foreign`] when it has not; what [`Caller::call_within`] reports when the peer cannot be asked.
pub fn check_peer(
    caller: &Caller,
    peer: &Location,
    service_type: &str,
    patience: Patience,
) -> Result<(), Error> {
    let line = caller.call_within(patience, BaseSyncClient::new, peer, |peer| {
        peer.service_types()
    })?;
    if line.iter().any(|found| found == service_type) {
        return Ok(());
    }
    Err(Error::Foreign {
        peer: peer.clone(),
        found: line.last().cloned().unwrap_or_default(),
        expected: service_type.to_owned(),
    })
}
