//! Finds a peer on this host by probing ports, and checks the service type of a peer.

use std::time::Duration;

use log::debug;

use crate::endpoint::FIRST_PORT;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{BaseSyncClient, TBaseSyncClient};
use crate::rpc::dialer::{Dialer, Input, Output, Timeouts};

/// How many ports are probed, from [`FIRST_PORT`] on.
pub const PORTS: u16 = 10;

/// The timeouts of one probe.
const PROBE_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    reply: Duration::from_millis(500),
};

/// Finds the first peer on this host with this service type.
///
/// `own` is the caller's own location, which is not probed. Blocks for half a second for each
/// port that accepts the connection and does not reply.
///
/// # Errors
/// [`Error::NoPeer`] if there is none.
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
/// [`Error::NoPeer`] if there is none.
pub fn find_peer_of_kind(dialer: &Dialer, service_type: &str) -> Result<Location, Error> {
    find(dialer, service_type, None, |peer| {
        Ok(peer.service_types()?.contains(&service_type.to_owned()))
    })
}

fn find(
    dialer: &Dialer,
    service_type: &str,
    own: Option<&Location>,
    is_wanted: impl Fn(&mut BaseSyncClient<Input, Output>) -> thrift::Result<bool>,
) -> Result<Location, Error> {
    let probe = |location: &Location| {
        dialer
            .call_with_timeouts(PROBE_TIMEOUTS, BaseSyncClient::new, location, &is_wanted)
            .inspect_err(|e| debug!("probe of {location}: {e}"))
            .unwrap_or(false)
    };
    (FIRST_PORT..FIRST_PORT + PORTS)
        .filter(|port| own.is_none_or(|own| own.port() != *port))
        .filter_map(|port| Location::new("127.0.0.1", port).ok())
        .find(probe)
        .ok_or_else(|| {
            Error::NoPeer(format!(
                "no {service_type} found on localhost at ports {FIRST_PORT} to {}: name a peer with -h",
                FIRST_PORT + PORTS - 1
            ))
        })
}

/// Checks that the service of `peer` has this type or extends it.
///
/// # Errors
/// [`Error::WrongNetwork`] if it does not; the errors of [`Dialer::call_with_timeouts`].
pub fn check_peer(
    dialer: &Dialer,
    peer: &Location,
    service_type: &str,
    timeouts: Timeouts,
) -> Result<(), Error> {
    let types = dialer.call_with_timeouts(timeouts, BaseSyncClient::new, peer, |peer| {
        peer.service_types()
    })?;
    if types.iter().any(|name| name == service_type) {
        return Ok(());
    }
    Err(Error::WrongNetwork {
        peer: peer.clone(),
        found: types.last().cloned().unwrap_or_default(),
        expected: service_type.to_owned(),
    })
}
