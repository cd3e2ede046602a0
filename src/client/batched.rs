//! How the reads of several threads to one primary become one message.

use std::sync::Arc;

use super::router::Router;
use crate::diststore::{ReadResult, StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::batcher::{Batch, BatchCall, Item};
use crate::rpc::dialer::{Input, Output};
use crate::rpc::fanout::{EmptyInput, SinkOutput, SplitClient};

/// A client that sends calls and receives their replies separately.
pub type Client = SplitClient<Sender, Receiver>;

type Sender = StoreSyncClient<EmptyInput, Output>;
type Receiver = StoreSyncClient<Input, SinkOutput>;

/// The client of a new connection.
pub fn client(input: Input, output: Output) -> Client {
    SplitClient::new(StoreSyncClient::new, StoreSyncClient::new, (input, output))
}

/// A key to read at its primary.
pub struct Read(pub Vec<u8>);

impl Item for Read {
    fn size(&self) -> usize {
        self.0.len()
    }
}

/// Makes the calls for batches of reads. A read that got no result is for the caller to retry.
pub struct ReadCall(pub Arc<Router>);

impl BatchCall<Client, Read, ReadResult> for ReadCall {
    fn send(&self, client: &mut Client, batch: &Batch<Read>) -> thrift::Result<()> {
        let keys = batch.items.iter().map(|Read(key)| key.clone()).collect();
        client.send(|sender| sender.fetch_many(keys))
    }

    fn receive(&self, client: &mut Client, _: &Batch<Read>) -> thrift::Result<Vec<ReadResult>> {
        client.receive(|receiver| receiver.fetch_many(Vec::new()))
    }

    fn on_error(&self, batch: &Batch<Read>, error: &Error) -> Vec<ReadResult> {
        mark_if_unreachable(&self.0, &batch.to, error);
        Vec::new()
    }
}

fn mark_if_unreachable(router: &Router, node: &Location, error: &Error) {
    if error.is_unreachable() {
        router.mark_failed(node, error);
    }
}
