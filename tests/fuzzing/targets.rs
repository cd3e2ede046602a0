//! The targets: every decoder of bytes from outside, with what follows on it.
//!
//! No call may leave a node that is fuzzed, since it would go to whatever address the
//! input names. So the nodes here have no driver: what they decide to call, nobody
//! calls. Beyond that some methods are kept out of some targets by a [`Screen`]: what
//! calls at once (`reach`), what waits for a network that is not there, and what
//! would give a store, whose own threads do run, members to call. Each but `reach` is
//! let in elsewhere; its arguments are those of `join`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TInputProtocol, TOutputProtocol,
    TStoredInputProtocol, TType,
};
use thrift::server::TProcessor;
use thrifty_p2p::diststore::{self, StoreSyncClient, StoreSyncProcessor, TStoreSyncClient};
use thrifty_p2p::endpoint::{Endpoint, Place};
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, PlainLocator};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    self, BaseSyncProcessor, LocatorSyncProcessor, TBaseSyncClient, TLocatorSyncClient,
};
use thrifty_p2p::membership::{Gossip, Membership, Now, Outcome, Request, Settings};
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::client::{call, limits};
use thrifty_p2p::rpc::server::{self, Server, Stopper};
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::Limits;
use thrifty_p2p::store::moves::{History, Moves, Rules, Standing, Word};
use thrifty_p2p::store::table::{Key, Table};
use thrifty_p2p::store::view::Peer;
use thrifty_p2p::store::wire::{read_found, read_page};

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

/// A decoder by name, with the corpus that it begins with.
pub struct Target {
    pub name: &'static str,
    pub corpus: &'static str,
    pub start: fn() -> Box<dyn Decoder>,
    /// Its part of the inputs, next to the other targets'.
    pub weight: usize,
}

pub const TARGETS: [Target; 9] = [
    Target {
        name: "locator.Base",
        corpus: "requests",
        start: base,
        weight: 4,
    },
    Target {
        name: "locator.Locator",
        corpus: "requests",
        start: locator,
        weight: 16,
    },
    Target {
        name: "diststore.Store",
        corpus: "requests",
        start: store,
        weight: 16,
    },
    Target {
        name: "a store that joins",
        corpus: "requests",
        start: joiner,
        weight: 16,
    },
    Target {
        name: "replies",
        corpus: "replies",
        start: replies,
        weight: 16,
    },
    Target {
        name: "addresses",
        corpus: "addresses",
        start: addresses,
        weight: 4,
    },
    Target {
        name: "locator.Locator over a connection",
        corpus: "requests",
        start: locator_connection,
        weight: 1,
    },
    Target {
        name: "diststore.Store over a connection",
        corpus: "requests",
        start: store_connection,
        weight: 1,
    },
    Target {
        name: "replies over a connection",
        corpus: "replies",
        start: answers,
        weight: 1,
    },
];

/// The time of all that is not asked of the clock: November 2025.
const MILLIS: i64 = 1_763_000_000_000;

/// Methods that inputs name, so that each counts apart.
const METHODS: [&str; 27] = [
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
    "scan",
    "coordinate",
    "replicate",
    "fetch_at",
    "tell",
    "pull",
    "holdings",
];

fn method(name: &str) -> usize {
    let known = METHODS.iter().position(|method| *method == name);
    known.unwrap_or(METHODS.len())
}

/// A small number for each kind of error.
fn kind(error: &thrift::Error) -> i32 {
    match error {
        thrift::Error::Transport(e) => 100 + e.kind as i32,
        thrift::Error::Protocol(e) => 200 + e.kind as i32,
        thrift::Error::Application(e) => 300 + e.kind as i32,
        thrift::Error::User(_) => 400,
    }
}

/// The method that a message names, as far as it can be read.
fn name_of(message: &[u8]) -> String {
    let head = protocol(message).read_message_begin();
    head.map(|head| head.name).unwrap_or_default()
}

fn depth(input: &[u8], left: &[u8]) -> usize {
    ((input.len() - left.len()) / 4).min(64)
}

type Bytes<'a> = TBinaryInputProtocol<&'a [u8]>;

fn protocol(bytes: &[u8]) -> Bytes<'_> {
    TBinaryInputProtocol::with_config(bytes, false, limits())
}

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

/// A processor that is sent requests, one after another as over a connection.
struct Requests<P> {
    processor: Screen<P>,
    /// Ends what the processor's handler has begun.
    end: Option<Box<dyn Fn()>>,
}

impl<P: TProcessor> Requests<P> {
    fn answer(&self, input: &mut Bytes<'_>, reached: &mut Reached) -> thrift::Result<()> {
        let mut output = TBinaryOutputProtocol::new(Vec::new(), true);
        let message = input.read_message_begin()?;
        reached.method = method(&message.name);
        let mut input = TStoredInputProtocol::new(input, message);
        self.processor.process(&mut input, &mut output)?;
        reached.end = output.transport.get(3).map_or(0, |kind| i32::from(*kind));
        Ok(())
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
        end: None,
    })
}

fn place() -> Place {
    let mut place = Place::at(0..=0);
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

fn base() -> Box<dyn Decoder> {
    let endpoint = Endpoint::bind(&place()).expect("a port is free");
    requests(BaseSyncProcessor::new(PlainBase(endpoint)), &[])
}

fn locator() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = LocatorSyncProcessor::new(PlainLocator { node });
    requests(processor, &["reach"])
}

/// A store that serves: the only one of its network.
fn store() -> Box<dyn Decoder> {
    let (processor, end) = serving_store();
    Box::new(Requests {
        processor,
        end: Some(end),
    })
}

type StoreProcessor = Screen<StoreSyncProcessor<StoreHandler>>;

/// Such a store, and what ends its threads.
fn serving_store() -> (StoreProcessor, Box<dyn Fn()>) {
    let limits = Limits {
        memory: 1024 * 1024,
        ..Limits::default()
    };
    let handler = StoreHandler::new(node(SERVICE), None, limits);
    handler.entered(true);
    let processor = Screen {
        processor: StoreSyncProcessor::new(handler.clone()),
        kept_out: &["join", "remove", "add", "exchange", "reach"],
    };
    (processor, Box::new(move || handler.cleanup()))
}

/// A store that has not come in: it knows members, and has none to ask.
fn joiner() -> Box<dyn Decoder> {
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

/// What a client and a node make of the replies of whoever they called.
struct Replies {
    membership: Membership,
    now: Now,
    moves: Moves,
    table: Table,
}

fn replies() -> Box<dyn Decoder> {
    Box::new(Replies::new())
}

impl Replies {
    fn new() -> Replies {
        let me: Location = "127.0.0.1:9900".parse().expect("a location");
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: MILLIS,
        };
        let seed = "127.0.0.1:9901".parse().expect("a location");
        let network: Arc<str> = SERVICE.into();
        let settings = Settings::default();
        Replies {
            membership: Membership::new(me.clone(), network, vec![seed], settings, now, 1),
            now,
            moves: Moves::new(Peer::new(me, MILLIS), None, Rules::default()),
            table: Table::new(),
        }
    }
}

impl Decoder for Replies {
    fn decode(&mut self, reply: &[u8]) -> Reached {
        let name = name_of(reply);
        let mut left = reply;
        let input = TBinaryInputProtocol::with_config(&mut left, false, limits());
        let output = TBinaryOutputProtocol::new(io::sink(), true);
        let end = self.read(&name, &mut StoreSyncClient::new(input, output));
        Reached {
            method: method(&name),
            end: end.map_or_else(|e| kind(&e), |()| 0),
            depth: depth(reply, left),
        }
    }
}

impl Replies {
    /// Makes the call that is answered, and does with the answer what is done with it.
    fn read<I, O>(&mut self, name: &str, client: &mut StoreSyncClient<I, O>) -> thrift::Result<()>
    where
        I: TInputProtocol,
        O: TOutputProtocol,
    {
        match name {
            "service_type" => client.service_type().map(drop),
            "service_types" => client.service_types().map(drop),
            "get_all" => client.get_all().map(|all| self.list(&all)),
            "get_node" => {
                let node = client.get_node(Vec::new())?;
                Location::try_from(&node).map(drop).map_err(misread)
            }
            "exchange" => {
                let gossip = client.exchange(locator::Gossip::default())?;
                self.gossip(Gossip::try_from(gossip).map_err(misread)?);
                Ok(())
            }
            "members" => {
                let gossip = Gossip::try_from(client.members()?).map_err(misread)?;
                self.membership.receive(self.now, gossip);
                Ok(())
            }
            "reach" => client.reach(locator::Location::default()).map(drop),
            "get" => client.get(Vec::new()).map(drop),
            "write" => client.write(Vec::new(), Vec::new()).map(drop),
            "fetch" => client.fetch(Vec::new()).map(|one| found(vec![one])),
            "unset" => client.unset(Vec::new()).map(drop),
            "write_many" => client.write_many(Vec::new()).map(drop),
            "fetch_many" => client.fetch_many(Vec::new()).map(found),
            "scan" => self.page(client.scan(0, Default::default())?),
            "coordinate" => client.coordinate(Vec::new(), 0).map(drop),
            "replicate" => client.replicate(Vec::new(), 0).map(drop),
            "fetch_at" => client.fetch_at(Vec::new(), 0).map(found),
            "tell" => self.tell(client),
            "pull" => self.page(client.pull(Default::default())?),
            "holdings" => client.holdings().map(drop),
            _ => client.ping(),
        }
    }

    /// A reply of `exchange`, given to whoever is being called; others are silent.
    fn gossip(&mut self, gossip: Gossip) {
        self.outcome(&Outcome::Gossip(gossip));
    }

    /// A reply of `get_all`, by a peer that does not know `exchange`.
    fn list(&mut self, all: &[locator::Location]) {
        self.outcome(&Outcome::UnknownMethod);
        let all = all.iter().filter_map(|l| l.try_into().ok()).collect();
        self.outcome(&Outcome::All(all));
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.now.monotonic += Duration::from_secs(1);
        let mut actions = self.membership.tick(self.now);
        let mut answered = false;
        // What follows from silence may be silence without end.
        for _ in 0..16 {
            let Some(action) = actions.pop() else {
                break;
            };
            let fits = match action.request {
                Request::GetAll => matches!(outcome, Outcome::All(_)),
                Request::Exchange(_) => !matches!(outcome, Outcome::All(_)),
                _ => false,
            };
            let outcome = if fits && !answered {
                answered = true;
                outcome.clone()
            } else {
                Outcome::Silent
            };
            actions.extend(self.membership.reply(self.now, action.token, outcome));
        }
        self.membership.events();
    }

    fn tell<I, O>(&mut self, client: &mut StoreSyncClient<I, O>) -> thrift::Result<()>
    where
        I: TInputProtocol,
        O: TOutputProtocol,
    {
        let told = client.tell(Default::default(), true)?;
        let word = Word::try_from(told.word.unwrap_or_default()).map_err(misread)?;
        let history = told.history.map(History::try_from).transpose();
        let me = self.moves.me().clone();
        self.moves.stand(Standing {
            me: me.clone(),
            live: [me, word.from.clone()].into(),
            leaving: Default::default(),
        });
        let asked = self.moves.asking();
        self.moves
            .hear(Some(asked), word, history.map_err(misread)?);
        self.moves.pulls();
        Ok(())
    }

    fn page(&mut self, page: diststore::Page) -> thrift::Result<()> {
        let page = read_page(page, MILLIS).map_err(misread)?;
        for (key, entry) in page.entries {
            self.table.apply(Key::new(&key), entry);
        }
        let source = self.moves.me().clone();
        self.moves.pulled(self.moves.attempt(), &source, page.next);
        Ok(())
    }
}

fn found(found: Vec<diststore::Found>) {
    found.into_iter().map(read_found).for_each(drop);
}

fn misread(why: impl ToString) -> thrift::Error {
    why.to_string().into()
}

struct Addresses;

fn addresses() -> Box<dyn Decoder> {
    Box::new(Addresses)
}

impl Decoder for Addresses {
    fn decode(&mut self, input: &[u8]) -> Reached {
        let text = String::from_utf8_lossy(input);
        let read = text.parse::<Location>();
        if let Ok(location) = &read {
            let again = location.to_string().parse();
            assert_eq!(
                again.as_ref(),
                Ok(location),
                "an address reads back as written"
            );
        }
        let port = input.first().map_or(0, |byte| i16::from(*byte) << 8);
        let wire = locator::Location::new(text.to_string(), port);
        let announced = Location::try_from(&wire);
        if let Ok(location) = &announced {
            assert_eq!(locator::Location::from(location), wire);
        }
        Reached {
            method: usize::from(read.is_ok()),
            end: i32::from(announced.is_ok()),
            depth: text.bytes().filter(|byte| *byte == b':').count().min(64),
        }
    }
}

/// A server of its own, to which each input is a connection.
struct Connection {
    port: u16,
    stopper: Stopper,
    serving: Option<thread::JoinHandle<()>>,
    /// Ends what the handler has begun.
    end: Option<Box<dyn Fn()>>,
}

fn locator_connection() -> Box<dyn Decoder> {
    let node = node("locator.Locator");
    let processor = Screen {
        processor: LocatorSyncProcessor::new(PlainLocator { node }),
        kept_out: &["reach"],
    };
    Box::new(Connection::serve(processor, None))
}

fn store_connection() -> Box<dyn Decoder> {
    let (processor, end) = serving_store();
    Box::new(Connection::serve(processor, Some(end)))
}

impl Connection {
    fn serve<P>(processor: P, end: Option<Box<dyn Fn()>>) -> Connection
    where
        P: TProcessor + Send + Sync + 'static,
    {
        let (localhost, limits) = ([Ipv4Addr::LOCALHOST.into()], server::Limits::default());
        let server = Server::bind(&localhost, 0, limits).expect("a port is free");
        let (port, stopper) = (server.port(), server.stopper());
        let oneway = ["debug", "die", "join", "remove", "add", "put"].map(String::from);
        let serving = Some(thread::spawn(move || server.run(processor, oneway.into())));
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

/// A client's calls, each answered over a connection by the input.
struct Answers {
    listener: Arc<TcpListener>,
    location: Location,
    replies: Replies,
}

fn answers() -> Box<dyn Decoder> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let location = listener.local_addr().expect("it has one").into();
    Box::new(Answers {
        listener: Arc::new(listener),
        location,
        replies: Replies::new(),
    })
}

impl Decoder for Answers {
    fn decode(&mut self, reply: &[u8]) -> Reached {
        let name = name_of(reply);
        let end = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = self.listener.accept().expect("the client calls");
                // The client may turn away before it has read all.
                let _ = stream.write_all(reply);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
            let body = |client: &mut StoreSyncClient<_, _>| self.replies.read(&name, client);
            call(StoreSyncClient::new, &self.location, body)
        });
        Reached {
            method: method(&name),
            end: i32::from(end.is_ok()),
            depth: 0,
        }
    }
}
