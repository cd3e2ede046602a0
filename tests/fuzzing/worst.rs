//! The worst messages: those that announce, repeat, nest and fill up as much as the
//! limits of a connection let in, 18 MiB in one message. Too large for the fuzzer.

use thrift::protocol::{TBinaryOutputProtocol, TSerializable};
use thrifty_p2p::diststore::{KeyValue, Peer};
use thrifty_p2p::locator::{Location, Member, Status};
use thrifty_p2p::store::placement::{self, View};

/// The longest string that the wire lets in.
const STRING: usize = 17 * 1024 * 1024;

/// The longest message.
const MESSAGE: usize = STRING + 1024 * 1024;

/// The longest list.
const LIST: usize = 65_536;

const CALL: u8 = 1;
const REPLY: u8 = 2;

const BOOL: u8 = 2;
const STRUCT: u8 = 12;
const TEXT: u8 = 11;
const LISTED: u8 = 15;
const I32: u8 = 8;
const I64: u8 = 10;

/// A message, a piece at a time.
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
            .expect("a vector takes all");
        self
    }

    /// Up to the longest message, by pieces.
    fn filled(mut self, mut piece: impl FnMut(Message) -> Message) -> Message {
        while self.0.len() < MESSAGE - 500_000 {
            self = piece(self);
        }
        self
    }

    fn done(self) -> Vec<u8> {
        self.bytes(&[0; 4]).0
    }
}

/// So many locations, no two alike.
fn locations() -> impl Iterator<Item = Location> {
    (0u32..).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        Location::new(format!("127.{a}.{b}.{c}"), 9900)
    })
}

fn members() -> impl Iterator<Item = Member> {
    locations().map(|location| Member::new(location, 1, Status::ALIVE, 1))
}

fn peers() -> impl Iterator<Item = Peer> {
    locations().map(|location| Peer::new(location, 1))
}

/// A list of pairs, no two alike.
fn pairs(message: Message) -> Message {
    let message = message.list(STRUCT, LIST);
    (0..LIST as u32).fold(message, |message, number| {
        let key = number.to_be_bytes().to_vec();
        message.record(&KeyValue::new(key, vec![7], 1 << 40))
    })
}

/// What the view of so many peers is called.
fn view_of(size: usize) -> u64 {
    let known = |peer: Peer| view::Peer::try_from(peer).expect("a peer");
    View::new(peers().take(size).map(known)).id()
}

fn gossip(kind: u8, network: &[u8]) -> Message {
    let place = Location::new("127.0.0.1".to_owned(), 9901);
    let message = Message::new(kind, b"exchange");
    let message = message.field(STRUCT, if kind == CALL { 1 } else { 0 });
    let message = message.field(STRUCT, 1).record(&place);
    message.field(TEXT, 2).text(network)
}

/// What may be sent to any node, by name.
pub fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let call = |name: &str| Message::new(CALL, name.as_bytes());
    let loud = vec![1; STRING];
    let alien = vec![0xff; STRING];
    let many_members = members().take(10_000).fold(
        gossip(CALL, b"locator.Locator")
            .field(LISTED, 4)
            .list(STRUCT, 10_000),
        |message, member| message.record(&member),
    );
    let most_members = gossip(CALL, b"locator.Locator")
        .field(LISTED, 4)
        .list(STRUCT, LIST);
    let authorities = locations().take(LIST).fold(
        call("add").field(LISTED, 2).list(STRUCT, LIST),
        |message, location| message.record(&location),
    );
    let gone = peers().take(LIST).fold(
        call("pull")
            .field(STRUCT, 1)
            .field(LISTED, 4)
            .list(STRUCT, LIST),
        |message, peer| message.record(&peer),
    );
    vec![
        (
            "a method's name as long as a message",
            Message::new(CALL, &vec![b'x'; STRING]).done(),
        ),
        ("an address of control characters", {
            let join = call("join").field(STRUCT, 1);
            join.field(TEXT, 1).text(&loud).done()
        }),
        ("addresses of control characters", {
            let reach = gossip(CALL, b"locator.Locator")
                .field(LISTED, 4)
                .list(STRUCT, 1);
            let member = reach.field(STRUCT, 1).field(TEXT, 1).text(&loud);
            member.done()
        }),
        (
            "a network's name as long as a message",
            gossip(CALL, &loud).done(),
        ),
        ("ten thousand new members", many_members.done()),
        (
            "as many members as a list has",
            most_members.bytes(&vec![0; LIST]).done(),
        ),
        ("as many authorities as a list has", authorities.done()),
        ("as many gone as a list has", gone.done()),
        ("as many views as a list has", {
            let tell = call("tell")
                .field(STRUCT, 1)
                .field(LISTED, 6)
                .list(I64, LIST);
            tell.bytes(&vec![1; LIST * 8]).done()
        }),
        (
            "a key as long as a message",
            call("put")
                .field(TEXT, 1)
                .text(&alien)
                .field(TEXT, 2)
                .text(b"")
                .done(),
        ),
        ("a value as long as a message", {
            let write = call("write").field(TEXT, 1).text(b"key");
            write.field(TEXT, 2).text(&alien).done()
        }),
        (
            "a key got as long as a message",
            call("get").field(TEXT, 1).text(&alien).done(),
        ),
        (
            "as many pairs to write as a list has",
            pairs(call("write_many").field(LISTED, 1)).done(),
        ),
        (
            "as many pairs to keep as a list has",
            pairs(call("replicate").field(LISTED, 1)).done(),
        ),
        (
            "as many pairs to decline as a list has",
            call("replicate")
                .field(LISTED, 1)
                .list(STRUCT, LIST)
                .bytes(&vec![0; LIST])
                .done(),
        ),
        ("as many keys as a list has", {
            let keys = call("fetch_many").field(LISTED, 1).list(TEXT, LIST);
            (0..LIST as u32)
                .fold(keys, |message, key| message.text(&key.to_be_bytes()))
                .done()
        }),
        ("truths that nobody asked for", {
            let truths = vec![1; LIST];
            call("ping")
                .filled(|m| m.field(LISTED, 99).list(BOOL, LIST).bytes(&truths))
                .done()
        }),
        ("empty lists that nobody asked for", {
            call("ping")
                .filled(|m| {
                    let lists = m.field(LISTED, 99).list(LISTED, LIST);
                    lists.bytes(&[BOOL, 0, 0, 0, 0].repeat(LIST))
                })
                .done()
        }),
        (
            "structs in structs",
            call("ping").bytes(&[STRUCT, 0, 9].repeat(1_000_000)).done(),
        ),
        ("lists in lists", {
            let lists = call("ping").field(LISTED, 9);
            lists.bytes(&[LISTED, 0, 0, 0, 1].repeat(1_000_000)).done()
        }),
        ("maps in maps", {
            let maps = call("ping").field(13, 9);
            maps.bytes(&[13, 13, 0, 0, 0, 1].repeat(1_000_000)).done()
        }),
    ]
}

/// What a dialer may be answered, by name.
pub fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let reply = |name: &str| Message::new(REPLY, name.as_bytes());
    let views = || {
        let told = reply("tell").field(STRUCT, 0);
        let teller = peers().next().expect("there are many");
        let word = told.field(STRUCT, 1).field(STRUCT, 1).record(&teller);
        word.bytes(&[0]).field(STRUCT, 2).field(LISTED, 1)
    };
    let nobodies = vec![0; LIST];
    let one_view = peers().take(LIST).fold(
        views().list(LISTED, 1).list(STRUCT, LIST),
        |message, peer| message.record(&peer),
    );
    let believed = peers().take(16_384).fold(
        views().list(LISTED, 1).list(STRUCT, 16_384),
        |message, peer| message.record(&peer),
    );
    let roll = peers().take(LIST).fold(
        reply("roll")
            .field(STRUCT, 0)
            .field(LISTED, 1)
            .list(STRUCT, LIST),
        |message, peer| message.record(&peer),
    );
    let pair = KeyValue::new(vec![1], vec![2], 1 << 40);
    let page = reply("pull")
        .field(STRUCT, 0)
        .field(LISTED, 1)
        .list(STRUCT, LIST);
    let most_pairs = (0..LIST).fold(page, |message, _| message.record(&pair));
    let all = locations().take(LIST).fold(
        reply("get_all").field(LISTED, 0).list(STRUCT, LIST),
        |message, location| message.record(&location),
    );
    let types = reply("service_types").field(LISTED, 0).list(TEXT, LIST);
    vec![
        ("as many views as fill a message", {
            let most = views().list(LISTED, MESSAGE / LIST - 10);
            most.filled(|m| m.list(STRUCT, LIST).bytes(&nobodies))
                .done()
        }),
        ("as many members as a list of views has", {
            let read = believed.field(I64, 2).bytes(&view_of(16_384).to_be_bytes());
            read.field(I32, 3).bytes(&[0, 0, 0, 3, 0]).done()
        }),
        (
            "a view as long as a list",
            one_view.field(BOOL, 9).bytes(&[0]).done(),
        ),
        ("a roll as long as a list", roll.done()),
        ("as many pairs as a list has", most_pairs.done()),
        ("as many nodes as a list has", all.done()),
        (
            "as many types as a list has",
            types.bytes(&[0, 0, 0, 1, b'a'].repeat(LIST)).done(),
        ),
        (
            "as many pairs declined as a list has",
            reply("replicate")
                .field(STRUCT, 0)
                .field(LISTED, 2)
                .list(STRUCT, LIST)
                .bytes(&vec![0; LIST])
                .done(),
        ),
        ("a value as long as a message", {
            let found = reply("fetch").field(STRUCT, 0);
            found.field(TEXT, 1).text(&vec![0xff; STRING]).done()
        }),
        (
            "a method's name as long as a message",
            Message::new(REPLY, &vec![b'x'; STRING]).done(),
        ),
        ("an exception as long as a message", {
            let exception = Message::new(3, b"get").field(TEXT, 1);
            exception.text(&vec![1; STRING]).done()
        }),
        ("a sender of control characters", {
            let told = reply("exchange").field(STRUCT, 0).field(STRUCT, 1);
            told.field(TEXT, 1).text(&vec![1; STRING]).done()
        }),
    ]
}
