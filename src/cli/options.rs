//! The command-line options that several programs have.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::limits::LimitOptions;
use crate::client::StoreClient;
use crate::client::ring::RingClient;
use crate::discover::{check_peer, find_peer, find_peer_of_kind};
use crate::endpoint::BindOptions;
use crate::error::Error;
use crate::location::Location;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::tls::identity::Identity;
use crate::store::handler::SERVICE;

/// The identity of a program: all three options, or none.
#[derive(Debug, Args)]
pub struct TlsOptions {
    /// Use TLS, and show this certificate to every peer (PEM)
    ///
    /// Needs --tls-key and --tls-ca too. Peers must show a certificate of the same CA. Without
    /// TLS nothing is encrypted, and anyone who can connect can call a node.
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// The certificate of the CA that signs all certificates of the network (PEM)
    #[arg(long, value_name = "FILE", env = "THRIFTY_TLS_CA")]
    tls_ca: Option<PathBuf>,
}

/// The options of programs that are nodes.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// Join the network of this peer [default: a peer found on this host, if any]
    #[arg(short = 'h', long = "host", value_name = "PEER")]
    peer: Option<Location>,

    /// Start a new network, without looking for a peer on this host
    #[arg(long, conflicts_with = "peer")]
    bootstrap: bool,

    /// Listen at this port; 0: the system chooses one [default: the first free one from 9900 on]
    #[arg(short, long)]
    pub port: Option<u16>,

    /// Advertise this address of this host to other nodes and clients
    ///
    /// By default the first non-loopback of: the local address on the route to the peer; the
    /// address of the host name. Otherwise 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<IpAddr>,

    /// Listen at this address only; 0.0.0.0: at all [default: the advertised one and loopback]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,

    #[command(flatten)]
    tls: TlsOptions,

    /// What the node accepts.
    #[command(flatten)]
    pub limits: LimitOptions,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

/// The options of programs that call a node.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// Call this peer [default: one found on this host]
    #[arg(short = 'h', long = "host", value_name = "PEER")]
    pub peer: Option<Location>,

    #[command(flatten)]
    tls: TlsOptions,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

impl TlsOptions {
    /// The identity, if the options or the environment give one.
    ///
    /// # Errors
    /// [`Error::Usage`] if only some of the three are given, or a file is invalid.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authority)) => {
                Identity::load(certificate, key, authority).map(Some)
            }
            _ => Err(Error::Usage(
                "TLS needs all three of --tls-cert, --tls-key and --tls-ca, or of THRIFTY_TLS_CERT, \
                 THRIFTY_TLS_KEY and THRIFTY_TLS_CA: only some are given"
                    .into(),
            )),
        }
    }
}

impl NodeOptions {
    /// Where the node listens: at the given port, or at the first free one of `ports`. Raises
    /// the process's limit of file descriptors if the connections need more.
    ///
    /// # Errors
    /// As for [`TlsOptions::identity`].
    pub fn bind_options(&self, ports: u16) -> Result<BindOptions, Error> {
        let options = match self.port {
            Some(port) => BindOptions::at(port..=port),
            None => BindOptions::default_ports(ports),
        };
        Ok(BindOptions {
            advertise: self.advertise,
            bind: self.bind,
            peer: self.peer.clone(),
            limits: self.limits.server_limits(),
            identity: self.tls.identity()?,
            ..options
        })
    }

    /// The peer to join, as [`serve`](crate::handler::serve) takes it. With `--bootstrap` it is
    /// `own`, the node's own location.
    pub fn peer<'a>(&'a self, own: &'a Location) -> Option<&'a Location> {
        if self.bootstrap {
            Some(own)
        } else {
            self.peer.as_ref()
        }
    }
}

impl ClientOptions {
    /// A dialer with the identity of the program, if it has one.
    ///
    /// # Errors
    /// As for [`TlsOptions::identity`].
    pub fn dialer(&self) -> Result<Dialer, Error> {
        self.tls.identity().map(Dialer::new)
    }

    /// The given peer, if its service has this type or extends it; or a peer with this type
    /// found on this host.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::WrongNetwork`], or why the given peer cannot be called.
    pub fn peer(&self, dialer: &Dialer, service_type: &str) -> Result<Location, Error> {
        match &self.peer {
            Some(peer) => {
                check_peer(dialer, peer, service_type, Timeouts::default()).map(|()| peer.clone())
            }
            None => find_peer(dialer, service_type, None),
        }
    }

    /// As [`peer`](ClientOptions::peer), but the service of a peer found on this host may also
    /// extend this type.
    ///
    /// # Errors
    /// As for [`peer`](ClientOptions::peer).
    pub fn peer_of_kind(&self, dialer: &Dialer, service_type: &str) -> Result<Location, Error> {
        match &self.peer {
            Some(_) => self.peer(dialer, service_type),
            None => find_peer_of_kind(dialer, service_type),
        }
    }

    /// A client that calls one node of a store.
    ///
    /// # Errors
    /// As for [`dialer`](ClientOptions::dialer) and [`peer`](ClientOptions::peer).
    pub fn store(&self) -> Result<StoreClient, Error> {
        let dialer = self.dialer()?;
        let peer = self.peer(&dialer, SERVICE)?;
        Ok(StoreClient::of(dialer, peer))
    }

    /// A client that calls the primary of each key.
    ///
    /// # Errors
    /// As for [`store`](ClientOptions::store), or the peer is a legacy node.
    pub fn ring(&self) -> Result<RingClient, Error> {
        let dialer = self.dialer()?;
        let peer = self.peer(&dialer, SERVICE)?;
        RingClient::of(dialer, &peer)
    }
}
