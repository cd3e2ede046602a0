//! Creates a CA for a network, and certificates signed by it, to try TLS with.
//!
//! `cargo run --example certificates -- FOLDER one two --client me` creates `ca.pem` and its
//! private key `ca.key` in FOLDER, if they do not exist. For each name it creates a certificate
//! and its private key: `one.pem` and `one.key`, and so on. Run it again to renew them. Start a node or a client with
//! `--tls-cert FOLDER/one.pem --tls-key FOLDER/one.key --tls-ca FOLDER/ca.pem`.
//!
//! Anyone who has `ca.key` can create certificates that the network accepts. Do not copy it to
//! the nodes. In production, keep the CA on another host, in a program made for that.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;

mod authority;

use authority::{Authority, Role};

/// The exit statuses, for `--help`.
const STATUSES: &str = "Exit status: 0 done, 1 failed, 2 wrong usage.";

/// Creates a CA, if there is none, and certificates for nodes and clients
///
/// Never replaces a CA. The certificates of names that are given again are replaced by new ones.
#[derive(Parser)]
#[command(after_help = STATUSES)]
struct Options {
    /// The folder of the files. It is created if it does not exist
    folder: PathBuf,

    /// A node. Its certificate is valid for both sides of a connection
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,

    /// A client. Its certificate is not valid for a server
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,

    /// The number of days for which the certificates are valid
    #[arg(long, value_name = "N", default_value_t = 90,
        value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

fn main() -> ExitCode {
    match create(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn create(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.folder)?;
    let authority = Authority::in_folder(&options.folder)?;
    let until = SystemTime::now() + Duration::from_secs(options.days * 24 * 3600);
    for node in &options.nodes {
        authority.issue(node, Role::Node, until)?;
    }
    for client in &options.clients {
        authority.issue(client, Role::Client, until)?;
    }
    Ok(())
}
