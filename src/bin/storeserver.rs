//! `storeserver`: a store node: a location node that also holds keys.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, NodeOptions};
use thrifty_p2p::diststore::StoreSyncProcessor;
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::serve;
use thrifty_p2p::node::Node;
use thrifty_p2p::store::durable::directory::Directory;
use thrifty_p2p::store::durable::engine::SyncMode;
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::{MAX_KEY, MAX_VALUE, StoreLimits};

/// Ports that are tried, from 9900 upward, as in the original.
const PORTS: u16 = 25;

/// Runs a store node, which holds its share of the keys and forwards calls for others
///
/// When it leaves, it hands its keys over before it exits; if it cannot, it exits with 4.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STORE_STATUSES)]
struct Options {
    #[command(flatten)]
    node: NodeOptions,

    /// Keep this many copies of each key [default: as the network; a new one: 3]
    ///
    /// All nodes of a network keep the same number. With 1, each key is at the node where the
    /// original has it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Option<u16>,

    /// In a split, go on at both sides, or stop where fewer than half of the members are
    /// [default: as the network; a new one: continue]
    ///
    /// All nodes of a network do the same. With `stop`, nothing that was acknowledged is undone
    /// after a split, and a side with half of the members or fewer refuses reads and writes.
    #[arg(long, value_name = "WHAT", value_parser = ["continue", "stop"])]
    on_split: Option<String>,

    /// Keep all keys in this directory too, so that they outlast a power cut
    ///
    /// Each node has one of its own, which it creates if it is missing. A write is acknowledged when
    /// it is on disk at all its owners. A node that is started again
    /// with its directory is the same node, also at another address.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// When writes are synced to disk: before they are acknowledged, or every second
    ///
    /// With `interval` a power cut may lose the last second.
    #[arg(long, value_name = "WHEN", value_parser = ["always", "interval"], default_value = "always",
        requires = "data")]
    sync: String,

    /// When the whole network starts again, do not wait for members that are missing
    ///
    /// For members whose disks are lost: start all others first. Keys that only the missing ones have
    /// are missing then, and what is written meanwhile replaces what they have.
    #[arg(long, requires = "data")]
    force_bootstrap: bool,

    /// Refuse larger keys
    #[arg(long, value_name = "BYTES", default_value_t = MAX_KEY as u32, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=MAX_KEY as i64))]
    max_key: u32,

    /// Refuse larger values
    ///
    /// A value must also be 128 KiB smaller than --max-message-size.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_VALUE, help_heading = "Limits")]
    max_value: usize,

    /// Refuse writes when keys and values use more memory [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    max_memory: Option<usize>,

    /// For tests: wait this long before each page that is copied
    #[cfg(feature = "testing")]
    #[arg(long, value_name = "MILLIS", default_value_t = 0, hide = true)]
    page_delay: u64,
}

impl Options {
    /// The data directory, if there is one, for the network of that id.
    fn open_directory(&self, network: Option<&str>) -> Result<Option<Directory>, Error> {
        let sync = match self.sync.as_str() {
            "interval" => SyncMode::Interval,
            _ => SyncMode::Always,
        };
        let open = |path: &PathBuf| Directory::open(path, sync, network);
        self.data.as_ref().map(open).transpose()
    }
}

fn main() -> ExitCode {
    cli::run(false, |options: Options| {
        let mut bind = options.node.bind_options(PORTS)?;
        let directory = options.open_directory(bind.network.as_deref())?;
        let state = directory.as_ref().and_then(Directory::state);
        let is_recovered = state.is_some();
        if let Some((_, id)) = state.and_then(|state| state.network.split_once('/')) {
            bind.network = Some(id.to_owned());
        }
        let node = Node::bind(&bind, SERVICE)?;
        let limits = StoreLimits {
            key: options.max_key as usize,
            value: options.max_value,
            memory: options.max_memory.unwrap_or(usize::MAX),
        };
        let limits = limits.within(options.node.limits.max_message());
        let (replicas, forced) = (options.replicas.map(usize::from), options.force_bootstrap);
        let handler = match directory {
            Some(directory) => {
                StoreHandler::with_directory(node.clone(), replicas, limits, directory, forced)?
            }
            None => StoreHandler::new(node.clone(), replicas, limits),
        };
        if let Some(choice) = &options.on_split {
            handler.store().require_stop_on_split(choice == "stop");
        }
        #[cfg(feature = "testing")]
        handler.delay_pages(std::time::Duration::from_millis(options.page_delay));
        let store = handler.clone();
        cli::end_on_signals(node.endpoint().shutdown(), move || store.at_risk());
        let mut peers = options.node.peers(&node);
        if is_recovered {
            handler.store().find_members(&peers)?;
            peers = vec![node.location().clone()];
        }
        serve(handler.clone(), StoreSyncProcessor::new, &peers)?;
        handler.store().failure().map_or(Ok(()), Err)
    })
}
