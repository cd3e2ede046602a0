//! `Task`: a coroutine that a schedule continues step by step, in any order.
//!
//! An operation is written as the product writes it, as one function from top to bottom, with
//! a [`pause`] wherever another thread or node may act in between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// An operation in progress. It ends with the process that executes it.
pub struct Task {
    /// The process that executes it. None for a client.
    pub owner: Option<usize>,
    steps: Pin<Box<dyn Future<Output = ()>>>,
}

impl Task {
    pub fn new(owner: Option<usize>, steps: impl Future<Output = ()> + 'static) -> Task {
        Task {
            owner,
            steps: Box::pin(steps),
        }
    }

    /// Continues to the next pause. False if the task has ended.
    pub fn step(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.steps.as_mut().poll(&mut context).is_pending()
    }
}

/// A point where anything else may happen before the task continues.
pub async fn pause() {
    let mut has_paused = false;
    std::future::poll_fn(|_| {
        if has_paused {
            return Poll::Ready(());
        }
        has_paused = true;
        Poll::Pending
    })
    .await;
}
