//! Key-value pairs as lines of text: the key, a tab and the value, ended by a newline.
//!
//! UTF-8 text stays readable, and any bytes can be represented. Tab, newline, carriage return
//! and backslash are escaped as `\t`, `\n`, `\r` and `\\`; other control characters, byte-order
//! marks, and bytes that are not UTF-8, as `\x` with two hexadecimal digits.
//!
//! The decoder also accepts unescaped bytes that are not UTF-8, and an escape for any byte. It
//! rejects what is ambiguous: a second tab, a carriage return, a byte-order mark at the start of a
//! line, and an unknown escape.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use crate::store::limits::{MAX_KEY, MAX_VALUE};

/// The length of the longest escape of one byte: `\xff`.
const MAX_ESCAPE: usize = 4;

/// The longest line of a pair, without its newline.
pub const MAX_LINE: usize = (MAX_KEY + MAX_VALUE) * MAX_ESCAPE + 1;

/// A byte-order mark, which some editors put at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A key with its value. Borrowed from the line unless they have escapes.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Why a line is not a pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It is longer than [`MAX_LINE`].
    #[error("longer than {MAX_LINE} bytes, the maximum for a pair")]
    TooLong,
    /// It has no tab.
    #[error("there is no tab between a key and a value")]
    NoTab,
    /// It has more than one tab.
    #[error("there is a second tab: in a key or a value, write \\t")]
    SecondTab,
    /// It starts with a byte-order mark.
    #[error(
        "there is a byte-order mark: save the file as UTF-8 without it, or write \\xef\\xbb\\xbf"
    )]
    ByteOrderMark,
    /// It has a carriage return.
    #[error("there is a carriage return: end lines with a newline only, or write \\r")]
    CarriageReturn,
    /// These bytes after a backslash are not an escape.
    #[error(
        "\"\\{}\" is not an escape; escapes are \\t, \\n, \\r, \\\\ and \\x with two \
         hexadecimal digits",
        .0.escape_ascii()
    )]
    Escape(Vec<u8>),
    /// The key has this length, which is more than [`MAX_KEY`].
    #[error("a key of {0} bytes; at most {MAX_KEY} are accepted")]
    LongKey(usize),
    /// The value has this length, which is more than [`MAX_VALUE`].
    #[error("a value of {0} bytes; at most {MAX_VALUE} are accepted")]
    LongValue(usize),
}

/// Appends the line of a pair to `lines`, with its newline.
pub fn encode(key: &[u8], value: &[u8], lines: &mut Vec<u8>) {
    escape(key, lines);
    lines.push(b'\t');
    escape(value, lines);
    lines.push(b'\n');
}

/// Appends the escaped bytes, which are text, to `line`.
pub fn escape(bytes: &[u8], line: &mut Vec<u8>) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
    if bytes.iter().all(is_plain) {
        return line.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).as_bytes();
            if character.is_control() || matches!(character, '\\' | '\u{feff}') {
                line.extend(bytes.escape_ascii());
            } else {
                line.extend_from_slice(bytes);
            }
        }
        line.extend(chunk.invalid().escape_ascii());
    }
}

/// The pair of a line, which is given without its newline.
///
/// # Errors
/// The line is not a pair.
pub fn decode(line: &[u8]) -> Result<Pair<'_>, BadLine> {
    if line.len() > MAX_LINE {
        return Err(BadLine::TooLong);
    }
    let tab = line.iter().position(|byte| *byte == b'\t');
    let (key, value) = line.split_at(tab.ok_or(BadLine::NoTab)?);
    let (key, value) = (decode_key(key)?, unescape(&value[1..])?);
    if value.len() > MAX_VALUE {
        return Err(BadLine::LongValue(value.len()));
    }
    Ok((key, value))
}

/// The key of a line that has only a key, given without its newline.
///
/// # Errors
/// The line is not a key.
pub fn decode_key(line: &[u8]) -> Result<Cow<'_, [u8]>, BadLine> {
    if line.starts_with(BYTE_ORDER_MARK) {
        return Err(BadLine::ByteOrderMark);
    }
    let key = unescape(line)?;
    if key.len() > MAX_KEY {
        return Err(BadLine::LongKey(key.len()));
    }
    Ok(key)
}

/// Reads the next line into `line`, without its newline. Returns false at the end of the input.
///
/// The last line may lack its newline. Reads at most [`MAX_LINE`] + 1 bytes, and leaves the rest
/// of a longer line unread.
///
/// # Errors
/// The reader's.
pub fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = MAX_LINE as u64 + 1;
    input.take(limit).read_until(b'\n', line)?;
    let has_line = !line.is_empty();
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(has_line)
}

fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, BadLine> {
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\t' | b'\r');
    let mut bytes = Vec::new();
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
    if rest.len() == text.len() {
        return Ok(text.into());
    }
    bytes.extend_from_slice(rest);
    Ok(bytes.into())
}

/// The byte of an escape, which is given without its backslash, and what follows the escape.
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

    /// Bytes in which those with a meaning are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            proptest::sample::select(b"\\\t\r\n\0x0fnrt\xc3\xa9\xc2\x85".as_slice()),
        ];
        vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding_for_any_pairs(pairs in vec((bytes(), bytes()), 0..20)) {
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
        fn a_decoded_line_encodes_to_a_line_of_the_same_pair(line in bytes()) {
            if let Ok((key, value)) = decode(&line) {
                let again = line_of(&key, &value);
                prop_assert_eq!(decode(&again[..again.len() - 1]), Ok((key, value)));
            }
        }

        #[test]
        fn a_line_has_no_control_character_but_its_tab_and_newline(key in bytes(), value in bytes()) {
            let line = line_of(&key, &value);
            let text = std::str::from_utf8(&line).expect("a line is UTF-8");
            let controls: Vec<char> = text.chars().filter(|c| c.is_control()).collect();
            prop_assert_eq!(controls, ['\t', '\n']);
        }
    }

    #[test]
    fn text_stays_readable_and_other_bytes_are_escaped() {
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
    fn each_mistake_in_a_line_has_its_own_error() {
        let escape = |bytes: &[u8]| Err(BadLine::Escape(bytes.to_vec()));
        assert_eq!(decode(b""), Err(BadLine::NoTab));
        assert_eq!(decode(b"key value"), Err(BadLine::NoTab));
        assert_eq!(decode(b"a\tb\tc"), Err(BadLine::SecondTab));
        assert_eq!(decode(b"a\tb\r"), Err(BadLine::CarriageReturn));
        assert_eq!(decode(b"a\\\tb"), escape(b""));
        assert_eq!(decode(b"a\tb\\0"), escape(b"0"));
        assert_eq!(decode(b"a\tb\\x4"), escape(b"x4"));
        let mark = "\u{feff}".as_bytes();
        assert_eq!(
            decode(&[mark, b"a\tb"].concat()),
            Err(BadLine::ByteOrderMark)
        );
        let line = line_of(mark, mark);
        let pair = (mark.into(), mark.into());
        assert_eq!(decode(line.trim_ascii_end()), Ok(pair), "it is escaped");
        assert_eq!(decode(b"a\t\\x+1"), escape(b"x+1"));
        assert_eq!(decode(b"a\t\\xFf"), Ok((b"a".into(), vec![0xff].into())));
    }

    #[test]
    fn a_line_that_is_too_long_is_not_read_to_its_end() {
        let long = [vec![b'k'; MAX_KEY + 1], b"\tv".to_vec()].concat();
        assert_eq!(decode(&long), Err(BadLine::LongKey(MAX_KEY + 1)));
        let long = [b"k\t".to_vec(), vec![b'v'; MAX_VALUE + 1]].concat();
        assert_eq!(decode(&long), Err(BadLine::LongValue(MAX_VALUE + 1)));

        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        assert!(read_line(&mut endless, &mut line).unwrap());
        assert_eq!(line.len(), MAX_LINE + 1);
        assert_eq!(decode(&line), Err(BadLine::TooLong));
    }
}
