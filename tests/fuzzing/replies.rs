//! Targets that decode replies: what clients and nodes do with them, in memory or over a
//! connection.

use std::io::{self, Write};
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
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::membership::{Config, Gossip, Membership, Now, Outcome, Request};
use thrifty_p2p::rpc::dialer::{call, limits};
use thrifty_p2p::store::handler::SERVICE;
use thrifty_p2p::store::list::KeyPage;
use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{
    MemberSnapshot, PlacementHistory, Rebalance, RebalanceStatus, Rules,
};
use thrifty_p2p::store::table::Table;
use thrifty_p2p::store::wire::{from_page, from_read_result};

use super::decoder::{Coverage, Decoder, depth, kind, method, name_of};

/// The time for decoders that do not read the clock: November 2025.
const UNIX_MILLIS: i64 = 1_763_000_000_000;

/// The state of a client and a node that receive replies.
struct Replies {
    membership: Membership,
    now: Now,
    rebalance: Rebalance,
    table: Table,
}

/// A target that decodes replies in memory.
pub fn replies() -> Box<dyn Decoder> {
    Box::new(Replies::new())
}

impl Replies {
    fn new() -> Replies {
        let me: Location = "127.0.0.1:9900".parse().expect("a location");
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: UNIX_MILLIS,
        };
        let seed = "127.0.0.1:9901".parse().expect("a location");
        let network: Arc<str> = SERVICE.into();
        let config = Config::default();
        Replies {
            membership: Membership::new(me.clone(), network, vec![seed], config, now, 1),
            now,
            rebalance: Rebalance::new(NodeId::new(me, UNIX_MILLIS), None, Rules::default()),
            table: Table::default(),
        }
    }
}

impl Decoder for Replies {
    fn decode(&mut self, reply: &[u8]) -> Coverage {
        let name = name_of(reply);
        let mut left = reply;
        let input = TBinaryInputProtocol::with_config(&mut left, false, limits(Some(65_536)));
        let output = TBinaryOutputProtocol::new(io::sink(), true);
        let result = self.receive(&name, &mut StoreSyncClient::new(input, output));
        Coverage {
            method: method(&name),
            end: result.map_or_else(|e| kind(&e), |()| 0),
            depth: depth(reply, left),
        }
    }
}

impl Replies {
    /// Makes the call to which the input is a reply, and uses the result as a node does.
    fn receive<I, O>(
        &mut self,
        name: &str,
        client: &mut StoreSyncClient<I, O>,
    ) -> thrift::Result<()>
    where
        I: TInputProtocol,
        O: TOutputProtocol,
    {
        match name {
            "service_type" => client.service_type().map(drop),
            "service_types" => client.service_types().map(drop),
            "get_all" => client.get_all().map(|all| self.on_all(&all)),
            "get_node" => {
                let node = client.get_node(Vec::new())?;
                Location::try_from(&node).map(drop).map_err(undecodable)
            }
            "exchange" => {
                let gossip = client.exchange(locator::Gossip::default())?;
                let gossip = Gossip::try_from(gossip).map_err(undecodable)?;
                self.on_outcome(&Outcome::Gossip(gossip));
                Ok(())
            }
            "members" => {
                let gossip = Gossip::try_from(client.members()?).map_err(undecodable)?;
                self.membership.on_exchange(self.now, gossip);
                Ok(())
            }
            "ping_req" => client.ping_req(locator::Location::default()).map(drop),
            "events" => client.events(0, 0).map(drop),
            "get" => client.get(Vec::new()).map(drop),
            "write" => client.write(Vec::new(), Vec::new()).map(drop),
            "fetch" => client.fetch(Vec::new()).map(from_read_result).map(drop),
            "unset" => client.unset(Vec::new()).map(drop),
            "write_if" => client.write_if(Vec::new(), Vec::new(), 0).map(drop),
            "unset_if" => client.unset_if(Vec::new(), 0).map(drop),
            "write_many" => client.write_many(Vec::new()).map(drop),
            "fetch_many" => client.fetch_many(Vec::new()).map(drop),
            "topology" => client.topology().map(drop),
            "scan" => self.on_page(client.scan(0, Default::default())?),
            "list_keys" => {
                let page = client.list_keys(Vec::new(), Vec::new(), 1)?;
                KeyPage::try_from(page).map(drop)
            }
            "scan_keys" => client
                .scan_keys(0, Default::default(), Default::default(), false)
                .map(drop),
            "write_as_primary" => client.write_as_primary(Vec::new(), 0).map(drop),
            "replicate" => client
                .replicate(Default::default(), Vec::new(), 0, 0)
                .map(drop),
            "wait_until_finished" => client.wait_until_finished(0, 0).map(drop),
            "recall_writes" => client.recall_writes(Vec::new()).map(drop),
            "fetch_as_owner" => {
                let results = client.fetch_as_owner(Vec::new(), 0)?;
                results.into_iter().map(from_read_result).for_each(drop);
                Ok(())
            }
            "rebalance_status" => self.on_status(client),
            "pull" => self.on_page(client.pull(Default::default())?),
            "stats" => client.stats(true).map(drop),
            _ => client.ping(),
        }
    }

    /// A reply of `get_all`, from a peer that does not know `exchange`.
    fn on_all(&mut self, all: &[locator::Location]) {
        self.on_outcome(&Outcome::UnknownMethod);
        let all = all.iter().filter_map(|l| l.try_into().ok()).collect();
        self.on_outcome(&Outcome::All(all));
    }

    /// Gives the outcome to a call of the membership that it fits. Its other calls get no reply.
    fn on_outcome(&mut self, outcome: &Outcome) {
        self.now.monotonic += Duration::from_secs(1);
        let mut actions = self.membership.tick(self.now);
        let mut was_used = false;
        // A call without a reply can lead to further calls without end.
        for _ in 0..16 {
            let Some(action) = actions.pop() else {
                break;
            };
            let fits = match action.request {
                Request::GetAll => matches!(outcome, Outcome::All(_)),
                Request::Exchange(_) => !matches!(outcome, Outcome::All(_)),
                _ => false,
            };
            let outcome = if fits && !was_used {
                was_used = true;
                outcome.clone()
            } else {
                Outcome::NoReply
            };
            actions.extend(self.membership.reply(self.now, action.token, outcome));
        }
        self.membership.events();
    }

    fn on_status<I, O>(&mut self, client: &mut StoreSyncClient<I, O>) -> thrift::Result<()>
    where
        I: TInputProtocol,
        O: TOutputProtocol,
    {
        let reply = client.rebalance_status(Default::default(), true)?;
        let status = RebalanceStatus::try_from(reply.status.unwrap_or_default());
        let status = status.map_err(undecodable)?;
        let history = reply.history.map(PlacementHistory::try_from).transpose();
        let me = self.rebalance.me().clone();
        self.rebalance.update_members(MemberSnapshot {
            me: me.clone(),
            live: [me, status.sender.clone()].into(),
            leaving: Default::default(),
        });
        self.publish();
        let asked_at = self.rebalance.isolations();
        let history = history.map_err(undecodable)?;
        self.rebalance.on_status(Some(asked_at), status, history);
        self.publish();
        self.rebalance.pulls();
        Ok(())
    }

    /// Reports each state of the rebalance as published, as a store does.
    fn publish(&mut self) {
        let mut published = None;
        while published != Some(self.rebalance.changes()) {
            published = Some(self.rebalance.changes());
            self.rebalance.on_published();
        }
    }

    fn on_page(&mut self, page: diststore::Page) -> thrift::Result<()> {
        let page = from_page(page, UNIX_MILLIS).map_err(undecodable)?;
        for (key, entry) in page.entries {
            self.table.apply(Key::new(&key), entry);
        }
        let source = self.rebalance.me().clone();
        let attempt_id = self.rebalance.attempt_id();
        self.rebalance.pulled(attempt_id, &source, page.next);
        self.publish();
        Ok(())
    }
}

fn undecodable(reason: impl ToString) -> thrift::Error {
    reason.to_string().into()
}

/// A peer that sends each input as the reply to one call of a client.
struct ConnectionReplies {
    listener: Arc<TcpListener>,
    location: Location,
    replies: Replies,
}

/// A target that decodes replies over connections.
pub fn connection_replies() -> Box<dyn Decoder> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let location = listener.local_addr().expect("it has one").into();
    Box::new(ConnectionReplies {
        listener: Arc::new(listener),
        location,
        replies: Replies::new(),
    })
}

impl Decoder for ConnectionReplies {
    fn decode(&mut self, reply: &[u8]) -> Coverage {
        let name = name_of(reply);
        let listener = self.listener.clone();
        let result = thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("the client calls");
                // The client may close the connection before everything is sent.
                let _ = stream.write_all(reply);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
            self.call(&name)
        });
        Coverage {
            method: method(&name),
            end: i32::from(result.is_ok()),
            depth: 0,
        }
    }
}

impl ConnectionReplies {
    fn call(&mut self, name: &str) -> Result<(), Error> {
        let peer = &self.location;
        match name {
            "topology" => RingClient::connect(peer).map(drop),
            _ => call(StoreSyncClient::new, peer, |client| {
                self.replies.receive(name, client)
            }),
        }
    }
}
