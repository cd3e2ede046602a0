//! The largest messages: lists, strings and nesting up to the limits of a connection, which
//! accepts 18 MiB in one message. They are too large for mutation.

use thrift::protocol::{TBinaryOutputProtocol, TSerializable};
use thrifty_p2p::diststore::{KeyValue, NodeId};
use thrifty_p2p::locator::{Location, Member, Status};
use thrifty_p2p::store::placement::{self, Placement};

/// The longest string that is accepted.
const MAX_STRING: usize = 17 * 1024 * 1024;

/// The longest message that is accepted.
const MAX_MESSAGE: usize = MAX_STRING + 1024 * 1024;

/// The longest list that is accepted.
const MAX_LIST: usize = 65_536;

const CALL: u8 = 1;
const REPLY: u8 = 2;

const BOOL: u8 = 2;
const STRUCT: u8 = 12;
const STRING: u8 = 11;
const LIST: u8 = 15;
const I32: u8 = 8;
const I64: u8 = 10;

/// Builds a message from its parts.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u8, name: &[u8]) -> Message {
        Message(vec![0x80, 1, 0, kind])
            .text(name)
            .bytes(&[0, 0, 0, 1])
    }

    fn bytes(mut self, bytes: &[u8]) -> Message {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &[u8]) -> Message {
        self.bytes(&(text.len() as u32).to_be_bytes()).bytes(text)
    }

    fn field(self, kind: u8, id: u8) -> Message {
        self.bytes(&[kind, 0, id])
    }

    fn list(self, of: u8, size: usize) -> Message {
        self.bytes(&[of]).bytes(&(size as u32).to_be_bytes())
    }

    fn record(mut self, record: &impl TSerializable) -> Message {
        let mut output = TBinaryOutputProtocol::new(&mut self.0, true);
        record
            .write_to_out_protocol(&mut output)
            .expect("a vector accepts everything");
        self
    }

    /// Adds parts up to the longest message.
    fn filled(mut self, mut add: impl FnMut(Message) -> Message) -> Message {
        while self.0.len() < MAX_MESSAGE - 500_000 {
            self = add(self);
        }
        self
    }

    fn done(self) -> Vec<u8> {
        self.bytes(&[0; 4]).0
    }
}

/// Distinct locations.
fn locations() -> impl Iterator<Item = Location> {
    (0u32..).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        Location::new(format!("127.{a}.{b}.{c}"), 9900)
    })
}

fn members() -> impl Iterator<Item = Member> {
    locations().map(|location| Member::new(location, 1, Status::ALIVE, 1, None))
}

fn processes() -> impl Iterator<Item = NodeId> {
    locations().map(|location| NodeId::new(location, 1, None))
}

/// Adds a list of distinct pairs.
fn pairs(message: Message) -> Message {
    let message = message.list(STRUCT, MAX_LIST);
    (0..MAX_LIST as u32).fold(message, |message, number| {
        let key = number.to_be_bytes().to_vec();
        message.record(&KeyValue::new(key, vec![7], 1 << 40))
    })
}

/// The id of the placement of this many processes.
fn placement_id(size: usize) -> u64 {
    let node = |node: NodeId| placement::NodeId::try_from(node).expect("a process");
    Placement::new(processes().take(size).map(node)).id()
}

fn gossip(kind: u8, network: &[u8]) -> Message {
    let sender = Location::new("127.0.0.1".to_owned(), 9901);
    let message = Message::new(kind, b"exchange");
    let message = message.field(STRUCT, if kind == CALL { 1 } else { 0 });
    let message = message.field(STRUCT, 1).record(&sender);
    message.field(STRING, 2).text(network)
}

/// The largest requests, each with a name.
pub fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let call = |name: &str| Message::new(CALL, name.as_bytes());
    let control_characters = vec![1; MAX_STRING];
    let not_utf8 = vec![0xff; MAX_STRING];
    let many_members = members().take(10_000).fold(
        gossip(CALL, b"locator.Locator")
            .field(LIST, 4)
            .list(STRUCT, 10_000),
        |message, member| message.record(&member),
    );
    let most_members = gossip(CALL, b"locator.Locator")
        .field(LIST, 4)
        .list(STRUCT, MAX_LIST);
    let authorities = locations().take(MAX_LIST).fold(
        call("add").field(LIST, 2).list(STRUCT, MAX_LIST),
        |message, location| message.record(&location),
    );
    let down = processes().take(MAX_LIST).fold(
        call("pull")
            .field(STRUCT, 1)
            .field(LIST, 4)
            .list(STRUCT, MAX_LIST),
        |message, node| message.record(&node),
    );
    vec![
        (
            "a method's name as long as a message",
            Message::new(CALL, &vec![b'x'; MAX_STRING]).done(),
        ),
        ("an address of control characters", {
            let join = call("join").field(STRUCT, 1);
            join.field(STRING, 1).text(&control_characters).done()
        }),
        ("addresses of control characters", {
            let exchange = gossip(CALL, b"locator.Locator")
                .field(LIST, 4)
                .list(STRUCT, 1);
            let member = exchange
                .field(STRUCT, 1)
                .field(STRING, 1)
                .text(&control_characters);
            member.done()
        }),
        (
            "a network's name as long as a message",
            gossip(CALL, &control_characters).done(),
        ),
        ("ten thousand new members", many_members.done()),
        (
            "as many members as a list has",
            most_members.bytes(&vec![0; MAX_LIST]).done(),
        ),
        ("as many authorities as a list has", authorities.done()),
        ("as many down processes as a list has", down.done()),
        ("as many placements as a list has", {
            let status = call("rebalance_status")
                .field(STRUCT, 1)
                .field(LIST, 6)
                .list(I64, MAX_LIST);
            status.bytes(&vec![1; MAX_LIST * 8]).done()
        }),
        (
            "a key as long as a message",
            call("put")
                .field(STRING, 1)
                .text(&not_utf8)
                .field(STRING, 2)
                .text(b"")
                .done(),
        ),
        ("a value as long as a message", {
            let write = call("write").field(STRING, 1).text(b"key");
            write.field(STRING, 2).text(&not_utf8).done()
        }),
        (
            "a key to read as long as a message",
            call("get").field(STRING, 1).text(&not_utf8).done(),
        ),
        (
            "as many pairs to write as a list has",
            pairs(call("write_many").field(LIST, 1)).done(),
        ),
        (
            "as many pairs to keep as a list has",
            pairs(call("replicate").field(LIST, 2)).done(),
        ),
        (
            "as many malformed pairs as a list has",
            call("replicate")
                .field(LIST, 2)
                .list(STRUCT, MAX_LIST)
                .bytes(&vec![0; MAX_LIST])
                .done(),
        ),
        ("as many keys as a list has", {
            let keys = call("fetch_many").field(LIST, 1).list(STRING, MAX_LIST);
            (0..MAX_LIST as u32)
                .fold(keys, |message, key| message.text(&key.to_be_bytes()))
                .done()
        }),
        ("unknown lists of booleans", {
            let booleans = vec![1; MAX_LIST];
            call("ping")
                .filled(|m| m.field(LIST, 99).list(BOOL, MAX_LIST).bytes(&booleans))
                .done()
        }),
        ("unknown lists of empty lists", {
            call("ping")
                .filled(|m| {
                    let lists = m.field(LIST, 99).list(LIST, MAX_LIST);
                    lists.bytes(&[BOOL, 0, 0, 0, 0].repeat(MAX_LIST))
                })
                .done()
        }),
        (
            "structs in structs",
            call("ping").bytes(&[STRUCT, 0, 9].repeat(1_000_000)).done(),
        ),
        ("lists in lists", {
            let lists = call("ping").field(LIST, 9);
            lists.bytes(&[LIST, 0, 0, 0, 1].repeat(1_000_000)).done()
        }),
        ("maps in maps", {
            let maps = call("ping").field(13, 9);
            maps.bytes(&[13, 13, 0, 0, 0, 1].repeat(1_000_000)).done()
        }),
    ]
}

/// The largest replies, each with a name.
pub fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let reply = |name: &str| Message::new(REPLY, name.as_bytes());
    // A reply up to the list of placements in its history.
    let placements = || {
        let reply = reply("rebalance_status").field(STRUCT, 0);
        let sender = processes().next().expect("there are many");
        let status = reply.field(STRUCT, 1).field(STRUCT, 1).record(&sender);
        status.bytes(&[0]).field(STRUCT, 2).field(LIST, 1)
    };
    let empty_structs = vec![0; MAX_LIST];
    let one_placement = processes().take(MAX_LIST).fold(
        placements().list(LIST, 1).list(STRUCT, MAX_LIST),
        |message, node| message.record(&node),
    );
    let accepted = processes().take(16_384).fold(
        placements().list(LIST, 1).list(STRUCT, 16_384),
        |message, node| message.record(&node),
    );
    let topology = processes().take(MAX_LIST).fold(
        reply("topology")
            .field(STRUCT, 0)
            .field(LIST, 1)
            .list(STRUCT, MAX_LIST),
        |message, node| message.record(&node),
    );
    let pair = KeyValue::new(vec![1], vec![2], 1 << 40);
    let page = reply("pull")
        .field(STRUCT, 0)
        .field(LIST, 1)
        .list(STRUCT, MAX_LIST);
    let full_page = (0..MAX_LIST).fold(page, |message, _| message.record(&pair));
    let all = locations().take(MAX_LIST).fold(
        reply("get_all").field(LIST, 0).list(STRUCT, MAX_LIST),
        |message, location| message.record(&location),
    );
    let types = reply("service_types").field(LIST, 0).list(STRING, MAX_LIST);
    vec![
        ("as many placements as a message has", {
            let lists = placements().list(LIST, MAX_MESSAGE / MAX_LIST - 10);
            lists
                .filled(|m| m.list(STRUCT, MAX_LIST).bytes(&empty_structs))
                .done()
        }),
        ("as many members as a history has", {
            let history = accepted
                .field(I64, 2)
                .bytes(&placement_id(16_384).to_be_bytes());
            history.field(I32, 3).bytes(&[0, 0, 0, 3, 0]).done()
        }),
        (
            "a placement as long as a list",
            one_placement.field(BOOL, 9).bytes(&[0]).done(),
        ),
        ("a topology as long as a list", topology.done()),
        ("as many pairs as a list has", full_page.done()),
        ("as many nodes as a list has", all.done()),
        (
            "as many types as a list has",
            types.bytes(&[0, 0, 0, 1, b'a'].repeat(MAX_LIST)).done(),
        ),
        (
            "as many rejections as a list has",
            reply("replicate")
                .field(STRUCT, 0)
                .field(LIST, 2)
                .list(STRUCT, MAX_LIST)
                .bytes(&vec![0; MAX_LIST])
                .done(),
        ),
        ("a value as long as a message", {
            let found = reply("fetch").field(STRUCT, 0);
            found.field(STRING, 1).text(&vec![0xff; MAX_STRING]).done()
        }),
        (
            "a method's name as long as a message",
            Message::new(REPLY, &vec![b'x'; MAX_STRING]).done(),
        ),
        ("an exception as long as a message", {
            let exception = Message::new(3, b"get").field(STRING, 1);
            exception.text(&vec![1; MAX_STRING]).done()
        }),
        ("a sender of control characters", {
            let gossip = reply("exchange").field(STRUCT, 0).field(STRUCT, 1);
            gossip.field(STRING, 1).text(&vec![1; MAX_STRING]).done()
        }),
    ]
}
