//! `StoreStatus`: what the nodes of a store hold, and whether anything is on its way.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::moves::Phase;
use crate::diststore::{Holdings, StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::locator::TLocatorSyncClient;
use crate::rpc::client::{Caller, Patience};
use crate::side_by_side::side_by_side;

/// Nodes asked at the same time.
const SIDE_BY_SIDE: usize = 32;

/// A node that does not answer in this time is shown as one that does not.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(3),
};

/// Between two looks at a store in which something moves, to tell how fast.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Columns of the table.
const COLUMNS: usize = 8;

/// Why a node closes connections, by the name of the count and in words.
const CLOSINGS: [(&str, &str); 9] = [
    ("crowded_out", "crowded out"),
    ("address_full", "of addresses with too many"),
    ("idle", "idle"),
    ("garbage", "garbage"),
    ("slow", "too slow"),
    ("long", "too long"),
    ("exceptions", "after an exception"),
    ("unserved", "without a thread"),
    ("failed_accepts", "not accepted"),
];

/// What the nodes of a store hold.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// Every node on the ring, sorted by location.
    pub nodes: Vec<NodeStatus>,
    /// Keys copied a second, while something moves.
    pub rate: Option<f64>,
}

/// What one node holds.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Where it is.
    pub location: Location,
    /// Its share of the ring, 0 to 1.
    pub share: f64,
    /// What it holds; nothing if it did not answer, or is a node of the original.
    pub holdings: Option<Holdings>,
    /// Is it a node of the original, which cannot tell what it holds?
    pub is_original: bool,
}

impl StoreStatus {
    /// Asks `peer` for the nodes, and each of them what it holds; while something
    /// moves, once more half a second later. Blocks for some seconds at the most.
    ///
    /// # Errors
    /// The peer cannot be asked.
    pub fn ask(caller: &Caller, peer: &Location) -> Result<StoreStatus, Error> {
        let began = Instant::now();
        let first = StoreStatus::look(caller, peer)?;
        if first.is_settled() {
            return Ok(first);
        }
        thread::sleep(BETWEEN_LOOKS);
        let mut second = StoreStatus::look(caller, peer)?;
        let copied = second.copies().saturating_sub(first.copies());
        second.rate = Some(copied as f64 / began.elapsed().as_secs_f64());
        Ok(second)
    }

    fn look(caller: &Caller, peer: &Location) -> Result<StoreStatus, Error> {
        let all = caller.call_within(PATIENCE, StoreSyncClient::new, peer, |p| p.get_all())?;
        let ring: HashRing<Location> = all.iter().filter_map(|l| l.try_into().ok()).collect();
        let asked: Vec<(&Location, f64)> = ring.shares();
        let mut nodes = side_by_side(&asked, SIDE_BY_SIDE, |(location, share)| {
            let told = caller.call_within(PATIENCE, StoreSyncClient::new, location, |p| {
                p.holdings(true)
            });
            NodeStatus {
                location: (*location).clone(),
                share: *share,
                is_original: told.as_ref().is_err_and(Error::is_unknown_method),
                holdings: told.ok(),
            }
        });
        nodes.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(StoreStatus { nodes, rate: None })
    }

    /// Is every node settled? Then the sudden end of all holders of a key but one loses nothing.
    pub fn is_settled(&self) -> bool {
        self.ours().all(|node| {
            node.holdings.as_ref().is_some_and(|held| {
                held.phase.map(Phase::from) == Some(Phase::Settled) && held.serving == Some(true)
            })
        })
    }

    /// Copies of keys that are in place.
    pub fn copies(&self) -> u64 {
        self.sum(|held| held.keys)
    }

    /// Copies of keys that there will be when all is settled.
    pub fn copies_to_be(&self) -> u64 {
        let replicas = self
            .held()
            .filter_map(|held| held.replicas)
            .max()
            .unwrap_or(1)
            .max(1) as u64;
        self.keys() * replicas.min(self.ours().count() as u64)
    }

    /// Keys in the store.
    pub fn keys(&self) -> u64 {
        self.sum(|held| held.as_primary)
    }

    /// The nodes that are none of the original.
    fn ours(&self) -> impl Iterator<Item = &NodeStatus> {
        self.nodes.iter().filter(|node| !node.is_original)
    }

    fn held(&self) -> impl Iterator<Item = &Holdings> {
        self.nodes.iter().filter_map(|node| node.holdings.as_ref())
    }

    fn sum(&self, count: impl Fn(&Holdings) -> Option<i64>) -> u64 {
        self.held().filter_map(count).sum::<i64>().max(0) as u64
    }

    /// One line: `settled`, or how far the moves are.
    pub fn summary(&self) -> String {
        let silent = self.ours().filter(|node| node.holdings.is_none()).count();
        if silent > 0 {
            return format!(
                "moving: {silent} of {} nodes do not answer",
                self.nodes.len()
            );
        }
        if self.is_settled() {
            return "settled".into();
        }
        let to_be = self.copies_to_be();
        let rate = self.rate.unwrap_or(0.0);
        format!(
            "moving: {} of {to_be} keys, {rate:.0}/s",
            self.copies().min(to_be)
        )
    }

    /// A table with a last line that sums it up.
    pub fn table(&self) -> String {
        let heads = [
            "LOCATION", "STATE", "PRIMARY", "KEYS", "BYTES", "RING", "OPEN", "CALLS",
        ];
        let heads = heads.map(str::to_owned);
        let rows: Vec<[String; COLUMNS]> = std::iter::once(heads)
            .chain(self.nodes.iter().map(NodeStatus::cells))
            .collect();
        let widths: [usize; COLUMNS] =
            std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
        let line = |row: &[String; COLUMNS]| {
            let [location, state, numbers @ ..] = row;
            let mut line = format!("{location:0$}  {state:1$}", widths[0], widths[1]);
            for (number, width) in numbers.iter().zip(&widths[2..]) {
                line += &format!("  {number:>width$}");
            }
            line + "\n"
        };
        let table: String = rows.iter().map(line).collect();
        let closings: String = self.nodes.iter().filter_map(NodeStatus::closings).collect();
        table + &closings + &self.summary() + "\n"
    }

    /// The same as one JSON object.
    pub fn json(&self) -> Value {
        json!({
            "settled": self.is_settled(),
            "keys": self.keys(),
            "copies": self.copies(),
            "copies_to_be": self.copies_to_be(),
            "keys_per_second": self.rate,
            "nodes": self.nodes.iter().map(NodeStatus::json).collect::<Vec<_>>(),
        })
    }
}

impl NodeStatus {
    fn state(&self) -> &'static str {
        let Some(held) = &self.holdings else {
            return if self.is_original {
                "original"
            } else {
                "no answer"
            };
        };
        if held.serving != Some(true) {
            return "joining";
        }
        match held.phase.map(Phase::from) {
            Some(Phase::Settled) => "settled",
            Some(Phase::Switched) => "switched",
            Some(Phase::Synced) => "synced",
            Some(Phase::Drained) => "copying",
            Some(Phase::Installed) | None => "draining",
        }
    }

    fn numbers(&self) -> BTreeMap<&'static str, i64> {
        let held = self.holdings.clone().unwrap_or_default();
        let numbers = [
            ("primary", held.as_primary),
            ("keys", held.keys),
            ("bytes", held.bytes),
        ];
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name, number?)))
            .collect()
    }

    /// What the node's server has counted, by names for people and programs.
    fn traffic(&self) -> BTreeMap<&'static str, i64> {
        let held = self.holdings.clone().unwrap_or_default();
        let traffic = held.traffic.unwrap_or_default();
        let counts = [
            ("open", traffic.open),
            ("opened", traffic.opened),
            ("calls", traffic.calls),
            ("crowded_out", traffic.crowded_out),
            ("address_full", traffic.address_full),
            ("idle", traffic.idle),
            ("garbage", traffic.garbage),
            ("slow", traffic.slow),
            ("long", traffic.long),
            ("exceptions", traffic.exceptions),
            ("unserved", traffic.unserved),
            ("failed_accepts", traffic.failed_accepts),
        ];
        counts
            .into_iter()
            .filter_map(|(name, count)| Some((name, count?)))
            .collect()
    }

    /// A line that tells which connections the node has closed, and why, if it has any.
    fn closings(&self) -> Option<String> {
        let traffic = self.traffic();
        let told: Vec<String> = CLOSINGS
            .iter()
            .filter_map(|(name, words)| Some((*traffic.get(name)?, words)))
            .filter(|(count, _)| *count > 0)
            .map(|(count, words)| format!("{count} {words}"))
            .collect();
        let told = told.join(", ");
        (!told.is_empty()).then(|| format!("{} closed connections: {told}\n", self.location))
    }

    fn cells(&self) -> [String; COLUMNS] {
        let mut numbers = self.numbers();
        numbers.extend(self.traffic());
        let number = |name| {
            numbers
                .get(name)
                .map_or_else(|| "-".to_owned(), i64::to_string)
        };
        [
            self.location.to_string(),
            self.state().to_owned(),
            number("primary"),
            number("keys"),
            number("bytes"),
            format!("{:.1} %", self.share * 100.0),
            number("open"),
            number("calls"),
        ]
    }

    fn json(&self) -> Value {
        let numbers = self.numbers();
        json!({
            "location": self.location.name(),
            "state": self.state(),
            "as_primary": numbers.get("primary"),
            "keys": numbers.get("keys"),
            "bytes": numbers.get("bytes"),
            "share": self.share,
            "traffic": self.traffic(),
        })
    }
}
