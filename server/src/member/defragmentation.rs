//! Defragmentation: a job that rebuilds the page file, between checkpoints. Reads and writes go on; what
//! is applied meanwhile is in memory and in the log, and goes into the new file with the next
//! checkpoint.

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
    running: Vec<T>,
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
        let waiting = self.waiting.drain(..).map(|(_, waiter)| waiter);
        let mut all: Vec<T> = waiting.collect();
        all.append(&mut self.running);
        all
    }
}

impl<T> Member<T> {
    /// Begins one for all who wait, as soon as no job is running.
    pub(super) fn want_defragmentation(&mut self) {
        let Some((path, _)) = self.defragmentation.waiting.first() else {
            return;
        };
        if self.job_running || self.job.is_some() || self.installing.is_some() {
            return;
        }
        self.job = self.state.defragment(path.clone());
        if self.job.is_some() {
            let sizes = self.state.store().page().sizes();
            tracing::info!(
                "current-db-size-bytes" = sizes.allocated,
                "current-db-size-in-use-bytes" = sizes.in_use,
                "defragmenting"
            );
            let waiting = self.defragmentation.waiting.drain(..);
            self.defragmentation.running = waiting.map(|(_, waiter)| waiter).collect();
        }
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
                let applied = self.state.applied().get();
                self.published.set_view(self.state.view(), applied);
            }
            Err(error) => tracing::error!(error, "failed to defragment; the file is as it was"),
        }
        for waiter in std::mem::take(&mut self.defragmentation.running) {
            let reply = match &outcome {
                Ok(_) => Reply::Done,
                Err(error) => Reply::Failed(Error::status(Code::Unknown, error.clone())),
            };
            self.replies.push((waiter, reply));
        }
    }
}
