//! The handoff: a leaving node serves until the others have what they need of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use log::{info, warn};

use super::placement::Placement;
use super::rebalancer::POLL_INTERVAL;
use super::store::Store;
use crate::plural::counted;

/// The longest that a leaving node waits while no node takes anything: a member that never
/// continues must not keep it for ever. Ten minutes.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a leaving node whose successors have died waits for another member: one may have
/// joined that only the dead knew.
const LAST_NODE_GRACE: Duration = Duration::from_secs(3);

/// The time between two log lines about the progress.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The handoff of a node that has left the ring.
struct Handoff<'a> {
    store: &'a Store,
    /// Keys that the node held when it left.
    keys: usize,
    /// The members that were to take over.
    successors: Arc<Placement>,
    /// Since when there has been no other member.
    alone_since: Option<Instant>,
}

impl Store {
    /// Waits until this node, which has left the ring, is not needed any more. Logs the
    /// progress. Blocks as long as that takes.
    pub(super) fn wait_for_handoff(&self) {
        self.sent.store(0, Relaxed);
        self.update_rebalance();
        let handoff = Handoff {
            store: self,
            keys: self.table.keys(),
            successors: self.rebalance().current().clone(),
            alone_since: None,
        };
        handoff.wait();
    }
}

impl Handoff<'_> {
    fn wait(mut self) {
        let store = self.store;
        let mut logged_at = Instant::now();
        // Drawn to stderr, if that is a terminal. Otherwise the log has lines.
        let bar = ProgressBar::new(self.keys as u64);
        let (mut sent, mut sent_at) = (0, Instant::now());
        while !self.is_over() && !store.is_stopped() {
            if self.is_last_node() {
                return self.finish_as_last_node();
            }
            let now_sent = store.sent.load(Relaxed);
            if now_sent > sent {
                (sent, sent_at) = (now_sent, Instant::now());
            }
            if sent_at.elapsed() > HANDOFF_TIMEOUT {
                let keys = counted(self.keys, "key");
                warn!("exiting before all others had what they need of {keys} here");
                return;
            }
            store.wait_for_change(store.changes(), POLL_INTERVAL);
            bar.set_position(now_sent);
            if bar.is_hidden() && logged_at.elapsed() >= LOG_INTERVAL {
                logged_at = Instant::now();
                info!("handoff: {now_sent} of {}", counted(self.keys, "key"));
            }
        }
        bar.finish_and_clear();
        match store.sent.load(Relaxed) {
            0 => info!("handoff complete: the others have all keys already"),
            sent => info!("handoff complete: {}", counted(sent, "key")),
        }
    }

    /// Have the others all that they need, and are there no puts left to execute?
    fn is_over(&self) -> bool {
        let has_puts = self.store.waiting_puts.lock().len() > 0;
        self.store.rebalance().may_exit() && !has_puts
    }

    /// Is there no other member, and none to wait for, and no write in progress?
    fn is_last_node(&mut self) -> bool {
        if !self.store.has_no_writes() {
            return false;
        }
        let rebalance = self.store.rebalance();
        if !rebalance.current().is_empty() {
            self.alone_since = None;
            return false;
        }
        let alone_for = self.alone_since.get_or_insert_with(Instant::now).elapsed();
        let mut successors = self.successors.members();
        let have_died = successors.any(|node| rebalance.is_down(node));
        !have_died || alone_for >= LAST_NODE_GRACE
    }

    fn finish_as_last_node(&self) {
        if self.store.node.has_legacy() {
            match self.store.hand_over_to_legacy() {
                Ok(keys) => info!("handoff complete: {}", counted(keys, "key")),
                Err(e) => self.store.fail(e),
            }
        } else if self.keys > 0 {
            let keys = counted(self.keys, "key");
            let ends = match self.store.disk.is_durable() {
                true => "its data directory keeps",
                false => "lost with it:",
            };
            warn!("this was the last node of its network; {ends} {keys}");
        }
    }
}
