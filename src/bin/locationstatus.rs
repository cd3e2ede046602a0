//! `locationstatus`: shows the members of a network, and whether they agree.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{LocatorSyncClient, Status, TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::{Dialer, Input, Output};
use thrifty_p2p::status::follow::{Follower, Seen};
use thrifty_p2p::status::network::NetworkStatus;

type Client = LocatorSyncClient<Input, Output>;

/// A node that leaves says so within this time.
const OBEYED_AFTER: Duration = Duration::from_secs(3);

/// The pause between two looks at a node that leaves.
const PAUSE: Duration = Duration::from_millis(100);

/// The exit statuses. 1 has a meaning of its own.
const STATUSES: &str = "Exit status: 0 all members agree, 1 some disagree or do not answer, \
    2 wrong usage, 3 no peer, 4 the call failed or took too long.";

/// Shows the members of a network of location or store nodes, and whether they agree
///
/// For each member: its state, its incarnation and the age of that, its share of the ring, and
/// whether its membership digest agrees with that of most others. If members differ, all are
/// asked again for two seconds, because a change takes a moment to spread. The last line is a
/// summary.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print JSON instead of a table (src/guide/schema/locationstatus.json)
    #[arg(long)]
    json: bool,

    /// Print only the owner of this key (any bytes)
    #[arg(long, value_name = "KEY", conflicts_with = "json")]
    key: Option<OsString>,

    /// Let this node leave the network, as ctrl-C does; return when it has ended
    ///
    /// Without TLS a node obeys only programs of its own host.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["json", "key", "watch"])]
    leave: Option<Location>,

    /// Show it again and again; `q` ends
    ///
    /// Without a terminal, print the summary once a second.
    #[arg(long, conflicts_with_all = ["json", "key"])]
    watch: bool,

    /// Print a line for each event that a node sees, until ctrl-C: a member has joined, left, is
    /// suspected, has refuted that, is down or has restarted; keys have other owners
    ///
    /// With --json an object in each line. If the node does not answer any more, another one is
    /// followed.
    #[arg(long, conflicts_with_all = ["key", "leave", "watch"])]
    follow: bool,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        if let Some(node) = &options.leave {
            return leave(&options.client.dialer()?, node).map(|()| ExitCode::SUCCESS);
        }
        let (dialer, peer) = options.client.location_peer()?;
        if let Some(key) = &options.key {
            let key = key.as_bytes();
            let ask = |peer: &mut Client| peer.get_node(key.to_vec());
            let owner = Location::try_from(&dialer.call(LocatorSyncClient::new, &peer, ask)?)?;
            cli::print(&[owner.name().as_bytes(), b"\n"])?;
            return Ok(ExitCode::SUCCESS);
        }
        let now = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.unwrap_or_default().as_millis() as i64
        };
        if options.follow {
            cli::end_with_success();
            let mut follower = Follower::new(dialer, peer);
            loop {
                let seen = follower.next_seen()?;
                let line = |seen: &Seen| match options.json {
                    true => seen.json().to_string(),
                    false => seen.text(),
                };
                if !cli::print_lines(seen.iter().map(line))? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        if options.watch {
            cli::watch(|| {
                let status = NetworkStatus::ask_once(&dialer, &peer)?;
                Ok(cli::View {
                    text: status.table(now()),
                    line: status.summary(),
                    calls: None,
                })
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let status = NetworkStatus::ask(&dialer, &peer)?;
        let output = if options.json {
            format!("{:#}\n", status.json())
        } else {
            status.table(now())
        };
        cli::print(&[output.as_bytes()])?;
        Ok(ExitCode::from(u8::from(!status.is_agreed())))
    })
}

/// Asks a node to leave, and waits until its process has ended.
fn leave(dialer: &Dialer, node: &Location) -> Result<(), Error> {
    dialer.call(LocatorSyncClient::new, node, |node| node.die())?;
    let asked = Instant::now();
    loop {
        let members = dialer.call(LocatorSyncClient::new, node, |node| node.members());
        let gossip = match members {
            Err(e) if e.has_ended() || matches!(e, Error::ConnectionLost(..)) => return Ok(()),
            members => members?,
        };
        let own = gossip.members.into_iter().flatten();
        let own = own.filter(|member| member.location == gossip.sender);
        let has_left = own
            .map(|member| member.status)
            .any(|status| status == Some(Status::LEFT));
        if !has_left && asked.elapsed() > OBEYED_AFTER {
            let why = "does not leave: without TLS a node obeys only programs of its own host";
            return Err(Error::Usage(format!("{node} {why}")));
        }
        thread::sleep(PAUSE);
    }
}
