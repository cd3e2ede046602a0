//! `OwnerCalls`: batched calls to the owners of keys.

use std::sync::Arc;
use std::time::Duration;

use crate::diststore::StoreSyncClient;
use crate::location::Location;
use crate::rpc::batcher::{BatchCall, Batcher, Item};
use crate::rpc::dialer::{Dialer, Input, Output, Timeouts};
use crate::rpc::fanout::{EmptyInput, SinkOutput, SplitClient};
use crate::rpc::pool::Pool;

/// A client of an owner.
pub(super) type OwnerClient =
    SplitClient<StoreSyncClient<EmptyInput, Output>, StoreSyncClient<Input, SinkOutput>>;

/// Sends requests `Q`, whose replies are `A`, to owners of keys. Requests of several threads
/// for one owner go there in one call ([`Batcher`]). Shared by threads.
pub(super) struct OwnerCalls<Q, A> {
    pool: Arc<Pool<OwnerClient>>,
    batcher: Batcher<Q, A>,
}

impl<Q: Item, A> OwnerCalls<Q, A> {
    /// Makes `call` within these timeouts, with up to `max_batch` bytes of requests at a time.
    pub fn new(
        dialer: &Dialer,
        timeouts: Timeouts,
        max_batch: usize,
        call: impl BatchCall<OwnerClient, Q, A> + 'static,
    ) -> OwnerCalls<Q, A> {
        let client = |input, output| {
            SplitClient::new(StoreSyncClient::new, StoreSyncClient::new, (input, output))
        };
        let pool = Arc::new(Pool::new(dialer.clone(), client, timeouts));
        OwnerCalls {
            batcher: Batcher::over(pool.clone(), max_batch, call),
            pool,
        }
    }

    /// Sends requests to owners, all at the same time, and returns the reply to each: None if
    /// there was none. Blocks for the timeouts of a call to a peer, twice if a call is in
    /// flight.
    pub fn send(&self, requests: Vec<(Location, Q)>) -> Vec<Option<A>> {
        self.batcher.submit(requests)
    }

    /// The owners to which a call has been in progress for longer than `time`.
    pub fn slow(&self, time: Duration) -> Vec<Location> {
        self.pool.slow(time)
    }

    /// Closes the connections to a node that is gone. Calls in progress fail.
    pub fn close(&self, location: &Location) {
        self.pool.close_all(location);
    }
}
