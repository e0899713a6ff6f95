//! Maintenance.Snapshot: the state of this member as a file that etcd's tools take.
//!
//! The file is made while it is sent, from what a moment in the member's life has pinned, in pieces of
//! which a few are read ahead of the client. Whoever does not read costs these, and holds a compaction
//! back for as long as its patience lasts: a minute, and half an hour for who does.

use bytes::Bytes;
use ferrite_storage::etcd::{Backup, CHECKSUM_BYTES};
use ferrite_storage::snapshot::{self, Limits};
use tonic::Code;

use super::readers::{self, PIECE, Pieces, Readers, Source};
use super::{Handle, mixed_up};
use crate::error::Error;
use crate::member::{Input, Reply};

/// A snapshot on its way to a client.
#[derive(Debug)]
pub struct Snapshot {
    bytes: u64,
    version: String,
    source: Option<Pieces<Piece>>,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The next bytes of the file.
    Data(Bytes),
    /// The SHA-256 of the file, after the last of them.
    Checksum([u8; CHECKSUM_BYTES]),
}

impl Snapshot {
    /// Begins to read a state that was captured.
    pub(super) async fn of(backup: Backup, readers: &Readers) -> Result<Self, Error> {
        let mut backup = backup.with_limits(Limits {
            piece_bytes: PIECE,
            ..Limits::default()
        });
        let begun = readers.run(move || {
            let bytes = backup.begin().map_err(failed)?;
            Ok((backup, bytes))
        });
        let (backup, bytes) = begun.await?;
        tracing::info!(
            index = backup.index(),
            revision = backup.revision(),
            bytes,
            "sending database snapshot to client"
        );
        Ok(Self {
            bytes,
            version: backup.storage_version().to_owned(),
            source: Some(readers.read_ahead(Reading {
                backup,
                done: false,
            })),
        })
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The storage version, such as `3.7.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The next piece; `None` after the checksum.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The rest cannot be read: a compaction did not wait any longer, or the store is damaged.
    pub async fn next(&mut self) -> Option<Result<Piece, Error>> {
        let piece = self.source.as_mut()?.next().await;
        let piece = piece.unwrap_or_else(|| Err(readers::panicked()));
        if !matches!(piece, Ok(Piece::Data(_))) {
            self.source = None;
        }
        Some(piece)
    }
}

impl Handle {
    /// Maintenance.Snapshot: of this member's own state, as of the last entry that it has applied.
    ///
    /// # Errors
    /// The member stops, or its store cannot be read.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.check_admin().await?;
        match self.ask(|waiter| Input::Backup { waiter }).await? {
            Reply::Backup(backup) => Snapshot::of(*backup, &self.inner.readers).await,
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }
}

struct Reading {
    backup: Backup,
    /// The checksum was read.
    done: bool,
}

impl Source for Reading {
    type Piece = Piece;

    fn next(&mut self) -> Option<Result<Piece, Error>> {
        if self.done {
            return None;
        }
        Some(match self.backup.next_piece() {
            Ok(Some(piece)) => Ok(Piece::Data(piece)),
            Ok(None) => {
                self.done = true;
                Ok(Piece::Checksum(self.backup.checksum()))
            }
            Err(error) => Err(failed(error)),
        })
    }

    fn renew(&mut self) {
        self.backup.let_go();
    }

    /// Keeps a pin: there is no later moment at which the file could go on.
    fn rest(&mut self) {
        self.backup.rest();
    }

    fn len(piece: &Piece) -> usize {
        match piece {
            Piece::Data(piece) => piece.len(),
            Piece::Checksum(sum) => sum.len(),
        }
    }
}

fn failed(error: snapshot::Error) -> Error {
    tracing::warn!(%error, "a snapshot for a client was not completed");
    let code = match error {
        snapshot::Error::Overtaken { .. } => Code::Aborted,
        _ => Code::DataLoss,
    };
    Error::status(code, error.to_string())
}
