//! What the programs share: options, logging, signals and exit statuses.
//!
//! `-h` is `--host`, as in the original; help is `--help` alone.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Args;
use log::{LevelFilter, error, info};

use crate::client::StoreClient;
use crate::discover::{check_peer, find_peer, find_peer_of_kind};
use crate::endpoint::Place;
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{Caller, Patience};
use crate::rpc::identity::Identity;
use crate::shutdown::Shutdown;
use crate::store::handler::SERVICE;

/// The exit statuses, as every program's `--help` tells them.
pub const STATUSES: &str =
    "Exit status: 0 done, 1 key missing, 2 wrong usage, 3 no peer, 4 the call failed.";

/// Who a program is to its peers, and whom it trusts: all three, or none.
#[derive(Debug, Args)]
pub struct TlsOptions {
    /// Show this certificate to every peer (PEM), and take none without one of the same
    /// CA; without it, nothing is encrypted and a node lets everybody in
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// The certificate of the CA of this network (PEM)
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_CA")]
    tls_ca: Option<PathBuf>,
}

/// Options of the programs that are nodes.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// Join the network of this peer; without it, of a peer found on this host, if any
    #[arg(short = 'h', long = "host", value_name = "PEER")]
    peer: Option<Location>,

    /// Start a new network, without looking for a peer on this host
    #[arg(long, conflicts_with = "peer")]
    alone: bool,

    /// Listen at this port (0: one that the system chooses); without it, at the first
    /// free one from 9900 upward
    #[arg(short, long)]
    pub port: Option<u16>,

    /// Announce this address of this host to others; without it, the one by which the
    /// peer is reached, else what the host name resolves to, else 127.0.0.1
    #[arg(long)]
    pub address: Option<IpAddr>,

    /// Listen at this address only (0.0.0.0: at every one); without it, at the one
    /// announced and on loopback
    #[arg(long)]
    pub bind: Option<IpAddr>,

    #[command(flatten)]
    tls: TlsOptions,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

/// Options of the programs that call a node.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// Call this peer; without it, one that is found on this host
    #[arg(short = 'h', long = "host", value_name = "PEER")]
    pub peer: Option<Location>,

    #[command(flatten)]
    tls: TlsOptions,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

impl TlsOptions {
    /// The identity that the options or the environment give, if they do.
    ///
    /// # Errors
    /// [`Error::Usage`] when only some of the three are given, or a file is not what it
    /// should be.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authority)) => {
                Identity::load(certificate, key, authority).map(Some)
            }
            _ => Err(Error::Usage(
                "TLS takes all three of --tls-cert, --tls-key and --tls-ca, or of THRIFTY_TLS_CERT, \
                 THRIFTY_TLS_KEY and THRIFTY_TLS_CA: only some are given"
                    .into(),
            )),
        }
    }
}

impl NodeOptions {
    /// Where the node should be: at the port given, or the first free one of `ports`.
    ///
    /// # Errors
    /// As for [`TlsOptions::identity`].
    pub fn place(&self, ports: u16) -> Result<Place, Error> {
        let place = match self.port {
            Some(port) => Place::at(port..=port),
            None => Place::first_of(ports),
        };
        Ok(Place {
            address: self.address,
            bind: self.bind,
            peer: self.peer.clone(),
            identity: self.tls.identity()?,
            ..place
        })
    }
}

impl NodeOptions {
    /// The peer to join from `own`, a claimed location: the one given, or, when the node is to
    /// start a new network, itself; none to look for one.
    pub fn peer<'a>(&'a self, own: &'a Location) -> Option<&'a Location> {
        if self.alone {
            Some(own)
        } else {
            self.peer.as_ref()
        }
    }
}

impl ClientOptions {
    /// Who calls: somebody, if an identity is given, else anybody.
    ///
    /// # Errors
    /// As for [`TlsOptions::identity`].
    pub fn caller(&self) -> Result<Caller, Error> {
        self.tls.identity().map(Caller::new)
    }

    /// The peer to call: the one given, if it serves `service_type`, or one found on this host.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::Foreign`], or why the peer given cannot be asked.
    pub fn peer(&self, caller: &Caller, service_type: &str) -> Result<Location, Error> {
        match &self.peer {
            Some(peer) => {
                check_peer(caller, peer, service_type, Patience::default()).map(|()| peer.clone())
            }
            None => find_peer(caller, service_type, None),
        }
    }

    /// A client of the store to call.
    ///
    /// # Errors
    /// As for [`ClientOptions::caller`] and [`ClientOptions::peer`].
    pub fn store(&self) -> Result<StoreClient, Error> {
        let caller = self.caller()?;
        let peer = self.peer(&caller, SERVICE)?;
        Ok(StoreClient::of(caller, peer))
    }

    /// The same, but a peer found on this host may also be of a kind that descends
    /// from `service_type`.
    ///
    /// # Errors
    /// As for [`ClientOptions::peer`].
    pub fn peer_of_kind(&self, caller: &Caller, service_type: &str) -> Result<Location, Error> {
        match &self.peer {
            Some(_) => self.peer(caller, service_type),
            None => find_peer_of_kind(caller, service_type),
        }
    }
}

/// The exit status when there is no such key.
pub const MISSING: u8 = 1;

/// The exit status when a call failed.
pub const FAILED: u8 = 4;

/// Writes an answer to stdout. A reader that has gone away is no failure of ours.
///
/// # Errors
/// [`Error::Local`] when stdout cannot be written to.
pub fn print(parts: &[&[u8]]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = parts
        .iter()
        .try_for_each(|part| stdout.write_all(part))
        .and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Local(e)),
        _ => Ok(()),
    }
}

/// All bytes of stdin, `most` at the most.
///
/// # Errors
/// [`Error::Local`] when stdin cannot be read; [`Error::Usage`] when it is longer.
pub fn read_stdin(most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let stdin = io::stdin().lock();
    stdin
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::Local)?;
    if bytes.len() > most {
        return Err(Error::Usage(format!(
            "stdin has more than {most} bytes; no longer value is taken"
        )));
    }
    Ok(bytes)
}

/// Runs a program's body and turns its outcome into an exit status.
///
/// `quiet` programs tell only of failures unless `RUST_LOG` says otherwise.
pub fn run(quiet: bool, body: impl FnOnce() -> Result<ExitCode, Error>) -> ExitCode {
    let level = if quiet {
        LevelFilter::Warn
    } else {
        LevelFilter::Info
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format_target(false)
        .init();
    body().unwrap_or_else(|e| {
        error!("{e}");
        status(&e)
    })
}

/// The exit status for a failure.
fn status(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::BadLocation(_) | Error::Bind(..) | Error::Usage(_) => 2,
        Error::Unresolved(..)
        | Error::Refused(..)
        | Error::Unreached(..)
        | Error::Untrusted(..)
        | Error::Foreign { .. }
        | Error::NoPeer(_) => 3,
        Error::Silent(..) | Error::Broken(..) | Error::Answered(..) | Error::Local(_) => FAILED,
    })
}

/// Turns the switch at the first ctrl-C or SIGTERM; ends the process at the second.
///
/// `at_risk` tells what the second one throws away.
pub fn end_on_signals(shutdown: &Shutdown, at_risk: impl Fn() -> String + Send + 'static) {
    let shutdown = shutdown.clone();
    let again = AtomicBool::new(false);
    let on_signal = move || {
        if again.swap(true, Relaxed) {
            error!("ended at once: {}", at_risk());
            std::process::exit(130);
        }
        info!("leaving the network; once more to end at once");
        shutdown.request();
    };
    if let Err(e) = ctrlc::set_handler(on_signal) {
        error!("signals will end this process without a farewell: {e}");
    }
}
