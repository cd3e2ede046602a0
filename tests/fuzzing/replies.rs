//! Callers that are answered: what clients and nodes make of replies, in memory or over
//! a connection.

use std::io::{self, Write};
use std::iter;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TInputProtocol, TOutputProtocol,
};
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{self, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::load::by_hand::StoreByHand;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::membership::{Gossip, Membership, Now, Outcome, Request, Config};
use thrifty_p2p::rpc::binary::RawClient;
use thrifty_p2p::rpc::dialer::{call, limits};
use thrifty_p2p::store::fetch_codec::{receive_fetch_at, send_fetch_at};
use thrifty_p2p::store::handler::SERVICE;
use thrifty_p2p::store::rebalance::{History, Rebalance, Rules, Standing, Word};
use thrifty_p2p::store::table::{Key, Table};
use thrifty_p2p::store::placement::Peer;
use thrifty_p2p::store::wire::read_page;

use super::decoder::{Decoder, Reached, depth, kind, method, name_of};

/// The time of all that is not asked of the clock: November 2025.
const MILLIS: i64 = 1_763_000_000_000;
/// What a client and a node make of the replies of whoever they called.
struct Replies {
    membership: Membership,
    now: Now,
    moves: Rebalance,
    table: Table,
}

pub fn replies() -> Box<dyn Decoder> {
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
        let settings = Config::default();
        Replies {
            membership: Membership::new(me.clone(), network, vec![seed], settings, now, 1),
            now,
            moves: Rebalance::new(Peer::new(me, MILLIS), None, Rules::default()),
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
            "fetch" => client.fetch(Vec::new()).map(drop),
            "unset" => client.unset(Vec::new()).map(drop),
            "write_many" => client.write_many(Vec::new()).map(drop),
            "fetch_many" => client.fetch_many(Vec::new()).map(drop),
            "roll" => client.roll().map(drop),
            "scan" => self.page(client.scan(0, Default::default())?),
            "coordinate" => client.write_as_primary(Vec::new(), 0).map(drop),
            "replicate" => client.replicate(Vec::new(), 0).map(drop),
            "fetch_at" => client.fetch_at(Vec::new(), 0).map(drop),
            "tell" => self.tell(client),
            "pull" => self.page(client.pull(Default::default())?),
            "stats" => client.stats(true).map(drop),
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

fn misread(why: impl ToString) -> thrift::Error {
    why.to_string().into()
}
/// A client's calls, each answered over a connection by the input.
struct Answers {
    listener: Arc<TcpListener>,
    location: Location,
    replies: Replies,
}

pub fn answers() -> Box<dyn Decoder> {
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
        let listener = self.listener.clone();
        let end = thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("the client calls");
                // The client may turn away before it has read all.
                let _ = stream.write_all(reply);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
            self.call(&name)
        });
        Reached {
            method: method(&name),
            end: i32::from(end.is_ok()),
            depth: 0,
        }
    }
}

impl Answers {
    fn call(&mut self, name: &str) -> Result<(), Error> {
        let at = &self.location;
        match name {
            "roll" => RingClient::connect(at).map(drop),
            "fetch" => call(StoreByHand::new, at, |store| store.fetch(b"").map(drop)),
            "write" => call(StoreByHand::new, at, |store| store.write(b"", b"")),
            "fetch_at" => call(RawClient::new, at, |owner| {
                send_fetch_at(owner, iter::once(&b""[..]), 0)?;
                receive_fetch_at(owner, 1).map(drop)
            }),
            _ => call(StoreSyncClient::new, at, |client| {
                self.replies.read(name, client)
            }),
        }
    }
}
