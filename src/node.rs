//! `Node`: the driver of membership, and the ring that comes of it.
//!
//! The core ([`Membership`]) decides; this module gives it the time, makes the
//! calls it asks for and keeps the ring in step with it. Three kinds of threads
//! touch a node:
//!
//! * the **driver**, one a node: wakes when the core wants it, hands calls to the
//!   callers, and tells the handler and the log of what has changed;
//! * the **callers**, as many as calls are under way, and gone when idle: make one
//!   call after another and report how it went;
//! * the **connections' threads** of the server, which bring in what others say.
//!
//! One lock guards the core. It is held to decide and never during a call, so
//! nodes cannot stand still waiting for one another. The ring is replaced under
//! that lock together with the members, and read without it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, info, warn};
use thrift::TransportErrorKind;

use crate::discover::find_peer;
use crate::endpoint::{Endpoint, Place};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::locator::{
    self, BaseSyncClient, LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient,
};
use crate::membership::{
    Action, Change, Event, Failure, Gossip, Member, Membership, Now, Outcome, Request, Settings,
    Status, Why,
};
use crate::rpc::client::{Patience, call_within};

/// How long [`Node::enter`] tries a peer at which nobody listens: one that was
/// started at the same moment needs some of it.
const APPEARANCE: Duration = Duration::from_secs(3);

/// How long it tries a peer that is there but slow, and how long it then waits to
/// be let in: a host on which hundreds of nodes start at once needs some of it.
const ENTRY: Duration = Duration::from_secs(10);

/// How long a knock at a peer that does not answer yet is put off.
const RETRY: Duration = Duration::from_millis(100);

/// A node that has heard no other for so long is out of touch: less than it takes
/// until the others give it up.
const OUT_OF_TOUCH: Duration = Duration::from_secs(2);

/// The longest that [`Node::leave`] waits for others to be told.
const FAREWELL: Duration = Duration::from_secs(2);

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
        let reply = call_within(patience, LocatorSyncClient::new, location, |peer| {
            peer.exchange(gossip)
        })?;
        self.receive(reply)
            .map(|_| ())
            .map_err(|e| Error::Answered(location.clone(), e))
    }

    /// Tells the log every member that is known, and what each was last heard to see.
    pub fn debug(&self) {
        let ring = self.ring();
        let shares: HashMap<&Location, f64> = ring.shares().into_iter().collect();
        let now = self.shared.now().monotonic;
        let state = self.shared.state();
        let membership = &state.membership;
        let lines: Vec<String> = membership
            .members()
            .map(|member| {
                let share = shares.get(&member.location).unwrap_or(&0.0) * 100.0;
                let heard = last_heard(membership, &member.location, now);
                let Member {
                    location,
                    status,
                    incarnation,
                    ..
                } = member;
                format!("{location}  {status}  incarnation {incarnation}  {share:.1} % of the keys{heard}")
            })
            .collect();
        let (view, live) = (membership.view(), ring.len());
        drop(state);
        info!(
            "{} of network {} knows {live} live members, view {view:016x}:",
            self.location(),
            self.shared.network
        );
        for line in lines {
            info!("  {line}");
        }
    }

    /// Takes part in the network: joins that of `peer` or of a peer found on this
    /// host, or starts a new one, and begins to hand changes to `on_change`. Tells
    /// whether it started a new one.
    ///
    /// Calls must be served already. Blocks for twenty seconds at the most.
    ///
    /// # Errors
    /// The peer given cannot be reached, or belongs to another kind of network.
    pub(crate) fn enter(
        &self,
        service_type: &str,
        peer: Option<&Location>,
        on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<bool, Error> {
        let peer = self.choose_peer(service_type, peer)?;
        self.start(on_change);
        let Some(peer) = peer else {
            info!("Initiating the network...");
            return Ok(true);
        };
        info!("Joining the network...");
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.seed(now, peer.clone()));
        self.wait_for_company(&peer).map(|()| false)
    }

    /// Leaves the network: tells members, and returns when they know or cannot be told.
    ///
    /// Calls are served on; the ring is without this node from here on. Blocks for
    /// two seconds at the most.
    pub fn leave(&self) {
        let now = self.shared.now();
        let actions = self.shared.decide(|membership| membership.leave(now));
        self.shared.dispatch(actions);
        let deadline = Instant::now() + FAREWELL;
        let mut state = self.shared.state();
        while !state.membership.left(self.shared.now()) && Instant::now() < deadline {
            state = self.shared.wait(state, Duration::from_millis(20));
        }
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

    /// A node asks to come in, or another says that it did: it is tried, and
    /// taken in once it answers.
    pub(crate) fn join(&self, location: Location) {
        let now = self.shared.now();
        self.shared
            .decide(|membership| membership.join(now, location));
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
        call_within(patience, BaseSyncClient::new, location, |peer| peer.ping()).is_ok()
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

    /// The peer to join, if there is one, by an address and not by a host's name.
    fn choose_peer(
        &self,
        service_type: &str,
        peer: Option<&Location>,
    ) -> Result<Option<Location>, Error> {
        let Some(given) = peer else {
            let found = find_peer(service_type, Some(self.location()));
            return Ok(found.inspect_err(|e| info!("{e}")).ok());
        };
        let resolved = given
            .resolve()
            .map_err(|e| Error::Unresolved(given.clone(), e))?;
        let Some(socket) = resolved.first() else {
            return Err(Error::Unresolved(
                given.clone(),
                io::ErrorKind::NotFound.into(),
            ));
        };
        let own = socket.ip().is_loopback() || socket.ip().to_string() == self.location().address();
        if own && socket.port() == self.location().port() {
            return Ok(None);
        }
        knock(service_type, &Location::from(*socket)).map(Some)
    }

    fn start(&self, on_change: impl Fn(&[Change]) + Send + 'static) {
        let (sender, receiver) = channel();
        self.shared.state().announcer = Some(sender);
        let driver = self.shared.clone();
        let node = self.clone();
        self.shared.threads().extend([
            thread::spawn(move || driver.drive()),
            thread::spawn(move || node.announce(&receiver, on_change)),
        ]);
    }

    fn wait_for_company(&self, peer: &Location) -> Result<(), Error> {
        let deadline = Instant::now() + ENTRY;
        let mut state = self.shared.state();
        while state.membership.live().nth(1).is_none() {
            if let Some((peer, network)) = &state.foreigner {
                return Err(Error::Foreign {
                    peer: peer.clone(),
                    found: network.to_string(),
                    expected: self.shared.network.to_string(),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NoPeer(format!(
                    "{peer} answers, but does not let this node in"
                )));
            }
            state = self.shared.wait(state, left);
        }
        Ok(())
    }

    /// Tells the log and the handler what has happened, in order, until the node stops.
    fn announce(&self, events: &Receiver<Event>, on_change: impl Fn(&[Change])) {
        while let Ok(event) = events.recv() {
            log_event(&event);
            if let Event::RingChanged(changes) = event {
                on_change(&changes);
            }
        }
    }
}

impl Shared {
    /// Lets the core decide, keeps the ring in step, and lets the driver look again.
    fn decide<T>(&self, decision: impl FnOnce(&mut Membership) -> T) -> T {
        let mut state = self.state();
        let decided = decision(&mut state.membership);
        self.follow(&mut state);
        drop(state);
        self.changed.notify_all();
        decided
    }

    /// Brings the ring up to what the core has decided and passes its events on.
    fn follow(&self, state: &mut State) {
        let events = state.membership.events();
        if !events.is_empty() {
            self.generation.fetch_add(1, Release);
        }
        for event in events {
            match &event {
                Event::RingChanged(changes) => self.change_ring(&state.membership, changes),
                Event::ForeignNetwork(peer, network) => {
                    state.foreigner = Some((peer.clone(), network.clone()));
                }
                _ => (),
            }
            if let Some(announcer) = &state.announcer {
                // Its receiver goes only when the node stops.
                let _ = announcer.send(event);
            }
        }
    }

    fn change_ring(&self, membership: &Membership, changes: &[Change]) {
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for change in changes {
            match change {
                Change::Added { location, .. } => added.push((location.clone(), 1)),
                Change::Removed { location, .. } => removed.push(location.clone()),
                Change::Restarted { .. } => (),
            }
        }
        let has_originals = membership
            .live()
            .any(|(location, _)| membership.is_original(location));
        self.has_originals.store(has_originals, Relaxed);
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        *ring = Arc::new(ring.changed(added, &removed));
        self.is_alone.store(ring.len() < 2, Relaxed);
    }

    /// The driver's thread: wakes when the core wants it, until the node stops.
    fn drive(self: Arc<Self>) {
        let mut state = self.state();
        while !state.stopped {
            let now = self.now();
            let actions = state.membership.tick(now);
            self.follow(&mut state);
            if actions.is_empty() {
                let sleep = state.membership.wake_at().saturating_sub(now.monotonic);
                state = self.wait(state, sleep);
            } else {
                drop(state);
                self.dispatch(actions);
                state = self.state();
            }
        }
    }

    /// Makes each call on a thread of its own. The core bounds how many are under way.
    fn dispatch(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let shared = self.clone();
            let caller = move || {
                let began = shared.millis();
                let outcome = shared.perform(&action);
                let now = shared.now();
                let token = action.token;
                let heard = matches!(outcome, Outcome::Gossip(_));
                let more = shared.decide(|membership| membership.reply(now, token, outcome));
                if heard {
                    shared.heard(began);
                }
                shared.dispatch(more);
            };
            if let Err(e) = thread::Builder::new().name("caller".into()).spawn(caller) {
                // The core gives such a call up in its own time, and blames no peer.
                warn!("a call to a peer was not made: {e}");
            }
        }
    }

    fn perform(&self, action: &Action) -> Outcome {
        let peer = &action.peer;
        let patience = patience(self.settings.call_timeout);
        let outcome = match &action.request {
            Request::Exchange(gossip) => {
                let gossip = locator::Gossip::from(gossip);
                let reply = call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.exchange(gossip)
                });
                reply.map(|reply| Gossip::try_from(reply).map_or(Outcome::Silent, Outcome::Gossip))
            }
            Request::Reach(location) => {
                call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.reach(location.into())
                })
                .map(Outcome::Reached)
            }
            Request::GetAll => call_within(patience, LocatorSyncClient::new, peer, |peer| {
                peer.get_all()
            })
            .map(|all| Outcome::All(all.iter().filter_map(|l| l.try_into().ok()).collect())),
            Request::Add {
                location,
                authorities,
            } => call_within(patience, LocatorSyncClient::new, peer, |peer| {
                peer.add(
                    location.into(),
                    authorities.iter().map(Into::into).collect(),
                )
            })
            .map(|()| Outcome::Done),
            Request::Remove {
                location,
                authorities,
            } => call_within(patience, LocatorSyncClient::new, peer, |peer| {
                peer.remove(
                    location.into(),
                    authorities.iter().map(Into::into).collect(),
                )
            })
            .map(|()| Outcome::Done),
        };
        outcome.unwrap_or_else(|e| {
            debug!("{e}");
            outcome_of(&e)
        })
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<thread::JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another member has answered a call that began then. What it said is in the
    /// membership already: who sees this sees that too.
    fn heard(&self, began: u64) {
        if self.is_out_of_touch_at(began) {
            self.absences.fetch_add(1, Release);
        }
        self.heard_at.fetch_max(began, Release);
    }

    fn is_out_of_touch_at(&self, millis: u64) -> bool {
        let heard_at = self.heard_at.load(Acquire);
        millis.saturating_sub(heard_at) >= OUT_OF_TOUCH.as_millis() as u64
    }

    /// Milliseconds since the start.
    fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn now(&self) -> Now {
        now_since(self.start)
    }
}

/// Waits until the peer answers, and makes sure that it serves the same.
fn knock(service_type: &str, peer: &Location) -> Result<Location, Error> {
    let began = Instant::now();
    loop {
        let patience = patience(Duration::from_secs(1));
        match call_within(patience, BaseSyncClient::new, peer, |peer| {
            peer.service_type()
        }) {
            Ok(found) if found == service_type => return Ok(peer.clone()),
            Ok(found) => {
                let expected = service_type.to_owned();
                return Err(Error::Foreign {
                    peer: peer.clone(),
                    found,
                    expected,
                });
            }
            Err(e) if !e.is_unreachable() => return Err(e),
            Err(e) => {
                let limit = if e.is_silence() { ENTRY } else { APPEARANCE };
                if began.elapsed() + RETRY > limit {
                    return Err(e);
                }
                thread::sleep(RETRY);
            }
        }
    }
}

/// What a member was last heard to see, to be added to a line of the log.
fn last_heard(membership: &Membership, location: &Location, now: Duration) -> String {
    let Some(heard) = membership.heard(location) else {
        return String::new();
    };
    let ago = now.saturating_sub(heard.at).as_secs();
    match heard.view {
        Some(view) if view == membership.view() => format!(", saw the same {ago} s ago"),
        Some(_) => format!(", saw something else {ago} s ago"),
        None => format!(", of the original, was there {ago} s ago"),
    }
}

/// What a failed call says of the peer. Only a host that answers for a process
/// that is not there makes for a quick verdict.
fn outcome_of(error: &Error) -> Outcome {
    match error {
        e if e.is_unknown_method() => Outcome::UnknownMethod,
        Error::Refused(_, e) if e.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Error::Broken(_, thrift::Error::Transport(e))
            if matches!(
                e.kind,
                TransportErrorKind::EndOfFile | TransportErrorKind::NotOpen
            ) =>
        {
            Outcome::Refused
        }
        _ => Outcome::Silent,
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

/// The story of the network, in the original's words.
fn log_event(event: &Event) {
    match event {
        Event::RingChanged(changes) => changes.iter().for_each(log_change),
        Event::Refuted { incarnation } => {
            info!("refuted what was said of this node, at incarnation {incarnation}");
        }
        Event::Suspected(peer) => info!("{peer} does not answer: suspected"),
        Event::ForeignNetwork(peer, network) => warn!("{peer} is of another network: {network}"),
        Event::Disbelieved(peer, why) => warn!("in what {peer} told, {why}"),
        Event::Paused(time) => warn!("this node did not run for {:.1} s", time.as_secs_f64()),
    }
}

fn log_change(change: &Change) {
    match change {
        Change::Added { location, .. } => info!("added {location}"),
        Change::Removed {
            location,
            why: Why::Left,
        } => info!("removed {location}: it left"),
        Change::Removed {
            location,
            why: Why::Down,
        } => info!("removed {location}: it is down"),
        Change::Restarted { location, .. } => info!("restarted {location}"),
    }
}
