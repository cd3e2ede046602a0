//! `StoreHandler`: the store as a service, extended from the locator as a user's would be.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::limits::Limits;
use super::moves::DEFAULT_REPLICAS;
use super::operations::Store;
use super::table::{Key, LOOKS, PAGE, SMALL_PAGE};
use super::view::{Peer, View};
use super::wire::{NOT_ANSWERED, assignments, found, refused};
use super::writing::{Assignment, NOT_PRIMARY};
use crate::diststore::{self as wire, StoreSyncHandler};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::handler::{BaseHandler, LocatorHandler, lineage};
use crate::membership::{Change, Why};
use crate::node::Node;
use crate::rpc::shortcut::Shortcut;

/// The service type of a store.
pub const SERVICE: &str = "diststore.Store";

/// How long a primary may take over a write that another node asked of it.
/// After it, the other node is told to ask again.
const COORDINATE: Duration = Duration::from_millis(1_500);

/// A store node. A cheap handle; clones are the same store.
#[derive(Clone)]
pub struct StoreHandler {
    node: Node,
    store: Arc<Store>,
    threads: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl StoreHandler {
    /// A store on `node` that insists on `replicas` copies of each key; without
    /// them, it keeps as many as its network does, or three in a new one.
    pub fn new(node: Node, replicas: Option<usize>, limits: Limits) -> StoreHandler {
        let store = Arc::new(Store::new(node.clone(), replicas, limits));
        StoreHandler {
            node,
            store,
            threads: Arc::default(),
        }
    }

    /// Makes this node wait so long before each page that it copies: for tests, which
    /// want to look at the middle of a move.
    pub fn slow_moves(&self, pause: Duration) {
        self.store
            .page_pause
            .store(pause.as_millis() as u64, Relaxed);
    }

    /// What would be lost if the process ended at once, for a person to read.
    pub fn at_risk(&self) -> String {
        let keys = self.store.table.keys();
        match self.store.moves().replicas() {
            Some(1) | None => format!("the {keys} keys here have no other copy"),
            Some(copies) => {
                format!("{keys} keys have one copy less than {copies} until they are copied again")
            }
        }
    }

    /// The store itself, for programs that serve it and use it too.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl BaseHandler for StoreHandler {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        lineage(&["locator.Base", "locator.Locator", SERVICE])
    }

    fn oneway_methods(&self) -> Vec<String> {
        lineage(&["put"])
    }

    fn shortcut(&self) -> Option<Arc<dyn Shortcut>> {
        Some(self.store.clone())
    }

    fn debug(&self) {
        self.node.debug();
        let moves = self.store.moves();
        let (keys, bytes) = (self.store.table.keys(), self.store.table.bytes());
        info!(
            "{keys} keys in {bytes} bytes, view {:x} {:?}",
            moves.current().id(),
            moves.phase()
        );
    }
}

impl LocatorHandler for StoreHandler {
    fn node(&self) -> &Node {
        &self.node
    }

    fn entered(&self, first: bool) {
        if first {
            self.store.moves().found(DEFAULT_REPLICAS);
        }
        let (teller, puller) = (self.store.clone(), self.store.clone());
        let started = |name: &str| thread::Builder::new().name(name.into());
        let started = [
            started("teller").spawn(move || teller.tell_others()),
            started("puller").spawn(move || puller.pull_and_sweep()),
        ];
        for thread in started {
            match thread {
                Ok(thread) => self.threads().push(thread),
                Err(e) => self.store.fail(Error::Local(e)),
            }
        }
    }

    fn ring_changed(&self, changes: &[Change]) {
        // Looking at the moves brings them up to the membership, and wakes who waits.
        drop(self.store.moves());
        // Only then: who is broken off here must not call the same node once more.
        for change in changes {
            if let Change::Removed {
                location,
                why: Why::Down,
            } = change
            {
                self.store.give_up(location);
            }
        }
    }

    fn cleanup(&self) {
        self.store.given.store(0, Relaxed);
        self.node.leave();
        self.store.wait_until_relieved();
        self.store.stop();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                warn!("a thread of the store has failed");
            }
        }
    }
}

impl StoreHandler {
    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<thread::JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Why the store had to end, if it could not go on; told once.
    pub fn failure(&self) -> Option<Error> {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn fail(&self, why: Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.stop();
        self.node.endpoint().shutdown().request();
    }
}

impl StoreSyncHandler for StoreHandler {
    fn handle_get(&self, key: Vec<u8>) -> thrift::Result<Vec<u8>> {
        self.store.pace.count();
        let entry = self.store.fetch(&key).map_err(thrift::Error::from)?;
        let value = entry.and_then(|entry| entry.value);
        Ok(value.map_or_else(Vec::new, |value| value.to_vec()))
    }

    fn handle_put(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<()> {
        self.store.pace.count();
        debug!("received {}", Key::new(&key));
        if let Err(e) = self.store.write(&key, Some(value)) {
            warn!("lost the put of {}: {e}", Key::new(&key));
        }
        Ok(())
    }

    fn handle_write(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<i64> {
        self.store.pace.count();
        debug!("received {}", Key::new(&key));
        let written = self.store.write(&key, Some(value)).map_err(refused)?;
        Ok(written.version.unwrap_or(0))
    }

    fn handle_fetch(&self, key: Vec<u8>) -> thrift::Result<wire::Found> {
        self.store.pace.count();
        Ok(found(self.store.fetch(&key).map_err(refused)?))
    }

    fn handle_unset(&self, key: Vec<u8>) -> thrift::Result<bool> {
        self.store.pace.count();
        let written = self.store.write(&key, None).map_err(refused)?;
        Ok(written.existed.unwrap_or(false))
    }

    fn handle_write_many(&self, pairs: Vec<wire::Pair>) -> thrift::Result<Vec<wire::Written>> {
        self.store.pace.count();
        let pairs = assignments(pairs).map_err(refused)?;
        self.store.write_many(&pairs).map_err(refused)
    }

    fn handle_fetch_many(&self, keys: Vec<Vec<u8>>) -> thrift::Result<Vec<wire::Found>> {
        self.store.pace.count();
        let held = self.store.fetch_many(&keys).map_err(refused)?;
        Ok(held.into_iter().map(found).collect())
    }

    fn handle_roll(&self) -> thrift::Result<wire::Roll> {
        let (current, read) = {
            let moves = self.store.moves();
            (moves.current().clone(), moves.read_view().cloned())
        };
        let peers = |view: &View| view.members().map(|peer| (&peer).into()).collect();
        let members: Vec<wire::Peer> = peers(&current);
        let read = read.filter(|read| read.id() != current.id());
        let readers: Vec<wire::Peer> = read.as_deref().map(peers).unwrap_or_default();
        Ok(wire::Roll::new(members, self.node.has_originals(), readers))
    }

    fn handle_scan(&self, view: i64, cursor: wire::Cursor) -> thrift::Result<wire::Page> {
        let cursor = cursor.try_into().map_err(refused)?;
        let page = self.store.scan(view as u64, &cursor).map_err(refused)?;
        Ok(page.into())
    }

    fn handle_coordinate(
        &self,
        pairs: Vec<wire::Pair>,
        started: i64,
    ) -> thrift::Result<Vec<wire::Written>> {
        self.store.pace.count();
        let pairs = assignments(pairs).map_err(refused)?;
        let pairs: Vec<&Assignment> = pairs.iter().collect();
        let deadline = Instant::now() + COORDINATE;
        let primary = Peer::new(self.node.location().clone(), started);
        let written = self
            .store
            .coordinate(&primary, &pairs, deadline)
            .map_err(refused)?;
        let declined = || wire::Written::new(NOT_PRIMARY, false);
        Ok(written
            .into_iter()
            .map(|written| written.unwrap_or_else(declined))
            .collect())
    }

    fn handle_replicate(&self, pairs: Vec<wire::Pair>, view: i64) -> thrift::Result<wire::Kept> {
        self.store.pace.count();
        Ok(self.store.keep(pairs, view as u64))
    }

    fn handle_fetch_at(&self, keys: Vec<Vec<u8>>, view: i64) -> thrift::Result<Vec<wire::Found>> {
        self.store.pace.count();
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key)).collect();
        match self.store.answer_at(view as u64, &keys) {
            Some(held) => Ok(held.into_iter().map(found).collect()),
            None => Err(refused(NOT_ANSWERED)),
        }
    }

    fn handle_tell(&self, word: wire::Word, wants_history: bool) -> thrift::Result<wire::Told> {
        let word = super::moves::Word::try_from(word).map_err(refused)?;
        let teller = word.from.clone();
        self.store.hear(None, word, None);
        let moves = self.store.moves();
        let history = moves.history().filter(|_| wants_history);
        Ok(wire::Told::new(
            wire::Word::from(&moves.word(&teller)),
            history.as_ref().map(Into::into),
        ))
    }

    fn handle_pull(&self, pull: wire::Pull) -> thrift::Result<wire::Page> {
        let pull = super::moves::Pull::try_from(pull).map_err(refused)?;
        let offer = self.store.moves().offer(&pull);
        let offer = offer.ok_or_else(|| refused("this node is not ready to give"))?;
        let is_busy = self.store.pace.is_busy(Instant::now());
        let most = if is_busy { SMALL_PAGE } else { PAGE };
        let (may_be, wanted) = (
            |points| offer.gives_among(points),
            |key: Key<'_>| offer.gives(key),
        );
        let table = &self.store.table;
        let page = table.page(&pull.cursor, most, LOOKS, may_be, wanted);
        self.store
            .given
            .fetch_add(page.entries.len() as u64, Relaxed);
        Ok(wire::Page {
            busy: Some(is_busy),
            ..page.into()
        })
    }

    fn handle_holdings(&self, counted: bool) -> thrift::Result<wire::Holdings> {
        let (current, replicas, phase, serving, me) = {
            let moves = self.store.moves();
            let me = moves.me().clone();
            (
                moves.current().clone(),
                moves.replicas(),
                moves.phase(),
                moves.is_serving(),
                me,
            )
        };
        let is_primary = |key: Key<'_>| current.is_primary(&me, key);
        let as_primary = counted.then(|| self.store.table.count_keys(is_primary));
        Ok(wire::Holdings {
            keys: Some(self.store.table.keys() as i64),
            as_primary: as_primary.map(|keys| keys as i64),
            bytes: Some(self.store.table.bytes() as i64),
            replicas: replicas.map(|replicas| replicas as i32),
            phase: Some(phase.into()),
            serving: Some(serving),
            moved: Some(self.store.received.load(Relaxed) as i64),
            view: Some(current.id() as i64),
            traffic: Some((&self.node.endpoint().traffic()).into()),
        })
    }
}
