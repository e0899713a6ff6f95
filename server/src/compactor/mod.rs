//! Automatic compaction: `--auto-compaction-mode` and `--auto-compaction-retention`
//! (spec mvcc.md section 7).
//!
//! [`Compactor`] decides, on the times and revisions that it is handed; [`run`] sleeps, asks it and
//! compacts through the log like any client. Every member runs one, the leader's acts: the others
//! go on sampling, so that a new leader knows the past.

mod periodic;
mod revision;

use std::time::Duration;

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use tokio::time::{Instant, sleep};

use crate::config::{AutoCompaction, GoDuration};
use crate::error::Error;
use crate::handle::{Handle, WeakHandle};
use periodic::Periodic;
use revision::Revisions;

/// Decides when to compact, and to which revision. Times are since any moment, the same for all
/// calls.
///
/// ```text
///   new ─▶ wait(pause) ─▶ wake ─▶ Some: compact, finished ─▶ rest ─▶ wait(pause) ─▶ ...
///                            └──▶ None ─────────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) enum Compactor {
    Periodic(Periodic),
    Revisions(Revisions),
}

impl Compactor {
    /// A compactor that begins at `now`, with the store at `revision`.
    pub(crate) fn new(mode: AutoCompaction, now: Duration, revision: i64) -> Self {
        match mode {
            AutoCompaction::Periodic(period) => {
                Self::Periodic(Periodic::new(period, now, revision))
            }
            AutoCompaction::Revision(retention) => Self::Revisions(Revisions::new(retention)),
        }
    }

    /// How long to wait before the next [`Compactor::wake`].
    pub(crate) fn pause(&self) -> Duration {
        match self {
            Self::Periodic(periodic) => periodic.interval(),
            Self::Revisions(_) => revision::INTERVAL,
        }
    }

    /// After a pause: the revision to compact to, if it is time. `leads`: whether this member is
    /// the leader.
    pub(crate) fn wake(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        if !leads {
            return None;
        }
        match self {
            Self::Periodic(periodic) => periodic.due(now),
            Self::Revisions(revisions) => revisions.due(revision),
        }
    }

    /// The compaction that [`Compactor::wake`] asked for is done, by whomever.
    pub(crate) fn finished(&mut self, now: Duration, revision: i64) {
        match self {
            Self::Periodic(periodic) => periodic.finished(now, revision),
            Self::Revisions(revisions) => revisions.finished(revision),
        }
    }

    /// Before the next pause.
    pub(crate) fn rest(&mut self, revision: i64) {
        match self {
            Self::Periodic(periodic) => periodic.sample(revision),
            Self::Revisions(_) => {}
        }
    }
}

/// Compacts until the member is gone.
pub(crate) async fn run(mode: AutoCompaction, member: WeakHandle) {
    let begun = Instant::now();
    let Some(revision) = member.upgrade().map(|handle| handle.revision()) else {
        return;
    };
    let mut compactor = Compactor::new(mode, begun.elapsed(), revision);
    loop {
        sleep(compactor.pause()).await;
        let Some(handle) = member.upgrade() else {
            return;
        };
        let leads = handle.leader() == handle.member_id().get();
        let due = compactor.wake(begun.elapsed(), handle.revision(), leads);
        if let Some(revision) = due {
            let log = Log {
                mode,
                revision,
                retry: compactor.pause(),
            };
            log.starting();
            let started = Instant::now();
            match compact(&handle, revision).await {
                Ok(()) => {
                    log.completed(started.elapsed());
                    compactor.finished(begun.elapsed(), revision);
                }
                Err(error) => log.failed(&error),
            }
        }
        compactor.rest(handle.revision());
    }
}

async fn compact(handle: &Handle, revision: i64) -> Result<(), Error> {
    let request = pb::CompactionRequest {
        revision,
        physical: false,
    };
    match handle.compact(request).await {
        // Somebody else was there first.
        Ok(_) | Err(Error::Api(ApiError::Compacted)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is logged about one compaction: etcd's lines.
struct Log {
    mode: AutoCompaction,
    revision: i64,
    retry: Duration,
}

impl Log {
    fn starting(&self) {
        let revision = self.revision;
        match self.mode {
            AutoCompaction::Periodic(period) => {
                tracing::info!(revision, "compact-period" = %GoDuration::from(period), "starting auto periodic compaction");
            }
            AutoCompaction::Revision(retention) => {
                tracing::info!(
                    revision,
                    "revision-compaction-retention" = retention,
                    "starting auto revision compaction"
                );
            }
        }
    }

    fn completed(&self, took: Duration) {
        let (revision, took) = (self.revision, GoDuration::from(took));
        match self.mode {
            AutoCompaction::Periodic(period) => {
                tracing::info!(revision, "compact-period" = %GoDuration::from(period), %took, "completed auto periodic compaction");
            }
            AutoCompaction::Revision(retention) => {
                tracing::info!(revision, "revision-compaction-retention" = retention, %took, "completed auto revision compaction");
            }
        }
    }

    fn failed(&self, error: &Error) {
        let (revision, retry) = (self.revision, GoDuration::from(self.retry));
        match self.mode {
            AutoCompaction::Periodic(period) => {
                tracing::warn!(revision, "compact-period" = %GoDuration::from(period), "retry-interval" = %retry, %error, "failed auto periodic compaction");
            }
            AutoCompaction::Revision(retention) => {
                tracing::warn!(revision, "revision-compaction-retention" = retention, "retry-interval" = %retry, %error, "failed auto revision compaction");
            }
        }
    }
}

#[cfg(test)]
mod tests;
