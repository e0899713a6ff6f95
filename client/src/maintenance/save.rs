//! A snapshot in a file: written beside its place, checked, made durable, and only then put there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::Snapshot;
use crate::Error;

/// What follows the database: its SHA-256. Databases are whole sectors, so a file that ends
/// otherwise was cut.
const CHECKSUM_BYTES: usize = 32;
const SECTOR_BYTES: u64 = 512;
/// Pieces that may wait for the disk.
const AHEAD: usize = 4;

/// Why a snapshot was not saved. Nothing was left at the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The snapshot did not arrive.
    #[error(transparent)]
    Call(#[from] Error),
    /// The file could not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one: the path with `.part` behind it, until the snapshot is whole.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What arrived does not end with a checksum: it was cut.
    #[error("sha256 checksum not found [bytes: {bytes}]")]
    Cut {
        /// How much arrived.
        bytes: u64,
    },
    /// What arrived is not what was sent.
    #[error("sha256 checksum does not match what arrived [bytes: {bytes}]")]
    Damaged {
        /// How much arrived.
        bytes: u64,
    },
}

impl Snapshot {
    /// Writes the snapshot, checksum included, to `path`, as `etcdctl snapshot save` does: what
    /// `etcdutl snapshot restore` and `status` take. Returns its length in bytes.
    ///
    /// It is called `path` with `.part` behind it until it has arrived, the checksum is
    /// confirmed and the disk has it; a file that was at `path` is replaced then. Must run inside
    /// a tokio runtime.
    ///
    /// ```no_run
    /// # async fn example(client: ferrite_client::Client) -> Result<(), ferrite_client::SaveError> {
    /// let bytes = client.maintenance().snapshot().await?.save("backup.db").await?;
    /// println!("{bytes} bytes");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safety: a dropped future leaves nothing at `path`.
    ///
    /// # Errors
    ///
    /// See [`SaveError`]. The part that arrived is removed.
    pub async fn save(mut self, path: impl AsRef<Path>) -> Result<u64, SaveError> {
        let path = path.as_ref().to_owned();
        let (pieces, arriving) = mpsc::channel(AHEAD);
        // Disks are waited for elsewhere.
        let writing = spawn_blocking(move || write(&path, arriving));
        loop {
            let piece = match self.next().await {
                Ok(Some(piece)) => Piece::Bytes(piece),
                Ok(None) => Piece::End,
                // The writer ends without an end, and removes what it has.
                Err(error) => {
                    drop(pieces);
                    let _cut = writing.await;
                    return Err(error.into());
                }
            };
            let is_end = matches!(piece, Piece::End);
            // A writer that has failed takes nothing more, and says why below.
            if pieces.send(piece).await.is_err() || is_end {
                break;
            }
        }
        match writing.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(JoinError::into_panic(error)),
        }
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

fn write(path: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<u64, SaveError> {
    let mut part = Part::create(path)?;
    let mut check = Check::default();
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                check.add(&bytes);
                let written = part.file.write_all(&bytes);
                written.map_err(|source| part.failed(source))?;
            }
            Some(Piece::End) => break,
            None => return Err(SaveError::Cut { bytes: check.bytes }),
        }
    }
    let bytes = check.finish()?;
    part.keep(path)?;
    Ok(bytes)
}

/// Compares the end of the stream with what came before it.
#[derive(Default)]
struct Check {
    hasher: Sha256,
    /// The last bytes so far, at most a checksum.
    tail: Vec<u8>,
    bytes: u64,
}

impl Check {
    fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.tail.extend_from_slice(piece);
        let known = self.tail.len().saturating_sub(CHECKSUM_BYTES);
        self.hasher.update(&self.tail[..known]);
        self.tail.drain(..known);
    }

    fn finish(self) -> Result<u64, SaveError> {
        let bytes = self.bytes;
        if bytes % SECTOR_BYTES != CHECKSUM_BYTES as u64 {
            return Err(SaveError::Cut { bytes });
        }
        if self.hasher.finalize().as_slice() != self.tail {
            return Err(SaveError::Damaged { bytes });
        }
        Ok(bytes)
    }
}

/// The file while it is not whole. Dropping it removes it.
struct Part {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Part {
    fn create(target: &Path) -> Result<Part, SaveError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // All the secrets of a cluster.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => Ok(Part {
                file,
                path,
                kept: false,
            }),
            Err(source) => Err(SaveError::File { path, source }),
        }
    }

    fn failed(&self, source: io::Error) -> SaveError {
        SaveError::File {
            path: self.path.clone(),
            source,
        }
    }

    /// Makes the file durable and gives it its name.
    fn keep(mut self, target: &Path) -> Result<(), SaveError> {
        let kept = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, target));
        kept.map_err(|source| self.failed(source))?;
        self.kept = true;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| SaveError::File {
            path: directory.to_owned(),
            source,
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // There is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}
