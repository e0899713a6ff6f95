//! Mode `periodic`: keep the history of the last P.
//!
//! The revision is sampled ten times an hour, or ten times in P if that is less. The window of
//! samples is P and one pause wide; its oldest sample is what is compacted to, for the first time
//! after P, then every hour, or every P if that is less.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Samples in an hour, or in a shorter period.
const SAMPLES: u32 = 10;

/// Deviation: etcd divides by zero at periods below 10 ns, and spins at those of microseconds.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Periodic {
    period: Duration,
    /// Oldest first, never empty, at most `window` of them.
    samples: VecDeque<i64>,
    window: usize,
    /// How long after the last compaction the next one is due.
    wait: Duration,
    /// When the last one was done, or the member started.
    last_done: Duration,
    /// The revision of the last one; 0 before it.
    last_revision: i64,
}

impl Periodic {
    pub(super) fn new(period: Duration, now: Duration, revision: i64) -> Self {
        let window = period.as_nanos() / interval(period).as_nanos() + 1;
        Self {
            period,
            samples: VecDeque::from([revision]),
            window: usize::try_from(window).unwrap_or(usize::MAX),
            wait: period,
            last_done: now,
            last_revision: 0,
        }
    }

    pub(super) fn interval(&self) -> Duration {
        interval(self.period)
    }

    pub(super) fn due(&mut self, now: Duration) -> Option<i64> {
        let revision = *self.samples.front().expect("the window is never empty");
        if now.saturating_sub(self.last_done) < self.wait || revision == self.last_revision {
            return None;
        }
        // From the first attempt on, whether it succeeds or not.
        self.wait = self.period.min(HOUR);
        Some(revision)
    }

    pub(super) fn finished(&mut self, now: Duration, revision: i64) {
        self.last_done = now;
        self.last_revision = revision;
    }

    pub(super) fn sample(&mut self, revision: i64) {
        self.samples.push_back(revision);
        if self.samples.len() > self.window {
            self.samples.pop_front();
        }
    }
}

fn interval(period: Duration) -> Duration {
    (period.min(HOUR) / SAMPLES).max(MIN_INTERVAL)
}
