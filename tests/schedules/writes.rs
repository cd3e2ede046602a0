//! Writes, step by step as the product executes them: a client's attempts, forwarding, the
//! primary, and what goes on in the background.

use thrifty_p2p::store::key_writes::{Condition, KeyWrites};
use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{Rule, WriteTicket};
use thrifty_p2p::store::recent_writes::{Recall, WriteId, WriteOutcome};
use thrifty_p2p::store::table::stripe_of;
use thrifty_p2p::store::versions::{Entry, Value};

use super::calls::{call, call_from, spawn};
use super::copies::{Sent, begin_replay, send_copies};
use super::guard;
use super::membership::{push_pull, wait_for_members};
use super::process::Id;
use super::reads::{CALL_TIMEOUT, is_finished, read, read_latest};
use super::rebalancer::on_failed_call;
use super::tasks::pause;
use super::world::{Net, World};

/// Steps that a batch waits for a locked key, or for the latest entry.
const SHORT: i64 = 300;

/// Attempts of a client, each through another process.
const ATTEMPTS: usize = 3;

/// A write as it travels.
#[derive(Debug, Clone)]
struct Request {
    key: Vec<u8>,
    value: Option<Value>,
    condition: Option<Condition>,
    id: WriteId,
    is_retry: bool,
    /// When the first attempt started.
    started: i64,
    /// It must not start later.
    deadline: i64,
}

/// The reply of a primary.
#[derive(Debug, Clone)]
enum Reply {
    Done(WriteOutcome),
    NotPrimary,
    Unfinished,
    Refused,
}

/// A client reads a key through some process, and writes or deletes it if it still has what was
/// read, or if it has no value.
pub async fn write_if(net: Net, through: Id, key: Vec<u8>, value: Option<Value>) {
    let held = read(net.clone(), through, key.clone()).await;
    let mut condition = (0, None);
    if let Some(entry) = held
        && net.borrow_mut().once_in(2)
    {
        let version = entry.value.as_ref().map_or(0, |_| entry.version);
        condition = (version, entry.value);
    }
    write(net, through, key, value, Some(condition)).await;
}

/// A client writes a key through some process, or deletes it, again through another one if it
/// gets no reply, and checks the result. `expected`: only if the key has this version and value.
pub async fn write(
    net: Net,
    through: Id,
    key: Vec<u8>,
    value: Option<Value>,
    expected: Option<(i64, Option<Value>)>,
) {
    let (floor, id, operation) = {
        let mut world = net.borrow_mut();
        let (number, now) = (world.rng.bits() as i64, world.now);
        let from = expected.as_ref().map(|(_, value)| value.as_deref());
        let operation = world
            .histories
            .begin_write(&key, value.as_deref(), from, now);
        (
            world.promises.floor(&key),
            WriteId { origin: 1, number },
            operation,
        )
    };
    let is_delete = value.is_none();
    let mut request = Request {
        key,
        value,
        condition: expected.map(|(version, _)| Condition::Version(version)),
        id,
        is_retry: false,
        started: net.borrow().now,
        deadline: net.borrow().now + CALL_TIMEOUT,
    };
    let mut through = through;
    for _ in 0..ATTEMPTS {
        let location = net.borrow().processes[through].location.clone();
        let sent = request.clone();
        let attempt = call(&net, &location, |net, there| write_at(net, there, sent));
        let reply = attempt.await;
        let mut world = net.borrow_mut();
        if let Ok(Some(reply)) = reply {
            let Reply::Done(outcome) = reply else {
                world.count("writes refused");
                return world.histories.never_happened(&operation);
            };
            if outcome.is_unmet {
                world.count("conditions not met");
                let found = world.promises.value_of(&request.key, outcome.version);
                let now = world.now;
                world.histories.end_read(&operation, found.as_deref(), now);
                return;
            }
            if request.condition.is_some() {
                world.count("conditional writes");
            }
            world.count(if is_delete { "deletes" } else { "writes" });
            if request.is_retry {
                world.count("writes acknowledged to a retry");
            }
            let result = world
                .promises
                .acknowledged(&request.key, floor, outcome.version);
            world.check(result, "versions must grow");
            let now = world.now;
            return world.histories.end(&operation, now);
        }
        request.is_retry = true;
        let members = world.members();
        let Some(other) = world.choose(&members) else {
            break;
        };
        through = other;
    }
    net.borrow_mut().count("writes without a reply");
}

/// Brings a write to its primary, as often as it takes. None if the outcome is not known.
async fn write_at(net: Net, me: Id, mut request: Request) -> Option<Reply> {
    let mut tried_at: Option<NodeId> = None;
    while net.borrow().now < request.deadline {
        let routing = net.borrow().routing(me);
        let primary = routing.primary(Key::new(&request.key)).cloned();
        request.is_retry |= tried_at.is_some() && tried_at != primary;
        pause().await;
        let here = net.borrow().processes[me].location.clone();
        let reply = match &primary {
            Some(primary) if primary.location == here => {
                Some(write_as_primary(net.clone(), me, primary.clone(), request.clone()).await)
            }
            Some(primary) => forward(&net, me, primary, &request).await,
            None => Some(Reply::NotPrimary),
        };
        match reply {
            Some(reply @ (Reply::Done(_) | Reply::Refused)) => return Some(reply),
            Some(Reply::NotPrimary) => (),
            Some(Reply::Unfinished) | None => tried_at = primary,
        }
        pause().await;
    }
    None
}

async fn forward(net: &Net, me: Id, primary: &NodeId, request: &Request) -> Option<Reply> {
    let execute = |request: &Request| {
        let (primary, request) = (primary.clone(), request.clone());
        |net, there| write_as_primary(net, there, primary, request)
    };
    if net.borrow_mut().is_repeated() {
        // The network delivers the request twice.
        let (net, again) = (net.clone(), execute(request));
        let location = primary.location.clone();
        spawn(&net.clone(), None, async move {
            let _ = call(&net, &location, again).await;
        });
    }
    let forwarded = call_from(net, me, &primary.location, execute(request));
    forwarded.await.ok()
}

/// Executes a write as `primary`, or learns what became of it.
async fn write_as_primary(net: Net, me: Id, primary: NodeId, request: Request) -> Reply {
    if !lock_key(&net, me, &request.key).await {
        return Reply::Unfinished;
    }
    let millis = net.borrow().millis(me);
    pause().await;
    let reply = match prepare(&net, me, &primary, &request, millis).await {
        Ok(writes) => return run(&net, me, writes, request).await,
        Err(reply) => reply,
    };
    net.borrow_mut().processes[me]
        .locked_keys
        .remove(&request.key);
    reply
}

async fn lock_key(net: &Net, me: Id, key: &[u8]) -> bool {
    let until = net.borrow().now + SHORT;
    while net.borrow().now < until {
        {
            let locked = &mut net.borrow_mut().processes[me].locked_keys;
            if !locked.contains_key(key) {
                locked.insert(key.to_vec(), 0);
                return true;
            }
        }
        pause().await;
    }
    false
}

/// Finds out whether the write is to be executed here, and assigns its version.
async fn prepare(
    net: &Net,
    me: Id,
    primary: &NodeId,
    request: &Request,
    millis: i64,
) -> Result<KeyWrites, Reply> {
    let key = Key::new(&request.key);
    let rules = net.borrow().rules;
    if net.borrow().now >= request.deadline && rules.has(Rule::RefuseTheLate) {
        net.borrow_mut().count("requests that came too late");
        return Err(Reply::Unfinished);
    }
    if rules.has(Rule::RunOnce) {
        recall(net, me, request).await?;
    }
    let ticket = begin_write(net, me, primary, key)
        .await
        .ok_or(Reply::NotPrimary)?;
    let until = net.borrow().now + SHORT;
    let Ok(before) = read_latest(net, me, key.bytes, until).await else {
        end(net, me, ticket).await;
        return Err(Reply::Unfinished);
    };
    pause().await;
    let (own, routing, recent, now) = {
        let world = net.borrow();
        let process = &world.processes[me];
        let own = process.table.version(key).unwrap_or_default();
        let recent = process.recent.clone();
        (own, world.routing(me), recent, world.now as u64)
    };
    let write = (request.id, request.value.clone());
    let condition = request
        .condition
        .filter(|_| rules.has(Rule::MeetConditions));
    if let Some(outcome) = condition.and_then(|condition| condition.unmet(before.as_ref())) {
        let is_noted = request.is_retry && rules.has(Rule::NoteUnmet);
        if let (Some(Condition::Version(0)), true, Some(entry)) = (condition, is_noted, before) {
            net.borrow_mut().count("conditions noted everywhere");
            recent.begin(request.id, now);
            return Ok(KeyWrites::note(key, ticket, entry, request.id, outcome));
        }
        recent.record(request.id, outcome, now);
        end(net, me, ticket).await;
        return Err(Reply::Done(outcome));
    }
    let read = before.as_ref().map_or(0, |entry| entry.version);
    let mut writes = KeyWrites::new(key, ticket, (before, own), [write], millis, &routing);
    if condition.is_some() {
        writes = writes.conditional();
        let locked = &mut net.borrow_mut().processes[me].locked_keys;
        locked.insert(request.key.clone(), writes.version());
    }
    if condition.is_some() && own > read {
        net.borrow_mut().count("conditions looked at again");
        end(net, me, writes.finish()).await;
        return Err(Reply::Unfinished);
    }
    net.borrow_mut().check_assigned(me, &writes);
    recent.begin(request.id, now);
    Ok(writes)
}

/// Answers a write whose result is known here or, if this is a retry, elsewhere.
async fn recall(net: &Net, me: Id, request: &Request) -> Result<(), Reply> {
    let recent = net.borrow().processes[me].recent.clone();
    let now = net.borrow().now as u64;
    let known = match recent.recall(request.id, now) {
        Recall::Known(outcome) => outcome,
        Recall::Running => return Err(Reply::Unfinished),
        _ if !request.is_retry && has_owned(net, me, request) => return Ok(()),
        _ => match recall_from_peers(net, me, request.id).await {
            Ok(None) => return Ok(()),
            Ok(Some(outcome)) => outcome,
            Err(reply) => return Err(reply),
        },
    };
    pause().await;
    if !is_finished(net, me, &request.key).await {
        return Err(Reply::Unfinished);
    }
    net.borrow_mut().count("writes that were known already");
    Err(match known.is_undone {
        true => Reply::Refused,
        false => Reply::Done(known),
    })
}

/// Has this process been an owner of the key since the first attempt started?
fn has_owned(net: &Net, me: Id, request: &Request) -> bool {
    let world = net.borrow();
    let (process, since) = (&world.processes[me], request.started as u64);
    let (node, replicas) = (process.routing.me(), world.replicas);
    let key = Key::new(&request.key);
    let placements = &process.recent_placements;
    process.routing.is_serving() && placements.has_owned(node, key, replicas, since)
}

async fn recall_from_peers(net: &Net, me: Id, id: WriteId) -> Result<Option<WriteOutcome>, Reply> {
    let peers = guard::look(net, me, |rebalance| rebalance.peers()).await;
    let mut known = None;
    for peer in peers {
        let asked = call_from(net, me, &peer.location, |net, there| async move {
            pause().await;
            let world = net.borrow();
            let process = &world.processes[there];
            match process.recent.recall(id, world.now as u64) {
                Recall::Known(outcome) if process.unfinished.has_version(outcome.version) => {
                    Err(Reply::Unfinished)
                }
                Recall::Known(outcome) => Ok(Some(outcome)),
                Recall::Unknown => Ok(None),
                Recall::Forgotten | Recall::Running => Err(Reply::Unfinished),
            }
        });
        known = asked.await.unwrap_or(Err(Reply::Unfinished))?.or(known);
    }
    Ok(known)
}

/// Starts a write, if this process is the one that is meant and the primary of the key.
async fn begin_write(net: &Net, me: Id, primary: &NodeId, key: Key<'_>) -> Option<WriteTicket> {
    loop {
        let routing = net.borrow().routing(me);
        if routing.me() != primary || !net.borrow().processes[me].is_current(&routing) {
            return None;
        }
        pause().await;
        let ticket = routing.begin_write(key);
        pause().await;
        if std::rc::Rc::ptr_eq(&routing, &net.borrow().routing(me)) {
            return ticket;
        }
        pause().await;
        drop(ticket);
        guard::change(net, me, |process| process.rebalance.advance()).await;
    }
}

/// Brings a write to its owners. What an owner holds up goes on in the background.
async fn run(net: &Net, me: Id, mut writes: KeyWrites, request: Request) -> Reply {
    let until = net.borrow().now + SHORT;
    loop {
        let all_reached = replicate_round(net, me, &mut writes).await;
        writes = match finish_if_done(net, me, writes, true).await {
            Ok(reply) => return reply,
            Err(writes) => writes,
        };
        if !all_reached || net.borrow().now >= until {
            net.borrow_mut().count("writes left to the finisher");
            let (net, shared) = (net.clone(), net.clone());
            let deadline = Some(request.deadline);
            spawn(&shared, Some(me), async move {
                finish_later(&net, me, writes, deadline).await
            });
            return Reply::Unfinished;
        }
        pause().await;
    }
}

/// What the finisher does for a write, or for a replay (without a deadline).
pub async fn finish_later(net: &Net, me: Id, mut writes: KeyWrites, deadline: Option<i64>) {
    loop {
        {
            let mut world = net.borrow_mut();
            let routing = world.routing(me);
            let is_late = deadline.is_some_and(|deadline| deadline <= world.now);
            if is_late && world.rules.has(Rule::Undo) && writes.give_up("late".into(), &routing) {
                world.count("writes undone");
                world.check_assigned(me, &writes);
            }
        }
        replicate_round(net, me, &mut writes).await;
        writes = match finish_if_done(net, me, writes, deadline.is_some()).await {
            Ok(_) => return,
            Err(writes) => writes,
        };
        pause().await;
    }
}

/// Sends what owners lack. False if one did not reply.
async fn replicate_round(net: &Net, me: Id, writes: &mut KeyWrites) -> bool {
    {
        let mut world = net.borrow_mut();
        let locked = &mut world.processes[me].locked_keys;
        if let Some(version) = locked.get_mut(writes.key().bytes)
            && !writes.is_replay()
        {
            *version = writes.last().map_or(0, |entry| entry.version);
        }
    }
    let routing = net.borrow().routing(me);
    let targets = writes.targets(&routing);
    if targets.is_empty() {
        return true;
    }
    pause().await;
    let sent = send_copies(net, me, &targets, writes).await;
    let sent_version = writes.version();
    let mut all_reached = true;
    let mut behind = Vec::new();
    let millis = net.borrow().millis(me);
    for (owner, sent) in targets.into_iter().zip(sent) {
        match sent {
            Some(Sent::Kept(id)) if routing.counts_copy_at(id) => {
                writes.add_ack(owner, sent_version)
            }
            Some(Sent::Kept(_) | Sent::Fenced) => behind.push(owner),
            Some(Sent::Newer(version, finished)) => {
                if let Some(entry) = finished {
                    apply(net, me, writes.key().bytes, entry).await;
                }
                let before = writes.last().cloned();
                writes.on_newer(&owner, version, millis, &routing);
                if writes.last() != before.as_ref() {
                    let mut world = net.borrow_mut();
                    world.count("versions that had to grow");
                    world.check_assigned(me, writes);
                }
            }
            None => {
                all_reached = false;
                on_failed_call(net, me, &owner).await;
            }
        }
    }
    for owner in behind {
        if push_pull(net, me, &owner.location).await {
            wait_for_members(net, me).await;
        }
    }
    all_reached
}

/// Finishes a write that all other owners have. A replay `has_lock` of the key if it is a note.
async fn finish_if_done(
    net: &Net,
    me: Id,
    mut writes: KeyWrites,
    has_lock: bool,
) -> Result<Reply, KeyWrites> {
    let routing = net.borrow().routing(me);
    let key = writes.key().bytes.to_vec();
    if !routing.coordinates(writes.ticket()) {
        net.borrow_mut()
            .count("writes left to those that have copies");
        abandon(net, me, &writes);
        end(net, me, writes.into_ticket()).await;
        net.borrow_mut().processes[me].locked_keys.remove(&key);
        return Ok(Reply::Unfinished);
    }
    let own = net.borrow().processes[me].table.version(writes.key());
    writes.on_own(own.unwrap_or_default());
    let has_all = writes.targets(&routing).is_empty();
    if has_all && writes.is_superseded() {
        net.borrow_mut().count("replays that were superseded");
        if writes.is_kept(&routing) {
            let ticket = writes.replay_again(begin_replay(net, me).await);
            end(net, me, ticket).await;
            return Err(writes);
        }
        abandon(net, me, &writes);
        if !has_lock && !routing.is_owner(routing.me(), writes.key()) {
            end_replay(net, me, &writes);
        }
        end(net, me, writes.finish()).await;
        let process = &mut net.borrow_mut().processes[me];
        match has_lock {
            true => drop(process.locked_keys.remove(&key)),
            false => drop(process.replays.remove(&key)),
        }
        return Ok(Reply::Unfinished);
    }
    let is_current = net.borrow().processes[me].is_current(&routing);
    if !has_all || !is_current || !routing.may_finish(writes.ticket()) {
        return Err(writes);
    }
    pause().await;
    let last = writes.last().cloned().expect("there is a write");
    if !has_lock {
        end_replay(net, me, &writes);
    } else {
        apply(net, me, &key, last.clone()).await;
    }
    pause().await;
    let outcome = writes.writes()[0].outcome;
    {
        let mut world = net.borrow_mut();
        let now = world.now as u64;
        if let Some(id) = writes.writes()[0].id {
            world.processes[me].recent.record(id, outcome, now);
        }
        world.check_copies(&key, last.version, writes.refusal().is_some());
        world.log(format_args!("{me} finishes {} of {key:?}", last.version));
    }
    pause().await;
    let is_undone = writes.refusal().is_some();
    end(net, me, writes.finish()).await;
    let mut world = net.borrow_mut();
    if !has_lock {
        world.processes[me].replays.remove(&key);
        world.count("copies replayed");
    } else {
        world.processes[me].locked_keys.remove(&key);
    }
    Ok(match is_undone {
        true => Reply::Refused,
        false => Reply::Done(outcome),
    })
}

/// Writes are not executed here any more, and are not finished.
fn abandon(net: &Net, me: Id, writes: &KeyWrites) {
    for id in writes.writes().iter().filter_map(|write| write.id) {
        net.borrow().processes[me].recent.abandon(id);
    }
}

/// The copy that was replayed is finished here.
fn end_replay(net: &Net, me: Id, writes: &KeyWrites) {
    let world = net.borrow();
    let (process, key) = (&world.processes[me], writes.key());
    process.table.finish(key, writes.version());
    if let Some((coordinator, sequence)) = process.replays.get(key.bytes) {
        let mut copies = process.unfinished.of(coordinator);
        copies.remove(*sequence, writes.version());
    }
}

/// Ends what a ticket was for.
async fn end(net: &Net, me: Id, ticket: WriteTicket) {
    let routing = net.borrow().routing(me);
    let is_older = ticket.is_older_than(&routing);
    pause().await;
    drop(ticket);
    pause().await;
    if is_older || !std::rc::Rc::ptr_eq(&routing, &net.borrow().routing(me)) {
        guard::change(net, me, |process| process.rebalance.advance()).await;
    }
}

/// Applies an entry to the table, when its stripe is not locked.
pub async fn apply(net: &Net, me: Id, key: &[u8], entry: Entry) {
    let key = Key::new(key);
    while net.borrow().processes[me]
        .locked_stripes
        .contains(&stripe_of(key))
    {
        pause().await;
    }
    net.borrow().processes[me].table.apply(key, entry);
}

impl World {
    /// Notes the versions that a process has assigned.
    fn check_assigned(&mut self, me: Id, writes: &KeyWrites) {
        let key = writes.key().bytes.to_vec();
        for write in writes.writes() {
            let result = self.promises.assigned(&key, &write.entry);
            self.check(result, "versions must differ");
            let version = write.entry.version;
            self.log(format_args!("{me} assigns {version} to {key:?}"));
        }
    }
}
