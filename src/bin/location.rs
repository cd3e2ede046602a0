//! `location`: a location node without a service of its own.

use std::process::ExitCode;

use thrifty_p2p::cli;
use thrifty_p2p::handler::PlainLocator;
use thrifty_p2p::locator::LocatorSyncProcessor;

fn main() -> ExitCode {
    cli::run_service(
        "Runs a location node, which knows every node of its network and the owner of each key",
        "locator.Locator",
        |node| PlainLocator { node },
        LocatorSyncProcessor::new,
    )
}
