//! `storebench`: puts a load on a store and says what it bore.

mod account;
mod options;

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::load::rounds::{Side, in_turn};
use thrifty_p2p::load::store::Load;
use thrifty_p2p::load::{Span, drive, echo};

use account::Account;
use options::Options;

fn main() -> ExitCode {
    if let Some(sizes) = echo::asked_to_serve() {
        let served = echo::serve(sizes);
        return served.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    cli::run(true, || {
        let load = options.load()?;
        let account = Account::open(&options, &load)?;
        let filled = drive("fill", load.fillers()?, Span::ALL);
        account.tell(&filled)?;
        let mut reports = Vec::new();
        if !options.fill {
            let sides = sides(&options, &load);
            reports = in_turn(options.rounds, sides, |report| account.tell(report))?;
        }
        let all = std::iter::once(&filled).chain(reports.iter().flatten());
        // Calls that were not answered are failed calls.
        let has_failed = all.map(|report| report.failed()).sum::<u64>() > 0;
        account.close(&filled, &reports)?;
        Ok(ExitCode::from(if has_failed { cli::FAILED } else { 0 }))
    })
}

/// What is measured in each round: the load, then what it is to be compared with.
fn sides<'a>(options: &'a Options, load: &'a Load) -> Vec<Side<'a, Error>> {
    let span = options.span();
    let mut sides: Vec<Side<'a, Error>> = Vec::new();
    sides.push(Box::new(move || Ok(drive("load", load.callers()?, span))));
    if let Some(count) = options.idle {
        sides.push(Box::new(move || {
            let idle = load.idle(count)?;
            let report = drive("idle", load.callers()?, span);
            drop(idle);
            Ok(report)
        }));
    }
    if options.limit {
        sides.push(Box::new(move || {
            let (count, sizes) = (load.connections, load.sizes());
            echo::measure(count, sizes, load.batch, span).map_err(Error::Io)
        }));
    }
    sides
}
