//! Splits: what a node tells of one that it is in, or has been in.
//!
//! A member that is down and may be running (see [`membership`](crate::membership)) may serve
//! clients on the other side of a split. By default both sides go on. While as many members as
//! there are copies are silent, a key that this side does not have may be on the other one. After
//! the split the larger version of each key wins, and the losses are counted ([`split_losses`](super::split_losses)).
//!
//! With `--on-split stop` a thread asks the other members for confirmations ([`quorum`](super::quorum)),
//! without which the node does not serve.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::placement::{Key, NodeId};
use super::store::Store;
use super::types::{Refusal, unix_millis};
use super::versions::Entry;
use crate::diststore::TStoreSyncClient;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::plural::counted;

/// The pause between two rounds, and when there are too few confirmations.
const INTERVAL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(20);

/// The pause while the network goes on in splits, unless that changes.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Members asked at the same time.
const PARALLEL: usize = 32;

impl Store {
    /// Notes when a split begins for this node, and tells what it has cost when it is over. Called
    /// when the members have changed. Where splits stop a store, they cost nothing.
    pub(super) fn note_split(&self) {
        let routing = self.routing();
        if self.node.silent_count() > 0 && !routing.stops_on_split() {
            self.losses.begin(unix_millis());
        } else if routing.is_settled() {
            let lost = self
                .losses
                .end(|point, writer| routing.counts_loss(point, writer));
            if lost > 0 {
                let lost = counted(lost, "key");
                warn!(
                    "{lost} lost a value that was written in the split: a larger version was \
                     written on the other side"
                );
            }
        }
    }

    /// May this node say that a key is missing?
    ///
    /// # Errors
    /// Enough members are silent to hold all copies of it.
    pub(super) fn check_missing(&self) -> Result<(), Refusal> {
        let silent = self.node.silent_count();
        match self.routing().replicas() {
            Some(replicas) if silent >= replicas => Err(format!(
                "the key is not on this side of a split, but perhaps at {} out of reach (see \
                 storestatus)",
                counted(silent, "member")
            )),
            _ => Ok(()),
        }
    }

    /// Another node has this entry for the key.
    pub(super) fn note_loss(&self, key: Key<'_>, entry: &Entry) {
        let held = self.table.version(key).unwrap_or(entry.version);
        if self.losses.note(key.point, held, entry.version) {
            debug!("{key}: a value that was written in the split is superseded");
        }
    }

    /// May this node serve, as far as splits are concerned? Never blocks.
    pub(super) fn has_quorum(&self) -> bool {
        self.clock_ms() < self.quorum_until.load(Relaxed)
    }

    /// May this node keep callers waiting? Never blocks.
    ///
    /// # Errors
    /// Too few members have confirmed it for a second, or are there to restore the network.
    pub(super) fn check_quorum(&self) -> Result<(), Refusal> {
        self.check_restored()?;
        if !self.refuses_calls.load(Relaxed) {
            return Ok(());
        }
        Err(
            "this node does not reach more than half of the members, and the network stops in a \
             split: ask a node on the other side"
                .into(),
        )
    }

    /// Replies to a member that asks for a confirmation. Never blocks.
    pub(super) fn confirm(&self, member: &NodeId, placement_id: u64) -> bool {
        let (routing, silent) = (self.routing(), self.silent_locations());
        let asked = (member, placement_id);
        let mut quorum = self.quorum.lock();
        self.is_latest(&routing) && quorum.confirm(self.clock_ms(), asked, &routing, &silent)
    }

    fn silent_locations(&self) -> Vec<Location> {
        let silent = self.node.silent().into_iter();
        silent.map(|(location, _)| location).collect()
    }

    /// The thread that asks for confirmations, until the store stops.
    pub(super) fn quorum_loop(&self) {
        while !self.is_stopped() {
            let changes = self.changes();
            if !self.routing().stops_on_split() {
                self.wait_for_change(changes, IDLE_INTERVAL);
                continue;
            }
            self.ask_for_confirmations();
            let pause = if self.has_quorum() { INTERVAL } else { RETRY };
            let asked = self.routing().current().id();
            let until = Instant::now() + pause;
            while self.routing().current().id() == asked && Instant::now() < until {
                self.rest(RETRY);
            }
        }
    }

    fn ask_for_confirmations(&self) {
        let routing = self.routing().clone();
        let current = routing.current();
        let all = routing.placements().iter().flat_map(|p| p.members());
        let mut peers: Vec<&NodeId> = all.filter(|node| *node != routing.me()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|node| !routing.is_gone(node));
        self.update_quorum();
        parallel_map(&peers, PARALLEL, |peer| {
            let asked_at = self.clock_ms();
            let confirmed = self.quorum_calls.call(&peer.location, |client| {
                client.confirm(routing.me().into(), current.id() as i64)
            });
            match confirmed {
                Ok(true) => {
                    let mut quorum = self.quorum.lock();
                    quorum.record(asked_at, (*peer).clone(), current.clone());
                    drop(quorum);
                    self.update_quorum();
                }
                Ok(false) => debug!("{} does not confirm this node", peer.location),
                Err(e) => debug!("{e}"),
            }
        });
    }

    /// Computes until when this node may serve.
    pub(super) fn update_quorum(&self) {
        if !self.routing().stops_on_split() {
            return;
        }
        let (routing, silent) = (self.routing(), self.silent_locations());
        let mut quorum = self.quorum.lock();
        let until = quorum.until(self.clock_ms(), &routing, &silent);
        self.quorum_until.store(until, Relaxed);
        let refuses = quorum.is_lost(self.clock_ms(), until);
        drop(quorum);
        self.rebalance().set_quorum(self.has_quorum());
        match (self.refuses_calls.swap(refuses, Relaxed), refuses) {
            (false, true) => {
                warn!("this node does not reach more than half of the members: it stops")
            }
            (true, false) => warn!("this node reaches more than half of the members again"),
            _ => (),
        }
    }
}
