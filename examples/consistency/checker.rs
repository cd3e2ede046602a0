//! A load on a store whose every answer is checked.
//!
//! Each writer is the only one who writes its keys, and what it writes is a counter
//! that grows: so a reader can tell from an answer alone whether it is the last
//! acknowledged write of its key, one that was begun after it, or a stale one. Every
//! [`DELETES`]th write of a key is a deletion, of which "missing" is the answer.
//!
//! A call that is refused, or answered with an exception, is a failed call. A
//! connection that breaks is the client's own to mend, by calling another node, if
//! whoever runs the load has said before that this node goes ([`Nodes::goes`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::client::StoreClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;

/// Every so many writes of a key, it is deleted.
pub const DELETES: u64 = 7;

/// LogLimiter kept to be shown.
const SHOWN: usize = 20;

/// How long each thread pauses after a call: the load is there to be looked at, and
/// shall leave some of the machine to the nodes.
const PACE: Duration = Duration::from_millis(2);

/// How long a client tries to find a node that answers.
const SEARCH: Duration = Duration::from_secs(15);

/// What is under test: anything that keeps values for keys.
pub trait Keeps {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// A sentence that says who failed, and how.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Puts `value` for `key`, or, without one, deletes it.
    ///
    /// # Errors
    /// A sentence that says who failed, and how; the write may have taken effect.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String>;
}

/// What was written and what may be read, as counters of each key.
pub struct Ledger {
    keys: Vec<Account>,
}

struct Account {
    /// The counter of the last acknowledged write; 0 before the first one.
    acknowledged: AtomicU64,
    /// The counter of the last write that was begun.
    attempted: AtomicU64,
}

impl Ledger {
    /// Of so many keys, none of which was written.
    pub fn new(keys: usize) -> Ledger {
        let account = |_| Account {
            acknowledged: AtomicU64::new(0),
            attempted: AtomicU64::new(0),
        };
        Ledger {
            keys: (0..keys).map(account).collect(),
        }
    }

    /// The bytes of the key of this number; `name` keeps the keys of two loads apart.
    fn key(name: &str, number: usize) -> Vec<u8> {
        format!("{name} {number}").into_bytes()
    }

    /// What is wrong with an answer to a read that began when `floor` was acknowledged.
    fn complaint(&self, number: usize, floor: u64, found: Option<&[u8]>) -> Option<Complaint> {
        let ceiling = self.keys[number].attempted.load(SeqCst);
        let Some(found) = found else {
            let may_be_gone = floor == 0 || (floor..=ceiling).any(is_deletion);
            return (!may_be_gone).then(|| {
                Complaint::Missing(format!(
                    "nothing for key {number}, {floor} of which was acknowledged"
                ))
            });
        };
        let text = String::from_utf8_lossy(found);
        let counter = text.trim_end_matches('.').parse().unwrap_or(0);
        let fits = (floor..=ceiling).contains(&counter) && !is_deletion(counter);
        (!fits).then(|| {
            Complaint::Stale(format!(
                "{counter} for key {number}, {floor} of which was acknowledged and {ceiling} begun"
            ))
        })
    }

    fn floor(&self, number: usize) -> u64 {
        self.keys[number].acknowledged.load(SeqCst)
    }
}

enum Complaint {
    Missing(String),
    Stale(String),
}

/// Is this write of a key a deletion?
fn is_deletion(counter: u64) -> bool {
    counter.is_multiple_of(DELETES)
}

/// What is written: the counter, with some dots to make it a value of a usual length.
fn value(counter: u64) -> Vec<u8> {
    format!("{counter:.<60}").into_bytes()
}

/// What has come of a load so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Answers that there is nothing, where a value was acknowledged.
    pub missing: u64,
    /// Answers that were older than what was acknowledged, or never written.
    pub stale: u64,
    /// The longest time that a read took since the last [`Load::reset_stalls`].
    pub longest_read: Duration,
    /// The same of a write.
    pub longest_write: Duration,
    /// The first complaints and failures, for a person to read.
    pub complaints: Vec<String>,
}

impl Report {
    /// Nothing was lost, stale or refused.
    pub fn is_clean(&self) -> bool {
        self.failed + self.missing + self.stale == 0
    }
}

/// Counts what comes of calls; shared by threads.
#[derive(Default)]
struct Figures {
    report: Mutex<Report>,
}

impl Figures {
    /// The figures; held for a moment.
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, took: Duration, complaint: Option<Complaint>) {
        let mut report = self.report();
        report.reads += 1;
        report.longest_read = report.longest_read.max(took);
        let text = match complaint {
            None => return,
            Some(Complaint::Missing(text)) => {
                report.missing += 1;
                text
            }
            Some(Complaint::Stale(text)) => {
                report.stale += 1;
                text
            }
        };
        complain(&mut report, text);
    }

    fn written(&self, took: Duration) {
        let mut report = self.report();
        report.writes += 1;
        report.longest_write = report.longest_write.max(took);
    }

    fn failed(&self, what: String) {
        let mut report = self.report();
        report.failed += 1;
        complain(&mut report, what);
    }
}

fn complain(report: &mut Report, text: String) {
    if report.complaints.len() < SHOWN {
        report.complaints.push(text);
    }
}

/// One writer's part: keys `first..first + count`, one write after another in turn.
struct Writer {
    first: usize,
    count: usize,
    turn: usize,
}

impl Writer {
    fn step(&mut self, name: &str, ledger: &Ledger, figures: &Figures, store: &mut impl Keeps) {
        let number = self.first + self.turn % self.count;
        self.turn += 1;
        let account = &ledger.keys[number];
        let counter = account.attempted.load(SeqCst) + 1;
        account.attempted.store(counter, SeqCst);
        let written = value(counter);
        let written = (!is_deletion(counter)).then_some(&written[..]);
        let began = Instant::now();
        match store.put(&Ledger::key(name, number), written) {
            Ok(()) => {
                account.acknowledged.store(counter, SeqCst);
                figures.written(began.elapsed());
            }
            Err(e) => figures.failed(format!(
                "write {counter} of key {number} after {:.3} s: {e}",
                began.elapsed().as_secs_f64()
            )),
        }
    }
}

/// One read, checked.
fn check(name: &str, number: usize, ledger: &Ledger, figures: &Figures, store: &mut impl Keeps) {
    let floor = ledger.floor(number);
    let began = Instant::now();
    match store.get(&Ledger::key(name, number)) {
        Ok(found) => {
            let complaint = ledger.complaint(number, floor, found.as_deref());
            figures.read(began.elapsed(), complaint);
        }
        Err(e) => figures.failed(format!(
            "read of key {number} after {:.3} s: {e}",
            began.elapsed().as_secs_f64()
        )),
    }
}

/// Threads that write and read, and look at every answer, until they are stopped.
pub struct Load {
    name: String,
    ledger: Arc<Ledger>,
    figures: Arc<Figures>,
    stopped: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Keys of each writer.
    const KEYS: usize = 25;

    /// Starts so many writers and readers, each on a store of its own that `connect` makes.
    pub fn start<S: Keeps + Send + 'static>(
        name: &str,
        writers: usize,
        readers: usize,
        connect: impl Fn() -> S,
    ) -> Load {
        let mut load = Load {
            name: name.to_owned(),
            ledger: Arc::new(Ledger::new(writers * Load::KEYS)),
            figures: Arc::default(),
            stopped: Arc::default(),
            threads: Vec::new(),
        };
        for index in 0..writers {
            let mut writer = Writer {
                first: index * Load::KEYS,
                count: Load::KEYS,
                turn: 0,
            };
            load.spawn(connect(), move |name, ledger, figures, store| {
                writer.step(name, ledger, figures, store);
            });
        }
        for index in 0..readers {
            let mut turn = index * 37;
            load.spawn(connect(), move |name, ledger, figures, store| {
                turn += 1;
                check(name, turn % ledger.keys.len(), ledger, figures, store);
            });
        }
        load
    }

    fn spawn<S: Keeps + Send + 'static>(
        &mut self,
        mut store: S,
        mut step: impl FnMut(&str, &Ledger, &Figures, &mut S) + Send + 'static,
    ) {
        let name = self.name.clone();
        let (ledger, figures) = (self.ledger.clone(), self.figures.clone());
        let stopped = self.stopped.clone();
        self.threads.push(thread::spawn(move || {
            while !stopped.load(Relaxed) {
                step(&name, &ledger, &figures, &mut store);
                thread::sleep(PACE);
            }
        }));
    }

    /// What has come of it so far.
    pub fn report(&self) -> Report {
        self.figures.report().clone()
    }

    /// Forgets the longest calls, to find the longest from now on; tells what they were.
    pub fn reset_stalls(&self) -> (Duration, Duration) {
        let mut report = self.figures.report();
        let longest = (report.longest_read, report.longest_write);
        (report.longest_read, report.longest_write) = (Duration::ZERO, Duration::ZERO);
        longest
    }

    /// The counter of the last acknowledged write of the key of this number.
    pub fn acknowledged(&self, number: usize) -> u64 {
        self.ledger.floor(number)
    }

    /// How many keys the load has.
    pub fn keys(&self) -> usize {
        self.ledger.keys.len()
    }

    /// Reads one key of the load, by its number, at a store of the dialer's choice, and
    /// checks the answer as any other. A failure is the dialer's to judge, and so is
    /// the time it takes.
    ///
    /// # Errors
    /// What the store said when it failed.
    pub fn check_at(&self, number: usize, store: &mut impl Keeps) -> Result<(), String> {
        let floor = self.ledger.floor(number);
        let found = store.get(&self.key(number))?;
        let complaint = self.ledger.complaint(number, floor, found.as_deref());
        self.figures.read(Duration::ZERO, complaint);
        Ok(())
    }

    /// The key of the load of this number.
    pub fn key(&self, number: usize) -> Vec<u8> {
        Ledger::key(&self.name, number)
    }

    /// Ends the load; waits for the calls under way.
    pub fn stop(&mut self) {
        self.stopped.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the load does not panic");
        }
    }

    /// Ends the load and reads every key once more at each of `stores`; the whole report.
    pub fn finish<S: Keeps>(mut self, stores: impl IntoIterator<Item = S>) -> Report {
        self.stop();
        for mut store in stores {
            for number in 0..self.ledger.keys.len() {
                check(&self.name, number, &self.ledger, &self.figures, &mut store);
            }
        }
        self.report()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

/// The nodes that clients may call.
#[derive(Clone, Default)]
pub struct Nodes {
    listed: Arc<Mutex<Listed>>,
}

#[derive(Default)]
struct Listed {
    /// By a number each: a node that is started again is another one.
    nodes: BTreeMap<u64, Entry>,
    next: u64,
    /// Nobody tells before a node goes: whoever is out of reach has gone.
    forgiving: bool,
}

struct Entry {
    location: Location,
    /// Its process is about to end: no new client shall choose it, and a connection to
    /// it may break.
    goes: bool,
    /// Nobody shall call it.
    avoided: bool,
    /// Calls under way.
    calls: usize,
}

impl Nodes {
    /// These nodes.
    pub fn new(locations: impl IntoIterator<Item = Location>) -> Nodes {
        let nodes = Nodes::default();
        for location in locations {
            nodes.add(location);
        }
        nodes
    }

    /// These nodes, of whom nobody tells that they go before they do: a connection
    /// that breaks is never a failed call, as long as another node answers.
    pub fn forgiving(locations: impl IntoIterator<Item = Location>) -> Nodes {
        let nodes = Nodes::new(locations);
        nodes.listed().forgiving = true;
        nodes
    }

    /// Where clients may call.
    pub fn locations(&self) -> Vec<Location> {
        let listed = self.listed();
        listed
            .nodes
            .values()
            .map(|entry| entry.location.clone())
            .collect()
    }

    /// From now on, these nodes may be called and no others.
    pub fn replace(&self, locations: impl IntoIterator<Item = Location>) {
        let wanted: Vec<Location> = locations.into_iter().collect();
        for known in self.locations() {
            if !wanted.contains(&known) {
                self.avoid(&known);
            }
        }
        let known = self.locations();
        for location in wanted.into_iter().filter(|wanted| !known.contains(wanted)) {
            self.add(location);
        }
    }

    /// One more node; the number by which it is known here.
    pub fn add(&self, location: Location) -> u64 {
        let mut listed = self.listed();
        listed.next += 1;
        let number = listed.next;
        let entry = Entry {
            location,
            goes: false,
            avoided: false,
            calls: 0,
        };
        listed.nodes.insert(number, entry);
        number
    }

    /// The process at `location` is about to end. Who calls it goes on until the
    /// connection breaks.
    pub fn goes(&self, location: &Location) {
        for entry in self.listed().nodes.values_mut() {
            entry.goes |= entry.location == *location;
        }
    }

    /// The node at `location` shall not be called any more; are calls still under way to it?
    pub fn avoid(&self, location: &Location) -> bool {
        let mut listed = self.listed();
        for entry in listed.nodes.values_mut() {
            entry.avoided |= entry.location == *location;
        }
        listed.nodes.retain(|_, e| !e.avoided || e.calls > 0);
        listed.nodes.values().any(|e| e.location == *location)
    }

    /// Begins a call: at the node of that number if it is still there, else at another one.
    fn begin(&self, used: u64, choice: u64) -> Option<(u64, Location)> {
        let mut listed = self.listed();
        let stays = |entry: &Entry| !entry.goes && !entry.avoided;
        let number = if listed.nodes.get(&used).is_some_and(|e| !e.avoided) {
            used
        } else {
            let open: Vec<u64> = listed
                .nodes
                .iter()
                .filter(|(_, entry)| stays(entry))
                .map(|(number, _)| *number)
                .collect();
            *open.get(choice as usize % open.len().max(1))?
        };
        let entry = listed.nodes.get_mut(&number)?;
        entry.calls += 1;
        Some((number, entry.location.clone()))
    }

    /// Ends a call; was the node about to go? If it is, and is out of reach, it is gone.
    fn end(&self, number: u64, unreachable: bool) -> bool {
        let mut listed = self.listed();
        let forgiving = listed.forgiving;
        let Some(entry) = listed.nodes.get_mut(&number) else {
            return true;
        };
        entry.calls -= 1;
        let goes = entry.goes || forgiving;
        if goes && unreachable {
            entry.avoided = true;
        }
        if entry.avoided && entry.calls == 0 {
            listed.nodes.remove(&number);
        }
        goes
    }

    /// Who may be called; held for a moment.
    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client of a store, through any of its nodes.
pub struct AnyNode {
    dialer: Dialer,
    nodes: Nodes,
    used: u64,
    /// Draws which node is called next.
    choice: u64,
    client: Option<StoreClient>,
    /// Calls until another node is chosen.
    left: u32,
}

/// A client stays with a node for so many calls.
const STAYS: u32 = 50;

impl AnyNode {
    /// A client that calls one of `nodes` and sometimes another; `choice` says which first.
    pub fn new(nodes: Nodes, choice: u64) -> AnyNode {
        AnyNode::of(Dialer::default(), nodes, choice)
    }

    /// The same of a dialer that may have an identity.
    pub fn of(dialer: Dialer, nodes: Nodes, choice: u64) -> AnyNode {
        AnyNode {
            dialer,
            nodes,
            used: 0,
            choice,
            client: None,
            left: STAYS,
        }
    }

    fn call<T>(&mut self, call: impl Fn(&StoreClient) -> Result<T, Error>) -> Result<T, String> {
        self.left -= 1;
        if self.left == 0 {
            self.left = STAYS;
            self.used = 0;
            self.choice += 1;
        }
        let deadline = Instant::now() + SEARCH;
        loop {
            let Some((number, location)) = self.nodes.begin(self.used, self.choice) else {
                if Instant::now() > deadline {
                    return Err("no node is left to be called".into());
                }
                thread::sleep(PACE);
                continue;
            };
            if number != self.used {
                self.client = None;
                self.used = number;
            }
            let client = self
                .client
                .get_or_insert_with(|| StoreClient::of(self.dialer.clone(), location));
            let outcome = call(client);
            let unreachable = outcome.as_ref().err().is_some_and(Error::is_unreachable);
            let goes = self.nodes.end(number, unreachable);
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(_) if unreachable && goes => {
                    self.used = 0;
                    self.choice += 1;
                }
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}

impl Keeps for AnyNode {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.call(|client| client.get(key))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        self.call(|client| match value {
            Some(value) => client.put(key, value),
            None => client.delete(key).map(|_| ()),
        })
    }
}

impl Keeps for StoreClient {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        StoreClient::get(self, key).map_err(|e| e.to_string())
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        match value {
            Some(value) => StoreClient::put(self, key, value),
            None => self.delete(key).map(|_| ()),
        }
        .map_err(|e| e.to_string())
    }
}
