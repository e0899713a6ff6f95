//! [`OverlayDisk`]: a disk that looks like another one and never changes it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{DirEntry, Disk, DiskFile, DiskLock};

/// Bytes of a file that are copied into memory when one of them is written.
const PAGE: u64 = 4096;

/// Reads from another disk; whatever is written, created, renamed or removed stays in memory and is
/// forgotten with this. So the code of a start, which repairs what a crash has left, can run on
/// files that must stay as they are.
///
/// Every change is durable at once, as far as one can tell. Directories made here are not listed.
#[derive(Clone, Debug)]
pub struct OverlayDisk {
    below: Arc<dyn Disk>,
    /// What is different here: the file of that name, or none. Locked for the length of a call.
    files: Arc<Mutex<BTreeMap<PathBuf, Option<Arc<OverlayFile>>>>>,
}

impl OverlayDisk {
    /// Over another disk, without any difference.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self {
            below,
            files: Arc::default(),
        }
    }

    fn with_files<T>(
        &self,
        call: impl FnOnce(&mut BTreeMap<PathBuf, Option<Arc<OverlayFile>>>) -> T,
    ) -> T {
        call(&mut self.files.lock())
    }

    fn file(&self, path: &Path) -> io::Result<Arc<OverlayFile>> {
        self.with_files(|files| match files.get(path) {
            Some(Some(file)) => Ok(Arc::clone(file)),
            Some(None) => Err(not_found()),
            None => {
                let file = Arc::new(OverlayFile::over(self.below.open(path)?)?);
                files.insert(path.to_owned(), Some(Arc::clone(&file)));
                Ok(file)
            }
        })
    }
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.exists(path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(OverlayFile::default());
        self.with_files(|files| files.insert(path.to_owned(), Some(Arc::clone(&file))));
        Ok(file)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.with_files(|files| files.get(path).map(Option::is_some)) {
            Some(here) => Ok(here),
            None => self.below.exists(path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        self.with_files(|files| {
            files.insert(from.to_owned(), None);
            files.insert(to.to_owned(), Some(file));
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            return Err(not_found());
        }
        self.with_files(|files| files.insert(path.to_owned(), None));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let below = self.below.list(dir)?;
        let mut entries: BTreeMap<String, bool> = below
            .into_iter()
            .map(|entry| (entry.name, entry.is_dir))
            .collect();
        self.with_files(|files| {
            for (path, file) in files.iter() {
                let name = path.file_name().and_then(|name| name.to_str());
                let (Some(name), true) = (name, path.parent() == Some(dir)) else {
                    continue;
                };
                match file {
                    Some(_) => entries.insert(name.to_owned(), false),
                    None => entries.remove(name),
                };
            }
        });
        let entry = |(name, is_dir)| DirEntry { name, is_dir };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.below.free_bytes(dir)
    }

    /// Locks the file on the disk below: readers of the files must be alone with them too.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.below.lock(path)
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// A file of which some pages are in memory.
#[derive(Debug, Default)]
struct OverlayFile {
    /// `None` for a file made here.
    below: Option<Arc<dyn DiskFile>>,
    /// Locked for the length of a call.
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// Bytes from here on are not those of the file below: it was cut here once.
    below_len: u64,
    /// Pages that were written, by number. Bytes beyond the end of the file are zeros.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl OverlayFile {
    fn over(below: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = below.len()?;
        Ok(Self {
            below: Some(below),
            content: Mutex::new(Content {
                len,
                below_len: len,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn with_content<T>(&self, call: impl FnOnce(&mut Content) -> T) -> T {
        call(&mut self.content.lock())
    }

    /// Fills `buf` with what the file below has at `offset`, and with zeros behind its end.
    fn read_below(&self, below_len: u64, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let there = below_len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (there, rest) = buf.split_at_mut(there);
        rest.fill(0);
        match &self.below {
            Some(below) if !there.is_empty() => below.read_at(there, offset),
            _ => Ok(()),
        }
    }
}

/// The parts of `len` bytes from `offset` on that lie in one page each: page, offset in the page,
/// range of the bytes.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % PAGE) as usize;
        let part = done..len.min(done + PAGE as usize - inside);
        done = part.end;
        Some((at / PAGE, inside, part))
    })
}

impl DiskFile for OverlayFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with_content(|content| {
            if offset + buf.len() as u64 > content.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read_below(content.below_len, buf, offset)?;
            if content.pages.is_empty() {
                return Ok(());
            }
            for (page, inside, part) in pages(offset, buf.len()) {
                if let Some(page) = content.pages.get(&page) {
                    let len = part.len();
                    buf[part].copy_from_slice(&page[inside..inside + len]);
                }
            }
            Ok(())
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            // Extends nothing, wherever it is.
            return Ok(());
        }
        self.with_content(|content| {
            for (number, inside, part) in pages(offset, buf.len()) {
                if !content.pages.contains_key(&number) {
                    let mut page = vec![0; PAGE as usize];
                    self.read_below(content.below_len, &mut page, number * PAGE)?;
                    content.pages.insert(number, page);
                }
                if let Some(page) = content.pages.get_mut(&number) {
                    page[inside..inside + part.len()].copy_from_slice(&buf[part]);
                }
            }
            content.len = content.len.max(offset + buf.len() as u64);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with_content(|content| content.len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_content(|content| {
            content.below_len = content.below_len.min(len);
            content.pages.retain(|page, _| page * PAGE < len);
            if let Some(page) = content.pages.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
            content.len = len;
        });
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocated_len(&self) -> io::Result<u64> {
        let below = match &self.below {
            Some(below) => below.allocated_len()?,
            None => 0,
        };
        Ok(self.with_content(|content| content.len).max(below))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}
