//! Do clients of other Thrift implementations work with our interface and our server?
//!
//! thriftpy2 (`pip install thriftpy2`, in the Python of `THRIFTY_PYTHON`), Node (`npm install thrift@0.17`, the compiler's version,
//! in the folder of `THRIFTY_NODE`) and C++ (Debian: libthrift-dev). Each client whose tool is missing
//! is skipped, with a message. `python.rs` has the official package for Python.

mod common;

use std::path::Path;
use std::process::Command;

use common::NodeProcess;

/// What each client does: pings, lists the nodes, writes, reads and deletes any bytes, meets an
/// unknown key and a refusal, and goes on with the same connection. It prints `done` at the end.
const THRIFTPY2: &str = r#"
import sys, thriftpy2
from thriftpy2.rpc import make_client
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.transport import TBufferedTransportFactory

diststore = thriftpy2.load(sys.argv[1] + "/diststore.thrift", module_name="diststore_thrift")
client = make_client(diststore.Store, sys.argv[2], int(sys.argv[3]),
    proto_factory=TBinaryProtocolFactory(), trans_factory=TBufferedTransportFactory())
client.ping()
assert client.service_types() == ["locator.Base", "locator.Locator", "diststore.Store"]
assert len(client.get_all()) == 2
assert client.get_node("a") in client.get_all()
assert client.write("a", "apple") > 0
assert client.fetch("a").value in ("apple", b"apple")
assert client.fetch("missing").value is None
try:
    client.write("k" * 70000, "v")
    raise SystemExit("a key over the limit was accepted")
except diststore.Refused as refused:
    assert "65536" in refused.reason, refused.reason
write = diststore.Write(key="b", value="banana")
assert client.write_many([write])[0].version > 0
assert [found.value for found in client.fetch_many(["a", "b"])] in (
    ["apple", "banana"], [b"apple", b"banana"])
page = client.list_keys("", "", 10)
assert [listed.key for listed in page.keys] in (["a", "b"], [b"a", b"b"]) and page.cursor is None
assert client.unset("a") and not client.unset("a")
client.put("c", "cherry")
client.close()
print("done")
"#;

const NODE: &str = r#"
const thrift = require("thrift");
const Store = require("./Store");
const types = require("./diststore_types");
const assert = require("assert");
const [address, port] = process.argv.slice(2);
const connection = thrift.createConnection(address, Number(port), {
    transport: thrift.TBufferedTransport, protocol: thrift.TBinaryProtocol });
connection.on("error", (e) => { throw e; });
const client = thrift.createClient(Store, connection);
(async () => {
    await client.ping();
    assert.strictEqual((await client.service_types()).pop(), "diststore.Store");
    assert.strictEqual((await client.get_all()).length, 2);
    const bytes = Buffer.from([0, 255, 128, 10]);
    assert((await client.write(bytes, bytes)) > 0);
    assert((await client.fetch(bytes)).value.equals(bytes));
    assert(!(await client.fetch(Buffer.from("missing"))).value);
    await assert.rejects(client.write(Buffer.alloc(70000), bytes),
        (e) => e instanceof types.Refused && /65536/.test(e.reason));
    const found = await Promise.all(["x", "y", "z"].map(async (key) => {
        await client.write(Buffer.from(key), Buffer.from(key + key));
        return (await client.fetch(Buffer.from(key))).value.toString();
    }));
    assert.deepStrictEqual(found, ["xx", "yy", "zz"]);
    assert.strictEqual(await client.unset(bytes), true);
    assert.strictEqual(await client.unset(bytes), false);
    connection.end();
    console.log("done");
})().catch((e) => { console.error(e); process.exit(1); });
"#;

const CPP: &str = r#"
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>
#include "Store.h"

using namespace apache::thrift;

static void check(bool holds, const char* what) {
    if (!holds) { std::cerr << what << std::endl; exit(1); }
}

int main(int, char** arguments) {
    auto socket = std::make_shared<transport::TSocket>(arguments[1], atoi(arguments[2]));
    auto buffered = std::make_shared<transport::TBufferedTransport>(socket);
    StoreClient client(std::make_shared<protocol::TBinaryProtocol>(buffered));
    buffered->open();
    client.ping();
    std::vector<Location> nodes;
    client.get_all(nodes);
    check(nodes.size() == 2, "two nodes");
    const std::string bytes("\0\xff\x80\n", 4);
    check(client.write(bytes, bytes) > 0, "a version");
    ReadResult found;
    client.fetch(found, bytes);
    check(found.value == bytes, "the same bytes");
    ReadResult missing;
    client.fetch(missing, "missing");
    check(!missing.__isset.value, "no value");
    try {
        client.write(std::string(70000, 'k'), bytes);
        check(false, "a key over the limit was accepted");
    } catch (const Refused& refused) {
        check(refused.reason.find("65536") != std::string::npos, "the limit");
    }
    std::vector<ReadResult> both;
    client.fetch_many(both, {bytes, "missing"});
    check(both.size() == 2 && both[0].value == bytes, "two results");
    check(client.unset(bytes) && !client.unset(bytes), "deleted once");
    client.put("c", "cherry");
    buffered->close();
    std::cout << "done" << std::endl;
}
"#;

/// Does this shell command succeed?
fn has(command: &str) -> bool {
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", command]).output();
    output.is_ok_and(|output| output.status.success())
}

fn interfaces() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("thrift")
        .display()
        .to_string()
}

/// Runs a shell script in `folder`, with a store of two nodes: `$address` and `$port` are those of
/// one. It prints `done` at the end.
fn check(script: &str, folder: &Path) {
    let first = NodeProcess::start_bootstrap("storeserver");
    let node = NodeProcess::start("storeserver", &["-h", first.at()]);
    first.wait_for(&format!("added {}", node.at()));
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(folder);
    shell.env("address", node.location.address());
    shell.env("port", node.location.port().to_string());
    shell.env("interfaces", interfaces());
    let output = shell.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.ends_with("done\n"),
        "{output:?}"
    );
}

#[test]
fn a_client_of_thriftpy2_writes_reads_deletes_and_is_refused() {
    let python = std::env::var("THRIFTY_PYTHON").unwrap_or_else(|_| "python3".into());
    if !has(&format!("{python} -c 'import thriftpy2'")) {
        eprintln!("skipped: needs a Python with the package thriftpy2");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("client.py"), THRIFTPY2).unwrap();
    let script = format!("{python} client.py $interfaces $address $port");
    check(&script, folder.path());
}

#[test]
fn a_client_of_node_writes_reads_deletes_and_is_refused() {
    let Some(modules) = node_modules() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("client.js"), NODE).unwrap();
    let script = format!(
        "thrift -r --gen js:node -out . $interfaces/diststore.thrift
         NODE_PATH={modules} node client.js $address $port"
    );
    check(&script, folder.path());
}

/// The packages of Node. None, with a message, if a tool is missing.
fn node_modules() -> Option<String> {
    let modules = std::env::var("THRIFTY_NODE").unwrap_or_default() + "/node_modules";
    let tools = format!("thrift --version && NODE_PATH={modules} node -e 'require(\"thrift\")'");
    if !has(&tools) {
        eprintln!("skipped: needs the Thrift compiler and Node with the package thrift");
        return None;
    }
    Some(modules)
}

#[test]
fn the_client_of_the_examples_in_node_prints_what_it_has_written_and_deletes_it() {
    let Some(modules) = node_modules() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "thrift -r --gen js:node -out . $interfaces/diststore.thrift
         export NODE_PATH=.:{modules}
         run() {{ node $interfaces/../examples/node/client.js $address $1; }}
         test \"$(run $port)\" = \"$(printf 'banana\\ndeleted: true')\"
         ! run 1 2>errors
         grep -q ECONNREFUSED errors
         echo done"
    );
    check(&script, folder.path());
}

#[test]
fn a_client_of_cpp_writes_reads_deletes_and_is_refused() {
    let header = "echo '#include <thrift/TBase.h>' | g++ -fsyntax-only -x c++ -";
    if !has(&format!("thrift --version && {header}")) {
        eprintln!("skipped: needs the Thrift compiler and its library for C++");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("client.cpp"), CPP).unwrap();
    let script = "thrift -r --gen cpp -out . $interfaces/diststore.thrift
        rm -f *_server.skeleton.cpp
        g++ -O0 -o client *.cpp -lthrift
        ./client $address $port";
    check(script, folder.path());
}
