//! The targets: every decoder of bytes from outside, with what follows on it.

use thrifty_p2p::bulk::tsv::{BadLine, decode, encode, read_line};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator;

use super::decoder::{Decoder, Reached};
use super::nodes::{base, joiner, locator, locator_connection, store, store_connection};
use super::replies::{answers, replies};

/// A decoder by name, with the corpus that it begins with.
pub struct Target {
    pub name: &'static str,
    pub corpus: &'static str,
    pub start: fn() -> Box<dyn Decoder>,
    /// Its part of the inputs, next to the other targets'.
    pub weight: usize,
}

pub const TARGETS: [Target; 10] = [
    Target {
        name: "locator.Base",
        corpus: "requests",
        start: base,
        weight: 4,
    },
    Target {
        name: "locator.Locator",
        corpus: "requests",
        start: locator,
        weight: 16,
    },
    Target {
        name: "diststore.Store",
        corpus: "requests",
        start: store,
        weight: 16,
    },
    Target {
        name: "a store that joins",
        corpus: "requests",
        start: joiner,
        weight: 16,
    },
    Target {
        name: "replies",
        corpus: "replies",
        start: replies,
        weight: 16,
    },
    Target {
        name: "addresses",
        corpus: "addresses",
        start: addresses,
        weight: 4,
    },
    Target {
        name: "lines of a dump",
        corpus: "lines",
        start: lines,
        weight: 4,
    },
    Target {
        name: "locator.Locator over a connection",
        corpus: "requests",
        start: locator_connection,
        weight: 1,
    },
    Target {
        name: "diststore.Store over a connection",
        corpus: "requests",
        start: store_connection,
        weight: 1,
    },
    Target {
        name: "replies over a connection",
        corpus: "replies",
        start: answers,
        weight: 1,
    },
];

struct Addresses;

fn addresses() -> Box<dyn Decoder> {
    Box::new(Addresses)
}

impl Decoder for Addresses {
    fn decode(&mut self, input: &[u8]) -> Reached {
        let text = String::from_utf8_lossy(input);
        let read = text.parse::<Location>();
        if let Ok(location) = &read {
            let again = location.to_string().parse();
            assert_eq!(
                again.as_ref(),
                Ok(location),
                "an address reads back as written"
            );
        }
        let port = input.first().map_or(0, |byte| i16::from(*byte) << 8);
        let wire = locator::Location::new(text.to_string(), port);
        let announced = Location::try_from(&wire);
        if let Ok(location) = &announced {
            assert_eq!(locator::Location::from(location), wire);
        }
        Reached {
            method: usize::from(read.is_ok()),
            end: i32::from(announced.is_ok()),
            depth: text.bytes().filter(|byte| *byte == b':').count().min(64),
        }
    }
}

/// A file of pairs, as it is loaded.
struct Lines;

fn lines() -> Box<dyn Decoder> {
    Box::new(Lines)
}

impl Decoder for Lines {
    fn decode(&mut self, mut input: &[u8]) -> Reached {
        let (mut reached, mut line, mut again) = (Reached::default(), Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).expect("bytes in memory can be read") {
            reached.depth = (reached.depth + 1).min(64);
            match decode(&line) {
                Ok((key, value)) => {
                    again.clear();
                    encode(&key, &value, &mut again);
                    again.pop();
                    assert_eq!(
                        decode(&again).as_ref(),
                        Ok(&(key, value)),
                        "a pair reads back as written"
                    );
                    reached.method += usize::from(reached.method < 8);
                }
                Err(bad) => reached.end = kind_of(&bad),
            }
        }
        reached
    }
}

/// A small number for each kind of line that says no pair.
fn kind_of(bad: &BadLine) -> i32 {
    match bad {
        BadLine::TooLong => 1,
        BadLine::NoTab => 2,
        BadLine::SecondTab => 3,
        BadLine::CarriageReturn => 4,
        BadLine::Escape(_) => 5,
        BadLine::LongKey(_) => 6,
        BadLine::LongValue(_) => 7,
    }
}
