//! Requests to the HTTP ports of nodes, without a client library.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{NodeProcess, SOON};

/// The options of a node whose HTTP port the system chooses.
pub const HTTP: [&str; 2] = ["--http", "0"];

/// The `address:port` where a node that was started with [`HTTP`] shows itself.
pub fn http_of(node: &NodeProcess) -> String {
    node.wait_for(" shows this node");
    let lines = node.lines();
    let line = lines.iter().find(|line| line.contains(" shows this node"));
    let (_, rest) = line.unwrap().split_once("http://").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

/// An answer: its status, its headers with the status line, and its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends these bytes and reads until the node closes the connection. None if there is no answer.
pub fn send(at: &str, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The node may have closed it already.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("it stayed open: {e}"),
        _ => parse(&bytes),
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// Gets a path.
pub fn get(at: &str, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    send(at, request.as_bytes()).expect("an answer")
}

/// Gets a path that answers JSON.
pub fn get_json(at: &str, path: &str) -> Value {
    let answer = get(at, path);
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// The sum of the values of a metric, over all its labels.
pub fn metric(text: &str, name: &str) -> f64 {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    let values = text.lines().filter(is_it).map(|line| {
        let (_, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap()
    });
    values.sum()
}
