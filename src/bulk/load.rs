//! `load`: writes the pairs of a file into a store.
//!
//! One thread reads lines and divides their pairs into batches; other threads, the senders,
//! write the batches. The point of a key determines its sender, so the lines of one key are
//! written one after another, and the last one wins.
//!
//! If a line is malformed, the lines before it are still written.

use std::io::BufRead;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use parking_lot::Mutex;

use super::progress::Progress;
use super::tsv::{decode, read_line};
use crate::client::ring::{Mutation, RingClient};
use crate::error::Error;
use crate::hash_ring::point;
use crate::store::placement::Key;

/// Sender threads, each for its share of the keys.
const SENDERS: usize = 4;

/// Bytes of lines in one batch.
const BATCH_SIZE: usize = 1024 * 1024;

/// Batches that wait for one sender.
const MAX_WAITING: usize = 1;

/// Why a load ended early.
#[derive(Debug)]
pub struct Stopped {
    /// The number of the malformed line, or of the first line of a failed write, from 1.
    pub line: u64,
    /// What is wrong with the line, or why the write failed.
    pub reason: Error,
}

/// Lines for one sender.
#[derive(Default)]
struct Batch {
    lines: Vec<Line>,
    /// Bytes of all lines.
    size: usize,
}

/// The pair of one line.
struct Line {
    number: u64,
    /// Bytes of the line, with its newline.
    size: usize,
    point: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Line {
    fn mutation(&self) -> Mutation<'_> {
        let (bytes, point) = (&self.key[..], self.point);
        (Key { bytes, point }, Some(&self.value))
    }
}

/// Writes every pair of `input` into the store. Blocks until all are stored. The progress counts
/// the lines that are stored and their bytes.
///
/// # Errors
/// Why the load ended early. Lines that are stored stay; the file may be loaded again.
pub fn load(client: &RingClient, input: impl BufRead, progress: &Progress) -> Result<(), Stopped> {
    let failure: Mutex<Option<Stopped>> = Mutex::new(None);
    let read = thread::scope(|scope| {
        let start_sender = |_| {
            let (sender, batches) = sync_channel::<Batch>(MAX_WAITING);
            let failure = &failure;
            scope.spawn(move || {
                let mut batches = batches.iter();
                let written = batches.try_for_each(|batch| write(client, &batch.lines, progress));
                if let Err(stopped) = written {
                    failure.lock().get_or_insert(stopped);
                }
            });
            sender
        };
        let senders: Vec<SyncSender<Batch>> = (0..SENDERS).map(start_sender).collect();
        read_batches(input, &senders)
    });
    failure.into_inner().map_or(read, Err)
}

/// Reads all lines and passes them to the senders in batches. Ends early if a sender has ended.
fn read_batches(mut input: impl BufRead, senders: &[SyncSender<Batch>]) -> Result<(), Stopped> {
    let mut batches: Vec<Batch> = senders.iter().map(|_| Batch::default()).collect();
    let mut text = Vec::new();
    let mut number = 0;
    let result = loop {
        number += 1;
        let line = match next_line(&mut input, &mut text, number) {
            Ok(Some(line)) => line,
            Ok(None) => break Ok(()),
            Err(reason) => {
                break Err(Stopped {
                    line: number,
                    reason,
                });
            }
        };
        let sender = line.point as usize % senders.len();
        let batch = &mut batches[sender];
        batch.size += line.size;
        batch.lines.push(line);
        if batch.size >= BATCH_SIZE && senders[sender].send(std::mem::take(batch)).is_err() {
            return Ok(());
        }
    };
    for (sender, batch) in senders.iter().zip(batches) {
        // A sender that has ended has recorded its failure.
        let _ = sender.send(batch);
    }
    result
}

/// Reads and decodes the line with this number. `text` is a buffer. None at the end of the input.
fn next_line(
    input: &mut impl BufRead,
    text: &mut Vec<u8>,
    number: u64,
) -> Result<Option<Line>, Error> {
    if !read_line(input, text).map_err(Error::Io)? {
        return Ok(None);
    }
    let (key, value) = decode(text).map_err(|bad| Error::Usage(bad.to_string()))?;
    Ok(Some(Line {
        number,
        size: text.len() + 1,
        point: point(&key),
        key: key.into_owned(),
        value: value.into_owned(),
    }))
}

/// Writes the pairs of lines. If they are refused, halves them to find the one that is.
fn write(client: &RingClient, lines: &[Line], progress: &Progress) -> Result<(), Stopped> {
    let mutations: Vec<Mutation<'_>> = lines.iter().map(Line::mutation).collect();
    match client.write_many(&mutations) {
        Ok(_) => progress.add(lines.len(), lines.iter().map(|line| line.size).sum()),
        Err(e) if e.is_refused() && lines.len() > 1 => {
            let (first, second) = lines.split_at(lines.len() / 2);
            write(client, first, progress)?;
            write(client, second, progress)?;
        }
        Err(reason) => {
            let line = lines.first().map_or(0, |line| line.number);
            return Err(Stopped { line, reason });
        }
    }
    Ok(())
}
