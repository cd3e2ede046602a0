//! The store's messages between the interface's generated structs and its own types.
//!
//! What names no place or sender, or carries a version of no time, is refused by a
//! sentence; what else is left out counts as zero or nothing.

use std::sync::Arc;

use super::moves::{History, Phase, Pull, Word};
use super::table::{Cursor, Key, Page, STRIPES};
use super::versions::{Entry, Value, is_plausible};
use super::view::{Peer, View};
use super::writing::Assignment;
use crate::diststore as wire;
use crate::location::Location;
use crate::locator;
use crate::rpc::traffic::{Reason, Traffic};

/// The most members of all views of one message together: 128 views of 128 members.
/// Each member of each view has 120 points on a ring, which take a kilobyte.
pub const MOST_LISTED: usize = 16_384;

/// Why a node does not say what it holds as an owner.
pub(super) const NOT_ANSWERED: &str = "this node does not answer for that view";

/// Why a message was not understood.
pub type Misread = String;

const PHASES: [(Phase, wire::Phase); 5] = [
    (Phase::Installed, wire::Phase::INSTALLED),
    (Phase::Drained, wire::Phase::DRAINED),
    (Phase::Synced, wire::Phase::SYNCED),
    (Phase::Switched, wire::Phase::SWITCHED),
    (Phase::Settled, wire::Phase::SETTLED),
];

/// A refusal, as the interface throws it.
pub fn refused(reason: impl Into<String>) -> thrift::Error {
    wire::Refused::new(reason.into()).into()
}

impl From<Phase> for wire::Phase {
    fn from(phase: Phase) -> wire::Phase {
        PHASES
            .iter()
            .find(|(ours, _)| *ours == phase)
            .map_or(wire::Phase::INSTALLED, |found| found.1)
    }
}

impl From<wire::Phase> for Phase {
    /// A phase that is not known counts as the first: nobody goes on because of it.
    fn from(phase: wire::Phase) -> Phase {
        PHASES
            .iter()
            .find(|(_, theirs)| *theirs == phase)
            .map_or(Phase::Installed, |found| found.0)
    }
}

impl From<&Peer> for wire::Peer {
    fn from(peer: &Peer) -> wire::Peer {
        wire::Peer::new(locator::Location::from(&peer.location), peer.started)
    }
}

impl TryFrom<wire::Peer> for Peer {
    type Error = Misread;

    fn try_from(peer: wire::Peer) -> Result<Peer, Misread> {
        let location = peer.location.unwrap_or_default();
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(Peer::new(location, peer.started.unwrap_or(0)))
    }
}

fn peers(wire: Vec<wire::Peer>) -> Result<Vec<Peer>, Misread> {
    wire.into_iter().map(Peer::try_from).collect()
}

fn peer(wire: Option<wire::Peer>) -> Result<Peer, Misread> {
    wire.ok_or("a message without its sender")?.try_into()
}

impl From<&Word> for wire::Word {
    fn from(word: &Word) -> wire::Word {
        wire::Word {
            teller: Some((&word.from).into()),
            view: Some(word.view as i64),
            phase: Some(word.phase.into()),
            enrolled: Some(word.enrolled),
            reads_by: word.read.map(|view| view as i64),
            views: Some(word.views.iter().map(|view| *view as i64).collect()),
            sees: word.sees,
            replicas: word.replicas.map(|replicas| replicas as i32),
            changes: Some(word.changes as i64),
        }
    }
}

impl TryFrom<wire::Word> for Word {
    type Error = Misread;

    fn try_from(word: wire::Word) -> Result<Word, Misread> {
        Ok(Word {
            from: peer(word.teller)?,
            view: word.view.unwrap_or(0) as u64,
            phase: word.phase.map_or(Phase::Installed, Phase::from),
            enrolled: word.enrolled.unwrap_or(false),
            read: word.reads_by.map(|view| view as u64),
            views: word
                .views
                .unwrap_or_default()
                .into_iter()
                .map(|view| view as u64)
                .collect(),
            sees: word.sees,
            replicas: word
                .replicas
                .and_then(|replicas| usize::try_from(replicas).ok()),
            changes: word.changes.unwrap_or(0) as u64,
        })
    }
}

impl From<&History> for wire::History {
    fn from(history: &History) -> wire::History {
        let members = |view: &Arc<View>| view.members().map(|peer| (&peer).into()).collect();
        wire::History {
            views: Some(history.views.iter().map(members).collect()),
            reads_by: Some(history.read as i64),
            replicas: Some(history.replicas as i32),
        }
    }
}

impl TryFrom<wire::History> for History {
    type Error = Misread;

    fn try_from(history: wire::History) -> Result<History, Misread> {
        let views = history.views.unwrap_or_default();
        let listed: usize = views.iter().map(Vec::len).sum();
        if listed > MOST_LISTED {
            return Err(format!(
                "a list of views of {listed} members; {MOST_LISTED} are taken"
            ));
        }
        let view = |members| Ok::<_, Misread>(Arc::new(View::new(peers(members)?)));
        let views = views.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let read = history.reads_by.unwrap_or(0) as u64;
        let replicas = history.replicas.unwrap_or(0).max(0) as usize;
        if replicas == 0 || views.iter().all(|view| view.id() != read) {
            return Err("a list of views that cannot be read by".into());
        }
        Ok(History {
            views,
            read,
            replicas,
        })
    }
}

impl From<&Cursor> for wire::Cursor {
    fn from(cursor: &Cursor) -> wire::Cursor {
        wire::Cursor::new(cursor.stripe as i32, cursor.after.clone())
    }
}

impl TryFrom<wire::Cursor> for Cursor {
    type Error = Misread;

    fn try_from(cursor: wire::Cursor) -> Result<Cursor, Misread> {
        let stripe = usize::try_from(cursor.stripe.unwrap_or(0)).ok();
        let stripe = stripe
            .filter(|stripe| *stripe < STRIPES)
            .ok_or("there is no such stripe")?;
        let after = cursor.after;
        if after
            .as_deref()
            .is_some_and(|key| Key::new(key).stripe() != stripe)
        {
            return Err("a cursor after a key of another stripe".into());
        }
        Ok(Cursor { stripe, after })
    }
}

impl From<&Pull> for wire::Pull {
    fn from(pull: &Pull) -> wire::Pull {
        wire::Pull {
            puller: Some((&pull.puller).into()),
            view: Some(pull.view as i64),
            reads_by: Some(pull.read as i64),
            gone: Some(pull.gone.iter().map(Into::into).collect()),
            cursor: Some((&pull.cursor).into()),
        }
    }
}

impl TryFrom<wire::Pull> for Pull {
    type Error = Misread;

    fn try_from(pull: wire::Pull) -> Result<Pull, Misread> {
        Ok(Pull {
            puller: peer(pull.puller)?,
            view: pull.view.unwrap_or(0) as u64,
            read: pull.reads_by.unwrap_or(0) as u64,
            gone: peers(pull.gone.unwrap_or_default())?,
            cursor: pull.cursor.ok_or("a pull without a cursor")?.try_into()?,
        })
    }
}

/// A key with its entry, for another node.
pub fn pair(key: Vec<u8>, entry: &Entry) -> wire::Pair {
    wire::Pair::new(
        key,
        entry.value.as_ref().map(|value| value.to_vec()),
        entry.version,
    )
}

/// The key and the entry that another node sends at this time.
pub fn read_pair(pair: wire::Pair, unix_millis: i64) -> Result<(Vec<u8>, Entry), Misread> {
    let version = pair.version.unwrap_or(0);
    if !is_plausible(version, unix_millis) {
        return Err(format!("{version} is not a version of this time"));
    }
    let key = pair.key.ok_or("a pair without a key")?;
    let value = pair.value.map(|value| Value::of(&key, value));
    Ok((key, Entry { version, value }))
}

/// What a client or another node wants written.
pub fn assignments(pairs: Vec<wire::Pair>) -> Result<Vec<Assignment>, Misread> {
    let assignment = |pair: wire::Pair| {
        let key = pair.key.ok_or("a pair without a key")?;
        let value = pair.value.map(|value| Value::of(&key, value));
        Ok((key, value))
    };
    pairs.into_iter().map(assignment).collect()
}

/// What is held, as a reader is told it.
pub fn found(entry: Option<Entry>) -> wire::Found {
    let version = entry.as_ref().map_or(0, |entry| entry.version);
    let value = entry.and_then(|entry| entry.value);
    wire::Found::new(value.map(|value| value.to_vec()), version)
}

impl From<&Traffic> for wire::Traffic {
    fn from(traffic: &Traffic) -> wire::Traffic {
        let count = |count: u64| Some(count as i64);
        let closed = |reason| count(traffic.closed(reason));
        wire::Traffic {
            open: count(traffic.open),
            opened: count(traffic.opened),
            calls: count(traffic.calls),
            crowded_out: closed(Reason::CrowdedOut),
            address_full: closed(Reason::AddressFull),
            idle: closed(Reason::Idle),
            garbage: closed(Reason::Garbage),
            slow: closed(Reason::Slow),
            long: closed(Reason::Long),
            exceptions: closed(Reason::Exception),
            unserved: closed(Reason::NoThread),
            failed_accepts: count(traffic.failed_accepts),
        }
    }
}

impl From<Page> for wire::Page {
    fn from(page: Page) -> wire::Page {
        let pairs: Vec<_> = page
            .entries
            .into_iter()
            .map(|(key, entry)| pair(key, &entry))
            .collect();
        wire::Page::new(pairs, page.next.as_ref().map(Into::into), false)
    }
}

/// The page that another node sends at this time.
pub fn read_page(page: wire::Page, unix_millis: i64) -> Result<Page, Misread> {
    let pairs = page.pairs.unwrap_or_default().into_iter();
    Ok(Page {
        entries: pairs
            .map(|pair| read_pair(pair, unix_millis))
            .collect::<Result<_, _>>()?,
        next: page.rest.map(Cursor::try_from).transpose()?,
    })
}
