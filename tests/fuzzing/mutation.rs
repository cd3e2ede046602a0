//! Mutation: new inputs of old ones.
//!
//! Half of the changes are blind: bits, bytes, pieces cut out, doubled or taken from
//! another input. The other half know the binary protocol: they find the fields of a
//! message, and lie about sizes and types, nest, repeat and drop them.

use thrifty_p2p::membership::Rng;

/// No input grows beyond this: what large messages do is tested apart.
const LONGEST: usize = 4096;

/// Sizes around every limit there is: of integers, lists, strings and messages.
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

/// A piece of a message.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// A field, from its type on to its end.
    Field { from: usize, to: usize },
    /// Where the type of a field or of a list's elements is.
    Type(usize),
    /// Where the four bytes of a length or of a number are.
    Size(usize),
}

/// A new input, made of `old` and perhaps of `other`.
pub fn mutated(random: &mut Random, old: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = old.to_vec();
    loop {
        if random.below(2) == 0 {
            change_blindly(random, &mut bytes, other);
        } else {
            change_a_piece(random, &mut bytes, other);
        }
        bytes.truncate(LONGEST);
        if random.below(3) == 0 {
            return bytes;
        }
    }
}

fn change_blindly(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let (from, to) = span(random, bytes.len());
    match random.below(7) {
        0 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        1 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = random.bits() as u8;
        }
        2 => bytes.truncate(from),
        3 => drop(bytes.drain(from..to)),
        4 => {
            let piece = bytes[from..to].to_vec();
            insert(bytes, to, &piece);
        }
        5 => {
            let (first, last) = span(random, other.len());
            insert(bytes, from, &other[first..last]);
        }
        _ => {
            let fresh: Vec<u8> = (0..random.below(8)).map(|_| random.bits() as u8).collect();
            insert(bytes, from, &fresh);
        }
    }
}

fn change_a_piece(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let pieces = pieces(bytes);
    if pieces.is_empty() {
        return change_blindly(random, bytes, other);
    }
    match pieces[random.below(pieces.len())] {
        Piece::Size(at) => {
            let size = EXTREMES[random.below(EXTREMES.len())].to_be_bytes();
            bytes[at..at + 4].copy_from_slice(&size);
        }
        Piece::Type(at) => bytes[at] = random.below(18) as u8,
        Piece::Field { from, to } => change_a_field(random, bytes, from, to, other),
    }
}

fn change_a_field(random: &mut Random, bytes: &mut Vec<u8>, from: usize, to: usize, other: &[u8]) {
    match random.below(6) {
        0 => drop(bytes.drain(from..to)),
        1 => {
            let field = bytes[from..to].to_vec();
            for _ in 0..=random.below(4) {
                insert(bytes, from, &field);
            }
        }
        2 => insert(bytes, from, &nested(random)),
        3 => {
            bytes[from + 1] = 0;
            bytes[from + 2] = random.below(10) as u8;
        }
        4 => {
            // A number, if it is one: the ends of what it can be.
            let end = [0x00, 0x7f, 0x80, 0xff][random.below(4)];
            if to >= from + 4 {
                bytes[from + 3] = end;
            }
        }
        _ => {
            let theirs: Vec<(usize, usize)> = pieces(other)
                .iter()
                .filter_map(|piece| match *piece {
                    Piece::Field { from, to } => Some((from, to)),
                    _ => None,
                })
                .collect();
            if !theirs.is_empty() {
                let (first, last) = theirs[random.below(theirs.len())];
                insert(bytes, from, &other[first..last]);
            }
        }
    }
}

/// A field that nobody knows, with containers in containers.
fn nested(random: &mut Random) -> Vec<u8> {
    let kind = [STRUCT, LIST][random.below(2)];
    let mut field = vec![kind, 0x7f, random.below(256) as u8];
    for _ in 0..random.below(100) {
        match kind {
            STRUCT => field.extend([STRUCT, 0, 1]),
            _ => field.extend([LIST, 0, 0, 0, 1]),
        }
    }
    field.extend(vec![0; random.below(120)]);
    field
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(bytes.len());
    drop(bytes.splice(at..at, piece.iter().copied()));
}

/// Where some short piece of `length` bytes begins and ends.
fn span(random: &mut Random, length: usize) -> (usize, usize) {
    let from = random.below(length + 1);
    let most = (length - from).min(64);
    (from, from + random.below(most + 1))
}

/// The pieces of a message, as far as it can be read.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut walk = Walk {
        bytes,
        at: 0,
        pieces: Vec::new(),
    };
    // Whatever it finds before it meets an end is of use.
    let _ = walk.message();
    walk.pieces
}

/// Walks through a message and takes note of its pieces.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    pieces: Vec<Piece>,
}

impl Walk<'_> {
    /// Containers in containers that are looked into.
    const DEEPEST: usize = 70;

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
            _ if depth == Self::DEEPEST => None,
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
