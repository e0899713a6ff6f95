//! [`Wal`]: appending, syncing, cutting and releasing segments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::error::{Error, io_error};
use super::format::{
    FLAG_HEAD, FLAG_HEAD_END, RecordHeader, SegmentHeader, encode_record, record_bytes, round_up,
};
use super::reader::WalReader;
use super::recovery::{Recovered, Visit, recover};
use super::segment::{
    Names, Segment, Segments, Spare, Spares, classify, segment_path, write_header,
};
use super::{
    HEADER_BYTES, KIND_MARK, MAX_BATCH_BYTES, MAX_PAYLOAD_BYTES, Options, PAGE_BYTES, Position,
    Record, Report,
};
use crate::Disk;

/// A larger buffer is given back after the batch that needed it.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The write-ahead log, open for appending. One owner; see the [module](super).
///
/// Invariant: every segment but the newest is synced to its end.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Length of an ordinary segment's file.
    file_bytes: u64,
    segments: Arc<Segments>,
    active: Arc<Segment>,
    tail: Tail,
    /// Salt of the next segment.
    next_salt: u32,
    spares: Spares,
    /// The batch being encoded.
    buf: Vec<u8>,
    bytes_written: u64,
    poisoned: Option<String>,
}

/// Where the log ends.
///
/// Invariants: `announced_lsn <= synced_lsn <= last_lsn`; the bytes of the active segment from `end` to the end of that
/// page are zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    /// Offset of the next record in the active segment.
    pub(super) end: u64,
    /// LSN of the last record, 0 if there never was one.
    pub(super) last_lsn: u64,
    /// CRC of the last record, 0 if there never was one.
    pub(super) last_crc: u32,
    /// LSN of the last record that is not a mark.
    pub(super) last_owned_lsn: u64,
    /// Greatest LSN known to be synced.
    pub(super) synced_lsn: u64,
    /// Greatest synced LSN that a written record names.
    pub(super) announced_lsn: u64,
    /// Newest segment that has records, and so a head; 0 if none has.
    pub(super) filled: u64,
}

impl Wal {
    /// Creates a log whose first segment begins with `head`, and makes it durable. It is made under another name
    /// and renamed, so after a power loss there is either no log or this one. `dir` must not exist, or be empty;
    /// its parent is made if need be, but making the parent's own name durable is left to the caller.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a log in `dir`, [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Io`].
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        head: &[Record],
    ) -> Result<Wal, Error> {
        if Wal::exists(&*disk, dir).map_err(io_error("list", dir))? {
            return Err(Error::Exists { dir: dir.into() });
        }
        let need = HEADER_BYTES as u64 + batch_bytes(head)?;
        let unfinished = unfinished_dir(dir);
        clear_dir(&*disk, &unfinished)?;
        let mut maker = Spares::new(disk.clone(), unfinished.clone(), options.file_bytes(), 0);
        let spare = if need <= options.file_bytes() {
            maker.take()?
        } else {
            maker.make(round_up(need, PAGE_BYTES))?
        };
        let header = SegmentHeader {
            number: 1,
            salt: 1,
            first_lsn: 1,
            prev_crc: 0,
            prev_end: 0,
        };
        let mut first = begin_segment(&*disk, &unfinished, spare, &header)?;
        let mut tail = Tail {
            end: HEADER_BYTES as u64,
            last_lsn: 0,
            last_crc: 0,
            last_owned_lsn: 0,
            synced_lsn: 0,
            announced_lsn: 0,
            filled: 0,
        };
        let mut buf = Vec::new();
        encode_batch(&mut buf, &first, &mut tail, head, &[]);
        first
            .file
            .write_at(&buf, HEADER_BYTES as u64)
            .and_then(|()| first.file.sync_data())
            .map_err(io_error("write", &first.path))?;
        tail.synced_lsn = tail.last_lsn;
        disk.rename(&unfinished, dir)
            .map_err(io_error("rename", &unfinished))?;
        sync_dir(&*disk, parent(dir))?;
        first.path = segment_path(dir, 1);

        let spares = Spares::new(
            disk.clone(),
            dir.into(),
            options.file_bytes(),
            options.spare_segments,
        );
        let segments = BTreeMap::from([(1, Arc::new(first))]);
        let mut wal = Wal::assemble(disk, dir, &options, segments, tail, 2, spares);
        wal.bytes_written = buf.len() as u64;
        Ok(wal)
    }

    /// Whether there is a log in `dir`. One that [`Wal::create`] did not finish does not count.
    pub fn exists(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
        Ok(disk.exists(dir)? && !Names::list(disk, dir)?.segments.is_empty())
    }

    /// Opens a log and replays every record still kept, oldest segment first; `visit` gets position, kind and payload.
    /// A torn tail is dropped with a warning; then the log is made safe for appending and everything replayed is durable.
    ///
    /// A segment's head is replayed like any other records, at the place where the segment began.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Corrupt`], [`Error::Version`], [`Error::Io`]; [`Error::Refused`] if `visit` fails.
    /// Nothing was changed on the disk if it is one of the first three or the last.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<(Wal, Report), Error> {
        let names = match disk.exists(dir) {
            Ok(true) => Names::list(&*disk, dir).map_err(io_error("list", dir))?,
            Ok(false) => Names::default(),
            Err(source) => return Err(io_error("stat", dir)(source)),
        };
        if names.segments.is_empty() {
            return Err(Error::Missing { dir: dir.into() });
        }
        let Recovered {
            segments,
            tail,
            greatest_salt,
            report,
        } = recover(&*disk, dir, &names, visit)?;
        let mut spares = Spares::new(
            disk.clone(),
            dir.into(),
            options.file_bytes(),
            options.spare_segments,
        );
        let salt = spares.adopt(&names)?.max(greatest_salt);
        // A process that died between a rename and the sync of the directory left both to us.
        sync_dir(&*disk, dir)?;
        sync_dir(&*disk, parent(dir))?;
        let wal = Wal::assemble(
            disk,
            dir,
            &options,
            segments,
            tail,
            following_salt(salt),
            spares,
        );
        // Recovery has just read it in large pieces.
        wal.active.file.forget_cache();
        Ok((wal, report))
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
        segments: BTreeMap<u64, Arc<Segment>>,
        tail: Tail,
        next_salt: u32,
        spares: Spares,
    ) -> Wal {
        let (_, active) = segments
            .last_key_value()
            .expect("a log has at least one segment");
        let active = active.clone();
        Wal {
            disk,
            dir: dir.into(),
            file_bytes: options.file_bytes(),
            segments: Arc::new(RwLock::new(segments)),
            active,
            tail,
            next_salt,
            spares,
            buf: Vec::new(),
            bytes_written: 0,
            poisoned: None,
        }
    }

    /// Appends the records as one batch, in one write, and gives the position of each. Not durable until [`Wal::sync`].
    ///
    /// `head` is called when a segment is begun with this batch; its records go before the batch. They must hold what recovery
    /// needs when all older segments are gone, as of before this batch.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::TooLarge`]: nothing was appended, the log is as before.
    /// [`Error::Io`]: the log is poisoned. [`Error::Poisoned`]: it was.
    ///
    /// # Panics
    /// If a record has the kind [`KIND_MARK`].
    pub fn append(
        &mut self,
        records: &[Record],
        head: &mut dyn FnMut() -> Vec<Record>,
    ) -> Result<Vec<Position>, Error> {
        self.check_usable()?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = batch_bytes(records)?;
        let mut begin = if self.is_active_empty() {
            head()
        } else {
            Vec::new()
        };
        let need = bytes + batch_bytes(&begin)?;
        if need > self.active.len - self.tail.end {
            if begin.is_empty() {
                begin = head();
            }
            let need = bytes + batch_bytes(&begin)?;
            if need > MAX_BATCH_BYTES {
                return Err(too_large(need, MAX_BATCH_BYTES));
            }
            self.cut(need)?;
        }
        self.write_batch(&begin, records)
    }

    /// Makes everything appended durable with one fdatasync; none if there is nothing to sync.
    ///
    /// # Errors
    /// [`Error::Io`] poisons the log for ever: the dirty pages may have been dropped, so that a second sync
    /// would succeed and mean nothing.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        if self.tail.synced_lsn < self.tail.last_lsn {
            let result = self.active.file.sync_data();
            result
                .map_err(io_error("sync", &self.active.path))
                .map_err(|error| self.poison(error))?;
            self.tail.synced_lsn = self.tail.last_lsn;
        }
        Ok(())
    }

    /// Writes a small record that says what has been synced, unless one says so already. From then on damage to the last
    /// batch is told from a torn write. For an idle or ending log; costs no sync, [`Wal::sync`] makes the mark itself durable.
    /// False if there was nothing to say or no room in the active segment.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn mark_synced(&mut self) -> Result<bool, Error> {
        self.check_usable()?;
        // Nobody needs to hear that a mark was synced.
        let worth_saying = self.tail.synced_lsn.min(self.tail.last_owned_lsn);
        let nothing_new = self.tail.announced_lsn >= worth_saying;
        if nothing_new || self.active.len - self.tail.end < record_bytes(0) {
            return Ok(false);
        }
        let mark = Record {
            kind: KIND_MARK,
            payload: Bytes::new(),
        };
        self.write_batch(&[], &[mark])?;
        Ok(true)
    }

    /// Works on the next spare segment, writing at most about `max_bytes` of zeros and syncing them; true when all spares
    /// are ready. For when the owner is idle: without it, or recycled segments, the next cut writes a whole segment at once.
    ///
    /// # Errors
    /// [`Error::NoSpace`] leaves the log usable, [`Error::Io`] poisons it.
    pub fn prepare_spare(&mut self, max_bytes: u64) -> Result<bool, Error> {
        self.check_usable()?;
        let result = self.spares.prepare(max_bytes);
        result.map_err(|error| self.poison(error))
    }

    /// Reads records back while the log goes on; for any thread.
    pub fn reader(&self) -> WalReader {
        WalReader::new(self.segments.clone())
    }

    /// Releases every segment with a number below `segment`, but never the newest one that has records: their files
    /// become spares or are removed. The head of what remains is synced first.
    ///
    /// # Errors
    /// [`Error::Io`]; a failed sync poisons the log. Segments are released oldest first, so an error leaves no gap.
    pub fn release_before(&mut self, segment: u64) -> Result<(), Error> {
        self.check_usable()?;
        // A segment without records has no head yet, so it cannot replace the ones before it.
        let bound = segment.min(self.tail.filled);
        if self.segments().start >= bound {
            return Ok(());
        }
        self.sync()?;
        while self.segments().start < bound {
            self.release_oldest()?;
        }
        Ok(())
    }

    /// The numbers of the segments that are kept, oldest to newest; never empty.
    pub fn segments(&self) -> Range<u64> {
        let oldest = self.segments.read().keys().next().copied();
        oldest.unwrap_or(self.active.number)..self.active.number + 1
    }

    /// Where the next record goes, if it still fits into the active segment.
    pub fn end(&self) -> Position {
        Position {
            segment: self.active.number,
            offset: self.tail.end,
        }
    }

    /// Bytes of records appended since the log was opened, with their headers; neither paddings of pages nor new segments.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Bytes that the files of all kept segments occupy or reserve, spares not counted.
    pub fn file_bytes(&self) -> u64 {
        self.segments.read().values().map(|one| one.len).sum()
    }

    /// Size of the active segment's file, in bytes.
    pub fn active_bytes(&self) -> u64 {
        self.active.len
    }

    /// How many segment files are ready for reuse.
    pub fn spares_ready(&self) -> usize {
        self.spares.ready()
    }

    /// Whether everything appended has been synced.
    pub fn is_synced(&self) -> bool {
        self.tail.synced_lsn == self.tail.last_lsn
    }

    fn is_active_empty(&self) -> bool {
        self.tail.end == HEADER_BYTES as u64
    }

    /// Ends the active segment and begins one with room for `need` bytes of records. See the module for the order.
    fn cut(&mut self, need: u64) -> Result<(), Error> {
        self.sync()?;
        let need = HEADER_BYTES as u64 + need;
        let spare = if need <= self.file_bytes {
            self.spares.take()
        } else {
            self.spares.make(round_up(need, PAGE_BYTES))
        };
        let spare = spare.map_err(|error| self.poison(error))?;
        let path = spare.path.clone();
        let header = SegmentHeader {
            number: self.active.number + 1,
            salt: self.next_salt,
            first_lsn: self.tail.last_lsn + 1,
            prev_crc: self.tail.last_crc,
            prev_end: self.tail.end,
        };
        self.next_salt = following_salt(self.next_salt);
        let segment = match begin_segment(&*self.disk, &self.dir, spare, &header) {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                if error.is_no_space() {
                    self.spares.discard(&path);
                }
                return Err(self.poison(error));
            }
        };
        self.segments
            .write()
            .insert(segment.number, segment.clone());
        self.active = segment;
        self.tail.end = HEADER_BYTES as u64;
        Ok(())
    }

    /// Writes head and records, which fit, into the active segment.
    fn write_batch(&mut self, head: &[Record], records: &[Record]) -> Result<Vec<Position>, Error> {
        let begin = self.tail.end;
        let mut tail = self.tail;
        self.buf.clear();
        let positions = encode_batch(&mut self.buf, &self.active, &mut tail, head, records);
        assert!(
            tail.end <= self.active.len,
            "batch from {begin} to {} in a segment of {} bytes",
            tail.end,
            self.active.len
        );
        self.fill_page(begin, &mut tail);
        // A page that is begun is written to its end: writing a part of it would have to read the rest from the disk.
        let page_end = round_up(tail.end, PAGE_BYTES).min(self.active.len);
        if page_end > round_up(begin, PAGE_BYTES) {
            self.buf.resize((page_end - begin) as usize, 0);
        }
        let result = self.active.file.write_at(&self.buf, begin);
        self.bytes_written += tail.end - begin;
        if self.buf.capacity() > KEPT_BUFFER_BYTES {
            self.buf = Vec::new();
        }
        if let Err(source) = result {
            // Part of the batch may be there, and recovery may find it: nobody may be told that it is not.
            let path = self.active.path.clone();
            let op = "write";
            return Err(self.poison(Error::Io { op, path, source }));
        }
        self.tail = tail;
        Ok(positions)
    }

    /// Fills the rest of the last page of a large batch with a mark, so that the next batch begins a page of its own: under
    /// load every batch would otherwise write the last page of the one before again. Small batches share pages.
    fn fill_page(&mut self, begin: u64, tail: &mut Tail) {
        let gap = round_up(tail.end, PAGE_BYTES).min(self.active.len) - tail.end;
        if tail.end - begin < PAGE_BYTES || gap < record_bytes(0) {
            return;
        }
        let payload = Bytes::from_static(&FILLER[..(gap - record_bytes(0)) as usize]);
        let filler = Record {
            kind: KIND_MARK,
            payload,
        };
        encode_batch(&mut self.buf, &self.active, tail, &[], &[filler]);
    }

    fn release_oldest(&mut self) -> Result<(), Error> {
        let oldest = self.segments.read().values().next().cloned();
        let Some(oldest) = oldest else {
            return Ok(());
        };
        if !self.spares.recycle(&oldest)? {
            self.disk
                .remove(&oldest.path)
                .map_err(io_error("remove", &oldest.path))?;
        }
        self.segments.write().remove(&oldest.number);
        sync_dir(&*self.disk, &self.dir).map_err(|error| self.poison(error))
    }

    fn check_usable(&self) -> Result<(), Error> {
        match &self.poisoned {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned {
                cause: cause.clone(),
            }),
        }
    }

    /// Remembers the failure, unless it is one that leaves the log as it was.
    fn poison(&mut self, error: Error) -> Error {
        if !error.is_no_space() {
            self.poisoned = Some(error.to_string());
        }
        error
    }
}

/// What fills the rest of a page.
static FILLER: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Encodes head and records one after the other, moving `tail` on; gives the positions of the records.
fn encode_batch(
    buf: &mut Vec<u8>,
    segment: &Segment,
    tail: &mut Tail,
    head: &[Record],
    records: &[Record],
) -> Vec<Position> {
    let mut positions = Vec::with_capacity(records.len());
    for (i, record) in head.iter().chain(records).enumerate() {
        let flags = if i + 1 < head.len() {
            FLAG_HEAD
        } else if i + 1 == head.len() {
            FLAG_HEAD | FLAG_HEAD_END
        } else {
            0
        };
        if i >= head.len() {
            positions.push(Position {
                segment: segment.number,
                offset: tail.end,
            });
        }
        tail.last_lsn += 1;
        if record.kind != KIND_MARK {
            tail.last_owned_lsn = tail.last_lsn;
        }
        let unsynced = u32::try_from(tail.last_lsn - tail.synced_lsn)
            .expect("a cut syncs, and no segment has room for 2^32 records");
        let header = RecordHeader {
            crc: 0,
            payload_len: 0,
            prev_crc: tail.last_crc,
            salt: segment.salt,
            lsn: tail.last_lsn,
            unsynced,
            kind: record.kind,
            flags,
        };
        tail.last_crc = encode_record(buf, segment.seed, &header, &record.payload);
        tail.end += record_bytes(record.payload.len() as u64);
    }
    if !buf.is_empty() {
        tail.announced_lsn = tail.synced_lsn;
        tail.filled = segment.number;
    }
    positions
}

/// Size of the encoded records, if they keep to the limits.
fn batch_bytes(records: &[Record]) -> Result<u64, Error> {
    let mut bytes = 0;
    for record in records {
        assert!(
            record.kind != KIND_MARK,
            "record kind {KIND_MARK} belongs to the log itself"
        );
        let payload = record.payload.len() as u64;
        if payload > MAX_PAYLOAD_BYTES {
            return Err(too_large(payload, MAX_PAYLOAD_BYTES));
        }
        bytes += record_bytes(payload);
    }
    if bytes > MAX_BATCH_BYTES {
        return Err(too_large(bytes, MAX_BATCH_BYTES));
    }
    Ok(bytes)
}

fn too_large(bytes: u64, max: u64) -> Error {
    Error::TooLarge { bytes, max }
}

/// Turns a spare into a durable, empty segment.
fn begin_segment(
    disk: &dyn Disk,
    dir: &Path,
    spare: Spare,
    header: &SegmentHeader,
) -> Result<Segment, Error> {
    let seed = write_header(&*spare.file, header)
        .map_err(|source| classify("write header", &spare.path, spare.len, source))?;
    let path = segment_path(dir, header.number);
    disk.rename(&spare.path, &path)
        .map_err(|source| classify("rename", &spare.path, spare.len, source))?;
    sync_dir(disk, dir)?;
    // Its zeros, or its earlier life, were written in large pieces.
    spare.file.forget_cache();
    Ok(Segment {
        number: header.number,
        path,
        file: spare.file,
        len: spare.len,
        salt: header.salt,
        seed,
    })
}

/// Salts are used once: 2^32 segments of 64 MB are 275 petabytes. 0 marks a spare that was never a segment.
fn following_salt(salt: u32) -> u32 {
    salt.wrapping_add(1).max(1)
}

fn unfinished_dir(dir: &Path) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(".tmp");
    PathBuf::from(name)
}

/// Makes an empty directory, throwing away what an unfinished creation left in it.
fn clear_dir(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.create_dir(dir).map_err(io_error("create", dir))?;
    for entry in disk.list(dir).map_err(io_error("list", dir))? {
        let path = dir.join(entry.name);
        disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

fn parent(dir: &Path) -> &Path {
    dir.parent().unwrap_or(dir)
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(io_error("sync directory", dir))
}
