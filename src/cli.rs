//! What the programs share: options, logging, signals and exit statuses.
//!
//! `-h` is `--host`, as in the original; help is `--help` alone.

mod limits;

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use log::{LevelFilter, error, info};
use nix::sys::signal::{SigSet, Signal};

use crate::client::StoreClient;
use crate::client::ring::RingClient;
use crate::discover::{check_peer, find_peer, find_peer_of_kind};
use crate::endpoint::Place;
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{Caller, Patience};
use crate::rpc::identity::Identity;
use crate::shutdown::Shutdown;
use crate::store::handler::SERVICE;

pub use limits::LimitOptions;

/// The exit statuses, as every program's `--help` tells them.
pub const STATUSES: &str =
    "Exit status: 0 done, 1 key missing, 2 wrong usage, 3 no peer, 4 the call failed.";

/// The same for the programs that are nodes, with what signals do to them.
pub const NODE_STATUSES: &str = "\
Signals: SIGINT (ctrl-C) and SIGTERM leave the network, and a second one ends the process at \
once; SIGHUP changes nothing.\n\n\
Exit status: 0 left gracefully, 2 wrong usage or a port in use, 3 no peer, 4 this host or process \
cannot go on, 130 or 143 ended at once by a second SIGINT or SIGTERM.";

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

    /// What the node takes at the most.
    #[command(flatten)]
    pub limits: LimitOptions,

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
    /// Raises the process's limit of file descriptors if its connections need more.
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
            limits: self.limits.limits(),
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

    /// A client that calls the nodes of the store itself.
    ///
    /// # Errors
    /// As for [`ClientOptions::store`], or the peer is a node of the original.
    pub fn ring(&self) -> Result<RingClient, Error> {
        let caller = self.caller()?;
        let peer = self.peer(&caller, SERVICE)?;
        RingClient::of(caller, &peer)
    }

    /// As [`ClientOptions::peer`], but a peer found on this host may also be of a kind that descends
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
pub fn status(error: &Error) -> ExitCode {
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

/// Turns the switch at the first SIGINT (ctrl-C) or SIGTERM, and ends the process at
/// the second; SIGHUP changes nothing. `at_risk` tells what a second one throws away.
///
/// Call it before the process starts threads: they must inherit that these signals
/// wait for the thread that is started here.
pub fn end_on_signals(shutdown: &Shutdown, at_risk: impl Fn() -> String + Send + 'static) {
    let shutdown = shutdown.clone();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    let listening = signals.thread_block().map_err(io::Error::from);
    let listening = listening.and_then(|()| {
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || heed(signals, &shutdown, at_risk))
    });
    if let Err(e) = listening {
        error!("signals will end this process without a farewell: {e}");
        // They would wait for ever otherwise. It fails only if blocking them did.
        let _ = signals.thread_unblock();
    }
}

/// Does what the signals ask for, one after another.
fn heed(signals: SigSet, shutdown: &Shutdown, at_risk: impl Fn() -> String) {
    let mut is_leaving = false;
    while let Ok(signal) = signals.wait() {
        if signal == Signal::SIGHUP {
            info!("SIGHUP changes nothing: no option can be read anew; SIGTERM ends this node");
            continue;
        }
        if is_leaving {
            error!("ended at once: {}", at_risk());
            std::process::exit(128 + signal as i32);
        }
        is_leaving = true;
        info!("leaving the network; once more to end at once");
        shutdown.request();
    }
}
