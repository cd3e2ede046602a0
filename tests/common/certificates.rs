//! CAs and certificates for tests, made by the code of the example `certificates`.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::rpc::tls::identity::Identity;

use super::NodeProcess;
use super::authority::{Authority, Role};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A CA with the certificates `node` and `client`, in a folder that is deleted when dropped.
pub struct Certificates {
    folder: TempDir,
    pub authority: Authority,
}

impl Certificates {
    /// A new CA, with two certificates that are valid for a month.
    pub fn new() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::in_folder(folder.path()).unwrap();
        let until = SystemTime::now() + 30 * DAY;
        authority.issue("node", Role::Node, until).unwrap();
        authority.issue("client", Role::Client, until).unwrap();
        Certificates { folder, authority }
    }

    /// The path of a file in the folder.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_owned()
    }

    /// The options by which a program shows the certificate `name` and trusts this CA.
    pub fn options(&self, name: &str) -> Vec<String> {
        self.options_trusting(name, self)
    }

    /// The same with the CA of `other` as the trusted one.
    pub fn options_trusting(&self, name: &str, other: &Certificates) -> Vec<String> {
        vec![
            "--tls-cert".into(),
            self.path(&format!("{name}.pem")),
            "--tls-key".into(),
            self.path(&format!("{name}.key")),
            "--tls-ca".into(),
            other.path("ca.pem"),
        ]
    }

    /// The identity with the certificate `name`.
    pub fn identity(&self, name: &str) -> Identity {
        let file = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        let authority = self.folder.path().join("ca.pem");
        Identity::load(&file("pem"), &file("key"), &authority).unwrap()
    }

    /// A dialer with the certificate `client`.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(Some(self.identity("client")))
    }
}

/// `arguments` followed by `options`.
pub fn with<'a>(arguments: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    let options = options.iter().map(String::as_str);
    arguments.iter().copied().chain(options).collect()
}

/// Starts the first node of a new network under TLS, and waits until it serves.
pub fn start_bootstrap(name: &str, certificates: &Certificates) -> NodeProcess {
    NodeProcess::start(name, &with(&["--bootstrap"], &certificates.options("node")))
}
