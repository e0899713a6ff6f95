//! Many clients that write at once.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferrite_client::{Client, PutOptions};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How much of the time that was lost is made up for. Timers tick in milliseconds, so several writes
/// may be due at once; but writers that were all busy do not write faster afterwards.
const CATCH_UP: Duration = Duration::from_millis(10);

/// The writes that are still to be made. Writers that wait for one are served in their order.
pub(super) struct Tickets {
    left: u64,
    /// Between two writes.
    interval: Duration,
    next: Instant,
    end: Option<Instant>,
    stopped: Arc<AtomicBool>,
}

impl Tickets {
    /// So many, as fast as they are taken.
    pub(super) fn count(count: u64) -> Tickets {
        Tickets {
            left: count,
            interval: Duration::ZERO,
            next: Instant::now(),
            end: None,
            stopped: Arc::default(),
        }
    }

    /// So many a second, for so long.
    pub(super) fn rate(per_second: u32, lasting: Duration) -> Tickets {
        let now = Instant::now();
        Tickets {
            left: u64::MAX,
            interval: Duration::from_secs(1) / per_second,
            next: now,
            end: Some(now + lasting),
            stopped: Arc::default(),
        }
    }

    /// What ends them before their time, once it is true.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// Waits for the next write; false when there is none.
    async fn take(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        if !self.interval.is_zero() {
            sleep_until(self.end.map_or(self.next, |end| self.next.min(end))).await;
            let now = Instant::now();
            let behind = now.checked_sub(CATCH_UP).unwrap_or(now);
            self.next = self.next.max(behind) + self.interval;
        }
        let over = self.end.is_some_and(|end| Instant::now() >= end);
        if over || self.stopped.load(Ordering::Relaxed) {
            self.left = 0;
            return false;
        }
        self.left -= 1;
        true
    }
}

/// What the writers have seen.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Of each write that was made, in seconds.
    pub(super) latencies: Vec<f64>,
    /// How many failed, by their error.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) took: Duration,
}

/// One kind of pair: a prefix, then a random number and zeros; the value is zeros.
#[derive(Clone)]
pub(super) struct Pairs {
    prefix: Bytes,
    key_bytes: usize,
    value: Bytes,
    random: RandomState,
    made: Arc<AtomicU64>,
}

impl Pairs {
    /// Sizes in bytes; that of the key is without the prefix.
    pub(super) fn new(prefix: &[u8], key_bytes: usize, value_bytes: usize) -> Pairs {
        Pairs {
            prefix: Bytes::copy_from_slice(prefix),
            key_bytes,
            value: vec![0; value_bytes].into(),
            random: RandomState::new(),
            made: Arc::default(),
        }
    }

    fn next_key(&self) -> Vec<u8> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let random = self.random.hash_one(number).to_be_bytes();
        let mut key = Vec::with_capacity(self.prefix.len() + self.key_bytes);
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(&random);
        key.resize(self.prefix.len() + self.key_bytes, 0);
        key
    }
}

/// Writes with each client, one pair after the other, until there are no more tickets. `written` is
/// called after each.
pub(super) async fn write(
    clients: &[Client],
    pairs: &Pairs,
    tickets: Tickets,
    written: impl Fn() + Clone + Send + 'static,
) -> Writes {
    let start = Instant::now();
    let tickets = Arc::new(Mutex::new(tickets));
    let mut writers = JoinSet::new();
    for client in clients {
        let (client, pairs) = (client.clone(), pairs.clone());
        let (tickets, written) = (tickets.clone(), written.clone());
        writers.spawn(async move {
            let mut writes = Writes::default();
            while tickets.lock().await.take().await {
                let start = Instant::now();
                let result = client
                    .put(pairs.next_key(), pairs.value.clone(), PutOptions::new())
                    .await;
                match result {
                    Ok(_) => writes.latencies.push(start.elapsed().as_secs_f64()),
                    Err(error) => *writes.errors.entry(error.to_string()).or_default() += 1,
                }
                written();
            }
            writes
        });
    }
    let mut all = Writes::default();
    for writes in writers.join_all().await {
        all.latencies.extend(writes.latencies);
        for (error, count) in writes.errors {
            *all.errors.entry(error).or_default() += count;
        }
    }
    all.took = start.elapsed();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_also_when_timers_are_coarse() {
        let start = Instant::now();
        let mut tickets = Tickets::rate(15_000, Duration::from_secs(2));
        let mut taken = 0;
        while tickets.take().await {
            taken += 1;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        // Those of the last millisecond were due after the end.
        assert!((29_985..=30_000).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_all_writers_were_busy_is_lost() {
        let mut tickets = Tickets::rate(1_000, Duration::from_secs(3));
        assert!(tickets.take().await);
        tokio::time::advance(Duration::from_secs(1)).await;
        let resumed = Instant::now();
        let mut taken = 0;
        while tickets.take().await {
            taken += 1;
        }
        assert_eq!(resumed.elapsed(), Duration::from_secs(2));
        assert!((2_000..=2_011).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_end_when_they_are_stopped_or_used_up() {
        let mut tickets = Tickets::rate(10, Duration::from_secs(60));
        assert!(tickets.take().await);
        tickets.stop().store(true, Ordering::Relaxed);
        assert!(!tickets.take().await);
        let mut tickets = Tickets::count(2);
        assert!(tickets.take().await && tickets.take().await);
        assert!(!tickets.take().await);
    }

    #[test]
    fn keys_have_their_prefix_and_length_and_differ() {
        let pairs = Pairs::new(b"/p/", 16, 4);
        let (a, b) = (pairs.next_key(), pairs.next_key());
        assert!(a.starts_with(b"/p/") && b.starts_with(b"/p/"));
        assert_eq!((a.len(), b.len(), pairs.value.len()), (19, 19, 4));
        assert_ne!(a, b);
    }
}
