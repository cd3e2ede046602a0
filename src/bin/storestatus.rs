//! `storestatus`: shows what the nodes of a store hold, and how far a rebalance is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::status::key::KeyStatus;
use thrifty_p2p::status::store::StoreStatus;

/// The exit statuses. 1 has a meaning of its own.
const STATUSES: &str = "Exit status: 0 settled with all copies, 1 not so (with --wait: there are fewer nodes \
    than copies), 2 wrong usage, 3 no peer, 4 the call failed or took too long.";

/// Shows what the nodes of a store hold, and how far a rebalance is
///
/// For each node: its state and the version of its program, the keys whose primary it is, all keys it holds and their bytes, its
/// share of the ring, its open connections, and the calls it has served. A node that is
/// `down` is shown until it is forgotten, after a day. A further line for each node that has closed
/// connections: how many, by reason. The last line is the verdict: `settled`
/// with the number of copies of each key and, where nodes have zones, in how many those are,
/// `settled, but` with fewer copies than there are to be, `rebalancing` while keys are copied,
/// `waiting` while the network starts again from its disks and lacks members, `degraded` if nodes do
/// not answer, or `split` if members are out of reach that may be running.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print JSON instead of a table (src/guide/schema/storestatus.json)
    #[arg(long)]
    json: bool,

    /// Wait until the store is settled with all copies, for --timeout at most
    ///
    /// If it has settled with fewer, because there are fewer nodes than copies, that is the end too:
    /// with exit status 1, after it has been so for two seconds. For a restart of all nodes: restart
    /// one, wait with `-h` and that node, go on with the next.
    #[arg(long)]
    wait: bool,

    /// Show it again and again, with the calls per second; `q` ends
    ///
    /// Without a terminal, print the verdict once a second.
    #[arg(long, conflicts_with_all = ["json", "wait"])]
    watch: bool,

    /// Show where KEY lies and what each owner holds of it, without reading its value
    #[arg(long, value_name = "KEY", conflicts_with_all = ["wait", "watch"])]
    explain: Option<OsString>,

    /// Declare a member gone for good that is out of reach, at all nodes
    ///
    /// Its host has lost power or was taken away, and never returns with what it held. Until then
    /// it counts as the other side of a split.
    #[arg(long, value_name = "HOST:PORT")]
    declare_gone: Option<Location>,
}

/// The pause between two looks at a store that is not settled.
const PAUSE: Duration = Duration::from_millis(200);

/// A store that has lacked nodes for this time does not wait for one that is just starting.
const LACKS_AFTER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        if let Some(gone) = &options.declare_gone {
            let (dialer, peer) = options.client.store_peer()?;
            if StoreStatus::declare_gone(&dialer, &peer, gone)? == 0 {
                let why = "is not out of reach: no node knows it as down and perhaps running";
                return Err(Error::Usage(format!("{gone} {why}")));
            }
        }
        if options.watch || options.explain.is_some() {
            return options.look();
        }
        let status = options.status()?;
        let output = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table()
        };
        cli::print(&[output.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_safe())))
    })
}

impl Options {
    /// The status now or, with `--wait`, when nothing is left to wait for.
    fn status(&self) -> Result<StoreStatus, Error> {
        let mut lacking_since = None;
        loop {
            let asked = self.client.store_peer();
            let seen = match asked.and_then(|(dialer, peer)| StoreStatus::ask(&dialer, &peer)) {
                Ok(status) if status.is_safe() || !self.wait => return Ok(status),
                Ok(status) if status.lacks_nodes() => {
                    let since = lacking_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LACKS_AFTER {
                        return Ok(status);
                    }
                    status.verdict()
                }
                Ok(status) => {
                    lacking_since = None;
                    status.verdict()
                }
                Err(e) if !self.wait || !e.is_unreachable() => return Err(e),
                Err(e) => e.to_string(),
            };
            cli::keeps_waiting(seen);
            thread::sleep(PAUSE);
        }
    }

    /// Watches the store, or explains a key.
    fn look(&self) -> Result<ExitCode, Error> {
        let (dialer, peer) = self.client.store_peer()?;
        if let Some(key) = &self.explain {
            let status = KeyStatus::ask(&dialer, &peer, key.as_bytes())?;
            let output = if self.json {
                format!("{:#}\n", status.json())
            } else {
                status.text()
            };
            cli::print(&[output.as_bytes()])?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut before = None;
        cli::watch(|| {
            let status = StoreStatus::ask_once(&dialer, &peer, before.as_ref())?;
            Ok(cli::View {
                text: status.table(),
                line: status.verdict(),
                calls: before.insert(status).calls().into(),
            })
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
