//! A client of the service `visits`: counts a visit of a page and prints how many there were.
//!
//! `visit HOST:PORT PAGE`

use std::error::Error;

use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::call;
use visits::visits::{TVisitsSyncClient, VisitsSyncClient};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(peer), Some(page)) = (arguments.next(), arguments.next()) else {
        return Err("usage: visit HOST:PORT PAGE".into());
    };
    let peer: Location = peer.parse()?;
    let count = call(VisitsSyncClient::new, &peer, |node| node.visit(page))?;
    println!("{count}");
    Ok(())
}
