//! Seeds: one valid input of each kind. Messages are as our own stubs write them.

use std::collections::BTreeMap;

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TMessageIdentifier,
    TMessageType, TOutputProtocol, TSerializable, TType,
};
use thrifty_p2p::diststore::{
    Copy, Cursor, KeyPage, KeyRange, KeyValue, ListedKey, NodeId, NodeStats, Page, Phase,
    PlacementHistory, PrimaryReply, Pull, ReadResult, RebalanceStatus, Refused, Rejection,
    ReplicateResult, Saved, ScannedKeys, ServerStats, StatusReply, StoreSyncClient,
    TStoreSyncClient, Topology, Write, WriteId, WriteResult,
};
use thrifty_p2p::locator::{
    Event, EventKind, Events, Gossip, Location, Member, Status, TBaseSyncClient, TLocatorSyncClient,
};
use thrifty_p2p::store::placement;

/// A name and an input.
type Seed = (String, Vec<u8>);

const UNIX_MILLIS: i64 = 1_763_000_000_000;
const VERSION: i64 = UNIX_MILLIS << 20;
const PLACEMENT_ID: i64 = 0x0123_4567_89ab_cdef;

/// The seeds of the corpus file with this name.
pub fn seeds(corpus: &str) -> Vec<Seed> {
    match corpus {
        "requests" => requests(),
        "replies" => replies(),
        "lines" => lines(),
        _ => addresses(),
    }
}

fn location(port: i16) -> Location {
    Location::new("127.0.0.1".to_owned(), port)
}

fn process(port: i16) -> NodeId {
    NodeId::new(location(port), UNIX_MILLIS, 7)
}

/// The tags of a member.
fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), "b1".to_owned())])
}

/// The gossip of a request, which asks for all records.
fn gossip(network: &str) -> Gossip {
    let statuses = [Status::ALIVE, Status::SUSPECT, Status::DOWN, Status::LEFT];
    let member =
        |(port, status)| Member::new(location(port), UNIX_MILLIS, status, UNIX_MILLIS - 1, tags());
    let members: Vec<_> = (9901..).zip(statuses).map(member).collect();
    let network = network.to_owned();
    Gossip::new(
        location(9901),
        network,
        PLACEMENT_ID,
        members,
        true,
        None,
        None,
    )
}

/// The gossip of a reply.
fn reply_gossip() -> Gossip {
    Gossip {
        full: None,
        learned: Some(true),
        ..gossip("diststore.Store")
    }
}

fn status() -> RebalanceStatus {
    RebalanceStatus::new(
        process(9901),
        PLACEMENT_ID,
        Phase::SYNCED,
        true,
        PLACEMENT_ID,
        vec![PLACEMENT_ID, 1],
        UNIX_MILLIS,
        3,
        77,
        false,
        false,
        7,
        saved(),
        true,
    )
}

fn saved() -> Saved {
    Saved::new(vec![process(9901)], vec![process(9900), process(9901)], 6)
}

fn pair(value: Option<Vec<u8>>) -> KeyValue {
    KeyValue::new(b"key".to_vec(), value, VERSION)
}

fn listed() -> ListedKey {
    ListedKey::new(b"key".to_vec(), 5, VERSION)
}

fn write(value: Option<Vec<u8>>) -> Write {
    Write::new(
        b"key".to_vec(),
        value,
        WriteId::new(1, 2),
        true,
        10_000,
        9_000,
        VERSION,
    )
}

fn copy(value: Option<Vec<u8>>) -> Copy {
    let id = WriteId::new(1, 2);
    Copy::new(
        b"key".to_vec(),
        value,
        VERSION,
        7,
        id,
        true,
        false,
        false,
        false,
    )
}

type Client<'a> =
    StoreSyncClient<TBinaryInputProtocol<&'static [u8]>, TBinaryOutputProtocol<&'a mut Vec<u8>>>;

/// The bytes that our stub sends for a call.
fn request<T>(name: &str, call: impl FnOnce(&mut Client<'_>) -> thrift::Result<T>) -> Seed {
    let mut bytes = Vec::new();
    let input = TBinaryInputProtocol::new(&[][..], true);
    let output = TBinaryOutputProtocol::new(&mut bytes, true);
    // The call fails, because there is no reply.
    let _ = call(&mut StoreSyncClient::new(input, output));
    (name.to_owned(), bytes)
}

fn requests() -> Vec<Seed> {
    let key = || b"key".to_vec();
    let value = || Some(b"value".to_vec());
    let pull = || {
        Pull::new(
            process(9901),
            PLACEMENT_ID,
            0,
            vec![process(9902)],
            Cursor::new(7, key()),
            vec![1, -2],
        )
    };
    let several: Vec<u8> = ["ping", "get_all", "members"]
        .iter()
        .flat_map(|name| reply_or_call(name, TMessageType::Call, None, &|_| Ok(())))
        .collect();
    vec![
        request("ping", |c| c.ping()),
        request("service_type", |c| c.service_type()),
        request("service_types", |c| c.service_types()),
        request("debug", |c| c.debug()),
        request("die", |c| c.die()),
        request("join", |c| c.join(location(9902))),
        request("remove", |c| c.remove(location(9902), vec![location(9901)])),
        request("add", |c| {
            c.add(location(9903), vec![location(9901), location(9902)])
        }),
        request("get_all", |c| c.get_all()),
        request("get_node", |c| c.get_node(key())),
        request("exchange with a locator", |c| {
            c.exchange(gossip("locator.Locator"))
        }),
        request("exchange with a store", |c| {
            c.exchange(gossip("diststore.Store"))
        }),
        request("members", |c| c.members()),
        request("ping_req", |c| c.ping_req(location(9902))),
        request("events", |c| c.events(-1, 1_000)),
        request("get", |c| c.get(key())),
        request("put", |c| c.put(key(), b"value".to_vec())),
        request("write", |c| c.write(key(), b"value".to_vec())),
        request("fetch", |c| c.fetch(key())),
        request("unset", |c| c.unset(key())),
        request("write_if", |c| {
            c.write_if(key(), b"value".to_vec(), VERSION)
        }),
        request("unset_if", |c| c.unset_if(key(), VERSION)),
        request("write_many", |c| {
            c.write_many(vec![write(value()), write(None)])
        }),
        request("fetch_many", |c| c.fetch_many(vec![key(), Vec::new()])),
        request("list_keys", |c| c.list_keys(key(), key(), 10)),
        request("topology", |c| c.topology()),
        request("scan", |c| c.scan(PLACEMENT_ID, Cursor::new(7, key()))),
        request("scan_keys", |c| {
            let range = KeyRange::new(key(), key(), value());
            c.scan_keys(PLACEMENT_ID, Cursor::new(7, key()), range, false)
        }),
        request("write_as_primary", |c| {
            c.write_as_primary(vec![write(value())], UNIX_MILLIS)
        }),
        request("replicate", |c| {
            let copies = vec![copy(value()), copy(None)];
            c.replicate(process(9902), copies, PLACEMENT_ID, 5)
        }),
        request("wait_until_finished", |c| {
            c.wait_until_finished(UNIX_MILLIS, 7)
        }),
        request("recall_writes", |c| {
            c.recall_writes(vec![WriteId::new(1, 2)])
        }),
        request("fetch_as_owner", |c| {
            c.fetch_as_owner(vec![key()], PLACEMENT_ID)
        }),
        request("rebalance_status", |c| c.rebalance_status(status(), true)),
        request("pull", |c| c.pull(pull())),
        request("stats", |c| c.stats(true)),
        request("held_copy", |c| c.held_copy(b"key".to_vec())),
        ("several calls".to_owned(), several),
        (
            "ping with an old header".to_owned(),
            b"\0\0\0\x04ping\x01\0\0\0\0\0".to_vec(),
        ),
        (
            "another protocol".to_owned(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ),
    ]
}

type Output<'a> = TBinaryOutputProtocol<&'a mut Vec<u8>>;

/// A message with at most one field and the sequence number of a first call.
fn reply_or_call(
    name: &str,
    kind: TMessageType,
    field: Option<(TType, i16)>,
    write: &dyn Fn(&mut Output<'_>) -> thrift::Result<()>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut output = TBinaryOutputProtocol::new(&mut bytes, true);
    let header = TMessageIdentifier::new(name, kind, 1);
    let written = output.write_message_begin(&header).and_then(|()| {
        if let Some((kind, id)) = field {
            output.write_field_begin(&TFieldIdentifier::new("", kind, id))?;
            write(&mut output)?;
        }
        output.write_field_stop()
    });
    written.expect("a vector accepts everything");
    bytes
}

fn reply(name: &str, kind: TType, write: &dyn Fn(&mut Output<'_>) -> thrift::Result<()>) -> Seed {
    let bytes = reply_or_call(name, TMessageType::Reply, Some((kind, 0)), write);
    (name.to_owned(), bytes)
}

fn record(name: &str, record: &impl TSerializable) -> Seed {
    reply(name, TType::Struct, &|o| record.write_to_out_protocol(o))
}

fn records(name: &str, records: &[impl TSerializable]) -> Seed {
    reply(name, TType::List, &|o| {
        o.write_list_begin(&list(TType::Struct, records.len() as i32))?;
        records
            .iter()
            .try_for_each(|record| record.write_to_out_protocol(o))
    })
}

fn replies() -> Vec<Seed> {
    let value = || Some(b"value".to_vec());
    let history = PlacementHistory::new(
        vec![vec![process(9901)], vec![process(9900), process(9901)]],
        read_placement_id(),
        3,
        false,
        8,
        vec![process(9901)],
    );
    let event = Event {
        sequence: Some(UNIX_MILLIS << 10),
        at: Some(UNIX_MILLIS),
        kind: Some(EventKind::RING_CHANGED),
        location: Some(location(9902)),
        tags: Some(tags()),
        moved: Some(0.25.into()),
        text: Some("a line".to_owned()),
    };
    let events = Events::new(vec![event], UNIX_MILLIS << 10, false);
    let page = Page::new(
        vec![pair(value()), pair(None)],
        Cursor::new(7, b"key".to_vec()),
        true,
        vec![255, -1],
    );
    let server = ServerStats {
        open: Some(2),
        calls: Some(7),
        ..ServerStats::default()
    };
    let stats = NodeStats {
        keys: Some(3),
        primary_keys: Some(1),
        bytes: Some(400),
        replicas: Some(3),
        phase: Some(Phase::SETTLED),
        serving: Some(true),
        placement_id: Some(PLACEMENT_ID),
        server: Some(server),
        silent: Some(vec![location(9901)]),
        is_stopped: Some(true),
        ..NodeStats::default()
    };
    let result = ReplicateResult::new(
        PLACEMENT_ID,
        vec![
            Rejection::new(1, "full".to_owned(), None, None),
            Rejection::new(2, "older".to_owned(), VERSION, None),
        ],
        false,
    );
    let exception = reply_or_call(
        "get",
        TMessageType::Exception,
        Some((TType::String, 1)),
        &|o| o.write_string("Internal error"),
    );
    let refused = reply_or_call(
        "fetch",
        TMessageType::Reply,
        Some((TType::Struct, 1)),
        &|o| Refused::new("not ready".to_owned()).write_to_out_protocol(o),
    );
    vec![
        (
            "ping".to_owned(),
            reply_or_call("ping", TMessageType::Reply, None, &|_| Ok(())),
        ),
        reply("service_type", TType::String, &|o| {
            o.write_string("diststore.Store")
        }),
        reply("service_types", TType::List, &|o| {
            o.write_list_begin(&list(TType::String, 2))?;
            o.write_string("locator.Base")?;
            o.write_string("locator.Locator")
        }),
        reply("get_all", TType::List, &|o| {
            o.write_list_begin(&list(TType::Struct, 2))?;
            location(9901).write_to_out_protocol(o)?;
            location(9902).write_to_out_protocol(o)
        }),
        record("get_node", &location(9901)),
        record("exchange", &reply_gossip()),
        record("members", &reply_gossip()),
        record("events", &events),
        reply("ping_req", TType::Bool, &|o| o.write_bool(true)),
        reply("get", TType::String, &|o| o.write_bytes(b"value")),
        reply("write", TType::I64, &|o| o.write_i64(VERSION)),
        record("fetch", &ReadResult::new(value(), VERSION)),
        reply("unset", TType::Bool, &|o| o.write_bool(true)),
        record("write_if", &WriteResult::new(VERSION, true, None, true)),
        record("unset_if", &WriteResult::new(VERSION, true, None, false)),
        records(
            "write_many",
            &[
                WriteResult::new(VERSION, true, None, true),
                WriteResult::new(0, false, "full".to_owned(), false),
            ],
        ),
        records(
            "fetch_many",
            &[ReadResult::new(value(), VERSION), ReadResult::new(None, 0)],
        ),
        record(
            "topology",
            &Topology::new(
                vec![process(9900), process(9901)],
                false,
                vec![process(9900)],
            ),
        ),
        record("scan", &page),
        record("list_keys", &KeyPage::new(vec![listed()], b"kez".to_vec())),
        record(
            "scan_keys",
            &ScannedKeys::new(vec![listed()], vec![0, 1], Cursor::new(9, None), true),
        ),
        record(
            "write_as_primary",
            &PrimaryReply::new(
                vec![
                    WriteResult::new(VERSION, true, None, false),
                    WriteResult::new(-1, false, None, false),
                ],
                77,
            ),
        ),
        reply("wait_until_finished", TType::Bool, &|o| o.write_bool(true)),
        records("recall_writes", &[WriteResult::new(-2, false, None, false)]),
        record("replicate", &result),
        records("fetch_as_owner", &[ReadResult::new(None, VERSION)]),
        record("rebalance_status", &StatusReply::new(status(), history)),
        record("pull", &page),
        record("stats", &stats),
        ("an exception".to_owned(), exception),
        ("a refusal".to_owned(), refused),
    ]
}

fn list(of: TType, size: i32) -> thrift::protocol::TListIdentifier {
    thrift::protocol::TListIdentifier::new(of, size)
}

/// The id of the first placement in the history of [`replies`], which reads use.
fn read_placement_id() -> i64 {
    let location = "127.0.0.1:9901".parse().expect("a location");
    let node = placement::NodeId {
        zone: Some(7),
        ..placement::NodeId::new(location, UNIX_MILLIS)
    };
    placement::Placement::new([node]).id() as i64
}

fn addresses() -> Vec<Seed> {
    [
        "127.0.0.1:9900",
        "localhost:1",
        "[::1]:65535",
        "::1:9900",
        ":9900",
        "host:",
        "host:0",
    ]
    .iter()
    .map(|text| ((*text).to_owned(), text.as_bytes().to_vec()))
    .collect()
}

fn lines() -> Vec<Seed> {
    [
        (
            "pairs",
            &b"key\tvalue\nother\t\n\tvalue of the empty key\n"[..],
        ),
        ("escapes", b"\\t\\n\\r\\\\\t\\x00\\xff\n"),
        ("bytes as they stand", b"\xff\xfe\t\x01\n"),
        ("no newline at the end", b"key\tvalue"),
        ("no tab", b"key\n"),
        ("a second tab", b"key\tvalue\tmore\n"),
        ("a carriage return", b"key\tvalue\r\n"),
        ("no escape", b"key\\y\t\\x0g\n"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_vec()))
    .into()
}
