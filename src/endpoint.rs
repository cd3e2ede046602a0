//! `Endpoint`: a bound port, the location that is advertised for it, and the request to stop.
//!
//! A port is taken by listening on it, so two nodes that start at the same instant never take
//! the same one.
//!
//! The advertised address must be one at which other hosts reach the node. It is the first
//! non-loopback of: the local address on the route to the peer; the address of the host name.
//! Otherwise it is 127.0.0.1. The service listens at that address, and on loopback for programs
//! of this host.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use log::{info, warn};
use parking_lot::Mutex;

use crate::diststore::ServerStats;
use crate::error::Error;
use crate::location::Location;
use crate::membership::Tags;
use crate::rpc::dialer::Dialer;
use crate::rpc::limits::{ServerLimits, http_limits};
use crate::rpc::method_times::Times;
use crate::rpc::server::{Server, ServerHandle};
use crate::rpc::tls::identity::Identity;
use crate::shutdown::Shutdown;

/// The first port of the original's networks.
pub const FIRST_PORT: u16 = 9900;

/// Where a service listens, and on which conditions.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// The ports to try, in this order.
    pub ports: RangeInclusive<u16>,
    /// The address to advertise. None to determine it.
    pub advertise: Option<IpAddr>,
    /// The address to listen at, instead of the advertised one and loopback.
    pub bind: Option<IpAddr>,
    /// A peer to which the advertised address must have a route.
    pub peer: Option<Location>,
    /// The id of the network: a node joins no network of another one, and founds one of this. None
    /// to join any, and to found one with a random id.
    pub network: Option<String>,
    /// The identity of the service. Peers must then show a certificate of the same CA. None for
    /// no TLS.
    pub identity: Option<Identity>,
    /// What the server accepts.
    pub limits: ServerLimits,
    /// Where to show a node of a network by HTTP ([`http`](crate::http)), if anywhere.
    pub http: Option<SocketAddr>,
    /// What its operator says about a node: all members know it. Never changes.
    pub tags: Tags,
}

impl BindOptions {
    /// Binds the first free one of `count` ports from [`FIRST_PORT`] on.
    pub fn default_ports(count: u16) -> BindOptions {
        BindOptions::at(FIRST_PORT..=FIRST_PORT + count.saturating_sub(1))
    }

    /// Binds the first free one of `ports`. For port 0 the system chooses one.
    pub fn at(ports: RangeInclusive<u16>) -> BindOptions {
        BindOptions {
            ports,
            advertise: None,
            bind: None,
            peer: None,
            network: None,
            identity: None,
            limits: ServerLimits::default(),
            http: None,
            tags: Tags::default(),
        }
    }
}

/// A bound port of this host, with the location that is advertised for it.
pub struct Endpoint {
    location: Location,
    dialer: Dialer,
    shutdown: Shutdown,
    server_handle: ServerHandle,
    /// The server. None once it runs.
    server: Mutex<Option<Server>>,
    /// The HTTP server, if there is to be one. None once it runs.
    http_server: Mutex<Option<Server>>,
}

impl Endpoint {
    /// Binds a port.
    ///
    /// Resolves host names, which may block.
    ///
    /// # Errors
    /// [`Error::Bind`] if the only port is in use, or the address is not one of this host;
    /// [`Error::Usage`] if all ports are in use, the identity is for clients only, or the address
    /// to advertise is none at which a node can be reached.
    pub fn bind(options: &BindOptions) -> Result<Endpoint, Error> {
        let identity = &options.identity;
        identity
            .as_ref()
            .map_or(Ok(()), Identity::check_usable_by_node)?;
        let address = match (options.advertise, options.bind) {
            (Some(address), _) => check_advertised(address)?,
            (None, Some(bind)) if !bind.is_unspecified() => bind,
            (None, _) => advertised_address(options.peer.as_ref()),
        };
        let listen = listen_addresses(options, address);
        let server = bind_first_free(options, address, &listen)?;
        let location = Location::from(SocketAddr::new(address, server.port()));
        if identity.is_none() && !listen.iter().all(IpAddr::is_loopback) {
            warn!(
                "there is no TLS: anyone who can connect to {location} can read, write and delete \
                 everything; give --tls-cert, --tls-key and --tls-ca, or --advertise 127.0.0.1"
            );
        }
        Ok(Endpoint {
            location,
            dialer: Dialer::new(identity.clone()),
            shutdown: Shutdown::new(),
            server_handle: server.handle(),
            server: Mutex::new(Some(server)),
            http_server: Mutex::new(bind_http(options)?),
        })
    }

    /// The advertised location.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Makes calls to peers with the identity of the service.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The request to stop the service.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The counters of the server.
    pub fn stats(&self) -> ServerStats {
        self.server_handle.stats()
    }

    /// The times of each method.
    pub fn methods(&self) -> BTreeMap<String, Arc<Times>> {
        self.server_handle.methods()
    }

    /// Takes the HTTP server, to run it, if there is one.
    pub(crate) fn take_http_server(&self) -> Option<Server> {
        self.http_server.lock().take()
    }

    /// Takes the server, to run it.
    ///
    /// # Errors
    /// [`Error::Bind`] if it was taken before.
    pub(crate) fn take_server(&self) -> Result<Server, Error> {
        let server = self.server.lock().take();
        server.ok_or_else(|| Error::Bind(self.location.clone(), io::ErrorKind::AddrInUse.into()))
    }
}

/// Rejects an address that stands for several hosts, or for all addresses of one.
fn check_advertised(address: IpAddr) -> Result<IpAddr, Error> {
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(Error::Usage(format!(
            "no node can be reached at {address}: advertise an address of this host; did you mean \
             --bind {address}?"
        )));
    }
    Ok(address)
}

fn bind_http(options: &BindOptions) -> Result<Option<Server>, Error> {
    let Some(socket) = options.http else {
        return Ok(None);
    };
    let identity = options.identity.clone();
    let server = Server::bind(&[socket.ip()], socket.port(), http_limits(), identity);
    let server = server.map_err(|e| Error::Bind(socket.into(), e))?;
    info!(
        "http://{}/ shows this node",
        SocketAddr::new(socket.ip(), server.port())
    );
    Ok(Some(server))
}

fn bind_first_free(
    options: &BindOptions,
    address: IpAddr,
    listen: &[IpAddr],
) -> Result<Server, Error> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for port in options.ports.clone() {
        let identity = options.identity.clone();
        match Server::bind(listen, port, options.limits.clone(), identity) {
            Ok(server) => return Ok(server),
            Err(e) => failure = e,
        }
    }
    let (first, last) = (*options.ports.start(), *options.ports.end());
    if first < last && failure.kind() == io::ErrorKind::AddrInUse {
        return Err(Error::Usage(format!(
            "ports {first} to {last} of {address} are all in use: name another with -p"
        )));
    }
    Err(Error::Bind(SocketAddr::new(address, first).into(), failure))
}

fn listen_addresses(options: &BindOptions, advertised: IpAddr) -> Vec<IpAddr> {
    match options.bind {
        Some(bind) => vec![bind],
        None if advertised.is_loopback() => vec![advertised],
        None => vec![advertised, Ipv4Addr::LOCALHOST.into()],
    }
}

/// The address of this host at which others probably reach it.
fn advertised_address(peer: Option<&Location>) -> IpAddr {
    peer.and_then(address_towards)
        .or_else(host_name_address)
        .unwrap_or_else(|| Ipv4Addr::LOCALHOST.into())
}

/// The local address on the route to `peer`, if it is not an IPv4 loopback address: a node that
/// joins at `::1` is reached there too. Sends nothing: connecting a UDP socket only looks up the
/// route.
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
    (!is_ipv4_loopback(address) && !address.is_unspecified()).then_some(address)
}

fn is_ipv4_loopback(address: IpAddr) -> bool {
    address.is_ipv4() && address.is_loopback()
}

/// Is this an address of this host?
pub(crate) fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// An IPv4 address of this host to which the host name resolves, except loopback: many systems
/// resolve their own name to 127.0.1.1.
fn host_name_address() -> Option<IpAddr> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let sockets = (name.trim(), 0).to_socket_addrs().ok()?;
    sockets
        .map(|socket| socket.ip())
        .find(|ip| ip.is_ipv4() && !ip.is_loopback() && is_own_address(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_port_is_not_bound_again() {
        let first = Endpoint::bind(&BindOptions::at(0..=0)).unwrap();
        let port = first.location().port();
        assert!(matches!(
            Endpoint::bind(&BindOptions::at(port..=port)),
            Err(Error::Bind(..))
        ));
        let next = Endpoint::bind(&BindOptions::at(port..=port.saturating_add(20))).unwrap();
        assert_ne!(next.location().port(), port);
    }

    #[test]
    fn an_address_of_another_host_is_rejected() {
        let mut options = BindOptions::at(0..=0);
        options.advertise = Some("192.0.2.1".parse().unwrap());
        assert!(matches!(Endpoint::bind(&options), Err(Error::Bind(..))));
    }

    #[test]
    fn a_route_to_loopback_gives_no_advertised_address() {
        assert_eq!(address_towards(&"127.0.0.1:9900".parse().unwrap()), None);
    }
}
