//! `Node`: a member of a network, which knows the others and the ring.
//!
//! The core ([`Membership`]) decides; a node gives it the time, makes the calls it
//! asks for and keeps the ring in step with it. Four kinds of threads touch it:
//!
//! * the **driver**, one a node: wakes when the core wants it, and hands calls to
//!   callers;
//! * the **callers**, one for each call under way: make it and report how it went.
//!   The core bounds how many there are;
//! * the **announcer**, one a node: tells the handler and the log what has changed;
//! * the **connections' threads** of the server, which bring in what others say.
//!
//! One lock guards the core. It is held to decide and never during a call, so
//! nodes cannot stand still waiting for one another. The ring is replaced under
//! that lock together with the members, and read without it.

mod driver;
mod entry;
mod story;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::warn;

use crate::endpoint::{Endpoint, Place};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::locator::{
    self, BaseSyncClient, LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient,
};
use crate::membership::{
    Change, Event, Failure, Gossip, Member, Membership, Now, Outcome, Settings, Status,
};
use crate::rpc::client::{Caller, Patience};
use driver::outcome_of;

/// A member of a network: what it knows of the others, and the ring.
///
/// A cheap handle; clones are the same node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    network: Arc<str>,
    settings: Settings,
    /// Where monotonic time begins.
    start: Instant,
    /// What the network looks like from here. Guards the membership and whatever
    /// follows from it; never held across a call.
    state: Mutex<State>,
    /// Notified when the driver may have to wake earlier, and when the ring has changed.
    changed: Condvar,
    /// The ring of the live members. Replaced under the state's lock.
    ring: RwLock<Arc<HashRing<Location>>>,
    /// Counts what has changed in the membership; raised under the state's lock.
    generation: AtomicU64,
    /// When the call began that another member answered last, in milliseconds since
    /// the start. Not when it was answered: a process that was stopped in between
    /// finds old answers waiting for it.
    heard_at: AtomicU64,
    /// Counts how often this node was out of touch and then heard somebody again.
    absences: AtomicU64,
    /// Is this node the only one on its ring?
    is_alone: AtomicBool,
    /// Are there nodes of the original among the members?
    has_originals: AtomicBool,
    /// The node's own threads, to be waited for by a stop.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

struct State {
    membership: Membership,
    /// Where events go to be announced; none until the node has entered, and
    /// after it has stopped.
    announcer: Option<Sender<Event>>,
    /// The last node met that belongs to another network.
    foreigner: Option<(Location, Arc<str>)>,
    stopped: bool,
}

/// Who takes part in a network: each a location, and the incarnation with which its
/// process became a member.
pub(crate) struct Roll {
    /// The members on the ring that are no nodes of the original.
    pub live: Vec<(Location, i64)>,
    /// Members that have left; those whose processes have not ended still answer.
    pub leaving: Vec<(Location, i64)>,
    /// When this node itself became a member.
    pub started: i64,
}

impl Node {
    /// Claims a port for a node of the network named: nodes of differently named
    /// networks do not mix. By custom, the name is the service type.
    ///
    /// # Errors
    /// [`Error::Bind`] when no port of the place is free.
    pub fn bind(place: &Place, network: &str) -> Result<Node, Error> {
        let endpoint = Endpoint::bind(place)?;
        let settings = Settings::default();
        let start = Instant::now();
        let now = now_since(start);
        let mut membership = Membership::new(
            endpoint.location().clone(),
            network.into(),
            Vec::new(),
            settings.clone(),
            now,
            random_seed(endpoint.location(), now),
        );
        let ring = membership
            .live()
            .map(|(location, _)| location.clone())
            .collect();
        // That this node is on its own ring is no news.
        membership.events();
        let state = State {
            membership,
            announcer: None,
            foreigner: None,
            stopped: false,
        };
        let shared = Shared {
            endpoint,
            network: network.into(),
            settings,
            start,
            state: Mutex::new(state),
            changed: Condvar::new(),
            ring: RwLock::new(Arc::new(ring)),
            generation: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            absences: AtomicU64::new(0),
            is_alone: AtomicBool::new(true),
            has_originals: AtomicBool::new(false),
            threads: Mutex::default(),
        };
        Ok(Node {
            shared: Arc::new(shared),
        })
    }

    /// The claimed port, and the switch that ends the service.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// For calls to others in the name of this node.
    pub fn caller(&self) -> &Caller {
        self.shared.endpoint.caller()
    }

    /// Where others reach this node.
    pub fn location(&self) -> &Location {
        self.shared.endpoint.location()
    }

    /// The ring of the live members, as it is now. Never waits for a call.
    pub fn ring(&self) -> Arc<HashRing<Location>> {
        self.shared
            .ring
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Everything known of every member, the gone ones too, sorted by location.
    pub fn members(&self) -> Vec<Member> {
        self.shared.state().membership.members().cloned().collect()
    }

    /// Grows whenever something has changed in the membership. Never waits.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Acquire)
    }

    /// Has this node heard another one lately, or is it alone? One that has not may
    /// have been given up by the others. Never waits for a call.
    pub(crate) fn is_in_touch(&self) -> bool {
        self.shared.is_alone.load(Relaxed) || !self.shared.is_out_of_touch_at(self.shared.millis())
    }

    /// Grows whenever this node has been out of touch, whether or not anybody
    /// looked in that time. Never waits.
    pub(crate) fn absences(&self) -> u64 {
        self.shared.absences.load(Acquire)
    }

    /// Who takes part, and since when each process has. Waits for no call.
    pub(crate) fn roll(&self) -> Roll {
        let state = self.shared.state();
        let membership = &state.membership;
        let process = |member: &Member| (member.location.clone(), member.started);
        let live = membership
            .live()
            .filter(|(location, _)| !membership.is_original(location));
        let others = membership
            .members()
            .filter(|member| member.location != *self.location());
        Roll {
            live: live
                .map(|(location, started)| (location.clone(), started))
                .collect(),
            leaving: others
                .filter(|member| member.status == Status::Left)
                .map(process)
                .collect(),
            started: membership.started(),
        }
    }

    /// Is this location known to be down?
    pub(crate) fn is_down(&self, location: &Location) -> bool {
        let status = self.shared.state().membership.status_of(location);
        status.is_none_or(|status| status == Status::Down)
    }

    /// Are there nodes of the original among the members? Never waits.
    pub(crate) fn has_originals(&self) -> bool {
        self.shared.has_originals.load(Relaxed)
    }

    /// Is this a node of the original?
    pub(crate) fn is_original(&self, location: &Location) -> bool {
        self.shared.state().membership.is_original(location)
    }

    /// The members that are nodes of the original.
    pub(crate) fn originals(&self) -> Vec<Location> {
        if !self.has_originals() {
            return Vec::new();
        }
        let ring = self.ring();
        let state = self.shared.state();
        ring.nodes()
            .filter(|node| state.membership.is_original(node))
            .cloned()
            .collect()
    }

    /// Exchanges everything with `location`: afterwards both know what either knew.
    /// Blocks for the time of one call.
    pub(crate) fn contact(&self, location: &Location) -> Result<(), Error> {
        let gossip = self.told();
        let patience = patience(self.shared.settings.call_timeout);
        let reply =
            self.caller()
                .call_within(patience, LocatorSyncClient::new, location, |peer| {
                    peer.exchange(gossip)
                })?;
        self.receive(reply)
            .map(|_| ())
            .map_err(|e| Error::Answered(location.clone(), e))
    }

    /// Ends the node's own threads and waits for them. Calls are answered on, from
    /// what is known.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.state();
        state.stopped = true;
        state.announcer = None;
        drop(state);
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.shared.threads());
        for thread in threads {
            if thread.join().is_err() {
                warn!("a thread of the node at {} has failed", self.location());
            }
        }
    }

    /// A node asks to come in: it is tried, and taken in once it answers.
    pub(crate) fn join(&self, location: Location) {
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.join(now, location));
    }

    /// Someone says that a node is in: it is tried, and taken in once it answers.
    pub(crate) fn add(&self, location: Location) {
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.add(now, location));
    }

    /// Someone says that a node is gone: it is tried at once.
    pub(crate) fn remove(&self, location: Location) {
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.remove(now, location));
    }

    /// A call to `location` has failed: it is probed before all others, so that a
    /// dead node is noticed soon. Returns at once.
    pub fn unreachable(&self, location: &Location, error: &Error) {
        let failure = match outcome_of(error) {
            Outcome::Refused => Failure::Refused,
            _ => Failure::Silent,
        };
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.unreachable(now, location, failure));
    }

    /// Answers an `exchange`.
    pub(crate) fn receive(&self, gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        let gossip = Gossip::try_from(gossip).map_err(|e| e.to_string())?;
        let now = self.shared.now();
        let reply = self
            .shared
            .decide(|membership| membership.receive(now, gossip));
        Ok(locator::Gossip::from(&reply))
    }

    /// Does `location` answer this node now? Blocks for the time that a helper has.
    pub(crate) fn reaches(&self, location: &Location) -> bool {
        let patience = patience(self.shared.settings.reach_timeout);
        self.caller()
            .call_within(patience, BaseSyncClient::new, location, |peer| peer.ping())
            .is_ok()
    }

    /// Everything known, as `members` answers it.
    pub(crate) fn told(&self) -> locator::Gossip {
        let state = self.shared.state();
        let members: Vec<_> = state
            .membership
            .members()
            .map(locator::Member::from)
            .collect();
        locator::Gossip::new(
            locator::Location::from(self.location()),
            self.shared.network.to_string(),
            state.membership.view() as i64,
            members,
            true,
        )
    }

    fn start(&self, on_change: impl Fn(&[Change]) + Send + 'static) -> io::Result<()> {
        let (sender, receiver) = channel();
        self.shared.state().announcer = Some(sender);
        let driver = self.shared.clone();
        let node = self.clone();
        let started = |name: &str| thread::Builder::new().name(name.into());
        let mut threads = self.shared.threads();
        threads.push(started("driver").spawn(move || driver.drive())?);
        threads.push(started("announcer").spawn(move || node.announce(&receiver, on_change))?);
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<thread::JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start.
    fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn now(&self) -> Now {
        now_since(self.start)
    }
}

fn patience(time: Duration) -> Patience {
    Patience {
        connect: time,
        answer: time,
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

/// Nodes started at the same moment must not choose alike.
fn random_seed(location: &Location, now: Now) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((location, now.unix_millis))
}
