//! The command-line options that several programs have.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::limits::LimitOptions;
use crate::client::StoreClient;
use crate::client::ring::RingClient;
use crate::discover::{check_peer, find_peer, find_peer_of_kind};
use crate::endpoint::BindOptions;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{BaseSyncClient, TBaseSyncClient};
use crate::node::Node;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::tls::identity::Identity;
use crate::store::handler::SERVICE;

/// The service type of every location node.
const LOCATOR: &str = "locator.Locator";

/// How long each of several peers may take to answer.
const SEED_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    reply: Duration::from_secs(1),
};

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
    /// Join the network of this peer; of several (A:9900,B:9900), of the first that answers
    /// [default: a peer found on this host, if any]
    #[arg(short = 'h', long = "host", value_name = "PEER", value_delimiter = ',')]
    peers: Vec<Location>,

    /// Start a new network, without looking for a peer on this host
    #[arg(long, conflicts_with = "peers")]
    bootstrap: bool,

    /// Join no network but the one of this name; name the one that is started
    ///
    /// By default a node joins any network, and gives the one that it starts a random name.
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    network: Option<String>,

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
    /// Call this peer; of several (A:9900,B:9900), the first that answers [default: one found on
    /// this host]
    #[arg(short = 'h', long = "host", value_name = "PEER", value_delimiter = ',')]
    peers: Vec<Location>,

    /// Exit with 4 if the program is not done after this time [default: no limit]
    ///
    /// A write may take effect nevertheless.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,

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
            peer: self.peers.first().cloned(),
            network: self.network.clone(),
            limits: self.limits.server_limits(),
            identity: self.tls.identity()?,
            ..options
        })
    }

    /// The peer to join, as [`serve`](crate::handler::serve) takes it. With `--bootstrap` it is
    /// the node itself. Blocks for some seconds if there are several and none answers.
    pub fn peer(&self, node: &Node) -> Option<Location> {
        if self.bootstrap {
            return Some(node.location().clone());
        }
        let others = self.peers.iter().filter(|peer| *peer != node.location());
        let other = first_that_answers(node.dialer(), &others.cloned().collect::<Vec<_>>());
        other.or_else(|| self.peers.first().cloned())
    }
}

/// The first of some peers that answers or, if none does, the first. One alone is not called.
fn first_that_answers(dialer: &Dialer, peers: &[Location]) -> Option<Location> {
    let answers = |peer: &&Location| {
        let ping = |client: &mut BaseSyncClient<_, _>| client.ping();
        let called = dialer.call_with_timeouts(SEED_TIMEOUTS, BaseSyncClient::new, peer, ping);
        called.is_ok()
    };
    let mut candidates = peers.iter().filter(|_| peers.len() > 1);
    candidates.find(answers).or(peers.first()).cloned()
}

/// Reads the name of a network.
fn network_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 letters, digits, dots, hyphens or underscores".into())
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
        if let Some(seconds) = self.timeout {
            super::exit_after(Duration::from_secs(seconds))?;
        }
        let dialer = Dialer::new(self.tls.identity()?);
        let peer = match first_that_answers(&dialer, &self.peers) {
            Some(peer) => {
                check_peer(&dialer, &peer, service_type, Timeouts::default())?;
                peer
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
