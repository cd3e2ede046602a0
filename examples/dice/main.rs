//! An example of a service that extends `locator.Base`. It runs on one node, without a network.
//!
//! `cargo run --example dice -- 20` starts the service, prints its service types, rolls a die of
//! 20 sides three times, and stops the service.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

// Generated code expects the modules that it includes at the root of the crate.
use thrifty_p2p::locator;

#[path = "gen/dice.rs"]
#[allow(clippy::all)]
mod dice;

use dice::{DiceSyncClient, DiceSyncHandler, DiceSyncProcessor, TDiceSyncClient};
use locator::TBaseSyncClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, serve_base, service_chain};
use thrifty_p2p::rpc::dialer::call;

/// The handler of the service. The server clones it.
#[derive(Clone)]
struct DiceHandler {
    endpoint: Arc<Endpoint>,
    /// The number of rolls so far.
    rolls: Arc<AtomicU64>,
}

impl BaseHandler for DiceHandler {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "dice.Dice"])
    }
}

impl DiceSyncHandler for DiceHandler {
    fn handle_roll(&self, sides: i32) -> thrift::Result<i32> {
        if sides < 2 {
            return Err(format!("a die has at least two sides, not {sides}").into());
        }
        // A Weyl sequence: evenly distributed, but predictable.
        let roll = self.rolls.fetch_add(1, Relaxed) + 1;
        let fraction = roll.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let scaled = fraction * u64::from(sides.unsigned_abs());
        Ok((scaled >> 32) as i32 + 1)
    }
}

fn main() -> ExitCode {
    let Ok(sides) = std::env::args().nth(1).map_or(Ok(6), |sides| sides.parse()) else {
        eprintln!("usage: dice [SIDES]");
        return ExitCode::from(2);
    };
    match play(sides) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the service on a free port, calls it, and stops it.
fn play(sides: i32) -> Result<(), Error> {
    let endpoint = Arc::new(Endpoint::bind(&BindOptions::at(0..=0))?);
    let location = endpoint.location().clone();
    let handler = DiceHandler {
        endpoint,
        rolls: Arc::default(),
    };
    let server = thread::spawn(|| serve_base(handler, DiceSyncProcessor::new));

    let types = call(DiceSyncClient::new, &location, |dice| dice.service_types())?;
    println!("{}", types.join(" < "));
    for _ in 0..3 {
        let roll = call(DiceSyncClient::new, &location, |dice| dice.roll(sides))?;
        println!("{roll}");
    }
    call(DiceSyncClient::new, &location, |dice| dice.die())?;
    server.join().expect("the server does not panic")
}
