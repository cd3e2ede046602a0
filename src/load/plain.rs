//! `PlainClient`: calls of a store as bytes, to measure the store and not its client.
//!
//! A caller of a load shares the processors with the server that is measured. What the
//! generated client and the Thrift crate do for a call would be counted as the store's; the
//! callers of other servers and of the bare echo write and read nothing but bytes. So does
//! this one, which knows two methods.

use std::io::{self, Read, Write};

use crate::rpc::client::{Incoming, Input, Outgoing, Output};
use crate::store::by_hand::{CALL, REPLY, STOP, add_counted, fetch, long, string, structure};

/// The head of a message of `write`, up to its sequence number.
const fn write(kind: u8) -> [u8; 13] {
    let mut head = *b"\x80\x01\x00\x00\x00\x00\x00\x05write";
    head[3] = kind;
    head
}

/// A client over one connection. After a call that failed, or was refused, the connection
/// is of no more use.
pub struct PlainClient {
    input: Incoming,
    output: Outgoing,
    sequence: u32,
    /// The value that was fetched last.
    value: Vec<u8>,
}

impl PlainClient {
    /// A client over this connection, on which nothing was said yet.
    pub fn new(input: Input, output: Output) -> PlainClient {
        PlainClient {
            input: input.transport,
            output: output.transport,
            sequence: 0,
            value: Vec::new(),
        }
    }

    /// The value of `key`, if there is one. Blocks until it is answered.
    ///
    /// # Errors
    /// The call failed, or was refused.
    pub fn fetch(&mut self, key: &[u8]) -> io::Result<Option<&[u8]>> {
        self.send(fetch(CALL), &[key])?;
        self.expect_head(fetch(REPLY))?;
        self.expect(structure(0))?;
        let mut has_value = false;
        loop {
            let [kind] = self.take()?;
            if kind == STOP {
                break;
            }
            let [high, low] = self.take()?;
            let field = [kind, high, low];
            if field == string(1) {
                self.take_value()?;
                has_value = true;
            } else if field == long(2) {
                self.take::<8>()?;
            } else {
                return Err(unexpected());
            }
        }
        self.expect([STOP])?;
        Ok(has_value.then_some(&self.value))
    }

    /// Puts a value for `key`. Blocks until it is acknowledged.
    ///
    /// # Errors
    /// The call failed, or was refused.
    pub fn write(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.send(write(CALL), &[key, value])?;
        self.expect_head(write(REPLY))?;
        self.expect(long(0))?;
        self.take::<8>()?;
        self.expect([STOP])
    }

    /// Sends a call whose arguments are these strings.
    fn send<const N: usize>(&mut self, head: [u8; N], arguments: &[&[u8]]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = self.output.message();
        message.extend_from_slice(&head);
        message.extend_from_slice(&self.sequence.to_be_bytes());
        for (number, argument) in (1..).zip(arguments) {
            message.extend_from_slice(&string(number));
            add_counted(argument, message);
        }
        message.push(STOP);
        self.output.flush()
    }

    fn expect_head<const N: usize>(&mut self, head: [u8; N]) -> io::Result<()> {
        self.expect(head)?;
        self.expect(self.sequence.to_be_bytes())
    }

    fn expect<const N: usize>(&mut self, bytes: [u8; N]) -> io::Result<()> {
        if self.take()? == bytes {
            Ok(())
        } else {
            Err(unexpected())
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A longer value than a message may have ends in an error of the connection.
    fn take_value(&mut self) -> io::Result<()> {
        let length = u32::from_be_bytes(self.take()?);
        self.value.clear();
        let mut bytes = (&mut self.input).take(length.into());
        if bytes.read_to_end(&mut self.value)? < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// What came is not the reply that tells of success.
fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "refused, or not understood")
}
