//! `Error`: why a call or the start of a node failed, and what that means for the caller.

use std::fmt;
use std::io;

use thrift::{ApplicationErrorKind, TransportErrorKind};

use crate::diststore::Refused;
use crate::location::{BadLocation, Location};

/// The start of the message of every TLS failure. [`Error::of_call`] recognizes them by it.
pub(crate) const TLS_MARK: &str = "TLS";

/// Why a call or the start of a node failed. The state of the node that reports it is
/// unchanged.
#[derive(Debug)]
pub enum Error {
    /// The text is not a location. Nothing was sent.
    BadLocation(BadLocation),
    /// The location's host name does not resolve. Nothing was sent.
    Unresolved(Location, io::Error),
    /// The host is up, and no process listens at the port. Nothing was sent.
    Refused(Location, io::Error),
    /// There is no route to the host, or no connection in time. Nothing was sent.
    Unreachable(Location, io::Error),
    /// One side rejects the other's certificate or has none, or only one side uses TLS. The peer
    /// did nothing.
    Tls(Location, thrift::Error),
    /// No reply in time. The peer may have executed the call.
    Timeout(Location, thrift::Error),
    /// The connection ended before the reply, or the reply is not Thrift. The peer may have
    /// executed the call.
    ConnectionLost(Location, thrift::Error),
    /// The peer replied with an exception: it did not execute the call.
    Remote(Location, thrift::Error),
    /// A node cannot listen at this location.
    Bind(Location, io::Error),
    /// The peer belongs to another network. No state was exchanged.
    WrongNetwork {
        /// The peer.
        peer: Location,
        /// Its service type, or the name of its network.
        found: String,
        /// The expected one.
        expected: String,
    },
    /// No peer was found, or none accepts this node. The text says where and why.
    NoPeer(String),
    /// This host or process lacks a resource, for example a file descriptor, a thread or an open
    /// stdout. No peer is involved.
    Io(io::Error),
    /// The last node of ours could not hand over this number of keys to legacy nodes. They are lost.
    NotHandedOver(usize),
    /// An argument or a combination of options is invalid, or exceeds a limit. Nothing was done.
    Usage(String),
}

impl Error {
    /// Classifies the failure of a call that had a connection to `location`.
    pub(crate) fn of_call(location: &Location, error: thrift::Error) -> Error {
        let location = location.clone();
        match &error {
            thrift::Error::Transport(e) if e.kind == TransportErrorKind::TimedOut => {
                Error::Timeout(location, error)
            }
            // A peer's rejection of a certificate arrives instead of the first reply.
            thrift::Error::Transport(e) if e.message.starts_with(TLS_MARK) => {
                Error::Tls(location, error)
            }
            thrift::Error::Transport(_) | thrift::Error::Protocol(_) => {
                Error::ConnectionLost(location, error)
            }
            thrift::Error::Application(_) | thrift::Error::User(_) => {
                Error::Remote(location, error)
            }
        }
    }

    /// Is the method unknown to the peer, as additions are to a legacy node?
    pub fn is_unknown_method(&self) -> bool {
        matches!(self, Error::Remote(_, thrift::Error::Application(e))
            if e.kind == ApplicationErrorKind::UnknownMethod)
    }

    /// Did the peer refuse the call by an exception of the interface?
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Remote(_, thrift::Error::User(_)))
    }

    /// Was there no reply? The peer may be down, or may have executed the call.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Error::Refused(..)
                | Error::Unreachable(..)
                | Error::Tls(..)
                | Error::Timeout(..)
                | Error::ConnectionLost(..)
        )
    }
}

/// The message of a Thrift error, which its own `Display` hides.
pub(crate) fn message(error: &thrift::Error) -> String {
    match error {
        thrift::Error::Transport(e) => e.message.clone(),
        thrift::Error::Protocol(e) => e.message.clone(),
        thrift::Error::Application(e) => e.message.clone(),
        // The generated `Display` of an exception has its name, but not its reason.
        thrift::Error::User(e) => match e.downcast_ref::<Refused>() {
            Some(refused) => refused.reason.clone().unwrap_or_default(),
            None => e.to_string(),
        },
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadLocation(e) => e.fmt(f),
            Error::Unresolved(at, e) => {
                write!(
                    f,
                    "{} does not resolve to an address: {e}; check the name, or give an IP address",
                    at.address()
                )
            }
            Error::Refused(at, e) => {
                write!(
                    f,
                    "nothing listens at {at}: {e}; is a node running there, at that port?"
                )
            }
            Error::Unreachable(at, e) => {
                write!(
                    f,
                    "no connection to {at}: {e}; is the host up, and the address right?"
                )
            }
            Error::Tls(at, e) => {
                write!(f, "no trust between {at} and this program: {}", message(e))
            }
            Error::Timeout(at, e) => write!(f, "no reply from {at} in time: {}", message(e)),
            Error::ConnectionLost(at, e) => {
                write!(f, "the connection to {at} was lost: {}", message(e))
            }
            Error::Remote(at, e) => write!(f, "{at} replied: {}", message(e)),
            Error::Bind(at, e) if e.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "the address {at} is in use already: choose another port")
            }
            Error::Bind(at, e) => write!(f, "cannot listen at {at}: {e}"),
            Error::WrongNetwork {
                peer,
                found,
                expected,
            } => {
                write!(
                    f,
                    "{peer} belongs to a network of {found}, not of {expected}: name another peer with -h"
                )
            }
            Error::NoPeer(what) | Error::Usage(what) => f.write_str(what),
            Error::NotHandedOver(keys) => {
                write!(
                    f,
                    "{keys} keys were not handed over and are lost: the nodes of the original that \
                     own them did not take them"
                )
            }
            Error::Io(e) => write!(f, "this host or process cannot go on: {e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::BadLocation(e) => Some(e),
            Error::Unresolved(_, e)
            | Error::Refused(_, e)
            | Error::Unreachable(_, e)
            | Error::Bind(_, e)
            | Error::Io(e) => Some(e),
            Error::Tls(_, e)
            | Error::Timeout(_, e)
            | Error::ConnectionLost(_, e)
            | Error::Remote(_, e) => Some(e),
            Error::WrongNetwork { .. }
            | Error::NoPeer(_)
            | Error::NotHandedOver(_)
            | Error::Usage(_) => None,
        }
    }
}

impl From<BadLocation> for Error {
    fn from(bad: BadLocation) -> Error {
        Error::BadLocation(bad)
    }
}
