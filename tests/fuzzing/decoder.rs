//! `Decoder`: a target of the fuzzer, and the `Coverage` of an input.

use thrift::protocol::{TBinaryInputProtocol, TInputProtocol};
use thrifty_p2p::rpc::dialer::limits;

/// How far a decoder got with an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Coverage {
    /// A number for the method that the input names.
    pub method: usize,
    /// A number for the result, for example for a kind of error.
    pub end: i32,
    /// How much of the input was read.
    pub depth: usize,
}

/// Decodes inputs. It may keep state from one input to the next.
pub trait Decoder {
    fn decode(&mut self, input: &[u8]) -> Coverage;
}

/// The methods that have a number of their own.
const METHODS: [&str; 35] = [
    "ping",
    "service_type",
    "service_types",
    "debug",
    "die",
    "join",
    "remove",
    "add",
    "get_all",
    "get_node",
    "exchange",
    "members",
    "ping_req",
    "get",
    "put",
    "write",
    "fetch",
    "unset",
    "write_if",
    "unset_if",
    "write_many",
    "fetch_many",
    "topology",
    "scan",
    "write_as_primary",
    "replicate",
    "wait_until_finished",
    "recall_writes",
    "fetch_as_owner",
    "rebalance_status",
    "pull",
    "stats",
    "events",
    "list_keys",
    "scan_keys",
];

/// The number of a method. All unknown methods share one number.
pub fn method(name: &str) -> usize {
    let known = METHODS.iter().position(|method| *method == name);
    known.unwrap_or(METHODS.len())
}

/// The number of a kind of error.
pub fn kind(error: &thrift::Error) -> i32 {
    match error {
        thrift::Error::Transport(e) => 100 + e.kind as i32,
        thrift::Error::Protocol(e) => 200 + e.kind as i32,
        thrift::Error::Application(e) => 300 + e.kind as i32,
        thrift::Error::User(_) => 400,
    }
}

/// The method that a message names. Empty if its header cannot be read.
pub fn name_of(message: &[u8]) -> String {
    let header = protocol(message).read_message_begin();
    header.map(|header| header.name).unwrap_or_default()
}

/// The depth for an input of which `left` was not read.
pub fn depth(input: &[u8], left: &[u8]) -> usize {
    ((input.len() - left.len()) / 4).min(64)
}

/// A protocol that reads bytes in memory.
pub type Bytes<'a> = TBinaryInputProtocol<&'a [u8]>;

/// The protocol of a message, with the limits of a server.
pub fn protocol(bytes: &[u8]) -> Bytes<'_> {
    TBinaryInputProtocol::with_config(bytes, false, limits(Some(65_536)))
}
