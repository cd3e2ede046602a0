//! Pauses between retries, with jitter, so that callers that failed together do not retry
//! together.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::membership::Rng;

/// A pause between half of `base` and one and a half times `base`.
pub fn jittered(base: Duration) -> Duration {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(()));
    }
    let mut random = Rng::new(STATE.get());
    STATE.set(random.bits());
    base.mul_f64(0.5 + random.fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_within_half_and_one_and_a_half() {
        let base = Duration::from_millis(10);
        let pauses: Vec<Duration> = (0..100).map(|_| jittered(base)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (base / 2..=base * 3 / 2).contains(pause))
        );
        let first = pauses[0];
        assert!(pauses.iter().any(|pause| *pause != first));
    }
}
