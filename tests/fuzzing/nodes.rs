//! Targets that decode requests: nodes in memory, or behind a connection to a server.
//!
//! A node that is fuzzed must not call others, because an input can name any address. Most of
//! these nodes are not served, so the calls that the membership decides on are never made. The
//! store that is served has no other member. A [`MethodFilter`] excludes some methods from some
//! targets: those that call at once (`ping_req`), that wait for other members, that would add
//! members to the served store, or that end it (`die`). Each of them except `ping_req` is a part
//! of another target. The arguments of `ping_req` are those of `join`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thrift::protocol::{
    TBinaryOutputProtocol, TInputProtocol, TOutputProtocol, TStoredInputProtocol, TType,
};
use thrift::server::TProcessor;
use thrifty_p2p::diststore::{StoreSyncHandler, StoreSyncProcessor};
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::handler::{BaseHandler, PlainLocator, serve};
use thrifty_p2p::locator::{BaseSyncProcessor, LocatorSyncProcessor};
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dispatch::Methods;
use thrifty_p2p::rpc::fast_path::FastPath;
use thrifty_p2p::rpc::limits::ServerLimits;
use thrifty_p2p::rpc::server::{Server, ServerHandle};
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::StoreLimits;

use super::decoder::{Bytes, Coverage, Decoder, depth, kind, method, protocol};

/// Excludes some methods of a processor: their arguments are read, and nothing is done.
struct MethodFilter<P> {
    processor: P,
    excluded: &'static [&'static str],
}

impl<P: TProcessor> TProcessor for MethodFilter<P> {
    fn process(
        &self,
        input: &mut dyn TInputProtocol,
        output: &mut dyn TOutputProtocol,
    ) -> thrift::Result<()> {
        let header = input.read_message_begin()?;
        if self.excluded.contains(&header.name.as_str()) {
            input.skip(TType::Struct)?;
            return Err("excluded".into());
        }
        let mut input = TStoredInputProtocol::new(input, header);
        self.processor.process(&mut input, output)
    }
}

/// The most bytes that a server gives its fast path.
const BUFFER: usize = 8 * 1024;

/// A processor in memory. Each input is the requests of one connection.
struct InMemory<P> {
    processor: MethodFilter<P>,
    /// Must send the same replies as the processor.
    fast_path: Option<Arc<dyn FastPath>>,
    /// Stops the store behind the processor.
    stop: Option<Box<dyn FnOnce()>>,
}

impl<P: TProcessor> InMemory<P> {
    /// Handles one request by the processor and, if it is known there, by the fast path.
    fn handle(&self, input: &mut Bytes<'_>, coverage: &mut Coverage) -> thrift::Result<()> {
        let (bytes, mut reply) = (input.transport, Vec::new());
        let buffered = &bytes[..bytes.len().min(BUFFER)];
        let fast_path = self.fast_path.as_ref();
        let length = fast_path.and_then(|fast_path| fast_path.try_handle(buffered, &mut reply));
        let processed = self.process(input, coverage);
        if let Some(length) = length {
            let expected = processed.expect("the processor accepts what the fast path accepts");
            let expected = (bytes.len() - input.transport.len(), expected);
            assert_eq!(
                (length, reply),
                expected,
                "the reply of the fast path differs"
            );
            return Ok(());
        }
        assert!(reply.is_empty(), "the fast path has not replied");
        processed.map(|_| ())
    }

    /// Handles one request by the processor. Returns the reply.
    fn process(&self, input: &mut Bytes<'_>, coverage: &mut Coverage) -> thrift::Result<Vec<u8>> {
        let mut output = TBinaryOutputProtocol::new(Vec::new(), true);
        let header = input.read_message_begin()?;
        coverage.method = method(&header.name);
        let mut input = TStoredInputProtocol::new(input, header);
        self.processor.process(&mut input, &mut output)?;
        coverage.end = output.transport.get(3).map_or(0, |kind| i32::from(*kind));
        Ok(output.transport)
    }
}

impl<P: TProcessor> Decoder for InMemory<P> {
    fn decode(&mut self, bytes: &[u8]) -> Coverage {
        let mut input = protocol(bytes);
        let mut coverage = Coverage::default();
        while !input.transport.is_empty() {
            if let Err(e) = self.handle(&mut input, &mut coverage) {
                coverage.end = kind(&e);
                break;
            }
        }
        coverage.depth = depth(bytes, input.transport);
        coverage
    }
}

impl<P> Drop for InMemory<P> {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

fn in_memory<P: TProcessor + 'static>(
    processor: P,
    excluded: &'static [&'static str],
) -> Box<dyn Decoder> {
    Box::new(InMemory {
        processor: MethodFilter {
            processor,
            excluded,
        },
        fast_path: None,
        stop: None,
    })
}

fn bind_options() -> BindOptions {
    let mut options = BindOptions::at(0..=0);
    options.advertise = Some(Ipv4Addr::LOCALHOST.into());
    options
}

fn node(network: &str) -> Node {
    Node::bind(&bind_options(), network).expect("a port is free")
}

struct PlainBase(Endpoint);

impl BaseHandler for PlainBase {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

pub fn base() -> Box<dyn Decoder> {
    let endpoint = Endpoint::bind(&bind_options()).expect("a port is free");
    in_memory(BaseSyncProcessor::new(PlainBase(endpoint)), &[])
}

pub fn locator() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = LocatorSyncProcessor::new(PlainLocator { node });
    in_memory(processor, &["ping_req"])
}

/// A store that serves, the only node of its network.
pub fn store() -> Box<dyn Decoder> {
    let store = RunningStore::start();
    Box::new(InMemory {
        processor: store.processor,
        fast_path: store.fast_path,
        stop: Some(store.stop),
    })
}

/// The processor and the fast path of a store that serves.
struct RunningStore {
    processor: MethodFilter<StoreSyncProcessor<StoreHandler>>,
    fast_path: Option<Arc<dyn FastPath>>,
    /// Stops the store.
    stop: Box<dyn FnOnce()>,
}

impl RunningStore {
    fn start() -> RunningStore {
        let limits = StoreLimits {
            memory: 1024 * 1024,
            ..StoreLimits::default()
        };
        let handler = StoreHandler::new(node(SERVICE), None, limits);
        let served = handler.clone();
        let serving = thread::spawn(move || {
            // Its peer is itself: it starts a new network.
            let peer = served.endpoint().location().clone();
            serve(served, StoreSyncProcessor::new, &[peer])
        });
        wait_until_serving(&handler);
        RunningStore {
            processor: MethodFilter {
                processor: StoreSyncProcessor::new(handler.clone()),
                excluded: &["die", "join", "remove", "add", "exchange", "ping_req"],
            },
            fast_path: handler.fast_path(),
            stop: Box::new(move || {
                handler.endpoint().shutdown().request();
                let ended = serving.join().expect("the store does not panic");
                ended.expect("the store leaves gracefully");
            }),
        }
    }
}

fn wait_until_serving(handler: &StoreHandler) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_serving = || {
        handler
            .handle_stats(false)
            .is_ok_and(|s| s.serving == Some(true))
    };
    while !is_serving() {
        assert!(Instant::now() < deadline, "the store does not serve");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A store that is not admitted: it learns members, and calls none of them.
pub fn joiner() -> Box<dyn Decoder> {
    let handler = StoreHandler::new(node(SERVICE), None, StoreLimits::default());
    let excluded = &[
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
        "list_keys",
        "write_as_primary",
        "recall_writes",
    ];
    in_memory(StoreSyncProcessor::new(handler), excluded)
}

/// A server. Each input is sent on a connection of its own.
struct Connections {
    port: u16,
    handle: ServerHandle,
    serving: Option<thread::JoinHandle<()>>,
    /// Stops the store behind the processor.
    stop: Option<Box<dyn FnOnce()>>,
}

pub fn locator_connections() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = MethodFilter {
        processor: LocatorSyncProcessor::new(PlainLocator { node }),
        excluded: &["ping_req"],
    };
    Box::new(Connections::start(processor, None, None))
}

pub fn store_connections() -> Box<dyn Decoder> {
    let store = RunningStore::start();
    Box::new(Connections::start(
        store.processor,
        store.fast_path,
        Some(store.stop),
    ))
}

impl Connections {
    fn start<P>(
        processor: P,
        fast_path: Option<Arc<dyn FastPath>>,
        stop: Option<Box<dyn FnOnce()>>,
    ) -> Connections
    where
        P: TProcessor + Send + Sync + 'static,
    {
        let localhost = [Ipv4Addr::LOCALHOST.into()];
        let server =
            Server::bind(&localhost, 0, ServerLimits::default(), None).expect("a port is free");
        let (port, handle) = (server.port(), server.handle());
        let oneway = ["debug", "die", "join", "remove", "add", "put"].map(String::from);
        let methods = Methods {
            oneway: oneway.into(),
            local: Vec::new(),
            fast_path,
        };
        let serving = Some(thread::spawn(move || server.run(processor, methods)));
        Connections {
            port,
            handle,
            serving,
            stop,
        }
    }

    /// Sends an input and appends the replies to `replies`.
    fn send(&self, input: &[u8], replies: &mut Vec<u8>) -> io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let sent = stream.write_all(input);
        // The server may have replied and closed before everything was sent.
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(replies)?;
        sent
    }
}

impl Decoder for Connections {
    fn decode(&mut self, input: &[u8]) -> Coverage {
        let mut replies = Vec::new();
        let sent = self.send(input, &mut replies);
        Coverage {
            method: usize::from(sent.is_ok()),
            end: replies.get(3).map_or(0, |kind| i32::from(*kind)),
            depth: (replies.len() / 4).min(64),
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(serving) = self.serving.take() {
            serving.join().expect("the server does not panic");
        }
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}
