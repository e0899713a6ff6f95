//! Damage to what lies on the disk: found and named, or, at the very end, taken for a torn write; never believed.

use std::ops::Range;
use std::path::PathBuf;

use ferrite_disk::Disk;
use ferrite_disk::sim::{Fault, OpKind, SimDisk};
use ferrite_disk::wal::{Error, Position, Wal};
use proptest::prelude::*;

use crate::support::{append, arc, create, dir, entry, open, options, segment};

/// A log that is all synced, and what is known about it.
struct Sample {
    disk: SimDisk,
    segment_bytes: u64,
    positions: Vec<Position>,
    /// Stretches of records, and how many entries each says were synced when it was written.
    announcements: Vec<(Position, Position, u64)>,
    end: Position,
}

fn sample(segment_bytes: u64, batches: &[Vec<usize>], mark: bool) -> Sample {
    let disk = SimDisk::new(3);
    let mut wal = create(&disk, options(segment_bytes));
    let mut positions: Vec<Position> = Vec::new();
    let mut announcements = Vec::new();
    for lens in batches {
        let before = positions.len() as u64;
        positions.extend(append(&mut wal, before, 0, lens).unwrap());
        wal.sync().unwrap();
        let mut end = wal.end();
        for at in positions[before as usize..].iter().rev() {
            announcements.push((*at, end, before));
            end = *at;
        }
    }
    if mark {
        let begin = wal.end();
        wal.mark_synced().unwrap();
        wal.sync().unwrap();
        if wal.end() > begin {
            announcements.push((begin, wal.end(), positions.len() as u64));
        }
    }
    let end = wal.end();
    drop(wal);
    Sample {
        disk,
        segment_bytes,
        positions,
        announcements,
        end,
    }
}

impl Sample {
    /// Opens a copy that was damaged in these bytes of a segment. Whatever is shown must be true; what is missing must be at the
    /// end, and nothing that is left intact may say that it was synced.
    fn check(&self, damaged: &SimDisk, at: u64, bytes: Range<u64>) -> Result<(), String> {
        let intact = self.announcements.iter().filter(|(begin, end, _)| {
            begin.segment != at || end.offset <= bytes.start || bytes.end <= begin.offset
        });
        let announced = intact.map(|(_, _, entries)| *entries).max().unwrap_or(0);
        match open(damaged, options(self.segment_bytes)) {
            Ok(opened) => {
                let shown: Vec<Position> = opened.entries.iter().map(|one| one.position).collect();
                if !self.positions.starts_with(&shown) {
                    return Err(format!("shown {shown:?}"));
                }
                if (shown.len() as u64) < announced {
                    return Err(format!("{} shown, {announced} announced", shown.len()));
                }
                Ok(())
            }
            Err(Error::Corrupt {
                segment, offset, ..
            }) => {
                // Of what was damaged the first record is named, or the header.
                let named = segment == at && offset < bytes.end;
                named
                    .then_some(())
                    .ok_or_else(|| format!("blamed segment {segment}, offset {offset}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn segments(&self) -> Vec<u64> {
        (1..=self.end.segment).collect()
    }
}

#[test]
fn a_flipped_bit_in_every_byte_is_found_or_at_the_very_end() {
    for mark in [false, true] {
        let batches = [
            vec![100, 900],
            vec![1500],
            vec![20; 8],
            vec![1200, 30],
            vec![500],
        ];
        let sample = sample(4096, &batches, mark);
        assert_eq!(sample.end.segment, 2);
        for number in sample.segments() {
            let len = sample.disk.read(&segment(number)).unwrap().len() as u64;
            for byte in 0..len {
                let damaged = sample.disk.fork();
                damaged
                    .flip_bit(&segment(number), byte, (byte % 8) as u8)
                    .unwrap();
                sample
                    .check(&damaged, number, byte..byte + 1)
                    .unwrap_or_else(|what| panic!("segment {number}, byte {byte}: {what}"));
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_record_names_that_record() {
    let sample = sample(
        4096,
        &[vec![100, 900], vec![1500], vec![700; 3], vec![9]],
        true,
    );
    for (i, at) in sample.positions.iter().enumerate() {
        for byte in [0, 5, 8, 12, 17, 24, 28, 29, 31, 32, 36] {
            let damaged = sample.disk.fork();
            damaged
                .flip_bit(&segment(at.segment), at.offset + byte, 1)
                .unwrap();
            let error = open(&damaged, options(4096)).unwrap_err();
            let Error::Corrupt {
                segment, offset, ..
            } = error
            else {
                panic!("entry {i}, byte {byte}: {error}");
            };
            let blamed = Position { segment, offset };
            assert_eq!(blamed, *at, "entry {i}, byte {byte}");
        }
    }
}

#[test]
fn zeroed_stale_and_foreign_sectors_are_found() {
    let batches: Vec<Vec<usize>> = (0..12).map(|i| vec![100 + 50 * i, 200]).collect();
    let sample = sample(8192, &batches, true);
    let stale: Vec<u8> = sample.disk.read(&segment(1)).unwrap()[1024..1536].to_vec();
    let mut corrupt = 0;
    for number in sample.segments() {
        let len = sample.disk.read(&segment(number)).unwrap().len() as u64;
        for sector in 0..len / 512 {
            let bytes = sector * 512..sector * 512 + 512;
            for content in [&[0; 512][..], &stale, &[0xff; 512]] {
                let damaged = sample.disk.fork();
                damaged
                    .overwrite(&segment(number), sector * 512, content)
                    .unwrap();
                sample
                    .check(&damaged, number, bytes.clone())
                    .unwrap_or_else(|what| panic!("segment {number}, sector {sector}: {what}"));
                corrupt += u64::from(open(&damaged, options(8192)).is_err());
            }
        }
    }
    assert!(corrupt > 30, "{corrupt}");
}

#[test]
fn an_acknowledged_write_that_vanished_is_found_by_the_next_one() {
    for fault in [Fault::Lost, Fault::Misdirected(2048)] {
        let disk = SimDisk::new(1);
        let mut wal = create(&disk, options(4096));
        append(&mut wal, 0, 0, &[100]).unwrap();
        wal.sync().unwrap();
        disk.fail_op(disk.op_count(), fault);
        let lost = append(&mut wal, 1, 0, &[100]).unwrap()[0];
        wal.sync().unwrap();
        append(&mut wal, 2, 0, &[100]).unwrap();
        wal.sync().unwrap();
        let error = open(&disk, options(4096)).unwrap_err();
        let Error::Corrupt { offset, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(offset, lost.offset);
    }
}

#[test]
fn a_missing_or_swapped_segment_is_named() {
    let build = || sample(4096, &vec![vec![1500]; 8], true);
    let corrupt = |disk: &SimDisk| match open(disk, options(4096)).unwrap_err() {
        Error::Corrupt { segment, why, .. } => (segment, why),
        error => panic!("{error}"),
    };
    let missing = build();
    assert!(missing.end.segment >= 4);
    missing.disk.remove(&segment(2)).unwrap();
    let (number, why) = corrupt(&missing.disk);
    assert_eq!(number, 2);
    assert!(why.contains("missing"), "{why}");

    let swapped = build();
    let other = dir().join("other");
    swapped.disk.rename(&segment(2), &other).unwrap();
    swapped.disk.rename(&segment(3), &segment(2)).unwrap();
    swapped.disk.rename(&other, &segment(3)).unwrap();
    assert_eq!(corrupt(&swapped.disk).0, 2);

    let cut = build();
    let file = cut.disk.open(&segment(2)).unwrap();
    for len in [2000, 600, 512, 511, 0] {
        file.set_len(len).unwrap();
        assert_eq!(corrupt(&cut.disk).0, 2, "{len} bytes left");
    }

    let blank = build();
    blank.disk.overwrite(&segment(1), 0, &[0; 512]).unwrap();
    assert_eq!(corrupt(&blank.disk), (1, "header is blank".into()));
}

#[test]
fn a_stale_copy_of_a_segment_is_found() {
    let disk = SimDisk::new(3);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[1000]).unwrap();
    wal.sync().unwrap();
    let old = disk.read(&segment(1)).unwrap();
    append(&mut wal, 1, 0, &[1000]).unwrap();
    append(&mut wal, 2, 0, &[1000, 1000]).unwrap();
    wal.sync().unwrap();
    disk.overwrite(&segment(1), 0, &old).unwrap();
    assert!(open(&disk, options(4096)).unwrap_err().is_corrupt());
}

#[test]
fn unreadable_sectors_are_reported_as_such() {
    let sample = sample(4096, &[vec![100]], false);
    let fail = |path: &std::path::Path, kind| {
        kind == OpKind::Read && path.ends_with("0000000000000001.wal")
    };
    sample.disk.fail_when(fail, Fault::Io);
    let error = open(&sample.disk, options(4096)).unwrap_err();
    assert!(matches!(error, Error::Io { op: "read", .. }), "{error}");
}

/// A segment written by somebody who knows the checksums.
struct Forged {
    number: u64,
    bytes: Vec<u8>,
    seed: u32,
    last_crc: u32,
}

struct ForgedRecord {
    len: u32,
    prev_crc: u32,
    salt: u32,
    lsn: u64,
    unsynced: u32,
    /// Kind and flags.
    kind: u16,
    /// Bytes of payload that there really are.
    payload: usize,
}

impl Forged {
    fn new(number: u64, first_lsn: u64, prev_end: u64, prev_crc: u32) -> Forged {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"FERRWAL\n");
        bytes[8] = 1;
        bytes[12] = 9;
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        bytes[24..32].copy_from_slice(&first_lsn.to_le_bytes());
        bytes[32..40].copy_from_slice(&prev_end.to_le_bytes());
        bytes[40..44].copy_from_slice(&prev_crc.to_le_bytes());
        let seed = crc32fast::hash(&bytes[..508]);
        bytes[508..512].copy_from_slice(&seed.to_le_bytes());
        Forged {
            number,
            bytes,
            seed,
            last_crc: prev_crc,
        }
    }

    fn record(&mut self, fields: &ForgedRecord) {
        let begin = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(fields.len.to_le_bytes());
        self.bytes.extend(fields.prev_crc.to_le_bytes());
        self.bytes.extend(fields.salt.to_le_bytes());
        self.bytes.extend(fields.lsn.to_le_bytes());
        self.bytes.extend(fields.unsynced.to_le_bytes());
        self.bytes.extend(fields.kind.to_le_bytes());
        self.bytes.extend([0; 2]);
        self.bytes
            .resize((begin + 32 + fields.payload).next_multiple_of(8), 0);
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(&self.bytes[begin + 4..]);
        self.last_crc = hasher.finalize();
        self.bytes[begin..begin + 4].copy_from_slice(&self.last_crc.to_le_bytes());
    }

    /// A record that is right in every field, before `change`.
    fn good(&mut self, lsn: u64, change: impl FnOnce(&mut ForgedRecord)) {
        let mut fields = ForgedRecord {
            len: 16,
            prev_crc: self.last_crc,
            salt: 9,
            lsn,
            unsynced: 1,
            kind: 7,
            payload: 16,
        };
        change(&mut fields);
        self.record(&fields);
    }

    fn put(mut self, disk: &SimDisk) {
        self.bytes.resize(self.bytes.len().max(8192), 0);
        disk.create_dir(dir()).unwrap();
        let file = disk.create(&segment(self.number)).unwrap();
        file.write_at(&self.bytes, 0).unwrap();
    }
}

fn count_records(disk: &SimDisk) -> Result<u64, Error> {
    let visit = &mut |_, _, _| Ok(());
    Wal::open(arc(disk), dir(), options(8192), visit).map(|(_, report)| report.records)
}

#[test]
fn a_record_with_a_good_checksum_and_a_bad_field_does_not_count() {
    type Change = fn(&mut ForgedRecord);
    let changes: [(&str, Change, u64); 8] = [
        ("none", |_| {}, 3),
        ("salt", |r| r.salt = 8, 2),
        ("lsn repeated", |r| r.lsn = 2, 2),
        ("lsn skipped", |r| r.lsn = 4, 2),
        ("previous crc", |r| r.prev_crc ^= 1, 2),
        ("nothing unsynced", |r| r.unsynced = 0, 2),
        ("more unsynced than there are", |r| r.unsynced = 4, 2),
        ("length", |r| r.len = 9000, 2),
    ];
    for (what, change, expected) in changes {
        let disk = SimDisk::new(1);
        let mut forged = Forged::new(1, 1, 0, 0);
        forged.good(1, |_| {});
        forged.good(2, |_| {});
        forged.good(3, change);
        forged.put(&disk);
        // One that proves that it was synced is corruption, all others are torn.
        match count_records(&disk) {
            Ok(records) => assert_eq!(records, expected, "{what}"),
            Err(error) => assert!(
                what == "lsn skipped" && error.is_corrupt(),
                "{what}: {error}"
            ),
        }
    }
}

#[test]
fn segments_must_fit_together() {
    // Two records of 48 bytes, then the next segment says where they ended and what the last one was.
    let build = |end: u64, lsn: u64, crc_change: u32, head: u16| {
        let disk = SimDisk::new(1);
        let mut first = Forged::new(1, 1, 0, 0);
        first.good(1, |_| {});
        first.good(2, |record| record.kind |= head << 8);
        let mut second = Forged::new(2, lsn, end, first.last_crc ^ crc_change);
        second.good(lsn, |_| {});
        first.put(&disk);
        second.put(&disk);
        count_records(&disk)
    };
    assert_eq!(build(608, 3, 0, 0).unwrap(), 3);
    for (what, result) in [
        ("ends early", build(560, 3, 0, 0)),
        ("ends within a record", build(600, 3, 0, 0)),
        ("ends late", build(656, 3, 0, 0)),
        ("ends nowhere", build(10_000, 3, 0, 0)),
        ("skips", build(608, 4, 0, 0)),
        ("repeats", build(608, 2, 0, 0)),
        ("follows another", build(608, 3, 1, 0)),
        ("leaves a head open", build(608, 3, 0, 1)),
    ] {
        match result {
            Err(Error::Corrupt { segment: 1, .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Lists that make a few segments.
fn batches() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let len = prop_oneof![8 => 9usize..200, 3 => 200usize..2000, 1 => 2000usize..9000];
    prop::collection::vec(prop::collection::vec(len, 1..8), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_give_wrong_data(
        batches in batches(),
        pages in 1u64..5,
        mark: bool,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 20),
    ) {
        let sample = sample(4096 * pages, &batches, mark);
        let segments = sample.segments();
        for (segment_index, byte_index, bit) in flips {
            let number = *segment_index.get(&segments);
            let len = sample.disk.read(&segment(number)).unwrap().len();
            let byte = byte_index.index(len) as u64;
            let damaged = sample.disk.fork();
            damaged.flip_bit(&segment(number), byte, bit).unwrap();
            let verdict = sample.check(&damaged, number, byte..byte + 1);
            prop_assert!(verdict.is_ok(), "segment {number}, byte {byte}, bit {bit}: {verdict:?}");
        }
    }

    #[test]
    fn garbage_in_a_segment_never_panics(
        batches in batches(),
        target in any::<prop::sample::Index>(),
        start in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..3000),
    ) {
        let sample = sample(4096, &batches, true);
        let number = *target.get(&sample.segments());
        let len = sample.disk.read(&segment(number)).unwrap().len();
        let start = start.index(len) as u64;
        sample.disk.overwrite(&segment(number), start, &garbage).unwrap();
        let verdict = sample.check(&sample.disk, number, start..start + garbage.len() as u64);
        prop_assert!(verdict.is_ok(), "{verdict:?}");
    }

    #[test]
    fn arbitrary_files_never_panic(
        files in prop::collection::vec((0u64..6, prop::collection::vec(any::<u8>(), 0..2000)), 1..4),
        spare in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let disk = SimDisk::new(1);
        disk.create_dir(dir()).unwrap();
        let put = |path: PathBuf, content: &[u8]| {
            if let Ok(file) = disk.create(&path) {
                file.write_at(content, 0).unwrap();
            }
        };
        for (number, content) in &files {
            put(segment(*number), content);
        }
        put(dir().join("0000000000000001.spare"), &spare);
        let result = Wal::open(arc(&disk), dir(), options(4096), &mut |_, _, _| Ok(()));
        prop_assert!(result.is_err());
    }

    /// A valid header, and then records whose checksums are right and whose fields are anything.
    #[test]
    fn well_sealed_nonsense_never_panics(
        numbers in prop::collection::vec((any::<u64>(), any::<u64>()), 1..3),
        records in prop::collection::vec(
            (any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u16>(), 0usize..200, 0u8..4),
            0..12,
        ),
    ) {
        let disk = SimDisk::new(1);
        for (i, (lsn, end)) in numbers.iter().enumerate() {
            let mut forged = Forged::new(1 + i as u64, *lsn, end % 10_000, 0);
            for &(len, prev, record_lsn, unsynced, kind, payload, plausible) in &records {
                // Fields that fit get the parser further than random ones.
                forged.record(&ForgedRecord {
                    len: if plausible > 0 { payload as u32 } else { len },
                    prev_crc: if plausible > 2 { 0 } else { prev },
                    salt: 9,
                    lsn: if plausible > 1 { *lsn } else { record_lsn },
                    unsynced,
                    kind,
                    payload,
                });
            }
            forged.put(&disk);
        }
        if let Ok((mut wal, _)) = Wal::open(arc(&disk), dir(), options(8192), &mut |_, _, _| Ok(())) {
            // What was taken for a log can be gone on with like one.
            let at = append(&mut wal, 0, 0, &[100]).unwrap()[0];
            wal.sync().unwrap();
            let reader = wal.reader();
            prop_assert_eq!(reader.read(at).unwrap().1, entry(0, 0, 100).payload);
            drop(wal);
            Wal::open(arc(&disk), dir(), options(8192), &mut |_, _, _| Ok(())).unwrap();
        }
    }
}
