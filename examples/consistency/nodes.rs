//! `Nodes`: the nodes of a store that clients may call.
//!
//! A test, or the user, stops and kills nodes while clients call them. From `Nodes`, a client learns
//! which nodes it may call, and whether a failed call to a node is a fault of the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use thrifty_p2p::location::Location;

/// The nodes that clients may call. A cheap handle; clones share the nodes.
#[derive(Clone, Default)]
pub struct Nodes {
    /// Held briefly, never during a call.
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// The nodes by their number. A node that restarts gets a new number.
    nodes: BTreeMap<u64, Entry>,
    /// The last number in use.
    last: u64,
    /// Every node may exit at any time.
    all_may_exit: bool,
    /// From this time on no node may be called. None: there is no such time.
    closes_at: Option<Instant>,
}

struct Entry {
    location: Location,
    /// The node is about to exit: calls to it may fail, and no client chooses it.
    may_exit: bool,
    /// No client calls the node. The entry is removed after the last call in flight.
    is_excluded: bool,
    /// Calls in flight.
    calls: usize,
}

impl Nodes {
    /// Nodes that exit only after [`expect_exit`](Nodes::expect_exit).
    pub fn new(locations: impl IntoIterator<Item = Location>) -> Nodes {
        let nodes = Nodes::default();
        for location in locations {
            nodes.add(location);
        }
        nodes
    }

    /// Nodes that may exit at any time. A lost connection is never a failed call, as long as
    /// another node can be called.
    pub fn that_may_exit(locations: impl IntoIterator<Item = Location>) -> Nodes {
        let nodes = Nodes::new(locations);
        nodes.table.lock().all_may_exit = true;
        nodes
    }

    /// The locations of all nodes.
    pub fn locations(&self) -> Vec<Location> {
        let table = self.table.lock();
        let locations = table.nodes.values().map(|entry| entry.location.clone());
        locations.collect()
    }

    /// Replaces the nodes. Nodes that stay keep their number.
    pub fn replace(&self, locations: impl IntoIterator<Item = Location>) {
        let wanted: Vec<Location> = locations.into_iter().collect();
        for known in self.locations() {
            if !wanted.contains(&known) {
                self.exclude(&known);
            }
        }
        let known = self.locations();
        for location in wanted.into_iter().filter(|wanted| !known.contains(wanted)) {
            self.add(location);
        }
    }

    /// Adds a node. Returns its number.
    pub fn add(&self, location: Location) -> u64 {
        let mut table = self.table.lock();
        table.last += 1;
        let number = table.last;
        let entry = Entry {
            location,
            may_exit: false,
            is_excluded: false,
            calls: 0,
        };
        table.nodes.insert(number, entry);
        number
    }

    /// Marks the node at `location`, because its process is about to exit. Clients that call it
    /// continue until they lose the connection.
    pub fn expect_exit(&self, location: &Location) {
        for entry in self.table.lock().nodes.values_mut() {
            entry.may_exit |= entry.location == *location;
        }
    }

    /// Excludes the node at `location` from new calls. Returns whether calls to it are in flight.
    pub fn exclude(&self, location: &Location) -> bool {
        let mut table = self.table.lock();
        for entry in table.nodes.values_mut() {
            entry.is_excluded |= entry.location == *location;
        }
        table.nodes.retain(|_, e| !e.is_excluded || e.calls > 0);
        table.nodes.values().any(|e| e.location == *location)
    }

    /// From this time on no node may be called, and nobody waits for one.
    pub fn close_at(&self, at: Instant) {
        self.table.lock().closes_at = Some(at);
    }

    pub(super) fn is_closed(&self) -> bool {
        let closes_at = self.table.lock().closes_at;
        closes_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Starts a call: to the node `current` if it may be called, otherwise to another one, which
    /// `choice` selects. Returns its number and location. None if no node may be called.
    pub(super) fn start_call(
        &self,
        current: Option<u64>,
        choice: usize,
    ) -> Option<(u64, Location)> {
        let mut table = self.table.lock();
        let number = match current.filter(|number| table.is_callable(*number)) {
            Some(current) => current,
            None => table.choose(choice)?,
        };
        let entry = table.nodes.get_mut(&number)?;
        entry.calls += 1;
        Some((number, entry.location.clone()))
    }

    /// Ends a call. `unreachable`: there was no reply. Returns whether the node may have exited.
    /// If it may and there was no reply, the node is excluded.
    pub(super) fn end_call(&self, number: u64, unreachable: bool) -> bool {
        let mut table = self.table.lock();
        let all_may_exit = table.all_may_exit;
        let Some(entry) = table.nodes.get_mut(&number) else {
            return true;
        };
        entry.calls -= 1;
        let may_exit = entry.may_exit || all_may_exit;
        if may_exit && unreachable {
            entry.is_excluded = true;
        }
        if entry.is_excluded && entry.calls == 0 {
            table.nodes.remove(&number);
        }
        may_exit
    }
}

impl Table {
    /// May a client that calls this node continue to call it?
    fn is_callable(&self, number: u64) -> bool {
        let entry = self.nodes.get(&number);
        entry.is_some_and(|entry| !entry.is_excluded)
    }

    /// The number of a node that a client may choose. None if there is none.
    fn choose(&self, choice: usize) -> Option<u64> {
        let open = self.nodes.iter();
        let open = open.filter(|(_, entry)| !entry.may_exit && !entry.is_excluded);
        let open: Vec<u64> = open.map(|(number, _)| *number).collect();
        open.get(choice % open.len().max(1)).copied()
    }
}
