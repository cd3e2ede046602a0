//! `Error`: what can go wrong between a node and its peers, told apart by what it
//! means for the caller.

use std::fmt;
use std::io;

use thrift::{ApplicationErrorKind, TransportErrorKind};

use crate::diststore::Refused;
use crate::location::{BadLocation, Location};
use crate::trust::is_distrust;

/// Why a call, or the start of a node, failed. None of them changes the state of
/// the node that reports it.
#[derive(Debug)]
pub enum Error {
    /// The text names no location. Nothing was tried.
    BadLocation(BadLocation),
    /// The location's host name does not resolve. Nothing was sent.
    Unresolved(Location, io::Error),
    /// The host is up and nothing listens at the port. Nothing was sent.
    Refused(Location, io::Error),
    /// There is no way to the host, or no connection in time. Nothing was sent.
    Unreached(Location, io::Error),
    /// One side does not trust the other's certificate or has none, or only one side
    /// speaks TLS. Who turns the other away does nothing.
    Untrusted(Location, thrift::Error),
    /// No answer in time. The peer may have done what was asked.
    Silent(Location, thrift::Error),
    /// The connection ended in mid-call, or what came back is not Thrift. The peer
    /// may have done what was asked.
    Broken(Location, thrift::Error),
    /// The peer answered with an exception: it did not do what was asked.
    Answered(Location, thrift::Error),
    /// A node cannot listen where it was told to.
    Bind(Location, io::Error),
    /// The peer belongs to another kind of network. Nothing was exchanged.
    Foreign {
        /// The peer that was asked.
        peer: Location,
        /// What it serves, or the name of its network.
        found: String,
        /// What was looked for.
        expected: String,
    },
    /// No peer was found where one was looked for.
    NoPeer(String),
    /// This host or process lacks something: a descriptor for a connection, an open
    /// stdin or stdout. It says nothing of any peer.
    Local(io::Error),
    /// What was asked for is not taken, by the options or limits given. Nothing was done.
    Usage(String),
}

impl Error {
    /// Sorts the failure of a call that had a connection to `location`.
    pub(crate) fn of_call(location: &Location, error: thrift::Error) -> Error {
        let location = location.clone();
        match &error {
            thrift::Error::Transport(e) if e.kind == TransportErrorKind::TimedOut => {
                Error::Silent(location, error)
            }
            // A peer that turns us away says so when the first answer is waited for.
            thrift::Error::Transport(e) if is_distrust(&e.message) => {
                Error::Untrusted(location, error)
            }
            thrift::Error::Transport(_) | thrift::Error::Protocol(_) => {
                Error::Broken(location, error)
            }
            thrift::Error::Application(_) | thrift::Error::User(_) => {
                Error::Answered(location, error)
            }
        }
    }

    /// Did the peer answer that it does not know the method, as a peer of an
    /// older interface does?
    pub fn is_unknown_method(&self) -> bool {
        matches!(self, Error::Answered(_, thrift::Error::Application(e))
            if e.kind == ApplicationErrorKind::UnknownMethod)
    }

    /// Did the peer refuse what was asked, by an exception of the interface?
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Answered(_, thrift::Error::User(_)))
    }

    /// Could nobody be reached there, by whatever failure?
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Error::Refused(..)
                | Error::Unreached(..)
                | Error::Untrusted(..)
                | Error::Silent(..)
                | Error::Broken(..)
        )
    }
}

/// What a Thrift error says; its own `Display` hides the message.
pub(crate) fn told(error: &thrift::Error) -> String {
    match error {
        thrift::Error::Transport(e) => e.message.clone(),
        thrift::Error::Protocol(e) => e.message.clone(),
        thrift::Error::Application(e) => e.message.clone(),
        // The generated `Display` of an exception names it and keeps its reason to itself.
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
                    "nobody answers at {at}: {e}; is a node running there, at that port?"
                )
            }
            Error::Unreached(at, e) => {
                write!(
                    f,
                    "no connection to {at}: {e}; is the host up, and the address right?"
                )
            }
            Error::Untrusted(at, e) => {
                write!(f, "no trust between {at} and this program: {}", told(e))
            }
            Error::Silent(at, e) => write!(f, "no answer from {at} in time: {}", told(e)),
            Error::Broken(at, e) => write!(f, "the call to {at} broke off: {}", told(e)),
            Error::Answered(at, e) => write!(f, "{at} answered: {}", told(e)),
            Error::Bind(at, e) if e.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "the address {at} is in use already: choose another port")
            }
            Error::Bind(at, e) => write!(f, "cannot listen at {at}: {e}"),
            Error::Foreign {
                peer,
                found,
                expected,
            } => {
                write!(
                    f,
                    "{peer} is of a network of {found}, not of {expected}: name another peer with -h"
                )
            }
            Error::NoPeer(what) | Error::Usage(what) => f.write_str(what),
            Error::Local(e) => write!(f, "this host or process cannot go on: {e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::BadLocation(e) => Some(e),
            Error::Unresolved(_, e)
            | Error::Refused(_, e)
            | Error::Unreached(_, e)
            | Error::Bind(_, e)
            | Error::Local(e) => Some(e),
            Error::Untrusted(_, e)
            | Error::Silent(_, e)
            | Error::Broken(_, e)
            | Error::Answered(_, e) => Some(e),
            Error::Foreign { .. } | Error::NoPeer(_) | Error::Usage(_) => None,
        }
    }
}

impl From<BadLocation> for Error {
    fn from(bad: BadLocation) -> Error {
        Error::BadLocation(bad)
    }
}
