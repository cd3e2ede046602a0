//! A stand-in for a node of the original: a list, and a chain of messages.

use std::collections::BTreeSet;

use thrifty_p2p::location::Location;

/// A message of the original that waits for no reply.
#[derive(Debug, Clone)]
pub enum Oneway {
    Join(Location),
    Add(Location, Vec<Location>),
    Remove(Location, Vec<Location>),
}

/// Knows `get_all`, `join`, `add` and `remove`, and nothing else.
#[derive(Clone)]
pub struct Original {
    pub me: Location,
    pub ring: BTreeSet<Location>,
}

impl Original {
    pub fn new(me: Location, known: Vec<Location>) -> Original {
        let mut ring: BTreeSet<Location> = known.into_iter().collect();
        ring.insert(me.clone());
        Original { me, ring }
    }

    /// Hears a message; answers to whom it goes on, and as what.
    pub fn hear(&mut self, message: Oneway) -> Option<(Location, Oneway)> {
        match message {
            Oneway::Join(newcomer) => {
                let knowing = vec![newcomer.clone()];
                self.hear(Oneway::Add(newcomer, knowing))
            }
            Oneway::Add(location, mut authorities) => {
                self.ring.insert(location.clone());
                authorities.push(self.me.clone());
                let next = self.next(&authorities)?;
                Some((next, Oneway::Add(location, authorities)))
            }
            Oneway::Remove(location, mut authorities) => {
                if location != self.me {
                    self.ring.remove(&location);
                }
                authorities.push(self.me.clone());
                let next = self.next(&authorities)?;
                Some((next, Oneway::Remove(location, authorities)))
            }
        }
    }

    /// The node that a message was for cannot be reached: the next one.
    pub fn undeliverable(&mut self, to: &Location, message: Oneway) -> Option<(Location, Oneway)> {
        self.ring.remove(to);
        let (Oneway::Add(_, known) | Oneway::Remove(_, known)) = &message else {
            return None;
        };
        let next = self.next(known)?;
        Some((next, message))
    }

    fn next(&self, authorities: &[Location]) -> Option<Location> {
        let mut others = self.ring.iter().filter(|l| !authorities.contains(l));
        others.next().cloned()
    }
}
