//! `dump`: reads all pairs of a store, while nodes join and leave.
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

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::progress::Progress;
use super::tsv::encode;
use crate::client::ring::RingClient;
use crate::diststore::{self as wire, Phase, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::point;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::table::{STRIPES, stripe_at};

/// How long the dump waits for the network to settle.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause before the network is asked again whether it has settled.
const RETRY: Duration = Duration::from_millis(50);

/// After this time a warning says that the dump waits.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// Calls in flight at the same time.
const PARALLEL: usize = 8;

/// The pairs of some stripes.
struct Chunk {
    /// With the point of each key.
    pairs: Vec<(u32, Vec<u8>, Vec<u8>)>,
    /// The first stripe that is not included, or not completely.
    end: usize,
}

/// Writes all pairs of a store to `output` as lines, in the order of the ring. Blocks until
/// all are written. The progress counts the keys and, of [`STRIPES`], the stripes.
///
/// # Errors
/// [`Error::Output`] if `output` fails; or the network did not settle within two minutes.
pub fn dump(client: &RingClient, mut output: impl Write, progress: &Progress) -> Result<(), Error> {
    let mut placement = wait_until_settled(client)?;
    let mut deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut next = 0;
    while next < STRIPES {
        match read_chunk(client, &placement, next) {
            Ok(Chunk { pairs, end }) => {
                let mut lines = Vec::new();
                for (_, key, value) in &pairs {
                    encode(key, value, &mut lines);
                }
                output.write_all(&lines).map_err(Error::Output)?;
                progress.add(pairs.len(), end - next);
                next = end;
                deadline = Instant::now() + SETTLE_TIMEOUT;
            }
            Err(e) if Instant::now() > deadline => return Err(e),
            Err(e) => {
                debug!("reading the stripes from {next} again: {e}");
                placement = wait_until_settled(client)?;
            }
        }
    }
    output.flush().map_err(Error::Output)
}

/// Reads the stripes from `first` on at all members of a placement: at least one stripe, and
/// as many as each of them returned completely.
fn read_chunk(client: &RingClient, placement: &Placement, first: usize) -> Result<Chunk, Error> {
    let members: Vec<&NodeId> = placement.members().collect();
    let parts = parallel_map(&members, PARALLEL, |member| {
        read_part(client, &member.location, placement.id(), first)
    });
    let parts = parts.into_iter().collect::<Result<Vec<Chunk>, Error>>()?;
    let end = parts.iter().map(|part| part.end).min().unwrap_or(first);
    if parts.len() < members.len() || end == first {
        return Err(failure(client, "not all members were read"));
    }
    let pairs = parts.into_iter().flat_map(|part| part.pairs);
    let pairs = pairs.filter(|(point, ..)| stripe_at(*point) < end);
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    Ok(Chunk { pairs, end })
}

/// Reads the keys of these stripes whose primary is `member`.
fn read_part(
    client: &RingClient,
    member: &Location,
    placement: u64,
    first: usize,
) -> Result<Chunk, Error> {
    let mut pairs = Vec::new();
    let mut cursor = wire::Cursor::new(first as i32, None);
    loop {
        let page = client.call(member, |node| node.scan(placement as i64, cursor.clone()))?;
        let read = page.pairs.unwrap_or_default().into_iter();
        let pair = |(key, value): (Vec<u8>, Vec<u8>)| (point(&key), key, value);
        let read = read.filter_map(|pair| pair.key.zip(pair.value));
        pairs.extend(read.map(pair));
        let end = wire::Cursor::new(STRIPES as i32, None);
        let next = page.next_page.unwrap_or(end);
        match next.stripe.and_then(|stripe| usize::try_from(stripe).ok()) {
            Some(end) if end > first && end <= STRIPES => return Ok(Chunk { pairs, end }),
            Some(stripe) if stripe == first && last_key(&next) > last_key(&cursor) => cursor = next,
            _ => {
                let reason = "the next page does not start after this one";
                return Err(Error::Remote(member.clone(), reason.into()));
            }
        }
    }
}

/// The key after which a page starts.
fn last_key(cursor: &wire::Cursor) -> Option<Key<'_>> {
    cursor.after.as_deref().map(Key::new)
}

/// Waits until all members are settled in one placement.
fn wait_until_settled(client: &RingClient) -> Result<Placement, Error> {
    let began = Instant::now();
    let mut has_warned = false;
    while began.elapsed() <= SETTLE_TIMEOUT {
        if let Some(placement) = settled_placement(client) {
            return Ok(placement);
        }
        if began.elapsed() > WARN_AFTER && !has_warned {
            warn!("the network is rebalancing: the dump continues when it has settled");
            has_warned = true;
        }
        thread::sleep(RETRY);
    }
    let late = format!("the network did not settle within {SETTLE_TIMEOUT:?}");
    Err(failure(client, &late))
}

/// The placement in which all members are settled, if there is one.
fn settled_placement(client: &RingClient) -> Option<Placement> {
    let placement = client.refresh();
    let members: Vec<&NodeId> = placement.members().collect();
    let settled = parallel_map(&members, PARALLEL, |member| {
        let stats = client.call(&member.location, |node| node.stats(false));
        stats.is_ok_and(|stats| {
            stats.placement_id == Some(placement.id() as i64)
                && stats.phase == Some(Phase::SETTLED)
                && stats.serving == Some(true)
        })
    });
    let count = settled.into_iter().filter(|is_settled| *is_settled).count();
    (count > 0 && count == members.len()).then_some(placement)
}

/// A failure of the network, in the name of one of its nodes.
fn failure(client: &RingClient, reason: &str) -> Error {
    let node = client.nodes().swap_remove(0);
    Error::Remote(node, reason.into())
}
