//! `storeserver`: a store node, which is a location node that also keeps keys.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use thrifty_p2p::cli::{self, NodeOptions};
use thrifty_p2p::diststore::StoreSyncProcessor;
use thrifty_p2p::handler::serve;
use thrifty_p2p::node::Node;
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::{LONGEST_KEY, LONGEST_VALUE, Limits};

/// Ports tried from 9900 upward, as in the original.
const PORTS: u16 = 25;

/// Runs a store node: keeps its share of the keys of its network, and finds all
/// others. At ctrl-C or SIGTERM it hands its keys over before it ends.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::NODE_STATUSES)]
struct Options {
    #[command(flatten)]
    node: NodeOptions,

    /// Keep so many copies of each key; without it, as many as the network does (a new
    /// one: 3). With 1, each key is where the original would have it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Option<u16>,

    /// Refuse keys longer than this
    #[arg(long, value_name = "BYTES", default_value_t = LONGEST_KEY as u32, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=LONGEST_KEY as i64))]
    max_key: u32,

    /// Refuse values longer than this, and those that do not fit into --max-message with
    /// 128 KiB to spare
    #[arg(long, value_name = "BYTES", default_value_t = LONGEST_VALUE, help_heading = "Limits")]
    max_value: usize,

    /// Refuse writes when keys and values take more memory than this
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    max_memory: Option<usize>,

    /// For tests: wait so long before each page that is copied, so that there is
    /// time to look at the middle of a move
    #[arg(long, value_name = "MILLIS", default_value_t = 0, hide = true)]
    slow_moves: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(false, || {
        let node = Node::bind(&options.node.place(PORTS)?, SERVICE)?;
        let limits = Limits {
            key: options.max_key as usize,
            value: options.max_value,
            memory: options.max_memory.unwrap_or(usize::MAX),
        };
        let limits = limits.within(options.node.limits.longest_message());
        let handler = StoreHandler::new(node.clone(), options.replicas.map(usize::from), limits);
        handler.slow_moves(Duration::from_millis(options.slow_moves));
        let (at_risk, own) = (handler.clone(), node.location().clone());
        cli::end_on_signals(node.endpoint().shutdown(), move || at_risk.at_risk());
        serve(
            handler.clone(),
            StoreSyncProcessor::new,
            options.node.peer(&own),
        )?;
        handler.store().failure().map_or(Ok(ExitCode::SUCCESS), Err)
    })
}
