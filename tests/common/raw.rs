//! Bytes sent to a node as they are, past every client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::{NodeProcess, SOON};

/// A connection on which nothing was said yet.
pub fn connect(node: &NodeProcess) -> TcpStream {
    let stream = TcpStream::connect(node.at()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// What comes back until the server closes the connection.
pub fn answer_to(node: &NodeProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(node);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => answer,
        Err(e) => panic!("the connection stayed open: {e}"),
    }
}

/// A call of that method; its arguments are a struct as it goes over the wire.
pub fn message(name: &str, arguments: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 1, 0, 1];
    bytes.extend((name.len() as u32).to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend([0; 4]);
    bytes.extend(arguments);
    bytes
}
