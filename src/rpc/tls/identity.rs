//! `Identity`: the certificate that a process shows, and the CA whose certificates it trusts.
//!
//! A network has a certificate authority (CA) of its own. Both sides of every connection show
//! a certificate of that CA over TLS 1.3; any other peer is rejected before it can call
//! anything.
//!
//! **Names in certificates are not checked.** A node is known by an IP address, and any
//! member may advertise any address. A process with a certificate of the CA can join as a
//! node and receive keys, whatever name the certificate has. A name check would exclude
//! hosts whose addresses change and programs that look for a node at 127.0.0.1, without
//! adding protection. Therefore the CA must belong to the network alone, not to a whole
//! company. The *extended key usage* is checked if there is one: a node's must allow server
//! and client authentication; a client's that allows client authentication only is not
//! accepted as a node's.
//!
//! Sessions are not resumed: every connection is judged by the certificate that it shows at
//! that time. There are no revocation lists: use short-lived certificates, and answer a lost
//! key with a new CA. Files are read once, at the start.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};

use crate::error::Error;
use crate::plural::counted;
use crate::rpc::tls::errors::certificate_problem;
use crate::rpc::tls::stream::TlsStream;

/// One day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many days before a certificate expires warnings start.
const EXPIRY_DAYS: u32 = 14;

/// How much of a file of certificates or keys is read, in bytes. 1 MiB.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate with its private key, and the trusted CA.
///
/// A cheap handle; clones are the same identity.
#[derive(Clone)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: Arc<OwnCertificate>,
    /// The certificate is not usable by a node.
    is_client_only: bool,
}

/// The certificate that this side shows, and how peers check it.
struct OwnCertificate {
    file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    peers: Arc<dyn ClientCertVerifier>,
    checked_at: Mutex<Instant>,
}

impl Identity {
    /// Reads three PEM files: the certificate (with intermediates, if any), its private key,
    /// and the certificate of the CA.
    ///
    /// Logs a warning about a certificate that peers reject, or will reject within two weeks because
    /// it expires; a node again once a day.
    ///
    /// # Errors
    /// [`Error::Usage`]: a file cannot be read or has the wrong content.
    pub fn load(certificate: &Path, key: &Path, authority: &Path) -> Result<Identity, Error> {
        let chain = certificates(certificate)?;
        let private = private_key(key)?;
        let roots = Arc::new(roots(authority)?);
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| unusable(authority, e))?;
        let own = OwnCertificate {
            file: certificate.to_owned(),
            chain: chain.clone(),
            peers: clients.clone(),
            checked_at: Mutex::new(Instant::now()),
        };
        own.warn_of_problems();
        let nodes = AnyNodeOfCa {
            roots,
            algorithms: provider.signature_verification_algorithms,
        };
        let is_client_only = nodes.is_client_certificate(&chain);
        let mismatch = |e| unusable(key, format!("for {}: {e}", certificate.display()));
        let server = server_config(&provider, clients, chain.clone(), private.clone_key());
        let client = client_config(&provider, nodes, chain, private);
        Ok(Identity {
            client: Arc::new(client.map_err(mismatch)?),
            server: Arc::new(server.map_err(mismatch)?),
            own: Arc::new(own),
            is_client_only,
        })
    }

    /// Checks that a node can use this identity.
    ///
    /// # Errors
    /// [`Error::Usage`]: the certificate allows client authentication only.
    pub(crate) fn check_usable_by_node(&self) -> Result<(), Error> {
        if self.is_client_only {
            return Err(Error::Usage(
                "the certificate given by --tls-cert is a client's: a node's must also allow \
                 server authentication"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Makes the handshake as the client of a new connection. Blocks for `timeout` twice at most.
    pub(crate) fn connect(
        &self,
        tcp: Arc<TcpStream>,
        timeout: Duration,
    ) -> io::Result<Arc<TlsStream>> {
        let name = ServerName::from(tcp.peer_addr()?.ip());
        let tls = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        let stream = TlsStream::handshake(tcp, tls.into(), timeout, timeout)?;
        stream.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Makes the handshake as the server. None if the peer closed without sending anything.
    pub(crate) fn accept(
        &self,
        tcp: Arc<TcpStream>,
        timeout: Duration,
        record_timeout: Duration,
    ) -> io::Result<Option<Arc<TlsStream>>> {
        self.own.warn_daily();
        let tls = ServerConnection::new(self.server.clone()).map_err(io::Error::other)?;
        TlsStream::handshake(tcp, tls.into(), timeout, record_timeout)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    nodes: AnyNodeOfCa,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(nodes))
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Tickets that a oneway dialer leaves unread would reset its connection, and
    // what it sent might be lost.
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl OwnCertificate {
    /// Logs now what every peer would report, now or soon.
    fn warn_of_problems(&self) {
        let expires = (1..=EXPIRY_DAYS).find(|days| self.problem_in(DAY * *days).is_some());
        let soon = || {
            expires.map(|days| format!("expires in less than {}: renew it", counted(days, "day")))
        };
        if let Some(problem) = self.problem_in(Duration::ZERO).or_else(soon) {
            warn!("the certificate in {} {problem}", self.file.display());
        }
    }

    fn warn_daily(&self) {
        let mut checked_at = self.checked_at.lock();
        if checked_at.elapsed() > DAY {
            *checked_at = Instant::now();
            drop(checked_at);
            self.warn_of_problems();
        }
    }

    /// Why peers will reject the certificate after this time, if they will.
    fn problem_in(&self, time: Duration) -> Option<String> {
        let (own, intermediates) = self.chain.split_first()?;
        let at = Duration::from_secs(UnixTime::now().as_secs()) + time;
        let at = UnixTime::since_unix_epoch(at);
        match self.peers.verify_client_cert(own, intermediates, at) {
            Err(rustls::Error::InvalidCertificate(e)) => Some(certificate_problem(&e)),
            _ => None,
        }
    }
}

/// Accepts every node with a certificate of the CA, whatever its name (see above).
#[derive(Debug)]
struct AnyNodeOfCa {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyNodeOfCa {
    fn verify(
        &self,
        node: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let node = ParsedCertificate::try_from(node)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &node,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )
    }

    /// Is the certificate valid, but not for a node?
    fn is_client_certificate(&self, chain: &[CertificateDer<'_>]) -> bool {
        use CertificateError::{InvalidPurpose, InvalidPurposeContext};
        let Some((own, intermediates)) = chain.split_first() else {
            return false;
        };
        let verified = self.verify(own, intermediates, UnixTime::now());
        matches!(
            verified,
            Err(rustls::Error::InvalidCertificate(
                InvalidPurpose | InvalidPurposeContext { .. }
            ))
        )
    }
}

impl ServerCertVerifier for AnyNodeOfCa {
    fn verify_server_cert(
        &self,
        node: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(node, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        node: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, node, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        node: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, node, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn unusable(file: &Path, why: impl fmt::Display) -> Error {
    Error::Usage(format!("{} cannot be used: {why}", file.display()))
}

fn open(file: &Path) -> Result<impl Read, Error> {
    let open = File::open(file).map_err(|e| unusable(file, e))?;
    Ok(open.take(MAX_FILE))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(file)?).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(file, "there is no certificate in PEM in it")),
        Err(e) => Err(unusable(file, e)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let none = "there is no private key in PEM in it (an encrypted one is not read)";
    PrivateKeyDer::from_pem_reader(open(file)?).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => unusable(file, none),
        other => unusable(file, other),
    })
}

fn roots(file: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|e| unusable(file, e))?;
    }
    Ok(roots)
}
