//! Segment files: names, headers, and the making and keeping of spares.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::error::{Error, io_error};
use super::format::{BadHeader, MAX_SERIAL, SegmentHeader, VERSION};
use super::{HEADER_BYTES, PAGE_BYTES};
use crate::{Disk, DiskFile};

/// Source of zeros for new segments; also the size of one write.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// An open segment file and what it takes to read its records.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Length of the file in bytes; records end before it.
    pub(super) len: u64,
    pub(super) salt: u32,
    /// Seed of the records' CRCs.
    pub(super) seed: u32,
}

/// The segments of the log by number, without gaps. Shared between the writer, who changes it, and the readers;
/// held only to look a segment up.
pub(super) type Segments = RwLock<BTreeMap<u64, Arc<Segment>>>;

/// What the names in a log's directory say, each list sorted by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) segments: Vec<u64>,
    pub(super) spares: Vec<u64>,
    pub(super) unfinished: Vec<u64>,
}

impl Names {
    /// Lists the directory; names that are none of ours are left alone.
    pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Names> {
        let mut names = Names::default();
        for entry in disk.list(dir)? {
            let Some((stem, extension)) = entry.name.split_once('.') else {
                continue;
            };
            if entry.is_dir || stem.len() != 16 {
                continue;
            }
            let Ok(number) = u64::from_str_radix(stem, 16) else {
                continue;
            };
            if number >= MAX_SERIAL {
                continue;
            }
            match extension {
                "wal" => names.segments.push(number),
                "spare" => names.spares.push(number),
                "tmp" => names.unfinished.push(number),
                _ => {}
            }
        }
        for list in [
            &mut names.segments,
            &mut names.spares,
            &mut names.unfinished,
        ] {
            list.sort_unstable();
        }
        Ok(names)
    }
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.wal"))
}

fn spare_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.spare"))
}

fn unfinished_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.tmp"))
}

/// Opens a segment and checks its header. A segment file always has a valid one, so anything else is corruption.
pub(super) fn open_segment(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
) -> Result<(Segment, SegmentHeader), Error> {
    let path = segment_path(dir, number);
    let file = disk.open(&path).map_err(io_error("open", &path))?;
    let len = file.len().map_err(io_error("stat", &path))?;
    let corrupt = |why: String| Error::Corrupt {
        segment: number,
        offset: 0,
        why,
    };
    if len < HEADER_BYTES as u64 {
        return Err(corrupt(format!(
            "file of {len} bytes has no room for a header"
        )));
    }
    match read_header(&*file).map_err(io_error("read", &path))? {
        Ok((header, _)) if header.number != number => Err(corrupt(format!(
            "header says that this is segment {}",
            header.number
        ))),
        Ok((header, seed)) => {
            let segment = Segment {
                number,
                path,
                file,
                len,
                salt: header.salt,
                seed,
            };
            Ok((segment, header))
        }
        Err(BadHeader::Version(found)) => Err(Error::Version {
            segment: number,
            found,
            known: VERSION,
        }),
        Err(BadHeader::Blank) => Err(corrupt("header is blank".into())),
        Err(BadHeader::Damaged(why)) => Err(corrupt(why.into())),
    }
}

fn read_header(file: &dyn DiskFile) -> io::Result<Result<(SegmentHeader, u32), BadHeader>> {
    let mut sector = [0; HEADER_BYTES];
    file.read_at(&mut sector, 0)?;
    Ok(SegmentHeader::decode(&sector))
}

/// Writes and syncs the header of a segment that nobody uses yet. The rest of the first page is zeroed with it, so that
/// bytes after the end of the records, within a page, are zero unless a write was torn.
pub(super) fn write_header(file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<u32> {
    let (sector, seed) = header.encode();
    let mut page = [0; PAGE_BYTES as usize];
    page[..HEADER_BYTES].copy_from_slice(&sector);
    file.write_at(&page, 0)?;
    file.sync_data()?;
    Ok(seed)
}

/// A file whose blocks are being written with zeros.
#[derive(Debug)]
struct Unfinished {
    id: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    zeroed: u64,
}

/// A file ready to become a segment: allocated, of full length, synced, its content meaningless.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
}

/// The files kept for reuse, and the one being prepared.
#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Length of the files worth keeping.
    len: u64,
    limit: usize,
    ready: Vec<Spare>,
    unfinished: Option<Unfinished>,
    /// Never used in a name of this directory before.
    next_id: u64,
}

impl Spares {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, len: u64, limit: usize) -> Spares {
        Spares {
            disk,
            dir,
            len,
            limit,
            ready: Vec::new(),
            unfinished: None,
            next_id: 1,
        }
    }

    /// Takes over what an earlier run left: spares of the right length with a header that can be read are kept, all
    /// others removed. Gives the greatest salt among the kept ones, whose content must not be mistaken for new records.
    pub(super) fn adopt(&mut self, names: &Names) -> Result<u32, Error> {
        for &id in names.spares.iter().chain(&names.unfinished) {
            self.next_id = self.next_id.max(id.saturating_add(1));
        }
        for &id in &names.unfinished {
            let path = unfinished_path(&self.dir, id);
            self.disk.remove(&path).map_err(io_error("remove", &path))?;
        }
        let mut greatest = 0;
        for &id in &names.spares {
            let path = spare_path(&self.dir, id);
            let file = self.disk.open(&path).map_err(io_error("open", &path))?;
            let len = file.len().map_err(io_error("stat", &path))?;
            let mut salt = None;
            if len == self.len && self.ready.len() < self.limit {
                salt = match read_header(&*file).map_err(io_error("read", &path))? {
                    Ok((header, _)) => Some(header.salt),
                    Err(BadHeader::Blank) => Some(0),
                    // Its salt is unknown, so its stale records could not be told from new ones.
                    Err(BadHeader::Version(_) | BadHeader::Damaged(_)) => None,
                };
            }
            match salt {
                Some(salt) => {
                    greatest = greatest.max(salt);
                    self.ready.push(Spare { path, file, len });
                }
                None => self.disk.remove(&path).map_err(io_error("remove", &path))?,
            }
        }
        Ok(greatest)
    }

    /// How many files are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Does up to `max_bytes` of work towards a full set of spares; true when there is nothing left to do.
    pub(super) fn prepare(&mut self, max_bytes: u64) -> Result<bool, Error> {
        if self.ready.len() < self.limit
            && let Some(spare) = self.advance(max_bytes)?
        {
            self.ready.push(spare);
        }
        Ok(self.ready.len() >= self.limit)
    }

    /// A file for the next segment: a ready one, or one finished or made here and now.
    pub(super) fn take(&mut self) -> Result<Spare, Error> {
        if let Some(spare) = self.ready.pop() {
            return Ok(spare);
        }
        let made = self.advance(u64::MAX)?;
        Ok(made.expect("a step without bound finishes the file"))
    }

    /// A file of another length, for a batch that fits into no ordinary segment.
    pub(super) fn make(&mut self, len: u64) -> Result<Spare, Error> {
        let mut unfinished = self.begin(len)?;
        match self.fill(&mut unfinished, u64::MAX) {
            Ok(()) => Ok(self.finished(unfinished)),
            Err(source) => Err(self.give_up(&unfinished.path, len, source)),
        }
    }

    /// Puts a released segment's file among the spares under a new name. The caller syncs the directory.
    /// False if there are enough already, or if the file has not the length of a spare: then nothing was done.
    pub(super) fn recycle(&mut self, segment: &Segment) -> Result<bool, Error> {
        if self.ready.len() >= self.limit || segment.len != self.len {
            return Ok(false);
        }
        let path = spare_path(&self.dir, self.next_id);
        self.disk
            .rename(&segment.path, &path)
            .map_err(io_error("rename", &segment.path))?;
        self.next_id += 1;
        self.ready.push(Spare {
            path,
            file: segment.file.clone(),
            len: segment.len,
        });
        Ok(true)
    }

    /// Removes a file that could not be used; that it may stay behind does no harm, recovery judges it again.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::debug!(path = %path.display(), %error, "could not remove an unused segment file");
        }
    }

    /// Works on the unfinished file, beginning one if there is none.
    fn advance(&mut self, max_bytes: u64) -> Result<Option<Spare>, Error> {
        let mut unfinished = match self.unfinished.take() {
            Some(unfinished) => unfinished,
            None => self.begin(self.len)?,
        };
        if let Err(source) = self.fill(&mut unfinished, max_bytes) {
            return Err(self.give_up(&unfinished.path, unfinished.len, source));
        }
        if unfinished.zeroed < unfinished.len {
            self.unfinished = Some(unfinished);
            return Ok(None);
        }
        // From `.tmp` to `.spare`: a run that finds the name may trust the file's length and its blocks.
        let path = spare_path(&self.dir, unfinished.id);
        if let Err(source) = self.disk.rename(&unfinished.path, &path) {
            return Err(self.give_up(&unfinished.path, unfinished.len, source));
        }
        Ok(Some(Spare {
            path,
            ..self.finished(unfinished)
        }))
    }

    fn begin(&mut self, len: u64) -> Result<Unfinished, Error> {
        let id = self.next_id;
        self.next_id += 1;
        let path = unfinished_path(&self.dir, id);
        let file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(source) => return Err(classify("create", &path, len, source)),
        };
        // Asking for all of the space first fails early and gives the file few extents.
        match file.allocate(len) {
            Err(source) if source.kind() != io::ErrorKind::Unsupported => {
                Err(self.give_up(&path, len, source))
            }
            Ok(()) | Err(_) => Ok(Unfinished {
                id,
                path,
                file,
                len,
                zeroed: 0,
            }),
        }
    }

    /// Writes up to `max_bytes` of zeros and syncs them, so that no later sync has to carry them.
    fn fill(&self, unfinished: &mut Unfinished, max_bytes: u64) -> io::Result<()> {
        let end = unfinished
            .len
            .min(unfinished.zeroed.saturating_add(max_bytes.max(PAGE_BYTES)));
        while unfinished.zeroed < end {
            let n = (end - unfinished.zeroed).min(ZEROS.len() as u64);
            unfinished
                .file
                .write_at(&ZEROS[..n as usize], unfinished.zeroed)?;
            unfinished.zeroed += n;
        }
        unfinished.file.sync_data()
    }

    fn finished(&self, unfinished: Unfinished) -> Spare {
        Spare {
            path: unfinished.path,
            file: unfinished.file,
            len: unfinished.len,
        }
    }

    fn give_up(&self, path: &Path, len: u64, source: io::Error) -> Error {
        self.discard(path);
        classify("prepare segment", path, len, source)
    }
}

/// Tells a full disk, after which the log is as before, from a failing one.
pub(super) fn classify(op: &'static str, path: &Path, bytes: u64, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
            path,
            bytes,
            source,
        },
        _ => Error::Io { op, path, source },
    }
}
