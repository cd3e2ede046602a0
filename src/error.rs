//! `Error`: why a call or the start of a node failed, and what that means for the caller.

use std::io;

use thrift::{ApplicationErrorKind, TransportErrorKind};

use crate::diststore::Refused;
use crate::location::{BadLocation, Location};
use crate::plural::counted;

/// The start of the message of every TLS failure. [`Error::of_call`] recognizes them by it.
pub(crate) const TLS_MARK: &str = "TLS";

/// Why a call or the start of a node failed. The state of the node that reports it is
/// unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a location. Nothing was sent.
    #[error("{0}")]
    BadLocation(#[from] BadLocation),
    /// The location's host name does not resolve. Nothing was sent.
    #[error(
        "{address} does not resolve to an address: {1}; check the name, or give an IP address",
        address = .0.address()
    )]
    Unresolved(Location, #[source] io::Error),
    /// The host is up, and no process listens at the port. Nothing was sent.
    #[error("nothing listens at {0}: {1}; is a node running there, at that port?")]
    Refused(Location, #[source] io::Error),
    /// There is no route to the host, or no connection in time. Nothing was sent.
    #[error("no connection to {0}: {1}; is the host up, and the address right?")]
    Unreachable(Location, #[source] io::Error),
    /// One side rejects the other's certificate or has none, or only one side uses TLS. The peer
    /// did nothing.
    #[error("no trust between {0} and this program: {why}", why = message(.1))]
    Tls(Location, #[source] thrift::Error),
    /// No reply in time. The peer may have executed the call.
    #[error("no reply from {0} in time: {why}", why = message(.1))]
    Timeout(Location, #[source] thrift::Error),
    /// The connection ended before the reply, or the reply is not Thrift. The peer may have
    /// executed the call.
    #[error("the connection to {0} was lost: {why}", why = message(.1))]
    ConnectionLost(Location, #[source] thrift::Error),
    /// The peer replied with an exception: it did not execute the call.
    #[error("{0} replied: {why}", why = message(.1))]
    Remote(Location, #[source] thrift::Error),
    /// A node cannot listen at this location.
    #[error("{}", bind_message(.0, .1))]
    Bind(Location, #[source] io::Error),
    /// The peer belongs to another network. No state was exchanged.
    #[error("{peer} belongs to a network of {found}, not of {expected}: name another peer with -h")]
    WrongNetwork {
        /// The peer.
        peer: Location,
        /// Its service type, or the name of its network.
        found: String,
        /// The expected one.
        expected: String,
    },
    /// No peer was found, or none accepts this node. The text says where and why.
    #[error("{0}")]
    NoPeer(String),
    /// The call was made, and its result could not be written.
    #[error("the answer could not be written: {0}")]
    Output(#[source] io::Error),
    /// This host or process lacks a resource, for example a file descriptor or a thread. No peer is
    /// involved.
    #[error("this host or process cannot go on: {0}")]
    Io(#[source] io::Error),
    /// The last node of ours could not hand over this number of keys to legacy nodes. They are lost.
    #[error(
        "not handed over and lost: {}, which the nodes of the original that are to own them did not \
         take", counted(*.0, "key")
    )]
    NotHandedOver(usize),
    /// A data directory cannot be used, or the node cannot go on without it. The text says which and
    /// why.
    #[error("{0}")]
    Data(String),
    /// An argument or a combination of options is invalid, or exceeds a limit. Nothing was done.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Classifies why there is no connection to `location`.
    pub(crate) fn of_connect(location: &Location, failure: io::Error) -> Error {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
        use io::ErrorKind::{TimedOut, WouldBlock};
        let to = location.clone();
        match failure.kind() {
            TimedOut | WouldBlock => Error::Unreachable(to, TimedOut.into()),
            HostUnreachable | NetworkUnreachable | NetworkDown => Error::Unreachable(to, failure),
            ConnectionRefused | ConnectionReset | ConnectionAborted => Error::Refused(to, failure),
            _ => Error::Io(failure),
        }
    }

    /// Classifies why the handshake with `location` failed.
    pub(crate) fn of_handshake(location: &Location, failure: io::Error) -> Error {
        match failure.kind() {
            io::ErrorKind::InvalidData => Error::Tls(location.clone(), failure.into()),
            io::ErrorKind::UnexpectedEof => {
                let closed = "TLS: the peer closed the connection during the handshake: it has no \
                    TLS, or has just ended";
                let closed = io::Error::new(failure.kind(), closed);
                Error::Tls(location.clone(), closed.into())
            }
            _ => Error::of_connect(location, failure),
        }
    }

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

    /// Has the peer's host answered that no process listens there?
    pub fn has_ended(&self) -> bool {
        matches!(self, Error::Refused(_, e) if e.kind() == io::ErrorKind::ConnectionRefused)
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

fn bind_message(at: &Location, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the address {at} is in use already: choose another port")
        }
        _ => format!("cannot listen at {at}: {error}"),
    }
}
