//! `Links`: the faults of a network, for each pair of hosts and each direction.
//!
//! A link is cut, slow or lossy. It decides by itself about each frame: a cut of the link from one
//! host to another says nothing about the way back.

use std::time::Duration;

/// The way from one host to another one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// All frames are dropped, silently.
    pub is_cut: bool,
    /// Every frame arrives this much later.
    pub delay: Duration,
    /// This share of the frames is dropped, at random: 0.0 for none, 1.0 for all.
    pub loss: f64,
    /// The frames that were dropped so far.
    dropped: u64,
}

impl Link {
    /// Removes all faults.
    pub fn heal(&mut self) {
        *self = Link {
            dropped: self.dropped,
            ..Link::default()
        };
    }
}

/// The links between all hosts.
pub struct Links {
    /// By the sender and the receiver.
    links: Vec<Vec<Link>>,
    /// The state of the random numbers. It is never 0.
    random: u64,
}

impl Links {
    /// Links between this many hosts, without faults.
    pub fn new(hosts: usize) -> Links {
        Links {
            links: vec![vec![Link::default(); hosts]; hosts],
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The number of hosts.
    pub fn hosts(&self) -> usize {
        self.links.len()
    }

    /// Changes all links from one of the hosts `from` to one of the hosts `to`.
    pub fn change(&mut self, from: &[usize], to: &[usize], change: impl Fn(&mut Link)) {
        for from in from {
            to.iter().for_each(|to| change(&mut self.links[*from][*to]));
        }
    }

    /// The frames that a link has dropped so far.
    pub fn dropped(&self, from: usize, to: usize) -> u64 {
        self.links[from][to].dropped
    }

    /// How long a frame that is sent now takes. None if it is dropped.
    pub fn admit(&mut self, from: usize, to: usize) -> Option<Duration> {
        let random = self.next_random();
        let link = &mut self.links[from][to];
        if link.is_cut || random < link.loss {
            link.dropped += 1;
            return None;
        }
        Some(link.delay)
    }

    /// Does a frame arrive that was admitted some time ago? A cut drops delayed frames too.
    pub fn arrives(&mut self, from: usize, to: usize) -> bool {
        let link = &mut self.links[from][to];
        link.dropped += u64::from(link.is_cut);
        !link.is_cut
    }

    /// A number from 0.0 to less than 1.0, by Marsaglia's xorshift.
    fn next_random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}
