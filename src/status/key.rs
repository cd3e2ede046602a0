//! `KeyStatus`: where a key lies on the ring, and who holds which version of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::topology::Topology;
use crate::diststore::{HeldCopy, StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::status::table::{cell, table};
use crate::store::placement::{Key, NodeId};
use crate::store::types::Client;

/// Calls in flight at the same time.
const PARALLEL: usize = 32;

/// A node that does not reply in this time is shown as one that does not answer.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    reply: Duration::from_secs(2),
};

/// Where a key lies, and who holds it.
#[derive(Debug, Clone)]
pub struct KeyStatus {
    /// The key.
    pub key: Vec<u8>,
    /// Its point on the ring.
    pub point: u32,
    /// The next point of a node on the ring. None if the ring ends before it.
    pub next_point: Option<u32>,
    /// Its owners, the primary first.
    pub owners: Vec<Location>,
    /// What each owner holds, and each owner of the placement that reads use.
    pub copies: Vec<CopyStatus>,
}

/// What one node holds of a key.
#[derive(Debug, Clone)]
pub struct CopyStatus {
    /// Where it is reached.
    pub location: Location,
    /// None if it did not answer.
    pub held: Option<HeldCopy>,
    /// How long the answer took, with a new connection.
    pub time: Duration,
}

impl KeyStatus {
    /// Asks `peer` for the members, and each owner for what it holds. Reads no value. Blocks for
    /// some seconds at most.
    ///
    /// # Errors
    /// The peer cannot be called, or is a legacy node.
    pub fn ask(dialer: &Dialer, peer: &Location, key: &[u8]) -> Result<KeyStatus, Error> {
        let call = |node: &mut Client| Ok((node.topology()?, node.stats(false)?.replicas));
        let asked = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, peer, call)?;
        let topology = Topology::from_wire(asked.0, &Topology::unknown(peer.clone()));
        let (replicas, wanted) = (asked.1.unwrap_or(1).max(1) as usize, Key::new(key));
        let owners = topology.placement().owners(wanted, replicas);
        let owners: Vec<Location> = owners.map(|node| node.location.clone()).collect();
        let readers = topology.read_placement().into_iter();
        let readers = readers.flat_map(|placement| placement.owners(wanted, replicas));
        let mut holders = owners.clone();
        for NodeId { location, .. } in readers {
            if !holders.contains(location) {
                holders.push(location.clone());
            }
        }
        let mut copies = parallel_map(&holders, PARALLEL, |location| {
            let began = Instant::now();
            let held =
                dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, location, |node| {
                    node.held_copy(key.to_vec())
                });
            CopyStatus {
                location: location.clone(),
                held: held.ok(),
                time: began.elapsed(),
            }
        });
        let order = |copy: &CopyStatus| holders.iter().position(|node| *node == copy.location);
        copies.sort_by_key(order);
        let nodes: BTreeSet<Location> = topology.nodes().iter().cloned().collect();
        let ring: HashRing<Location> = nodes.into_iter().collect();
        Ok(KeyStatus {
            key: key.to_vec(),
            point: wanted.point,
            next_point: ring.arc_starts(wanted.point..=u32::MAX).next(),
            owners,
            copies,
        })
    }

    /// A line about the call that read the key at `peer` in that time.
    pub fn hops(&self, peer: &Location, time: Duration) -> String {
        let way = match self.owners.first() {
            Some(primary) if primary == peer => "the key's primary".to_owned(),
            Some(primary) => format!("which asked the key's primary {primary}"),
            None => "which knows no owner".to_owned(),
        };
        format!("asked {peer}, {way}: {:.1} ms\n", time.as_secs_f64() * 1e3)
    }

    /// Lines about the key's place, and a table with a line for each copy.
    pub fn text(&self) -> String {
        let around = f64::from(self.point) / f64::from(u32::MAX) * 100.0;
        let next = self.next_point.map_or_else(
            || "beyond the last point that keys can have".to_owned(),
            |next| format!("{next:08x}"),
        );
        let key = Key::new(&self.key);
        let place = format!(
            "key {key}: point {:08x}, {around:.1} % around the ring; the next point of a node is {next}\n",
            self.point
        );
        let heads = ["<LOCATION", "<ROLE", "<COPY", ">VERSION", ">BYTES", ">TIME"];
        place + &table(heads, self.copies.iter().map(|copy| self.cells(copy)))
    }

    fn cells(&self, copy: &CopyStatus) -> [String; 6] {
        let held = copy.held.as_ref();
        let version = held.and_then(|held| held.version).filter(|of| *of != 0);
        [
            copy.location.to_string(),
            self.role(copy).to_owned(),
            copy.state().to_owned(),
            cell(version),
            cell(held.and_then(|held| held.bytes)),
            format!("{:.1} ms", copy.time.as_secs_f64() * 1e3),
        ]
    }

    fn role(&self, copy: &CopyStatus) -> &'static str {
        match self.owners.iter().position(|owner| *owner == copy.location) {
            Some(0) => "primary",
            Some(_) => "replica",
            None => "owner before",
        }
    }

    /// One JSON object. Versions are text, because not every JSON reader keeps 64 bits.
    pub fn json(&self) -> Value {
        let owners: Vec<&str> = self.owners.iter().map(Location::name).collect();
        let copies = self.copies.iter().map(|copy| {
            let held = copy.held.as_ref();
            json!({
                "location": copy.location.name(),
                "role": self.role(copy),
                "state": copy.state(),
                "version": held.and_then(|held| held.version).map(|of| of.to_string()),
                "bytes": held.and_then(|held| held.bytes),
            })
        });
        json!({
            "key": String::from_utf8_lossy(&self.key),
            "point": self.point,
            "owners": owners,
            "copies": copies.collect::<Vec<_>>(),
        })
    }
}

impl CopyStatus {
    fn state(&self) -> &'static str {
        match &self.held {
            None => "no answer",
            Some(held) if held.version == Some(0) => "nothing",
            // The node that assigned the version has not said yet that all owners have it.
            Some(held) if held.is_finished != Some(true) => "unconfirmed",
            Some(held) if held.bytes.is_none() => "deleted",
            Some(_) => "held",
        }
    }
}
