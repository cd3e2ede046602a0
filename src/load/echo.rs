//! The bare echo: what the machine can do at most with as many threads, connections
//! and bytes, without Thrift and without a store.
//!
//! The server is another process, as a store is: it reads a request of a fixed size
//! and writes a reply of a fixed size, one thread a connection. It is the program that
//! measures itself, started once more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::report::Report;
use super::{Caller, Outcome, Span, drive};

/// The option that comes first, with two sizes, where a program is to [`serve`].
const SERVE: &str = "--serve-echo";

/// The bytes of a call.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of what is sent.
    pub request: usize,
    /// Of what is answered.
    pub reply: usize,
}

/// The sizes that this process is to [`serve`], if it was started by [`measure`]. To be
/// asked first by a program that measures.
pub fn asked_to_serve() -> Option<Sizes> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().filter(|option| option == SERVE)?;
    Some(Sizes {
        request: arguments.next()?.parse().ok()?,
        reply: arguments.next()?.parse().ok()?,
    })
}

/// Serves echoes until stdin ends; tells the port on stdout.
///
/// # Errors
/// There is no port to listen at, or no stdin.
pub fn serve(sizes: Sizes) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream, sizes));
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

fn answer(mut stream: TcpStream, sizes: Sizes) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut question, answer) = (vec![0; sizes.request], vec![0; sizes.reply]);
    loop {
        stream.read_exact(&mut question)?;
        stream.write_all(&answer)?;
    }
}

/// Measures echoes of these sizes, each of which counts as so many operations.
///
/// # Errors
/// The server cannot be started or reached.
pub fn measure(
    connections: usize,
    sizes: Sizes,
    operations: usize,
    span: Span,
) -> io::Result<Report> {
    let mut server = Server::start(sizes)?;
    let port = server.port()?;
    let callers = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            Ok(EchoCaller {
                stream,
                question: vec![0; sizes.request],
                answer: vec![0; sizes.reply],
                operations: operations as u64,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(drive("echo", callers, span))
}

struct EchoCaller {
    stream: TcpStream,
    question: Vec<u8>,
    answer: Vec<u8>,
    operations: u64,
}

impl Caller for EchoCaller {
    fn call(&mut self) -> Option<Outcome> {
        let written = self.stream.write_all(&self.question);
        let answered = written.and_then(|()| self.stream.read_exact(&mut self.answer));
        Some(match answered {
            Ok(()) => Outcome::Answered(self.operations),
            Err(_) => Outcome::Failed,
        })
    }
}

/// This program, serving echoes in a process of its own until it is dropped.
struct Server(Child);

impl Server {
    fn start(sizes: Sizes) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(SERVE)
            .args([sizes.request, sizes.reply].map(|size| size.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().map(Server)
    }

    fn port(&mut self) -> io::Result<u16> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
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
