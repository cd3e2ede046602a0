//! `fetch` and `fetch_as_owner` encoded by hand.
//!
//! Nearly all calls of a busy store are reads of one key, and forwarded ones. Generated code
//! takes several times as long for one as looking the key up. So a complete call, encoded as
//! generated clients encode it, is decoded here and answered by the store's
//! [`FastPath`](crate::rpc::fast_path::FastPath). Any other encoding, for example with an old
//! header or another field, is left to the generated code. Both produce the same bytes: the
//! fuzzer compares them.
//!
//! Decoded replies may have fields that a later version of the interface adds.

use super::versions::{Entry, Value};
use super::wire::refused;
use crate::rpc::binary::{
    RawClient, STOP, i64_field, put_bytes, put_count, split_bytes, split_call, split_count,
    string_field, string_list_field, struct_field, struct_list_field, unexpected,
};

/// The names of the methods.
pub(super) const FETCH: &[u8; 5] = b"fetch";
pub(super) const FETCH_AS_OWNER: &[u8; 14] = b"fetch_as_owner";

/// A call of `fetch`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetch<'a> {
    pub sequence: [u8; 4],
    pub key: &'a [u8],
    /// The call's length in bytes.
    pub length: usize,
}

/// A call of `fetch_as_owner`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FetchAsOwner<'a> {
    pub sequence: [u8; 4],
    pub keys: Vec<&'a [u8]>,
    pub placement_id: u64,
    /// The call's length in bytes.
    pub length: usize,
}

impl<'a> Fetch<'a> {
    /// Decodes the `fetch` at the start of `bytes`, if it is complete.
    pub fn decode(bytes: &'a [u8]) -> Option<Fetch<'a>> {
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
    pub fn decode(bytes: &'a [u8]) -> Option<FetchAsOwner<'a>> {
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
pub(super) fn put_fetch_reply(held: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_field(0));
    put_result(held, reply);
    reply.push(STOP);
}

/// Appends the result of `fetch_as_owner`.
pub(super) fn put_fetch_as_owner_reply(held: &[Option<Entry>], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_list_field(0));
    put_count(held.len(), reply);
    held.iter()
        .for_each(|held| put_result(held.as_ref(), reply));
    reply.push(STOP);
}

/// Appends the exception `Refused` of either method.
pub(super) fn put_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&struct_field(1));
    reply.extend_from_slice(&string_field(1));
    put_bytes(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
}

/// Sends a `fetch_as_owner`. Blocks until the socket has taken it.
///
/// # Errors
/// It could not be sent.
pub(super) fn send_fetch_as_owner<'a>(
    owner: &mut RawClient,
    keys: impl ExactSizeIterator<Item = &'a [u8]>,
    placement_id: u64,
) -> thrift::Result<()> {
    let call = owner.start_call(FETCH_AS_OWNER);
    call.extend_from_slice(&string_list_field(1));
    put_count(keys.len(), call);
    keys.for_each(|key| put_bytes(key, call));
    call.extend_from_slice(&i64_field(2));
    call.extend_from_slice(&placement_id.to_be_bytes());
    call.push(STOP);
    owner.send()
}

/// Reads the reply to a `fetch_as_owner` of `max` keys: what is held for the first ones.
/// Blocks until it has arrived.
///
/// # Errors
/// No reply, another call's reply, or a refusal.
pub(super) fn receive_fetch_as_owner(
    owner: &mut RawClient,
    max: usize,
) -> thrift::Result<Vec<Option<Entry>>> {
    owner.read_reply_header(FETCH_AS_OWNER)?;
    let field = owner.read::<3>()?;
    if field == struct_field(1) {
        return Err(read_refused(owner)?);
    }
    let [head @ .., element] = struct_list_field(0);
    if field != head {
        return Err(unexpected());
    }
    owner.expect([element])?;
    let count = owner.read_count()?;
    if count > max {
        return Err(unexpected());
    }
    let held = (0..count).map(|_| read_result(owner));
    let held = held.collect::<thrift::Result<_>>()?;
    owner.expect([STOP])?;
    Ok(held)
}

/// Reads the rest of a refusal.
fn read_refused(owner: &mut RawClient) -> thrift::Result<thrift::Error> {
    let mut reason = Vec::new();
    while let Some(field) = owner.read_field()? {
        if field == string_field(1) {
            reason = owner.read_bytes()?;
        } else {
            owner.skip(field)?;
        }
    }
    owner.expect([STOP])?;
    Ok(refused(String::from_utf8_lossy(&reason)))
}

/// Reads a `ReadResult`.
fn read_result(owner: &mut RawClient) -> thrift::Result<Option<Entry>> {
    let (mut value, mut version) = (None, 0);
    while let Some(field) = owner.read_field()? {
        if field == string_field(1) {
            value = Some(Value::from(owner.read_bytes()?));
        } else if field == i64_field(2) {
            version = i64::from_be_bytes(owner.read()?);
        } else {
            owner.skip(field)?;
        }
    }
    Ok((version != 0).then_some(Entry { version, value }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{self, TcpListener};
    use std::thread;

    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

    use super::*;
    use crate::diststore::{Refused, StoreSyncClient, TStoreSyncClient};
    use crate::location::Location;
    use crate::rpc::binary::{EXCEPTION, MAX_PREALLOCATED, REPLY, put_header};
    use crate::rpc::dialer::Dialer;
    use crate::store::types::PEER_TIMEOUTS;
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
        mut reply_bytes: &[u8],
    ) -> (Vec<u8>, thrift::Result<T>) {
        let mut sent = Vec::new();
        let input = TBinaryInputProtocol::new(&mut reply_bytes, true);
        let output = TBinaryOutputProtocol::new(&mut sent, true);
        let received = body(&mut StoreSyncClient::new(input, output));
        assert!(reply_bytes.is_empty(), "the reply is read completely");
        (sent, received)
    }

    fn reply(method: &[u8], tell: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut reply = Vec::new();
        put_header(REPLY, method, FIRST, &mut reply);
        tell(&mut reply);
        reply
    }

    /// What a raw client sends, and what it makes of this reply.
    fn call_raw<T>(
        reply_bytes: Vec<u8>,
        body: impl FnOnce(&mut RawClient) -> thrift::Result<T>,
    ) -> (Vec<u8>, thrift::Result<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let peer = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(&reply_bytes).unwrap();
            peer.shutdown(net::Shutdown::Write).unwrap();
            let mut sent = Vec::new();
            // Unread bytes reset the connection.
            let _ = peer.read_to_end(&mut sent);
            sent
        });
        let dialer = Dialer::default();
        let mut client = dialer
            .connect(PEER_TIMEOUTS, RawClient::new, &location)
            .unwrap();
        let received = body(&mut client);
        drop(client);
        (peer.join().unwrap(), received)
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
        for many in 0..=KEYS.len() {
            let keys = KEYS[..many].to_vec();
            let list = keys.iter().map(|key| key.to_vec()).collect();
            let (sent, _) = call(|client| client.fetch_as_owner(list, -7), b"");
            let (sequence, placement_id, length) = (FIRST, -7i64 as u64, sent.len());
            let expected = FetchAsOwner {
                sequence,
                keys,
                placement_id,
                length,
            };
            assert_eq!(FetchAsOwner::decode(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| FetchAsOwner::decode(&sent[..part]).is_none()));
        }
    }

    #[test]
    fn calls_in_another_encoding_are_left_to_the_generated_code() {
        let (sent, _) = call(|client| client.fetch(b"key".to_vec()), b"");
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(Fetch::decode(&other), None, "byte {at} is {byte}");
        }
        let (sent, _) = call(|client| client.fetch_as_owner(vec![b"key".to_vec()], 1), b"");
        for (at, byte) in [
            (0, 0),
            (3, 4),
            (8, b'F'),
            (20, 14),
            (23, 12),
            (27, 9),
            (35, 8),
        ] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(FetchAsOwner::decode(&other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn raw_calls_have_the_bytes_of_the_generated_client() {
        let send = |owner: &mut RawClient| send_fetch_as_owner(owner, KEYS.into_iter(), 1 << 40);
        let (sent, done) = call_raw(Vec::new(), send);
        done.unwrap();
        let list = KEYS.map(<[u8]>::to_vec).to_vec();
        assert_eq!(sent, call(|client| client.fetch_as_owner(list, 1 << 40), b"").0);
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
            let reply_bytes = reply(FETCH, |reply| put_fetch_reply(held.as_ref(), reply));
            let (_, received) = call(|client| client.fetch(Vec::new()), &reply_bytes);
            assert_eq!(received.unwrap(), to_read_result(held.clone()));
        }
        let reply_bytes = reply(FETCH_AS_OWNER, |reply| put_fetch_as_owner_reply(&all, reply));
        let (_, received) = call(|client| client.fetch_as_owner(Vec::new(), 0), &reply_bytes);
        assert_eq!(received.unwrap(), all.map(to_read_result));
        let reply_bytes = reply(FETCH, |reply| put_refused("not now", reply));
        let (_, received) = call(|client| client.fetch(Vec::new()), &reply_bytes);
        let Err(thrift::Error::User(thrown)) = received else {
            panic!("not an exception of the interface: {received:?}");
        };
        let refused = thrown.downcast_ref::<Refused>();
        assert_eq!(refused, Some(&Refused::new("not now".to_owned())));
    }

    /// What a raw client makes of this reply to its first call, for two keys.
    fn received(reply: Vec<u8>) -> thrift::Result<Vec<Option<Entry>>> {
        let call = |owner: &mut RawClient| {
            send_fetch_as_owner(owner, KEYS[..2].iter().copied(), 1)?;
            receive_fetch_as_owner(owner, 2)
        };
        call_raw(reply, call).1
    }

    #[test]
    fn a_raw_client_decodes_what_owners_hold() {
        let held = |value: Option<&[u8]>| {
            Some(Entry {
                version: 7 << 40,
                value: value.map(|value| value.to_vec().into()),
            })
        };
        let long = vec![255; MAX_PREALLOCATED + 1];
        let value = held(Some(&long));
        for all in [
            vec![value.clone(), None],
            vec![held(None), held(Some(b""))],
            vec![value],
        ] {
            let reply_bytes = reply(FETCH_AS_OWNER, |reply| put_fetch_as_owner_reply(&all, reply));
            assert_eq!(received(reply_bytes).unwrap(), all);
        }
        let too_many = reply(FETCH_AS_OWNER, |reply| {
            put_fetch_as_owner_reply(&[None, None, None], reply)
        });
        assert!(matches!(received(too_many), Err(thrift::Error::Protocol(_))));
        let of_another = reply(FETCH, |reply| put_fetch_as_owner_reply(&[None], reply));
        assert!(matches!(received(of_another), Err(thrift::Error::Protocol(_))));
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let added = [12, 0, 9, 2, 0, 1, 1, 11, 0, 2, 0, 0, 0, 1, b'x', 0];
        let reply_bytes = reply(FETCH_AS_OWNER, |reply| {
            reply.extend([15, 0, 0, 12, 0, 0, 0, 1]);
            reply.extend(added);
            put_result(None, reply);
            reply.push(STOP);
        });
        assert_eq!(received(reply_bytes).unwrap(), [None]);
        let reply_bytes = reply(FETCH_AS_OWNER, |reply| {
            reply.extend(struct_field(1));
            reply.extend(added);
            reply.extend([STOP, STOP]);
        });
        assert!(matches!(received(reply_bytes), Err(thrift::Error::User(_))));
    }

    #[test]
    fn refusals_and_exceptions_are_distinguished() {
        let refusal = reply(FETCH_AS_OWNER, |reply| put_refused("not now", reply));
        let message = received(refusal).map_err(|e| crate::error::message(&e));
        assert_eq!(message, Err("not now".to_owned()));
        let mut exception = Vec::new();
        put_header(EXCEPTION, FETCH_AS_OWNER, FIRST, &mut exception);
        exception.extend(string_field(1));
        put_bytes(b"unknown method", &mut exception);
        exception.extend([8, 0, 2, 0, 0, 0, 1, STOP]);
        let Err(thrift::Error::Application(message)) = received(exception) else {
            panic!("not an application exception");
        };
        assert_eq!(message.kind, thrift::ApplicationErrorKind::UnknownMethod);
        assert_eq!(message.message, "unknown method");
    }
}
