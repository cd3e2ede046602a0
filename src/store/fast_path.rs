//! The store's fast path: `fetch` and `fetch_as_owner` decoded and answered by hand.
//!
//! Nearly all calls of a busy store are reads of one key, and forwarded ones. Generated code
//! takes several times as long for one as looking the key up. So a complete call, encoded as
//! generated clients encode it, is handled here. Any other encoding, for example with an old
//! header or another field, is left to the generated code. Both produce the same bytes: the
//! fuzzer compares them.

use super::placement::Key;
use super::store::Store;
use super::versions::Entry;
use super::wire::NOT_AN_OWNER;
use crate::rpc::binary::{
    STOP, i64_field, put_bytes, put_count, put_reply_header, split_bytes, split_call, split_count,
    string_field, string_list_field, struct_field, struct_list_field,
};
use crate::rpc::fast_path::FastPath;

/// The names of the methods.
const FETCH: &[u8] = b"fetch";
const FETCH_AS_OWNER: &[u8] = b"fetch_as_owner";

impl FastPath for Store {
    fn try_handle(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        self.try_fetch(call, reply)
            .or_else(|| self.try_fetch_as_owner(call, reply))
    }
}

impl Store {
    fn try_fetch(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let call = Fetch::decode(call)?;
        self.throttle.record_call();
        let held = self.fetch(call.key);
        put_reply_header(FETCH, call.sequence, reply);
        match held {
            Ok(held) => put_fetch_reply(held.as_ref(), reply),
            Err(reason) => put_refused(&reason, reply),
        }
        Some(call.length)
    }

    fn try_fetch_as_owner(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let call = FetchAsOwner::decode(call)?;
        self.throttle.record_call();
        let keys: Vec<Key<'_>> = call.keys.into_iter().map(Key::new).collect();
        let held = self.read_as_owner(call.placement_id, &keys);
        put_reply_header(FETCH_AS_OWNER, call.sequence, reply);
        match held {
            Some(held) => put_fetch_as_owner_reply(&held, reply),
            None => put_refused(NOT_AN_OWNER, reply),
        }
        Some(call.length)
    }
}

/// A call of `fetch`.
#[derive(Debug, PartialEq, Eq)]
struct Fetch<'a> {
    sequence: [u8; 4],
    key: &'a [u8],
    /// The call's length in bytes.
    length: usize,
}

/// A call of `fetch_as_owner`.
#[derive(Debug, PartialEq, Eq)]
struct FetchAsOwner<'a> {
    sequence: [u8; 4],
    keys: Vec<&'a [u8]>,
    placement_id: u64,
    /// The call's length in bytes.
    length: usize,
}

impl<'a> Fetch<'a> {
    /// Decodes the `fetch` at the start of `bytes`, if it is complete.
    fn decode(bytes: &'a [u8]) -> Option<Fetch<'a>> {
        let (sequence, rest) = split_call(FETCH, bytes)?;
        let (key, rest) = split_bytes(rest.strip_prefix(&string_field(1))?)?;
        let rest = rest.strip_prefix(&[STOP])?;
        Some(Fetch {
            sequence,
            key,
            length: bytes.len() - rest.len(),
        })
    }
}

impl<'a> FetchAsOwner<'a> {
    /// Decodes the `fetch_as_owner` at the start of `bytes`, if it is complete.
    fn decode(bytes: &'a [u8]) -> Option<FetchAsOwner<'a>> {
        let (sequence, rest) = split_call(FETCH_AS_OWNER, bytes)?;
        let (count, mut rest) = split_count(rest.strip_prefix(&string_list_field(1))?)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let key;
            (key, rest) = split_bytes(rest)?;
            keys.push(key);
        }
        let (placement_id, rest) = rest.strip_prefix(&i64_field(2))?.split_first_chunk()?;
        let rest = rest.strip_prefix(&[STOP])?;
        Some(FetchAsOwner {
            sequence,
            keys,
            placement_id: u64::from_be_bytes(*placement_id),
            length: bytes.len() - rest.len(),
        })
    }
}

/// Appends a `ReadResult`.
fn put_result(held: Option<&Entry>, reply: &mut Vec<u8>) {
    if let Some(value) = held.and_then(|entry| entry.value.as_ref()) {
        reply.extend_from_slice(&string_field(1));
        put_bytes(value, reply);
    }
    let version = held.map_or(0, |entry| entry.version);
    reply.extend_from_slice(&i64_field(2));
    reply.extend_from_slice(&version.to_be_bytes());
    reply.push(STOP);
}

/// Appends the result of `fetch`.
fn put_fetch_reply(held: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_field(0));
    put_result(held, reply);
    reply.push(STOP);
}

/// Appends the result of `fetch_as_owner`.
fn put_fetch_as_owner_reply(held: &[Option<Entry>], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_list_field(0));
    put_count(held.len(), reply);
    held.iter()
        .for_each(|held| put_result(held.as_ref(), reply));
    reply.push(STOP);
}

/// Appends the exception `Refused` of either method.
fn put_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_field(1));
    reply.extend_from_slice(&string_field(1));
    put_bytes(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
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
            let (sequence, length) = (FIRST, sent.len());
            let expected = Fetch {
                sequence,
                key,
                length,
            };
            assert_eq!(Fetch::decode(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| Fetch::decode(&sent[..part]).is_none()));
        }
        for count in 0..=KEYS.len() {
            let keys = KEYS[..count].to_vec();
            let list = keys.iter().map(|key| key.to_vec()).collect();
            let (sent, _) = call(|client| client.fetch_as_owner(list, -7), b"");
            let (sequence, placement_id, length) = (FIRST, -7i64 as u64, sent.len());
            let expected = FetchAsOwner {
                sequence,
                keys,
                placement_id,
                length,
            };
            let twice = [&sent[..], &sent].concat();
            assert_eq!(FetchAsOwner::decode(&twice), Some(expected));
            assert!((0..length).all(|part| FetchAsOwner::decode(&sent[..part]).is_none()));
        }
    }

    #[test]
    fn calls_in_another_encoding_are_left_to_the_generated_code() {
        let (sent, _) = call(|client| client.fetch(b"key".to_vec()), b"");
        // The header, the type, the name, the field's type and id, and the end of the struct.
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(Fetch::decode(&other), None, "byte {at} is {byte}");
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
            assert_eq!(FetchAsOwner::decode(&other), None, "byte {at} is {byte}");
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
