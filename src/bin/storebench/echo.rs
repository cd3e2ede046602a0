//! The baseline: a bare echo server, the fastest that this machine can be with as many
//! threads, connections and bytes, without Thrift and without a store.
//!
//! The server is a process of its own, as a store is: this program, started once more. It
//! reads requests of a fixed size and writes replies of a fixed size, with one thread per
//! connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;

use crate::contender::{Answer, Connection, Opened, open};
use crate::keys::KeyBytes;

/// The only argument of a process that is to [`serve`].
pub const SERVE: &str = "--serve-echo";

/// Prints its port and serves until stdin ends.
///
/// # Errors
/// No port is free, or there is no stdin.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// Serves a connection, which starts with the sizes of requests and replies.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut sizes = [[0; 8]; 2];
    stream.read_exact(sizes.as_flattened_mut())?;
    let [mut request, reply] = sizes.map(|size| vec![0; usize::from_be_bytes(size)]);
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&reply)?;
    }
}

/// An echo server in a process of its own, killed when this is dropped.
pub struct EchoServer {
    process: Child,
    location: Location,
}

impl EchoServer {
    /// Starts the server.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start() -> io::Result<EchoServer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).stdin(Stdio::piped());
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        if let Some(stdout) = &mut process.stdout {
            BufReader::new(stdout).read_line(&mut port)?;
        }
        let location = format!("127.0.0.1:{}", port.trim()).parse();
        let location = location.map_err(io::Error::other)?;
        Ok(EchoServer { process, location })
    }

    /// Connects to the server, for requests and replies of these sizes.
    ///
    /// # Errors
    /// See [`open`].
    pub fn connect(&self, sizes: [usize; 2]) -> Opened {
        let mut stream = open(&self.location)?;
        let sent = stream.write_all(sizes.map(usize::to_be_bytes).as_flattened());
        sent.map_err(Error::Io)?;
        Ok(Box::new(Echo(stream, sizes.map(|size| vec![0; size]))))
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection to an echo server, with a request and room for a reply. Reads and writes
/// are the same to it.
struct Echo(TcpStream, [Vec<u8>; 2]);

impl Connection for Echo {
    fn read(&mut self, keys: &[KeyBytes], _value_size: usize) -> Answer {
        let Echo(stream, [request, reply]) = self;
        stream.write_all(request)?;
        stream.read_exact(reply)?;
        Ok(keys.len())
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        self.read(keys, value.len())
    }
}
