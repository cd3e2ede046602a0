//! A service of one's own on `locator.Base`: it is served, found out about and
//! ended over Thrift, and belongs to no network.
//!
//! `cargo run --example dice -- 20` throws a die of 20 sides three times.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

// Generated code looks for what it includes at the crate's root.
use thrifty_p2p::locator;

#[path = "gen/dice.rs"]
#[allow(clippy::all)]
mod dice;

use dice::{DiceSyncClient, DiceSyncHandler, DiceSyncProcessor, TDiceSyncClient};
use locator::TBaseSyncClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, service_chain, serve_base};
use thrifty_p2p::rpc::dialer::call;

#[derive(Clone)]
struct Croupier {
    endpoint: Arc<Endpoint>,
    thrown: Arc<AtomicU64>,
}

impl BaseHandler for Croupier {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "dice.Dice"])
    }
}

impl DiceSyncHandler for Croupier {
    fn handle_topology(&self, sides: i32) -> thrift::Result<i32> {
        if sides < 2 {
            return Err(format!("a die has two sides at least, not {sides}").into());
        }
        // Weyl's sequence: enough for a game, not for a bank.
        let thrown = self.thrown.fetch_add(1, Relaxed) + 1;
        let fraction = thrown.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
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

fn play(sides: i32) -> Result<(), Error> {
    let endpoint = Arc::new(Endpoint::bind(&BindOptions::at(0..=0))?);
    let location = endpoint.location().clone();
    let croupier = Croupier {
        endpoint,
        thrown: Arc::default(),
    };
    let server = thread::spawn(|| serve_base(croupier, DiceSyncProcessor::new));

    let service_chain = call(DiceSyncClient::new, &location, |dice| dice.service_types())?;
    println!("{}", service_chain.join(" < "));
    for _ in 0..3 {
        println!(
            "{}",
            call(DiceSyncClient::new, &location, |dice| dice.roll(sides))?
        );
    }
    call(DiceSyncClient::new, &location, |dice| dice.die())?;
    server.join().expect("the server has not failed")
}
