//! `storestatus`: shows what the nodes of a store hold, and how far a rebalance is.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::status::store::StoreStatus;

/// The exit statuses. 1 has a meaning of its own.
const STATUSES: &str =
    "Exit status: 0 settled, 1 not settled, 2 wrong usage, 3 no peer, 4 the call failed.";

/// Shows what the nodes of a store hold, and how far a rebalance is
///
/// For each node: its state, the keys whose primary it is, all keys it holds and their bytes, its
/// share of the ring, its open connections, and the calls it has served. A further line for each
/// node that has closed connections: how many, by reason. The last line is `settled` if every key
/// has all its copies, or how far the rebalance is.
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
    cli::run(true, |options: Options| {
        let (dialer, peer) = options.client.store_peer()?;
        let status = StoreStatus::ask(&dialer, &peer)?;
        let output = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table()
        };
        cli::print(&[output.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_settled())))
    })
}
