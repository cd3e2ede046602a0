//! `Dump`: reads all pairs of a store, while nodes join and leave.
//!
//! Each key is read at its primary. All nodes are asked for the same stripes of their tables,
//! and reply only while they are settled in the placement that is asked for. If one of them
//! refuses or fails, these stripes are discarded and read again when the network has settled.
//! So each key that exists during the whole dump is dumped exactly once.
//!
//! A pair that is written during the dump may or may not be included. Keys that only legacy
//! nodes hold are not.
//!
//! Memory: a page of each node, or one stripe, which is a 256th of the store.

use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::progress::Progress;
use super::tsv::encode;
use crate::client::ring::RingClient;
use crate::diststore::{self as wire, Phase, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::table::{STRIPES, stripe_of};

/// How long the dump waits for the network to settle.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause before the network is asked again whether it has settled.
const RETRY: Duration = Duration::from_millis(50);

/// After this time a warning says that the dump waits.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// Calls in flight at the same time.
const PARALLEL: usize = 8;

/// A dump of one store.
pub struct Dump<'a> {
    client: &'a RingClient,
    progress: &'a Progress,
}

/// The pairs of some stripes.
struct Chunk {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first stripe that is not included, or not completely.
    end: usize,
}

impl<'a> Dump<'a> {
    /// A dump of the store of `client`. The total of the progress is [`STRIPES`].
    pub fn new(client: &'a RingClient, progress: &'a Progress) -> Dump<'a> {
        Dump { client, progress }
    }

    /// Passes all pairs to `write` as lines: those of some stripes at a time, in the order of
    /// the stripes. Blocks until all are written.
    ///
    /// # Errors
    /// Those of `write`; or the network did not settle within two minutes.
    pub fn write_to(&self, mut write: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut placement = self.wait_until_settled()?;
        let mut lines = Vec::new();
        let mut next = 0;
        let mut deadline = Instant::now() + SETTLE_TIMEOUT;
        while next < STRIPES {
            let chunk = match self.read_chunk(&placement, next) {
                Ok(chunk) => chunk,
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(e) => {
                    debug!("reading the stripes from {next} again: {e}");
                    placement = self.wait_until_settled()?;
                    continue;
                }
            };
            lines.clear();
            for (key, value) in &chunk.pairs {
                encode(key, value, &mut lines);
            }
            write(&lines)?;
            self.progress.add_keys(chunk.pairs.len() as u64);
            self.progress.add_done((chunk.end - next) as u64);
            next = chunk.end;
            deadline = Instant::now() + SETTLE_TIMEOUT;
        }
        Ok(())
    }

    /// Reads the stripes from `first` on at all members of a placement: at least one stripe, and
    /// as many as each of them returned completely.
    fn read_chunk(&self, placement: &Placement, first: usize) -> Result<Chunk, Error> {
        let members: Vec<&NodeId> = placement.members().collect();
        let parts = parallel_map(&members, PARALLEL, |member| {
            self.read_part(&member.location, placement.id(), first)
        });
        let mut parts = parts.into_iter().collect::<Result<Vec<Chunk>, Error>>()?;
        let end = parts.iter().map(|part| part.end).min().unwrap_or(first);
        if parts.len() < members.len() || end == first {
            return Err(self.error("not all members were read"));
        }
        let mut pairs = Vec::new();
        for part in &mut parts {
            pairs.append(&mut part.pairs);
        }
        pairs.retain(|(key, _)| stripe_of(Key::new(key)) < end);
        Ok(Chunk { pairs, end })
    }

    /// Reads the keys of these stripes whose primary is `member`.
    fn read_part(&self, member: &Location, placement: u64, first: usize) -> Result<Chunk, Error> {
        let mut pairs = Vec::new();
        let mut after = None;
        loop {
            let cursor = wire::Cursor::new(first as i32, after);
            let page = self
                .client
                .call(member, |node| node.scan(placement as i64, cursor.clone()))?;
            let read = page.pairs.unwrap_or_default().into_iter();
            pairs.extend(read.filter_map(|pair| Some((pair.key?, pair.value?))));
            let next = page
                .next_page
                .unwrap_or_else(|| wire::Cursor::new(STRIPES as i32, None));
            let end = next.stripe.and_then(|end| usize::try_from(end).ok());
            match end.filter(|end| (first..=STRIPES).contains(end)) {
                Some(end) if end > first => return Ok(Chunk { pairs, end }),
                Some(_) if is_later(&next, &cursor) => after = next.after,
                _ => {
                    let reason = "the next page does not start after this one";
                    return Err(Error::Remote(member.clone(), reason.into()));
                }
            }
        }
    }

    /// Waits until all members are settled in one placement.
    fn wait_until_settled(&self) -> Result<Placement, Error> {
        let began = Instant::now();
        let mut has_warned = false;
        loop {
            if let Some(placement) = self.settled_placement() {
                return Ok(placement);
            }
            if began.elapsed() > SETTLE_TIMEOUT {
                let late = format!("the network did not settle within {SETTLE_TIMEOUT:?}");
                return Err(self.error(&late));
            }
            if began.elapsed() > WARN_AFTER && !has_warned {
                warn!("the network is rebalancing: the dump continues when it has settled");
                has_warned = true;
            }
            thread::sleep(RETRY);
        }
    }

    /// The placement in which all members are settled, if there is one.
    fn settled_placement(&self) -> Option<Placement> {
        let placement = self.client.refresh();
        let members: Vec<&NodeId> = placement.members().collect();
        let settled = parallel_map(&members, PARALLEL, |member| {
            let stats = self.client.call(&member.location, |node| node.stats(false));
            stats.is_ok_and(|stats| {
                stats.placement_id == Some(placement.id() as i64)
                    && stats.phase == Some(Phase::SETTLED)
                    && stats.serving == Some(true)
            })
        });
        let all =
            settled.len() == members.len() && settled.into_iter().all(|is_settled| is_settled);
        (all && !placement.is_empty()).then_some(placement)
    }

    fn error(&self, reason: &str) -> Error {
        let node = self.client.nodes().swap_remove(0);
        Error::Remote(node, reason.into())
    }
}

/// Does `next` start after a larger key of the stripe than `current`?
fn is_later(next: &wire::Cursor, current: &wire::Cursor) -> bool {
    let after = [next, current].map(|cursor| cursor.after.as_deref().map(Key::new));
    after[0] > after[1]
}
