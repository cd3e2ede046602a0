//! Finds a peer on this host by probing ports, and checks the service type of a peer.

use log::debug;

use crate::endpoint::FIRST_PORT;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient};
use crate::rpc::dialer::{Dialer, Input, Output, Timeouts};

/// How many ports are probed, from [`FIRST_PORT`] on.
pub const PORTS: u16 = 10;

/// The timeouts of one probe.
const PROBE_TIMEOUTS: Timeouts = Timeouts::of_millis(500, 500);

/// Finds the first peer on this host with this service type.
///
/// `own` is the caller's own location, which is not probed. Blocks for half a second for each
/// port that accepts the connection and does not reply.
///
/// # Errors
/// [`Error::NoPeer`] if there is none; [`Error::Tls`] if only that keeps the caller from calling one.
pub fn find_peer(
    dialer: &Dialer,
    service_type: &str,
    own: Option<&Location>,
) -> Result<Location, Error> {
    find(dialer, service_type, own, |peer| {
        Ok(peer.service_type()? == service_type)
    })
}

/// Finds the first peer on this host whose service has this type or extends it.
///
/// Blocks as [`find_peer`] does.
///
/// # Errors
/// [`Error::NoPeer`] if there is none; [`Error::Tls`] if only that keeps the caller from calling one.
pub fn find_peer_of_kind(dialer: &Dialer, service_type: &str) -> Result<Location, Error> {
    find(dialer, service_type, None, |peer| {
        Ok(peer.service_types()?.contains(&service_type.to_owned()))
    })
}

fn find(
    dialer: &Dialer,
    service_type: &str,
    own: Option<&Location>,
    is_wanted: impl Fn(&mut LocatorSyncClient<Input, Output>) -> thrift::Result<bool>,
) -> Result<Location, Error> {
    let last = FIRST_PORT + PORTS - 1;
    let mut failure = Error::NoPeer(format!(
        "no {service_type} found on localhost at ports {FIRST_PORT} to {last}: name a peer with -h"
    ));
    for port in (FIRST_PORT..=last).filter(|port| own.is_none_or(|own| own.port() != *port)) {
        let location = Location::new("127.0.0.1", port)?;
        let (timeouts, new) = (PROBE_TIMEOUTS, LocatorSyncClient::new);
        match dialer.call_with_timeouts(timeouts, new, &location, &is_wanted) {
            Ok(true) => return Ok(location),
            Ok(false) => (),
            Err(e @ Error::Tls(..)) if !matches!(failure, Error::Tls(..)) => failure = e,
            Err(e) => debug!("probe of {location}: {e}"),
        }
    }
    Err(failure)
}

/// Checks that the service of `peer` has this type or extends it, and returns the nodes on its
/// ring.
///
/// # Errors
/// [`Error::WrongNetwork`] if it does not; the errors of [`Dialer::call_with_timeouts`].
pub fn check_peer(
    dialer: &Dialer,
    peer: &Location,
    service_type: &str,
    timeouts: Timeouts,
) -> Result<Vec<Location>, Error> {
    let (mut types, mut nodes) = (Vec::new(), Vec::new());
    dialer.call_with_timeouts(timeouts, LocatorSyncClient::new, peer, |peer| {
        types = peer.service_types()?;
        if types.iter().any(|name| name == service_type) {
            nodes = peer.get_all()?;
        }
        Ok(())
    })?;
    if types.iter().any(|name| name == service_type) {
        return Ok(nodes
            .iter()
            .filter_map(|node| node.try_into().ok())
            .collect());
    }
    Err(Error::WrongNetwork {
        peer: peer.clone(),
        found: types.pop().unwrap_or_default(),
        expected: service_type.to_owned(),
    })
}
