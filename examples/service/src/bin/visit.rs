//! A client of the service `visits`: counts a visit of a page and prints how many there were.
//!
//! Ends with 0, with 2 if the usage is wrong, and otherwise as the programs of thrifty-p2p: with 3
//! if there is no node, with 4 if the call failed.

use std::process::ExitCode;

use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::call;
use visits::visits::{TVisitsSyncClient, VisitsSyncClient};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            cli::status(&e)
        }
    }
}

fn run() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(peer), Some(page), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(Error::Usage("usage: visit HOST:PORT PAGE".into()));
    };
    let peer: Location = peer.parse()?;
    let count = call(VisitsSyncClient::new, &peer, |node| node.visit(page))?;
    println!("{count}");
    Ok(())
}
