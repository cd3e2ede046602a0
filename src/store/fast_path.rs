//! The store's fast path: `fetch` and `fetch_as_owner` decoded and answered by hand.
//!
//! Nearly all calls of a busy store are reads of one key, and forwarded ones. Generated code
//! takes several times as long for one as looking the key up. So a complete call, encoded as
//! generated clients encode it, is handled here, without an allocation for its name. Any other encoding, for example with an old
//! header or another field, is left to the generated code. Both produce the same bytes: the
//! fuzzer compares them.

use super::placement::Key;
use super::store::Store;
use super::versions::Entry;
use super::wire::NOT_AN_OWNER;
use crate::rpc::fast_path::FastPath;

/// The names of the methods.
const FETCH: &[u8] = b"fetch";
const FETCH_AS_OWNER: &[u8] = b"fetch_as_owner";

/// The starts of strict message headers: the version, and that it is a call or a reply.
const CALL: &[u8] = &[0x80, 1, 0, 1];
const REPLY: &[u8] = &[0x80, 1, 0, 2];

/// Value types, in the heads of fields and lists.
const I64: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// Ends a struct.
const STOP: u8 = 0;

impl FastPath for Store {
    fn try_handle(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        self.try_fetch(call, reply)
            .or_else(|| self.try_fetch_as_owner(call, reply))
    }
}

impl Store {
    fn try_fetch(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let (sequence, key, rest) = split_fetch(call)?;
        self.throttle.record_call();
        let held = self.fetch(key);
        put_reply_header(FETCH, sequence, reply);
        match held {
            Ok(held) => put_fetch_reply(held.as_ref(), reply),
            Err(reason) => put_refused(&reason, reply),
        }
        Some(call.len() - rest.len())
    }

    fn try_fetch_as_owner(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let (sequence, asked, rest) = split_fetch_as_owner(call)?;
        self.throttle.record_call();
        let keys: Vec<Key<'_>> = asked.keys.into_iter().map(Key::new).collect();
        let held = self.read_as_owner(asked.placement_id, &keys);
        put_reply_header(FETCH_AS_OWNER, sequence, reply);
        match held {
            Some(held) => put_fetch_as_owner_reply(&held, reply),
            None => put_refused(NOT_AN_OWNER, reply),
        }
        Some(call.len() - rest.len())
    }
}

/// The sequence number and the key of the `fetch` at the start of `bytes`, and what follows
/// it. None if it is not complete.
fn split_fetch(bytes: &[u8]) -> Option<([u8; 4], &[u8], &[u8])> {
    let (sequence, rest) = split_call(FETCH, bytes)?;
    let (key, rest) = split_bytes(rest.strip_prefix(&[STRING, 0, 1])?)?;
    Some((sequence, key, rest.strip_prefix(&[STOP])?))
}

/// The arguments of `fetch_as_owner`.
#[derive(Debug, PartialEq, Eq)]
struct FetchAsOwner<'a> {
    keys: Vec<&'a [u8]>,
    placement_id: u64,
}

/// The sequence number and the arguments of the `fetch_as_owner` at the start of `bytes`, and
/// what follows it. None if it is not complete.
fn split_fetch_as_owner(bytes: &[u8]) -> Option<([u8; 4], FetchAsOwner<'_>, &[u8])> {
    let (sequence, rest) = split_call(FETCH_AS_OWNER, bytes)?;
    let (count, mut rest) = split_count(rest.strip_prefix(&[LIST, 0, 1, STRING])?)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let key;
        (key, rest) = split_bytes(rest)?;
        keys.push(key);
    }
    let (id, rest) = rest.strip_prefix(&[I64, 0, 2])?.split_first_chunk()?;
    let placement_id = u64::from_be_bytes(*id);
    let arguments = FetchAsOwner { keys, placement_id };
    Some((sequence, arguments, rest.strip_prefix(&[STOP])?))
}

/// Appends a `ReadResult`.
fn put_result(held: Option<&Entry>, reply: &mut Vec<u8>) {
    if let Some(value) = held.and_then(|entry| entry.value.as_ref()) {
        reply.extend_from_slice(&[STRING, 0, 1]);
        put_bytes(value, reply);
    }
    let version = held.map_or(0, |entry| entry.version);
    reply.extend_from_slice(&[I64, 0, 2]);
    reply.extend_from_slice(&version.to_be_bytes());
    reply.push(STOP);
}

/// Appends the result of `fetch`.
fn put_fetch_reply(held: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&[STRUCT, 0, 0]);
    put_result(held, reply);
    reply.push(STOP);
}

/// Appends the result of `fetch_as_owner`.
fn put_fetch_as_owner_reply(held: &[Option<Entry>], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&[LIST, 0, 0, STRUCT]);
    put_count(held.len(), reply);
    held.iter()
        .for_each(|held| put_result(held.as_ref(), reply));
    reply.push(STOP);
}

/// Appends the exception `Refused` of either method.
fn put_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&[STRUCT, 0, 1]);
    reply.extend_from_slice(&[STRING, 0, 1]);
    put_bytes(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
}

/// Appends the header of a reply.
fn put_reply_header(method: &[u8], sequence: [u8; 4], message: &mut Vec<u8>) {
    message.extend_from_slice(REPLY);
    put_bytes(method, message);
    message.extend_from_slice(&sequence);
}

/// Appends bytes with their length before them.
fn put_bytes(bytes: &[u8], message: &mut Vec<u8>) {
    put_count(bytes.len(), message);
    message.extend_from_slice(bytes);
}

/// Appends a length or a number of elements.
fn put_count(count: usize, message: &mut Vec<u8>) {
    message.extend_from_slice(&(count as u32).to_be_bytes());
}

/// Splits a call of `method` into its sequence number and what follows the header.
fn split_call<'a>(method: &[u8], bytes: &'a [u8]) -> Option<([u8; 4], &'a [u8])> {
    let (name, rest) = split_bytes(bytes.strip_prefix(CALL)?)?;
    let (sequence, rest) = rest.split_first_chunk()?;
    (name == method).then_some((*sequence, rest))
}

/// Splits off bytes that have their length before them.
fn split_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = split_count(bytes)?;
    rest.split_at_checked(length)
}

/// Splits off a length or a number of elements.
fn split_count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*count) as usize, rest))
}

#[cfg(test)]
mod tests {
    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

    use super::*;
    use crate::diststore::{Refused, StoreSyncClient, TStoreSyncClient};
    use crate::store::wire::to_read_result;

    type Generated<'a, 'b> = StoreSyncClient<
        TBinaryInputProtocol<&'a mut &'b [u8]>,
        TBinaryOutputProtocol<&'a mut Vec<u8>>,
    >;

    /// The sequence number of a client's first call.
    const FIRST: [u8; 4] = 1i32.to_be_bytes();

    /// What the generated client sends for a call, and what it makes of this reply.
    fn call<T>(
        body: impl FnOnce(&mut Generated<'_, '_>) -> thrift::Result<T>,
        mut reply: &[u8],
    ) -> (Vec<u8>, thrift::Result<T>) {
        let mut sent = Vec::new();
        let input = TBinaryInputProtocol::new(&mut reply, true);
        let output = TBinaryOutputProtocol::new(&mut sent, true);
        let received = body(&mut StoreSyncClient::new(input, output));
        assert!(reply.is_empty(), "the reply is read completely");
        (sent, received)
    }

    fn reply(method: &[u8], put_result: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut reply = Vec::new();
        put_reply_header(method, FIRST, &mut reply);
        put_result(&mut reply);
        reply
    }

    const KEYS: [&[u8]; 3] = [b"", b"a", &[0; 300]];

    #[test]
    fn complete_calls_of_the_generated_client_are_decoded_and_partial_ones_are_not() {
        for key in KEYS {
            let (sent, _) = call(|client| client.fetch(key.to_vec()), b"");
            let twice = [&sent[..], &sent].concat();
            assert_eq!(split_fetch(&twice), Some((FIRST, key, &sent[..])));
            assert!((0..sent.len()).all(|part| split_fetch(&sent[..part]).is_none()));
        }
        for count in 0..=KEYS.len() {
            let keys = KEYS[..count].to_vec();
            let list = keys.iter().map(|key| key.to_vec()).collect();
            let (sent, _) = call(|client| client.fetch_as_owner(list, -7), b"");
            let twice = [&sent[..], &sent].concat();
            let arguments = FetchAsOwner {
                keys,
                placement_id: -7i64 as u64,
            };
            let expected = (FIRST, arguments, &sent[..]);
            assert_eq!(split_fetch_as_owner(&twice), Some(expected));
            assert!((0..sent.len()).all(|part| split_fetch_as_owner(&sent[..part]).is_none()));
        }
    }

    #[test]
    fn calls_in_another_encoding_are_left_to_the_generated_code() {
        let (sent, _) = call(|client| client.fetch(b"key".to_vec()), b"");
        // The header, the type, the name, the field's type and id, and the end of the struct.
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(split_fetch(&other), None, "byte {at} is {byte}");
        }
        let (sent, _) = call(
            |client| client.fetch_as_owner(vec![b"key".to_vec()], 1),
            b"",
        );
        let name = FETCH_AS_OWNER.len();
        let (list, version) = (12 + name, 12 + name + 15);
        for (at, byte) in [
            (0, 0),
            (3, 4),
            (8, b'F'),
            (list, 14),
            (list + 3, 12),
            (version, 9),
            (version + 8 + 3, 8),
        ] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(split_fetch_as_owner(&other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn the_generated_client_decodes_the_replies() {
        let entry = |value: Option<&[u8]>| Entry {
            version: 7 << 40,
            value: value.map(|value| value.to_vec().into()),
        };
        let value = [255; 1000];
        let all = [None, Some(None), Some(Some(&b""[..])), Some(Some(&value))];
        let all = all.map(|held| held.map(entry));
        for held in &all {
            let reply = reply(FETCH, |reply| put_fetch_reply(held.as_ref(), reply));
            let (_, received) = call(|client| client.fetch(Vec::new()), &reply);
            assert_eq!(received.unwrap(), to_read_result(held.clone()));
        }
        let list = reply(FETCH_AS_OWNER, |reply| {
            put_fetch_as_owner_reply(&all, reply)
        });
        let (_, received) = call(|client| client.fetch_as_owner(Vec::new(), 0), &list);
        assert_eq!(received.unwrap(), all.map(to_read_result));
        let refusal = reply(FETCH, |reply| put_refused("not now", reply));
        let (_, received) = call(|client| client.fetch(Vec::new()), &refusal);
        let Err(thrift::Error::User(thrown)) = received else {
            panic!("not an exception of the interface: {received:?}");
        };
        let refused = thrown.downcast_ref::<Refused>();
        assert_eq!(refused, Some(&Refused::new("not now".to_owned())));
    }
}
