//! [`RealDisk`]: the operating system's files, through `std::fs` and `rustix`.
//!
//! Positions are explicit (`pread`, `pwrite`), so a handle has no cursor to share. Calls interrupted by a signal are
//! repeated here, syncs included (interrupted is not failed); a failed sync is never repeated.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::retry_on_intr;

use crate::{DirEntry, Disk, DiskFile, DiskLock};

/// Mode of data files: they hold the users' secrets, as etcd's do.
const FILE_MODE: u32 = 0o600;
/// Mode of data directories.
const DIR_MODE: u32 = 0o700;
/// `stat` counts blocks of this many bytes whatever the file system's own block size is.
const STAT_BLOCK_BYTES: u64 = 512;
/// Bytes of a nameless file that are freed at once, and how long to wait then. Where freed blocks are made known to the
/// device (`discard`), which is what takes the time, syncs beside the end of a file of 2 GB took 40 to 100 ms in the worst case;
/// like this 6, and all of it 2 s.
const FREED_AT_ONCE: u64 = 16 << 20;
const BETWEEN_FREEING: Duration = Duration::from_millis(10);

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if std::fs::symlink_metadata(path)?.is_dir() {
            std::fs::remove_dir(path)
        } else {
            std::fs::remove_file(path)
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = File::open(directory(dir))?;
        Ok(retry_on_intr(|| rustix::fs::fsync(&dir))?)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::statvfs(directory(dir)))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

impl RealDisk {
    /// Opens a file that is only read, and need not be writable. Writes to it fail.
    pub fn open_read_only(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }
}

/// The parent of a bare file name is the empty path, which the operating system does not know.
fn directory(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    }
}

#[derive(Debug)]
struct RealFile(File);

impl RealFile {
    /// A data file, of which nobody asks when it was last read: to look whether that is to be noted is 3 % of a read of
    /// one page.
    fn new(file: File) -> Self {
        // May be refused, for a file of another user.
        let _ = rustix::fs::fcntl_getfl(&file)
            .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags | OFlags::NOATIME));
        Self(file)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        // std repeats interrupted and short reads.
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        retry_on_intr(|| rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len))?;
        Ok(())
    }

    fn allocated_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * STAT_BLOCK_BYTES)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&self.0))?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(&self.0))?)
    }

    fn forget_cache(&self) {
        // Only a hint: where it is not taken, writes cost more and nothing else changes.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn start_writing(&self, from: u64, to: u64) {
        // Linux begins to write what is dirty there, and forgets only what is clean already.
        let Some(len) = to.checked_sub(from).and_then(NonZeroU64::new) else {
            return;
        };
        let _ = rustix::fs::fadvise(&self.0, from, Some(len), rustix::fs::Advice::DontNeed);
    }

    fn free_gently(&self) {
        let nameless = |file: &File| -> io::Result<Option<u64>> {
            let metadata = file.metadata()?;
            let large = metadata.len() > FREED_AT_ONCE;
            Ok((metadata.nlink() == 0 && large).then_some(metadata.len()))
        };
        let Ok(Some(len)) = nameless(&self.0) else {
            return;
        };
        let Ok(file) = self.0.try_clone() else { return };
        // Without the thread the room comes back at once, when the last handle is dropped.
        let _ = std::thread::Builder::new()
            .name("free-gently".to_owned())
            .spawn(move || free_gently(&file, len));
    }
}

/// Cuts a file of `len` bytes down to nothing, step by step.
fn free_gently(file: &File, mut len: u64) {
    while len > 0 {
        len = len.saturating_sub(FREED_AT_ONCE);
        if file.set_len(len).is_err() {
            return;
        }
        std::thread::sleep(BETWEEN_FREEING);
    }
}

/// The lock lives as long as the open file description.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}
