//! `fetch` from bytes to bytes, past the generated code.
//!
//! Nearly all calls of a busy store are reads of one key. What the generated code and the
//! Thrift crate's protocols do for one, with the names and strings that they allocate,
//! takes several times as long as to look the key up. So a call that came whole, and just
//! as generated clients write it, is read and answered here. Whatever differs, by an old
//! header or another field, say, is left to the generated code. Both answer by the same
//! bytes: the fuzzer compares them.

use super::operations::Store;
use super::versions::Entry;
use crate::rpc::shortcut::Shortcut;

/// The kinds of messages, as a strict header tells them.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;

/// The heads of fields: a type, and a number.
pub(crate) const fn string(number: u8) -> [u8; 3] {
    [11, 0, number]
}
pub(crate) const fn structure(number: u8) -> [u8; 3] {
    [12, 0, number]
}
pub(crate) const fn long(number: u8) -> [u8; 3] {
    [10, 0, number]
}

/// The end of a struct.
pub(crate) const STOP: u8 = 0;

/// The head of a message of `fetch`, up to its sequence number.
pub(crate) const fn fetch(kind: u8) -> [u8; 13] {
    let mut head = *b"\x80\x01\x00\x00\x00\x00\x00\x05fetch";
    head[3] = kind;
    head
}

/// Adds bytes behind their length.
pub(crate) fn add_counted(bytes: &[u8], message: &mut Vec<u8>) {
    message.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    message.extend_from_slice(bytes);
}

/// A call of `fetch`.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    sequence: [u8; 4],
    key: &'a [u8],
    /// How many bytes the call has.
    length: usize,
}

/// The call that `bytes` begin with, if it is there to its end.
fn asked(bytes: &[u8]) -> Option<Asked<'_>> {
    let rest = bytes.strip_prefix(&fetch(CALL))?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.strip_prefix(&string(1))?.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let rest = rest.strip_prefix(&[STOP])?;
    Some(Asked {
        sequence: *sequence,
        key,
        length: bytes.len() - rest.len(),
    })
}

/// Adds what a reply begins with.
fn begin(sequence: [u8; 4], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&fetch(REPLY));
    reply.extend_from_slice(&sequence);
}

/// Adds the struct that tells what was found, and the end of the reply.
fn tell_found(found: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(0));
    if let Some(value) = found.and_then(|entry| entry.value.as_ref()) {
        reply.extend_from_slice(&string(1));
        add_counted(value, reply);
    }
    let version = found.map_or(0, |entry| entry.version);
    reply.extend_from_slice(&long(2));
    reply.extend_from_slice(&version.to_be_bytes());
    reply.extend_from_slice(&[STOP, STOP]);
}

/// Adds the exception that refuses, and the end of the reply.
fn tell_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(1));
    reply.extend_from_slice(&string(1));
    add_counted(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
}

impl Shortcut for Store {
    fn answer(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let asked = asked(call)?;
        self.pace.count();
        let found = self.fetch(asked.key);
        begin(asked.sequence, reply);
        match found {
            Ok(found) => tell_found(found.as_ref(), reply),
            Err(reason) => tell_refused(&reason, reply),
        }
        Some(asked.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

    use super::*;
    use crate::diststore::{Found, Refused, StoreSyncClient, TStoreSyncClient};
    use crate::store::wire::found;

    /// What the generated client sends for a key.
    fn sent(key: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        let input = TBinaryInputProtocol::new(io::empty(), true);
        let output = TBinaryOutputProtocol::new(&mut message, true);
        let call = StoreSyncClient::new(input, output).fetch(key.to_vec());
        assert!(call.is_err(), "there is no answer");
        message
    }

    /// What the generated client understands, when its first call is answered by this.
    fn understood(tell: impl FnOnce(&mut Vec<u8>)) -> thrift::Result<Found> {
        let mut reply = Vec::new();
        begin(1i32.to_be_bytes(), &mut reply);
        tell(&mut reply);
        let mut rest = &reply[..];
        let input = TBinaryInputProtocol::new(&mut rest, true);
        let output = TBinaryOutputProtocol::new(io::sink(), true);
        let found = StoreSyncClient::new(input, output).fetch(Vec::new());
        assert!(rest.is_empty(), "all of it is read");
        found
    }

    #[test]
    fn calls_of_the_generated_client_are_read_and_no_parts_of_them() {
        for key in [&b""[..], b"a", &[0; 300]] {
            let call = sent(key);
            for length in 0..call.len() {
                assert_eq!(asked(&call[..length]), None, "cut off at {length}");
            }
            let length = call.len();
            let sequence = 1i32.to_be_bytes();
            let expected = Some(Asked {
                sequence,
                key,
                length,
            });
            let two = [&call[..], &call].concat();
            assert_eq!(asked(&call), expected);
            assert_eq!(asked(&two), expected, "another call behind it is not read");
        }
    }

    #[test]
    fn calls_that_are_written_otherwise_are_left_to_the_generated_code() {
        let call = sent(b"key");
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = call.clone();
            other[at] = byte;
            assert_eq!(asked(&other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn the_generated_client_understands_what_is_answered() {
        let entry = |value: Option<&[u8]>| Entry {
            version: 7 << 40,
            value: value.map(|value| value.to_vec().into()),
        };
        let value = [255; 1000];
        let cases = [None, Some(None), Some(Some(&b""[..])), Some(Some(&value))];
        for held in cases.map(|case| case.map(entry)) {
            let heard = understood(|reply| tell_found(held.as_ref(), reply));
            assert_eq!(heard.unwrap(), found(held));
        }
        let heard = understood(|reply| tell_refused("not now", reply)).unwrap_err();
        let thrift::Error::User(thrown) = heard else {
            panic!("no exception of the interface: {heard:?}");
        };
        let refused = thrown.downcast_ref::<Refused>();
        assert_eq!(refused, Some(&Refused::new("not now".to_owned())));
    }
}
