//! What can go wrong in a page file.

use std::io;

use ferrite_api::types::Revision;

/// Why a page file call failed.
///
/// Only [`Error::NoSpace`] and [`Error::Missing`] leave nothing to worry about: the first is
/// repeated until space returns, the second is for the caller to judge. Everything else means that
/// this member's file cannot be trusted or used any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed. The page file refuses every later call ([`Error::Poisoned`]) when this
    /// came out of a read or a commit.
    #[error("page file: {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The disk's error.
        source: io::Error,
    },
    /// The disk has no room for what the commit may need. Nothing was changed and reads go on; the
    /// same commit works as soon as there is room.
    #[error(
        "page file: no space: the commit may need {needed} bytes more than the {reserved} reserved"
    )]
    NoSpace {
        /// Bytes by which the file may have to grow.
        needed: u64,
        /// Bytes that are reserved beyond the file's present end.
        reserved: u64,
    },
    /// Bytes in the file are not what was written.
    #[error("page file: corrupt {table}: {what}")]
    Corrupt {
        /// The damaged table, or the part of the file when no table can be named.
        table: &'static str,
        /// Key, position and both sides of the contradiction.
        what: String,
    },
    /// There is no row at this revision. It was compacted away, or else the file is damaged: the
    /// caller knows which, by comparing with the newest compaction.
    #[error("page file: no row at revision {revision}")]
    Missing {
        /// The revision that was asked for.
        revision: Revision,
    },
    /// An earlier failure made the file unusable until the member restarts.
    #[error("page file: unusable since an earlier failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The file was written by a format that this build does not read.
    #[error("page file: unsupported format: {what}")]
    Unsupported {
        /// The version found and the ones supported.
        what: String,
    },
    /// The caller broke the contract of a commit; nothing was changed.
    #[error("page file: invalid batch: {what}")]
    Invalid {
        /// What is wrong with the batch.
        what: String,
    },
}

impl Error {
    pub(super) fn corrupt(table: &'static str, what: impl Into<String>) -> Self {
        Self::Corrupt {
            table,
            what: what.into(),
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
