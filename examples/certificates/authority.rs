//! `Authority`: a CA in a folder, with the certificates that it has made.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// What the CA calls itself.
const NAME: &str = "thrifty-p2p network CA";

/// How long the CA is valid.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates are valid from so long ago: clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node calls others and is called.
    Node,
    /// A client calls, and cannot pose as a node.
    Client,
}

/// A CA, with `ca.pem` and `ca.key` in its folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The CA in `folder`, or a new one if there is none.
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
            params.not_before = (SystemTime::now() - EARLIER).into();
            params.not_after = (SystemTime::now() + LIFE).into();
            let own = params.self_signed(&key).map_err(io::Error::other)?;
            write(&file, &key.serialize_pem(), 0o600)?;
            write(&folder.join("ca.pem"), &own.pem(), 0o644)?;
            key
        };
        Ok(Authority {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Makes `NAME.pem` and `NAME.key`, to be valid until then.
    ///
    /// A network does not look at the names in certificates; clients of other makes that
    /// do find a node on their own host.
    pub fn issue(&self, name: &str, role: Role, until: SystemTime) -> io::Result<()> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Node {
            let serves = ExtendedKeyUsagePurpose::ServerAuth;
            params.extended_key_usages.push(serves);
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now().min(until) - EARLIER).into();
        params.not_after = until.into();
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.map_err(io::Error::other)?;
        let file = |ending| self.folder.join(format!("{name}.{ending}"));
        write(&file("key"), &key.serialize_pem(), 0o600)?;
        write(&file("pem"), &signed.pem(), 0o644)
    }
}

/// Writes a file that must not be there yet.
fn write(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(file);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}
