//! [`UnsyncedDisk`]: a disk that never waits, for tests and throw-away stores.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::{DirEntry, Disk, DiskFile, DiskLock};

/// A disk whose syncs do nothing (`--unsafe-no-fsync`): what was written survives the end of the
/// process, but a crash of the machine may lose and damage any of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnsyncedDisk<D> {
    disk: D,
}

impl<D> UnsyncedDisk<D> {
    /// Over another disk.
    pub fn new(disk: D) -> Self {
        Self { disk }
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl<D: Disk> Disk for UnsyncedDisk<D> {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.disk.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.disk.create(path)?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }
}

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn allocated_len(&self) -> io::Result<u64> {
        self.0.allocated_len()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget_cache(&self) {
        self.0.forget_cache();
    }

    fn start_writing(&self, from: u64, to: u64) {
        self.0.start_writing(from, to);
    }

    fn free_gently(&self) {
        self.0.free_gently();
    }
}
