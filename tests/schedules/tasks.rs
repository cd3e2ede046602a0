//! `Tasks`: coroutines that go on step by step, in whatever order a schedule wants.
//!
//! An operation is written as the shell writes it, as one function from top to
//! bottom, with a [`pause`] wherever another thread or node may come between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Something under way, which ends with the process that does it.
pub struct Task {
    /// The process that does it; none for a client outside.
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

    /// Goes on to the next pause; was there one?
    pub fn step(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.steps.as_mut().poll(&mut context).is_pending()
    }
}

/// A point where anything else may happen before the task goes on.
pub async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        Poll::Pending
    })
    .await;
}
