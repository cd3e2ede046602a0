//! `load`: writes the pairs of a file into a store.
//!
//! One thread reads lines and divides their pairs into batches; other threads, the senders,
//! write the batches. The point of a key determines its sender, so the lines of one key are
//! written one after another, and the last one wins.
//!
//! If a line is malformed, the lines before it are still written.

use std::io::BufRead;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}; {stored} lines were stored")]
pub struct Stopped {
    /// The number of the malformed line, or of the first line of a failed write, from 1.
    pub line: u64,
    /// What is wrong with the line, or why the write failed.
    pub reason: Error,
    /// Lines that were stored.
    pub stored: u64,
}

/// A failed line, by its number.
type Failure = (u64, Error);

/// Pairs in one buffer. Two allocations for each pair would take longer than decoding it.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    spans: Vec<Span>,
    /// Bytes of its lines.
    size: usize,
}

/// One pair of a batch. The value follows the key.
struct Span {
    line: u64,
    point: u32,
    key: Range<usize>,
    value_end: usize,
}

impl Batch {
    fn push(&mut self, line: u64, point: u32, (key, value): (&[u8], &[u8])) {
        let start = self.text.len();
        self.text.extend_from_slice(key);
        self.text.extend_from_slice(value);
        self.spans.push(Span {
            line,
            point,
            key: start..start + key.len(),
            value_end: self.text.len(),
        });
    }

    fn writes(&self) -> Vec<Mutation<'_>> {
        let write = |span: &Span| {
            let key = Key {
                bytes: &self.text[span.key.clone()],
                point: span.point,
            };
            (key, Some(&self.text[span.key.end..span.value_end]))
        };
        self.spans.iter().map(write).collect()
    }
}

/// Writes every pair of `input` into the store. Blocks until all are stored. Returns the number
/// of lines.
///
/// # Errors
/// Why the load ended early. Lines that are stored stay; the file may be loaded again.
pub fn load(client: &RingClient, input: impl BufRead, progress: &Progress) -> Result<u64, Stopped> {
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let read = thread::scope(|scope| {
        let start_sender = |_| {
            let (sender, batches) = sync_channel(MAX_WAITING);
            let failure = &failure;
            scope.spawn(move || {
                if let Err(failed) = write_batches(client, &batches, progress) {
                    failure.lock().get_or_insert(failed);
                }
            });
            sender
        };
        let senders: Vec<SyncSender<Batch>> = (0..SENDERS).map(start_sender).collect();
        read_batches(input, &senders)
    });
    match failure.into_inner().map_or(read, Err) {
        Ok(()) => Ok(progress.keys()),
        Err((line, reason)) => Err(Stopped {
            line,
            reason,
            stored: progress.keys(),
        }),
    }
}

/// Reads all lines and passes them to the senders in batches. Ends early if a sender has ended.
fn read_batches(mut input: impl BufRead, senders: &[SyncSender<Batch>]) -> Result<(), Failure> {
    let mut batches: Vec<Batch> = senders.iter().map(|_| Batch::default()).collect();
    let mut line = Vec::new();
    let mut number = 0;
    let result = loop {
        number += 1;
        match read_line(&mut input, &mut line) {
            Ok(true) => (),
            Ok(false) => break Ok(()),
            Err(e) => break Err((number, Error::Io(e))),
        }
        let (key, value) = match decode(&line) {
            Ok(pair) => pair,
            Err(bad) => break Err((number, Error::Usage(bad.to_string()))),
        };
        let point = point(&key);
        let sender = point as usize % senders.len();
        let batch = &mut batches[sender];
        batch.push(number, point, (&key, &value));
        batch.size += line.len() + 1;
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

/// Writes batches until there are no more.
fn write_batches(
    client: &RingClient,
    batches: &Receiver<Batch>,
    progress: &Progress,
) -> Result<(), Failure> {
    for batch in batches {
        write(client, &batch.spans, &batch.writes(), progress)?;
        progress.add_done(batch.size as u64);
    }
    Ok(())
}

/// Writes pairs. If they are refused, halves them to find the one that is.
fn write(
    client: &RingClient,
    spans: &[Span],
    writes: &[Mutation<'_>],
    progress: &Progress,
) -> Result<(), Failure> {
    match client.write_many(writes) {
        Ok(_) => progress.add_keys(writes.len() as u64),
        Err(e) if e.is_refused() && writes.len() > 1 => {
            let middle = writes.len() / 2;
            write(client, &spans[..middle], &writes[..middle], progress)?;
            write(client, &spans[middle..], &writes[middle..], progress)?;
        }
        Err(e) => return Err((spans.first().map_or(0, |span| span.line), e)),
    }
    Ok(())
}
