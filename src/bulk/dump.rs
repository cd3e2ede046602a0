//! `dump`: all pairs of a store, while it goes on.
//!
//! Each key is told once, by its primary. All nodes are asked for the same stripes of
//! their tables, and answer only while they are settled in the one view that is asked
//! for. If one of them refuses, or is gone, these stripes are asked for anew when the
//! network has settled again; nothing of them was told before. So a key that is there
//! all the while is told exactly once, whatever nodes come and go. Of what is written
//! during the dump, each pair may or may not be told, as it was at some time during it.
//! What only nodes of the original hold is not told.
//!
//! What is asked for at once is held in memory before it is told: a page of each node,
//! or one stripe, which is a 256th of the store.

use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::lines::encode;
use super::progress::Progress;
use crate::client::ring::RingClient;
use crate::diststore::{self as wire, Phase, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::side_by_side::side_by_side;
use crate::store::table::{Key, STRIPES};
use crate::store::view::{Peer, View};

/// The longest that the network may move before it is given up.
const SETTLED: Duration = Duration::from_secs(120);

/// How often the network is asked whether it has settled.
const RETRY: Duration = Duration::from_millis(50);

/// When it is told that the network moves.
const NOTE: Duration = Duration::from_secs(2);

/// Nodes that are asked at the same time.
const SIDE_BY_SIDE: usize = 8;

/// A dump of one store.
pub struct Dump<'a> {
    client: &'a RingClient,
    progress: &'a Progress,
}

/// Keys with their values, of some stripes.
struct Run {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first stripe that is not among them, or not to its end.
    end: usize,
}

impl<'a> Dump<'a> {
    /// Of the store of `client`. The progress is done at [`STRIPES`].
    pub fn new(client: &'a RingClient, progress: &'a Progress) -> Dump<'a> {
        Dump { client, progress }
    }

    /// Tells all pairs as lines, in the order of the stripes of the ring; `write` takes
    /// those of some stripes. Blocks until all are told, as long as nodes answer.
    ///
    /// # Errors
    /// `write`'s, or the network has moved for two minutes.
    pub fn tell(&self, mut write: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut settled = self.wait_until_settled()?;
        let mut lines = Vec::new();
        let mut next = 0;
        let mut deadline = Instant::now() + SETTLED;
        while next < STRIPES {
            let run = match self.run(&settled, next) {
                Ok(run) => run,
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(e) => {
                    debug!("the stripes from {next} on are asked for anew: {e}");
                    settled = self.wait_until_settled()?;
                    continue;
                }
            };
            lines.clear();
            for (key, value) in &run.pairs {
                encode(key, value, &mut lines);
            }
            write(&lines)?;
            self.progress.add_keys(run.pairs.len() as u64);
            self.progress.add_done((run.end - next) as u64);
            next = run.end;
            deadline = Instant::now() + SETTLED;
        }
        Ok(())
    }

    /// The stripes from `first` on, at least one, as all members of a view have them.
    fn run(&self, view: &View, first: usize) -> Result<Run, Error> {
        let members: Vec<Peer> = view.members().collect();
        let parts = side_by_side(&members, SIDE_BY_SIDE, |member| {
            self.part(&member.location, view.id(), first)
        });
        let mut parts = parts.into_iter().collect::<Result<Vec<Run>, Error>>()?;
        let end = parts.iter().map(|part| part.end).min().unwrap_or(first);
        if parts.len() < members.len() || end == first {
            let asked = self.client.nodes().swap_remove(0);
            return Err(Error::Answered(asked, "not all members were asked".into()));
        }
        let mut pairs = Vec::new();
        for part in &mut parts {
            pairs.append(&mut part.pairs);
        }
        pairs.retain(|(key, _)| Key::new(key).stripe() < end);
        Ok(Run { pairs, end })
    }

    /// One member's part of these: the keys whose primary it is.
    fn part(&self, member: &Location, view: u64, first: usize) -> Result<Run, Error> {
        let mut pairs = Vec::new();
        let mut after = None;
        loop {
            let cursor = wire::Cursor::new(first as i32, after);
            let page = self
                .client
                .call(member, |node| node.scan(view as i64, cursor.clone()))?;
            for pair in page.pairs.unwrap_or_default() {
                if let (Some(key), Some(value)) = (pair.key, pair.value) {
                    pairs.push((key, value));
                }
            }
            let rest = page
                .rest
                .unwrap_or_else(|| wire::Cursor::new(STRIPES as i32, None));
            let end = rest.stripe.and_then(|end| usize::try_from(end).ok());
            match end.filter(|end| (first..=STRIPES).contains(end)) {
                Some(end) if end > first => return Ok(Run { pairs, end }),
                Some(_) if is_later(&rest, &cursor) => after = rest.after,
                _ => {
                    let why = "a page that ends before it begins";
                    return Err(Error::Answered(member.clone(), why.into()));
                }
            }
        }
    }

    /// Waits until all members are settled in one view.
    fn wait_until_settled(&self) -> Result<View, Error> {
        let began = Instant::now();
        let mut noted = false;
        loop {
            if let Some(view) = self.settled_view() {
                return Ok(view);
            }
            if began.elapsed() > SETTLED {
                let moving = format!("its network has not settled in {SETTLED:?}");
                let node = self.client.nodes().swap_remove(0);
                return Err(Error::Answered(node, moving.into()));
            }
            if began.elapsed() > NOTE && !noted {
                warn!("the network moves: the dump goes on when it has settled");
                noted = true;
            }
            thread::sleep(RETRY);
        }
    }

    /// The view in which all members are settled, if there is one.
    fn settled_view(&self) -> Option<View> {
        let view = self.client.learn();
        let members: Vec<Peer> = view.members().collect();
        let is_settled = side_by_side(&members, SIDE_BY_SIDE, |member| {
            let held = self
                .client
                .call(&member.location, |node| node.holdings(false));
            held.is_ok_and(|held| {
                held.view == Some(view.id() as i64)
                    && held.phase == Some(Phase::SETTLED)
                    && held.serving == Some(true)
            })
        });
        let all = !view.is_empty() && is_settled.into_iter().all(|is| is);
        all.then_some(view)
    }
}

/// Does the copying of a stripe go on after a later key than before?
fn is_later(rest: &wire::Cursor, before: &wire::Cursor) -> bool {
    let last = [rest, before].map(|cursor| cursor.after.as_deref().map(Key::new));
    last[0] > last[1]
}
