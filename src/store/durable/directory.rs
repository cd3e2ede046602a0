//! `Directory`: the data directory of a node: who may use it, and what the node was when it stopped.
//!
//! | file | contents |
//! |---|---|
//! | `lock` | locked by the process that uses the directory |
//! | `node.json` | the format, the network, and the node's part in it: [`Saved`]; replaced as a whole |
//! | `rows` | the database with the entries |

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::engine::{Engine, Fjall, MEMTABLE, SyncMode};
use crate::error::Error;
use crate::location::Location;
use crate::store::placement::{NodeId, Placement};
use crate::store::rebalance::Saved;

/// The newest format of a directory. Where no node has a zone, the format is 1, which older versions
/// read too.
const FORMAT: u64 = 2;

const STATE: &str = "node.json";
const NEW_STATE: &str = "node.json.new";

/// The data directory of one node, which this process has locked.
pub struct Directory {
    path: PathBuf,
    engine: Arc<dyn Engine>,
    sync: SyncMode,
    state: Option<State>,
    _lock: File,
}

/// What a node has to know when it starts again.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The name of its network: the service type and, behind a slash, the id.
    pub network: String,
    /// Copies of each key.
    pub replicas: usize,
    /// The network's choice for splits.
    pub stops_on_split: bool,
    /// What the node holds.
    pub saved: Saved,
}

impl Directory {
    /// Opens a directory, or creates it. `network` is the id of the network that it must belong to,
    /// if one is required.
    ///
    /// # Errors
    /// [`Error::Data`]: it is in use, of another network, of a newer format, damaged, or cannot be
    /// written. Except for the last, nothing was changed.
    pub fn open(path: &Path, sync: SyncMode, network: Option<&str>) -> Result<Directory, Error> {
        let shown = path.display();
        let failed = |e: io::Error| Error::Data(format!("the data directory {shown}: {e}"));
        if !path.exists() {
            fs::create_dir_all(path).map_err(failed)?;
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        }
        let stored = match fs::read(path.join(STATE)) {
            Ok(bytes) => Some(read_state(&bytes).map_err(|why| {
                let file = path.join(STATE);
                Error::Data(format!("{} {why}", file.display()))
            })?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let lock = options.open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let why = format!("the data directory {shown} is in use by another process");
                return Err(Error::Data(why));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            Ok(()) => (),
        }
        if let (Some((state, _)), Some(wanted)) = (&stored, network) {
            let network = &state.network;
            if network.split_once('/').is_none_or(|(_, id)| id != wanted) {
                return Err(Error::Data(format!(
                    "the data directory {shown} belongs to the network {network}, not to {wanted}"
                )));
            }
        }
        let rows = path.join("rows");
        let written = stored.as_ref().map_or(sync, |(_, sync)| *sync);
        let engine = Fjall::open(&rows, written, MEMTABLE).map_err(failed)?;
        Ok(Directory {
            engine: Arc::new(engine),
            path: path.to_owned(),
            sync,
            state: stored.map(|(state, _)| state),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What keeps the entries.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// When entries are synced.
    pub fn sync(&self) -> SyncMode {
        self.sync
    }

    /// What the node was when it stopped. None if the directory is new.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Replaces the state durably. Blocks for some syncs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let new = self.path.join(NEW_STATE);
        let mut file = File::create(&new)?;
        file.write_all(&write_state(state, self.sync))?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(STATE))?;
        sync_directory(&self.path)
    }
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_state(state: &State, sync: SyncMode) -> Vec<u8> {
    let nodes = |nodes: &mut dyn Iterator<Item = &NodeId>| -> Vec<String> {
        nodes.map(ToString::to_string).collect()
    };
    let saved = &state.saved;
    let placed = saved
        .placement
        .iter()
        .flat_map(|placement| placement.members());
    let has_zones = saved
        .lives
        .iter()
        .chain(placed)
        .any(|node| node.zone.is_some());
    let mut text = json!({
        "format": if has_zones { FORMAT } else { 1 },
        "network": state.network,
        "replicas": state.replicas,
        "stops_on_split": state.stops_on_split,
        "is_synced_always": sync == SyncMode::Always,
        "lives": nodes(&mut saved.lives.iter()),
        "placement": saved.placement.as_ref().map(|placement| nodes(&mut placement.members())),
        "settlement": saved.settlement,
    });
    text["checksum"] = checksum(&text).into();
    format!("{text:#}\n").into_bytes()
}

/// The md5 of a state without its checksum.
fn checksum(state: &Value) -> String {
    let digest = Md5::digest(state.to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state of these bytes, and how the entries were synced.
///
/// # Errors
/// It is damaged or of a newer format.
fn read_state(bytes: &[u8]) -> Result<(State, SyncMode), String> {
    let damaged = || "is damaged".to_owned();
    let mut state: Value = serde_json::from_slice(bytes).map_err(|_| damaged())?;
    let format = state["format"].as_u64().ok_or_else(damaged)?;
    if format > FORMAT {
        return Err(format!(
            "has format {format}; this version reads formats up to {FORMAT}: use a newer one"
        ));
    }
    let fields = state.as_object_mut().ok_or_else(damaged)?;
    let written = fields.remove("checksum").ok_or_else(damaged)?;
    if written != checksum(&state) {
        return Err(damaged());
    }
    parse_state(&state).ok_or_else(damaged)
}

fn parse_state(state: &Value) -> Option<(State, SyncMode)> {
    let node = |text: &Value| {
        let mut parts = text.as_str()?.splitn(3, '@');
        let location: Location = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let zone = parts.next().map(|zone| u32::from_str_radix(zone, 16));
        Some(NodeId {
            zone: zone.transpose().ok()?,
            ..NodeId::new(location, generation)
        })
    };
    let nodes = |field: &str| {
        let nodes = state[field].as_array()?.iter();
        nodes.map(node).collect::<Option<Vec<_>>>()
    };
    let placement = match state["placement"].is_null() {
        true => None,
        false => Some(Arc::new(Placement::new(nodes("placement")?))),
    };
    let saved = Saved {
        lives: nodes("lives")?,
        placement,
        settlement: state["settlement"].as_u64()?,
    };
    let state_of_node = State {
        network: state["network"].as_str()?.to_owned(),
        replicas: state["replicas"].as_u64()?.try_into().ok()?,
        stops_on_split: state["stops_on_split"].as_bool()?,
        saved,
    };
    let sync = match state["is_synced_always"].as_bool()? {
        true => SyncMode::Always,
        false => SyncMode::Interval,
    };
    Some((state_of_node, sync))
}
