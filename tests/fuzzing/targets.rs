//! The targets: all decoders of bytes from untrusted peers, with the code that uses the result.

use thrifty_p2p::bulk::tsv::{BadLine, decode, encode, read_line};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator;

use super::decoder::{Coverage, Decoder};
use super::nodes::{base, joiner, locator, locator_connections, store, store_connections};
use super::replies::{connection_replies, replies};

/// A decoder with a name and a corpus.
pub struct Target {
    pub name: &'static str,
    pub corpus: &'static str,
    pub start: fn() -> Box<dyn Decoder>,
    /// Its share of the inputs, relative to the weights of the other targets.
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
        name: "a store that is joining",
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
        start: locator_connections,
        weight: 1,
    },
    Target {
        name: "diststore.Store over a connection",
        corpus: "requests",
        start: store_connections,
        weight: 1,
    },
    Target {
        name: "replies over a connection",
        corpus: "replies",
        start: connection_replies,
        weight: 1,
    },
];

struct Addresses;

fn addresses() -> Box<dyn Decoder> {
    Box::new(Addresses)
}

impl Decoder for Addresses {
    fn decode(&mut self, input: &[u8]) -> Coverage {
        let text = String::from_utf8_lossy(input);
        let parsed = text.parse::<Location>();
        if let Ok(location) = &parsed {
            let again = location.to_string().parse();
            assert_eq!(
                again.as_ref(),
                Ok(location),
                "a location is parsed from its text"
            );
        }
        let port = input.first().map_or(0, |byte| i16::from(*byte) << 8);
        let wire = locator::Location::new(text.to_string(), port);
        let decoded = Location::try_from(&wire);
        if let Ok(location) = &decoded {
            assert_eq!(locator::Location::from(location), wire);
        }
        Coverage {
            method: usize::from(parsed.is_ok()),
            end: i32::from(decoded.is_ok()),
            depth: text.bytes().filter(|byte| *byte == b':').count().min(64),
        }
    }
}

/// A file of pairs, as `storeload` reads it.
struct Lines;

fn lines() -> Box<dyn Decoder> {
    Box::new(Lines)
}

impl Decoder for Lines {
    fn decode(&mut self, mut input: &[u8]) -> Coverage {
        let (mut coverage, mut line, mut again) = (Coverage::default(), Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).expect("bytes in memory can be read") {
            coverage.depth = (coverage.depth + 1).min(64);
            match decode(&line) {
                Ok((key, value)) => {
                    again.clear();
                    encode(&key, &value, &mut again);
                    again.pop();
                    assert_eq!(
                        decode(&again).as_ref(),
                        Ok(&(key, value)),
                        "a pair is decoded from its line"
                    );
                    coverage.method += usize::from(coverage.method < 8);
                }
                Err(bad) => coverage.end = kind_of(&bad),
            }
        }
        coverage
    }
}

/// The number of a kind of invalid line.
fn kind_of(bad: &BadLine) -> i32 {
    match bad {
        BadLine::TooLong => 1,
        BadLine::NoTab => 2,
        BadLine::SecondTab => 3,
        BadLine::CarriageReturn => 4,
        BadLine::Escape(_) => 5,
        BadLine::LongKey(_) => 6,
        BadLine::LongValue(_) => 7,
        BadLine::ByteOrderMark => 8,
    }
}
