//! `locationstatus`: shows the network, and whether its members agree.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::status::Status;

/// The exit statuses, of which 1 is this program's own.
const STATUSES: &str = "Exit status: 0 all members agree, 1 some disagree or do not answer, \
    2 wrong usage, 3 no peer, 4 the call failed.";

/// Shows every member of a network of location or store nodes: its state, its
/// incarnation and the age of that, its share of the ring, and whether it sees the
/// same members as most others. Members that differ are asked again for two seconds,
/// since changes take a moment to spread.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(true, || {
        let caller = options.client.caller()?;
        let peer = options.client.peer_of_kind(&caller, "locator.Locator")?;
        let status = Status::ask(&caller, &peer)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let answer = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table(now.unwrap_or_default().as_millis() as i64)
        };
        cli::print(&[answer.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_agreed())))
    })
}
