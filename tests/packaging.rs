//! Do the package of the crate and the entry point of the container contain and do what they should?

mod common;

use std::path::Path;
use std::process::Command;

use common::namespace::Namespace;
use common::{NodeProcess, SOON, ended, eventually, program};

/// The entry point of the container.
const STORE_NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/packaging/store-node");

/// `PATH` with the crate's programs.
fn path() -> String {
    let programs = Path::new(program("storeserver")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{path}", programs.display())
}

#[test]
fn the_package_of_the_crate_has_sources_and_examples_and_no_tests() {
    let mut list = Command::new(env!("CARGO"));
    list.args(["package", "--list", "--allow-dirty", "--offline"]);
    let output = list.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", ended(&output).1);
    let files = String::from_utf8(output.stdout).unwrap();
    let has = |file: &str| files.lines().any(|line| line == file);
    for file in [
        "src/lib.rs",
        "src/guide/design.md",
        "src/http/page.html",
        "thrift/diststore.thrift",
        "examples/python/client.py",
        "examples/storeserver.service",
        "README.md",
        "LICENSE",
        "Cargo.lock",
    ] {
        assert!(has(file), "no {file} in {files}");
    }
    assert!(!files.lines().any(|line| line.starts_with("tests/")));
}

#[test]
fn all_files_of_the_debian_package_are_there_when_it_is_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // It stands for `cargo deb`, which may not be installed.
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    std::os::unix::fs::symlink("/bin/echo", cargo).unwrap();
    let mut script = Command::new(root.join("examples/packaging/deb"));
    script.env("PATH", format!("{}:{}", folder.path().display(), path()));
    script.env(
        "PROGRAMS",
        Path::new(program("storeserver")).parent().unwrap(),
    );
    let output = script.output().unwrap();
    let (status, errors) = ended(&output);
    assert_eq!(status, Some(0), "{errors}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.ends_with("\ndeb --no-build --no-strip\n"),
        "{printed}"
    );
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let assets = assets
        .lines()
        .map_while(|line| line.strip_prefix("    [\""));
    let assets: Vec<&str> = assets.filter_map(|line| line.split('"').next()).collect();
    assert!(assets.len() > 7, "{assets:?}");
    let count = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().count();
    for asset in assets {
        let is_there = match asset.strip_suffix("/*") {
            // A file for each program.
            Some(folder) => count(folder) == count("src/bin"),
            None => root.join(asset).is_file(),
        };
        assert!(is_there, "{asset}");
    }
}

#[test]
fn the_entry_point_of_the_container_wants_an_address_that_others_reach_and_peers() {
    for (address, peers, reason) in [
        ("", "192.0.2.1", "set ADVERTISE to the address"),
        (
            "127.0.0.1",
            "192.0.2.1",
            "other hosts do not reach this node at 127.0.0.1",
        ),
        (
            "192.0.2.1",
            "",
            "set THRIFTY_PEER to the addresses of all nodes",
        ),
    ] {
        let mut node = Command::new(STORE_NODE);
        node.env("ADVERTISE", address).env("THRIFTY_PEER", peers);
        let (status, message) = ended(&node.env("PATH", path()).output().unwrap());
        assert_eq!(status, Some(2), "{message}");
        assert!(
            message.starts_with(&format!("store-node: {reason}")),
            "{message}"
        );
    }
}

#[test]
fn nodes_of_the_entry_point_that_start_at_once_form_one_store() {
    let namespace = Namespace::new("container");
    let namespace = namespace.and_then(|namespace| {
        // Two addresses of one host stand for two hosts.
        for address in ["10.99.1.1/32", "10.99.1.2/32"] {
            namespace.ip(&["address", "add", address, "dev", "lo"])?;
        }
        Ok(namespace)
    });
    let namespace = match namespace {
        Ok(namespace) => namespace,
        Err(e) => return eprintln!("skipped: no network namespaces can be created: {e}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let start = |number: u8| {
        let (address, port) = (format!("10.99.1.{number}"), format!("990{number}"));
        let mut node = namespace.tool(STORE_NODE);
        node.env("ADVERTISE", &address).env("PORT", port);
        node.env("THRIFTY_PEER", "10.99.1.1:9901,10.99.1.2:9902");
        node.env("DATA", folder.path().join(&address))
            .env("PATH", path());
        NodeProcess::spawn_command(node, format!("store-node at {address}"))
    };
    let mut nodes = [2, 1].map(start);
    nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
    assert_eq!(
        nodes.each_ref().map(|node| node.at()),
        ["10.99.1.2:9902", "10.99.1.1:9901"]
    );
    eventually("the store has two nodes", SOON, || {
        let mut status = namespace.command("storestatus");
        let output = status.args(["-h", nodes[0].at()]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        printed
            .lines()
            .last()
            .is_some_and(|line| line.contains("2 of 3 copies"))
    });
    let kept = |node: &NodeProcess| folder.path().join(node.location.address()).exists();
    assert!(nodes.iter().all(kept));
    for node in &mut nodes {
        node.signal("TERM");
        assert!(node.wait().success());
    }
}
