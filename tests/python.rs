//! Do a client and a service in another language work with our interface, and do the examples?
//!
//! The tests are skipped, with a message, without the Thrift compiler or a Python that has the
//! package `thrift`. `THRIFTY_PYTHON` names the Python to use.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::certificates::{self, Certificates};
use common::network::{removed, start_network};
use common::stores::Stores;
use common::{NodeProcess, SOON, ended, eventually, run};
use tempfile::TempDir;
use thrifty_p2p::locator::{BaseSyncClient, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// The folder of the examples in Python.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");

const CLIENT: &str = r#"
import sys, time
from thrift.transport import TSocket, TTransport
from thrift.protocol import TBinaryProtocol
from diststore import Store
from locator import Locator
from locator.ttypes import EventKind

transport = TTransport.TBufferedTransport(TSocket.TSocket(sys.argv[1], int(sys.argv[2])))
client = Store.Client(TBinaryProtocol.TBinaryProtocol(transport))
transport.open()
client.ping()
assert client.service_type() == "diststore.Store"
assert client.service_types() == ["locator.Base", "locator.Locator", "diststore.Store"]
client.put(b"python", b"\x00\xff")          # oneway: no reply
assert client.get(b"a") == b"apple"
assert client.write(b"acknowledged", b"yes") > 0
assert client.get(b"acknowledged") == b"yes"
assert client.fetch(b"missing").value is None
assert client.unset(b"acknowledged") and not client.unset(b"acknowledged")
nodes = client.get_all()
owner = client.get_node(b"a")
assert owner in nodes
last = client.events(-1, 0).last
began = time.time()
reply = client.events(last, 200)            # waits for an event
assert 0.1 < time.time() - began < 10
assert reply.events == [] and reply.last == last and not reply.is_gap
kinds = [event.kind for event in client.events(0, 0).events]
assert EventKind.JOINED in kinds and EventKind.RING_CHANGED in kinds, kinds
print(" ".join("%s:%d" % (node.address, node.port & 0xffff) for node in nodes))
transport.close()
"#;

/// Writes with the client of the examples, prints the owner of a key and goes on until its stdin is
/// closed. Each value that it reads is the one that it wrote last.
const EXAMPLE: &str = r#"
import sys, threading
from client import Client, Refused

stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
with Client("127.0.0.1:1", sys.argv[1]) as store:
    keys = [b"0123456789abcdef0123456789ABCDEF"] + [b"key %d" % number for number in range(50)]
    for key in keys:
        store.put(key, b"of " + key)
        node = store._connection(sys.argv[1]).store.get_node(key)
        assert store.owner(key) == "%s:%d" % (node.address, node.port & 0xffff), key
    try:
        store.put(b"k" * 70000, b"")
        raise SystemExit("a key over the limit was accepted")
    except Refused as refused:
        assert "65536" in refused.reason, refused.reason
    print(store.owner(b"count"), flush=True)
    count = 0
    while not stopped.is_set():
        count += 1
        store.put(b"count", b"%d" % count)
        assert store.get(b"count") == b"%d" % count
    for key in keys:
        assert store.get(key) == b"of " + key, key
        assert store.delete(key) and not store.delete(key) and store.get(key) is None, key
    print("done")
"#;

/// Calls a store by TLS with the client of the examples.
const TLS: &str = r#"
import ssl, sys
from client import Client

at, authority, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.load_cert_chain(certificate, key)
context.check_hostname = False
with Client(at, tls=context) as store:
    store.put(b"b", b"banana")
    print(store.get(b"b"))
"#;

/// The client of the README.
fn readme_client() -> &'static str {
    let readme = include_str!("../README.md");
    let (_, block) = readme.split_once("```python\n").unwrap();
    block.split("```").next().unwrap()
}

/// A Python that has the package `thrift`, and a folder with generated stubs. None, with a message,
/// if a tool is missing.
fn python() -> Option<(String, TempDir)> {
    let python = std::env::var("THRIFTY_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !has("thrift", &["--version"]) || !has(&python, &["-c", "import thrift.protocol"]) {
        eprintln!("skipped: needs the Thrift compiler and a Python with the package thrift");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let interface = Path::new(env!("CARGO_MANIFEST_DIR")).join("thrift/diststore.thrift");
    let mut compiler = Command::new("thrift");
    compiler
        .args(["-r", "--gen", "py", "-out"])
        .arg(folder.path())
        .arg(interface);
    assert!(compiler.status().unwrap().success());
    Some((python, folder))
}

/// The output of a Python program.
fn printed(python: &str, stubs: &TempDir, arguments: &[&str]) -> String {
    let output = command(python, stubs, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A command that runs a Python program with the stubs and the examples.
fn command(python: &str, stubs: &TempDir, arguments: &[&str]) -> Command {
    let mut path = stubs.path().as_os_str().to_owned();
    path.push(format!(":{EXAMPLES}"));
    let mut command = Command::new(python);
    command.args(arguments).env("PYTHONPATH", path);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn a_python_client_writes_reads_and_lists_nodes() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let first = NodeProcess::start_bootstrap("storeserver");
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    assert!(
        run("storeput", &["-h", first.at(), "a", "apple"])
            .status
            .success()
    );
    let (address, port) = (first.location.address(), first.location.port().to_string());
    let listed = printed(&python, &stubs, &["-c", CLIENT, address, &port]);
    let mut nodes = [first.at(), second.at()];
    nodes.sort_unstable();
    assert_eq!(listed, nodes.join(" "));
    common::eventually("the oneway put has taken effect", common::SOON, || {
        run("storeget", &["--raw", "-h", second.at(), "python"]).stdout == b"\x00\xff"
    });
}

#[test]
fn the_python_client_of_the_readme_prints_what_it_has_written() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let node = NodeProcess::start_bootstrap("storeserver");
    let client = readme_client();
    assert!(client.contains("localhost:9900"));
    let client = client.replace("localhost:9900", node.at());
    assert_eq!(printed(&python, &stubs, &["-c", &client]), "b'banana'");
}

#[test]
fn the_client_of_the_examples_goes_on_when_the_owner_of_its_key_is_killed() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let mut stores = Stores::start(4, &[]);
    let mut client = command(&python, &stubs, &["-c", EXAMPLE, stores.nodes[0].at()]);
    client.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let owner = lines.next().expect("the owner of its key").unwrap();
    let owner = stores.index_of(&owner.parse().unwrap());
    stores.kill(owner);
    stores.settle();
    client.stdin.take().unwrap().flush().unwrap();
    let done = lines.next().map(Result::unwrap);
    let output = client.wait_with_output().unwrap();
    assert_eq!(done.as_deref(), Some("done"), "{}", ended(&output).1);
}

#[test]
fn the_client_of_the_examples_raises_when_no_node_is_up() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let program = "import client; client.TIMEOUT = 0.5; client.Client('127.0.0.1:1').get(b'a')";
    let output = command(&python, &stubs, &["-c", program]).output().unwrap();
    let (status, errors) = ended(&output);
    let last = errors.lines().last();
    let expected = "client.Unavailable: no result within 0.5 s, last from 127.0.0.1:1";
    assert_eq!((status, last), (Some(1), Some(expected)), "{errors}");
}

#[test]
fn the_client_of_the_examples_calls_by_tls() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let made = Certificates::new();
    let node = certificates::start_bootstrap("storeserver", &made);
    let files = ["ca.pem", "client.pem", "client.key"].map(|file| made.path(file));
    let [authority, certificate, key] = files.each_ref().map(String::as_str);
    let arguments = ["-c", TLS, node.at(), authority, certificate, key];
    assert_eq!(printed(&python, &stubs, &arguments), "b'banana'");
}

#[test]
fn the_service_of_the_examples_is_a_member_until_it_leaves() {
    let Some((python, stubs)) = python() else {
        return;
    };
    let service = format!("{EXAMPLES}/service.py");
    let start = |peer: &str| {
        let arguments = [&service, "--port", "0", "--host", peer];
        let command = command(&python, &stubs, &arguments);
        let mut node = NodeProcess::spawn_command(command, format!("service.py -h {peer}"));
        node.wait_until_it_serves();
        node
    };
    let ours = start_network(2);
    let mut leaving = start(ours[0].at());
    let mut dying = start(leaving.at());
    let last = NodeProcess::start("location", &["-h", dying.at()]);
    let agree = |at: &str, members: usize| {
        let expected = format!("{members} members, all agree\n");
        eventually(&format!("{at} has {members} members"), SOON, || {
            let output = run("locationstatus", &["-h", at]);
            String::from_utf8(output.stdout)
                .unwrap()
                .ends_with(&expected)
        });
    };
    for node in [&ours[0], &ours[1], &last, &leaving, &dying] {
        agree(node.at(), 5);
    }
    leaving.signal("TERM");
    assert!(leaving.wait().success());
    dying.wait_for(&removed(&leaving));
    agree(dying.at(), 4);
    call(BaseSyncClient::new, &dying.location, |node| node.die()).unwrap();
    assert!(dying.wait().success());
    agree(ours[0].at(), 3);
    agree(last.at(), 3);
}
