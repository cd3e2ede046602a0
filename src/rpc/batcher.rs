//! `Batcher`: group commit for calls: what many threads send to one peer goes in few calls.
//!
//! Each peer has a queue. With no call in flight an item is sent at once; otherwise it joins
//! the next batch. No timer is involved: the busier a peer, the larger its batches.
//!
//! There is no sender thread. A caller sends the next batch of each idle queue that it has
//! items for, all at once, with its own items and those of others. Then it waits. When a call
//! is over, the queue is idle again, and one of the callers that wait for it is woken to send
//! the next batch.
//!
//! Every queued item has a thread that waits for it, so queues are as bounded as threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::error::Error;
use crate::location::Location;
use crate::rpc::fanout::call_all;
use crate::rpc::pool::Pool;

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
    /// The queues of the peers for which items wait or a call is in flight. Held briefly, never
    /// during a call.
    queues: Mutex<BTreeMap<Location, PeerQueue<Q, A>>>,
}

/// The items that wait for one peer.
struct PeerQueue<Q, A> {
    waiting: VecDeque<(Q, Ticket<A>)>,
    /// A call is in flight, or about to be.
    is_busy: bool,
}

/// Who gets the reply to an item.
struct Ticket<A> {
    caller: Arc<Caller<A>>,
    /// The item's place among those of the caller.
    index: usize,
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
        let caller = Arc::new(Caller::new(items.len()));
        let peers: BTreeSet<Location> = items.iter().map(|(to, _)| to.clone()).collect();
        self.enqueue(items, &caller);
        loop {
            if let Some(replies) = caller.take_replies() {
                return replies;
            }
            let calls = self.take_calls(&peers, &caller);
            if calls.is_empty() {
                thread::park();
            } else {
                self.make_calls(calls);
            }
        }
    }

    /// Puts items into the queues of their peers.
    fn enqueue(&self, items: Vec<(Location, Q)>, caller: &Arc<Caller<A>>) {
        let mut queues = self.queues.lock();
        for (index, (to, item)) in items.into_iter().enumerate() {
            let caller = caller.clone();
            let queue = queues.entry(to).or_insert_with(|| PeerQueue {
                waiting: VecDeque::new(),
                is_busy: false,
            });
            queue.waiting.push_back((item, Ticket { caller, index }));
        }
    }

    /// Takes the next batch of each idle queue among those of `peers`. If there is none, the
    /// caller is going to wait.
    fn take_calls(&self, peers: &BTreeSet<Location>, caller: &Caller<A>) -> Vec<Call<'_, Q, A>> {
        let mut queues = self.queues.lock();
        let take_call = |to: &Location| {
            let (items, tickets) = queues.get_mut(to)?.take_batch(self.max_size)?;
            let in_flight = InFlight {
                batcher: self,
                to: to.clone(),
                tickets,
                replies: Vec::new(),
            };
            let to = to.clone();
            Some((Batch { to, items }, in_flight))
        };
        let calls: Vec<Call<'_, Q, A>> = peers.iter().filter_map(take_call).collect();
        caller.progress.lock().is_waiting = calls.is_empty();
        calls
    }

    /// Makes calls in parallel and delivers their replies.
    fn make_calls(&self, calls: Vec<Call<'_, Q, A>>) {
        let (batches, in_flight): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let mut in_flight: Vec<Option<InFlight<'_, Q, A>>> =
            in_flight.into_iter().map(Some).collect();
        (self.send)(&batches, &mut |index, replies| {
            if let Some(mut call) = in_flight.get_mut(index).and_then(Option::take) {
                call.replies = replies;
            }
        });
    }
}

impl<Q, A> Batcher<Q, A> {
    /// Makes a queue idle, and wakes one of the callers that wait for it. If none waits, all are
    /// about to look for idle queues, as they do before they wait.
    fn release(&self, peer: &Location) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(peer) else {
            return;
        };
        queue.is_busy = false;
        let mut callers = queue.waiting.iter().map(|(_, ticket)| &ticket.caller);
        let next = callers.find(|caller| caller.stop_waiting()).cloned();
        if queue.waiting.is_empty() {
            queues.remove(peer);
        }
        drop(queues);
        if let Some(next) = next {
            next.thread.unpark();
        }
    }
}

impl<Q: Item, A> PeerQueue<Q, A> {
    /// The items of the next call, which makes the queue busy. None if it is, or nothing waits.
    fn take_batch(&mut self, max_size: usize) -> Option<(Vec<Q>, Vec<Ticket<A>>)> {
        if self.is_busy {
            return None;
        }
        let (first, _) = self.waiting.front()?;
        let mut size = 0;
        let fits = |(item, _): &&(Q, Ticket<A>)| {
            size += item.size();
            size <= max_size && item.can_join(first)
        };
        let count = self.waiting.iter().take_while(fits).count().max(1);
        self.is_busy = true;
        Some(self.waiting.drain(..count).unzip())
    }
}

/// A batch that was taken from its queue, and what is to be done when its call is over.
type Call<'a, Q, A> = (Batch<Q>, InFlight<'a, Q, A>);

/// A call in flight. When it is dropped, however the call ends, its queue becomes idle and the
/// replies are delivered.
struct InFlight<'a, Q, A> {
    batcher: &'a Batcher<Q, A>,
    to: Location,
    tickets: Vec<Ticket<A>>,
    replies: Vec<A>,
}

impl<Q, A> Drop for InFlight<'_, Q, A> {
    fn drop(&mut self) {
        self.batcher.release(&self.to);
        let mut replies = self.replies.drain(..);
        for ticket in &self.tickets {
            ticket.caller.deliver(ticket.index, replies.next());
        }
    }
}

/// A thread that waits for replies.
struct Caller<A> {
    thread: Thread,
    /// Locked briefly, either alone or after the queues.
    progress: Mutex<Progress<A>>,
}

struct Progress<A> {
    replies: Vec<Option<A>>,
    /// Items whose calls are not over.
    missing: usize,
    /// The caller waits, or is about to: it can be woken to send a batch.
    is_waiting: bool,
}

impl<A> Caller<A> {
    /// The current thread, with this number of items.
    fn new(items: usize) -> Caller<A> {
        Caller {
            thread: thread::current(),
            progress: Mutex::new(Progress {
                replies: (0..items).map(|_| None).collect(),
                missing: items,
                is_waiting: false,
            }),
        }
    }

    /// The replies, if the calls of all items are over.
    fn take_replies(&self) -> Option<Vec<Option<A>>> {
        let mut progress = self.progress.lock();
        (progress.missing == 0).then(|| std::mem::take(&mut progress.replies))
    }

    /// Ends the wait of the caller, who is to be woken. False if it does not wait.
    fn stop_waiting(&self) -> bool {
        std::mem::take(&mut self.progress.lock().is_waiting)
    }

    /// The call of an item is over. Wakes the caller when all are.
    fn deliver(&self, index: usize, reply: Option<A>) {
        let mut progress = self.progress.lock();
        progress.replies[index] = reply;
        progress.missing -= 1;
        if progress.missing == 0 {
            drop(progress);
            self.thread.unpark();
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
            while batcher.queues.lock()[&at(1)].waiting.len() < 7 {
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
            while !batcher.queues.lock().contains_key(&at(1)) {
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
    fn a_queue_is_sent_by_a_caller_that_waits_while_the_first_one_is_busy_elsewhere() {
        let (go_on, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<()>()).unzip();
        let gates = Mutex::new(gates.into_iter().map(Some).collect::<Vec<_>>());
        // The first call to each peer goes on when it is told to.
        let batcher = batcher(8, move |location, items| {
            let gate = gates.lock()[usize::from(location.port())].take();
            if let Some(gate) = gate {
                gate.recv().unwrap();
            }
            items.to_vec()
        });
        let waiting = |port| {
            batcher
                .queues
                .lock()
                .get(&at(port))
                .map(|q| q.waiting.len())
        };
        let wait_until = |port, count| {
            while waiting(port) != Some(count) {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| batcher.submit(vec![(at(2), 1)]));
            wait_until(2, 0);
            let busy = scope.spawn(|| batcher.submit(vec![(at(1), 2), (at(2), 3)]));
            wait_until(1, 0);
            let waiter = scope.spawn(|| batcher.submit(vec![(at(2), 4)]));
            wait_until(2, 2);
            go_on[2].send(()).unwrap();
            assert_eq!(waiter.join().unwrap(), [Some(4)]);
            assert!(!busy.is_finished());
            go_on[1].send(()).unwrap();
            assert_eq!(busy.join().unwrap(), [Some(2), Some(3)]);
        });
    }

    #[test]
    fn idle_queues_are_dropped() {
        let batcher = batcher(8, |_, items| items.to_vec());
        for port in 1..=100 {
            batcher.submit(vec![(at(port), 1)]);
        }
        assert!(batcher.queues.lock().is_empty());
    }

    #[test]
    fn an_item_beyond_the_replies_gets_none() {
        let short = batcher(8, |_, items| items[1..].to_vec());
        let items = [1, 2, 3].map(|item| (at(1), item));
        assert_eq!(short.submit(items.to_vec()), [Some(2), Some(3), None]);
        let silent = Batcher::<u32, u32>::new(8, |_, _| ());
        assert_eq!(silent.submit(items.to_vec()), [None; 3]);
    }

    #[test]
    fn only_a_caller_that_waits_is_woken_to_send_and_only_once() {
        let batcher = batcher(8, |_, items| items.to_vec());
        let caller = Arc::new(Caller::new(1));
        let peers = BTreeSet::from([at(1)]);
        batcher.enqueue(vec![(at(1), 1)], &caller);
        assert!(!caller.stop_waiting(), "it does not wait yet");
        let calls = batcher.take_calls(&peers, &caller);
        assert!(!caller.stop_waiting(), "it has a call to make");
        assert!(batcher.take_calls(&peers, &caller).is_empty());
        assert!(caller.stop_waiting());
        assert!(!caller.stop_waiting(), "it is woken already");
        batcher.make_calls(calls);
        assert_eq!(caller.take_replies(), Some(vec![Some(1)]));
    }
}
