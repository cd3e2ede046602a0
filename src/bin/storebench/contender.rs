//! `Contender`: a server under test, and the connections to it. Contenders are measured in
//! turn, so that a machine that slows down for a while slows down all of them.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;

use crate::keys::KeyBytes;
use crate::report::Report;
use crate::run::{RunLength, run};
use crate::worker::{Worker, Workload};

/// How long a plain connection waits for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after idle connections were closed. A server needs it to end their threads,
/// which would disturb the next measurement.
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of a call: for how many of the keys it was answered.
pub type Answer = Result<usize, Box<dyn std::error::Error>>;

/// A client used by one thread. Each method makes one call and blocks for its reply. After
/// an error the connection may be of no further use.
pub trait Connection: Send {
    /// Reads the keys. Each must have a value of `value_size` bytes. A server may answer
    /// for the first few keys only.
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer;

    /// Writes `value` for each of the keys.
    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer;

    /// Waits until the server has processed all writes, the last of which was of `key`,
    /// where `write` itself does not wait.
    fn flush(&mut self, _key: &KeyBytes) -> Answer {
        Ok(0)
    }
}

/// A connection that was opened, or the reason why it was not.
pub type Opened = Result<Box<dyn Connection>, Error>;

/// A server under test.
pub struct Contender<'a> {
    /// Its name in the output.
    pub name: &'static str,
    /// Does it need to be loaded?
    pub keeps_keys: bool,
    /// Connections that are open and idle while it is measured.
    pub idle_connections: usize,
    /// Opens a connection to it.
    pub connect: Box<dyn Fn() -> Opened + Sync + 'a>,
}

impl<'a> Contender<'a> {
    /// A server to which `connect` opens a connection.
    pub fn new(
        name: &'static str,
        keeps_keys: bool,
        connect: impl Fn() -> Opened + Sync + 'a,
    ) -> Contender<'a> {
        Contender {
            name,
            keeps_keys,
            idle_connections: 0,
            connect: Box::new(connect),
        }
    }

    /// Writes every key once.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn load(&self, workload: &Workload) -> Result<Report, Error> {
        let (keys, count) = (workload.key_count(), workload.connections);
        let mut workers = self.workers(count, workload)?;
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.to_load = Some(keys * number / count..keys * (number + 1) / count);
        }
        let name = format!("load-{}", self.name);
        Ok(run(&name, workers, RunLength::UNTIL_DONE))
    }

    /// Makes random calls.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn measure(&self, workload: &Workload, length: RunLength) -> Result<Report, Error> {
        let mut idle = self.workers(self.idle_connections, workload)?;
        idle.iter_mut().for_each(|worker| drop(worker.call()));
        let workers = self.workers(workload.connections, workload)?;
        let report = run(self.name, workers, length);
        if !idle.is_empty() {
            drop(idle);
            thread::sleep(CLOSE_PAUSE);
        }
        Ok(report)
    }

    fn workers<'b>(&'b self, count: usize, load: &'b Workload) -> Result<Vec<Worker<'b>>, Error> {
        let worker = |seed| Ok(Worker::new(self, load, (self.connect)()?, seed));
        (0..count).map(worker).collect()
    }
}

/// Connects to a server without TLS.
///
/// # Errors
/// The location does not resolve, or nothing listens there.
pub fn open(location: &Location) -> Result<TcpStream, Error> {
    let open = || {
        let stream = TcpStream::connect(&location.resolve()?[..])?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(stream)
    };
    open().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::ConnectionRefused => Error::Refused(location.clone(), e),
        _ => Error::Unreachable(location.clone(), e),
    })
}

/// Checks the size of a value that was read.
pub fn check_size(size: Option<usize>, expected: usize) -> Answer {
    if size == Some(expected) {
        return Ok(1);
    }
    Err(format!("a value of {size:?} bytes instead of {expected}").into())
}
