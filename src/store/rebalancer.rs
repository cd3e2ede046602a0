//! The rebalancer: the two threads of a store that bring it from one placement to the next.
//!
//! The **announcer** reports this node's state to all peers when it changes, and asks the
//! lagging ones again now and then until everything is settled. Changes that happen during a
//! round go out with the next one. The **puller** copies the keys that this node owns, from
//! all sources in parallel, and sweeps the table when everything is settled.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info};

use super::durable::committer::Ticket;
use super::placement::{Key, NodeId};
use super::rebalance::{Phase, PlacementHistory, RebalanceStatus};
use super::store::Store;
use super::sweeper::Sweeper;
use super::types::unix_millis;
use super::wire::from_page;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::plural::counted;
use crate::retry::jittered;

/// The time between two requests to lagging peers, in case a status was lost.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The time between two checks for an isolation of this node.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The puller checks for work this often when everything is settled.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// The pause before a source that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// A leaving node that has not replied for so long has exited or hangs, and serves no more.
const LEAVER_SILENCE: Duration = Duration::from_secs(3);

/// Peers called at the same time.
const PARALLEL: usize = 8;

/// While clients keep nodes busy, the puller sleeps this many times as long as a page took, so
/// that copying takes a sixteenth of one core.
const SLEEP_PER_WORK: u32 = 15;

/// The most time that counts as the work of one page. A slower page was mostly waited for.
const MAX_WORK: Duration = Duration::from_millis(10);

/// What makes another announcement necessary: the placement, the phase, the service of clients.
type Announced = (u64, Phase, bool);

impl Store {
    /// The announcer's thread, until the store stops.
    pub(super) fn announce_loop(&self) {
        let mut announced: Option<Announced> = None;
        let mut polled_at = Instant::now();
        while !self.is_stopped() {
            let changes = self.changes();
            self.update_rebalance();
            let rebalance = self.rebalance();
            let placement_id = rebalance.current().id();
            let state = (placement_id, rebalance.phase(), rebalance.is_serving());
            let is_changed = announced != Some(state);
            let is_due = polled_at.elapsed() >= POLL_INTERVAL;
            let peers = match (is_changed, is_due) {
                (true, _) => rebalance.peers(),
                (false, true) => rebalance.lagging_peers(),
                (false, false) => Vec::new(),
            };
            drop(rebalance);
            if is_changed || !peers.is_empty() {
                announced = Some(state);
                polled_at = Instant::now();
                parallel_map(&peers, PARALLEL, |peer| self.exchange_status(peer));
            } else {
                self.wait_for_change(changes, jittered(CHECK_INTERVAL));
            }
        }
    }

    /// Sends this node's status to a peer and takes over the peer's.
    fn exchange_status(&self, peer: &NodeId) {
        let (status, wants_history, asked_at) = {
            let rebalance = self.rebalance();
            let status = rebalance.status_for(peer);
            (status, rebalance.wants_history(), rebalance.isolations())
        };
        let reply = self.peers.call(&peer.location, |client| {
            client.rebalance_status((&status).into(), wants_history)
        });
        let reply = reply.map_err(|e| self.on_failed_call(peer, &e));
        let reply = reply.and_then(|reply| {
            let status = RebalanceStatus::try_from(reply.status.unwrap_or_default())?;
            let history = reply.history.map(PlacementHistory::try_from);
            Ok((status, history.transpose()?))
        });
        match reply {
            Ok((status, history)) => self.on_status_reply(peer, asked_at, status, history),
            Err(e) => debug!("status exchange with {} failed: {e}", peer.location),
        }
    }

    fn on_status_reply(
        &self,
        peer: &NodeId,
        asked_at: u64,
        status: RebalanceStatus,
        history: Option<PlacementHistory>,
    ) {
        if !self.rebalance().knows(status.placement_id) {
            // The peer knows other members: learn them before its status is judged.
            let exchanged = self.node.push_pull(&peer.location).is_ok();
            debug!(
                "{} has another placement; exchanged: {exchanged}",
                peer.location
            );
            self.update_rebalance();
        }
        if !self.requires_otherwise(&status) {
            self.rebalance().on_status(Some(asked_at), status, history);
        }
    }

    /// Ends this node if it requires what its network does not do. Only a reply can show that: an
    /// unasked status may come from another network.
    fn requires_otherwise(&self, status: &RebalanceStatus) -> bool {
        if !self.rebalance().wants_history() || !status.admitted {
            return false;
        }
        let network = &status.sender.location;
        let failure = self.check_network(network, status.replicas, status.stops_on_split);
        failure.map_err(|e| self.fail(e)).is_err()
    }

    /// Checks that this node requires what the network of `peer` does.
    pub(super) fn check_network(
        &self,
        peer: &Location,
        replicas: Option<usize>,
        stops_on_split: Option<bool>,
    ) -> Result<(), Error> {
        let rebalance = self.rebalance();
        let required = (rebalance.replicas(), rebalance.required_stop_on_split());
        drop(rebalance);
        Err(Error::Usage(match (required, replicas, stops_on_split) {
            ((Some(ours), _), Some(theirs), _) if ours != theirs => format!(
                "the network of {peer} keeps {} of each key, not {ours}: start with --replicas \
                 {theirs}, or without the option",
                counted(theirs, "copy")
            ),
            ((_, Some(ours)), _, Some(theirs)) if ours != theirs => format!(
                "the network of {peer} has --on-split {}: start with that, or without the option",
                if theirs { "stop" } else { "continue" }
            ),
            _ => return Ok(()),
        }))
    }

    /// Reports a failed call to a peer.
    pub(super) fn on_failed_call(&self, peer: &NodeId, error: &Error) -> String {
        if error.is_unreachable() {
            self.node.report_unreachable(&peer.location, error);
            self.note_silence(peer, error.has_ended());
        }
        error.to_string()
    }

    /// A process did not reply. If it was leaving, the membership does not watch it any more: it
    /// has exited if its host says so, or if it has been silent for longer than a node serves
    /// without contact.
    pub(super) fn note_silence(&self, peer: &NodeId, has_ended: bool) {
        let is_over = {
            let now = Instant::now();
            let mut silences = self.silences.lock();
            silences.retain(|_, (_, last)| now - *last < LEAVER_SILENCE);
            let (first, last) = silences.entry(peer.clone()).or_insert((now, now));
            *last = now;
            now - *first >= LEAVER_SILENCE
        };
        if (has_ended || is_over) && self.rebalance().mark_exited(peer) {
            self.close_connections(&peer.location);
        }
    }

    /// The puller's thread, until the store stops.
    pub(super) fn pull_loop(&self) {
        let mut sweeper = Sweeper::default();
        while !self.is_stopped() {
            let changes = self.changes();
            if self.recover_step() {
                continue;
            }
            let (pulls, is_settled) = {
                let rebalance = self.rebalance();
                (rebalance.pulls(), rebalance.is_settled())
            };
            if is_settled {
                self.log_received();
            }
            if !pulls.is_empty() {
                let sources: Vec<NodeId> = pulls.into_iter().map(|(source, _)| source).collect();
                self.pull_from(&sources);
            } else if !(is_settled && sweeper.sweep_if_due(self)) {
                let interval = match is_settled {
                    true => IDLE_INTERVAL,
                    false => POLL_INTERVAL,
                };
                self.wait_for_change(changes, interval);
            }
        }
    }

    /// The rebalance is over.
    fn log_received(&self) {
        let received = self.received.swap(0, Relaxed);
        if received > 0 {
            info!("rebalance: received {}", counted(received, "key"));
        }
    }

    /// Copies from each source until it has sent all or is not ready: from all in parallel, or
    /// page by page while clients keep nodes busy.
    fn pull_from(&self, sources: &[NodeId]) {
        let slowly = self.should_pull_slowly();
        let parallel = if slowly { 1 } else { PARALLEL };
        parallel_map(sources, parallel, |source| {
            let mut began = Instant::now();
            while self.should_pull_slowly() == slowly && self.pull_page(source) {
                if slowly {
                    thread::sleep(began.elapsed().min(MAX_WORK) * SLEEP_PER_WORK);
                    began = Instant::now();
                }
            }
        });
    }

    /// Do clients keep this node or a source busy?
    fn should_pull_slowly(&self) -> bool {
        self.source_is_busy.load(Relaxed) || self.throttle.is_busy(Instant::now())
    }

    /// Copies one page. Is there another one to copy now?
    fn pull_page(&self, source: &NodeId) -> bool {
        let (attempt_id, pull) = {
            let rebalance = self.rebalance();
            let mut pulls = rebalance.pulls().into_iter();
            (
                rebalance.attempt_id(),
                pulls.find(|(node, _)| node == source),
            )
        };
        let Some((_, mut pull)) = pull.filter(|_| !self.is_stopped()) else {
            return false;
        };
        self.add_digests(source, &mut pull);
        #[cfg(feature = "testing")]
        thread::sleep(Duration::from_millis(self.page_delay.load(Relaxed)));
        let page = self
            .peers
            .call(&source.location, |client| client.pull((&pull).into()));
        let page = page.map_err(|e| self.on_failed_call(source, &e));
        if let Ok(page) = &page {
            let is_busy = page.busy.unwrap_or(false);
            self.source_is_busy.store(is_busy, Relaxed);
        }
        match page.and_then(|page| from_page(page, unix_millis())) {
            Ok(page) => {
                self.received.fetch_add(page.entries.len() as u64, Relaxed);
                self.take_same(source, pull.cursor.stripe, &page.same);
                let mut last = Ticket::default();
                for (key, entry) in page.entries {
                    let key = Key::new(&key);
                    debug!("received {key}");
                    self.note_loss(key, &entry);
                    last = self.keep(key, entry).max(last);
                }
                if !self.disk.wait(last) {
                    return false;
                }
                self.rebalance().pulled(attempt_id, source, page.next);
                true
            }
            Err(e) => {
                debug!("{} sends nothing yet: {e}", source.location);
                self.wait_for_change(self.changes(), jittered(RETRY));
                false
            }
        }
    }
}
