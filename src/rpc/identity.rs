//! `Identity`: who a process is to its peers, and whom it lets in.
//!
//! A network has a certificate authority (CA) of its own, and whoever shows a
//! certificate of that CA is in; nobody else gets anything. Both sides of every
//! connection show theirs, by TLS 1.3.
//!
//! **Names in certificates are not looked at.** A node is known by an IP address, and any
//! member may announce any; who has a certificate of the CA can take part as a node
//! and be given keys to keep, whatever name it bears. To demand that it names the
//! node's address would shut out hosts whose addresses change and programs that
//! look for a node at 127.0.0.1, and keep nobody out. So the CA must be the
//! network's alone: not one that a whole company shares. What is looked at is the
//! *extended key usage*, where there is one: a node's must be good for server and for
//! client authentication; a client's is good for client authentication, and when it is
//! for nothing else, nobody takes it for a node's.
//!
//! Sessions are not resumed: each connection is judged by the certificate it shows,
//! at that time. There are no revocation lists: certificates should live short, and a
//! lost key is answered with a new CA. Files are read once, at the start.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
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
use crate::rpc::session::Session;
use crate::trust::fault;

/// The longest file of certificates or keys that is read.
const LONGEST_FILE: u64 = 1024 * 1024;

/// A certificate with its key, and the CA whose certificates are trusted.
///
/// A cheap handle; clones are the same identity.
#[derive(Clone)]
pub struct Identity {
    calling: Arc<ClientConfig>,
    answering: Arc<ServerConfig>,
    /// Is the certificate one that nobody takes for a node's?
    is_for_calling_only: bool,
}

impl Identity {
    /// Reads three files in PEM: a certificate, with those between it and the CA if there
    /// are any, its private key, and the certificate of the CA.
    ///
    /// A certificate that peers will not take, as one that has expired, is told to the log.
    ///
    /// # Errors
    /// [`Error::Usage`] when a file cannot be read, or is not what it should be.
    pub fn load(certificate: &Path, key: &Path, authority: &Path) -> Result<Identity, Error> {
        let chain = certificates(certificate)?;
        let private = private_key(key)?;
        let roots = Arc::new(roots(authority)?);
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| bad(authority, e))?;
        warn_of_faults(certificate, &chain, &*clients);
        let nodes = NodesOfTheAuthority {
            roots,
            algorithms: provider.signature_verification_algorithms,
        };
        let is_for_calling_only = nodes.is_other_than_a_node(&chain);
        let mismatch = |e| bad(key, format!("for {}: {e}", certificate.display()));
        let answering = answering(&provider, clients, chain.clone(), private.clone_key());
        let calling = calling(&provider, nodes, chain, private);
        Ok(Identity {
            calling: Arc::new(calling.map_err(mismatch)?),
            answering: Arc::new(answering.map_err(mismatch)?),
            is_for_calling_only,
        })
    }

    /// Makes sure that others can take this for a node's.
    ///
    /// # Errors
    /// [`Error::Usage`] when the certificate is for client authentication only.
    pub(crate) fn check_as_node(&self) -> Result<(), Error> {
        if self.is_for_calling_only {
            return Err(Error::Usage(
                "the certificate given by --tls-cert is a client's: a node's must be good for \
                 server authentication too"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The calling side of a connection that was just made.
    pub(crate) fn call(&self, stream: Arc<TcpStream>, time: Duration) -> io::Result<Session> {
        let to = ServerName::from(stream.peer_addr()?.ip());
        let tls = ClientConnection::new(self.calling.clone(), to).map_err(io::Error::other)?;
        let session = Session::begin(stream, tls.into(), time, time)?;
        session.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The answering side; none if the peer went without having said anything.
    pub(crate) fn answer(
        &self,
        stream: Arc<TcpStream>,
        time: Duration,
        record_time: Duration,
    ) -> io::Result<Option<Session>> {
        let tls = ServerConnection::new(self.answering.clone()).map_err(io::Error::other)?;
        Session::begin(stream, tls.into(), time, record_time)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

fn calling(
    provider: &Arc<CryptoProvider>,
    nodes: NodesOfTheAuthority,
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

fn answering(
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
    // Tickets that a oneway caller leaves unread would reset its connection, and
    // what it sent might be lost.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Says at once what every peer would say later.
fn warn_of_faults(file: &Path, chain: &[CertificateDer<'_>], clients: &dyn ClientCertVerifier) {
    let Some((own, between)) = chain.split_first() else {
        return;
    };
    let judged = clients.verify_client_cert(own, between, UnixTime::now());
    if let Err(rustls::Error::InvalidCertificate(e)) = judged {
        warn!("the certificate in {} {}", file.display(), fault(&e));
    }
}

/// Takes every node with a certificate of the CA, whatever its name (see above).
#[derive(Debug)]
struct NodesOfTheAuthority {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodesOfTheAuthority {
    fn judge(
        &self,
        node: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let node = ParsedCertificate::try_from(node)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&node, &self.roots, between, now, algorithms)
    }

    /// Is this good for other uses than a node's?
    fn is_other_than_a_node(&self, chain: &[CertificateDer<'_>]) -> bool {
        use CertificateError::{InvalidPurpose, InvalidPurposeContext};
        let Some((own, between)) = chain.split_first() else {
            return false;
        };
        let judged = self.judge(own, between, UnixTime::now());
        matches!(
            judged,
            Err(rustls::Error::InvalidCertificate(
                InvalidPurpose | InvalidPurposeContext { .. }
            ))
        )
    }
}

impl ServerCertVerifier for NodesOfTheAuthority {
    fn verify_server_cert(
        &self,
        node: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(node, between, now)
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

fn bad(file: &Path, why: impl fmt::Display) -> Error {
    Error::Usage(format!("{} cannot be used: {why}", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| {
        let mut bounded = open.take(LONGEST_FILE + 1);
        bounded.read_to_end(&mut bytes)
    });
    let length = read.map_err(|e| bad(file, e))? as u64;
    if length > LONGEST_FILE {
        return Err(bad(file, format!("it has more than {LONGEST_FILE} bytes")));
    }
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(bad(file, "there is no certificate in PEM in it")),
        Err(e) => Err(bad(file, e)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let none = "there is no private key in PEM in it (an encrypted one is not read)";
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => bad(file, none),
        other => bad(file, other),
    })
}

fn roots(file: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|e| bad(file, e))?;
    }
    Ok(roots)
}
