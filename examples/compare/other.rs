//! `Other`: a caller of another program's server, in its dialect.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use thrifty_p2p::load::keys::{KEY, Random};
use thrifty_p2p::load::store::Load;
use thrifty_p2p::load::{Caller, Outcome};
use thrifty_p2p::location::Location;

/// How a server is spoken to. Called on the thread of the caller; what reads may block
/// until the server has answered.
pub trait Dialect: Copy + Send {
    /// Adds to `request` what asks for the values of these keys.
    fn ask(self, keys: &[[u8; KEY]], request: &mut Vec<u8>);

    /// Reads the values that were asked for, each of which is to have that size.
    fn hear(self, answers: &mut Answers, count: usize, size: usize) -> io::Result<()>;

    /// Adds to `request` what puts a value for a key.
    fn put(self, key: &[u8], value: &[u8], request: &mut Vec<u8>);

    /// Reads that it was put.
    fn put_is_done(self, answers: &mut Answers) -> io::Result<()>;
}

/// One connection's calls.
pub struct Other<'a, D> {
    load: &'a Load,
    dialect: D,
    answers: Answers,
    random: Random,
    value: Vec<u8>,
    keys: Vec<[u8; KEY]>,
    request: Vec<u8>,
}

impl<'a, D: Dialect> Other<'a, D> {
    pub fn connect(server: &Location, dialect: D, load: &'a Load, seed: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(server.name())?;
        stream.set_nodelay(true)?;
        Ok(Other {
            load,
            dialect,
            answers: Answers::of(stream),
            random: Random(seed as u64),
            value: vec![b'v'; load.value_size],
            keys: Vec::new(),
            request: Vec::new(),
        })
    }

    /// Puts every key once.
    pub fn fill(&mut self) -> io::Result<()> {
        for place in 0..self.load.keys.count() {
            self.write(self.load.keys.at(place))?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let (load, count) = (self.load, self.load.batch);
        self.keys.clear();
        self.keys
            .extend((0..count).map(|_| load.keys.any(&mut self.random)));
        self.request.clear();
        self.dialect.ask(&self.keys, &mut self.request);
        self.answers.send(&self.request)?;
        self.dialect.hear(&mut self.answers, count, load.value_size)
    }

    fn write(&mut self, key: [u8; KEY]) -> io::Result<()> {
        self.request.clear();
        self.dialect.put(&key, &self.value, &mut self.request);
        self.answers.send(&self.request)?;
        self.dialect.put_is_done(&mut self.answers)
    }
}

impl<D: Dialect> Caller for Other<'_, D> {
    fn call(&mut self) -> Option<Outcome> {
        let load = self.load;
        let done = if self.random.share() < load.read_share {
            self.read()
        } else {
            let key = load.keys.any(&mut self.random);
            self.write(key)
        };
        Some(match done {
            Ok(()) => Outcome::Answered(load.batch as u64),
            Err(_) => Outcome::Failed,
        })
    }
}

/// What a server answers: lines, and values of a known length.
pub struct Answers {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Answers {
    fn of(stream: TcpStream) -> Answers {
        Answers {
            stream: BufReader::new(stream),
            line: Vec::new(),
            value: Vec::new(),
        }
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        self.line.strip_suffix(b"\r\n").ok_or_else(unexpected)
    }

    /// Reads a line that is to be this one.
    pub fn expect(&mut self, line: &[u8]) -> io::Result<()> {
        if self.line()? == line {
            Ok(())
        } else {
            Err(unexpected())
        }
    }

    /// Reads a value and the end of its line.
    pub fn value(&mut self, size: usize) -> io::Result<()> {
        self.value.resize(size + 2, 0);
        self.stream.read_exact(&mut self.value)
    }
}

/// The server answered something else.
pub fn unexpected() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The number that is all of this text.
pub fn number(text: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(text).map_err(|_| unexpected())?;
    text.parse().map_err(|_| unexpected())
}
