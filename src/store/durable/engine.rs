//! `Engine`: what keeps rows on disk, and its implementation by fjall.
//!
//! Fjall is a log-structured merge tree: a batch is appended to a journal, and one sync makes all
//! that was appended durable. Rows are ordered by md5, so every batch touches the whole range of
//! keys. Beside it redb, a copy-on-write tree, wrote 2,100 rows a second where fjall wrote 31,800,
//! in synced groups of eight rows of 100 bytes on one disk, because it writes a path of pages for
//! each row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{fs, io};

use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::damage;
use super::row::{Change, Stored, decode};
use crate::parallel::parallel_map;
use crate::store::table::STRIPES;

/// Bytes in memory of changes that are in the journal only.
pub const MEMTABLE: u64 = 8 * 1024 * 1024;

/// Bytes of blocks that are kept in memory. Rows are read at the start only.
const CACHE: u64 = 4 * 1024 * 1024;

/// The smallest limit that fjall takes for its journals.
const JOURNALS: u64 = 64 * 1024 * 1024;

/// Files that are kept open.
const OPEN_FILES: usize = 64;

/// Bytes of a block: rows are read one after the other.
const BLOCK: u32 = 16 * 1024;

/// Bytes of fjall's file `version`: three letters and a number.
const VERSION_LENGTH: usize = 4;

/// Threads that read rows at the start.
const READERS: usize = 8;

/// When changes are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Before anybody who waits for them continues.
    Always,
    /// Every second. A power cut may lose the last second, the end of the process nothing.
    Interval,
}

/// Takes an entry that was on disk. Called from several threads.
pub type OnStored<'a> = dyn Fn(Stored<'_>) + Sync + 'a;

/// Keeps rows on disk. All but `load` is called by one thread.
pub trait Engine: Send + Sync {
    /// Appends changes of different keys, all or none of them. They may be lost in a power cut, but
    /// not by the end of the process.
    ///
    /// # Errors
    /// What failed. The engine must not be used any more.
    fn append(&self, changes: Vec<Change>) -> io::Result<()>;

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// What failed. The engine must not be used any more.
    fn sync(&self) -> io::Result<()>;

    /// Passes all rows on, in no order.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    fn load(&self, on_stored: &OnStored<'_>) -> io::Result<()>;
}

/// Rows in a fjall database.
pub struct Fjall {
    path: PathBuf,
    database: Database,
    rows: Keyspace,
}

impl Fjall {
    /// Opens the database in that directory, which was `written` in that way, or creates one.
    /// `memtable` limits the bytes of the changes in memory.
    ///
    /// # Errors
    /// A file is damaged or cannot be read or written.
    pub fn open(path: &Path, written: SyncMode, memtable: u64) -> io::Result<Fjall> {
        let has_entries = damage::check(path, written == SyncMode::Always)?;
        // Fjall writes this file last when it creates a database: a power cut may leave a part of it.
        let version = fs::read(path.join("version")).unwrap_or_default();
        let is_created = version.len() >= VERSION_LENGTH && !version.contains(&0);
        if path.exists() && !is_created {
            if has_entries {
                return Err(failed("open", path)(
                    "the file version is missing or damaged",
                ));
            }
            fs::remove_dir_all(path)?;
        }
        let builder = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(1)
            .manual_journal_persist(true);
        // It panics on some kinds of damage.
        let opened = catch_unwind(AssertUnwindSafe(|| builder.open()));
        let opened = opened.map_err(|_| failed("open", path)("it is damaged"))?;
        let database = opened.map_err(failed("open", path))?;
        let options = move || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable)
                .manual_journal_persist(true)
                .filter_policy(FilterPolicy::disabled())
                .data_block_size_policy(BlockSizePolicy::all(BLOCK))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        };
        let rows = database.keyspace("rows", options);
        Ok(Fjall {
            rows: rows.map_err(failed("open", path))?,
            path: path.to_owned(),
            database,
        })
    }

    fn load_stripe(&self, stripe: usize, on_stored: &OnStored<'_>) -> io::Result<()> {
        for row in self.rows.prefix([stripe as u8]) {
            let (key, row) = row.into_inner().map_err(failed("read", &self.path))?;
            let stored = decode(&key, &row);
            on_stored(stored.ok_or_else(|| failed("read", &self.path)("a damaged row"))?);
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn append(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut batch = self.database.batch();
        for change in changes {
            match change.row {
                Some(row) => batch.insert(&self.rows, change.key, row),
                None => batch.remove(&self.rows, change.key),
            }
        }
        let appended = batch.durability(Some(PersistMode::Buffer)).commit();
        appended.map_err(failed("write to", &self.path))
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.database.persist(PersistMode::SyncData);
        synced.map_err(failed("sync", &self.path))
    }

    fn load(&self, on_stored: &OnStored<'_>) -> io::Result<()> {
        let stripes: Vec<usize> = (0..STRIPES).collect();
        let load = |stripe: &usize| self.load_stripe(*stripe, on_stored);
        let loaded = parallel_map(&stripes, READERS, load);
        if loaded.len() < STRIPES {
            return Err(failed("read", &self.path)("a reader has panicked"));
        }
        loaded.into_iter().collect()
    }
}

/// The error when something was done with the files at `path`.
fn failed<E: ToString>(done: &'static str, path: &Path) -> impl Fn(E) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::other(format!("cannot {done} {path}: {}", error.to_string()))
}
