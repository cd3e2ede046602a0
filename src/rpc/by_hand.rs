//! `ByHand`: calls whose bytes are written and read one by one.
//!
//! For the few methods that are called so often that the generated code, and what it
//! allocates, would be most of their cost. The side that answers them is a
//! [`Shortcut`](crate::rpc::shortcut::Shortcut).

use std::io::{self, Read, Write};

use thrift::protocol::{TInputProtocol, TType};
use thrift::{ProtocolError, ProtocolErrorKind};

use crate::rpc::bytes::{CALL, EXCEPTION, REPLY, STOP, STRICT, begin};
use crate::rpc::connection::{Input, Outgoing, Output};

/// What is kept for a string before its bytes have come.
pub(crate) const RESERVED: usize = 64 * 1024;

/// One connection on which calls are made by hand, one after another. After a failure that
/// is not an exception of the interface it is of no more use. What it says is for this
/// crate's clients to know; others only make one.
pub struct ByHand {
    input: Input,
    output: Outgoing,
    sequence: u32,
}

impl ByHand {
    /// The caller's side of a connection on which nothing was said yet.
    pub fn new(input: Input, output: Output) -> ByHand {
        ByHand {
            input,
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

    /// Waits for the reply to the last call, and reads its head. Blocks until it comes.
    ///
    /// # Errors
    /// None came, or another one, or an application exception.
    pub(crate) fn receive<const N: usize>(&mut self, method: &[u8; N]) -> thrift::Result<()> {
        self.expect(STRICT)?;
        let [kind] = self.take()?;
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

    /// Reads so many bytes.
    ///
    /// # Errors
    /// They do not come.
    pub(crate) fn take<const N: usize>(&mut self) -> thrift::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.transport.read_exact(&mut bytes)?;
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

    /// Reads over a field of that head, which a later version of the interface has.
    ///
    /// # Errors
    /// It does not come, or is none of any type.
    pub(crate) fn skip(&mut self, [kind, ..]: [u8; 3]) -> thrift::Result<()> {
        self.input.skip(match kind {
            2 => TType::Bool,
            3 => TType::I08,
            4 => TType::Double,
            6 => TType::I16,
            8 => TType::I32,
            10 => TType::I64,
            11 => TType::String,
            12 => TType::Struct,
            13 => TType::Map,
            14 => TType::Set,
            15 => TType::List,
            _ => return Err(unexpected()),
        })
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
        bytes.reserve(length.min(RESERVED));
        let mut rest = (&mut self.input.transport).take(length as u64);
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

/// What came is not what the interface says.
pub(crate) fn unexpected() -> thrift::Error {
    let what = "a reply that was not understood";
    ProtocolError::new(ProtocolErrorKind::InvalidData, what).into()
}
