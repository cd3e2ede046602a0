//! `VisibleStore`: what a store node shows by HTTP.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use serde_json::Value;

use super::store::Store;
use crate::error::Error;
use crate::http::Source;
use crate::http::metrics::Metrics;
use crate::node::Node;
use crate::status::key::KeyStatus;
use crate::status::store::StoreStatus;

/// A store as a source of what is shown.
pub(super) struct VisibleStore {
    store: Arc<Store>,
    /// The last status, from which follows how fast a rebalance is. Not held during a call.
    before: Mutex<Option<StoreStatus>>,
}

impl VisibleStore {
    pub fn new(store: Arc<Store>) -> VisibleStore {
        let before = Mutex::default();
        VisibleStore { store, before }
    }
}

impl Source for VisibleStore {
    fn node(&self) -> &Node {
        &self.store.node
    }

    fn is_serving(&self) -> bool {
        self.store.routing().is_serving() && self.store.has_quorum()
    }

    fn status(&self) -> Result<Value, Error> {
        let (node, before) = (self.node(), self.before.lock().take());
        let status = StoreStatus::ask_once(node.dialer(), node.location(), before.as_ref())?;
        let json = status.json();
        *self.before.lock() = Some(status);
        Ok(json)
    }

    fn key(&self, key: &[u8]) -> Result<Value, Error> {
        let node = self.node();
        Ok(KeyStatus::ask(node.dialer(), node.location(), key)?.json())
    }

    fn add_metrics(&self, metrics: &mut Metrics<'_>) -> fmt::Result {
        let (store, routing) = (&self.store, self.store.routing());
        let table = &store.table;
        metrics.add("store_keys", table.keys() as u64)?;
        metrics.add("store_size_bytes", table.bytes() as u64)?;
        metrics.add("store_tombstones", table.tombstones() as u64)?;
        metrics.add("store_replicas", routing.replicas().unwrap_or(0) as u64)?;
        metrics.add("store_settled", routing.is_settled().into())?;
        metrics.add("store_rebalance_phase", routing.phase() as u64)?;
        metrics.add("store_received_keys", store.received.load(Relaxed))?;
        metrics.add("store_sent_keys", store.sent.load(Relaxed))?;
        metrics.add("store_superseded_keys", store.losses.total())?;
        metrics.add("store_retries", store.retries.load(Relaxed))?;
        if let Some(disk) = store.disk.stats() {
            metrics.add("store_disk_syncs", disk.syncs)?;
            metrics.add_seconds("store_disk_sync_seconds", disk.sync_nanos)?;
            metrics.add("store_disk_written_bytes", disk.written)?;
            metrics.add("store_disk_waiting_bytes", disk.waiting)?;
            metrics.add("store_disk_free_bytes", disk.free)?;
        }
        metrics.add("members_out_of_reach", store.node.silent_count() as u64)
    }
}
