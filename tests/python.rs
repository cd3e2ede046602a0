//! Does a client in another language work with our interface and our server?
//!
//! The tests are skipped, with a message, without the Thrift compiler or a Python that has the
//! package `thrift`. `THRIFTY_PYTHON` names the Python to use.

mod common;

use std::path::Path;
use std::process::Command;

use common::{NodeProcess, run};
use tempfile::TempDir;

const CLIENT: &str = r#"
import sys
from thrift.transport import TSocket, TTransport
from thrift.protocol import TBinaryProtocol
from diststore import Store
from locator import Locator

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
print(" ".join("%s:%d" % (node.address, node.port & 0xffff) for node in nodes))
transport.close()
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
    let output = Command::new(python)
        .args(arguments)
        .env("PYTHONPATH", stubs.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
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
    let at = format!("\"{}\", {}", node.location.address(), node.location.port());
    let client = readme_client();
    assert!(client.contains("\"127.0.0.1\", 9900"));
    let client = client.replace("\"127.0.0.1\", 9900", &at);
    assert_eq!(printed(&python, &stubs, &["-c", &client]), "b'banana'");
}
