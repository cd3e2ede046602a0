//! The strict binary protocol as bytes, for the methods that are encoded by hand.
//!
//! Generated code allocates names and strings for every call. For the methods that a store
//! serves most often that would be most of their cost, so a
//! [`FastPath`](crate::rpc::fast_path::FastPath) encodes and decodes them with these.

/// The start of a strict message header, before the message type.
const STRICT: [u8; 3] = [0x80, 1, 0];

/// Message types.
const CALL: u8 = 1;
const REPLY: u8 = 2;
pub(crate) const EXCEPTION: u8 = 3;

/// Value types, in the heads of fields and lists.
const I64: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// Ends a struct.
pub(crate) const STOP: u8 = 0;

/// The head of an i64 field.
pub(crate) const fn i64_field(id: u8) -> [u8; 3] {
    [I64, 0, id]
}

/// The head of a string or binary field; its length follows.
pub(crate) const fn string_field(id: u8) -> [u8; 3] {
    [STRING, 0, id]
}

/// The head of a struct or exception field.
pub(crate) const fn struct_field(id: u8) -> [u8; 3] {
    [STRUCT, 0, id]
}

/// The head of a field that is a list of strings; their number follows.
pub(crate) const fn string_list_field(id: u8) -> [u8; 4] {
    [LIST, 0, id, STRING]
}

/// The head of a field that is a list of structs; their number follows.
pub(crate) const fn struct_list_field(id: u8) -> [u8; 4] {
    [LIST, 0, id, STRUCT]
}

/// Appends the header of a reply.
pub(crate) fn put_reply_header(method: &[u8], sequence: [u8; 4], message: &mut Vec<u8>) {
    message.extend_from_slice(&STRICT);
    message.push(REPLY);
    put_bytes(method, message);
    message.extend_from_slice(&sequence);
}

/// Appends bytes with their length before them.
pub(crate) fn put_bytes(bytes: &[u8], message: &mut Vec<u8>) {
    put_count(bytes.len(), message);
    message.extend_from_slice(bytes);
}

/// Appends a length or a number of elements.
pub(crate) fn put_count(count: usize, message: &mut Vec<u8>) {
    message.extend_from_slice(&(count as u32).to_be_bytes());
}

/// Splits a call of `method` into its sequence number and what follows the header.
pub(crate) fn split_call<'a>(method: &[u8], bytes: &'a [u8]) -> Option<([u8; 4], &'a [u8])> {
    let rest = bytes.strip_prefix(&STRICT)?.strip_prefix(&[CALL])?;
    let (name, rest) = split_bytes(rest)?;
    let (sequence, rest) = rest.split_first_chunk()?;
    (name == method).then_some((*sequence, rest))
}

/// Splits off bytes that have their length before them.
pub(crate) fn split_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = split_count(bytes)?;
    rest.split_at_checked(length)
}

/// Splits off a length or a number of elements.
pub(crate) fn split_count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*count) as usize, rest))
}
