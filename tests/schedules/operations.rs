//! What nodes do for clients and for one another, step by step as the shell does it.

use thrifty_p2p::store::rebalance::{ReadRoute, Pull, RebalanceStatus, WriteTicket};
use thrifty_p2p::store::table::{Key, Page};
use thrifty_p2p::store::versions::{self, Entry};
use thrifty_p2p::store::placement::NodeId;

use super::promises::Read;
use super::tasks::pause;
use super::world::{Health, Id, Net, call, call_from, contact};

/// Steps of the schedule in which a client's call must be done before it is refused.
const TIMEOUTS: i64 = 2000;

/// Steps that a primary may take over a write that another node asked of it.
const PRIMARY_TIMEOUT: i64 = 1000;

/// What came of a write: its version, and whether there was a value before.
type WriteResult = Option<(i64, bool)>;

type Value = Option<versions::Value>;

/// No owner or primary could be found in time, or the node does not answer for that view.
#[derive(Debug, Clone, Copy)]
struct Refused;

// Clients.

/// A client reads a key through some node, and checks what it gets.
pub async fn read(net: Net, through: Id, key: Vec<u8>) {
    let (floor, location) = {
        let world = net.borrow();
        let location = world.processes[through].location.clone();
        (world.promises.floor(&key), location)
    };
    let name = key.clone();
    let fetched = call(&net, &location, |net, there| async move {
        newest(&net, there, &name, within(&net, TIMEOUTS)).await
    });
    let outcome = fetched.await;
    let mut world = net.borrow_mut();
    let Ok(Ok(entry)) = outcome else {
        world.count("reads refused");
        return;
    };
    match world.promises.returned(&key, floor, entry.as_ref()) {
        Ok(Read::Fine) => world.count("reads"),
        Ok(Read::Inversion) => world.count("inversions"),
        Err(why) => world.check(Err(why), "a stale read"),
    }
}

/// A client writes a key through some node, or deletes it.
pub async fn write(net: Net, through: Id, key: Vec<u8>, value: Value) {
    let (floor, location) = {
        let world = net.borrow();
        let location = world.processes[through].location.clone();
        (world.promises.floor(&key), location)
    };
    let deletes = value.is_none();
    let name = key.clone();
    let written = call(&net, &location, |net, there| async move {
        route(&net, there, &name, value, within(&net, TIMEOUTS)).await
    });
    let outcome = written.await;
    let mut world = net.borrow_mut();
    let Ok(Ok((version, existed))) = outcome else {
        world.count("writes refused");
        return;
    };
    if deletes && !existed {
        // Nothing was written: this was a read that found nothing.
        world.count("deletes of nothing");
        return;
    }
    world.count(if deletes { "deletes" } else { "writes" });
    let outcome = world.promises.acknowledged(&key, floor, version);
    world.check(outcome, "versions must grow");
}

/// So many steps from now.
fn within(net: &Net, steps: i64) -> i64 {
    net.borrow().now + steps
}

// Operations at a node.

/// Finds the primary, and has it write.
async fn route(
    net: &Net,
    me: Id,
    key: &[u8],
    value: Value,
    deadline: i64,
) -> Result<(i64, bool), Refused> {
    while net.borrow().now < deadline {
        let primary = net.borrow_mut().moves(me).primary(Key::new(key));
        pause().await;
        let here = net.borrow().processes[me].location.clone();
        let written = match primary {
            Some(primary) if primary.location == here => {
                coordinate(net, me, key, value.clone(), deadline).await?
            }
            Some(primary) => {
                let (name, value) = (key.to_vec(), value.clone());
                let forwarded = call_from(net, me, &primary.location, |net, there| async move {
                    coordinate(&net, there, &name, value, within(&net, PRIMARY_TIMEOUT)).await
                });
                match forwarded.await {
                    Ok(written) => written?,
                    Err(_) => None,
                }
            }
            None => None,
        };
        if let Some(written) = written {
            return Ok(written);
        }
        pause().await;
    }
    Err(Refused)
}

/// Writes as the key's primary, if this node is that.
async fn write_as_primary(
    net: &Net,
    me: Id,
    key: &[u8],
    value: Value,
    deadline: i64,
) -> Result<WriteResult, Refused> {
    while !net.borrow_mut().processes[me].turns.insert(key.to_vec()) {
        pause().await;
    }
    let pending = net.borrow_mut().moves(me).begin_write(Key::new(key));
    let written = match pending {
        Some(write) => carry_out(net, me, write, key, value, deadline).await,
        None => Ok(None),
    };
    net.borrow_mut().processes[me].turns.remove(key);
    written
}

async fn carry_out(
    net: &Net,
    me: Id,
    mut write: WriteTicket,
    key: &[u8],
    value: Value,
    deadline: i64,
) -> Result<WriteResult, Refused> {
    let deletes = value.is_none();
    let outcome = apply_everywhere(net, me, &mut write, key, value, deadline).await;
    let mut world = net.borrow_mut();
    let acknowledged = world.moves(me).end_write(write);
    let written = outcome?;
    if !acknowledged {
        world.count("writes not acknowledged");
        return Ok(None);
    }
    world.narrate(format_args!("{me} acknowledges {} of {key:?}", written.0));
    if written.1 || !deletes {
        world.check_copies(key, written.0);
    }
    Ok(Some(written))
}

async fn apply_everywhere(
    net: &Net,
    me: Id,
    write: &mut WriteTicket,
    key: &[u8],
    value: Value,
    deadline: i64,
) -> Result<(i64, bool), Refused> {
    let found = newest(net, me, key, deadline).await?;
    let existed = found.as_ref().is_some_and(|entry| !entry.is_tombstone());
    let newest = found.map_or(0, |entry| entry.version);
    if value.is_none() && !existed {
        return Ok((newest, false));
    }
    pause().await;
    let entry = {
        let mut world = net.borrow_mut();
        let own = world.processes[me].table.read(Key::new(key));
        let newest = newest.max(own.map_or(0, |entry| entry.version));
        let millis = world.millis(me);
        let version = world.moves(me).version(millis, newest);
        let entry = Entry { version, value };
        world.narrate(format_args!("{me} begins {version} of {key:?}"));
        let outcome = world.promises.made(key, &entry);
        world.check(outcome, "versions must differ");
        entry
    };
    if let Err(refused) = spread(net, me, write, key, &entry, deadline).await {
        net.borrow_mut().moves(me).abandon(entry.version);
        return Err(refused);
    }
    pause().await;
    let version = entry.version;
    net.borrow().processes[me].table.apply(Key::new(key), entry);
    pause().await;
    Ok((version, existed))
}

/// Brings the entry to every owner in every view but this node.
async fn spread(
    net: &Net,
    me: Id,
    write: &mut WriteTicket,
    key: &[u8],
    entry: &Entry,
    deadline: i64,
) -> Result<(), Refused> {
    while net.borrow().now < deadline {
        let (mut targets, view) = {
            let mut world = net.borrow_mut();
            let moves = world.moves(me);
            (moves.targets(write, Key::new(key)), moves.current().id())
        };
        if targets.is_empty() {
            return Ok(());
        }
        net.borrow_mut().random.shuffle(&mut targets);
        for peer in targets {
            if replicate_to(net, me, &peer, key, entry, view).await {
                write.reached(peer);
            }
        }
        pause().await;
    }
    Err(Refused)
}

async fn replicate_to(
    net: &Net,
    me: Id,
    peer: &NodeId,
    key: &[u8],
    entry: &Entry,
    view: u64,
) -> bool {
    let (name, entry) = (key.to_vec(), entry.clone());
    let kept = call_from(net, me, &peer.location, |net, there| async move {
        keep(&net, there, &name, entry, view).await
    });
    match kept.await {
        Ok(theirs) if net.borrow_mut().moves(me).knows(theirs) => true,
        Ok(_) => contact(net, me, &peer.location).await,
        Err(_) => net.borrow().is_down(me, &peer.location),
    }
}

/// Keeps a copy that a primary sends; the current view here.
async fn keep(net: &Net, me: Id, key: &[u8], entry: Entry, view: u64) -> u64 {
    pause().await;
    {
        let mut world = net.borrow_mut();
        if world.moves(me).current().id() != view {
            world.processes[me].disturbed = true;
        }
    }
    pause().await;
    net.borrow().processes[me].table.apply(Key::new(key), entry);
    pause().await;
    net.borrow_mut().moves(me).current().id()
}

/// The newest entry that was acknowledged, or a newer one, from whoever is read.
async fn newest(net: &Net, me: Id, key: &[u8], deadline: i64) -> Result<Option<Entry>, Refused> {
    let at = Key::new(key);
    while net.borrow().now < deadline {
        let authority = net.borrow_mut().moves(me).authority(at);
        pause().await;
        let found = match authority {
            ReadRoute::Local => {
                let entitled =
                    |net: &Net| net.borrow_mut().moves(me).authority(at) == ReadRoute::Local;
                own(net, me, key, entitled).await
            }
            ReadRoute::Remote(view, owners) => ask(net, me, view, &owners, key).await,
            ReadRoute::Unavailable => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        pause().await;
    }
    Err(Refused)
}

/// Asks owners in turn; what the first that answers holds.
async fn ask(net: &Net, me: Id, view: u64, owners: &[NodeId], key: &[u8]) -> Option<Option<Entry>> {
    for owner in owners {
        let here = net.borrow().processes[me].location.clone();
        let answer = if owner.location == here {
            answer_at(net, me, view, key).await
        } else {
            let name = key.to_vec();
            let asked = call_from(net, me, &owner.location, |net, there| async move {
                answer_at(&net, there, view, &name).await
            });
            asked.await.ok().flatten()
        };
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// What this node holds as an owner in that view; nothing if it may not say.
async fn answer_at(net: &Net, me: Id, view: u64, key: &[u8]) -> Option<Option<Entry>> {
    let may = move |net: &Net| net.borrow_mut().moves(me).may_answer(view);
    if !may(net) {
        return None;
    }
    own(net, me, key, may).await
}

/// What the table holds, if this node is still entitled to say that it holds nothing.
async fn own(
    net: &Net,
    me: Id,
    key: &[u8],
    entitled: impl Fn(&Net) -> bool,
) -> Option<Option<Entry>> {
    pause().await;
    let entry = net.borrow().processes[me].table.read(Key::new(key));
    pause().await;
    (entry.is_some() || entitled(net)).then_some(entry)
}

// Rebalance.

/// Tells one other how far this node is, and hears how far that is.
pub async fn tell(net: Net, me: Id, peer: NodeId) {
    let (word, wants, asked) = {
        let mut world = net.borrow_mut();
        let moves = world.moves(me);
        (moves.word(&peer), moves.wants_history(), moves.asking())
    };
    let told = call_from(&net, me, &peer.location, |net, there| async move {
        pause().await;
        hear(&net, there, word.clone());
        pause().await;
        let mut world = net.borrow_mut();
        let moves = world.moves(there);
        let history = moves.history().filter(|_| wants);
        (moves.word(&word.from), history)
    });
    match told.await {
        Ok((word, history)) => {
            if !net.borrow_mut().moves(me).knows(word.view) {
                contact(&net, me, &peer.location).await;
            }
            pause().await;
            net.borrow_mut().moves(me).hear(Some(asked), word, history);
        }
        Err(_) => end_if_gone(&net, me, &peer),
    }
}

/// Hears what another one tells unasked.
fn hear(net: &Net, me: Id, word: RebalanceStatus) {
    net.borrow_mut().moves(me).hear(None, word, None);
}

/// A leaving node that cannot be reached has ended.
fn end_if_gone(net: &Net, me: Id, peer: &NodeId) {
    let mut world = net.borrow_mut();
    let there = world.at(&peer.location);
    if there.is_none_or(|there| world.processes[there].health == Health::Ended) {
        world.moves(me).end(peer);
    }
}

/// Copies one page from a source.
pub async fn pull_page(net: Net, me: Id, source: NodeId) {
    let (attempt, pull) = {
        let mut world = net.borrow_mut();
        let moves = world.moves(me);
        let pull = moves.pulls().into_iter().find(|(peer, _)| *peer == source);
        (moves.attempt(), pull)
    };
    if let Some((_, pull)) = pull {
        let page = call_from(&net, me, &source.location, |net, there| async move {
            give(&net, there, &pull).await
        });
        match page.await {
            Ok(Some(page)) => {
                for (key, entry) in page.entries {
                    pause().await;
                    net.borrow().processes[me]
                        .table
                        .apply(Key::new(&key), entry);
                    net.borrow_mut().count("keys copied");
                }
                pause().await;
                net.borrow_mut()
                    .moves(me)
                    .pulled(attempt, &source, page.next);
            }
            Ok(None) => (),
            Err(_) => end_if_gone(&net, me, &source),
        }
    }
    net.borrow_mut().processes[me].pulling.remove(&source);
}

/// Gives a page of one key.
async fn give(net: &Net, me: Id, pull: &Pull) -> Option<Page> {
    let offer = net.borrow_mut().moves(me).offer(pull)?;
    pause().await;
    let table = net.borrow().processes[me].table.clone();
    let (may_be, wanted) = (
        |points| offer.gives_among(points),
        |key: Key<'_>| offer.gives(key),
    );
    Some(table.page(&pull.cursor, 1, usize::MAX, may_be, wanted))
}

/// Drops what this node does not own, stripe by stripe.
pub async fn sweep(net: Net, me: Id, stripes: Vec<usize>) {
    let (current, replicas) = {
        let mut world = net.borrow_mut();
        let moves = world.moves(me);
        if !moves.current().contains(moves.me()) {
            // One that leaves drops nothing.
            return;
        }
        (moves.current().clone(), moves.replicas())
    };
    for stripe in stripes {
        pause().await;
        let mut world = net.borrow_mut();
        let process = &world.processes[me];
        let moves = &process.moves;
        let still = moves.is_settled() && moves.current().id() == current.id();
        let Some(replicas) = replicas.filter(|_| still && !process.disturbed) else {
            return;
        };
        let (owner, table) = (moves.me().clone(), process.table.clone());
        let mut dropped = Vec::new();
        let keep = std::cell::RefCell::new(&mut dropped);
        table.sweep(stripe, |key, _| {
            let kept = current.owns(&owner, key, replicas);
            if !kept {
                keep.borrow_mut().push(key.bytes.to_vec());
            }
            kept
        });
        for key in dropped {
            world.count("keys dropped");
            world.check_dropped(me, &key);
        }
    }
}
