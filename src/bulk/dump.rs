//! `dump`: reads all pairs of a store, while nodes join and leave.
//!
//! Each key that exists during the whole dump is dumped exactly once ([`NetworkScan`]). A pair
//! that is written during the dump may or may not be included. Keys that only legacy nodes hold
//! are not.

use std::io::Write;
use std::time::Instant;

use super::progress::Progress;
use super::tsv::encode;
use crate::client::ring::RingClient;
use crate::diststore::{Cursor, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::point;
use crate::store::network_scan::{NetworkScan, Part, SETTLE_TIMEOUT};
use crate::store::table::stripe_at;
use crate::store::types::Client;

/// A pair with the point of its key.
type Pair = (u32, Vec<u8>, Vec<u8>);

/// Writes all pairs of a store to `output` as lines, in the order of the ring. Blocks until
/// all are written. The progress counts the keys and, of
/// [`STRIPES`](crate::store::table::STRIPES), the stripes.
///
/// # Errors
/// [`Error::Output`] if `output` fails; or the network did not settle within two minutes, or keys
/// may be on the other side of a split.
pub fn dump(client: &RingClient, mut output: impl Write, progress: &Progress) -> Result<(), Error> {
    let mut scan = NetworkScan::new(client);
    while let Some(chunk) = scan.next_chunk(Instant::now() + SETTLE_TIMEOUT, read_page)? {
        let mut pairs = chunk.items;
        pairs.sort_unstable();
        let mut lines = Vec::new();
        for (_, key, value) in &pairs {
            encode(key, value, &mut lines);
        }
        output.write_all(&lines).map_err(Error::Output)?;
        progress.add(pairs.len(), chunk.stripes);
    }
    output.flush().map_err(Error::Output)
}

fn read_page(node: &mut Client, placement: i64, cursor: &Cursor) -> thrift::Result<Part<Pair>> {
    let page = node.scan(placement, cursor.clone())?;
    let pairs = page.pairs.unwrap_or_default().into_iter();
    let pairs = pairs.filter_map(|pair| pair.key.zip(pair.value));
    let with_stripe = |(key, value): (Vec<u8>, Vec<u8>)| {
        let point = point(&key);
        (stripe_at(point), (point, key, value))
    };
    Ok(Part {
        items: pairs.map(with_stripe).collect(),
        next_page: page.next_page,
        is_busy: page.busy.unwrap_or(false),
    })
}
