//! The network between hosts: latency with jitter, loss, one-way cuts, partitions.

use std::collections::BTreeSet;
use std::time::Duration;

use thrifty_p2p::membership::Rng;

/// The number of a host.
pub type Id = usize;

/// How messages are delayed and lost.
#[derive(Clone)]
pub struct Network {
    /// The shortest delay of a message.
    pub latency: Duration,
    /// The longest random addition to the latency.
    pub jitter: Duration,
    /// The probability that a call is lost, before or after it was served.
    pub loss: f64,
    /// Pairs of hosts: the first one cannot call the second one.
    pub cuts: BTreeSet<(Id, Id)>,
    /// The side of each host in a partition. Empty without a partition.
    sides: Vec<u8>,
}

impl Network {
    pub fn new() -> Network {
        Network {
            latency: Duration::from_micros(200),
            jitter: Duration::from_millis(2),
            loss: 0.0,
            cuts: BTreeSet::new(),
            sides: Vec::new(),
        }
    }

    fn side(&self, host: Id) -> u8 {
        self.sides.get(host).copied().unwrap_or(0)
    }

    /// Partitions the network. Hosts on different sides cannot call each other.
    pub fn partition(&mut self, sides: Vec<u8>) {
        self.sides = sides;
    }

    /// Ends the partition.
    pub fn heal(&mut self) {
        self.sides.clear();
    }

    pub fn is_partitioned(&self) -> bool {
        !self.sides.is_empty()
    }

    /// Can `from` open a connection to `to`?
    pub fn connects(&self, from: Id, to: Id) -> bool {
        self.side(from) == self.side(to) && !self.cuts.contains(&(from, to))
    }

    /// The random delay of a message.
    pub fn delay(&self, rng: &mut Rng) -> Duration {
        self.latency + self.jitter.mul_f64(rng.fraction())
    }

    /// Is a call lost?
    pub fn loses(&self, rng: &mut Rng) -> bool {
        self.loss > 0.0 && rng.fraction() < self.loss
    }
}
