//! `Activity`: what a node has done and seen so far, for those who look at it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thrift::protocol::{TBinaryOutputProtocol, TSerializable};

use super::Node;
use super::history::History;
use crate::locator::{Event, Gossip};

/// Events that are shown to people.
const SHOWN_EVENTS: usize = 50;

/// What a node counts since it started.
#[derive(Debug, Clone, Copy)]
pub enum Count {
    /// Messages of gossip that it sent.
    SentMessages,
    /// Their bytes, without the few around each.
    SentBytes,
    /// Messages of gossip that it received.
    ReceivedMessages,
    /// Their bytes.
    ReceivedBytes,
    /// Members that it suspected.
    Suspicions,
    /// Suspicions of itself that it refuted.
    Refutations,
}

/// What a node has done so far. Shared by threads.
pub(super) struct Activity {
    /// What it has logged about members.
    pub history: History,
    counts: [AtomicU64; Count::Refutations as usize + 1],
}

impl Activity {
    /// Nothing yet. `started` is the time of the start, in milliseconds since 1970.
    pub fn new(started: i64) -> Activity {
        Activity {
            history: History::new(started),
            counts: Default::default(),
        }
    }

    pub fn add(&self, count: Count, number: u64) {
        self.counts[count as usize].fetch_add(number, Relaxed);
    }

    pub fn add_sent(&self, gossip: &Gossip) {
        self.add(Count::SentMessages, 1);
        self.add(Count::SentBytes, size(gossip));
    }

    pub fn add_received(&self, gossip: &Gossip) {
        self.add(Count::ReceivedMessages, 1);
        self.add(Count::ReceivedBytes, size(gossip));
    }
}

/// The bytes of a message, which may be large and is not built once more.
fn size(gossip: &Gossip) -> u64 {
    let mut counted = Counted(0);
    // It takes all bytes.
    let _ = gossip.write_to_out_protocol(&mut TBinaryOutputProtocol::new(&mut counted, true));
    counted.0
}

/// Counts the bytes that are written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Node {
    /// The last 50 events that were logged, oldest first: when, in milliseconds since 1970, and
    /// the line. Never blocks for long.
    pub fn recent_events(&self) -> Vec<(i64, String)> {
        let events = self
            .shared
            .activity
            .history
            .recent(SHOWN_EVENTS)
            .into_iter();
        let shown = |event: Event| (event.at.unwrap_or(0), event.text.unwrap_or_default());
        events.map(shown).collect()
    }

    /// How often that has happened so far. Never blocks.
    pub fn count(&self, count: Count) -> u64 {
        self.shared.activity.counts[count as usize].load(Relaxed)
    }

    /// The time by this host's clock, in milliseconds since 1970.
    pub(crate) fn unix_millis(&self) -> i64 {
        self.shared.now().unix_millis
    }

    /// Has the node joined its network, or started it? Never blocks.
    pub fn has_joined(&self) -> bool {
        self.shared.has_joined.load(Relaxed)
    }
}
