//! Exchanges: what is told, what is made of what is heard, what is answered.

use std::collections::BTreeSet;

use super::call::{Call, Failure, Purpose, Request};
use super::core::{Heard, Membership, Now};
use super::event::{Disbelief, Event};
use super::gossip::Gossip;
use super::member::{Member, Status};
use super::members::Merged;
use crate::location::Location;

/// Most senders whose last complaint is remembered.
const MOST_COMPLAINTS: usize = 1_000;

/// What one gossip changed.
struct Lesson {
    /// Did it teach us anything?
    learned: bool,
    /// Of whom we know better.
    corrected: Vec<Location>,
}

impl Membership {
    /// Answers a served `exchange`. Makes no call, so that no two nodes can wait for
    /// one another; what follows is done in the next tick. A gossip of another
    /// network is answered with our network's name and nothing else.
    pub fn receive(&mut self, now: Now, gossip: Gossip) -> Gossip {
        self.begin(now);
        if gossip.network != self.network {
            self.meet_foreign(&gossip.sender, &gossip);
            return self.gossip_of(Vec::new(), false);
        }
        let lesson = self.learn(&gossip);
        self.hear(&gossip.sender, gossip.view);
        let members = self.answer(&gossip, lesson.corrected);
        self.gossip_of(members, lesson.learned)
    }

    /// What to tell `peer`: our news; ourselves, if it may not know us; what is said of
    /// it, if that is anything to object to; or everything.
    pub(super) fn gossip_for(&self, peer: &Location, full: bool) -> Gossip {
        let mut told: BTreeSet<&Location> = self.news.iter().collect();
        if full {
            told = self.members.iter().map(|member| &member.location).collect();
        }
        // At rest a peer of our view knows us, and views are compared anyway.
        let view = self.heard.get(peer).and_then(|heard| heard.view);
        let is_estranged = view.is_some_and(|view| view != self.view());
        if is_estranged || self.status_of(peer) != Some(Status::Alive) {
            told.insert(&self.me);
        }
        if self.is_objectionable(peer) {
            told.insert(peer);
        }
        self.gossip_of(self.records(told), full)
    }

    /// The reply to an exchange that we made.
    pub(super) fn answered(&mut self, call: Call, gossip: Gossip) {
        if gossip.network != self.network {
            self.meet_foreign(&call.peer, &gossip);
            return self.failed(&call, Failure::Refused);
        }
        let was_alone = self.is_alone();
        let view_before = self.view();
        let lesson = self.learn(&gossip);
        if was_alone && call.full {
            // A newcomer has learned what all others know: only it is news.
            self.news.clear();
            self.news.add(&self.me, self.settings.most_news);
        }
        self.hear(&gossip.sender, gossip.view);
        if gossip.sender != call.peer {
            return self.goes_by_another_name(&call, gossip.sender);
        }
        self.hearsay.remove(&call.peer);
        let is_useful = lesson.learned || gossip.full;
        match call.purpose {
            Purpose::Gossip => self.count(is_useful),
            _ => self.health.improve(),
        }
        // While news teaches, it goes on to; and a change of ours while the call was
        // under way explains a difference.
        let is_spreading = call.purpose == Purpose::Gossip && is_useful;
        let is_explained = is_spreading || view_before != call.view;
        if gossip.view != self.view() && !call.full && !is_explained {
            self.exchange_all(&call.peer);
        }
    }

    fn exchange_all(&mut self, peer: &Location) {
        let now = self.now.monotonic;
        let interval = self.settings.full_interval;
        if self.full_at.is_none_or(|at| now >= at + interval) && self.has_room() {
            self.full_at = Some(now);
            let gossip = self.gossip_for(peer, true);
            self.call(peer, Purpose::Probe, Request::Exchange(gossip));
        }
    }

    /// The node at `call.peer` says that it is another one: the peer given was an
    /// alias of it, or its address was taken over.
    fn goes_by_another_name(&mut self, call: &Call, name: Location) {
        for seed in &mut self.seeds {
            if seed.location == call.peer {
                seed.calls_itself = Some(name.clone());
            }
        }
        self.hearsay.remove(&call.peer);
        if self.members.get(&call.peer).is_some() {
            self.failed(call, Failure::Refused);
        }
    }

    fn learn(&mut self, gossip: &Gossip) -> Lesson {
        let mut lesson = Lesson {
            learned: false,
            corrected: Vec::new(),
        };
        if gossip.refused > 0 {
            let disbelief = Disbelief::Unreadable(gossip.refused);
            self.disbelieve(&gossip.sender, disbelief);
        }
        for member in &gossip.members {
            let merged = if member.location == self.me {
                self.hear_of_me(member)
            } else {
                self.hear_of_other(member)
            };
            match merged {
                Ok(Merged::Taken(_)) => lesson.learned = true,
                Ok(Merged::Known) => {
                    let limit = self.settings.gossip_misses;
                    self.news.is_known(&member.location, limit);
                }
                Ok(Merged::Older) => lesson.corrected.push(member.location.clone()),
                Err(disbelief) => self.disbelieve(&gossip.sender, disbelief),
            }
        }
        lesson
    }

    fn hear_of_other(&mut self, member: &Member) -> Result<Merged, Disbelief> {
        // Nearly all that is heard is known, so that comes first and costs little.
        let known = self.members.get(&member.location);
        let is_new = match known {
            Some(known) if known == member => return Ok(Merged::Known),
            Some(known) if !member.beats(known) => return Ok(Merged::Older),
            Some(known) => !known.status.is_live(),
            None => true,
        };
        if member.incarnation > self.latest_credible(1) {
            return Err(Disbelief::Ahead);
        }
        let is_full = self.members.live() >= self.settings.most_live;
        if member.status.is_live() && is_new && is_full {
            return Err(Disbelief::TableFull);
        }
        if known.is_some_and(|known| was_given_up(member, known)) {
            // It objected to a suspicion, and does not know that it was taken for dead
            // since. Others went on without it: it must hear so, and begin anew.
            self.take(member.with_status(Status::Down));
            return Ok(Merged::Older);
        }
        Ok(self.take(member.clone()))
    }

    /// I know best what is true of me: what is greater than my record is outdone.
    fn hear_of_me(&mut self, said: &Member) -> Result<Merged, Disbelief> {
        let mine = self.mine();
        if *said == mine {
            return Ok(Merged::Known);
        }
        if said.beats(&mine) || was_given_up(&mine, said) {
            // Twice as credulous as of others, so that I can outdo what they believe.
            if said.incarnation > self.latest_credible(2) {
                return Err(Disbelief::Ahead);
            }
            let is_of_this_process = said.started == mine.started;
            if is_of_this_process && said.status != Status::Alive {
                self.health.worsen();
            }
            let given_up = is_of_this_process && !said.status.is_live();
            let accusation = said.incarnation.max(mine.incarnation);
            self.refute(mine, accusation, given_up);
        }
        Ok(Merged::Older)
    }

    /// Says ALIVE anew. A member that others had `given_up` begins anew for them:
    /// they went on without it, and whatever it missed it must fetch.
    fn refute(&mut self, mine: Member, accusation: i64, given_up: bool) {
        let incarnation = self.now.unix_millis.max(accusation + 1);
        let started = if given_up { incarnation } else { mine.started };
        self.take(Member {
            incarnation,
            started,
            ..mine
        });
        self.note(Event::Refuted { incarnation });
    }

    /// What the sender is to be told: what we know better, our news, ourselves if
    /// our views differ, what is said of it, and all the rest if it wants all.
    fn answer(&self, gossip: &Gossip, corrected: Vec<Location>) -> Vec<Member> {
        let mut told: BTreeSet<&Location> = self.news.iter().collect();
        if gossip.full {
            told = self.members.iter().map(|member| &member.location).collect();
        }
        if gossip.view != self.view() {
            told.insert(&self.me);
        }
        if self.is_objectionable(&gossip.sender) {
            told.insert(&gossip.sender);
        }
        if !told.is_empty() {
            for member in &gossip.members {
                told.remove(&member.location);
            }
        }
        told.extend(&corrected);
        self.records(told)
    }

    fn records(&self, told: BTreeSet<&Location>) -> Vec<Member> {
        let records = told.into_iter().filter_map(|l| self.members.get(l));
        records.cloned().collect()
    }

    fn gossip_of(&self, members: Vec<Member>, full: bool) -> Gossip {
        Gossip {
            sender: self.me.clone(),
            network: self.network.clone(),
            view: self.view(),
            members,
            full,
            refused: 0,
        }
    }

    /// Has a location anything to object to in what we believe of it?
    fn is_objectionable(&self, location: &Location) -> bool {
        self.status_of(location).is_some_and(|s| s != Status::Alive)
    }

    /// A node of ours spoke, and said that this is its view.
    fn hear(&mut self, sender: &Location, view: u64) {
        if self.originals.remove(sender) {
            let location = sender.clone();
            self.note(Event::Original {
                location,
                is_one: false,
            });
        }
        self.hear_from(sender, Some(view));
    }

    /// A member is there: it spoke.
    pub(super) fn hear_from(&mut self, sender: &Location, view: Option<u64>) {
        if *sender != self.me && self.ring.contains(sender) {
            let at = self.now.monotonic;
            self.verdicts.remove(sender);
            self.heard.insert(sender.clone(), Heard { view, at });
        }
    }

    fn latest_credible(&self, times: i64) -> i64 {
        let ahead = self.settings.most_ahead.as_millis() as i64;
        self.now
            .unix_millis
            .saturating_add(ahead.saturating_mul(times))
    }

    fn meet_foreign(&mut self, location: &Location, gossip: &Gossip) {
        if self.may_complain(location) {
            self.note(Event::ForeignNetwork(
                location.clone(),
                gossip.network.clone(),
            ));
        }
    }

    fn disbelieve(&mut self, sender: &Location, disbelief: Disbelief) {
        if self.may_complain(sender) {
            self.note(Event::Disbelieved(sender.clone(), disbelief));
        }
    }

    /// One complaint of a sender in each `complaint_interval`.
    fn may_complain(&mut self, sender: &Location) -> bool {
        let now = self.now.monotonic;
        let interval = self.settings.complaint_interval;
        self.complaints.retain(|_, at| now < *at + interval);
        let may = !self.complaints.contains_key(sender) && self.complaints.len() < MOST_COMPLAINTS;
        if may {
            self.complaints.insert(sender.clone(), now);
        }
        may
    }
}

/// Is `live` said of a process that `known` takes for dead?
fn was_given_up(live: &Member, known: &Member) -> bool {
    live.status.is_live() && known.status == Status::Down && live.started == known.started
}
