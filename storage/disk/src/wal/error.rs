//! What can go wrong with a WAL.

use std::io;
use std::path::{Path, PathBuf};

/// Errors of the write-ahead log. Each variant says what state it leaves the [`Wal`](super::Wal) in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed. A failed write or sync of the log poisons the `Wal`; failed reads leave it as it was.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was attempted, as a verb.
        op: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },

    /// There is no room for another segment. Nothing of the batch was appended and the `Wal` stays usable:
    /// the same append succeeds once there is space, and a batch that fits into the active segment succeeds before.
    #[error("no space for a segment of {bytes} bytes: {path}: {source}")]
    NoSpace {
        /// The file that could not be made.
        path: PathBuf,
        /// Size of the segment, in bytes.
        bytes: u64,
        /// What the disk said.
        source: io::Error,
    },

    /// An earlier write or sync failed, so what is on the disk is unknown. Only opening the log again helps.
    #[error("write-ahead log is unusable since an earlier failure: {cause}")]
    Poisoned {
        /// The failure that did it.
        cause: String,
    },

    /// The log was damaged after it had been synced: bit rot, a lost or misdirected write, a missing file.
    #[error("write-ahead log is corrupt: segment {segment}, offset {offset}: {why}")]
    Corrupt {
        /// Number of the segment.
        segment: u64,
        /// Byte offset of the damaged header or record in the segment's file.
        offset: u64,
        /// What does not hold.
        why: String,
    },

    /// The segment was written by a version of the format that this program does not know.
    #[error("segment {segment} has format version {found}, this program knows {known}")]
    Version {
        /// Number of the segment.
        segment: u64,
        /// Version in its header.
        found: u32,
        /// The version this program reads and writes.
        known: u32,
    },

    /// A record or batch is larger than the format allows. Nothing was appended, the `Wal` stays usable.
    #[error("{bytes} bytes are too large for the write-ahead log: at most {max}")]
    TooLarge {
        /// Size of the payload or the batch.
        bytes: u64,
        /// The limit it broke.
        max: u64,
    },

    /// The position lies in a segment that was released, or that never was.
    #[error("segment {segment} is not in the write-ahead log")]
    Released {
        /// Number of the segment.
        segment: u64,
    },

    /// The visitor given to [`Wal::open`](super::Wal::open) refused an intact record.
    #[error("record refused: segment {segment}, offset {offset}: {why}")]
    Refused {
        /// Number of the segment.
        segment: u64,
        /// Byte offset of the record.
        offset: u64,
        /// The visitor's reason.
        why: String,
    },

    /// [`Wal::create`](super::Wal::create) found a log.
    #[error("a write-ahead log exists in {dir}")]
    Exists {
        /// The directory asked for.
        dir: PathBuf,
    },

    /// [`Wal::open`](super::Wal::open) found none.
    #[error("no write-ahead log in {dir}")]
    Missing {
        /// The directory asked for.
        dir: PathBuf,
    },
}

impl Error {
    /// Whether the log is damaged, as opposed to unreadable or full right now.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// Whether trying again makes sense once there is space.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. })
    }
}

/// For `map_err`: an [`Error::Io`] of this operation on this path.
pub(super) fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { op, path, source }
}
