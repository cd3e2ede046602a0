//! `location`: a bare location node.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, NodeOptions};
use thrifty_p2p::handler::{PlainLocator, serve};
use thrifty_p2p::locator::LocatorSyncProcessor;
use thrifty_p2p::node::Node;

/// Ports tried from 9900 upward, as in the original.
const PORTS: u16 = 40;

/// Runs a location node: it knows every node of its network, and which of them a
/// key belongs to. Ends gracefully at ctrl-C or SIGTERM.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::NODE_STATUSES)]
struct Options {
    #[command(flatten)]
    node: NodeOptions,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(false, || {
        let node = Node::bind(&options.node.place(PORTS)?, "locator.Locator")?;
        cli::end_on_signals(node.endpoint().shutdown(), || {
            "others will find it down".into()
        });
        let own = node.location().clone();
        serve(
            PlainLocator { node },
            LocatorSyncProcessor::new,
            options.node.peer(&own),
        )?;
        Ok(ExitCode::SUCCESS)
    })
}
