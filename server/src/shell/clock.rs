//! The time that leases go by.

use std::time::{Duration, Instant};

/// Time since the member's start, from the system's monotonic clock: it does not go back, and no
/// setting of the date changes it. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}
