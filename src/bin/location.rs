//! `location`: a location node without a service of its own.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, NodeOptions};
use thrifty_p2p::handler::{PlainLocator, serve};
use thrifty_p2p::locator::LocatorSyncProcessor;
use thrifty_p2p::node::Node;

/// Ports that are tried, from 9900 upward, as in the original.
const PORTS: u16 = 40;

/// Runs a location node, which knows every node of its network and the owner of each key
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::NODE_STATUSES)]
struct Options {
    #[command(flatten)]
    node: NodeOptions,
}

fn main() -> ExitCode {
    cli::run(false, |options: Options| {
        let node = Node::bind(&options.node.bind_options(PORTS)?, "locator.Locator")?;
        let at_risk = || "the other nodes have to detect that this one is down".into();
        cli::end_on_signals(node.endpoint().shutdown(), at_risk);
        let peer = options.node.peer(&node);
        serve(
            PlainLocator { node },
            LocatorSyncProcessor::new,
            peer.as_ref(),
        )
    })
}
