//! Pauses between attempts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first pause and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Pauses that double, each shortened by chance down to its half, so that members which lost each
/// other at once do not all come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: PAUSES.0 }
    }

    pub(super) fn reset(&mut self) {
        self.next = PAUSES.0;
    }

    pub(super) fn pause(&mut self) -> Duration {
        // The standard library's only source of chance; good enough for this.
        let chance = RandomState::new().build_hasher().finish();
        let half = self.next / 2;
        let pause = half + half.mul_f64((chance % 1024) as f64 / 1024.0);
        self.next = (self.next * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::new();
        for longest in [100, 200, 400, 800, 1000, 1000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= PAUSES.0);
    }
}
