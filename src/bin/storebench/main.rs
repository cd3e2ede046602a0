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

use clap::Parser;
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::store::handler::SERVICE;

use contender::Contender;
use echo::EchoServer;
use line_protocol::{LineConnection, Protocol};
use options::Options;
use output::Output;
use report::Report;
use store::Store;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(echo::SERVE) {
        let served = echo::serve();
        return served.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    cli::run(true, || bench(options))
}

fn bench(mut options: Options) -> Result<ExitCode, Error> {
    let dialer = options.client.dialer()?;
    let peer = options.client.peer(&dialer, SERVICE)?;
    if options.workload.forwarded_only {
        let forwarded = keys::forwarded(&dialer, &peer, options.workload.keys)?;
        options.workload.forwarded = Some(forwarded);
    }
    let store = Store::new(&options, dialer, peer)?;
    let echo = options.baseline.then(EchoServer::start).transpose();
    let echo = echo.map_err(Error::Io)?;
    let contenders = contenders(&options, &store, echo.as_ref());
    let output = Output::start(&options, &store)?;
    let reports = measure(&contenders, &options, &output)?;
    let failed: u64 = reports.iter().map(|report| report.failed).sum();
    output.finish(&contenders, &reports)?;
    Ok(ExitCode::from(if failed > 0 { cli::FAILED } else { 0 }))
}

/// The servers under test.
fn contenders<'a>(
    options: &'a Options,
    store: &'a Store<'_>,
    echo: Option<&'a EchoServer>,
) -> Vec<Contender<'a>> {
    let mut contenders = vec![Contender::new("store", true, || store.connect())];
    if let Some(idle_connections) = options.idle_connections {
        contenders.push(Contender {
            idle_connections,
            ..Contender::new("store+idle", false, || store.connect())
        });
    }
    let wait = options.redis_wait();
    let others = [
        ("redis", &options.redis, Protocol::Redis { wait }),
        ("memcached", &options.memcached, Protocol::Memcached),
    ];
    for (name, server, protocol) in others {
        contenders.extend(server.iter().map(|server| {
            Contender::new(name, true, move || {
                LineConnection::connect(server, protocol)
            })
        }));
    }
    let sizes = store.read_sizes();
    let connect = |server: &'a EchoServer| move || server.connect(sizes);
    contenders.extend(echo.map(|server| Contender::new("echo", false, connect(server))));
    contenders
}

/// Writes all keys to the servers that keep keys, then measures all of them in turn.
fn measure(
    contenders: &[Contender<'_>],
    options: &Options,
    output: &Output,
) -> Result<Vec<Report>, Error> {
    let (workload, length) = (&options.workload, options.length());
    let mut reports = Vec::new();
    let mut add = |report: Report| {
        let printed = output.line(&report.row());
        reports.push(report);
        printed
    };
    for contender in contenders.iter().filter(|contender| contender.keeps_keys) {
        add(contender.load(workload)?)?;
    }
    let rounds = if options.load_only { 0 } else { options.rounds };
    for _ in 0..rounds {
        for contender in contenders {
            add(contender.measure(workload, length)?)?;
        }
    }
    Ok(reports)
}
