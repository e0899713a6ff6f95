//! Failures of this member's storage. None of them is an answer to a client: answers are
//! `ferrite_api::Error` values inside apply results.

use crate::page;

/// What can go wrong below the state machine. Every variant but [`Error::Page`]'s no-space case is
/// fatal for the member: it stops serving instead of answering from doubtful state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The page file failed, is damaged or has no room.
    #[error(transparent)]
    Page(#[from] page::Error),
    /// Stored bytes contradict each other; `what` names table, key or revision and both sides.
    #[error("corrupt store: {what}")]
    Corrupt {
        /// What is damaged.
        what: String,
    },
    /// A log entry that this build cannot apply.
    #[error("raft entry {index}: {why}")]
    Entry {
        /// The index of the entry.
        index: u64,
        /// Why it cannot be applied.
        why: String,
    },
}
