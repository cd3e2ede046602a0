//! Asking other nodes what they hold as owners.
//!
//! Many clients' reads are passed on at once; what they have to ask of one owner at the
//! same time goes there in one call ([`Lanes`]).

use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::debug;

use super::by_hand::{receive_fetch_at, send_fetch_at};
use super::operations::PEER_PATIENCE;
use super::table::Key;
use super::versions::Held;
use super::view::Peer;
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::by_hand::ByHand;
use crate::rpc::lanes::{Done, Item, Lanes, Load};
use crate::rpc::links::Links;
use crate::rpc::several::call_several;

/// The most bytes of keys, and of what is [`BESIDE`] them, in one call.
const BATCH: usize = 64 * 1024;

/// Bytes that a key takes in a message beside itself. They also bound how many keys go with
/// a call: far fewer than the longest list that is taken.
const BESIDE: usize = 4;

/// For how long an owner that could not be reached is asked last.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// The ways of questions to all owners.
pub(super) struct Asking {
    asked: Arc<Asked>,
    lanes: Lanes<Question, Answer>,
}

/// What an owner is asked.
pub(super) struct Question {
    /// As an owner in this view.
    pub view: u64,
    pub key: Vec<u8>,
    /// There was no room for its answer before: it goes first, where there is.
    pub is_repeated: bool,
}

impl Question {
    /// Asks for `key` as in that view.
    pub fn new(view: u64, key: Key<'_>) -> Question {
        Question {
            view,
            key: key.bytes.to_vec(),
            is_repeated: false,
        }
    }
}

impl Item for Question {
    fn weight(&self) -> usize {
        self.key.len() + BESIDE
    }

    fn goes_with(&self, other: &Question) -> bool {
        self.view == other.view && !self.is_repeated
    }
}

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
struct Asked {
    node: Node,
    links: Links<ByHand>,
    /// Those that could not be reached a moment ago, and until when they are asked last.
    passed_over: Mutex<HashMap<Location, Instant>>,
}

impl Asking {
    /// Questions of this node, which is told who cannot be reached.
    pub fn new(node: Node) -> Asking {
        let asked = Arc::new(Asked {
            links: Links::new(node.caller().clone(), ByHand::new, PEER_PATIENCE),
            node,
            passed_over: Mutex::default(),
        });
        let carrier = asked.clone();
        Asking {
            asked,
            lanes: Lanes::new(BATCH, move |loads, done| carrier.ask(loads, done)),
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
        let mut passed_over = self.asked.passed_over();
        if passed_over.is_empty() {
            return owners;
        }
        let now = Instant::now();
        passed_over.retain(|_, until| *until > now);
        owners.sort_by_key(|owner| passed_over.contains_key(&owner.location));
        owners
    }

    /// Forgets the way to a node that is gone: calls under way break off.
    pub fn forget(&self, gone: &Location) {
        self.lanes.forget(gone);
        self.asked.links.forget(gone);
    }
}

impl Asked {
    /// Asks owners, each in one view.
    fn ask(&self, loads: &[Load<Question>], done: Done<'_, Answer>) {
        let locations: Vec<Location> = loads.iter().map(|load| load.to.clone()).collect();
        let ask = |owner: &mut ByHand, place: usize| {
            let questions: &[Question] = &loads[place].items;
            let keys = questions.iter().map(|question| &question.key[..]);
            send_fetch_at(owner, keys, questions[0].view)
        };
        let found =
            |owner: &mut ByHand, place: usize| receive_fetch_at(owner, loads[place].items.len());
        call_several(&self.links, &locations, ask, found, |place, found| {
            let found = found.inspect_err(|e| self.note(&locations[place], e));
            done(
                place,
                answers(found.unwrap_or_default(), loads[place].items.len()),
            );
        });
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

/// What came of so many questions, the first of which were answered.
fn answers(found: Vec<Held>, count: usize) -> Vec<Answer> {
    let is_refused = found.is_empty();
    let rest = iter::repeat_with(|| match is_refused {
        true => Answer::Refused,
        false => Answer::NoRoom,
    });
    let held = found.into_iter().map(Answer::Held);
    held.chain(rest).take(count).collect()
}
