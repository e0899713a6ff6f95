//! Opening a log: replay, the verdict on its end, and making that end safe for appending.
//!
//! Nothing read here is trusted: lengths are checked against the file before they are used or allocated.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{Error, io_error};
use super::format::{
    ALIGN, FLAG_HEAD, FLAG_HEAD_END, RECORD_HEADER, RecordHeader, SegmentHeader, record_crc,
    round_up,
};
use super::segment::{Names, Segment, open_segment};
use super::writer::Tail;
use super::{HEADER_BYTES, KIND_MARK, MAX_PAYLOAD_BYTES, PAGE_BYTES, Position, Report, TornTail};
use crate::{Disk, DiskFile};

/// How much is read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes of checksums that a scan for later records may compute beyond a few times the segment: content made to look
/// like a record header at every step must not keep a member from starting.
const SCAN_BUDGET_BYTES: u64 = 256 << 20;

/// What the owner does with each record: position, kind, payload. An error ends the replay.
pub type Visit<'a> = dyn FnMut(Position, u8, Bytes) -> Result<(), String> + 'a;

/// A log that was read, judged and made safe.
pub(super) struct Recovered {
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    pub(super) tail: Tail,
    pub(super) greatest_salt: u32,
    pub(super) report: Report,
}

/// Replays the segments that `names` lists, at least one.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    names: &Names,
    visit: &mut Visit<'_>,
) -> Result<Recovered, Error> {
    let chain = open_chain(disk, dir, &names.segments)?;
    let Some(((newest, newest_header), older)) = chain.split_last() else {
        return Err(Error::Missing { dir: dir.into() });
    };
    let first = chain.first().map_or(newest_header, |(_, header)| header);
    let mut replay = Replay {
        visit,
        report: Report::default(),
        last_lsn: first.first_lsn - 1,
        last_crc: first.prev_crc,
        last_owned_lsn: first.first_lsn - 1,
        announced_lsn: first.first_lsn - 1,
        unsynced: VecDeque::new(),
        head: Vec::new(),
        filled: 0,
    };
    let successors = chain.iter().skip(1).map(|(_, header)| header);
    for ((segment, _), next) in older.iter().zip(successors) {
        replay.sealed_segment(segment, next)?;
    }
    let end = replay.newest_segment(newest, newest_header)?;
    let tail = Tail {
        end,
        last_lsn: replay.last_lsn,
        last_crc: replay.last_crc,
        last_owned_lsn: replay.last_owned_lsn,
        synced_lsn: replay.last_lsn,
        announced_lsn: replay.announced_lsn,
        filled: replay.filled,
    };
    let report = replay.report;
    Ok(Recovered {
        greatest_salt: chain.iter().map(|(one, _)| one.salt).max().unwrap_or(0),
        segments: chain
            .into_iter()
            .map(|(one, _)| (one.number, Arc::new(one)))
            .collect(),
        tail,
        report,
    })
}

/// Opens all segments and checks that none is missing.
fn open_chain(
    disk: &dyn Disk,
    dir: &Path,
    numbers: &[u64],
) -> Result<Vec<(Segment, SegmentHeader)>, Error> {
    for pair in numbers.windows(2) {
        if let [before, after] = *pair
            && after != before + 1
        {
            return Err(Error::Corrupt {
                segment: before + 1,
                offset: 0,
                why: format!("segment file is missing, the next one is segment {after}"),
            });
        }
    }
    numbers
        .iter()
        .map(|&number| open_segment(disk, dir, number))
        .collect()
}

/// The state of a replay between two records.
struct Replay<'a, 'v> {
    visit: &'a mut Visit<'v>,
    report: Report,
    last_lsn: u64,
    last_crc: u32,
    /// LSN of the last record that is not a mark.
    last_owned_lsn: u64,
    /// Greatest LSN that a record so far says was synced.
    announced_lsn: u64,
    /// LSN and offset of the newest segment's records above that.
    unsynced: VecDeque<(u64, u64)>,
    /// Records of a segment's head, held back until it is complete.
    head: Vec<(Position, u8, Bytes)>,
    /// Newest segment that has records, 0 if none has.
    filled: u64,
}

impl Replay<'_, '_> {
    /// Replays a segment that was synced to its end, as its successor's header says.
    fn sealed_segment(&mut self, segment: &Segment, next: &SegmentHeader) -> Result<(), Error> {
        let corrupt = |offset: u64, why: String| Error::Corrupt {
            segment: segment.number,
            offset,
            why,
        };
        if next.prev_end > segment.len {
            let why = format!("file ends before its records do, at {}", next.prev_end);
            return Err(corrupt(segment.len, why));
        }
        let mut window = Window::new(segment);
        let mut offset = HEADER_BYTES as u64;
        while offset < next.prev_end {
            match self.record_at(&mut window, segment, offset, next.prev_end)? {
                Ok(header) => {
                    self.take(&mut window, segment, offset, &header)?;
                    offset += header.total_bytes();
                }
                Err(why) => return Err(corrupt(offset, why.into())),
            }
        }
        if !self.head.is_empty() {
            return Err(corrupt(offset, "head is incomplete".into()));
        }
        if offset != next.prev_end
            || self.last_lsn != next.first_lsn - 1
            || self.last_crc != next.prev_crc
        {
            let why = format!(
                "the next segment continues after lsn {} at offset {}, this one ends with lsn {}",
                next.first_lsn - 1,
                next.prev_end,
                self.last_lsn
            );
            return Err(corrupt(offset, why));
        }
        if offset > HEADER_BYTES as u64 {
            self.filled = segment.number;
        }
        // The cut synced this segment.
        self.announced_lsn = self.last_lsn;
        self.unsynced.clear();
        Ok(())
    }

    /// Replays the newest segment up to its end, judges what lies there, and makes it safe. Gives the end.
    fn newest_segment(&mut self, segment: &Segment, header: &SegmentHeader) -> Result<u64, Error> {
        let mut window = Window::new(segment);
        let mut offset = HEADER_BYTES as u64;
        let why = loop {
            match self.record_at(&mut window, segment, offset, segment.len)? {
                Ok(header) => {
                    self.take(&mut window, segment, offset, &header)?;
                    offset += header.total_bytes();
                }
                Err(why) => break why,
            }
        };
        let junk = window
            .junk_after(segment, offset, self.last_lsn + 1)
            .map_err(io_error("read", &segment.path))?;
        if let Some(proof) = junk.proof {
            return Err(Error::Corrupt {
                segment: segment.number,
                offset,
                why: format!("{why}, and the record at offset {proof} says that it was synced"),
            });
        }
        let mut end = offset;
        if !self.head.is_empty() {
            // An incomplete head replaces nothing: the segment counts as empty.
            self.head.clear();
            self.unsynced.clear();
            self.last_lsn = header.first_lsn - 1;
            self.last_crc = header.prev_crc;
            self.last_owned_lsn = self.last_lsn;
            end = HEADER_BYTES as u64;
        }
        if end > HEADER_BYTES as u64 {
            self.filled = segment.number;
        }
        let junk_end = junk.end.max(offset);
        if junk_end > end {
            let torn = TornTail {
                segment: segment.number,
                offset: end,
                bytes: junk_end - end,
                valid_after: junk.valid,
            };
            tracing::warn!(
                segment = torn.segment,
                offset = torn.offset,
                bytes = torn.bytes,
                valid_after = torn.valid_after,
                "dropped the torn end of the write-ahead log"
            );
            self.report.torn = Some(torn);
        }
        let rewrite_from = self.unsynced.front().map_or(end, |&(_, offset)| offset);
        make_safe(segment, rewrite_from, end, junk_end)
            .map_err(io_error("rewrite", &segment.path))?;
        Ok(end)
    }

    /// The record at `offset` if it is intact and continues the log, else why not.
    fn record_at(
        &self,
        window: &mut Window<'_>,
        segment: &Segment,
        offset: u64,
        limit: u64,
    ) -> Result<Result<RecordHeader, &'static str>, Error> {
        let found = window
            .record(segment, offset, limit)
            .map_err(io_error("read", &segment.path))?;
        Ok(found.and_then(|header| {
            if header.lsn != self.last_lsn + 1 {
                Err("record has another lsn")
            } else if header.prev_crc != self.last_crc {
                Err("record does not follow the one before it")
            } else {
                Ok(header)
            }
        }))
    }

    /// Moves past an intact record and gives it to the visitor, when it counts.
    fn take(
        &mut self,
        window: &mut Window<'_>,
        segment: &Segment,
        offset: u64,
        header: &RecordHeader,
    ) -> Result<(), Error> {
        self.last_lsn = header.lsn;
        self.last_crc = header.crc;
        self.announced_lsn = self.announced_lsn.max(header.synced_lsn());
        self.unsynced.push_back((header.lsn, offset));
        while self
            .unsynced
            .front()
            .is_some_and(|&(lsn, _)| lsn <= self.announced_lsn)
        {
            self.unsynced.pop_front();
        }
        if header.kind == KIND_MARK {
            return Ok(());
        }
        self.last_owned_lsn = header.lsn;
        let position = Position {
            segment: segment.number,
            offset,
        };
        let payload = window
            .slice(offset + RECORD_HEADER, u64::from(header.payload_len))
            .map_err(io_error("read", &segment.path))?;
        let payload = Bytes::copy_from_slice(payload);
        if header.flags & FLAG_HEAD == 0 {
            return self.give(position, header.kind, payload);
        }
        self.head.push((position, header.kind, payload));
        if header.flags & FLAG_HEAD_END != 0 {
            for (position, kind, payload) in std::mem::take(&mut self.head) {
                self.give(position, kind, payload)?;
            }
        }
        Ok(())
    }

    fn give(&mut self, position: Position, kind: u8, payload: Bytes) -> Result<(), Error> {
        self.report.records += 1;
        self.report.bytes += payload.len() as u64;
        (self.visit)(position, kind, payload).map_err(|why| Error::Refused {
            segment: position.segment,
            offset: position.offset,
            why,
        })
    }
}

/// Writes `[from, end)` again as it is and zeros over `[end, junk_end)`, then syncs. See the module on recovery.
fn make_safe(segment: &Segment, from: u64, end: u64, junk_end: u64) -> io::Result<()> {
    let stop = if junk_end > end {
        round_up(junk_end, PAGE_BYTES).min(segment.len)
    } else {
        end
    };
    let mut at = from;
    let mut buf = Vec::new();
    while at < stop {
        let n = (stop - at).min(WINDOW_BYTES);
        buf.clear();
        buf.resize(n as usize, 0);
        let keep = end.saturating_sub(at).min(n) as usize;
        segment.file.read_at(&mut buf[..keep], at)?;
        segment.file.write_at(&buf, at)?;
        at += n;
    }
    if from < stop {
        segment.file.sync_data()?;
    }
    Ok(())
}

/// What lies after the end of the newest segment's records.
struct Junk {
    /// Where the last of it that was written in this life of the segment ends; 0 if there is none.
    end: u64,
    /// A whole record of this segment is among it.
    valid: bool,
    /// Offset of a record which proves that the first missing record had been synced.
    proof: Option<u64>,
}

/// A stretch of a segment's file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Window<'a> {
        Window {
            file: &*segment.file,
            len: segment.len,
            start: 0,
            buf: Vec::new(),
        }
    }

    /// The bytes `[offset, offset + n)`, which the caller knows to lie within the file.
    fn slice(&mut self, offset: u64, n: u64) -> io::Result<&[u8]> {
        let held = self.start..self.start + self.buf.len() as u64;
        if offset < held.start || held.end < offset + n {
            let take = n.max(WINDOW_BYTES).min(self.len - offset);
            self.buf.clear();
            self.buf.resize(take as usize, 0);
            self.start = offset;
            if let Err(error) = self.file.read_at(&mut self.buf, offset) {
                self.buf.clear();
                return Err(error);
            }
            // A single large record must not keep its buffer for the rest of the replay.
            if take <= WINDOW_BYTES {
                self.buf.shrink_to(WINDOW_BYTES as usize);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(&self.buf[at..at + n as usize])
    }

    /// The header of the intact record at `offset` that ends by `limit`, else why there is none.
    fn record(
        &mut self,
        segment: &Segment,
        offset: u64,
        limit: u64,
    ) -> io::Result<Result<RecordHeader, &'static str>> {
        if limit.saturating_sub(offset) < RECORD_HEADER {
            return Ok(Err("no room for a record"));
        }
        let bytes = self.slice(offset, RECORD_HEADER)?;
        let header = RecordHeader::decode(bytes.first_chunk().expect("a slice of that length"));
        if header.salt != segment.salt {
            return Ok(Err("not a record of this segment"));
        }
        if u64::from(header.payload_len) > MAX_PAYLOAD_BYTES
            || header.total_bytes() > limit - offset
        {
            return Ok(Err("record length is out of bounds"));
        }
        let record = self.slice(offset, header.total_bytes())?;
        if record_crc(segment.seed, record) != header.crc {
            return Ok(Err("record checksum does not match"));
        }
        if u64::from(header.unsynced) > header.lsn || header.unsynced == 0 {
            return Ok(Err("record claims an impossible synced lsn"));
        }
        Ok(Ok(header))
    }

    /// Looks at everything after the last record, which ends at `end`; the next one would have had the LSN `lsn`.
    fn junk_after(&mut self, segment: &Segment, end: u64, lsn: u64) -> io::Result<Junk> {
        let mut junk = Junk {
            end: 0,
            valid: false,
            proof: None,
        };
        // The rest of a page that was begun is zero unless a write to it was torn.
        let page_end = round_up(end, PAGE_BYTES).min(self.len);
        let rest = self.slice(end, page_end - end)?;
        if let Some(last) = rest.iter().rposition(|&byte| byte != 0) {
            junk.end = end + last as u64 + 1;
        }
        let mut budget = SCAN_BUDGET_BYTES + 4 * self.len;
        let mut at = end;
        while self.len - at >= RECORD_HEADER {
            let Some(candidate) = self.next_salt(segment.salt, at)? else {
                break;
            };
            at = candidate;
            let bytes = self.slice(at, RECORD_HEADER)?;
            let header = RecordHeader::decode(bytes.first_chunk().expect("a slice of that length"));
            budget = budget.saturating_sub(header.total_bytes().min(MAX_PAYLOAD_BYTES));
            if budget == 0 {
                tracing::warn!(
                    segment = segment.number,
                    offset = at,
                    "too much that looks like records after the end of the write-ahead log"
                );
                break;
            }
            match self.record(segment, at, self.len)? {
                Ok(header) => {
                    junk.valid |= at > end;
                    junk.end = junk.end.max(at + header.total_bytes());
                    if header.synced_lsn() >= lsn {
                        junk.proof = Some(at);
                        break;
                    }
                    at += header.total_bytes();
                }
                Err(_) => {
                    if at == end {
                        // The torn record itself; its length is worth as much as it is in bounds.
                        let torn = header.total_bytes().min(self.len - at);
                        junk.end = junk.end.max(at + torn);
                    }
                    at += ALIGN;
                }
            }
        }
        Ok(junk)
    }

    /// The first offset from `at` on where a record header with this salt could begin.
    fn next_salt(&mut self, salt: u32, at: u64) -> io::Result<Option<u64>> {
        const SALT_AT: usize = 12;
        let salt = salt.to_le_bytes();
        let mut at = at;
        while self.len - at >= RECORD_HEADER {
            // What is held already is searched first, so that many candidates do not mean many reads.
            let held = (self.start + self.buf.len() as u64).saturating_sub(at);
            let n = if at >= self.start && held >= RECORD_HEADER {
                held
            } else {
                (self.len - at).min(WINDOW_BYTES)
            };
            let bytes = self.slice(at, n)?;
            let mut offset = 0;
            while let Some(header) = bytes.get(offset..offset + RECORD_HEADER as usize) {
                if header[SALT_AT..SALT_AT + 4] == salt {
                    return Ok(Some(at + offset as u64));
                }
                offset += ALIGN as usize;
            }
            at += offset as u64;
        }
        Ok(None)
    }
}
