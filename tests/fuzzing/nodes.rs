//! Nodes that are sent requests: in memory, or each over a connection to a server.
//!
//! No call may leave a node that is fuzzed, since it would go to whatever address the
//! input names. So the nodes here have no driver: what they decide to call, nobody
//! calls. Beyond that some methods are kept out of some targets by a [`Screen`]: what
//! calls at once (`reach`), what waits for a network that is not there, and what
//! would give a store, whose own threads do run, members to call. Each but `reach` is
//! let in elsewhere; its arguments are those of `join`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use thrift::protocol::{
    TBinaryOutputProtocol, TInputProtocol, TOutputProtocol, TStoredInputProtocol, TType,
};
use thrift::server::TProcessor;
use thrifty_p2p::diststore::StoreSyncProcessor;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, PlainLocator};
use thrifty_p2p::locator::{BaseSyncProcessor, LocatorSyncProcessor};
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::server::{self, Methods, Server, Stopper};
use thrifty_p2p::rpc::fast_path::FastPath;
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::StoreLimits;

use super::decoder::{Bytes, Decoder, Reached, depth, kind, method, protocol};

/// Keeps some methods from a processor: their arguments are read, and nothing is done.
struct Screen<P> {
    processor: P,
    kept_out: &'static [&'static str],
}

impl<P: TProcessor> TProcessor for Screen<P> {
    fn process(
        &self,
        input: &mut dyn TInputProtocol,
        output: &mut dyn TOutputProtocol,
    ) -> thrift::Result<()> {
        let message = input.read_message_begin()?;
        if self.kept_out.contains(&message.name.as_str()) {
            input.skip(TType::Struct)?;
            return Err("not called here".into());
        }
        let mut input = TStoredInputProtocol::new(input, message);
        self.processor.process(&mut input, output)
    }
}

/// The most bytes that a fast_path is shown.
const READ_AHEAD: usize = 8 * 1024;

/// A processor that is sent requests, one after another as over a connection.
struct Requests<P> {
    processor: Screen<P>,
    /// What answers some of them past the processor, and is to give the same answers.
    fast_path: Option<Arc<dyn FastPath>>,
    /// Ends what the processor's handler has begun.
    end: Option<Box<dyn Fn()>>,
}

impl<P: TProcessor> Requests<P> {
    fn try_handle(&self, input: &mut Bytes<'_>, reached: &mut Reached) -> thrift::Result<()> {
        let (bytes, mut reply) = (input.transport, Vec::new());
        let at_hand = &bytes[..bytes.len().min(READ_AHEAD)];
        let fast_path = self.fast_path.as_ref();
        let length = fast_path.and_then(|fast_path| fast_path.answer(at_hand, &mut reply));
        let answered = self.process(input, reached);
        if let Some(length) = length {
            let long = answered.expect("what a fast_path answers is answered the long way too");
            let long = (bytes.len() - input.transport.len(), long);
            assert_eq!(
                (length, reply),
                long,
                "the fast_path's answer is another one"
            );
            return Ok(());
        }
        assert!(reply.is_empty(), "what is left to the long way is begun");
        answered.map(|_| ())
    }

    /// The long way: the bytes that are answered.
    fn process(&self, input: &mut Bytes<'_>, reached: &mut Reached) -> thrift::Result<Vec<u8>> {
        let mut output = TBinaryOutputProtocol::new(Vec::new(), true);
        let message = input.read_message_begin()?;
        reached.method = method(&message.name);
        let mut input = TStoredInputProtocol::new(input, message);
        self.processor.process(&mut input, &mut output)?;
        reached.end = output.transport.get(3).map_or(0, |kind| i32::from(*kind));
        Ok(output.transport)
    }
}

impl<P: TProcessor> Decoder for Requests<P> {
    fn decode(&mut self, bytes: &[u8]) -> Reached {
        let mut input = protocol(bytes);
        let mut reached = Reached::default();
        while !input.transport.is_empty() {
            if let Err(e) = self.answer(&mut input, &mut reached) {
                reached.end = kind(&e);
                break;
            }
        }
        reached.depth = depth(bytes, input.transport);
        reached
    }
}

impl<P> Drop for Requests<P> {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end();
        }
    }
}

fn requests<P: TProcessor + 'static>(
    processor: P,
    kept_out: &'static [&'static str],
) -> Box<dyn Decoder> {
    Box::new(Requests {
        processor: Screen {
            processor,
            kept_out,
        },
        fast_path: None,
        end: None,
    })
}

fn place() -> BindOptions {
    let mut place = BindOptions::at(0..=0);
    place.address = Some(Ipv4Addr::LOCALHOST.into());
    place
}

fn node(network: &str) -> Node {
    Node::bind(&place(), network).expect("a port is free")
}

struct PlainBase(Endpoint);

impl BaseHandler for PlainBase {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

pub fn base() -> Box<dyn Decoder> {
    let endpoint = Endpoint::bind(&place()).expect("a port is free");
    requests(BaseSyncProcessor::new(PlainBase(endpoint)), &[])
}

pub fn locator() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = LocatorSyncProcessor::new(PlainLocator { node });
    requests(processor, &["reach"])
}

/// A store that serves: the only one of its network.
pub fn store() -> Box<dyn Decoder> {
    let store = serving_store();
    Box::new(Requests {
        processor: store.processor,
        fast_path: store.fast_path,
        end: Some(store.end),
    })
}

/// What answers for such a store, and what ends its threads.
struct Serving {
    processor: Screen<StoreSyncProcessor<StoreHandler>>,
    fast_path: Option<Arc<dyn FastPath>>,
    end: Box<dyn Fn()>,
}

fn serving_store() -> Serving {
    let limits = Limits {
        memory: 1024 * 1024,
        ..Limits::default()
    };
    let handler = StoreHandler::new(node(SERVICE), None, limits);
    handler.joined(true);
    Serving {
        processor: Screen {
            processor: StoreSyncProcessor::new(handler.clone()),
            kept_out: &["join", "remove", "add", "exchange", "reach"],
        },
        fast_path: handler.fast_path(),
        end: Box::new(move || handler.cleanup()),
    }
}

/// A store that has not come in: it knows members, and has none to ask.
pub fn joiner() -> Box<dyn Decoder> {
    let handler = StoreHandler::new(node(SERVICE), None, Limits::default());
    let kept_out = &[
        "reach",
        "get",
        "put",
        "write",
        "fetch",
        "unset",
        "write_many",
        "fetch_many",
        "coordinate",
    ];
    requests(StoreSyncProcessor::new(handler), kept_out)
}
/// A server of its own, to which each input is a connection.
struct Connection {
    port: u16,
    stopper: Stopper,
    serving: Option<thread::JoinHandle<()>>,
    /// Ends what the handler has begun.
    end: Option<Box<dyn Fn()>>,
}

pub fn locator_connection() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = Screen {
        processor: LocatorSyncProcessor::new(PlainLocator { node }),
        kept_out: &["reach"],
    };
    Box::new(Connection::serve(processor, None, None))
}

pub fn store_connection() -> Box<dyn Decoder> {
    let store = serving_store();
    Box::new(Connection::serve(
        store.processor,
        store.fast_path,
        Some(store.end),
    ))
}

impl Connection {
    fn serve<P>(
        processor: P,
        fast_path: Option<Arc<dyn FastPath>>,
        end: Option<Box<dyn Fn()>>,
    ) -> Connection
    where
        P: TProcessor + Send + Sync + 'static,
    {
        let (localhost, limits) = ([Ipv4Addr::LOCALHOST.into()], server::Limits::default());
        let server = Server::bind(&localhost, 0, limits).expect("a port is free");
        let (port, stopper) = (server.port(), server.stopper());
        let oneway = ["debug", "die", "join", "remove", "add", "put"].map(String::from);
        let methods = Methods {
            oneway: oneway.into(),
            local: Vec::new(),
            fast_path,
        };
        let serving = Some(thread::spawn(move || server.run(processor, methods)));
        Connection {
            port,
            stopper,
            serving,
            end,
        }
    }

    fn talk(&self, input: &[u8], answer: &mut Vec<u8>) -> io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let sent = stream.write_all(input);
        // The server may have closed before it has read all, and may have answered.
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(answer)?;
        sent
    }
}

impl Decoder for Connection {
    fn decode(&mut self, input: &[u8]) -> Reached {
        let mut answer = Vec::new();
        let talked = self.talk(input, &mut answer);
        Reached {
            method: usize::from(talked.is_ok()),
            end: answer.get(3).map_or(0, |kind| i32::from(*kind)),
            depth: (answer.len() / 4).min(64),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(serving) = self.serving.take() {
            serving.join().expect("the server ends in peace");
        }
        if let Some(end) = &self.end {
            end();
        }
    }
}
