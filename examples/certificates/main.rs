//! A CA for a network of one's own, and certificates of it, to try TLS with.
//!
//! `cargo run --example certificates -- FOLDER one two --client me` makes `ca.pem` with
//! its key `ca.key` in FOLDER, unless they are there, and for each name a certificate
//! with its key: `one.pem` and `one.key` and so on. A node or a client is then given
//! `--tls-cert FOLDER/one.pem --tls-key FOLDER/one.key --tls-ca FOLDER/ca.pem`.
//!
//! The key of the CA lets in whoever has it. Keep it away from the nodes; for a network
//! that matters, keep the whole CA elsewhere, in a tool that is made for it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;

mod authority;

use authority::{Authority, Role};

/// Makes a CA, unless there is one, and certificates for nodes and clients.
#[derive(Parser)]
#[command(after_help = "Nothing is overwritten. Exit status: 0 done, 1 not done, 2 wrong usage.")]
struct Options {
    /// Where the files go; made if it is not there
    folder: PathBuf,

    /// A node: its certificate is good for calling others and for being called
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,

    /// A client: its certificate is good for calling only
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,

    /// Days that the certificates are valid
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

fn main() -> ExitCode {
    match make(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn make(options: &Options) -> io::Result<()> {
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
