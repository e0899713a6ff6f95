//! A recorded run, to be walked operation by operation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::OpKind;
use super::state::{Op, State};
use super::{PowerLoss, SimDisk};

/// One operation of a recorded run.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: OpKind,
    pub(super) path: Arc<Path>,
    pub(super) op: Op,
}

/// A recorded run of a [`SimDisk`], as it was when [`SimDisk::history`] was called. Walking it forward costs O(1) per operation,
/// apart from pages that a fork still shares.
///
/// As an iterator it gives `(k, disk)` for every `k` in `0..=len()`: the disk right before operation `k`, and at last
/// the disk after all of them.
#[derive(Clone)]
pub struct History {
    seed: u64,
    capacity: Option<u64>,
    base: State,
    entries: Vec<Entry>,
    /// The state right before operation `at`.
    state: State,
    at: usize,
    /// What the iterator gives next.
    next: usize,
}

impl History {
    pub(super) fn new(
        seed: u64,
        capacity: Option<u64>,
        base: State,
        entries: Vec<Entry>,
    ) -> History {
        History {
            seed,
            capacity,
            state: base.clone(),
            base,
            entries,
            at: 0,
            next: 0,
        }
    }

    /// Number of recorded operations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What operation `k` was, and on which path.
    pub fn op(&self, k: usize) -> Option<(OpKind, PathBuf)> {
        let entry = self.entries.get(k)?;
        Some((entry.kind, entry.path.to_path_buf()))
    }

    /// The disk as it stood right before operation `k`, with what was not synced still pending: a process crash gives
    /// just this, a power loss what [`SimDisk::power_loss`] makes of it. `k` beyond the end is the end.
    ///
    /// Ascending `k` walk forward, a smaller one starts from the beginning. The fork has no faults armed, nothing locked,
    /// and its own operation numbers from 0.
    pub fn fork_at(&mut self, k: usize) -> SimDisk {
        let k = k.min(self.entries.len());
        if k < self.at {
            self.state = self.base.clone();
            self.at = 0;
        }
        for entry in &self.entries[self.at..k] {
            self.state.apply(&entry.op);
        }
        self.at = k;
        let seed = self.seed ^ (k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        SimDisk::with_state(seed, self.capacity, self.state.clone())
    }

    /// As [`History::fork_at`], and then the power is lost.
    pub fn power_loss_at(&mut self, k: usize, policy: PowerLoss) -> SimDisk {
        self.fork_at(k).power_loss(policy)
    }
}

impl Iterator for History {
    type Item = (usize, SimDisk);

    fn next(&mut self) -> Option<(usize, SimDisk)> {
        if self.next > self.entries.len() {
            return None;
        }
        let k = self.next;
        self.next += 1;
        Some((k, self.fork_at(k)))
    }
}
