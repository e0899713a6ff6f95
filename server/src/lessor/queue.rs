//! Times at which leases want to be looked at.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrite_api::types::LeaseId;

/// Leases by the time of their next event. Whoever puts a lease in remembers the time, to take it
/// out again: nothing stays behind of leases that ended long before their time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeSet<(Duration, LeaseId)>,
}

impl Queue {
    /// Moves a lease to `at`; `queued` is where it stands now.
    pub(super) fn put(&mut self, id: LeaseId, at: Duration, queued: &mut Option<Duration>) {
        self.remove(id, queued);
        self.entries.insert((at, id));
        *queued = Some(at);
    }

    /// Takes a lease out.
    pub(super) fn remove(&mut self, id: LeaseId, queued: &mut Option<Duration>) {
        if let Some(at) = queued.take() {
            let was_there = self.entries.remove(&(at, id));
            debug_assert!(was_there, "lease {id} is not queued at {at:?}");
        }
    }

    /// Takes the first lease whose time has come. Its owner forgets where it stood.
    pub(super) fn pop(&mut self, now: Duration) -> Option<LeaseId> {
        if !self.is_due(now) {
            return None;
        }
        self.entries.pop_first().map(|(_, id)| id)
    }

    /// Whether the time of any lease has come.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.entries.first().is_some_and(|(at, _)| *at <= now)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
