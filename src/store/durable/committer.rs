//! `Disk`: brings changes to disk, many in one sync.
//!
//! One thread takes all changes that wait, appends them as one batch, syncs once, and wakes those
//! that wait for them. While it syncs, the next batch gathers.
//!
//! The disk is the shadow of the table: a change is left out if a newer entry of its key is in the
//! table or is being written, because the change of that entry has been appended or will be. So the
//! order in which threads append does not matter.
//!
//! A write or a sync that fails ends the node. It is never repeated: what the system has dropped
//! after a failed sync would seem to be on disk. A disk that does not answer for long ends the node
//! as well: its network goes on without it. So that a full disk does not end the node, writes are
//! refused while little room is left.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::warn;
use nix::sys::statvfs::statvfs;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::engine::{Engine, SyncMode};
use super::row::Change;
use crate::store::placement::Key;
use crate::store::types::Refusal;

/// The most bytes that wait. Who appends more waits until they are less.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// A disk that has not answered for so long never will.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// It is given up after so many looks in that time, so that a pause of this process counts as one.
const LOOKS: u32 = 30;

/// How often the end of the committer is looked for.
const POLL: Duration = Duration::from_millis(5);

/// The most time between two looks at the free space.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The most time between two syncs with [`SyncMode::Interval`].
const INTERVAL: Duration = Duration::from_secs(1);

/// Free bytes of the disk that are left for what was accepted: journals, and tables that are merged.
const RESERVE: u64 = 64 * 1024 * 1024;

/// The version of the newest entry of a key that is in the table or is being written. 0 for none.
pub type Newest = dyn Fn(Key<'_>) -> i64 + Send + Sync;

/// Is told once why changes cannot be brought to disk. Called from the committer's thread, or from
/// one that waits for it.
pub type OnFailure = dyn Fn(String) + Send + Sync;

/// Names a place in the order of changes, to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticket(u64);

impl Ticket {
    /// Later than all others.
    pub const LAST: Ticket = Ticket(u64::MAX);
}

/// Brings changes to disk, or does nothing where there is no directory. Shared by threads.
#[derive(Default)]
pub struct Disk {
    committer: Option<Arc<Committer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a disk has done and has still to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskStats {
    /// Syncs.
    pub syncs: u64,
    /// The time that they took.
    pub sync_nanos: u64,
    /// Bytes of changes that were written, without what the engine adds.
    pub written: u64,
    /// Bytes of changes that wait.
    pub waiting: u64,
    /// Bytes of the file system that were free at the last look.
    pub free: u64,
}

struct Committer {
    engine: Arc<dyn Engine>,
    sync: SyncMode,
    newest: Box<Newest>,
    on_failure: Box<OnFailure>,
    patience: Duration,
    /// Held to add or to take changes, never while they are written.
    queue: Mutex<Queue>,
    /// Notified when there is something to do.
    appended: Condvar,
    /// Notified when changes are on disk, and when that has failed.
    committed: Condvar,
    has_failed: AtomicBool,
    path: PathBuf,
    /// Bytes that were appended here, and not to the engine.
    pending: AtomicU64,
    syncs: AtomicU64,
    sync_nanos: AtomicU64,
    written: AtomicU64,
    /// Free bytes of the file system at the last look.
    free: AtomicU64,
    /// There was little room then.
    is_full: AtomicBool,
}

#[derive(Default)]
struct Queue {
    changes: Vec<Change>,
    bytes: usize,
    /// The last change that was appended, and the last one that is on disk.
    last: Ticket,
    done: Ticket,
    /// Somebody waits for a sync.
    must_sync: bool,
    is_closed: bool,
}

/// What the committer has taken from the queue.
struct Taken {
    changes: Vec<Change>,
    bytes: usize,
    last: Ticket,
    must_sync: bool,
    is_closed: bool,
}

impl Disk {
    /// Starts the committer's thread for the engine, whose files are at `path`, and which may take
    /// as long as `patience` for a batch.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        engine: Arc<dyn Engine>,
        path: &Path,
        sync: SyncMode,
        patience: Duration,
        newest: Box<Newest>,
        on_failure: Box<OnFailure>,
    ) -> io::Result<Disk> {
        let committer = Arc::new(Committer {
            engine,
            sync,
            newest,
            on_failure,
            patience,
            queue: Mutex::default(),
            appended: Condvar::new(),
            committed: Condvar::new(),
            has_failed: AtomicBool::new(false),
            path: path.to_owned(),
            pending: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_nanos: AtomicU64::new(0),
            written: AtomicU64::new(0),
            free: AtomicU64::new(u64::MAX),
            is_full: AtomicBool::new(false),
        });
        let running = committer.clone();
        let thread = thread::Builder::new().name("committer".into());
        let thread = thread.spawn(move || {
            let run = catch_unwind(AssertUnwindSafe(|| running.run()));
            let panicked = |_| Err(io::Error::other("the database has panicked"));
            if let Err(e) = run.unwrap_or_else(panicked) {
                running.fail(e.to_string());
            }
        })?;
        Ok(Disk {
            committer: Some(committer),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Is there a directory?
    pub fn is_durable(&self) -> bool {
        self.committer.is_some()
    }

    /// What it has done; None where there is no directory. Never blocks.
    pub fn stats(&self) -> Option<DiskStats> {
        let committer = self.committer.as_ref()?;
        Some(DiskStats {
            syncs: committer.syncs.load(Relaxed),
            sync_nanos: committer.sync_nanos.load(Relaxed),
            written: committer.written.load(Relaxed),
            waiting: committer.pending.load(Relaxed),
            free: committer.free.load(Relaxed),
        })
    }

    /// Can changes be brought to disk, as far as is known? Never blocks.
    pub fn is_working(&self) -> bool {
        let mut committer = self.committer.iter();
        committer.all(|committer| !committer.has_failed.load(Acquire))
    }

    /// Adds changes. Blocks only while very many wait, until the disk is given up at most.
    pub fn append(&self, changes: impl IntoIterator<Item = Change>) -> Ticket {
        let Some(committer) = &self.committer else {
            return Ticket::default();
        };
        let changes: Vec<Change> = changes.into_iter().collect();
        if changes.is_empty() {
            return Ticket::default();
        }
        let mut queue = committer.queue.lock();
        committer.wait_while(&mut queue, |queue| queue.bytes > MAX_WAITING);
        let bytes = changes.iter().map(Change::size).sum::<usize>();
        queue.bytes += bytes;
        committer.pending.fetch_add(bytes as u64, Relaxed);
        queue.changes.extend(changes);
        queue.last.0 += 1;
        let ticket = queue.last;
        drop(queue);
        committer.appended.notify_one();
        ticket
    }

    /// Waits until that change is on disk. False if it is not and never will be. Blocks for a sync
    /// or two, until the disk is given up at most.
    pub fn wait(&self, ticket: Ticket) -> bool {
        let Some(committer) = &self.committer else {
            return true;
        };
        committer.wait_while(&mut committer.queue.lock(), |queue| queue.done < ticket)
    }

    /// Syncs all that was appended before, whatever the mode. False if that fails. Blocks for a
    /// sync or two.
    pub fn sync(&self) -> bool {
        let Some(committer) = &self.committer else {
            return true;
        };
        let mut queue = committer.queue.lock();
        queue.must_sync = true;
        queue.last.0 += 1;
        let ticket = queue.last;
        drop(queue);
        committer.appended.notify_one();
        self.wait(ticket)
    }

    /// Is there room for more? Never blocks.
    ///
    /// # Errors
    /// The disk is nearly full.
    pub fn check_room(&self) -> Result<(), Refusal> {
        match &self.committer {
            Some(committer) if committer.is_full() => Err(format!(
                "the disk of {} is full: writes are refused until there is room",
                committer.path.display()
            )),
            _ => Ok(()),
        }
    }

    /// Brings all changes to disk and ends the thread. Leaves a disk behind that is given up.
    pub fn close(&self) {
        let thread = self.thread.lock().take();
        let (Some(committer), Some(thread)) = (&self.committer, thread) else {
            return;
        };
        committer.queue.lock().is_closed = true;
        committer.appended.notify_one();
        let deadline = Instant::now() + committer.patience;
        let is_given_up = || committer.has_failed.load(Acquire) || Instant::now() >= deadline;
        while !thread.is_finished() && !is_given_up() {
            thread::sleep(POLL);
        }
    }
}

impl Committer {
    /// Waits while the queue is like that. False if the disk cannot be used any more.
    fn wait_while(
        &self,
        queue: &mut MutexGuard<'_, Queue>,
        is_waiting: impl Fn(&Queue) -> bool,
    ) -> bool {
        let mut looks = 0;
        while is_waiting(queue) && !self.has_failed.load(Acquire) {
            let done = queue.done;
            let waited = self.committed.wait_for(queue, self.patience / LOOKS);
            looks = match queue.done == done {
                true => looks + u32::from(waited.timed_out()),
                false => 0,
            };
            if looks == LOOKS {
                let (path, patience) = (self.path.display(), self.patience);
                let reason = format!("the disk of {path} has not answered for {patience:?}");
                MutexGuard::unlocked(queue, || self.fail(reason));
            }
        }
        !is_waiting(queue)
    }

    /// Ends all waits: nothing comes to disk any more.
    fn fail(&self, reason: String) {
        if !self.has_failed.swap(true, AcqRel) {
            (self.on_failure)(reason);
        }
        drop(self.queue.lock());
        self.committed.notify_all();
    }

    fn run(&self) -> io::Result<()> {
        let mut unsynced_since: Option<Instant> = None;
        loop {
            self.look();
            let sync_at = unsynced_since.map(|since| since + INTERVAL);
            let look_at = Instant::now() + LOOK_INTERVAL;
            let taken = self.take(sync_at.map_or(look_at, |at| at.min(look_at)));
            let is_over = taken.is_closed && taken.changes.is_empty();
            let changes = self.effective(taken.changes);
            if !changes.is_empty() {
                let bytes = changes.iter().map(Change::size).sum::<usize>();
                self.engine.append(changes)?;
                self.written.fetch_add(bytes as u64, Relaxed);
                unsynced_since.get_or_insert_with(Instant::now);
            }
            self.pending.fetch_sub(taken.bytes as u64, Relaxed);
            let is_due = match self.sync {
                SyncMode::Always => true,
                SyncMode::Interval => sync_at.is_some_and(|at| at <= Instant::now()),
            };
            if (is_due || taken.must_sync || is_over) && unsynced_since.take().is_some() {
                let began = Instant::now();
                self.engine.sync()?;
                let nanos = began.elapsed().as_nanos() as u64;
                self.sync_nanos.fetch_add(nanos, Relaxed);
                self.syncs.fetch_add(1, Relaxed);
            }
            self.queue.lock().done = taken.last;
            self.committed.notify_all();
            if is_over {
                return Ok(());
            }
        }
    }

    /// Waits for changes until that time at most, and takes all of them.
    fn take(&self, until: Instant) -> Taken {
        let mut queue = self.queue.lock();
        while queue.last == queue.done && !queue.is_closed {
            if self.appended.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        Taken {
            changes: std::mem::take(&mut queue.changes),
            bytes: std::mem::take(&mut queue.bytes),
            last: queue.last,
            must_sync: std::mem::take(&mut queue.must_sync),
            is_closed: queue.is_closed,
        }
    }

    /// The changes that have an effect: the last one of each key, unless the table has a newer entry.
    fn effective(&self, mut changes: Vec<Change>) -> Vec<Change> {
        changes.retain(|change| {
            let newest = (self.newest)(change.table_key());
            match change.row {
                Some(_) => newest <= change.version,
                None => newest == 0,
            }
        });
        changes.sort_by(|one, other| (&one.key, one.version).cmp(&(&other.key, other.version)));
        changes.reverse();
        changes.dedup_by(|one, last| one.key == last.key);
        changes
    }

    /// Looks how many bytes of the file system are free.
    fn look(&self) {
        if let Ok(disk) = statvfs(&self.path) {
            let free = disk.blocks_available() * disk.fragment_size();
            self.free.store(free, Relaxed);
        }
        let (is_full, path) = (self.is_full(), self.path.display());
        match (self.is_full.swap(is_full, Relaxed), is_full) {
            (false, true) => warn!("the disk of {path} is nearly full: writes are refused"),
            (true, false) => warn!("the disk of {path} has room again"),
            _ => (),
        }
    }

    /// Is little room left, beside what is going to be written?
    fn is_full(&self) -> bool {
        self.free.load(Relaxed) < RESERVE + self.pending.load(Relaxed)
    }
}

#[cfg(test)]
mod tests;
