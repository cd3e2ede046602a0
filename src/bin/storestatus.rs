//! `storestatus`: shows what the nodes of a store hold, and whether anything is on its way.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::store::handler::SERVICE;
use thrifty_p2p::store::status::StoreStatus;

/// The exit statuses, of which 1 is this program's own.
const STATUSES: &str =
    "Exit status: 0 settled, 1 moving, 2 wrong usage, 3 no peer, 4 the call failed.";

/// Shows every node of a store: its state, the keys whose primary it is, all keys it
/// holds with their bytes, its share of the ring, its open connections, and the calls it
/// has served. A line for each node that has closed connections tells how many, and why.
/// The last line is `settled` when every key has all its copies, or says how far the
/// moves are.
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
        let status = StoreStatus::ask(&caller, &options.client.peer(&caller, SERVICE)?)?;
        let answer = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table()
        };
        cli::print(&[answer.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_settled())))
    })
}
