//! `Shared`: the state of one node that its threads share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::events::EventQueue;
use crate::endpoint::Endpoint;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::membership::{Change, Config, Event, Membership, Now};

/// A node that has heard no other member for this time may have been declared down: it is
/// isolated. Less than the time that the others need to declare it down.
const ISOLATED_AFTER: Duration = Duration::from_secs(2);

/// The state of one node.
pub(super) struct Shared {
    pub endpoint: Endpoint,
    pub network: Arc<str>,
    pub config: Config,
    /// The zero of monotonic time.
    start: Instant,
    /// The membership and what follows from it. Held to decide, never during a call or a log line.
    pub state: Mutex<State>,
    /// Notified when the driver may have to wake earlier, and when the ring has changed.
    changed: Condvar,
    /// The ring of the live members. Replaced while `state` is held.
    ring: RwLock<Arc<HashRing<Location>>>,
    /// Events for the log and the handler.
    pub events: EventQueue,
    /// Counts changes of the membership. Raised while `state` is held.
    epoch: AtomicU64,
    /// When the last call started that another member answered, in milliseconds since the
    /// start. Not when the reply arrived: a process that was stopped in between finds old
    /// replies waiting for it.
    contact_at: AtomicU64,
    /// Counts how often this node was isolated and then heard another member again.
    isolations: AtomicU64,
    /// This node is the only one of ours on its ring. Legacy nodes do not declare it down.
    is_alone: AtomicBool,
    /// There are legacy nodes among the members.
    has_legacy: AtomicBool,
    /// This node's own generation.
    generation: AtomicI64,
    /// The node's own threads, joined when it stops.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What `Shared::state` guards.
pub(super) struct State {
    pub membership: Membership,
    /// The last node met that belongs to another network.
    pub foreign_peer: Option<(Location, Arc<str>)>,
    /// Changes that the driver has not applied to the ring yet.
    changes: Vec<Change>,
    /// How often events were collected, and how many of these times were published.
    collected: u64,
    published: u64,
    pub stopped: bool,
}

impl Shared {
    /// The state of a node that knows only itself.
    pub fn new(endpoint: Endpoint, network: &str) -> Shared {
        let config = Config::default();
        let start = Instant::now();
        let now = now_since(start);
        let location = endpoint.location().clone();
        let seed = random_seed(&location, now);
        let mut membership = Membership::new(
            location,
            network.into(),
            Vec::new(),
            config.clone(),
            now,
            seed,
        );
        let live = membership.live();
        let ring = live.map(|(location, _)| location.clone()).collect();
        // The event that this node is on its own ring is not reported.
        membership.events();
        let generation = AtomicI64::new(membership.generation());
        let state = State {
            membership,
            foreign_peer: None,
            changes: Vec::new(),
            collected: 0,
            published: 0,
            stopped: false,
        };
        Shared {
            endpoint,
            network: network.into(),
            config,
            start,
            state: Mutex::new(state),
            changed: Condvar::new(),
            ring: RwLock::new(Arc::new(ring)),
            events: EventQueue::default(),
            epoch: AtomicU64::new(0),
            contact_at: AtomicU64::new(0),
            isolations: AtomicU64::new(0),
            is_alone: AtomicBool::new(true),
            has_legacy: AtomicBool::new(false),
            generation,
            threads: Mutex::default(),
        }
    }

    /// Lets the membership decide at the current time, and wakes the driver, which publishes
    /// what changed.
    pub fn decide<T>(&self, decision: impl FnOnce(&mut Membership, Now) -> T) -> T {
        let mut state = self.state.lock();
        let decided = decision(&mut state.membership, self.now());
        self.collect(&mut state);
        drop(state);
        self.changed.notify_all();
        decided
    }

    /// Collects the events of the membership.
    pub fn collect(&self, state: &mut State) {
        let events = state.membership.events();
        if events.is_empty() {
            return;
        }
        state.collected += 1;
        self.generation
            .store(state.membership.generation(), Release);
        for event in events {
            match event {
                Event::RingChanged(changes) => state.changes.extend(changes),
                Event::ForeignNetwork(peer, network) => {
                    state.foreign_peer = Some((peer.clone(), network.clone()));
                    self.events.push(Event::ForeignNetwork(peer, network));
                }
                event => self.events.push(event),
            }
        }
    }

    /// Publishes collected changes: the ring, then the epoch, then the event. Called by the
    /// driver only, so that rings are computed one after another and never under the lock.
    /// Returns the lock again.
    pub fn publish<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.published < state.collected {
            let collected = state.collected;
            let changes = std::mem::take(&mut state.changes);
            let membership = &state.membership;
            let has_legacy = membership.live().any(|(_, generation)| generation == 0);
            let of_ours = membership.live().filter(|(_, generation)| *generation != 0);
            let is_alone = of_ours.count() < 2;
            drop(state);
            self.change_ring(&changes);
            self.has_legacy.store(has_legacy, Relaxed);
            if self.is_alone.swap(is_alone, Relaxed) {
                // Before there was another member, none could be heard.
                self.contact_at.fetch_max(self.millis(), Release);
            }
            self.epoch.fetch_add(1, Release);
            if !changes.is_empty() {
                self.events.push(Event::RingChanged(changes));
            }
            state = self.state.lock();
            state.published = collected;
            self.changed.notify_all();
        }
        state
    }

    /// Waits until the driver has published everything that was decided before, for `timeout`
    /// at most. Returns whether it has.
    pub fn wait_until_published(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        let collected = state.collected;
        while state.published < collected && !state.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(&mut state, left);
        }
        state.published >= collected
    }

    fn change_ring(&self, changes: &[Change]) {
        // Of several changes of one location the last one counts.
        let last: BTreeMap<&Location, &Change> =
            changes.iter().map(|c| (c.location(), c)).collect();
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for (location, change) in last {
            match change {
                Change::Added { .. } => added.push((location.clone(), 1)),
                Change::Removed { .. } => removed.push(location.clone()),
                Change::Restarted { .. } => (),
            }
        }
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let ring = Arc::new(self.ring().updated(added, &removed));
        *self.ring.write() = ring;
    }

    /// Waits until the membership may have changed, for `timeout` at most.
    pub fn wait(&self, state: &mut MutexGuard<'_, State>, timeout: Duration) {
        self.changed.wait_for(state, timeout);
    }

    /// Ends the driver and the delivery of events.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
        self.events.close();
    }

    /// The ring as it is now. Never blocks for long.
    pub fn ring(&self) -> Arc<HashRing<Location>> {
        self.ring.read().clone()
    }

    /// Grows with every change of the membership.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// This node's own generation. It changes when the node learns that it was declared down.
    pub fn generation(&self) -> i64 {
        self.generation.load(Acquire)
    }

    /// Are there legacy nodes among the members?
    pub fn has_legacy(&self) -> bool {
        self.has_legacy.load(Relaxed)
    }

    /// Records that a member has answered a call that started at `began` (see
    /// [`millis`](Shared::millis)). Called after its reply was merged.
    pub fn record_contact(&self, began: u64) {
        if self.is_isolated_at(began) {
            self.isolations.fetch_add(1, Release);
        }
        self.contact_at.fetch_max(began, Release);
    }

    /// Has this node heard another member recently, or is it alone?
    pub fn has_contact(&self) -> bool {
        self.is_alone.load(Relaxed) || !self.is_isolated_at(self.millis())
    }

    /// Grows with every isolation that has ended.
    pub fn isolations(&self) -> u64 {
        self.isolations.load(Acquire)
    }

    fn is_isolated_at(&self, millis: u64) -> bool {
        let contact_at = self.contact_at.load(Acquire);
        millis.saturating_sub(contact_at) >= ISOLATED_AFTER.as_millis() as u64
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The current time by both clocks.
    pub fn now(&self) -> Now {
        now_since(self.start)
    }
}

fn now_since(start: Instant) -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        monotonic: start.elapsed(),
        unix_millis: unix.as_millis() as i64,
    }
}

/// Differs between nodes that start at the same moment.
fn random_seed(location: &Location, now: Now) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((location, now.unix_millis))
}
