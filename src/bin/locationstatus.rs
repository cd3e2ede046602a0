//! `locationstatus`: shows the members of a network, and whether they agree.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::status::network::NetworkStatus;

/// The exit statuses. 1 has a meaning of its own.
const STATUSES: &str = "Exit status: 0 all members agree, 1 some disagree or do not answer, \
    2 wrong usage, 3 no peer, 4 the call failed.";

/// Shows the members of a network of location or store nodes, and whether they agree
///
/// For each member: its state, its incarnation and the age of that, its share of the ring, and
/// whether its membership digest agrees with that of most others. If members differ, all are
/// asked again for two seconds, because a change takes a moment to spread. The last line is a
/// summary.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print JSON instead of a table (src/guide/schema/locationstatus.json)
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let (dialer, peer) = options.client.location_peer()?;
        let status = NetworkStatus::ask(&dialer, &peer)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let output = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table(now.unwrap_or_default().as_millis() as i64)
        };
        cli::print(&[output.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_agreed())))
    })
}
