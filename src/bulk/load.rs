//! `load`: the pairs of a file into a store.
//!
//! Reading and sending overlap: one thread reads lines and gathers their pairs in
//! batches, others bring each batch to the primaries of its keys.
//!
//! The last line of a key wins, though several batches are under way at once: the
//! lines of one key all go through the same sender, one batch after another. Which
//! sender, its point on the ring tells, by the bits by which a primary shares out the
//! turns of keys: so two batches never wait for one another's turns.
//!
//! When something is wrong with a line, what was read before it is still stored.

use std::fmt;
use std::io::BufRead;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::lines::{decode, read_line};
use super::progress::Progress;
use crate::client::ring::{Assignment, RingClient};
use crate::error::Error;
use crate::hash_ring::point;
use crate::store::table::Key;

/// Threads that send, each for its share of the keys; a power of two, as the number
/// of turns is.
const SENDERS: usize = 4;

/// A batch that has so many bytes of lines is sent.
const BATCH: usize = 1024 * 1024;

/// Batches that wait for each sender.
const WAITING: usize = 1;

/// Why a load has stopped.
#[derive(Debug)]
pub struct Stopped {
    /// The line, from 1, or, of a call that failed, the first of its lines.
    pub line: u64,
    /// What is wrong with it, or with the call.
    pub why: Error,
    /// Lines that are stored.
    pub stored: u64,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { line, why, stored } = self;
        write!(f, "line {line}: {why}; {stored} lines were stored")
    }
}

/// Pairs, one after another in one piece of memory: one for each would cost more than
/// what is done with it.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    spans: Vec<Span>,
    /// Bytes of its lines.
    bytes: usize,
}

/// Where a pair is in its batch.
struct Span {
    line: u64,
    point: u32,
    key: Range<usize>,
    value_end: usize,
}

impl Batch {
    /// The pairs, as a client takes them.
    fn pairs(&self) -> Vec<Assignment<'_>> {
        let pair = |span: &Span| {
            let bytes = &self.text[span.key.clone()];
            let point = span.point;
            let value = &self.text[span.key.end..span.value_end];
            (Key { bytes, point }, Some(value))
        };
        self.spans.iter().map(pair).collect()
    }
}

/// Brings every pair of `input` into the store; how many lines there were. Blocks
/// until they are all in place.
///
/// # Errors
/// What stopped it. Lines that are stored stay; the whole may be loaded again.
pub fn load(client: &RingClient, input: impl BufRead, progress: &Progress) -> Result<u64, Stopped> {
    let failure = Mutex::new(None);
    let read = thread::scope(|scope| {
        let senders: Vec<SyncSender<Batch>> = (0..SENDERS)
            .map(|_| {
                let (sender, batches) = sync_channel(WAITING);
                let failure = &failure;
                scope.spawn(move || {
                    if let Err(failed) = send(client, &batches, progress) {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(failed);
                    }
                });
                sender
            })
            .collect();
        gather(input, &senders)
    });
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure.map_or(read, Err) {
        Ok(()) => Ok(progress.keys()),
        Err((line, why)) => Err(Stopped {
            line,
            why,
            stored: progress.keys(),
        }),
    }
}

/// Reads all lines, and hands them to the senders in batches; ends early when one of
/// them has.
fn gather(mut input: impl BufRead, senders: &[SyncSender<Batch>]) -> Result<(), (u64, Error)> {
    let mut batches: Vec<Batch> = senders.iter().map(|_| Batch::default()).collect();
    let mut line = Vec::new();
    let mut number = 0;
    let outcome = loop {
        number += 1;
        match read_line(&mut input, &mut line) {
            Ok(true) => (),
            Ok(false) => break Ok(()),
            Err(e) => break Err((number, Error::Local(e))),
        }
        let (key, value) = match decode(&line) {
            Ok(pair) => pair,
            Err(bad) => break Err((number, Error::Usage(bad.to_string()))),
        };
        let point = point(&key);
        let share = point as usize % senders.len();
        let batch = &mut batches[share];
        let start = batch.text.len();
        batch.text.extend_from_slice(&key);
        batch.text.extend_from_slice(&value);
        batch.spans.push(Span {
            line: number,
            point,
            key: start..start + key.len(),
            value_end: batch.text.len(),
        });
        batch.bytes += line.len() + 1;
        if batch.bytes >= BATCH && senders[share].send(std::mem::take(batch)).is_err() {
            return Ok(());
        }
    };
    for (sender, batch) in senders.iter().zip(batches) {
        // One that has failed has told why.
        let _ = sender.send(batch);
    }
    outcome
}

/// Stores one batch after another, until there are no more.
fn send(
    client: &RingClient,
    batches: &Receiver<Batch>,
    progress: &Progress,
) -> Result<(), (u64, Error)> {
    for batch in batches {
        store(client, &batch.spans, &batch.pairs(), progress)?;
        progress.add_done(batch.bytes as u64);
    }
    Ok(())
}

/// Stores pairs, and finds out which of them is refused, if one is.
fn store(
    client: &RingClient,
    spans: &[Span],
    pairs: &[Assignment<'_>],
    progress: &Progress,
) -> Result<(), (u64, Error)> {
    match client.write_many(pairs) {
        Ok(_) => progress.add_keys(pairs.len() as u64),
        Err(e) if e.is_refusal() && pairs.len() > 1 => {
            let middle = pairs.len() / 2;
            store(client, &spans[..middle], &pairs[..middle], progress)?;
            store(client, &spans[middle..], &pairs[middle..], progress)?;
        }
        Err(e) => return Err((spans.first().map_or(0, |span| span.line), e)),
    }
    Ok(())
}
