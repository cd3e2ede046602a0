//! The command-line options that several programs have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::common::CommonOptions;
use super::limits::LimitOptions;
use crate::client::StoreClient;
use crate::client::ring::RingClient;
use crate::discover::{check_peer, find_peer_of_kind};
use crate::endpoint::{BindOptions, FIRST_PORT};
use crate::error::Error;
use crate::location::{BadLocation, Location};
use crate::membership::Tags;
use crate::node::Node;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::tls::identity::Identity;
use crate::store::handler::SERVICE;

/// The service type of every location node.
const LOCATOR: &str = "locator.Locator";

/// A peer that is down is told within a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// The environment variable that names the peers.
const PEERS: &str = "THRIFTY_PEER";

/// The identity of a program: all three options, or none.
#[derive(Debug, Args)]
pub struct TlsOptions {
    /// Use TLS, and show this certificate to every peer (PEM)
    ///
    /// Needs --tls-key and --tls-ca too. Peers must show a certificate of the same CA. Without
    /// TLS nothing is encrypted, and anyone who can connect can call a node.
    #[arg(
        long,
        help_heading = "TLS",
        value_name = "FILE",
        env = "THRIFTY_TLS_CERT"
    )]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate (PEM)
    #[arg(
        long,
        help_heading = "TLS",
        value_name = "FILE",
        env = "THRIFTY_TLS_KEY"
    )]
    tls_key: Option<PathBuf>,

    /// The certificate of the CA that signs all certificates of the network (PEM)
    ///
    /// While a new CA replaces an old one, a file with the certificates of both.
    #[arg(
        long,
        help_heading = "TLS",
        value_name = "FILE",
        env = "THRIFTY_TLS_CA"
    )]
    tls_ca: Option<PathBuf>,
}

/// The options of programs that are nodes.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// Join the network of this peer; of several (A,B:9901), of the first that answers
    /// [default: a peer found on this host, if any]
    ///
    /// Without a port it is 9900. All nodes can have the same list: a node ignores itself, and of
    /// nodes that wait for each other the first one by address starts the network.
    #[arg(short = 'h', long = "host", value_name = "PEER", value_delimiter = ',', env = PEERS, value_parser = peer)]
    peers: Vec<Location>,

    /// Start a new network, without looking for a peer
    #[arg(long)]
    bootstrap: bool,

    /// Join no network but the one of this name; name the one that is started
    ///
    /// By default a node joins any network, and gives the one that it starts a random name.
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    network: Option<String>,

    /// Listen at this port; 0: the system chooses one [default: the first free one from 9900 on]
    #[arg(short, long, value_name = "PORT")]
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

    /// Show the node at http://ADDRESS:PORT/; a port alone: at 127.0.0.1
    ///
    /// A page for browsers, /metrics for Prometheus, /livez, /readyz and /status.json. Nothing can
    /// be changed there, but everyone who can connect can read it, unless there is TLS.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = http_address)]
    http: Option<SocketAddr>,

    /// Say this about the node, for all members to see; repeat it for more
    ///
    /// At most 4 KiB in all. With `--tag zone=NAME` copies of a key go to nodes of distinct zones, as
    /// far as there are any.
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<String>,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,

    /// What the node accepts.
    #[command(flatten)]
    pub limits: LimitOptions,

    #[command(flatten)]
    common: CommonOptions,

    #[command(flatten)]
    tls: TlsOptions,
}

/// The options of programs that call a node.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// Call this peer; of several (A,B:9901), the first that answers [default: one found on this
    /// host]
    ///
    /// Without a port it is 9900. If the peer fails, the program goes on with another member.
    #[arg(short = 'h', long = "host", value_name = "PEER", value_delimiter = ',', env = PEERS, value_parser = peer)]
    peers: Vec<Location>,

    /// Exit with 4 if the program is not done after this time [default: no limit]
    ///
    /// A write may take effect nevertheless.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,

    /// Print this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,

    #[command(flatten)]
    common: CommonOptions,

    #[command(flatten)]
    tls: TlsOptions,
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
    /// As for [`TlsOptions::identity`]; or [`Error::Usage`] if options contradict each other.
    pub fn bind_options(&self, ports: u16) -> Result<BindOptions, Error> {
        let has_peers = !self.peers.is_empty() && std::env::var_os(PEERS).is_none();
        if self.bootstrap && has_peers {
            let message = "--bootstrap starts a network of its own: give no --host";
            return Err(Error::Usage(message.into()));
        }
        let options = match self.port {
            Some(port) => BindOptions::at(port..=port),
            None => BindOptions::default_ports(ports),
        };
        Ok(BindOptions {
            advertise: self.advertise,
            bind: self.bind,
            peer: self.peers.first().filter(|_| !self.bootstrap).cloned(),
            network: self.network.clone(),
            http: self.http,
            tags: Tags::parse(&self.tags).map_err(|e| Error::Usage(e.to_string()))?,
            limits: self.limits.server_limits(),
            identity: self.tls.identity()?,
            ..options
        })
    }

    /// The peers to join, as [`serve`](crate::handler::serve) takes them. With `--bootstrap` it is
    /// the node itself.
    pub fn peers(&self, node: &Node) -> Vec<Location> {
        if self.bootstrap {
            return vec![node.location().clone()];
        }
        self.peers.clone()
    }
}

/// Reads a peer, which may lack its port.
fn peer(text: &str) -> Result<Location, BadLocation> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let bare = bare.unwrap_or(text);
    if !bare.contains(':') || bare.parse::<IpAddr>().is_ok() {
        return Location::new(bare, FIRST_PORT);
    }
    text.parse()
}

/// Reads where to listen: an address and a port, or a port.
fn http_address(text: &str) -> Result<SocketAddr, String> {
    let alone = text
        .parse()
        .map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
    let at = text.replace("localhost:", "127.0.0.1:");
    let parsed = alone.or_else(|_| at.parse());
    parsed.map_err(|_| "give ADDRESS:PORT, with an IP address, or a port".into())
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
    /// A dialer with the identity of the program, if it has one, and a store node: the first of
    /// the given peers that replies, or one found on this host.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::WrongNetwork`], or why the given peer cannot be called. As for
    /// [`TlsOptions::identity`].
    pub fn store_peer(&self) -> Result<(Dialer, Location), Error> {
        let (dialer, mut nodes) = self.nodes(SERVICE)?;
        Ok((dialer, nodes.swap_remove(0)))
    }

    /// As [`store_peer`](ClientOptions::store_peer), but for a node of any network: a location
    /// node or one with a service of its own.
    ///
    /// # Errors
    /// As for [`store_peer`](ClientOptions::store_peer).
    pub fn location_peer(&self) -> Result<(Dialer, Location), Error> {
        let (dialer, mut nodes) = self.nodes(LOCATOR)?;
        Ok((dialer, nodes.swap_remove(0)))
    }

    /// A dialer with the identity of the program, if it has one. Starts to count `--timeout`.
    ///
    /// # Errors
    /// As for [`TlsOptions::identity`].
    pub fn dialer(&self) -> Result<Dialer, Error> {
        if let Some(seconds) = self.timeout {
            super::exit_after(Duration::from_secs(seconds))?;
        }
        Ok(Dialer::new(self.tls.identity()?))
    }

    /// A peer with a service of this type, and after it all nodes on its ring.
    fn nodes(&self, service_type: &str) -> Result<(Dialer, Vec<Location>), Error> {
        let dialer = self.dialer()?;
        let found = match &self.peers[..] {
            [] => &[find_peer_of_kind(&dialer, service_type)?],
            given => given,
        };
        let reply = Duration::from_secs(if found.len() == 1 { 10 } else { 1 });
        let timeouts = Timeouts {
            connect: CONNECT_TIMEOUT,
            reply,
        };
        let mut failure = None;
        for peer in found {
            match check_peer(&dialer, peer, service_type, timeouts) {
                Ok(nodes) => {
                    return Ok((dialer, [std::slice::from_ref(peer), &nodes[..]].concat()));
                }
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::NoPeer("no peer was named".into())))
    }

    /// A client that calls one node of a store and, if that fails, another one.
    ///
    /// # Errors
    /// As for [`store_peer`](ClientOptions::store_peer).
    pub fn store(&self) -> Result<StoreClient, Error> {
        let (dialer, nodes) = self.nodes(SERVICE)?;
        Ok(StoreClient::of(dialer, nodes))
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
