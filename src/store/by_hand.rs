//! `fetch` and `fetch_at` from bytes to bytes, past the generated code.
//!
//! Nearly all calls of a busy store are reads of one key, and what is passed on of them.
//! What the generated code and the Thrift crate's protocols do for one, with the names and
//! strings that they allocate, takes several times as long as to look the key up. So a call
//! that came whole, and just as generated clients write it, is read and answered here.
//! Whatever differs, by an old header or another field, say, is left to the generated code.
//! Both answer by the same bytes: the fuzzer compares them.

use super::operations::Store;
use super::table::Key;
use super::versions::{Entry, Held, Value};
use super::wire::{NOT_ANSWERED, refused};
use crate::rpc::plain::{
    Plain, REPLY, STOP, add_count, add_counted, begin, call_of, count, counted, long, string,
    strings, structure, structures, unexpected,
};
use crate::rpc::shortcut::Shortcut;

/// The names of the methods.
pub(crate) const FETCH: &[u8; 5] = b"fetch";
const FETCH_AT: &[u8; 8] = b"fetch_at";

/// A call of `fetch`, or of `fetch_at` with its view.
#[derive(Debug, PartialEq, Eq)]
struct Asked<K, V> {
    sequence: [u8; 4],
    keys: K,
    view: V,
    /// How many bytes the call has.
    length: usize,
}

/// The `fetch` that `bytes` begin with, if it is there to its end.
fn asked(bytes: &[u8]) -> Option<Asked<&[u8], ()>> {
    let (sequence, rest) = call_of(FETCH, bytes)?;
    let (key, rest) = counted(rest.strip_prefix(&string(1))?)?;
    let rest = rest.strip_prefix(&[STOP])?;
    Some(Asked {
        sequence,
        keys: key,
        view: (),
        length: bytes.len() - rest.len(),
    })
}

/// The `fetch_at` that `bytes` begin with, if it is there to its end.
fn asked_at(bytes: &[u8]) -> Option<Asked<Vec<&[u8]>, i64>> {
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
    Some(Asked {
        sequence,
        keys,
        view: i64::from_be_bytes(*view),
        length: bytes.len() - rest.len(),
    })
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
fn tell_found(found: Option<&Entry>, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(0));
    add_found(found, reply);
    reply.push(STOP);
}

/// Adds the result of `fetch_at`.
fn tell_all_found(found: &[Held], reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structures(0));
    add_count(found.len(), reply);
    found
        .iter()
        .for_each(|found| add_found(found.as_ref(), reply));
    reply.push(STOP);
}

/// Adds the exception that refuses either.
fn tell_refused(reason: &str, reply: &mut Vec<u8>) {
    reply.extend_from_slice(&structure(1));
    reply.extend_from_slice(&string(1));
    add_counted(reason.as_bytes(), reply);
    reply.extend_from_slice(&[STOP, STOP]);
}

impl Shortcut for Store {
    fn answer(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        self.answer_fetch(call, reply)
            .or_else(|| self.answer_fetch_at(call, reply))
    }
}

impl Store {
    fn answer_fetch(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let asked = asked(call)?;
        self.pace.count();
        let found = self.fetch(asked.keys);
        begin(REPLY, FETCH, asked.sequence, reply);
        match found {
            Ok(found) => tell_found(found.as_ref(), reply),
            Err(reason) => tell_refused(&reason, reply),
        }
        Some(asked.length)
    }

    fn answer_fetch_at(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let asked = asked_at(call)?;
        self.pace.count();
        let keys: Vec<Key<'_>> = asked.keys.into_iter().map(Key::new).collect();
        let found = self.answer_at(asked.view as u64, &keys);
        begin(REPLY, FETCH_AT, asked.sequence, reply);
        match found {
            Some(found) => tell_all_found(&found, reply),
            None => tell_refused(NOT_ANSWERED, reply),
        }
        Some(asked.length)
    }
}

/// Sends a `fetch_at`. Blocks until it is taken.
///
/// # Errors
/// It could not be sent.
pub fn send_fetch_at<'a>(
    owner: &mut Plain,
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
pub fn hear_fetch_at(owner: &mut Plain, keys: usize) -> thrift::Result<Vec<Held>> {
    owner.hear(FETCH_AT)?;
    let field = owner.take::<3>()?;
    if field == structure(1) {
        owner.expect(string(1))?;
        let mut reason = Vec::new();
        owner.take_counted(&mut reason)?;
        owner.expect([STOP, STOP])?;
        return Err(refused(String::from_utf8_lossy(&reason)));
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
    let found = (0..many).map(|_| hear_found(owner));
    let found = found.collect::<thrift::Result<_>>()?;
    owner.expect([STOP])?;
    Ok(found)
}

/// Reads the struct that tells what was found.
fn hear_found(owner: &mut Plain) -> thrift::Result<Held> {
    let (mut value, mut version) = (None, 0);
    while let Some(field) = owner.take_field()? {
        if field == string(1) {
            let mut bytes = Vec::new();
            owner.take_counted(&mut bytes)?;
            value = Some(Value::from(bytes));
        } else if field == long(2) {
            version = i64::from_be_bytes(owner.take()?);
        } else {
            return Err(unexpected());
        }
    }
    Ok((version != 0).then_some(Entry { version, value }))
}

#[cfg(test)]
mod tests {
    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

    use super::*;
    use crate::diststore::{Refused, StoreSyncClient, TStoreSyncClient};
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

    #[test]
    fn calls_of_the_generated_client_are_read_and_no_parts_of_them() {
        let keys = [&b""[..], b"a", &[0; 300]];
        for key in keys {
            let (sent, _) = call(|client| client.fetch(key.to_vec()), b"");
            let (sequence, view, length) = (FIRST, (), sent.len());
            let expected = Asked {
                sequence,
                keys: key,
                view,
                length,
            };
            assert_eq!(asked(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| asked(&sent[..part]).is_none()));
        }
        for many in 0..=keys.len() {
            let keys = &keys[..many];
            let list = keys.iter().map(|key| key.to_vec()).collect();
            let (sent, _) = call(|client| client.fetch_at(list, -7), b"");
            let (sequence, view, length) = (FIRST, -7, sent.len());
            let expected = Asked {
                sequence,
                keys: keys.to_vec(),
                view,
                length,
            };
            assert_eq!(asked_at(&[&sent[..], &sent].concat()), Some(expected));
            assert!((0..length).all(|part| asked_at(&sent[..part]).is_none()));
        }
    }

    #[test]
    fn calls_that_are_written_otherwise_are_left_to_the_generated_code() {
        let (sent, _) = call(|client| client.fetch(b"key".to_vec()), b"");
        for (at, byte) in [(0, 0), (3, 4), (8, b'F'), (17, 12), (19, 2), (27, 2)] {
            let mut other = sent.clone();
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
        let all = [None, Some(None), Some(Some(&b""[..])), Some(Some(&value))];
        let all = all.map(|held| held.map(entry));
        for held in &all {
            let answer = reply(FETCH, |reply| tell_found(held.as_ref(), reply));
            let (_, heard) = call(|client| client.fetch(Vec::new()), &answer);
            assert_eq!(heard.unwrap(), found(held.clone()));
        }
        let answer = reply(FETCH_AT, |reply| tell_all_found(&all, reply));
        let (_, heard) = call(|client| client.fetch_at(Vec::new(), 0), &answer);
        assert_eq!(heard.unwrap(), all.map(found));
        let answer = reply(FETCH, |reply| tell_refused("not now", reply));
        let (_, heard) = call(|client| client.fetch(Vec::new()), &answer);
        let Err(thrift::Error::User(thrown)) = heard else {
            panic!("no exception of the interface: {heard:?}");
        };
        let refused = thrown.downcast_ref::<Refused>();
        assert_eq!(refused, Some(&Refused::new("not now".to_owned())));
    }
}
