//! Mutation: new inputs from old ones.
//!
//! Half of the changes do not know the format: they change bits and bytes, and remove, repeat or
//! insert ranges of bytes. The other half know the binary protocol: they find the fields of a
//! message, and falsify sizes and types, or nest, repeat and remove fields.

use thrifty_p2p::membership::Rng;

/// The longest input. Larger messages are in `largest`.
const MAX_LENGTH: usize = 4096;

/// Sizes around the limits of integers, lists, strings and messages.
const EXTREMES: [u32; 16] = [
    0,
    1,
    2,
    127,
    128,
    129,
    255,
    256,
    10_001,
    65_535,
    65_536,
    65_537,
    17 * 1024 * 1024,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// A part of a message.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// A field, from its type to its end.
    Field { from: usize, to: usize },
    /// The index of the type of a field or of a list's elements.
    Type(usize),
    /// The index of the four bytes of a length or of a number.
    Size(usize),
}

/// A new input from `old`, which may contain parts of `other`.
pub fn mutated(rng: &mut Rng, old: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = old.to_vec();
    loop {
        if rng.below(2) == 0 {
            change_bytes(rng, &mut bytes, other);
        } else {
            change_piece(rng, &mut bytes, other);
        }
        bytes.truncate(MAX_LENGTH);
        if rng.below(3) == 0 {
            return bytes;
        }
    }
}

fn change_bytes(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let (from, to) = span(rng, bytes.len());
    match rng.below(7) {
        0 if !bytes.is_empty() => {
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
        1 if !bytes.is_empty() => {
            let at = rng.below(bytes.len());
            bytes[at] = rng.bits() as u8;
        }
        2 => bytes.truncate(from),
        3 => drop(bytes.drain(from..to)),
        4 => {
            let piece = bytes[from..to].to_vec();
            insert(bytes, to, &piece);
        }
        5 => {
            let (first, last) = span(rng, other.len());
            insert(bytes, from, &other[first..last]);
        }
        _ => {
            let new: Vec<u8> = (0..rng.below(8)).map(|_| rng.bits() as u8).collect();
            insert(bytes, from, &new);
        }
    }
}

fn change_piece(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let pieces = pieces(bytes);
    if pieces.is_empty() {
        return change_bytes(rng, bytes, other);
    }
    match pieces[rng.below(pieces.len())] {
        Piece::Size(at) => {
            let size = EXTREMES[rng.below(EXTREMES.len())].to_be_bytes();
            bytes[at..at + 4].copy_from_slice(&size);
        }
        Piece::Type(at) => bytes[at] = rng.below(18) as u8,
        Piece::Field { from, to } => change_field(rng, bytes, from, to, other),
    }
}

fn change_field(rng: &mut Rng, bytes: &mut Vec<u8>, from: usize, to: usize, other: &[u8]) {
    match rng.below(6) {
        0 => drop(bytes.drain(from..to)),
        1 => {
            let field = bytes[from..to].to_vec();
            for _ in 0..=rng.below(4) {
                insert(bytes, from, &field);
            }
        }
        2 => insert(bytes, from, &nested(rng)),
        3 => {
            bytes[from + 1] = 0;
            bytes[from + 2] = rng.below(10) as u8;
        }
        4 => {
            // If the field is a number, this makes it extreme.
            let end = [0x00, 0x7f, 0x80, 0xff][rng.below(4)];
            if to >= from + 4 {
                bytes[from + 3] = end;
            }
        }
        _ => {
            let fields: Vec<(usize, usize)> = pieces(other)
                .iter()
                .filter_map(|piece| match *piece {
                    Piece::Field { from, to } => Some((from, to)),
                    _ => None,
                })
                .collect();
            if !fields.is_empty() {
                let (first, last) = fields[rng.below(fields.len())];
                insert(bytes, from, &other[first..last]);
            }
        }
    }
}

/// An unknown field, with containers in containers.
fn nested(rng: &mut Rng) -> Vec<u8> {
    let kind = [STRUCT, LIST][rng.below(2)];
    let mut field = vec![kind, 0x7f, rng.below(256) as u8];
    for _ in 0..rng.below(100) {
        match kind {
            STRUCT => field.extend([STRUCT, 0, 1]),
            _ => field.extend([LIST, 0, 0, 0, 1]),
        }
    }
    field.extend(vec![0; rng.below(120)]);
    field
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(bytes.len());
    drop(bytes.splice(at..at, piece.iter().copied()));
}

/// The start and the end of a short range within `length` bytes.
fn span(rng: &mut Rng, length: usize) -> (usize, usize) {
    let from = rng.below(length + 1);
    let max = (length - from).min(64);
    (from, from + rng.below(max + 1))
}

/// The parts of a message, as far as it can be read.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut walk = Walk {
        bytes,
        at: 0,
        pieces: Vec::new(),
    };
    // The parts before the first error are used.
    let _ = walk.message();
    walk.pieces
}

/// Reads a message and records its parts.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    pieces: Vec<Piece>,
}

impl Walk<'_> {
    /// The deepest nesting of containers that is read.
    const MAX_DEPTH: usize = 70;

    fn message(&mut self) -> Option<()> {
        let strict = self.bytes.first()? & 0x80 != 0;
        self.take(if strict { 4 } else { 0 })?;
        let name = self.size()?;
        self.take(name)?;
        self.take(if strict { 4 } else { 5 })?;
        self.value(STRUCT, 0)
    }

    fn take(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn kind(&mut self) -> Option<u8> {
        let kind = self.byte()?;
        self.pieces.push(Piece::Type(self.at - 1));
        Some(kind)
    }

    fn size(&mut self) -> Option<usize> {
        let size = self.bytes.get(self.at..self.at + 4)?.first_chunk::<4>()?;
        self.pieces.push(Piece::Size(self.at));
        self.at += 4;
        Some(u32::from_be_bytes(*size) as usize)
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            2 | 3 => self.take(1),
            6 => self.take(2),
            8 => self.size().map(|_| ()),
            4 | 10 => self.take(8),
            16 => self.take(16),
            11 => {
                let length = self.size()?;
                self.take(length)
            }
            _ if depth == Self::MAX_DEPTH => None,
            STRUCT => loop {
                let from = self.at;
                let kind = self.kind()?;
                if kind == 0 {
                    return Some(());
                }
                self.take(2)?;
                self.value(kind, depth + 1)?;
                self.pieces.push(Piece::Field { from, to: self.at });
            },
            14 | LIST => {
                let kind = self.kind()?;
                for _ in 0..self.size()? {
                    self.value(kind, depth + 1)?;
                }
                Some(())
            }
            13 => {
                let (key, value) = (self.kind()?, self.kind()?);
                for _ in 0..self.size()? {
                    self.value(key, depth + 1)?;
                    self.value(value, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}
