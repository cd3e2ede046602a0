//! `Batcher`: group commit for calls: what many threads send to one peer goes in few calls.
//!
//! Each peer has a queue. With no call in flight an item is sent at once; otherwise it joins
//! the next batch. No timer is involved: the busier a peer, the larger its batches.
//!
//! There is no sender thread. The first caller on an idle queue becomes its leader: it sends
//! one batch with its own items and those of others, completes the waiters, and hands
//! leadership to one of the callers that still wait. A caller whose items go to several
//! peers leads all their idle queues at once, with one call to each.
//!
//! Every queued item has a thread that waits for it, so queues are as bounded as threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::location::Location;
use crate::rpc::fanout::call_all;
use crate::rpc::pool::Pool;

/// Queues kept before idle ones are dropped.
const MAX_QUEUES: usize = 1024;

/// What is batched.
pub trait Item {
    /// What it adds to a batch, in the unit of the batcher's maximum.
    fn size(&self) -> usize;

    /// Can it go in one call with `first`, the batch's first item?
    fn can_join(&self, _first: &Self) -> bool {
        true
    }
}

/// The items of one call.
pub struct Batch<Q> {
    /// The peer to call.
    pub to: Location,
    /// At least one item. All can join the first.
    pub items: Vec<Q>,
}

/// Called when the call of a batch is over, with the index of the batch and the replies to
/// its items in order. Items beyond the replies get none.
pub type OnReply<'a, A> = &'a mut dyn FnMut(usize, Vec<A>);

/// Sends batches, one call each, in parallel if it can. Called on a caller's thread; may
/// block as long as calls may take.
pub type SendBatches<Q, A> = dyn Fn(&[Batch<Q>], OnReply<'_, A>) + Send + Sync;

/// How a batch is sent as one call of a client `C`, and how its replies are read. Called on a
/// caller's thread.
pub trait BatchCall<C, Q, A>: Send + Sync {
    /// Sends the call of a batch.
    ///
    /// # Errors
    /// It could not be sent.
    fn send(&self, client: &mut C, batch: &Batch<Q>) -> thrift::Result<()>;

    /// Reads the replies to the items of a batch, in order. There may be fewer.
    ///
    /// # Errors
    /// No reply, or a refusal.
    fn receive(&self, client: &mut C, batch: &Batch<Q>) -> thrift::Result<Vec<A>>;

    /// The replies to the items of a batch whose call failed.
    fn on_error(&self, batch: &Batch<Q>, error: &Error) -> Vec<A>;
}

/// Batches items `Q`, whose replies are `A`. Shared by threads.
pub struct Batcher<Q, A> {
    send: Box<SendBatches<Q, A>>,
    max_size: usize,
    /// The queue of each peer.
    queues: Mutex<BTreeMap<Location, Arc<PeerQueue<Q, A>>>>,
}

/// The items that wait for one peer.
struct PeerQueue<Q, A> {
    location: Location,
    state: Mutex<State<Q, A>>,
}

struct State<Q, A> {
    waiting: VecDeque<(Q, Promise<A>)>,
    /// A call is in flight, or about to be.
    is_led: bool,
}

impl<Q: Item, A> Batcher<Q, A> {
    /// A batcher that calls peers by `send`. A batch has items up to `max_size` in all, or a
    /// single larger one.
    pub fn new(
        max_size: usize,
        send: impl Fn(&[Batch<Q>], OnReply<'_, A>) + Send + Sync + 'static,
    ) -> Batcher<Q, A> {
        Batcher {
            send: Box::new(send),
            max_size,
            queues: Mutex::default(),
        }
    }

    /// A batcher that calls peers over the connections of `pool`, several at once.
    pub fn over<C>(
        pool: Arc<Pool<C>>,
        max_size: usize,
        call: impl BatchCall<C, Q, A> + 'static,
    ) -> Batcher<Q, A>
    where
        C: Send + 'static,
    {
        Batcher::new(max_size, move |batches, on_reply| {
            let peers: Vec<Location> = batches.iter().map(|batch| batch.to.clone()).collect();
            let send = |client: &mut C, index: usize| call.send(client, &batches[index]);
            let receive = |client: &mut C, index: usize| call.receive(client, &batches[index]);
            call_all(&pool, &peers, send, receive, |index, result| {
                let failed = |e| call.on_error(&batches[index], &e);
                on_reply(index, result.unwrap_or_else(failed));
            });
        })
    }

    /// Sends each item to its peer and returns the replies in order: None for an item whose
    /// call gave none.
    ///
    /// Blocks until all calls are over: for each peer the one in flight, and those that it
    /// takes to send what waits before.
    pub fn submit(&self, items: Vec<(Location, Q)>) -> Vec<Option<A>> {
        if let [(to, _)] = &items[..] {
            let queue = self.queue(to);
            if queue.try_lead_if_empty() {
                return self.send_alone(&queue, items);
            }
        }
        let waiter = Arc::new(Waiter::new(items.len()));
        let queues = self.enqueue(items, &waiter);
        loop {
            if let Some(replies) = waiter.take_or_park() {
                return replies;
            }
            let mut led = lead_idle(&queues);
            let given = if led.is_empty() {
                match waiter.wait() {
                    Wakeup::Complete(replies) => return replies,
                    Wakeup::Lead(location) => {
                        led = lead_idle(&queues);
                        Some(location)
                    }
                }
            } else {
                waiter.unpark()
            };
            let is_given = |queue: &&Arc<PeerQueue<Q, A>>| Some(&queue.location) == given.as_ref();
            led.extend(queues.iter().filter(is_given).map(|queue| &**queue));
            self.send_next(&led);
        }
    }

    /// Sends the only item of a caller that leads an empty queue. It needs no waiter, since
    /// no other thread can deliver its reply.
    fn send_alone(&self, queue: &PeerQueue<Q, A>, items: Vec<(Location, Q)>) -> Vec<Option<A>> {
        let mut lead = Some(Lead(queue));
        let mut reply = None;
        let batch = |(to, item)| Batch {
            to,
            items: vec![item],
        };
        let batches: Vec<Batch<Q>> = items.into_iter().map(batch).collect();
        (self.send)(&batches, &mut |_, replies| {
            drop(lead.take());
            reply = replies.into_iter().next();
        });
        vec![reply]
    }

    /// Puts items into the queues of their peers.
    fn enqueue(
        &self,
        items: Vec<(Location, Q)>,
        waiter: &Arc<Waiter<A>>,
    ) -> Vec<Arc<PeerQueue<Q, A>>> {
        let mut queues: Vec<Arc<PeerQueue<Q, A>>> = Vec::new();
        for (index, (location, item)) in items.into_iter().enumerate() {
            let known = queues.iter().find(|queue| queue.location == location);
            let queue = known.cloned().unwrap_or_else(|| {
                queues.push(self.queue(&location));
                queues[queues.len() - 1].clone()
            });
            let promise = waiter.promise(index);
            queue.state.lock().waiting.push_back((item, promise));
        }
        queues
    }

    /// Sends the next batch of each queue, which this thread leads, and passes the leads on.
    fn send_next(&self, queues: &[&PeerQueue<Q, A>]) {
        let (mut batches, mut open) = (Vec::new(), Vec::new());
        for queue in queues {
            let lead = Lead(queue);
            let (items, promises): (Vec<Q>, Vec<Promise<A>>) =
                lead.take_batch(self.max_size).into_iter().unzip();
            if !items.is_empty() {
                let to = queue.location.clone();
                batches.push(Batch { to, items });
                open.push(Some((lead, promises)));
            }
        }
        (self.send)(&batches, &mut |index, replies| {
            let Some((lead, promises)) = open.get_mut(index).and_then(Option::take) else {
                return;
            };
            drop(lead);
            for (promise, reply) in promises.into_iter().zip(replies) {
                promise.complete(reply);
            }
        });
    }

    fn queue(&self, location: &Location) -> Arc<PeerQueue<Q, A>> {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(location) {
            return queue.clone();
        }
        if queues.len() >= MAX_QUEUES {
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        let queue = Arc::new(PeerQueue {
            location: location.clone(),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                is_led: false,
            }),
        });
        queues.insert(location.clone(), queue.clone());
        queue
    }

    /// Drops the queue of a peer that is gone. Items that wait in it are still sent.
    pub fn close(&self, location: &Location) {
        self.queues.lock().remove(location);
    }
}

/// Takes the lead of those queues that have items and no leader.
fn lead_idle<Q, A>(queues: &[Arc<PeerQueue<Q, A>>]) -> Vec<&PeerQueue<Q, A>> {
    let idle = queues.iter().filter(|queue| queue.try_lead());
    idle.map(|queue| &**queue).collect()
}

impl<Q, A> PeerQueue<Q, A> {
    /// Takes the lead if there is no leader and something waits.
    fn try_lead(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = !state.is_led && !state.waiting.is_empty();
        state.is_led |= is_free;
        is_free
    }

    /// Takes the lead if there is no leader and nothing waits.
    fn try_lead_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = !state.is_led && state.waiting.is_empty();
        state.is_led |= is_free;
        is_free
    }

    /// Ends the lead and gives it to a parked caller. If none is parked, all callers are
    /// about to look for idle queues, as they do before they wait.
    fn pass_lead(&self) {
        let mut state = self.state.lock();
        let mut waiting = state.waiting.iter();
        let next = waiting.find_map(|(_, promise)| promise.offer_lead(&self.location));
        state.is_led = next.is_some();
        drop(state);
        if let Some(next) = next {
            next.notify();
        }
    }
}

/// The lead of a queue. It is passed on when this is dropped, however the call ends.
struct Lead<'a, Q, A>(&'a PeerQueue<Q, A>);

impl<Q: Item, A> Lead<'_, Q, A> {
    /// The items of the next call.
    fn take_batch(&self, max_size: usize) -> Vec<(Q, Promise<A>)> {
        let mut state = self.0.state.lock();
        let waiting = &state.waiting;
        let mut size = 0;
        let mut fits = |(item, _): &&(Q, Promise<A>)| {
            size += item.size();
            size <= max_size && item.can_join(&waiting[0].0)
        };
        let count = waiting.iter().take_while(|item| fits(item)).count();
        let count = count.max(1).min(waiting.len());
        state.waiting.drain(..count).collect()
    }
}

impl<Q, A> Drop for Lead<'_, Q, A> {
    fn drop(&mut self) {
        self.0.pass_lead();
    }
}

/// The replies that one caller waits for.
///
/// Its lock is held briefly, either alone or after that of a queue.
struct Waiter<A> {
    state: Mutex<Pending<A>>,
    /// Notified when the caller has something to do.
    changed: Condvar,
}

struct Pending<A> {
    replies: Vec<Option<A>>,
    /// Replies that are still missing.
    missing: usize,
    /// The caller waits, or is about to: it can be offered the lead of a queue.
    is_parked: bool,
    /// The queue whose lead the caller was given.
    lead: Option<Location>,
}

/// Why a caller stops waiting.
enum Wakeup<A> {
    /// All replies are there.
    Complete(Vec<Option<A>>),
    /// The caller leads the queue of this location.
    Lead(Location),
}

impl<A> Waiter<A> {
    /// Waits for `count` replies.
    fn new(count: usize) -> Waiter<A> {
        let state = Pending {
            replies: (0..count).map(|_| None).collect(),
            missing: count,
            is_parked: false,
            lead: None,
        };
        Waiter {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The promise of the reply at `index`.
    fn promise(self: &Arc<Self>, index: usize) -> Promise<A> {
        Promise {
            index,
            waiter: self.clone(),
            is_kept: false,
        }
    }

    /// Takes the replies if all are there. Otherwise the caller is parked: from now on it can
    /// be given the lead of a queue.
    fn take_or_park(&self) -> Option<Vec<Option<A>>> {
        let mut state = self.state.lock();
        state.is_parked = state.missing > 0;
        (!state.is_parked).then(|| std::mem::take(&mut state.replies))
    }

    /// The caller has something to do. Returns the queue whose lead it was given meanwhile.
    fn unpark(&self) -> Option<Location> {
        let mut state = self.state.lock();
        state.is_parked = false;
        state.lead.take()
    }

    /// Blocks until the caller has something to do.
    fn wait(&self) -> Wakeup<A> {
        let mut state = self.state.lock();
        while !state.is_ready() {
            self.changed.wait(&mut state);
        }
        state.is_parked = false;
        match state.lead.take() {
            Some(location) => Wakeup::Lead(location),
            None => Wakeup::Complete(std::mem::take(&mut state.replies)),
        }
    }

    /// Wakes the caller.
    fn notify(&self) {
        self.changed.notify_one();
    }
}

impl<A> Pending<A> {
    fn is_ready(&self) -> bool {
        self.missing == 0 || self.lead.is_some()
    }
}

/// The reply to one item. Dropped without [`complete`](Promise::complete), the item gets none.
struct Promise<A> {
    index: usize,
    waiter: Arc<Waiter<A>>,
    is_kept: bool,
}

impl<A> Promise<A> {
    /// Gives the caller the lead of a queue if it only waits. The result is to be notified.
    fn offer_lead(&self, location: &Location) -> Option<Arc<Waiter<A>>> {
        let mut state = self.waiter.state.lock();
        let accepts = state.is_parked && !state.is_ready();
        if accepts {
            state.lead = Some(location.clone());
        }
        accepts.then(|| self.waiter.clone())
    }

    /// Delivers the reply.
    fn complete(mut self, reply: A) {
        self.is_kept = true;
        self.finish(Some(reply));
    }

    fn finish(&self, reply: Option<A>) {
        let mut state = self.waiter.state.lock();
        state.replies[self.index] = reply;
        state.missing -= 1;
        let is_last = state.missing == 0;
        drop(state);
        if is_last {
            self.waiter.notify();
        }
    }
}

impl<A> Drop for Promise<A> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.finish(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    impl Item for u32 {
        fn size(&self) -> usize {
            1
        }

        fn can_join(&self, first: &u32) -> bool {
            self / 1000 == first / 1000
        }
    }

    fn at(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    /// A batcher whose batches are sent one after another.
    fn batcher(
        max_size: usize,
        send: impl Fn(&Location, &[u32]) -> Vec<u32> + Send + Sync + 'static,
    ) -> Batcher<u32, u32> {
        Batcher::new(max_size, move |batches, on_reply| {
            for (index, batch) in batches.iter().enumerate() {
                on_reply(index, send(&batch.to, &batch.items));
            }
        })
    }

    #[test]
    fn replies_are_in_the_order_of_the_items() {
        let batcher = batcher(3, |location, items| {
            assert!(items.len() <= 3, "a batch is no larger than the maximum");
            let reply = |item| u32::from(location.port()) * 10_000 + item * 2;
            items.iter().map(reply).collect()
        });
        let port = |item| 1 + item as u16 % 3;
        let items = (0..100).map(|item| (at(port(item)), item));
        let reply = |item| Some(u32::from(port(item)) * 10_000 + item * 2);
        let expected: Vec<_> = (0..100).map(reply).collect();
        assert_eq!(batcher.submit(items.collect()), expected);
        assert_eq!(batcher.submit(Vec::new()), Vec::new());
    }

    #[test]
    fn a_batch_has_only_items_that_can_join_its_first() {
        let batcher = batcher(100, |_, items| {
            let first = items[0] / 1000;
            assert!(items.iter().all(|item| item / 1000 == first), "{items:?}");
            vec![items.len() as u32; items.len()]
        });
        let items = [1, 2, 1001, 3, 4, 5].map(|item| (at(1), item));
        let sizes = [2, 2, 1, 3, 3, 3].map(Some);
        assert_eq!(batcher.submit(items.to_vec()), sizes);
    }

    #[test]
    fn items_that_come_during_a_call_join_the_next_batch() {
        let (started, wait_for_start) = mpsc::channel();
        let (go_on, wait_to_go_on) = mpsc::channel::<()>();
        let gates = Mutex::new((started, wait_to_go_on));
        let batcher = batcher(1000, move |_, items| {
            let (started, go_on) = &*gates.lock();
            started.send(items.len()).unwrap();
            go_on.recv().unwrap();
            items.to_vec()
        });
        thread::scope(|scope| {
            scope.spawn(|| batcher.submit(vec![(at(1), 0)]));
            assert_eq!(wait_for_start.recv().unwrap(), 1);
            for item in 1..8 {
                let batcher = &batcher;
                scope.spawn(move || assert_eq!(batcher.submit(vec![(at(1), item)]), [Some(item)]));
            }
            while batcher.queue(&at(1)).state.lock().waiting.len() < 7 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            assert_eq!(wait_for_start.recv().unwrap(), 7);
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn every_submit_ends_however_many_threads_send_to_however_many_peers() {
        let batcher = batcher(8, |_, items| items.to_vec());
        thread::scope(|scope| {
            for sender in 0..16 {
                let batcher = &batcher;
                scope.spawn(move || {
                    for round in 0..500 {
                        let count = 1 + (sender + round) % 4;
                        let item = |i: u32| (at(1 + ((sender + round + i) % 5) as u16), i);
                        let expected: Vec<_> = (0..count).map(Some).collect();
                        assert_eq!(batcher.submit((0..count).map(item).collect()), expected);
                    }
                });
            }
        });
    }

    #[test]
    fn a_slow_peer_delays_only_its_own_items() {
        let (go_on, wait_to_go_on) = mpsc::channel::<()>();
        let wait_to_go_on = Mutex::new(wait_to_go_on);
        // The call to the first peer is over last.
        let send = move |batches: &[Batch<u32>], on_reply: OnReply<'_, u32>| {
            let is_slow = |batch: &Batch<u32>| batch.to.port() == 1;
            for slow in [false, true] {
                let calls = batches.iter().enumerate();
                for (index, batch) in calls.filter(|(_, batch)| is_slow(batch) == slow) {
                    if slow {
                        wait_to_go_on.lock().recv().unwrap();
                    }
                    on_reply(index, batch.items.clone());
                }
            }
        };
        let batcher = Batcher::new(8, send);
        thread::scope(|scope| {
            scope.spawn(|| batcher.submit(vec![(at(1), 1), (at(2), 2)]));
            while !batcher.queue(&at(1)).state.lock().is_led {
                thread::yield_now();
            }
            assert_eq!(batcher.submit(vec![(at(2), 3)]), [Some(3)]);
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn a_call_that_panics_leaves_no_caller_waiting() {
        let batcher = batcher(1, |_, items| match items {
            [13] => panic!("as this test wants it"),
            _ => items.to_vec(),
        });
        thread::scope(|scope| {
            for items in [vec![13], vec![13, 7]] {
                let items = items.into_iter().map(|item| (at(1), item)).collect();
                let failed = scope.spawn(|| batcher.submit(items)).join();
                assert!(failed.is_err());
                assert_eq!(batcher.submit(vec![(at(1), 7)]), [Some(7)]);
            }
        });
    }

    #[test]
    fn idle_queues_are_dropped_when_there_are_too_many() {
        let batcher = batcher(8, |_, items| items.to_vec());
        for port in 1..=2 * MAX_QUEUES as u16 {
            batcher.submit(vec![(at(port), 1)]);
        }
        assert!(batcher.queues.lock().len() <= MAX_QUEUES);
    }

    #[test]
    fn a_completed_promise_has_a_reply_and_a_dropped_one_has_none() {
        let waiter = Arc::new(Waiter::new(3));
        let [first, second, third] = [0, 1, 2].map(|index| waiter.promise(index));
        drop(second);
        third.complete(3);
        assert_eq!(waiter.take_or_park(), None, "one is missing");
        first.complete(1);
        let Wakeup::Complete(replies) = waiter.wait() else {
            panic!("no lead was offered");
        };
        assert_eq!(replies, [Some(1), None, Some(3)]);
    }

    #[test]
    fn only_a_parked_caller_with_nothing_to_do_accepts_a_lead() {
        let waiter = Arc::new(Waiter::<u32>::new(1));
        let promise = waiter.promise(0);
        let [one, other] = [1, 2].map(|port| Location::new("127.0.0.1", port).unwrap());
        assert!(promise.offer_lead(&one).is_none(), "it does not wait yet");
        assert!(waiter.take_or_park().is_none());
        assert!(promise.offer_lead(&one).is_some());
        assert!(
            promise.offer_lead(&other).is_none(),
            "it has a lead to take"
        );
        assert_eq!(waiter.unpark(), Some(one));
        assert!(
            promise.offer_lead(&other).is_none(),
            "it does not wait any more"
        );
    }
}
