//! `Location`: where a node is reached, and its name on the ring.
//!
//! A location is an address (an IP address, or a host name that resolves to one) with a port,
//! written `address:port`. That text is the node's name on the hash ring, so two spellings of
//! one address would be two nodes. Therefore nodes advertise IP addresses only.
//!
//! The original's interface has the port as an `i16`. Its 16 bits are those of the unsigned
//! port.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use crate::locator;

/// The longest address, in bytes: that of a DNS name.
pub const MAX_ADDRESS: usize = 255;

/// Where a node is reached: a non-empty address and a port other than 0.
///
/// Clones share the text. Locations are compared and hashed by their text `address:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// First, because locations are ordered by it.
    name: Arc<str>,
    port: u16,
}

/// Why a text or a wire value is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLocation(String);

impl Location {
    /// The location of `port` at `address`.
    ///
    /// # Errors
    /// The address is empty, is longer than [`MAX_ADDRESS`], or has spaces or control
    /// characters; the port is 0.
    pub fn new(address: &str, port: u16) -> Result<Location, BadLocation> {
        let bad = |reason| Err(BadLocation(reason));
        if address.is_empty() {
            return bad("a location needs an address".into());
        }
        if address.len() > MAX_ADDRESS {
            return bad(format!("an address has at most {MAX_ADDRESS} bytes"));
        }
        if address.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return bad(format!("{address:?} is not an address"));
        }
        if port == 0 {
            return bad(format!("port 0 of {address} cannot be reached"));
        }
        Ok(Location {
            name: format!("{address}:{port}").into(),
            port,
        })
    }

    /// The address, without the port.
    pub fn address(&self) -> &str {
        let (address, _) = self.name.rsplit_once(':').unwrap_or((&self.name, ""));
        address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `address:port`, the node's name on the ring.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket addresses of this location, IPv4 first, because the original supports only
    /// IPv4.
    ///
    /// Blocks while a host name is resolved. An IP address needs no resolution.
    ///
    /// # Errors
    /// The resolver's.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let mut sockets: Vec<SocketAddr> = (self.address(), self.port).to_socket_addrs()?.collect();
        sockets.sort_by_key(SocketAddr::is_ipv6);
        Ok(sockets)
    }
}

impl From<SocketAddr> for Location {
    fn from(socket: SocketAddr) -> Location {
        Location {
            name: format!("{}:{}", socket.ip(), socket.port()).into(),
            port: socket.port(),
        }
    }
}

impl FromStr for Location {
    type Err = BadLocation;

    /// Parses `address:port`. An IPv6 address may be in brackets.
    fn from_str(text: &str) -> Result<Location, BadLocation> {
        let Some((address, port)) = text.rsplit_once(':') else {
            return Err(BadLocation(format!(
                "{text:?} has no port: write ADDRESS:PORT, as in localhost:9900"
            )));
        };
        let port: NonZeroU16 = port.parse().map_err(|_| {
            BadLocation(format!(
                "{port:?} is not a port: a port is a number from 1 to 65535"
            ))
        })?;
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Location::new(bare.unwrap_or(address), port.get())
    }
}

impl TryFrom<&locator::Location> for Location {
    type Error = BadLocation;

    /// Decodes the location of a node. Only IP addresses are accepted: resolving a host name that
    /// a peer chose could block for a long time.
    fn try_from(wire: &locator::Location) -> Result<Location, BadLocation> {
        let address = wire.address.as_deref().unwrap_or("");
        let location = Location::new(address, wire.port.unwrap_or(0) as u16)?;
        if address.parse::<IpAddr>().is_err() {
            return Err(BadLocation(format!(
                "{address:?} is not an IP address, as a node's must be"
            )));
        }
        Ok(location)
    }
}

impl From<&Location> for locator::Location {
    fn from(location: &Location) -> locator::Location {
        locator::Location::new(location.address().to_owned(), location.port as i16)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn a_location_parses_to_itself() {
        for text in ["127.0.0.1:9900", "localhost:1", "::1:65535"] {
            assert_eq!(location(text).to_string(), text);
        }
        assert_eq!(location("[::1]:9900"), location("::1:9900"));
        assert_eq!(location("::1:9900").address(), "::1");
    }

    #[test]
    fn ports_above_32767_are_negative_on_the_wire() {
        let high = location("127.0.0.1:65535");
        let wire = locator::Location::from(&high);
        assert_eq!(wire.port, Some(-1));
        assert_eq!(Location::try_from(&wire), Ok(high));
    }

    #[test]
    fn text_and_wire_values_that_are_not_locations_are_rejected() {
        for text in [
            "",
            "nonsense",
            "host:",
            ":9900",
            "host:0",
            "host:70000",
            "host:-1",
            "a b:1",
            "a\n:1",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text:?} was accepted");
        }
        assert!(Location::new(&"a".repeat(MAX_ADDRESS + 1), 1).is_err());
        assert!(Location::try_from(&locator::Location::new(None, 9900)).is_err());
        let named = locator::Location::new("some.host".to_string(), 9900);
        assert!(Location::try_from(&named).is_err());
        assert!(
            Location::try_from(&locator::Location::new("localhost".to_string(), None)).is_err()
        );
    }

    #[test]
    fn locations_are_ordered_by_their_text() {
        assert!(location("127.0.0.1:10000") < location("127.0.0.1:9900"));
    }
}
