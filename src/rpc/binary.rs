//! The strict binary protocol by hand: an encoder and decoder for a few methods, and
//! `RawClient`, which calls them.
//!
//! Generated code allocates names and strings for every call. For the methods that a store
//! calls most often that would be most of their cost, so these are encoded and decoded
//! here. The serving side is a [`FastPath`](crate::rpc::fast_path::FastPath). The bytes are
//! those of the generated code: the fuzzer compares the two.

use std::io::{self, Read, Write};

use thrift::protocol::{TInputProtocol, TType};
use thrift::{ProtocolError, ProtocolErrorKind};

use crate::rpc::message::{Input, MessageWriter, Output};

/// The start of a strict message header, before the message type.
pub(crate) const STRICT: [u8; 3] = [0x80, 1, 0];

/// Message types.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;
pub(crate) const EXCEPTION: u8 = 3;

/// Value types, in the heads of fields and lists.
const I64: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// Ends a struct.
pub(crate) const STOP: u8 = 0;

/// The most bytes reserved for a string before its bytes have arrived.
pub(crate) const MAX_PREALLOCATED: usize = 64 * 1024;

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

/// Appends a message header.
pub(crate) fn put_header(kind: u8, method: &[u8], sequence: [u8; 4], message: &mut Vec<u8>) {
    message.extend_from_slice(&STRICT);
    message.push(kind);
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

/// The caller's side of one connection, used for one call after another.
///
/// After any error but an exception of the interface the connection must be closed.
pub struct RawClient {
    input: Input,
    output: MessageWriter,
    sequence: u32,
}

impl RawClient {
    /// A client on a new connection.
    pub fn new(input: Input, output: Output) -> RawClient {
        RawClient {
            input,
            output: output.transport,
            sequence: 0,
        }
    }

    /// Starts a call. The caller appends the arguments to the returned message.
    pub(crate) fn start_call(&mut self, method: &[u8]) -> &mut Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = self.output.message();
        put_header(CALL, method, self.sequence.to_be_bytes(), message);
        message
    }

    /// Sends the call. Blocks until the socket has taken it.
    ///
    /// # Errors
    /// It could not be sent.
    pub(crate) fn send(&mut self) -> thrift::Result<()> {
        Ok(self.output.flush()?)
    }

    /// Reads the header of the reply to the last call. Blocks until it arrives.
    ///
    /// # Errors
    /// No reply, another call's reply, or an application exception.
    pub(crate) fn read_reply_header<const N: usize>(
        &mut self,
        method: &[u8; N],
    ) -> thrift::Result<()> {
        self.expect(STRICT)?;
        let [kind] = self.read()?;
        self.expect((N as u32).to_be_bytes())?;
        self.expect(*method)?;
        self.expect(self.sequence.to_be_bytes())?;
        match kind {
            REPLY => Ok(()),
            EXCEPTION => {
                let exception =
                    thrift::Error::read_application_error_from_in_protocol(&mut self.input)?;
                Err(thrift::Error::Application(exception))
            }
            _ => Err(unexpected()),
        }
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// They do not arrive.
    pub(crate) fn read<const N: usize>(&mut self) -> thrift::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.transport.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the head of a field; none at the end of the struct.
    ///
    /// # Errors
    /// It does not arrive.
    pub(crate) fn read_field(&mut self) -> thrift::Result<Option<[u8; 3]>> {
        let [kind] = self.read()?;
        if kind == STOP {
            return Ok(None);
        }
        let [high, low] = self.read()?;
        Ok(Some([kind, high, low]))
    }

    /// Skips the value of a field that a later version of the interface may have added.
    ///
    /// # Errors
    /// It does not arrive, or its type is unknown.
    pub(crate) fn skip(&mut self, [kind, ..]: [u8; 3]) -> thrift::Result<()> {
        self.input.skip(match kind {
            2 => TType::Bool,
            3 => TType::I08,
            4 => TType::Double,
            6 => TType::I16,
            8 => TType::I32,
            I64 => TType::I64,
            STRING => TType::String,
            STRUCT => TType::Struct,
            13 => TType::Map,
            14 => TType::Set,
            LIST => TType::List,
            _ => return Err(unexpected()),
        })
    }

    /// Reads a length or a number of elements.
    ///
    /// # Errors
    /// It does not arrive.
    pub(crate) fn read_count(&mut self) -> thrift::Result<usize> {
        self.read().map(|count| u32::from_be_bytes(count) as usize)
    }

    /// Reads bytes that have their length before them. The connection's message limit
    /// bounds how many there can be.
    ///
    /// # Errors
    /// They do not arrive, or are too many.
    pub(crate) fn read_bytes(&mut self) -> thrift::Result<Vec<u8>> {
        let length = self.read_count()?;
        let mut bytes = Vec::with_capacity(length.min(MAX_PREALLOCATED));
        let mut rest = (&mut self.input.transport).take(length as u64);
        if rest.read_to_end(&mut bytes)? < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes)
    }

    /// Reads exactly these bytes.
    ///
    /// # Errors
    /// Other bytes arrive, or none.
    pub(crate) fn expect<const N: usize>(&mut self, bytes: [u8; N]) -> thrift::Result<()> {
        if self.read()? == bytes {
            Ok(())
        } else {
            Err(unexpected())
        }
    }
}

/// A reply that does not match the interface.
pub(crate) fn unexpected() -> thrift::Error {
    let message = "a reply that was not understood";
    ProtocolError::new(ProtocolErrorKind::InvalidData, message).into()
}
