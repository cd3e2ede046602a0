//! `Endpoint`: a claimed port, the location announced for it, and the switch that
//! ends what is served there.
//!
//! Binding is the claim: two nodes started at the same instant never take the same
//! port, because a port is taken by listening, not by asking who else does.
//!
//! The location must be one at which *others* reach the node. It is, in this order:
//! the address given; the address from which this host reaches the peer given,
//! unless that is a loopback address, which says nothing about other hosts; what
//! the host name resolves to, with the same exception (many systems resolve their
//! own name to 127.0.1.1); and 127.0.0.1. The service listens there and on
//! loopback, where programs on this host look for it, and nowhere else unless told.
//! Where that can be reached from other hosts and no [`Identity`] is asked of them, the
//! log is told what that means.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use log::warn;

use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::Caller;
use crate::rpc::identity::Identity;
use crate::rpc::server::{Limits, Meter, Server};
use crate::rpc::traffic::Traffic;
use crate::shutdown::Shutdown;

/// The first port of the original's networks.
pub const FIRST_PORT: u16 = 9900;

/// Where a service should be.
#[derive(Debug, Clone)]
pub struct Place {
    /// The ports to try, in this order.
    pub ports: RangeInclusive<u16>,
    /// The address to announce; none to find it.
    pub address: Option<IpAddr>,
    /// The address to listen at instead of the one announced and loopback.
    pub bind: Option<IpAddr>,
    /// A peer that the service must be able to reach.
    pub peer: Option<Location>,
    /// Who the service is to its peers, which must show a certificate of the same CA;
    /// none to let everybody in.
    pub identity: Option<Identity>,
    /// What strangers may use up.
    pub limits: Limits,
}

impl Place {
    /// The first free one of `count` ports from [`FIRST_PORT`] on.
    pub fn first_of(count: u16) -> Place {
        Place::at(FIRST_PORT..=FIRST_PORT + count.saturating_sub(1))
    }

    /// The first free one of `ports`; port 0 is one that the system chooses.
    pub fn at(ports: RangeInclusive<u16>) -> Place {
        Place {
            ports,
            address: None,
            bind: None,
            peer: None,
            identity: None,
            limits: Limits::default(),
        }
    }
}

/// A claimed port of this host, with the location announced for it.
pub struct Endpoint {
    location: Location,
    caller: Caller,
    shutdown: Shutdown,
    meter: Meter,
    /// The server until it is run; taken once.
    server: Mutex<Option<Server>>,
}

impl Endpoint {
    /// Claims a port.
    ///
    /// Looks up host names, which may block.
    ///
    /// # Errors
    /// [`Error::Bind`] when the port of the place is taken, or its address is not this
    /// host's; [`Error::Usage`] when all its ports are taken, or its identity is a client's.
    pub fn bind(place: &Place) -> Result<Endpoint, Error> {
        place
            .identity
            .as_ref()
            .map_or(Ok(()), Identity::check_as_node)?;
        let address = match (place.address, place.bind) {
            (Some(address), _) => address,
            (None, Some(bind)) if !bind.is_unspecified() => bind,
            (None, _) => own_address(place.peer.as_ref()),
        };
        let listen = listening(place, address);
        let server = first_free(place, address, &listen)?;
        let location = Location::from(SocketAddr::new(address, server.port()));
        if place.identity.is_none() && !listen.iter().all(IpAddr::is_loopback) {
            warn!(
                "whoever can connect to {location} can read, write and delete everything: there \
                 is no TLS; give --tls-cert, --tls-key and --tls-ca, or --address 127.0.0.1"
            );
        }
        Ok(Endpoint {
            location,
            caller: Caller::new(place.identity.clone()),
            shutdown: Shutdown::new(),
            meter: server.meter(),
            server: Mutex::new(Some(server.secured_by(place.identity.clone()))),
        })
    }

    /// Where others reach the service.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// For calls to others in the name of the service.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The switch that ends the service.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// What has come to the service so far.
    pub fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    /// The server that holds the port, to be run.
    ///
    /// # Errors
    /// [`Error::Bind`] when it was taken before: the port is in use by this very endpoint.
    pub(crate) fn take_server(&self) -> Result<Server, Error> {
        let taken = self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        taken.ok_or_else(|| Error::Bind(self.location.clone(), io::ErrorKind::AddrInUse.into()))
    }
}

fn first_free(place: &Place, address: IpAddr, listen: &[IpAddr]) -> Result<Server, Error> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for port in place.ports.clone() {
        match Server::bind(listen, port, place.limits.clone()) {
            Ok(server) => return Ok(server),
            Err(e) => failure = e,
        }
    }
    let (first, last) = (*place.ports.start(), *place.ports.end());
    if first < last && failure.kind() == io::ErrorKind::AddrInUse {
        let all =
            format!("ports {first} to {last} of {address} are all in use: name another with -p");
        return Err(Error::Usage(all));
    }
    Err(Error::Bind(SocketAddr::new(address, first).into(), failure))
}

fn listening(place: &Place, address: IpAddr) -> Vec<IpAddr> {
    match place.bind {
        Some(bind) => vec![bind],
        None if address.is_loopback() => vec![address],
        None => vec![address, Ipv4Addr::LOCALHOST.into()],
    }
}

/// The address of this host at which others reach it, as well as it can be told.
fn own_address(peer: Option<&Location>) -> IpAddr {
    peer.and_then(address_towards)
        .or_else(named_address)
        .unwrap_or_else(|| Ipv4Addr::LOCALHOST.into())
}

/// The address that packets to the peer come from. Nothing is sent: connecting a
/// UDP socket only asks the system for its route.
fn address_towards(peer: &Location) -> Option<IpAddr> {
    let peer = *peer.resolve().ok()?.first()?;
    let any = if peer.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// What the host name resolves to, if that is an address of this host.
fn named_address() -> Option<IpAddr> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let found = (name.trim(), 0).to_socket_addrs().ok()?;
    let own = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    found
        .map(|socket| socket.ip())
        .find(|ip| ip.is_ipv4() && !ip.is_loopback() && own(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_not_given_twice() {
        let first = Endpoint::bind(&Place::at(0..=0)).unwrap();
        let port = first.location().port();
        assert!(matches!(
            Endpoint::bind(&Place::at(port..=port)),
            Err(Error::Bind(..))
        ));
        let next = Endpoint::bind(&Place::at(port..=port.saturating_add(20))).unwrap();
        assert_ne!(next.location().port(), port);
    }

    #[test]
    fn an_address_that_is_not_this_hosts_is_refused() {
        let mut place = Place::at(0..=0);
        place.address = Some("192.0.2.1".parse().unwrap());
        assert!(matches!(Endpoint::bind(&place), Err(Error::Bind(..))));
    }

    #[test]
    fn a_peer_on_loopback_says_nothing_about_other_hosts() {
        assert_eq!(address_towards(&"127.0.0.1:9900".parse().unwrap()), None);
    }
}
