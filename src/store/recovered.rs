//! `Recovered`: the data directory of a store, and what was recovered from it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::durable::directory::Directory;
use super::placement::NodeId;
use super::table::Table;

/// The directory of a store, and what was recovered from it. Shared by threads.
pub(super) struct Recovered {
    /// The directory.
    pub directory: Directory,
    /// What was on disk. None when it is not needed any more. Held to take the handle.
    pub table: Mutex<Option<Arc<Table>>>,
    /// When it was last told which members are missing. Held briefly.
    pub told: Mutex<Option<(Instant, Vec<NodeId>)>>,
}

impl Recovered {
    /// What was recovered from a directory.
    pub fn new(directory: Directory, table: Table) -> Recovered {
        Recovered {
            directory,
            table: Mutex::new(Some(Arc::new(table))),
            told: Mutex::default(),
        }
    }
}
