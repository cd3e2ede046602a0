//! What every target is: a decoder, and how far an input got in it.

use thrift::protocol::{TBinaryInputProtocol, TInputProtocol};
use thrifty_p2p::rpc::dialer::limits;

/// How far an input got: which method it named, how it ended, and how much of it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reached {
    pub method: usize,
    pub end: i32,
    pub depth: usize,
}

/// What decodes inputs, and remembers what they did to it.
pub trait Decoder {
    fn decode(&mut self, input: &[u8]) -> Reached;
}
/// Methods that inputs name, so that each counts apart.
const METHODS: [&str; 28] = [
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
    "reach",
    "get",
    "put",
    "write",
    "fetch",
    "unset",
    "write_many",
    "fetch_many",
    "roll",
    "scan",
    "coordinate",
    "replicate",
    "fetch_at",
    "tell",
    "pull",
    "stats",
];

pub fn method(name: &str) -> usize {
    let known = METHODS.iter().position(|method| *method == name);
    known.unwrap_or(METHODS.len())
}

/// A small number for each kind of error.
pub fn kind(error: &thrift::Error) -> i32 {
    match error {
        thrift::Error::Transport(e) => 100 + e.kind as i32,
        thrift::Error::Protocol(e) => 200 + e.kind as i32,
        thrift::Error::Application(e) => 300 + e.kind as i32,
        thrift::Error::User(_) => 400,
    }
}

/// The method that a message names, as far as it can be read.
pub fn name_of(message: &[u8]) -> String {
    let head = protocol(message).read_message_begin();
    head.map(|head| head.name).unwrap_or_default()
}

pub fn depth(input: &[u8], left: &[u8]) -> usize {
    ((input.len() - left.len()) / 4).min(64)
}

pub type Bytes<'a> = TBinaryInputProtocol<&'a [u8]>;

pub fn protocol(bytes: &[u8]) -> Bytes<'_> {
    TBinaryInputProtocol::with_config(bytes, false, limits())
}
