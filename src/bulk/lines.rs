//! Pairs as lines of text: `KEY TAB VALUE`, each ended by a newline.
//!
//! Text stays readable, whatever its language; any bytes survive. What would break a
//! line, or a terminal, is escaped: `\t`, `\n`, `\r` and `\\`, and every other control
//! character, and every byte that is not UTF-8, as `\x` with two hexadecimal digits.
//! A reader takes other bytes as they stand, so that a file may come from elsewhere,
//! and an escape for any byte. What could mean two things is refused: a second tab, a
//! carriage return, a backslash that begins no escape.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Read};

use crate::store::limits::{LONGEST_KEY, LONGEST_VALUE};

/// The longest that one byte gets when it is escaped: `\xff`.
const ESCAPED: usize = 4;

/// The longest line that may say a pair, without its newline.
pub const LONGEST_LINE: usize = (LONGEST_KEY + LONGEST_VALUE) * ESCAPED + 1;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A key with its value, both as they stand in their line where nothing is escaped.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Why a line says no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// It is longer than any pair is.
    TooLong,
    /// Nothing separates a key from a value.
    NoTab,
    /// There is a tab in the value.
    SecondTab,
    /// There is a carriage return in it.
    CarriageReturn,
    /// A backslash is followed by these, which mean nothing.
    Escape(Vec<u8>),
    /// A key of so many bytes.
    LongKey(usize),
    /// A value of so many bytes.
    LongValue(usize),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadLine::TooLong => write!(f, "longer than {LONGEST_LINE} bytes, as no pair is"),
            BadLine::NoTab => f.write_str("there is no tab between a key and a value"),
            BadLine::SecondTab => {
                f.write_str("there is a second tab: in a key or a value, write \\t")
            }
            BadLine::CarriageReturn => f.write_str(
                "there is a carriage return: end lines by a newline alone, or write \\r",
            ),
            BadLine::Escape(bytes) => {
                let shown = bytes.escape_ascii();
                write!(
                    f,
                    "\"\\{shown}\" is no escape: \\t, \\n, \\r, \\\\ and \\x with two hexadecimal digits are"
                )
            }
            BadLine::LongKey(long) => write!(f, "a key of {long} bytes; {LONGEST_KEY} are taken"),
            BadLine::LongValue(long) => {
                write!(f, "a value of {long} bytes; {LONGEST_VALUE} are taken")
            }
        }
    }
}

/// Appends the line of a pair, with its newline.
pub fn encode(key: &[u8], value: &[u8], lines: &mut Vec<u8>) {
    escape(key, lines);
    lines.push(b'\t');
    escape(value, lines);
    lines.push(b'\n');
}

/// The pair that a line says; `line` is without its newline.
///
/// # Errors
/// It says none.
pub fn decode(line: &[u8]) -> Result<Pair<'_>, BadLine> {
    if line.len() > LONGEST_LINE {
        return Err(BadLine::TooLong);
    }
    let tab = line.iter().position(|byte| *byte == b'\t');
    let (key, value) = line.split_at(tab.ok_or(BadLine::NoTab)?);
    let (key, value) = (unescape(key)?, unescape(&value[1..])?);
    if key.len() > LONGEST_KEY {
        return Err(BadLine::LongKey(key.len()));
    }
    if value.len() > LONGEST_VALUE {
        return Err(BadLine::LongValue(value.len()));
    }
    Ok((key, value))
}

/// Reads the next line into `line`, without its newline; is there one? The last one
/// may lack it. Of one that is too long, no more than that is read.
///
/// # Errors
/// The reader's.
pub fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let most = LONGEST_LINE as u64 + 1;
    input.take(most).read_until(b'\n', line)?;
    let is_there = !line.is_empty();
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(is_there)
}

fn escape(bytes: &[u8], line: &mut Vec<u8>) {
    if bytes.iter().all(|byte| is_plain(*byte)) {
        return line.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).as_bytes();
            match character {
                '\t' => line.extend_from_slice(b"\\t"),
                '\n' => line.extend_from_slice(b"\\n"),
                '\r' => line.extend_from_slice(b"\\r"),
                '\\' => line.extend_from_slice(b"\\\\"),
                _ if character.is_control() => escape_bytes(bytes, line),
                _ => line.extend_from_slice(bytes),
            }
        }
        escape_bytes(chunk.invalid(), line);
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn escape_bytes(bytes: &[u8], line: &mut Vec<u8>) {
    for byte in bytes {
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        line.extend_from_slice(&[b'\\', b'x', DIGITS[high], DIGITS[low]]);
    }
}

fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, BadLine> {
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\t' | b'\r');
    // Without a branch for each byte, most text is passed over sixteen at a time.
    if !text.iter().fold(false, |any, byte| any | is_special(byte)) {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(is_special) {
        bytes.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\t' => return Err(BadLine::SecondTab),
            b'\r' => return Err(BadLine::CarriageReturn),
            _ => {
                let (byte, after) = unescape_one(&rest[at + 1..])?;
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest);
    Ok(bytes.into())
}

/// The byte that an escape says, and what comes after it; `escape` is without its backslash.
fn unescape_one(escape: &[u8]) -> Result<(u8, &[u8]), BadLine> {
    let bad = |length: usize| BadLine::Escape(escape[..length.min(escape.len())].to_vec());
    let digit = |at: usize| Some((*escape.get(at)? as char).to_digit(16)? as u8);
    let (byte, length) = match escape.first() {
        Some(b't') => (b'\t', 1),
        Some(b'n') => (b'\n', 1),
        Some(b'r') => (b'\r', 1),
        Some(b'\\') => (b'\\', 1),
        Some(b'x') => match (digit(1), digit(2)) {
            (Some(high), Some(low)) => (high << 4 | low, 3),
            _ => return Err(bad(3)),
        },
        _ => return Err(bad(1)),
    };
    Ok((byte, &escape[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn line_of(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        encode(key, value, &mut lines);
        lines
    }

    /// Bytes among which those that mean something are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            proptest::sample::select(b"\\\t\r\n\0x0fnrt\xc3\xa9\xc2\x85".as_slice()),
        ];
        vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn any_pairs_survive(pairs in vec((bytes(), bytes()), 0..20)) {
            let mut lines = Vec::new();
            for (key, value) in &pairs {
                encode(key, value, &mut lines);
            }
            let (mut input, mut line) = (lines.as_slice(), Vec::new());
            let mut read = Vec::new();
            while read_line(&mut input, &mut line).unwrap() {
                let (key, value) = decode(&line).unwrap();
                read.push((key.into_owned(), value.into_owned()));
            }
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn what_is_taken_says_what_it_says_when_written_again(line in bytes()) {
            if let Ok((key, value)) = decode(&line) {
                let again = line_of(&key, &value);
                prop_assert_eq!(decode(&again[..again.len() - 1]), Ok((key, value)));
            }
        }

        #[test]
        fn no_line_hides_a_control_character(key in bytes(), value in bytes()) {
            let line = line_of(&key, &value);
            let text = std::str::from_utf8(&line).expect("a line is UTF-8");
            let controls: Vec<char> = text.chars().filter(|c| c.is_control()).collect();
            prop_assert_eq!(controls, ['\t', '\n']);
        }
    }

    #[test]
    fn text_stays_readable_and_the_rest_is_escaped() {
        assert_eq!(
            line_of("caf\u{e9} 1".as_bytes(), b"two words"),
            "caf\u{e9} 1\ttwo words\n".as_bytes()
        );
        assert_eq!(
            line_of(b"a\tb\\c", b"1\r\n\0\xff\x7f\xc2\x85"),
            b"a\\tb\\\\c\t1\\r\\n\\x00\\xff\\x7f\\xc2\\x85\n"
        );
        assert_eq!(line_of(b"", b""), b"\t\n");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told() {
        let escape = |bytes: &[u8]| Err(BadLine::Escape(bytes.to_vec()));
        assert_eq!(decode(b""), Err(BadLine::NoTab));
        assert_eq!(decode(b"key value"), Err(BadLine::NoTab));
        assert_eq!(decode(b"a\tb\tc"), Err(BadLine::SecondTab));
        assert_eq!(decode(b"a\tb\r"), Err(BadLine::CarriageReturn));
        assert_eq!(decode(b"a\\\tb"), escape(b""));
        assert_eq!(decode(b"a\tb\\0"), escape(b"0"));
        assert_eq!(decode(b"a\tb\\x4"), escape(b"x4"));
        assert_eq!(decode(b"a\t\\x+1"), escape(b"x+1"));
        assert_eq!(decode(b"a\t\\xFf"), Ok((b"a".into(), vec![0xff].into())));
    }

    #[test]
    fn what_is_longer_than_a_pair_may_be_is_not_read_to_its_end() {
        let long = [vec![b'k'; LONGEST_KEY + 1], b"\tv".to_vec()].concat();
        assert_eq!(decode(&long), Err(BadLine::LongKey(LONGEST_KEY + 1)));
        let long = [b"k\t".to_vec(), vec![b'v'; LONGEST_VALUE + 1]].concat();
        assert_eq!(decode(&long), Err(BadLine::LongValue(LONGEST_VALUE + 1)));

        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        assert!(read_line(&mut endless, &mut line).unwrap());
        assert_eq!(line.len(), LONGEST_LINE + 1);
        assert_eq!(decode(&line), Err(BadLine::TooLong));
    }
}
