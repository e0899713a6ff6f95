//! Damaged files: never wrong data, never a panic, and always noticed.

use std::collections::BTreeSet;

use ferrite_disk::sim::Fault;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

use super::super::backend::Backend;
use super::super::layout::{self, PAGE};
use super::super::tree;
use super::model::Model;
use super::*;

/// A file with rows and records of all kinds, several tree levels, free pages and small tables.
fn sample() -> (SimDisk, Model) {
    let disk = disk_with_directory(SimDisk::new(11));
    let file = create(&disk);
    let mut model = Model::new();
    let mut batches = vec![
        puts(2..=900, 150),
        puts(901..=920, 5000),
        puts(921..=923, 90_000),
    ];
    batches.push(Batch {
        remove: (2..=300)
            .filter(|main| main % 7 != 0)
            .map(|main| id(main, 0, false))
            .collect(),
        tables: (0..40u8)
            .map(|key| {
                let table = Table::ALL[usize::from(key) % 8];
                TableWrite::put(table, Bytes::from(vec![key]), Bytes::from(vec![key; 200]))
            })
            .collect(),
        ..Batch::default()
    });
    batches.push(puts(924..=930, 10));
    for batch in batches {
        file.commit(&batch).unwrap();
        model.commit(&batch);
    }
    drop(file);
    (disk, model)
}

/// Reads everything in every way and compares what comes out with the model. Whether anything was
/// refused.
fn read_all(file: &PageFile, model: &Model) -> Result<bool, Error> {
    let mut refused = false;
    let mut note = |error: Error| match error {
        Error::Corrupt { .. } => refused = true,
        error => panic!("unexpected {error:?}"),
    };
    assert_eq!(file.meta(), *model.meta());
    let reader = file.reader()?;
    let mut expected = model.rows().iter();
    let scanned = reader.scan(Revision::default(), &mut |revision, tombstone, record| {
        let found = (
            &RowId {
                revision,
                tombstone,
            },
            &record,
        );
        assert_eq!(expected.next(), Some(found), "a wrong row");
        ControlFlow::Continue(())
    });
    match scanned {
        Ok(()) => assert_eq!(expected.next(), None, "the scan ended early"),
        Err(error) => note(error),
    }
    match all_rows_of_leaves(file, 2) {
        Ok(rows) => {
            let expected = model
                .rows()
                .iter()
                .map(|(id, record)| (*id, record.clone()));
            assert!(rows.into_iter().eq(expected), "wrong rows in the leaves");
        }
        Err(error) => note(error),
    }
    let mut fetcher = file.fetcher()?;
    for (id, record) in model.rows() {
        match reader.row(id.revision, id.tombstone) {
            Ok(found) => assert_eq!(found, record, "a wrong row at {id:?}"),
            Err(error) => note(error),
        }
        if !id.tombstone {
            match fetcher.row(id.revision) {
                Ok(found) => assert_eq!(found, record, "a wrong row at {id:?}, in its leaf"),
                Err(error) => note(error),
            }
        }
    }
    match reader.meta() {
        Ok(meta) => assert_eq!(meta, *model.meta()),
        Err(error) => note(error),
    }
    for table in Table::ALL {
        match reader.table(table) {
            Ok(rows) => {
                let rows: Vec<_> = rows.into_iter().map(|(k, v)| ((table, k), v)).collect();
                let expected = model.table(table);
                assert_eq!(rows, expected);
            }
            Err(error) => note(error),
        }
    }
    Ok(refused)
}

/// What became of a damaged file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Outcome {
    /// Nothing of it is in use.
    Harmless,
    /// Opening refused. With debug assertions, redb reads the whole tree when it opens a file.
    Refused,
    /// Reading something refused, and verification names it.
    Reported,
}

/// Every page comes from the disk each time.
fn open_uncached(disk: &SimDisk) -> Result<PageFile, Error> {
    let options = Options {
        cache_bytes: 0,
        ..options()
    };
    PageFile::open(&as_disk(disk), Path::new(FILE), options)
}

/// What becomes of a file that is damaged before it is opened.
fn outcome(disk: &SimDisk, model: &Model, context: &str) -> Outcome {
    match open(disk) {
        Ok(file) => outcome_open(&file, model, context),
        Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => Outcome::Refused,
        Err(error) => panic!("{context}: {error:?}"),
    }
}

/// What becomes of a file that is damaged while it is open.
fn outcome_open(file: &PageFile, model: &Model, context: &str) -> Outcome {
    let refused = match read_all(file, model) {
        Ok(refused) => refused,
        Err(Error::Corrupt { .. }) => true,
        Err(error) => panic!("{context}: {error:?}"),
    };
    let report = verify(file);
    assert_eq!(refused, !report.damage.is_empty(), "{context}: {report:?}");
    if refused {
        Outcome::Reported
    } else {
        Outcome::Harmless
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let (disk, model) = sample();
    let len = disk.read(Path::new(FILE)).unwrap().len() as u64;
    let mut rng = SmallRng::seed_from_u64(5);
    let mut outcomes = Vec::new();
    for block in 0..len / PAGE {
        for round in 0..4 {
            let (offset, bit) = (
                block * PAGE + rng.random_range(0..PAGE),
                rng.random_range(0..8),
            );
            let context = format!("bit {bit} of byte {offset}");
            let damaged = disk.fork();
            let path = Path::new(FILE);
            let outcome = if round % 2 == 0 {
                damaged.flip_bit(path, offset, bit).unwrap();
                outcome(&damaged, &model, &context)
            } else {
                let file = open_uncached(&damaged).unwrap();
                damaged.flip_bit(path, offset, bit).unwrap();
                outcome_open(&file, &model, &context)
            };
            outcomes.push((block, round, outcome));
        }
    }
    let count = |kind| {
        outcomes
            .iter()
            .filter(|(.., outcome)| *outcome == kind)
            .count()
    };
    let noticed = count(Outcome::Reported) + count(Outcome::Refused);
    assert!(noticed > 400, "{noticed} of {} noticed", outcomes.len());
    assert!(
        count(Outcome::Reported) > 200,
        "{} reported",
        count(Outcome::Reported)
    );
    // A page is in use or it is not: the checksum covers all of it. Checksum pages and the first two
    // blocks are used in part, and those of redb's own trees are read only when it opens or commits.
    let mixed = |block: u64| {
        block <= 2 || (0..9).any(|group| layout::checksum_offset(group) == block * PAGE)
    };
    let noticed_open: BTreeSet<_> = outcomes
        .iter()
        .filter(|(block, round, outcome)| {
            round % 2 == 1 && *outcome == Outcome::Reported && !mixed(*block)
        })
        .map(|(block, ..)| *block)
        .collect();
    for (block, _, outcome) in &outcomes {
        let harmless = *outcome == Outcome::Harmless;
        assert!(!(harmless && noticed_open.contains(block)), "block {block}");
    }
}

#[test]
fn every_byte_of_the_headers_counts() {
    let (disk, model) = sample();
    let header = layout::page_offset(0);
    let ranges = [0..16, header..header + 324];
    for offset in ranges.into_iter().flatten() {
        for bit in 0..8 {
            let damaged = disk.fork();
            damaged.flip_bit(Path::new(FILE), offset, bit).unwrap();
            let context = format!("bit {bit} of byte {offset}");
            assert_eq!(
                outcome(&damaged, &model, &context),
                Outcome::Refused,
                "{context}"
            );
        }
    }
}

#[test]
fn larger_damage_is_noticed_or_harmless() {
    let (disk, model) = sample();
    let len = disk.read(Path::new(FILE)).unwrap().len() as u64;
    let mut rng = SmallRng::seed_from_u64(6);
    let mut noticed = 0;
    for round in 0..400 {
        let damaged = disk.fork();
        let path = Path::new(FILE);
        let sector = rng.random_range(0..len / 512) * 512;
        let context = format!("round {round} sector {sector}");
        match round % 4 {
            // A sector of zeros, a run of garbage, a sector from elsewhere, a page from elsewhere.
            0 => damaged.overwrite(path, sector, &[0; 512]).unwrap(),
            1 => damaged
                .corrupt(path, sector..sector + rng.random_range(1..20_000))
                .unwrap(),
            way => {
                let bytes = damaged.read(path).unwrap();
                let unit = if way == 2 { 512 } else { PAGE };
                let mut pick = || rng.random_range(0..len / unit) * unit;
                let (from, to) = (pick() as usize, pick());
                damaged
                    .overwrite(path, to, &bytes[from..from + unit as usize])
                    .unwrap();
            }
        }
        noticed += usize::from(outcome(&damaged, &model, &context) != Outcome::Harmless);
    }
    assert!(noticed > 150, "{noticed} of 400 noticed");
}

#[test]
fn a_truncated_file_is_refused() {
    let (disk, model) = sample();
    let len = disk.read(Path::new(FILE)).unwrap().len() as u64;
    for cut in [
        0,
        1,
        15,
        PAGE - 1,
        PAGE,
        2 * PAGE,
        3 * PAGE,
        20 * PAGE,
        len / 2,
        len - PAGE,
        len - 1,
    ] {
        let damaged = disk.fork();
        damaged.open(Path::new(FILE)).unwrap().set_len(cut).unwrap();
        let context = format!("cut to {cut} of {len}");
        let outcome = outcome(&damaged, &model, &context);
        // redb tolerates a shorter file when what is cut off was never used; then all is there.
        assert!(
            outcome == Outcome::Refused || cut > len / 2,
            "{context}: {outcome:?}"
        );
    }
}

#[test]
fn arbitrary_files_are_refused() {
    for seed in 0..200 {
        let disk = disk_with_directory(SimDisk::new(seed));
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = vec![0; rng.random_range(0..100_000)];
        rng.fill(&mut bytes[..]);
        disk.create(Path::new(FILE))
            .unwrap()
            .write_at(&bytes, 0)
            .unwrap();
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Corrupt {
                    table: "superblock",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_missing_file_is_not_found() {
    let disk = disk_with_directory(SimDisk::new(1));
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
}

#[test]
fn another_layout_is_unsupported() {
    let (disk, _) = sample();
    let mut superblock = disk.read(Path::new(FILE)).unwrap()[..16].to_vec();
    superblock[8] += 1;
    let crc = crc32c::crc32c(&superblock[..12]);
    superblock[12..].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(Path::new(FILE), 0, &superblock).unwrap();
    assert!(matches!(open(&disk), Err(Error::Unsupported { .. })));
}

#[test]
fn damage_costs_what_is_on_the_page_and_verification_names_it() {
    let (disk, model) = sample();
    let file = open_uncached(&disk).unwrap();
    // A row in the middle of the table, found by its bytes.
    let victim = id(600, 0, false);
    let bytes = disk.read(Path::new(FILE)).unwrap();
    let record = &model.rows()[&victim];
    // In all copies: older ones are on free pages.
    let copies = bytes
        .windows(record.len())
        .enumerate()
        .filter(|(_, window)| window == record);
    for (at, _) in copies {
        disk.flip_bit(Path::new(FILE), at as u64, 4).unwrap();
    }

    let reader = file.reader().unwrap();
    let error = reader.row(victim.revision, false).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Corrupt {
                table: REVISIONS,
                ..
            }
        ),
        "{error}"
    );
    let readable = model.rows().iter().filter(|(id, record)| {
        reader
            .row(id.revision, false)
            .is_ok_and(|found| found == *record)
    });
    let lost = model.rows().len() - readable.count();
    assert!((1..40).contains(&lost), "{lost} rows lost");

    let report = verify(&file);
    let [damage] = &report.damage[..] else {
        panic!("{report:?}")
    };
    assert_eq!(damage.table, REVISIONS);
    assert!(damage.what.contains("page at file offset "), "{damage:?}");
    assert!(!report.complete);
    assert!(report.rows > model.meta().rows - 40, "{report:?}");

    // Commits elsewhere go on; the damaged row is not removed unseen.
    file.commit(&puts(2000..=2001, 10)).unwrap();
    let remove = Batch {
        remove: vec![victim],
        ..Batch::default()
    };
    assert!(matches!(file.commit(&remove), Err(Error::Corrupt { .. })));
    assert!(matches!(
        file.commit(&puts(2002..=2003, 10)),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(file.reader(), Err(Error::Poisoned { .. })));
}

#[test]
fn a_failing_disk_ends_the_file() {
    use ferrite_disk::sim::OpKind;
    for kind in [OpKind::Write, OpKind::Sync, OpKind::Allocate] {
        let (disk, _) = sample();
        let file = open(&disk).unwrap();
        disk.fail_when(move |_, op| op == kind, Fault::Io);
        let error = file.commit(&puts(2000..=4000, 10_000)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{kind:?}: {error:?}");
        disk.clear_faults();
        for _ in 0..2 {
            let error = file.commit(&puts(2000..=2000, 10)).unwrap_err();
            assert!(
                matches!(error, Error::Poisoned { .. }),
                "{kind:?}: {error:?}"
            );
            assert!(
                matches!(file.reader(), Err(Error::Poisoned { .. })),
                "{kind:?}"
            );
        }
        drop(file);
        open(&disk).unwrap().commit(&puts(2000..=2000, 10)).unwrap();
    }
}

#[test]
fn a_failing_read_ends_the_file_too() {
    use ferrite_disk::sim::OpKind;
    let (disk, _) = sample();
    let file = open_uncached(&disk).unwrap();
    let reader = file.reader().unwrap();
    disk.fail_when(|_, op| op == OpKind::Read, Fault::Io);
    let error = reader.row(Revision::new(600, 0), false).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    disk.clear_faults();
    let error = reader.row(Revision::new(700, 0), false).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
    assert!(matches!(
        file.commit(&puts(2000..=2000, 10)),
        Err(Error::Poisoned { .. })
    ));
}

#[test]
fn a_write_that_the_disk_lost_is_noticed() {
    // The disk says that it wrote and did not, for one page each time.
    let (disk, model) = sample();
    let batch = puts(2000..=2100, 600);
    let count = {
        let fork = disk.fork();
        let file = open(&fork).unwrap();
        let before = fork.op_count();
        file.commit(&batch).unwrap();
        fork.op_count() - before
    };
    let mut after = model.clone();
    after.commit(&batch);
    let mut noticed = 0;
    for k in 0..count {
        let fork = disk.fork();
        let file = open(&fork).unwrap();
        fork.fail_op(fork.op_count() + k, Fault::Lost);
        file.commit(&batch).unwrap();
        drop(file);
        let file = match open(&fork) {
            Ok(file) => file,
            Err(Error::Corrupt { .. }) => {
                noticed += 1;
                continue;
            }
            Err(error) => panic!("operation {k}: {error}"),
        };
        // The last header lost is the state before, whole: the log tells.
        let expected = if file.meta() == *model.meta() {
            &model
        } else {
            &after
        };
        noticed += usize::from(read_all(&file, expected).unwrap_or(true));
    }
    assert!(noticed > 20, "{noticed} of {count} noticed");
}

/// A branch that is whole, and says that a leaf has 2^31 pages: nobody takes memory for that.
#[test]
fn a_leaf_outside_the_file_is_refused_before_it_is_read() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=500, 300)).unwrap();
    let pages = file.shared().pages();
    let root = tree::root(pages).unwrap().unwrap();
    let mut page = tree::read(pages, root, &mut Vec::new()).unwrap().to_vec();
    assert!(!tree::is_leaf(&page), "too few rows for a branch");
    let children = usize::from(u16::from_le_bytes([page[2], page[3]])) + 1;
    // The upper five bits of the second child's page number.
    page[8 + 16 * children + 15] |= 0xf8;
    let backend = Backend(pages.clone());
    backend.write(root.first * PAGE, &page).unwrap();
    let refused = file.leaves().unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused:?}");
    assert!(
        file.shared().places.read().is_none(),
        "nor is it a hint where rows are"
    );
}
