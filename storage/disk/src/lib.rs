//! Disks and the write-ahead log over them.
//!
//! [`Disk`] and [`DiskFile`] are the only way the rest of Ferrite touches files: the WAL, the page file's storage
//! backend and snapshots all run over them. Two implementations exist: [`RealDisk`] over the operating system, and
//! [`sim::SimDisk`], which keeps a live and a durable image of every file and loses, tears, corrupts, fails and fills
//! on demand, deterministically from a seed.
//!
//! What a caller may rely on, on both:
//!
//! * bytes written are durable after a successful [`DiskFile::sync_data`], a file's name after a successful
//!   [`Disk::sync_dir`] of the directory that holds it, and nothing is durable before;
//! * a failed sync says nothing about what reached the disk, and repeating it proves nothing: the dirty pages may
//!   have been dropped. Callers treat it as fatal;
//! * a sector of 512 bytes is written whole or not at all; anything larger may be torn at any sector.
//!
//! This crate knows no Raft message, key, clock or runtime. Start reading at [`wal`].

mod overlay;
pub mod real;
pub mod sim;
mod unsynced;
pub mod wal;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use overlay::OverlayDisk;
pub use real::RealDisk;
pub use unsynced::UnsyncedDisk;

/// The unit a disk writes atomically, in bytes. Larger writes may be torn at multiples of it.
pub const SECTOR_BYTES: usize = 512;

/// One name in a directory, as [`Disk::list`] gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last component of the path. Names that are not UTF-8 are not listed: Ferrite writes none.
    pub name: String,
    /// True for a directory, false for anything else.
    pub is_dir: bool,
}

/// A file system, as far as Ferrite needs one. Used as `Arc<dyn Disk>`; paths are absolute or relative to the process.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file of length 0, mode 0600, open for reading and writing.
    /// `AlreadyExists` if the name is taken. The name is durable after [`Disk::sync_dir`] of its directory.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file or directory, replacing a file or an empty directory at `to`.
    /// Atomic; durable after [`Disk::sync_dir`] of both directories.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, or an empty directory. Handles that are open keep working. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory and its parents, mode 0700. An existing directory is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `dir` (not below it) durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes an unprivileged process can still allocate on the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes an exclusive advisory lock on `path`, creating the file if need be. Held until the result is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else holds it, in this process or another.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. All positions are given, so one handle serves any number of threads.
#[allow(
    clippy::len_without_is_empty,
    reason = "the length of a file may fail, and nobody asks for emptiness"
)]
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before that.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`, extending the file if it ends before `offset + buf.len()`.
    /// After an error any part of it may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros that take no space.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves blocks for the bytes `[0, len)`, so that writing them cannot run out of space. The length is unchanged.
    ///
    /// # Errors
    /// `StorageFull` if the space is not there. `Unsupported` where the file system cannot reserve.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Bytes the file really occupies on the disk, holes not counted, reservations counted.
    fn allocated_len(&self) -> io::Result<u64>;

    /// Makes the content and the length durable (fdatasync). A failure is final, see the crate's documentation.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], and the remaining metadata too (fsync).
    fn sync_all(&self) -> io::Result<()>;

    /// A hint that what is cached of the content will not be needed. A file that was filled in large writes is cached in
    /// large units, and each small write then dirties a whole unit; after this, only the pages that it touches.
    fn forget_cache(&self) {}

    /// A hint to begin writing the bytes `[from, to)` to the disk, without waiting for it and without making them
    /// durable. A later sync has that much less to do, and what else is synced meanwhile waits for less at a time.
    fn start_writing(&self, _from: u64, _to: u64) {}

    /// The content is needed no more, by no handle. If no name leads to the file any more either, its room is given
    /// back little by little in the background: at once, as the last handle would when it is dropped, is a burst that
    /// syncs of other files wait for. Nothing happens if a name leads to it.
    fn free_gently(&self) {}
}

/// A held lock; dropping it releases the lock.
pub trait DiskLock: Send + Sync + Debug {}
