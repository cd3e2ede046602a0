//! What the store answers past the generated code: `fetch` and `fetch_at`.

use super::by_hand::{FETCH, FETCH_AT, Fetch, FetchAt, add_all_fetched, add_fetched, add_refused};
use super::operations::Store;
use super::table::Key;
use super::wire::NOT_ANSWERED;
use crate::rpc::bytes::{REPLY, begin};
use crate::rpc::shortcut::Shortcut;

impl Shortcut for Store {
    fn answer(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        self.answer_fetch(call, reply)
            .or_else(|| self.answer_fetch_at(call, reply))
    }
}

impl Store {
    fn answer_fetch(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let call = Fetch::read(call)?;
        self.pace.count();
        let found = self.fetch(call.key);
        begin(REPLY, FETCH, call.sequence, reply);
        match found {
            Ok(found) => add_fetched(found.as_ref(), reply),
            Err(reason) => add_refused(&reason, reply),
        }
        Some(call.length)
    }

    fn answer_fetch_at(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize> {
        let call = FetchAt::read(call)?;
        self.pace.count();
        let keys: Vec<Key<'_>> = call.keys.into_iter().map(Key::new).collect();
        let found = self.answer_at(call.view, &keys);
        begin(REPLY, FETCH_AT, call.sequence, reply);
        match found {
            Some(found) => add_all_fetched(&found, reply),
            None => add_refused(NOT_ANSWERED, reply),
        }
        Some(call.length)
    }
}
