//! Looks for damage that fjall passes over, before fjall opens its files.
//!
//! **Manifests.** The file `current` of a keyspace names the list of its tables, with a checksum that
//! fjall writes and does not compare.
//!
//! **Journals.** Fjall takes the first batch of a journal that it cannot read for its torn end, and drops all that
//! follows, or does not open at all. Where every batch is synced before the next one is appended, a
//! power cut can tear only the last one. So a batch that can be read behind one that cannot shows
//! damage, which must not pass in silence; without one, the rest is dropped here, and told.
//!
//! A journal is a sequence of batches, then zeros. A batch is a start (a tag, the number of its items,
//! its sequence number), its items, and an end (a tag, the checksum of the items, a mark). These are
//! fjall's, of its format 3.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use log::warn;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::plural::counted;

/// The directory of the keyspaces.
const KEYSPACES: &str = "keyspaces";

/// In a keyspace, the directory of its tables.
const TABLES: &str = "tables";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// The end of a batch.
const MARK: &[u8] = b"FJL\x03";

/// Bytes of a start after its tag, and of an item before its key.
const START_LENGTH: usize = 12;
const ITEM_HEAD: usize = 20;

/// Checks the manifests and journals of a database, and drops a torn end. `is_synced`: every batch was synced before
/// the next one was appended. Returns whether there are entries in it.
///
/// # Errors
/// A file is damaged, or cannot be read or cut.
pub fn check(database: &Path, is_synced: bool) -> io::Result<bool> {
    if !database.exists() {
        return Ok(false);
    }
    let mut has_tables = false;
    if database.join(KEYSPACES).exists() {
        for keyspace in fs::read_dir(database.join(KEYSPACES))? {
            let keyspace = keyspace?.path();
            check_manifest(&keyspace)?;
            let tables = fs::read_dir(keyspace.join(TABLES));
            has_tables |= tables.is_ok_and(|mut tables| tables.next().is_some());
        }
    }
    let mut journals = Vec::new();
    for file in fs::read_dir(database)? {
        let path = file?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            journals.push((number, path));
        }
    }
    let last = journals.iter().map(|(number, _)| *number).max();
    let mut has_entries = has_tables;
    for (number, path) in &journals {
        // The others were synced when they were full.
        has_entries |= check_journal(path, is_synced, Some(*number) == last)?;
    }
    Ok(has_entries)
}

fn check_manifest(keyspace: &Path) -> io::Result<()> {
    // The number of the list, its checksum, and the kind of that.
    let Ok(current) = fs::read(keyspace.join("current")) else {
        // Its creation was not completed.
        return Ok(());
    };
    let damaged = |file: &Path| io::Error::other(format!("{} is damaged", file.display()));
    let parts = current.split_first_chunk::<8>().and_then(|(number, rest)| {
        let (checksum, kind) = rest.split_first_chunk::<16>()?;
        (kind == [0]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
    });
    let (number, checksum) = parts.ok_or_else(|| damaged(&keyspace.join("current")))?;
    let manifest = keyspace.join(format!("v{number}"));
    let bytes = fs::read(&manifest).map_err(|_| damaged(&keyspace.join("current")))?;
    match xxh3_128(&bytes) == checksum {
        true => Ok(()),
        false => Err(damaged(&manifest)),
    }
}

fn check_journal(path: &Path, is_synced: bool, is_last: bool) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    let mut at = 0;
    while let Some(length) = batch_length(&bytes[at..]) {
        at += length;
    }
    let rest = &bytes[at..];
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
        return Ok(at > 0);
    };
    // What begins where another batch has ended, or may have.
    let ends = rest.windows(MARK.len()).enumerate();
    let mut ends = ends.filter(|(_, bytes)| *bytes == MARK);
    let has_batch = ends.any(|(end, _)| batch_length(&rest[end + MARK.len()..]).is_some());
    let path_shown = path.display();
    if !is_last || (has_batch && is_synced) {
        return Err(io::Error::other(format!(
            "{path_shown} is damaged at byte {at}"
        )));
    }
    let dropped = counted(last + 1, "byte");
    warn!("{path_shown}: dropped {dropped} of an incomplete write at its end");
    let file = File::options().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()?;
    Ok(at > 0)
}

/// The length of the batch at the start of these bytes. None if there is none that is complete.
fn batch_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    if take(1)? != [START] {
        return None;
    }
    let start = take(START_LENGTH)?;
    let items = u32::from_le_bytes(*start.first_chunk()?);
    let mut checksum = Xxh3::new();
    for _ in 0..items {
        let tag = take(1)?;
        checksum.update(tag);
        let length = match tag {
            [ITEM] => {
                let head = take(ITEM_HEAD)?;
                checksum.update(head);
                let key = u16::from_le_bytes(*head[10..].first_chunk()?);
                let value = u32::from_le_bytes(*head[16..].first_chunk()?);
                usize::from(key) + value as usize
            }
            [CLEAR] => 8,
            _ => return None,
        };
        checksum.update(take(length)?);
    }
    let is_end = take(1)? == [END];
    let written = u64::from_le_bytes(*take(8)?.first_chunk()?);
    let is_complete = is_end && take(MARK.len())? == MARK && written == checksum.digest();
    is_complete.then_some(bytes.len() - rest.len())
}
