//! `fetch` and `fetch_at` as bytes, past the generated code.
//!
//! Nearly all calls of a busy store are reads of one key, and what is passed on of them.
//! What the generated code and the Thrift crate's protocols do for one, with the names and
//! strings that they allocate, takes several times as long as to look the key up. So a call
//! that came whole, and just as generated clients write it, is read here and answered by
//! the store's [`Shortcut`]. Whatever differs, by an old header or another field, say, is
//! left to the generated code. Both answer by the same bytes: the fuzzer compares them.
//!
//! Replies are understood with fields that a later version of the interface may add.
//!
//! [`Shortcut`]: crate::rpc::shortcut::Shortcut

use super::versions::{Entry, Held, Value};
use super::wire::refused;
use crate::rpc::by_hand::{ByHand, unexpected};
use crate::rpc::bytes::{
    STOP, add_count, add_counted, call_of, count, counted, long, string, strings, structure,
    structures,
};

/// The names of the methods.
pub(crate) const FETCH: &[u8; 5] = b"fetch";
pub(super) const FETCH_AT: &[u8; 8] = b"fetch_at";

/// A call of `fetch`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetch<'a> {
    pub sequence: [u8; 4],
    pub key: &'a [u8],
    /// How many bytes the call has.
    pub length: usize,
}

/// A call of `fetch_at`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FetchAt<'a> {
    pub sequence: [u8; 4],
    pub keys: Vec<&'a [u8]>,
    pub view: u64,
    /// How many bytes the call has.
    pub length: usize,
}

impl<'a> Fetch<'a> {
    /// The `fetch` that `bytes` begin with, if it is there to its end.
    pub fn read(bytes: &'a [u8]) -> Option<Fetch<'a>> {
        let (sequence, rest) = call_of(FETCH, bytes)?;
        let (key, rest) = counted(rest.strip_prefix(&string(1))?)?;
        let rest = rest.strip_prefix(&[STOP])?;
        Some(Fetch {
            sequence,
            key,
            length: bytes.len() - rest.len(),
        })
    }
}

impl<'a> FetchAt<'a> {
    /// The `fetch_at` that `bytes` begin with, if it is there to its end.
    pub fn read(bytes: &'a [u8]) -> Option<FetchAt<'a>> {
        let (sequence, rest) = call_of(FETCH_AT, bytes)?;
        let (many, mut rest) = count(rest.strip_prefix(&strings(1))?)?;
        let mut keys = Vec::new();
        for _ in 0..many {
            let key;
            (key, rest) = counted(rest)?;
            keys.push(key);
        }
        let (view, rest) = rest.strip_prefix(&long(2))?.split_first_chunk()?;
        let rest = rest.strip_prefix(&[STOP])?;
        Some(FetchAt {
            sequence,
            keys,
            view: u64::from_be_bytes(*view),
            length: bytes.len() - rest.len(),
        })
    }
}

/// Adds the struct that tells what was found.
fn add_found(found: Option<&Entry>, reply: &mut Vec<u8>) {
    if let Some(value) = found.and_then(|entry| entry.value.as_ref()) {
        reply.extend_from_slice(&string(1));
        add_counted(value, reply);
    }
    let version = found.map_or(0, |entry| entry.version);
    reply.extend_from_slice(&long(2));
    reply.extend_from_slice(&version.to_be_bytes());
    reply.push(STOP);
}

/// Adds the result of `fetch`.
pub(super) fn add_fetched(found: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(0));
    add_found(found, reply);
    reply.push(STOP);
}

/// Adds the result of `fetch_at`.
pub(super) fn add_all_fetched(found: &[Held], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structures(0));
    add_count(found.len(), reply);
    found
        .iter()
        .for_each(|found| add_found(found.as_ref(), reply));
    reply.push(STOP);
}

/// Adds the exception that refuses either.
pub(super) fn add_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(1));
    reply.extend_from_slice(&string(1));
    add_counted(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
}

/// Sends a `fetch_at`. Blocks until it is taken.
///
/// # Errors
/// It could not be sent.
pub fn send_fetch_at<'a>(
    owner: &mut ByHand,
    keys: impl ExactSizeIterator<Item = &'a [u8]>,
    view: u64,
) -> thrift::Result<()> {
    let call = owner.call(FETCH_AT);
    call.extend_from_slice(&strings(1));
    add_count(keys.len(), call);
    keys.for_each(|key| add_counted(key, call));
    call.extend_from_slice(&long(2));
    call.extend_from_slice(&view.to_be_bytes());
    call.push(STOP);
    owner.send()
}

/// Reads the reply to a `fetch_at` of so many keys: what is held for as many of the first
/// ones as it tells. Blocks until it has come.
///
/// # Errors
/// None came, or another one; or it refuses, by an exception of the interface.
pub fn receive_fetch_at(owner: &mut ByHand, keys: usize) -> thrift::Result<Vec<Held>> {
    owner.receive(FETCH_AT)?;
    let field = owner.take::<3>()?;
    if field == structure(1) {
        return Err(take_refused(owner)?);
    }
    let [head @ .., element] = structures(0);
    if field != head {
        return Err(unexpected());
    }
    owner.expect([element])?;
    let many = owner.take_count()?;
    if many > keys {
        return Err(unexpected());
    }
    let found = (0..many).map(|_| take_found(owner));
    let found = found.collect::<thrift::Result<_>>()?;
    owner.expect([STOP])?;
    Ok(found)
}

/// Reads the rest of a reply that refuses.
///
/// # Errors
/// It does not come.
pub(crate) fn take_refused(store: &mut ByHand) -> thrift::Result<thrift::Error> {
    let mut reason = Vec::new();
    while let Some(field) = store.take_field()? {
        if field == string(1) {
            store.take_counted(&mut reason)?;
        } else {
            store.skip(field)?;
        }
    }
    store.expect([STOP])?;
    Ok(refused(String::from_utf8_lossy(&reason)))
}

/// Reads the struct that tells what was found.
fn take_found(owner: &mut ByHand) -> thrift::Result<Held> {
    let (mut value, mut version) = (None, 0);
    while let Some(field) = owner.take_field()? {
        if field == string(1) {
            let mut bytes = Vec::new();
            owner.take_counted(&mut bytes)?;
            value = Some(Value::from(bytes));
        } else if field == long(2) {
            version = i64::from_be_bytes(owner.take()?);
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
    use crate::rpc::by_hand::RESERVED;
    use crate::rpc::bytes::{EXCEPTION, REPLY, begin};
    use crate::rpc::client::Caller;
    use crate::store::operations::PEER_PATIENCE;
    use crate::store::wire::found;

    type Generated<'a, 'b> = StoreSyncClient<
        TBinaryInputProtocol<&'a mut &'b [u8]>,
        TBinaryOutputProtocol<&'a mut Vec<u8>>,
    >;

    /// The sequence number of a client's first call.
    const FIRST: [u8; 4] = 1i32.to_be_bytes();

    /// What the generated client sends with a call, and hears when this is the answer.
    fn call<T>(
        body: impl FnOnce(&mut Generated<'_, '_>) -> thrift::Result<T>,
        mut answer: &[u8],
    ) -> (Vec<u8>, thrift::Result<T>) {
        let mut sent = Vec::new();
        let input = TBinaryInputProtocol::new(&mut answer, true);
        let output = TBinaryOutputProtocol::new(&mut sent, true);
        let heard = body(&mut StoreSyncClient::new(input, output));
        assert!(answer.is_empty(), "all of it is read");
        (sent, heard)
    }

    fn reply(method: &[u8], tell: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut reply = Vec::new();
        begin(REPLY, method, FIRST, &mut reply);
        tell(&mut reply);
        reply
    }

    /// What is heard by hand of this answer, and what was sent before.
    fn call_by_hand<T>(
        answer: Vec<u8>,
        body: impl FnOnce(&mut ByHand) -> thrift::Result<T>,
    ) -> (Vec<u8>, thrift::Result<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let peer = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(&answer).unwrap();
            peer.shutdown(net::Shutdown::Write).unwrap();
            let mut sent = Vec::new();
            // What is not read to its end is reset.
            let _ = peer.read_to_end(&mut sent);
            sent
        });
        let caller = Caller::default();
        let mut client = caller
            .connect(PEER_PATIENCE, ByHand::new, &location)
            .unwrap();
        let heard = body(&mut client);
        drop(client);
        (peer.join().unwrap(), heard)
    }

    const KEYS: [&[u8]; 3] = [b"", b"a", &[0; 300]];

    #[test]
    fn calls_of_the_generated_client_are_read_and_no_parts_of_them() {
        for key in KEYS {
            let (sent, _) = call(|client| client.fetch(key.to_vec()), b"");
            let (sequence, length) = (FIRST, sent.len());
            let expected = Fetch {
                sequence,
                key,
                length,
            };
            assert_eq!(Fetch::read(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| Fetch::read(&sent[..part]).is_none()));
        }
        for many in 0..=KEYS.len() {
            let keys = KEYS[..many].to_vec();
            let list = keys.iter().map(|key| key.to_vec()).collect();
            let (sent, _) = call(|client| client.fetch_at(list, -7), b"");
            let (sequence, view, length) = (FIRST, -7i64 as u64, sent.len());
            let expected = FetchAt {
                sequence,
                keys,
                view,
                length,
            };
            assert_eq!(FetchAt::read(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| FetchAt::read(&sent[..part]).is_none()));
        }
    }

    #[test]
    fn calls_that_are_written_otherwise_are_left_to_the_generated_code() {
        let (sent, _) = call(|client| client.fetch(b"key".to_vec()), b"");
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = sent.clone();
            other[at] = byte;
            assert_eq!(Fetch::read(&other), None, "byte {at} is {byte}");
        }
        let (sent, _) = call(|client| client.fetch_at(vec![b"key".to_vec()], 1), b"");
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
            assert_eq!(FetchAt::read(&other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn calls_by_hand_are_those_of_the_generated_client() {
        let send = |owner: &mut ByHand| send_fetch_at(owner, KEYS.into_iter(), 1 << 40);
        let (sent, done) = call_by_hand(Vec::new(), send);
        done.unwrap();
        let list = KEYS.map(<[u8]>::to_vec).to_vec();
        assert_eq!(sent, call(|client| client.fetch_at(list, 1 << 40), b"").0);
    }

    #[test]
    fn the_generated_client_understands_what_is_answered() {
        let entry = |value: Option<&[u8]>| Entry {
            version: 7 << 40,
            value: value.map(|value| value.to_vec().into()),
        };
        let value = [255; 1000];
        let all = [None, Some(None), Some(Some(&b""[..])), Some(Some(&value))];
        let all = all.map(|held| held.map(entry));
        for held in &all {
            let answer = reply(FETCH, |reply| add_fetched(held.as_ref(), reply));
            let (_, heard) = call(|client| client.fetch(Vec::new()), &answer);
            assert_eq!(heard.unwrap(), found(held.clone()));
        }
        let answer = reply(FETCH_AT, |reply| add_all_fetched(&all, reply));
        let (_, heard) = call(|client| client.fetch_at(Vec::new(), 0), &answer);
        assert_eq!(heard.unwrap(), all.map(found));
        let answer = reply(FETCH, |reply| add_refused("not now", reply));
        let (_, heard) = call(|client| client.fetch(Vec::new()), &answer);
        let Err(thrift::Error::User(thrown)) = heard else {
            panic!("no exception of the interface: {heard:?}");
        };
        let refused = thrown.downcast_ref::<Refused>();
        assert_eq!(refused, Some(&Refused::new("not now".to_owned())));
    }

    /// What is heard by hand when this is the reply to the first call, for two keys.
    fn heard(reply: Vec<u8>) -> thrift::Result<Vec<Held>> {
        let ask = |owner: &mut ByHand| {
            send_fetch_at(owner, KEYS[..2].iter().copied(), 1)?;
            receive_fetch_at(owner, 2)
        };
        call_by_hand(reply, ask).1
    }

    #[test]
    fn what_owners_hold_is_heard_by_hand() {
        let held = |value: Option<&[u8]>| {
            Some(Entry {
                version: 7 << 40,
                value: value.map(|value| value.to_vec().into()),
            })
        };
        let long = vec![255; RESERVED + 1];
        let value = held(Some(&long));
        for all in [
            vec![value.clone(), None],
            vec![held(None), held(Some(b""))],
            vec![value],
        ] {
            let answer = reply(FETCH_AT, |reply| add_all_fetched(&all, reply));
            assert_eq!(heard(answer).unwrap(), all);
        }
        let too_many = reply(FETCH_AT, |reply| {
            add_all_fetched(&[None, None, None], reply)
        });
        assert!(matches!(heard(too_many), Err(thrift::Error::Protocol(_))));
        let of_another = reply(FETCH, |reply| add_all_fetched(&[None], reply));
        assert!(matches!(heard(of_another), Err(thrift::Error::Protocol(_))));
    }

    #[test]
    fn what_a_later_version_may_add_to_a_reply_is_passed_over() {
        let added = [12, 0, 9, 2, 0, 1, 1, 11, 0, 2, 0, 0, 0, 1, b'x', 0];
        let answer = reply(FETCH_AT, |reply| {
            reply.extend([15, 0, 0, 12, 0, 0, 0, 1]);
            reply.extend(added);
            add_found(None, reply);
            reply.push(STOP);
        });
        assert_eq!(heard(answer).unwrap(), [None]);
        let answer = reply(FETCH_AT, |reply| {
            reply.extend(structure(1));
            reply.extend(added);
            reply.extend([STOP, STOP]);
        });
        assert!(matches!(heard(answer), Err(thrift::Error::User(_))));
    }

    #[test]
    fn refusals_and_exceptions_are_heard_as_such() {
        let refusal = reply(FETCH_AT, |reply| add_refused("not now", reply));
        let told = heard(refusal).map_err(|e| crate::error::told(&e));
        assert_eq!(told, Err("not now".to_owned()));
        let mut exception = Vec::new();
        begin(EXCEPTION, FETCH_AT, FIRST, &mut exception);
        exception.extend(string(1));
        add_counted(b"unknown method", &mut exception);
        exception.extend([8, 0, 2, 0, 0, 0, 1, STOP]);
        let Err(thrift::Error::Application(told)) = heard(exception) else {
            panic!("no application exception");
        };
        assert_eq!(told.kind, thrift::ApplicationErrorKind::UnknownMethod);
        assert_eq!(told.message, "unknown method");
    }
}
