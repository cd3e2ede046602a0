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

/// The service type of every location node.
const LOCATOR: &str = "locator.Locator";

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
    port: Option<u16>,

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
    peer: Option<Location>,

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
    /// A dialer with the identity of the program, if it has one, and a store node: the given
    /// peer, if it is one; or one found on this host.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::WrongNetwork`], or why the given peer cannot be called. As for
    /// [`TlsOptions::identity`].
    pub fn store_peer(&self) -> Result<(Dialer, Location), Error> {
        self.peer(SERVICE, |dialer| find_peer(dialer, SERVICE, None))
    }

    /// As [`store_peer`](ClientOptions::store_peer), but for a node of any network: a location
    /// node or one with a service of its own.
    ///
    /// # Errors
    /// As for [`store_peer`](ClientOptions::store_peer).
    pub fn location_peer(&self) -> Result<(Dialer, Location), Error> {
        self.peer(LOCATOR, |dialer| find_peer_of_kind(dialer, LOCATOR))
    }

    fn peer(
        &self,
        service_type: &str,
        find: impl FnOnce(&Dialer) -> Result<Location, Error>,
    ) -> Result<(Dialer, Location), Error> {
        let dialer = Dialer::new(self.tls.identity()?);
        let peer = match &self.peer {
            Some(peer) => {
                check_peer(&dialer, peer, service_type, Timeouts::default())?;
                peer.clone()
            }
            None => find(&dialer)?,
        };
        Ok((dialer, peer))
    }

    /// A client that calls one node of a store.
    ///
    /// # Errors
    /// As for [`store_peer`](ClientOptions::store_peer).
    pub fn store(&self) -> Result<StoreClient, Error> {
        let (dialer, peer) = self.store_peer()?;
        Ok(StoreClient::of(dialer, peer))
    }

    /// A client that calls the primary of each key.
    ///
    /// # Errors
    /// As for [`store`](ClientOptions::store), or the peer is a legacy node.
    pub fn ring(&self) -> Result<RingClient, Error> {
        let (dialer, peer) = self.store_peer()?;
        RingClient::of(dialer, &peer)
    }
}
