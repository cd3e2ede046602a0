//! How the calls of several threads to one primary become one message.

use std::sync::Arc;

use super::router::{Router, if_primary};
use crate::diststore::{KeyValue, ReadResult, StoreSyncClient, TStoreSyncClient, WriteResult};
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

/// A key to write at its primary.
pub struct Write {
    /// The generation of the primary's process.
    pub generation: i64,
    pub key: Vec<u8>,
    /// None deletes the key.
    pub value: Option<Vec<u8>>,
}

impl Item for Write {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    /// All writes of a message are for the same process.
    fn can_join(&self, first: &Write) -> bool {
        self.generation == first.generation
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

/// Makes the calls for batches of writes. A result is None if the callee is not the primary of
/// the key; no result means that the write may have taken effect.
pub struct WriteCall(pub Arc<Router>);

impl BatchCall<Client, Write, Option<WriteResult>> for WriteCall {
    fn send(&self, client: &mut Client, batch: &Batch<Write>) -> thrift::Result<()> {
        let pair = |write: &Write| KeyValue::new(write.key.clone(), write.value.clone(), 0);
        let pairs = batch.items.iter().map(pair).collect();
        let generation = batch.items[0].generation;
        client.send(|sender| sender.write_as_primary(pairs, generation))
    }

    fn receive(
        &self,
        client: &mut Client,
        _: &Batch<Write>,
    ) -> thrift::Result<Vec<Option<WriteResult>>> {
        let written = client.receive(|receiver| receiver.write_as_primary(Vec::new(), 0))?;
        Ok(written.into_iter().map(if_primary).collect())
    }

    fn on_error(&self, batch: &Batch<Write>, error: &Error) -> Vec<Option<WriteResult>> {
        mark_if_unreachable(&self.0, &batch.to, error);
        Vec::new()
    }
}

fn mark_if_unreachable(router: &Router, node: &Location, error: &Error) {
    if error.is_unreachable() {
        router.mark_failed(node, error);
    }
}
