//! Work beside the member: checkpoints with all that they carry, and the hashes of compactions.

use std::sync::Arc;

use ferrite_storage::checkpoint::{CompactionHash, Done, Hashed, Job, Reason};
use ferrite_storage::page;

use super::{Fatal, Member, Reply};

impl<T> Member<T> {
    pub(super) fn want_job(&mut self, reason: Reason) {
        // A state that is to be replaced needs no checkpoint. After a full disk only time brings the
        // next attempt, unless a defragmentation is to give its room back.
        if self.installing.is_none()
            && self.job.is_none()
            && (!self.page_full || reason == Reason::Aged || self.state.defragmenting())
        {
            self.job = self.migration_job();
            if self.job.is_none() {
                self.job = self.state.next_job(&self.options.checkpoint, reason);
            }
        }
    }

    pub(super) fn next_job(&mut self) -> Option<Job> {
        let job = self.job.take();
        self.job_running |= job.is_some();
        job
    }

    pub(super) fn next_hash(&mut self) -> Option<CompactionHash> {
        // One of a state that was replaced must be back before the next one begins.
        if self.hash_running {
            return None;
        }
        let hash = self.state.next_hash();
        self.hash_running = hash.is_some();
        hash
    }

    pub(super) fn job_done(&mut self, done: Done) -> Result<(), Fatal> {
        self.job_running = false;
        let finished = match self.state.finish_job(done) {
            Ok(finished) => finished,
            Err(error @ page::Error::NoSpace { .. }) => {
                if !self.page_full {
                    tracing::error!(%error, "no space for a checkpoint; refusing writes until there is");
                }
                self.page_full = true;
                self.publish_space();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(index) = finished.consistent_index {
            self.checkpointed = index;
            if self.page_full {
                tracing::info!("space for checkpoints is back; accepting writes again");
            }
            self.page_full = false;
            self.publish_space();
            self.compact_log();
            // Readers drop the rows that are in the page file now.
            self.published.set_view(self.state.view());
        }
        if let Some(outcome) = finished.defragmented {
            self.defragmented(outcome);
            if self.page_full {
                // The checkpoint that found no room may have it now: not only when its time comes.
                self.want_job(Reason::Aged);
            }
        }
        if let Some(version) = finished.migrated {
            self.migrated(version);
        }
        if let Some(revision) = finished.compacted {
            let sizes = self.published.view().page.sizes();
            tracing::info!(
                "compact-revision" = revision,
                "current-db-size-bytes" = sizes.allocated,
                "current-db-size-in-use-bytes" = sizes.in_use,
                "finished scheduled compaction"
            );
            self.prune = true;
            self.answer_compactions();
        }
        Ok(())
    }

    pub(super) fn hash_done(&mut self, hashed: Hashed) {
        self.hash_running = false;
        if std::mem::take(&mut self.hash_stale) {
            return;
        }
        match self.state.finish_hash(hashed) {
            Ok(Some(hash)) => {
                tracing::info!(
                    hash = hash.hash,
                    revision = hash.revision,
                    "compact-revision" = hash.compact_revision,
                    "storing new hash"
                );
                self.published.hashes().store(hash);
            }
            Ok(None) => tracing::warn!("a compaction was not hashed"),
            // The compaction goes on: what it removes is not what is damaged, or it will say so.
            Err(error) => tracing::error!(%error, "failed to hash a compaction"),
        }
    }

    pub(super) fn answer_compactions(&mut self) {
        let removed = self.state.removed_through();
        let view = self.published.view();
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.compactions)
            .into_iter()
            .partition(|(revision, _)| *revision <= removed);
        self.compactions = waiting;
        self.replies.extend(
            ready
                .into_iter()
                .map(|(_, waiter)| (waiter, Reply::View(Arc::clone(&view)))),
        );
    }
}
