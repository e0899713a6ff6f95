//! Snapshots: the whole replicated state as of one applied entry, from one member to another.
//!
//! ```text
//!   State ── export() ──▶ Export ── pieces ──▶ Import ──▶ db.install ── commit() ──▶ db
//!                                                └──▶ Received { state, .. }
//! ```
//!
//! # Sending
//!
//! [`State::export`](crate::state::State::export) captures the state in memory; the [`Export`] then
//! gives a stream of bytes, piece by piece, on any thread, while the state goes on. A pin keeps
//! compactions from removing rows meanwhile, for as long as their patience lasts. What a compaction
//! that has taken effect dooms is left out: so members of equal state export equal streams, however
//! far each has got with removing rows.
//!
//! # Receiving
//!
//! An [`Import`] fills a new page file beside the one in use, verifies all of it, and only then
//! gives it the name `db.install`. The log decides whether it counts:
//!
//! 1. [`Import::finish`]: `db.install` is complete, verified and durable.
//! 2. The owner makes the log forget all entries up to the snapshot, and that durable. This is the
//!    decision.
//! 3. [`commit`]: `db.install` becomes `db`. (Without step 2, [`discard`].)
//!
//! After a crash, [`settle`] does what is left to do: the page file in use is behind the log's mark
//! exactly if the decision was made. So there is either the old state or the new one, never half.
//!
//! The received state replaces the old one as a whole, page file included; views of the old one stay
//! valid as long as somebody holds them, since an open file does not care about its name. Left to the
//! owner: a checkpoint job or a compaction's hash of the old state may still be running; it waits for
//! it (or not: the file it writes to has no name any more), and must never hand its result to the new
//! state.

mod export;
mod format;
mod import;
mod install;
mod rows;

pub use export::Export;
pub use import::{Import, Received};
pub use install::{Settled, awaits_decision, commit, discard, settle};
pub(crate) use rows::Rows;

use crate::page;

/// How an [`Export`] divides its work.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a piece of the stream: it ends with the first row that reaches them.
    pub piece_bytes: usize,
    /// Rows that are read in one transaction of the page file.
    pub step_rows: usize,
    /// Bytes of rows, likewise. Milliseconds of work, like the rows.
    pub step_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            piece_bytes: 256 << 10,
            step_rows: 2048,
            step_bytes: 2 << 20,
        }
    }
}

/// Why a snapshot could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A compaction did not wait for the export any longer: rows of it are being removed. Another
    /// export, of a newer state, may succeed.
    #[error(
        "snapshot at raft index {index}: a compaction beyond revision {compacted} has overtaken it"
    )]
    Overtaken {
        /// The entry as of which the state was exported.
        index: u64,
        /// The last compaction before that.
        compacted: i64,
    },
    /// The stream is damaged, incomplete, of another format or another cluster.
    #[error("snapshot stream: {what}")]
    Stream {
        /// What is wrong with it.
        what: String,
    },
    /// This member's storage failed. After [`page::Error::NoSpace`] nothing is lost but the attempt.
    #[error(transparent)]
    Storage(#[from] crate::Error),
}

impl Error {
    pub(crate) fn stream(what: impl Into<String>) -> Self {
        Self::Stream { what: what.into() }
    }
}

impl From<page::Error> for Error {
    fn from(error: page::Error) -> Self {
        Self::Storage(error.into())
    }
}
