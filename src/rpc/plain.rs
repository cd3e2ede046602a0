//! Messages of Thrift's binary protocol as bytes, for the few methods that are called so
//! often that the generated code, and what it allocates, would be most of their cost.
//!
//! Only what those methods are made of is here, and only as generated code writes it, in
//! strict headers. [`Plain`] is the side that calls; the side that answers is a
//! [`Shortcut`](crate::rpc::shortcut::Shortcut).

use std::io::{self, Read, Write};

use thrift::{ProtocolError, ProtocolErrorKind};

use crate::rpc::connection::{Incoming, Input, Outgoing, Output};

/// What a strict header begins with, before the kind of the message.
const STRICT: [u8; 3] = [0x80, 1, 0];

/// The kinds of messages.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;

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

/// One connection on which calls are made by hand, one after another. After a failure that
/// is not an exception of the interface it is of no more use.
pub struct Plain {
    input: Incoming,
    output: Outgoing,
    sequence: u32,
}

impl Plain {
    /// The caller's side of a connection on which nothing was said yet.
    pub fn new(input: Input, output: Output) -> Plain {
        Plain {
            input: input.transport,
            output: output.transport,
            sequence: 0,
        }
    }

    /// Begins a call, whose arguments are to be added to this.
    pub(crate) fn call(&mut self, method: &[u8]) -> &mut Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = self.output.message();
        begin(CALL, method, self.sequence.to_be_bytes(), message);
        message
    }

    /// Sends the call. Blocks until it is taken.
    ///
    /// # Errors
    /// It could not be sent.
    pub(crate) fn send(&mut self) -> thrift::Result<()> {
        Ok(self.output.flush()?)
    }

    /// Waits for the reply to the last call, and reads its head.
    ///
    /// # Errors
    /// None came, or another one, or an application exception.
    pub(crate) fn hear<const N: usize>(&mut self, method: &[u8; N]) -> thrift::Result<()> {
        self.expect(STRICT)?;
        self.expect([REPLY])?;
        self.expect((N as u32).to_be_bytes())?;
        self.expect(*method)?;
        self.expect(self.sequence.to_be_bytes())
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// They do not come.
    pub(crate) fn take<const N: usize>(&mut self) -> thrift::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the head of a field, or the end of a struct.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) fn take_field(&mut self) -> thrift::Result<Option<[u8; 3]>> {
        let [kind] = self.take()?;
        if kind == STOP {
            return Ok(None);
        }
        let [high, low] = self.take()?;
        Ok(Some([kind, high, low]))
    }

    /// Reads a length, or a number of elements.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) fn take_count(&mut self) -> thrift::Result<usize> {
        self.take().map(|count| u32::from_be_bytes(count) as usize)
    }

    /// Reads bytes that follow their length; a connection bounds how many a message has.
    ///
    /// # Errors
    /// They do not come, or are too many.
    pub(crate) fn take_counted(&mut self, bytes: &mut Vec<u8>) -> thrift::Result<()> {
        let length = self.take_count()?;
        bytes.clear();
        let mut rest = (&mut self.input).take(length as u64);
        if rest.read_to_end(bytes)? < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    /// Reads these bytes.
    ///
    /// # Errors
    /// Others come, or none.
    pub(crate) fn expect<const N: usize>(&mut self, bytes: [u8; N]) -> thrift::Result<()> {
        if self.take()? == bytes {
            Ok(())
        } else {
            Err(unexpected())
        }
    }
}

/// What came is not what the interface says, or is an application exception.
pub(crate) fn unexpected() -> thrift::Error {
    let what = "a reply that was not understood";
    ProtocolError::new(ProtocolErrorKind::InvalidData, what).into()
}
