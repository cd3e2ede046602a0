//! The store's fast path: `fetch` and `fetch_as_owner` without the generated code.

use super::fetch_codec::{
    FETCH, FETCH_AS_OWNER, Fetch, FetchAsOwner, put_fetch_as_owner_reply, put_fetch_reply,
    put_refused,
};
use super::placement::Key;
use super::store::Store;
use super::wire::NOT_AN_OWNER;
use crate::rpc::binary::{REPLY, put_header};
use crate::rpc::fast_path::FastPath;

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
        put_header(REPLY, FETCH, call.sequence, reply);
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
        put_header(REPLY, FETCH_AS_OWNER, call.sequence, reply);
        match held {
            Some(held) => put_fetch_as_owner_reply(&held, reply),
            None => put_refused(NOT_AN_OWNER, reply),
        }
        Some(call.length)
    }
}
