//! Asking other nodes what they hold as owners.
//!
//! Many clients' reads are passed on at once; what they have to ask of one owner at the
//! same time goes there in one call ([`Lanes`]).

use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::debug;

use super::operations::Client;
use super::versions::Entry;
use super::view::Peer;
use super::wire::read_found;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::Links;
use crate::rpc::lanes::Lanes;

/// What is held for a key, a tombstone included; nothing if nothing ever was.
pub(super) type Held = Option<Entry>;

/// The most bytes of keys in one call.
const BATCH: usize = 64 * 1024;

/// For how long an owner that could not be reached is asked last.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// The ways of questions to all owners.
pub(super) struct Asking {
    owners: Arc<Owners>,
    lanes: Lanes<Question, Answer>,
}

/// The view in which an owner is asked, and the key.
type Question = (u64, Vec<u8>);

/// What came of a question.
pub(super) enum Answer {
    /// The owner holds this.
    Held(Held),
    /// What it holds had no room in the message with what else was asked: ask again.
    NoRoom,
    /// It refuses, or cannot be reached.
    Refused,
}

/// Who is asked.
struct Owners {
    node: Node,
    peers: Arc<Links<Client>>,
    /// Those that could not be reached a moment ago, and until when they are asked last.
    passed_over: Mutex<HashMap<Location, Instant>>,
}

impl Asking {
    /// Questions that go over `peers`; who cannot be reached is reported to `node`.
    pub fn new(node: Node, peers: Arc<Links<Client>>) -> Asking {
        let owners = Arc::new(Owners {
            node,
            peers,
            passed_over: Mutex::default(),
        });
        let asked = owners.clone();
        let carry = move |owner: &Location, questions: Vec<Question>| {
            let runs = questions.chunk_by(|(view, _), (next, _)| view == next);
            runs.flat_map(|run| asked.ask(owner, run)).collect()
        };
        Asking {
            owners,
            lanes: Lanes::new(BATCH, |(_, key)| key.len(), carry),
        }
    }

    /// Asks owners, each in a view for a key, together with what others ask of them. Blocks
    /// for as long as calls to peers may take, two of them where nothing else is asked.
    pub fn ask(&self, questions: Vec<(Location, Question)>) -> Vec<Answer> {
        let answers = self.lanes.deliver(questions).into_iter();
        answers
            .map(|answer| answer.unwrap_or(Answer::Refused))
            .collect()
    }

    /// The owners of a key in the order in which to ask them: first those that could be
    /// reached when they were asked last.
    pub fn in_order(&self, mut owners: Vec<Peer>) -> Vec<Peer> {
        let now = Instant::now();
        let mut passed_over = self.owners.passed_over();
        passed_over.retain(|_, until| *until > now);
        owners.sort_by_key(|owner| passed_over.contains_key(&owner.location));
        owners
    }

    /// Forgets the way to a node that is gone.
    pub fn forget(&self, gone: &Location) {
        self.lanes.forget(gone);
    }
}

impl Owners {
    /// Asks one owner in one view.
    fn ask(&self, owner: &Location, questions: &[Question]) -> Vec<Answer> {
        let view = questions.first().map_or(0, |(view, _)| *view);
        let keys = || questions.iter().map(|(_, key)| key.clone()).collect();
        let read = |client: &mut Client| client.fetch_at(keys(), view as i64);
        let found = self.peers.call(owner, read);
        let found = found
            .inspect_err(|e| self.note(owner, e))
            .unwrap_or_default();
        let is_refused = found.is_empty();
        let rest = iter::repeat_with(|| match is_refused {
            true => Answer::Refused,
            false => Answer::NoRoom,
        });
        let held = found.into_iter().map(read_found).map(Answer::Held);
        held.chain(rest).take(questions.len()).collect()
    }

    /// Notes that an owner has not answered.
    fn note(&self, owner: &Location, error: &Error) {
        debug!("{error}");
        if error.is_unreachable() {
            let until = Instant::now() + PASSED_OVER;
            self.passed_over().insert(owner.clone(), until);
            self.node.unreachable(owner, error);
        }
    }

    /// Held for a moment, never during a call.
    fn passed_over(&self) -> MutexGuard<'_, HashMap<Location, Instant>> {
        self.passed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
