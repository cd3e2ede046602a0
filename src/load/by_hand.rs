//! `StoreByHand`: calls of a store as bytes, to measure the store and not its client.
//!
//! A caller of a load shares the processors with the server that is measured. What the
//! generated client and the Thrift crate do for a call would be counted as the store's; the
//! callers of other servers and of the bare echo write and read nothing but bytes. So does
//! this one, which knows two methods.

use crate::rpc::by_hand::{ByHand, unexpected};
use crate::rpc::bytes::{STOP, add_counted, long, string, structure};
use crate::rpc::client::{Input, Output};
use crate::store::by_hand::{FETCH, take_refused};

const WRITE: &[u8; 5] = b"write";

/// A client over one connection. After a call that failed and was not refused, the connection
/// is of no more use.
pub struct StoreByHand {
    store: ByHand,
    /// The value that was fetched last.
    value: Vec<u8>,
}

impl StoreByHand {
    /// A client over this connection, on which nothing was said yet.
    pub fn new(input: Input, output: Output) -> StoreByHand {
        StoreByHand {
            store: ByHand::new(input, output),
            value: Vec::new(),
        }
    }

    /// The value of `key`, if there is one. Blocks until it is answered.
    ///
    /// # Errors
    /// The call failed, or was refused.
    pub fn fetch(&mut self, key: &[u8]) -> thrift::Result<Option<&[u8]>> {
        self.send(FETCH, &[key])?;
        self.receive(FETCH, structure(0))?;
        let mut has_value = false;
        while let Some(field) = self.store.take_field()? {
            if field == string(1) {
                self.store.take_counted(&mut self.value)?;
                has_value = true;
            } else if field == long(2) {
                self.store.take::<8>()?;
            } else {
                self.store.skip(field)?;
            }
        }
        self.store.expect([STOP])?;
        Ok(has_value.then_some(&self.value))
    }

    /// Puts a value for `key`. Blocks until it is acknowledged.
    ///
    /// # Errors
    /// The call failed, or was refused.
    pub fn write(&mut self, key: &[u8], value: &[u8]) -> thrift::Result<()> {
        self.send(WRITE, &[key, value])?;
        self.receive(WRITE, long(0))?;
        self.store.take::<8>()?;
        self.store.expect([STOP])
    }

    /// Sends a call whose arguments are these strings.
    fn send(&mut self, method: &[u8], arguments: &[&[u8]]) -> thrift::Result<()> {
        let call = self.store.call(method);
        for (number, argument) in (1..).zip(arguments) {
            call.extend_from_slice(&string(number));
            add_counted(argument, call);
        }
        call.push(STOP);
        self.store.send()
    }

    /// Reads a reply as far as the head of its result, which is this.
    fn receive<const N: usize>(&mut self, method: &[u8; N], result: [u8; 3]) -> thrift::Result<()> {
        self.store.receive(method)?;
        let field = self.store.take()?;
        if field == structure(1) {
            Err(take_refused(&mut self.store)?)
        } else if field == result {
            Ok(())
        } else {
            Err(unexpected())
        }
    }
}
