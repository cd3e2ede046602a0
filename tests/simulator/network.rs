//! The network between hosts: latency with jitter, loss, one-way cuts, partitions.

use std::collections::BTreeSet;
use std::time::Duration;

use thrifty_p2p::membership::Random;

/// The number of a host.
pub type Id = usize;

/// What happens to packets on their way.
#[derive(Clone)]
pub struct Network {
    /// The shortest way from host to host.
    pub latency: Duration,
    /// What is added to it at most.
    pub jitter: Duration,
    /// The chance that a call is lost, before or after it was served.
    pub loss: f64,
    /// Pairs of which the first cannot call the second.
    pub cuts: BTreeSet<(Id, Id)>,
    /// On which side of a partition a host is; all on side 0 when there is none.
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

    pub fn side(&self, host: Id) -> u8 {
        self.sides.get(host).copied().unwrap_or(0)
    }

    pub fn split(&mut self, sides: Vec<u8>) {
        self.sides = sides;
    }

    pub fn heal(&mut self) {
        self.sides.clear();
    }

    pub fn is_split(&self) -> bool {
        !self.sides.is_empty()
    }

    /// Can `from` open a connection to `to`?
    pub fn connects(&self, from: Id, to: Id) -> bool {
        self.side(from) == self.side(to) && !self.cuts.contains(&(from, to))
    }

    pub fn delay(&self, random: &mut Random) -> Duration {
        self.latency + self.jitter.mul_f64(random.fraction())
    }

    pub fn loses(&self, random: &mut Random) -> bool {
        self.loss > 0.0 && random.fraction() < self.loss
    }
}
