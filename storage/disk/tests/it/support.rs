//! What the WAL tests share: numbered records that say what they are, and a replay that checks them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal::{Error, Options, Position, Record, Report, Wal};

/// Where the tests keep their log.
pub(crate) const DIR: &str = "/data/member/wal";

/// Kind of a segment's head: its payload is the number of the first entry after it.
pub(crate) const HEAD: u8 = 1;
/// Kind of an ordinary record.
pub(crate) const ENTRY: u8 = 2;

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(crate) fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.session())
}

pub(crate) fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        spare_segments: 1,
    }
}

/// Entry `number`: its payload begins with the number and goes on with bytes that depend on it and on `life`.
pub(crate) fn entry(number: u64, life: u8, len: usize) -> Record {
    let mut payload = number.to_le_bytes().to_vec();
    payload.push(life);
    payload.resize(payload.len().max(len), number.wrapping_mul(31) as u8 ^ life);
    Record {
        kind: ENTRY,
        payload: payload.into(),
    }
}

/// Two records, so that a head can be torn in the middle, the second reaching into another sector.
pub(crate) fn head(next: u64) -> Vec<Record> {
    let mut payload = next.to_le_bytes().to_vec();
    let mut record = |len| {
        payload.resize(len, 0xbb);
        let payload = Bytes::copy_from_slice(&payload);
        Record {
            kind: HEAD,
            payload,
        }
    };
    vec![record(8), record(500)]
}

/// A replayed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) life: u8,
    pub(crate) len: usize,
    pub(crate) position: Position,
}

/// A log as opening it showed it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) wal: Wal,
    pub(crate) report: Report,
    pub(crate) entries: Vec<Entry>,
}

impl Opened {
    /// Numbers of the entries: a half-open range, empty at 0 if there are none.
    pub(crate) fn numbers(&self) -> std::ops::Range<u64> {
        match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) => first.number..last.number + 1,
            _ => 0..0,
        }
    }
}

fn number_in(payload: &[u8]) -> u64 {
    u64::from_le_bytes(
        *payload
            .first_chunk()
            .expect("a payload begins with its number"),
    )
}

/// Opens the log and checks everything that must hold whatever happened to it: positions rise, entries are numbered without a gap
/// and intact, and every segment that has entries begins with a complete head that fits.
pub(crate) fn open(disk: &SimDisk, options: Options) -> Result<Opened, Error> {
    let mut records = Vec::new();
    let (wal, report) = Wal::open(arc(disk), dir(), options, &mut |position, kind, payload| {
        records.push((position, kind, payload));
        Ok(())
    })?;
    assert_eq!(report.records, records.len() as u64);
    let bytes: usize = records.iter().map(|(_, _, payload)| payload.len()).sum();
    assert_eq!(report.bytes, bytes as u64);

    let mut entries: Vec<Entry> = Vec::new();
    let mut next = None;
    let mut heads = 0;
    let mut last = None;
    for (position, kind, payload) in records {
        assert!(last < Some(position), "{position:?} after {last:?}");
        let begins = last.is_none_or(|last: Position| last.segment != position.segment);
        last = Some(position);
        match kind {
            HEAD => {
                heads = if begins { 1 } else { heads + 1 };
                let number = number_in(&payload);
                assert!(
                    next.is_none_or(|next| next == number),
                    "head {number} for {next:?}"
                );
                next = Some(number);
            }
            ENTRY => {
                assert!(!begins, "segment {} has no head", position.segment);
                assert_eq!(heads % 2, 0, "entry within a head");
                let (number, life) = (number_in(&payload), payload[8]);
                assert_eq!(next, Some(number), "a gap");
                assert_eq!(payload, entry(number, life, payload.len()).payload);
                next = Some(number + 1);
                let len = payload.len();
                entries.push(Entry {
                    number,
                    life,
                    len,
                    position,
                });
            }
            other => panic!("record of kind {other}"),
        }
    }
    Ok(Opened {
        wal,
        report,
        entries,
    })
}

/// Appends entries `from..` of these lengths as one batch.
pub(crate) fn append(
    wal: &mut Wal,
    from: u64,
    life: u8,
    lens: &[usize],
) -> Result<Vec<Position>, Error> {
    let numbers = from..;
    let records: Vec<Record> = numbers
        .zip(lens)
        .map(|(number, &len)| entry(number, life, len))
        .collect();
    wal.append(&records, &mut || head(from))
}

/// Creates the log in a directory whose name is durable.
pub(crate) fn create(disk: &SimDisk, options: Options) -> Wal {
    let parent = dir().parent().unwrap();
    disk.create_dir(parent).unwrap();
    for ancestor in parent.ancestors().skip(1) {
        disk.sync_dir(ancestor).unwrap();
    }
    Wal::create(arc(disk), dir(), options, &head(0)).unwrap()
}

/// Path of a segment's file.
pub(crate) fn segment(number: u64) -> std::path::PathBuf {
    dir().join(format!("{number:016x}.wal"))
}
