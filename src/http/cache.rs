//! `Cache`: answers that are computed once for all who ask at about the same time.
//!
//! An answer is good for a second, and for twenty times as long as it took to compute it (at most
//! 5 s). So a node spends little time on answers, however many pages are open. While an answer is
//! computed, those who ask get the one before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most answers kept.
const MAX_ANSWERS: usize = 64;

/// How long an answer is good for, at least and at most.
const MIN_AGE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(5);

/// How many times as long as it took to compute.
const AGE_FACTOR: u32 = 20;

/// How long one waits for the first answer that another thread computes.
const WAIT: Duration = Duration::from_secs(10);

/// Answers by what was asked.
#[derive(Default)]
pub(super) struct Cache {
    /// Locked to look an answer up and to put one in, never while one is computed.
    answers: Mutex<HashMap<Vec<u8>, Answer>>,
    /// Notified when an answer was put in.
    computed: Condvar,
}

/// The last answer, and until when it is good, or the next one will have been computed.
type Answer = (Option<Arc<Vec<u8>>>, Instant);

impl Cache {
    /// The answer to `question`, which `compute` computes if it must be. None if too many are
    /// computed, or one takes too long. Blocks as long as `compute` does, at most 10 s longer.
    pub fn get(&self, question: &[u8], compute: impl FnOnce() -> Vec<u8>) -> Option<Arc<Vec<u8>>> {
        let began = Instant::now();
        let mut answers = self.answers.lock();
        while let Some((answer, _)) = answers.get(question).filter(|(_, until)| *until >= began) {
            if answer.is_some() {
                return answer.clone();
            }
            let waited = self.computed.wait_until(&mut answers, began + WAIT);
            if waited.timed_out() {
                return None;
            }
        }
        let before = answers.remove(question).and_then(|(answer, _)| answer);
        answers.retain(|_, (_, until)| *until >= began);
        // The status, whose question is empty, is answered in any case.
        if answers.len() >= MAX_ANSWERS && !question.is_empty() {
            return None;
        }
        answers.insert(question.to_vec(), (before, began + WAIT));
        drop(answers);
        let answer = Arc::new(compute());
        let now = Instant::now();
        let age = ((now - began) * AGE_FACTOR).clamp(MIN_AGE, MAX_AGE);
        let good = (Some(answer.clone()), now + age);
        self.answers.lock().insert(question.to_vec(), good);
        self.computed.notify_all();
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread;

    #[test]
    fn many_who_ask_at_once_cost_one_computation() {
        let (cache, computed) = (Cache::default(), AtomicUsize::new(0));
        let ask = || {
            cache.get(b"status", || {
                computed.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(20));
                b"answer".to_vec()
            })
        };
        thread::scope(|scope| {
            let asked: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            for asked in asked {
                assert_eq!(asked.join().unwrap().unwrap().as_slice(), b"answer");
            }
        });
        assert_eq!(computed.load(Relaxed), 1);
    }

    #[test]
    fn the_answer_before_is_given_while_the_next_one_is_computed() {
        let cache = Cache::default();
        cache.get(b"", || b"first".to_vec());
        cache.answers.lock().get_mut(&b""[..]).unwrap().1 = Instant::now();
        thread::sleep(Duration::from_millis(1));
        let second = cache.get(b"", || {
            let meanwhile = cache.get(b"", || unreachable!("computed twice"));
            assert_eq!(meanwhile.unwrap().as_slice(), b"first");
            b"second".to_vec()
        });
        assert_eq!(second.unwrap().as_slice(), b"second");
    }

    #[test]
    fn no_more_answers_are_kept_than_the_maximum() {
        let cache = Cache::default();
        let asked = (0..1000u32).filter_map(|n| cache.get(&n.to_be_bytes(), Vec::new));
        assert_eq!(asked.count(), MAX_ANSWERS);
        assert!(cache.get(b"", Vec::new).is_some());
    }
}
