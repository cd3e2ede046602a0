//! `storebench`: the load generator. It measures a store, and in turn with it a bare echo
//! server, Redis and memcached, all by the same threads, keys and bookkeeping.

mod comparison;
mod contender;
mod echo;
mod keys;
mod line_protocol;
mod options;
mod output;
mod raw_store;
mod report;
mod run;
mod store;
mod worker;

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use log::warn;
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;

use contender::Contender;
use echo::EchoServer;
use line_protocol::{LineConnection, Protocol};
use options::Options;
use output::Output;
use report::Report;
use run::IS_STOPPED;
use store::Store;

/// The exit status after a second ctrl-C.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(echo::SERVE) {
        return echo::serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    cli::run(true, bench)
}

fn bench(mut options: Options) -> Result<ExitCode, Error> {
    let (dialer, peer) = options.client.store_peer()?;
    let on_signal = || {
        if IS_STOPPED.swap(true, Relaxed) {
            std::process::exit(INTERRUPTED);
        }
    };
    if let Err(e) = ctrlc::set_handler(on_signal) {
        warn!("ctrl-C will end this process without a summary: {e}");
    }
    if options.workload.forwarded_only {
        let forwarded = keys::forwarded(&dialer, &peer, options.workload.keys)?;
        options.workload.forwarded = Some(forwarded);
    }
    let store = Store::new(&options, dialer.clone(), peer.clone())?;
    let echo = options.baseline.then(EchoServer::start).transpose();
    let echo = echo.map_err(Error::Io)?;
    let contenders = contenders(&options, &store, echo.as_ref());
    let output = Output::start(&options, &store)?;
    let measured = measure(&contenders, &options, &output);
    // Also when a server to compare with does not answer.
    let removed = match options.load_only || options.legacy {
        true => Ok(()),
        false => keys::remove(&dialer, &peer, &options.workload),
    };
    let reports = measured?;
    let has_failed = reports.iter().any(|report| report.failed > 0);
    output.finish(&contenders, &reports)?;
    removed?;
    Ok(ExitCode::from(if has_failed { cli::FAILED } else { 0 }))
}

/// The servers under test.
fn contenders<'a>(
    options: &'a Options,
    store: &'a Store<'_>,
    echo: Option<&'a EchoServer>,
) -> Vec<Contender<'a>> {
    let mut contenders = vec![Contender::new("store", true, || store.connect())];
    contenders.extend(options.idle_connections.map(|idle_connections| Contender {
        idle_connections,
        ..Contender::new("store+idle", false, || store.connect())
    }));
    let mut compare_with = |name, server: &'a Option<Location>, protocol| {
        contenders.extend(server.iter().map(|server| {
            Contender::new(name, true, move || {
                LineConnection::connect(server, protocol)
            })
        }));
    };
    let wait = options.redis_wait();
    compare_with("redis", &options.redis, Protocol::Redis { wait });
    compare_with("memcached", &options.memcached, Protocol::Memcached);
    let sizes = store.read_sizes();
    let echo = echo.map(|server| Contender::new("echo", false, move || server.connect(sizes)));
    contenders.extend(echo);
    contenders
}

/// Writes all keys to the servers that keep keys, then measures all of them in turn.
fn measure(
    contenders: &[Contender<'_>],
    options: &Options,
    output: &Output,
) -> Result<Vec<Report>, Error> {
    let (workload, length) = (&options.workload, options.length());
    let rounds = if options.load_only { 0 } else { options.rounds };
    let loaded = contenders.iter().filter(|contender| contender.keeps_keys);
    let loads = loaded.map(|contender| contender.load(workload));
    let turns = (0..rounds).flat_map(|_| contenders);
    let turns = turns.take_while(|_| !IS_STOPPED.load(Relaxed));
    let runs = turns.map(|contender| contender.measure(workload, length));
    let print = |report: Report| output.line(&report.row()).map(|()| report);
    loads
        .chain(runs)
        .map(|report| report.and_then(print))
        .collect()
}
