//! Mode `revision`: keep the last N revisions. Every five minutes.

use std::time::Duration;

/// How often the revision is looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(crate) struct Revisions {
    retention: i64,
    /// The revision of the last compaction; 0 before it.
    last_revision: i64,
}

impl Revisions {
    pub(super) fn new(retention: i64) -> Self {
        Self {
            retention,
            last_revision: 0,
        }
    }

    pub(super) fn due(&self, revision: i64) -> Option<i64> {
        let target = revision.saturating_sub(self.retention);
        (target > 0 && target != self.last_revision).then_some(target)
    }

    pub(super) fn finished(&mut self, revision: i64) {
        self.last_revision = revision;
    }
}
