//! The bare echo: what the machine can do at most with as many threads, connections
//! and bytes, without Thrift and without a store.
//!
//! The server is another process, as a store is: it reads a request of a fixed size
//! and writes a reply of a fixed size, one thread a connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::load::{Caller, Load, drive};
use crate::report::Report;

/// Bytes of a `get` beside its key: head, name, sequence number, field and stop.
const REQUEST: usize = 4 + 4 + 3 + 4 + 7 + 1;

/// Bytes of its reply beside the value.
const REPLY: usize = 4 + 4 + 3 + 4 + 7 + 1;

/// Serves echoes until stdin ends; tells the port on stdout.
pub fn serve(request: usize, reply: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream, request, reply));
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

fn answer(mut stream: TcpStream, request: usize, reply: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut question, answer) = (vec![0; request], vec![0; reply]);
    loop {
        stream.read_exact(&mut question)?;
        stream.write_all(&answer)?;
    }
}

/// Measures echoes of the sizes of the load's `get`.
pub fn measure(load: &Load, warm_up: Duration, time: Duration) -> io::Result<Report> {
    let (request, reply) = (REQUEST + Load::key(0).len(), REPLY + load.value_size);
    let mut server = Server::start(request, reply)?;
    let port = server.port()?;
    let callers = (0..load.connections)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            Ok(EchoCaller {
                stream,
                question: vec![0; request],
                answer: vec![0; reply],
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(drive(callers, warm_up, time))
}

struct EchoCaller {
    stream: TcpStream,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Caller for EchoCaller {
    fn call(&mut self) -> Option<bool> {
        let written = self.stream.write_all(&self.question);
        Some(
            written
                .and_then(|()| self.stream.read_exact(&mut self.answer))
                .is_ok(),
        )
    }
}

/// This program, serving echoes in a process of its own until it is dropped.
struct Server(Child);

impl Server {
    fn start(request: usize, reply: usize) -> io::Result<Server> {
        let sizes = [request.to_string(), reply.to_string()];
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--serve-echo")
            .args(sizes)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().map(Server)
    }

    fn port(&mut self) -> io::Result<u16> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        }
        line.trim()
            .parse()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
