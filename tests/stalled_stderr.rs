//! Does a node serve calls, and end, while nobody reads its stderr?

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::network::free_port;
use common::{SOON, eventually, program};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::StoreSyncClient;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::TBaseSyncClient;
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts};

/// Calls of `debug`, which logs several lines each. A pipe and the queue of the log hold fewer.
const CALLS: usize = 4_000;

/// A node with a pipe as stderr that is not read. Killed when dropped.
struct Stalled(Child);

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_serves_and_ends_while_its_stderr_is_stalled() {
    let location = Location::new("127.0.0.1", free_port()).unwrap();
    let port = location.port().to_string();
    let child = Command::new(program("storeserver"))
        .args(["--bootstrap", "--advertise", "127.0.0.1", "--port", &port])
        .env("RUST_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut node = Stalled(child);
    let client = StoreClient::new(location.clone());
    eventually("the node serves", SOON, || {
        client.put(b"before", b"1").is_ok()
    });

    let timeouts = Timeouts::default();
    let mut connection = Dialer::default()
        .connect(timeouts, StoreSyncClient::new, &location)
        .unwrap();
    for _ in 0..CALLS {
        connection.debug().unwrap();
    }
    connection.ping().expect("all calls are served");
    client.put(b"after", b"2").unwrap();
    assert_eq!(client.get(b"before").unwrap(), Some(b"1".to_vec()));
    assert_eq!(client.get(b"after").unwrap(), Some(b"2".to_vec()));

    let id = node.0.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &id]).status();
    assert!(sent.unwrap().success());
    eventually("the node ends", SOON + Duration::from_secs(10), || {
        node.0.try_wait().unwrap().is_some()
    });
    assert!(node.0.wait().unwrap().success());
}
