//! Defragmentation: jobs that rebuild the page file step by step, in turns with checkpoints. Reads and
//! writes go on.

use std::path::PathBuf;

use ferrite_storage::page::Rebuilt;
use tonic::Code;

use super::{Member, Reply};
use crate::error::Error;

/// Who waits for one.
#[derive(Debug)]
pub(super) struct Defragmentation<T> {
    /// Those for whom none has begun.
    waiting: Vec<(PathBuf, T)>,
    /// Those for whom one is running.
    running: Vec<(PathBuf, T)>,
}

impl<T> Default for Defragmentation<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            running: Vec::new(),
        }
    }
}

impl<T> Defragmentation<T> {
    /// Somebody wants one that begins after this.
    pub(super) fn wanted(&mut self, path: PathBuf, waiter: T) {
        self.waiting.push((path, waiter));
    }

    /// Everybody who waits.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.again();
        let waiting = self.waiting.drain(..).map(|(_, waiter)| waiter);
        waiting.collect()
    }

    /// The one that was running has come to nothing: there shall be another.
    pub(super) fn again(&mut self) {
        self.waiting.append(&mut self.running);
    }
}

impl<T> Member<T> {
    /// Begins one for all who wait, unless one is under way.
    pub(super) fn want_defragmentation(&mut self) {
        let Some((path, _)) = self.defragmentation.waiting.first() else {
            return;
        };
        if !self.defragmentation.running.is_empty() || self.installing.is_some() {
            return;
        }
        self.state.defragment(path.clone());
        let sizes = self.state.store().page().sizes();
        tracing::info!(
            "current-db-size-bytes" = sizes.allocated,
            "current-db-size-in-use-bytes" = sizes.in_use,
            "compaction-first" = self.state.compaction_goes_first(),
            "defragmenting"
        );
        self.defragmentation.running = std::mem::take(&mut self.defragmentation.waiting);
    }

    /// It has ended.
    pub(super) fn defragmented(&mut self, outcome: Result<Rebuilt, String>) {
        match &outcome {
            Ok(Rebuilt { before, after }) => {
                tracing::info!(
                    "current-db-size-bytes-before" = before.allocated,
                    "current-db-size-bytes" = after.allocated,
                    "current-db-size-in-use-bytes" = after.in_use,
                    "finished defragmenting"
                );
                // Readers of the old file keep its space until they have ended.
                self.published.set_view(self.state.view());
            }
            Err(error) => tracing::error!(error, "failed to defragment; the file is as it was"),
        }
        for (_, waiter) in std::mem::take(&mut self.defragmentation.running) {
            let reply = match &outcome {
                Ok(_) => Reply::Done,
                Err(error) => Reply::Failed(Error::status(Code::Unknown, error.clone())),
            };
            self.replies.push((waiter, reply));
        }
    }
}
