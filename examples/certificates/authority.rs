//! `Authority`: a CA whose files, and the certificates that it signs, are in one folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The common name of the CA.
const NAME: &str = "thrifty-p2p network CA";

/// How long the certificate of the CA is valid.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates are valid from this long before their creation, because clocks differ.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// What a certificate is valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node: both sides of a connection.
    Node,
    /// A client: the client side only, so its key cannot be used to run a node.
    Client,
}

/// A CA. Its certificate is `ca.pem` and its private key `ca.key`, in its folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The CA in `folder`. Creates one if there is none.
    ///
    /// # Errors
    /// A file cannot be read or written, or `ca.key` is invalid.
    pub fn in_folder(folder: &Path) -> io::Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let file = folder.join("ca.key");
        let key = if file.exists() {
            KeyPair::from_pem(&fs::read_to_string(file)?).map_err(io::Error::other)?
        } else {
            let key = KeyPair::generate().map_err(io::Error::other)?;
            params.not_before = (SystemTime::now() - CLOCK_TOLERANCE).into();
            params.not_after = (SystemTime::now() + CA_VALIDITY).into();
            let certificate = params.self_signed(&key).map_err(io::Error::other)?;
            write(&file, &key.serialize_pem(), 0o600)?;
            write(&folder.join("ca.pem"), &certificate.pem(), 0o644)?;
            key
        };
        Ok(Authority {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Creates a certificate `NAME.pem` and its private key `NAME.key`, valid until `until`.
    ///
    /// The programs of a network do not check the names in certificates. For other clients,
    /// which may check them, the names are those of the local host.
    ///
    /// The files of an earlier certificate of that name are replaced.
    ///
    /// # Errors
    /// One of the files cannot be written.
    pub fn issue(&self, name: &str, role: Role, until: SystemTime) -> io::Result<()> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Node {
            let server = ExtendedKeyUsagePurpose::ServerAuth;
            params.extended_key_usages.push(server);
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now().min(until) - CLOCK_TOLERANCE).into();
        params.not_after = until.into();
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.map_err(io::Error::other)?;
        let file = |ending| self.folder.join(format!("{name}.{ending}"));
        if name == "ca" {
            return Err(io::Error::other("`ca` is the name of the CA's own files"));
        }
        for ending in ["key", "pem"] {
            match fs::remove_file(file(ending)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => (),
            }
        }
        write(&file("key"), &key.serialize_pem(), 0o600)?;
        write(&file("pem"), &signed.pem(), 0o644)
    }
}

/// Creates a file and writes `text` into it. The file must not exist.
fn write(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(file);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}
