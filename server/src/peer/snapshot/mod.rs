//! Snapshots: each over a connection of its own, so that nothing else waits behind them.
//!
//! The body of the request is what consensus says of the snapshot, then the pieces, then an empty
//! piece, which is the end; each has its length before it, in 4 bytes, little-endian. HTTP's flow
//! control holds the sender back when the receiver is slower. The answer is 204 when the receiver has
//! taken the snapshot, and 500 with its reason when it has not.

mod receive;
mod send;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, interval};

pub(super) use receive::receive;
#[cfg(test)]
pub(super) use send::transfer;
pub(super) use send::{Sending, send};

/// Where snapshots go.
pub(super) const PATH: &str = "/ferrite/snapshot";

/// Longest message of consensus about a snapshot, in bytes: etcd's bound.
const MAX_MESSAGE: usize = 64 << 20;

/// Longest piece, in bytes.
const MAX_PIECE: usize = 64 << 20;

/// A transfer that does not get on for so long ends.
const STUCK: Duration = Duration::from_secs(30);

/// Time between log lines about a transfer.
const REPORT: Duration = Duration::from_secs(10);

/// How far a transfer is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    bytes: Arc<AtomicU64>,
}

impl Progress {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Calls `report` every now and then.
    async fn report(&self, report: impl Fn(u64)) -> Infallible {
        let mut timer = interval(REPORT);
        timer.tick().await;
        loop {
            timer.tick().await;
            report(self.bytes());
        }
    }

    /// Returns when the transfer is stuck: for a while no bytes have moved, and `is_alive`, which is
    /// told for how long, was false.
    async fn stuck(&self, is_alive: impl Fn(Duration) -> bool) {
        let mut timer = interval(STUCK / 30);
        let (mut bytes, mut moved, mut alive) = (0, Instant::now(), Instant::now());
        loop {
            timer.tick().await;
            let now = self.bytes();
            if now != bytes {
                (bytes, moved) = (now, Instant::now());
            }
            if is_alive(moved.elapsed()) {
                alive = Instant::now();
            }
            if moved.elapsed() >= STUCK && alive.elapsed() >= STUCK {
                return;
            }
        }
    }
}
