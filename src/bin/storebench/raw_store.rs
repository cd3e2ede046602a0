//! `RawStore`: `fetch` and `write` of a store, without the generated client.
//!
//! The other contenders are called by plain reads and writes. With the generated client,
//! the measurement would count the cost of that client as the store's. This connection
//! knows only what a node sends today: strict binary messages, without unknown fields.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use thrifty_p2p::location::Location;

use crate::contender::{Answer, Connection, Opened, open};
use crate::keys::KeyBytes;

/// The start of a message: the version, and that it is a call or a reply.
const CALL: [u8; 4] = [0x80, 1, 0, 1];
const REPLY: [u8; 4] = [0x80, 1, 0, 2];

/// The sequence number of every message: there is one call at a time.
const SEQUENCE: [u8; 4] = [0; 4];

/// The types of fields, and the end of a struct.
const I64: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const STOP: u8 = 0;

/// A connection to one node that uses no TLS.
pub struct RawStore(BufReader<TcpStream>);

impl RawStore {
    /// Connects to a node.
    ///
    /// # Errors
    /// See [`open`].
    pub fn connect(peer: &Location) -> Opened {
        Ok(Box::new(RawStore(BufReader::new(open(peer)?))))
    }
}

impl Connection for RawStore {
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer {
        for key in keys {
            self.0.get_mut().write_all(&call("fetch", &[key]))?;
            read_fetched(&mut self.0, value_size)?;
        }
        Ok(keys.len())
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        for key in keys {
            self.0.get_mut().write_all(&call("write", &[key, value]))?;
            read_written(&mut self.0)?;
        }
        Ok(keys.len())
    }
}

/// A call whose arguments are strings.
fn call(method: &str, arguments: &[&[u8]]) -> Vec<u8> {
    let length = |text: &[u8]| (text.len() as u32).to_be_bytes();
    let method = method.as_bytes();
    let mut message = [&CALL[..], &length(method), method, &SEQUENCE].concat();
    for (number, argument) in (1..).zip(arguments) {
        message.extend_from_slice(&[STRING, 0, number]);
        message.extend_from_slice(&length(argument));
        message.extend_from_slice(argument);
    }
    message.push(STOP);
    message
}

/// Reads a reply to `fetch`, which must have a value of this size.
fn read_fetched(reply: &mut impl Read, value_size: usize) -> io::Result<()> {
    let size = (value_size as u32).to_be_bytes();
    let head = [&[STRUCT, 0, 0, STRING, 0, 1][..], &size].concat();
    expect(reply, &[&header("fetch"), &head[..]].concat())?;
    io::copy(&mut reply.take(value_size as u64), &mut io::sink())?;
    expect(reply, &[I64, 0, 2])?;
    reply.read_exact(&mut [0; 8])?;
    expect(reply, &[STOP; 2])
}

/// Reads a reply to `write`.
fn read_written(reply: &mut impl Read) -> io::Result<()> {
    expect(reply, &[&header("write"), &[I64, 0, 0][..]].concat())?;
    reply.read_exact(&mut [0; 8])?;
    expect(reply, &[STOP])
}

/// The start of a reply.
fn header(method: &str) -> Vec<u8> {
    [&REPLY[..], &[0, 0, 0, 5], method.as_bytes(), &SEQUENCE].concat()
}

/// Reads these bytes. Anything else is an error: another value, an exception.
fn expect(reply: &mut impl Read, expected: &[u8]) -> io::Result<()> {
    let mut bytes = vec![0; expected.len()];
    reply.read_exact(&mut bytes)?;
    let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "refused, or not understood");
    (bytes == expected).then_some(()).ok_or_else(unexpected)
}

#[cfg(test)]
mod tests {
    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
    use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};

    use super::*;

    /// Like a generated client's, but for the sequence number, which is 1 there.
    #[test]
    fn calls_are_those_of_the_generated_client() {
        let (mut fetched, mut written) = (Vec::new(), Vec::new());
        let client = |sent| {
            let input = TBinaryInputProtocol::new(io::empty(), true);
            StoreSyncClient::new(input, TBinaryOutputProtocol::new(sent, true))
        };
        // There is no reply.
        let _ = client(&mut fetched).fetch(b"key".to_vec());
        let _ = client(&mut written).write(b"key".to_vec(), b"value".to_vec());
        for sent in [&mut fetched, &mut written] {
            assert_eq!(sent[13..17], [0, 0, 0, 1]);
            sent[16] = 0;
        }
        assert_eq!(call("fetch", &[b"key"]), fetched);
        assert_eq!(call("write", &[b"key", b"value"]), written);
    }

    fn reply(method: &str, rest: &[u8]) -> Vec<u8> {
        let head = [&REPLY[..], &[0, 0, 0, 5], method.as_bytes(), &[0; 4]];
        [&head.concat(), rest].concat()
    }

    const VERSION: [u8; 11] = [I64, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];

    #[test]
    fn a_reply_is_read_to_its_end_and_another_value_is_an_error() {
        let head = [STRUCT, 0, 0];
        let there = [&head[..], b"\x0b\0\x01\0\0\0\x02hi", &VERSION, &[0, 0]].concat();
        let fetched = |rest: &[u8], size| read_fetched(&mut &reply("fetch", rest)[..], size);
        fetched(&there, 2).unwrap();
        assert!(fetched(&there, 3).is_err());
        let missing = [&head[..], &VERSION, &[0, 0]].concat();
        assert!(fetched(&missing, 2).is_err());
        let written = [&[I64, 0, 0][..], &[0; 8], &[STOP]].concat();
        read_written(&mut &reply("write", &written)[..]).unwrap();
        assert!((0..there.len()).all(|length| fetched(&there[..length], 2).is_err()));
    }

    #[test]
    fn refusals_and_other_replies_are_errors() {
        let refused = b"\x0c\0\x01\x0b\0\x01\0\0\0\x02no\0\0";
        assert!(read_written(&mut &reply("write", refused)[..]).is_err());
        let other = reply("fetch", &[STRUCT, 0, 0, 2, 0, 3, 1, 0, 0]);
        assert!(read_fetched(&mut &other[..], 2).is_err());
    }
}
