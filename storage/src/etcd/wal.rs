//! etcd's log, read only (spec snapshots.md section 6).
//!
//! ```text
//!  0000000000000000-0000000000000000.wal  0000000000000001-0000000000000a1f.wal   sequence, first index
//! ┌──────────┬──────────────┬───────────┬─┐┌──────────────────┬──────────────┬─────────────────┐
//! │ crc = 0  │ metadata     │ entry ... │ ││ crc of the last  │ entry ...    │ zeros           │
//! └──────────┴──────────────┴───────────┴─┘└──────────────────┴──────────────┴─────────────────┘
//! ```
//!
//! The checksum of a record is that of all records of the log up to it. The end of the last segment may
//! be torn: a record there that is damaged and has a sector of zeros, or no end, was being written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::{Disk, DiskFile, SECTOR_BYTES};
use prost::Message;

use super::Error;

/// The length of a record, and how many bytes fill it up to a multiple of eight.
const FRAME_BYTES: u64 = 8;

/// Longer records are not taken for possible; an entry is a request of at most some megabytes.
const MAX_RECORD_BYTES: u64 = 1 << 30;

const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CRC: i64 = 4;

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEntry {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", optional, tag = "4")]
    data: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireState {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) term: u64,
    /// Whether it is a request, and no change of the membership.
    pub(super) is_request: bool,
    pub(super) data: Bytes,
}

/// The entries of a log after an index, by their places.
pub(super) struct Log {
    segments: Vec<Segment>,
    /// Segment, and offset of the frame, of each entry.
    places: Vec<(usize, u64)>,
    /// The last entry that is known to be committed.
    pub(super) committed: u64,
}

struct Segment {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

impl Log {
    /// Reads the log in `dir` and notes where its entries after `after` are.
    ///
    /// # Errors
    /// The log is damaged, or entries are missing.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path, after: u64) -> Result<Self, Error> {
        let mut log = Self {
            segments: segments(disk, dir, after)?,
            places: Vec::new(),
            committed: 0,
        };
        let mut crc = 0;
        for number in 0..log.segments.len() {
            log.read_segment(number, after, &mut crc)?;
        }
        Ok(log)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    /// The entries, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> {
        self.places.iter().map(|(number, offset)| {
            let segment = &self.segments[*number];
            match segment.record(*offset)? {
                Read::Record(record, _) => segment.entry(*offset, record.data),
                Read::End | Read::Torn(_) => Err(segment.damaged(*offset, "it has changed")),
            }
        })
    }

    fn read_segment(&mut self, number: usize, after: u64, crc: &mut u32) -> Result<(), Error> {
        let is_last = number + 1 == self.segments.len();
        let mut offset = 0;
        loop {
            let segment = &self.segments[number];
            let (record, next) = match segment.record(offset)? {
                Read::Record(record, next) => (record, next),
                Read::End => return Ok(()),
                Read::Torn(_) if is_last => return Ok(()),
                Read::Torn(what) => return Err(segment.damaged(offset, &what)),
            };
            let data = record.data.unwrap_or_default();
            if record.kind == CRC {
                if *crc != 0 && *crc != record.crc {
                    return Err(segment.mismatch(offset, record.crc, *crc));
                }
                *crc = record.crc;
                offset = next;
                continue;
            }
            let computed = crc32c::crc32c_append(*crc, &data);
            if computed != record.crc {
                // The last write may have reached the disk in part.
                if is_last && segment.has_empty_sector(offset, next)? {
                    return Ok(());
                }
                return Err(segment.mismatch(offset, record.crc, computed));
            }
            *crc = computed;
            match record.kind {
                ENTRY => {
                    let entry = segment.entry(offset, Some(data))?;
                    if entry.index > after {
                        let at = entry.index - after - 1;
                        if at > self.places.len() as u64 {
                            let missing = after + 1 + self.places.len() as u64;
                            let what = format!("entry {} where {missing} should be", entry.index);
                            return Err(segment.damaged(offset, &what));
                        }
                        // An entry takes the place of those from its index on.
                        self.places
                            .truncate(usize::try_from(at).unwrap_or(usize::MAX));
                        self.places.push((number, offset));
                    } else {
                        self.places.clear();
                    }
                }
                STATE => {
                    let state = WireState::decode(data)
                        .map_err(|error| segment.damaged(offset, &error.to_string()))?;
                    self.committed = state.commit;
                }
                _ => {}
            }
            offset = next;
        }
    }
}

enum Read {
    /// A record, and where the next one begins.
    Record(Record, u64),
    /// There are no more.
    End,
    /// What is there is no record.
    Torn(String),
}

impl Segment {
    fn record(&self, offset: u64) -> Result<Read, Error> {
        if offset + FRAME_BYTES > self.bytes {
            return Ok(Read::End);
        }
        let mut frame = [0; FRAME_BYTES as usize];
        self.file.read_at(&mut frame, offset)?;
        let frame = u64::from_le_bytes(frame);
        if frame == 0 {
            return Ok(Read::End);
        }
        let len = frame & (u64::MAX >> 8);
        let padding = match frame >> 63 {
            1 => frame >> 56 & 7,
            _ => 0,
        };
        let from = offset + FRAME_BYTES;
        if len > MAX_RECORD_BYTES || len + padding > self.bytes - from {
            return Ok(Read::Torn(format!("a record of {len} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file.read_at(&mut bytes, from)?;
        let next = from + len + padding;
        Ok(match Record::decode(Bytes::from(bytes)) {
            Ok(record) => Read::Record(record, next),
            Err(error) if self.has_empty_sector(offset, next)? => Read::Torn(error.to_string()),
            Err(error) => return Err(self.damaged(offset, &error.to_string())),
        })
    }

    fn entry(&self, offset: u64, data: Option<Bytes>) -> Result<Entry, Error> {
        let entry = WireEntry::decode(data.unwrap_or_default())
            .map_err(|error| self.damaged(offset, &error.to_string()))?;
        Ok(Entry {
            index: entry.index,
            term: entry.term,
            is_request: entry.kind == 0,
            data: entry.data.unwrap_or_default(),
        })
    }

    /// Whether a part of the record that is one sector of the disk, or a part of one, is zeros.
    fn has_empty_sector(&self, from: u64, to: u64) -> Result<bool, Error> {
        let sector = SECTOR_BYTES as u64;
        let mut at = from + FRAME_BYTES;
        let mut bytes = [0; SECTOR_BYTES];
        while at < to {
            let end = (at / sector + 1).saturating_mul(sector).min(to);
            let part = &mut bytes[..usize::try_from(end - at).unwrap_or(0)];
            self.file.read_at(part, at)?;
            if part.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            at = end;
        }
        Ok(false)
    }

    fn mismatch(&self, offset: u64, expected: u32, computed: u32) -> Error {
        let what = format!("walpb: crc mismatch: expected: {expected:x} computed: {computed:x}");
        self.damaged(offset, &what)
    }

    fn damaged(&self, offset: u64, what: &str) -> Error {
        Error::Wal {
            what: format!("{} at offset {offset}: {what}", self.path.display()),
        }
    }
}

/// The segments that may have entries after `after`, in order.
fn segments(disk: &Arc<dyn Disk>, dir: &Path, after: u64) -> Result<Vec<Segment>, Error> {
    let wrong = |what: String| Error::Wal {
        what: format!("{}: {what}", dir.display()),
    };
    let mut named = Vec::new();
    for entry in disk.list(dir)? {
        let numbers = entry.name.strip_suffix(".wal").and_then(|name| {
            let (sequence, first) = name.split_once('-')?;
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            Some((hex(sequence)?, hex(first)?))
        });
        if let Some((sequence, first)) = numbers {
            named.push((sequence, first, dir.join(entry.name)));
        }
    }
    named.sort();
    for pair in named.windows(2) {
        if pair[0].0 + 1 != pair[1].0 {
            let what = "wal: file sequence numbers do not increase continuously".to_owned();
            return Err(wrong(what));
        }
    }
    let begin = named
        .iter()
        .rposition(|(_, first, _)| *first <= after + 1)
        .ok_or_else(|| wrong(format!("wal: file not found for index {}", after + 1)))?;
    let open = |(_, _, path): (u64, u64, PathBuf)| {
        let file = disk.open(&path)?;
        let bytes = file.len()?;
        Ok(Segment { path, file, bytes })
    };
    named.drain(begin..).map(open).collect()
}

#[cfg(test)]
pub(super) mod made;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::made::{DIR, Maker};
    use super::*;

    fn read(maker: &Maker, after: u64) -> Result<Vec<(u64, u64, Vec<u8>)>, Error> {
        let log = Log::open(&maker.disk(), Path::new(DIR), after)?;
        let entries = log.entries().map(|entry| {
            let entry = entry?;
            Ok((entry.index, entry.term, entry.data.to_vec()))
        });
        entries.collect()
    }

    /// Three segments of entries 1 to 9; the end of term 1 is replaced by entries of term 2.
    fn three() -> Maker {
        let mut maker = Maker::default();
        maker.segment(0);
        for index in 1..=3 {
            maker.entry(index, 1, &[index as u8; 5]);
        }
        maker.segment(4);
        for index in 4..=8 {
            maker.entry(index, 1, &[index as u8; 600]);
        }
        maker.record(STATE, b"\x08\x01\x10\x07\x18\x06");
        maker.segment(7);
        for index in 7..=9 {
            maker.entry(index, 2, &[index as u8; 9]);
        }
        maker.record(STATE, b"\x08\x02\x10\x07\x18\x08");
        let (_, last) = maker.segments.last_mut().unwrap();
        last.resize(8192, 0);
        maker
    }

    #[test]
    fn entries_come_in_order_and_the_last_of_an_index_counts() {
        let maker = three();
        let indexes = |after| -> Vec<(u64, u64)> {
            let entries = read(&maker, after).unwrap().into_iter();
            entries.map(|(index, term, _)| (index, term)).collect()
        };
        let all: Vec<(u64, u64)> = (1..=9).map(|at| (at, if at < 7 { 1 } else { 2 })).collect();
        for after in 0..=9 {
            assert_eq!(indexes(after), all[after as usize..]);
        }
        assert_eq!(read(&maker, 4).unwrap()[0].2, [5; 600]);
        let log = Log::open(&maker.disk(), Path::new(DIR), 0).unwrap();
        assert_eq!((log.len(), log.committed), (9, 8));
    }

    #[test]
    fn a_torn_end_is_the_end_and_other_damage_is_named() {
        let whole = three();
        let end = |maker: &Maker| read(maker, 0).map(|entries| entries.len());
        // The last record is cut, or a sector of it was not written.
        let mut torn = three();
        torn.entry(10, 2, &[1; 2000]);
        let len = whole.segments[2].1.len();
        let last = &mut torn.segments[2].1;
        last.drain(len - 7000..len);
        let at = last.len();
        for cut in [1, 500, 1500, 2010] {
            let mut torn = Maker {
                segments: torn.segments.clone(),
                crc: 0,
            };
            torn.segments[2].1.truncate(at - cut);
            assert_eq!(end(&torn).unwrap(), 9, "{cut}");
        }
        let mut empty = Maker {
            segments: torn.segments.clone(),
            crc: 0,
        };
        empty.segments[2].1[at - 1024..at - 100].fill(0);
        assert_eq!(end(&empty).unwrap(), 9);

        let refused = |damage: fn(&mut Maker)| {
            let mut maker = three();
            damage(&mut maker);
            end(&maker).unwrap_err().to_string()
        };
        let error = refused(|maker| maker.segments[1].1[300] ^= 1);
        assert!(error.contains("crc mismatch"), "{error}");
        let error = refused(|maker| drop(maker.segments.remove(1)));
        assert!(error.contains("crc mismatch"), "{error}");
        let error = refused(|maker| drop(maker.segments.remove(0)));
        assert!(error.contains("file not found for index 1"), "{error}");
        let error = refused(|maker| maker.segments[0].1[0] = 0xff);
        assert!(error.contains("at offset 0"), "{error}");
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            places in prop::collection::vec((0..3_usize, any::<prop::sample::Index>(), any::<u8>()), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut maker = three();
            for (segment, at, flip) in places {
                let bytes = &mut maker.segments[segment].1;
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            let _ = read(&maker, 0);
            let bytes = &mut maker.segments[2].1;
            let cut = cut.index(bytes.len());
            bytes.truncate(cut);
            let _ = read(&maker, 0);
        }
    }
}
