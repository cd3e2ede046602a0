//! What messages of Thrift's binary protocol are made of, as bytes.
//!
//! Only what is called by hand is here, and only as generated code writes it, in strict
//! headers.

/// What a strict header begins with, before the kind of the message.
pub(crate) const STRICT: [u8; 3] = [0x80, 1, 0];

/// The kinds of messages.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;
pub(crate) const EXCEPTION: u8 = 3;

/// The types of values, as fields and lists name them.
const LONG: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// The end of a struct.
pub(crate) const STOP: u8 = 0;

/// The head of a field that is an i64.
pub(crate) const fn long(number: u8) -> [u8; 3] {
    [LONG, 0, number]
}

/// The head of a field that is a string or binary: its length comes next.
pub(crate) const fn string(number: u8) -> [u8; 3] {
    [STRING, 0, number]
}

/// The head of a field that is a struct or an exception.
pub(crate) const fn structure(number: u8) -> [u8; 3] {
    [STRUCT, 0, number]
}

/// The head of a field that is a list of strings: their number comes next.
pub(crate) const fn strings(number: u8) -> [u8; 4] {
    [LIST, 0, number, STRING]
}

/// The head of a field that is a list of structs: their number comes next.
pub(crate) const fn structures(number: u8) -> [u8; 4] {
    [LIST, 0, number, STRUCT]
}

/// Adds the head of a message.
pub(crate) fn begin(kind: u8, method: &[u8], sequence: [u8; 4], message: &mut Vec<u8>) {
    message.extend_from_slice(&STRICT);
    message.push(kind);
    add_counted(method, message);
    message.extend_from_slice(&sequence);
}

/// Adds bytes behind their length.
pub(crate) fn add_counted(bytes: &[u8], message: &mut Vec<u8>) {
    add_count(bytes.len(), message);
    message.extend_from_slice(bytes);
}

/// Adds a length, or a number of elements.
pub(crate) fn add_count(count: usize, message: &mut Vec<u8>) {
    message.extend_from_slice(&(count as u32).to_be_bytes());
}

/// The sequence number and the arguments of a call of that method, and what follows.
pub(crate) fn call_of<'a>(method: &[u8], bytes: &'a [u8]) -> Option<([u8; 4], &'a [u8])> {
    let rest = bytes.strip_prefix(&STRICT)?.strip_prefix(&[CALL])?;
    let (name, rest) = counted(rest)?;
    let (sequence, rest) = rest.split_first_chunk()?;
    (name == method).then_some((*sequence, rest))
}

/// Bytes that follow their length, and what comes after them.
pub(crate) fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = count(bytes)?;
    rest.split_at_checked(length)
}

/// A length, or a number of elements, and what comes after it.
pub(crate) fn count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*count) as usize, rest))
}
