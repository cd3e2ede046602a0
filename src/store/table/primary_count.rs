//! `PrimaryCount`: how many keys of one stripe have this node as their primary.
//!
//! A placement change makes the count void. It is then counted again in bounded scans, while
//! writes go on: rows up to the scan's position are counted as they change, the others when
//! the scan reaches them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Row, rows_after};
use crate::store::placement::{Key, NodeId, Placement};

/// Selects the keys whose primary is `me` in `placement`.
#[derive(Debug, Clone)]
pub struct PrimaryFilter {
    /// The placement.
    pub placement: Arc<Placement>,
    /// The node.
    pub me: NodeId,
}

impl PrimaryFilter {
    fn includes(&self, key: Key<'_>) -> bool {
        self.placement.is_primary(&self.me, key)
    }

    fn equals(&self, other: &PrimaryFilter) -> bool {
        self.placement.id() == other.placement.id() && self.me == other.me
    }
}

/// The count of one stripe. Guarded by the stripe's lock.
#[derive(Debug, Default)]
pub(super) struct PrimaryCount {
    /// What is counted. None before the first count.
    filter: Option<PrimaryFilter>,
    keys: i64,
    progress: Progress,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    NotStarted,
    /// Rows up to this key are counted.
    UpTo(Vec<u8>),
    Complete,
}

impl PrimaryCount {
    /// A row with that key and a value was added or removed.
    pub fn adjust(&mut self, key: Key<'_>, sign: i64) {
        let Some(filter) = &self.filter else {
            return;
        };
        let is_counted = match &self.progress {
            Progress::NotStarted => false,
            Progress::UpTo(last) => key <= Key::new(last),
            Progress::Complete => true,
        };
        if is_counted && filter.includes(key) {
            self.keys += sign;
        }
    }

    /// Counts up to `max` more rows. Returns the count when it is complete.
    pub fn advance(
        &mut self,
        rows: &BTreeSet<Row<'static>>,
        filter: &PrimaryFilter,
        max: usize,
    ) -> Option<usize> {
        if !self.filter.as_ref().is_some_and(|old| old.equals(filter)) {
            *self = PrimaryCount {
                filter: Some(filter.clone()),
                ..PrimaryCount::default()
            };
        }
        let after = match &self.progress {
            Progress::NotStarted => None,
            Progress::UpTo(last) => Some(last.as_slice()),
            Progress::Complete => return Some(self.keys.max(0) as usize),
        };
        let mut last = None;
        for row in rows_after(rows, after).take(max) {
            last = Some(row);
            let is_included = !row.is_tombstone() && filter.includes(row.key());
            self.keys += i64::from(is_included);
        }
        let last = last.map(|row| row.key().bytes.to_vec());
        self.progress = last.map_or(Progress::Complete, Progress::UpTo);
        None
    }
}
