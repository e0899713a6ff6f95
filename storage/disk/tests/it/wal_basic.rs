//! What the write-ahead log does when nothing, or one thing, goes wrong.

use ferrite_disk::sim::{Fault, OpKind, PowerLoss, SimDisk};
use ferrite_disk::wal::{Error, KIND_MARK, MAX_PAYLOAD_BYTES, Options, Position, Record, Wal};
use ferrite_disk::{DirEntry, Disk};

use crate::support::{ENTRY, append, arc, create, dir, entry, head, open, options, segment};

fn file_names(disk: &SimDisk) -> Vec<String> {
    let entries: Vec<DirEntry> = disk.list(dir()).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn records_come_back_in_order_across_segments() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let reader = wal.reader();
    let mut positions = Vec::new();
    for batch in 0..40 {
        let lens = [10, 300, 77, 8 * batch as usize];
        positions.extend(append(&mut wal, batch * 4, 0, &lens).unwrap());
        wal.sync().unwrap();
    }
    assert!(wal.segments().end > 5);
    for (number, position) in positions.iter().enumerate() {
        let (kind, payload) = reader.read(*position).unwrap();
        assert_eq!(kind, ENTRY);
        assert_eq!(payload, entry(number as u64, 0, payload.len()).payload);
    }
    let end = wal.end();
    drop(wal);
    let opened = open(&disk, options(4096)).unwrap();
    let found: Vec<Position> = opened.entries.iter().map(|entry| entry.position).collect();
    assert_eq!(found, positions);
    assert_eq!(opened.report.torn, None);
    assert_eq!(opened.wal.end(), end);
}

#[test]
fn create_refuses_an_existing_log_and_open_a_missing_one() {
    let disk = SimDisk::new(1);
    let error = open(&disk, options(4096)).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(!Wal::exists(&disk, dir()).unwrap());
    drop(create(&disk, options(4096)));
    assert!(Wal::exists(&disk, dir()).unwrap());
    let error = Wal::create(arc(&disk), dir(), options(4096), &[]).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    disk.create_dir("/empty".as_ref()).unwrap();
    let error = Wal::open(
        arc(&disk),
        "/empty".as_ref(),
        options(4096),
        &mut |_, _, _| Ok(()),
    )
    .unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn one_batch_is_one_write_and_syncs_are_not_repeated() {
    let disk = SimDisk::recording(1);
    let mut wal = create(&disk, options(1 << 20));
    disk.start_recording();
    append(&mut wal, 0, 0, &[100; 64]).unwrap();
    assert!(!wal.is_synced());
    wal.sync().unwrap();
    assert!(wal.is_synced());
    wal.sync().unwrap();
    append(&mut wal, 64, 0, &[]).unwrap();
    wal.sync().unwrap();
    let history = disk.history();
    let kinds: Vec<OpKind> = (0..history.len())
        .map(|k| history.op(k).unwrap().0)
        .collect();
    assert_eq!(kinds, [OpKind::Write, OpKind::Sync]);
}

#[test]
fn payloads_may_be_empty_and_any_kind_but_the_mark() {
    let disk = SimDisk::new(1);
    let record = |kind: u8, payload: &'static [u8]| Record {
        kind,
        payload: payload.into(),
    };
    let records = [record(0, b""), record(254, b"x"), record(7, b"12345678")];
    let mut wal = Wal::create(arc(&disk), dir(), options(4096), &[]).unwrap();
    wal.append(&records, &mut Vec::new).unwrap();
    wal.sync().unwrap();
    assert!(wal.mark_synced().unwrap());
    drop(wal);
    let mut seen = Vec::new();
    Wal::open(arc(&disk), dir(), options(4096), &mut |_, kind, payload| {
        seen.push(Record { kind, payload });
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, records);
}

#[test]
#[should_panic(expected = "belongs to the log itself")]
fn the_kind_of_marks_is_taken() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let record = Record {
        kind: KIND_MARK,
        payload: "x".into(),
    };
    let _ = wal.append(&[record], &mut Vec::new);
}

#[test]
fn what_fits_into_no_segment_gets_one_of_its_own() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[100]).unwrap();
    let large = append(&mut wal, 1, 0, &[10, 50_000, 10]).unwrap();
    assert_eq!(
        large.iter().map(|at| at.segment).collect::<Vec<_>>(),
        [2; 3]
    );
    let next = append(&mut wal, 4, 0, &[2500]).unwrap();
    assert_eq!(next[0].segment, 3);
    wal.sync().unwrap();
    let (_, payload) = wal.reader().read(large[1]).unwrap();
    assert_eq!(payload, entry(2, 0, 50_000).payload);
    assert_eq!(disk.read(&segment(2)).unwrap().len() % 4096, 0);
    drop(wal);
    let mut opened = open(&disk, options(4096)).unwrap();
    assert_eq!(opened.numbers(), 0..5);
    // It is too large to be worth keeping.
    opened.wal.release_before(3).unwrap();
    assert_eq!(opened.wal.spares_ready(), 1);
    assert_eq!(disk.used_bytes(), 2 * 4096);
}

#[test]
fn a_payload_beyond_the_limit_is_refused_and_nothing_happens() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let ops = disk.op_count();
    let record = Record {
        kind: ENTRY,
        payload: vec![0; MAX_PAYLOAD_BYTES as usize + 1].into(),
    };
    let error = wal.append(&[record], &mut || head(0)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(disk.op_count(), ops);
    append(&mut wal, 0, 0, &[10]).unwrap();
}

#[test]
fn released_segments_are_reused_and_never_read_as_new_ones() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let first = append(&mut wal, 0, 0, &[100]).unwrap()[0];
    let reader = wal.reader();
    // Records of one size, so that old ones lie exactly where new ones would be looked for.
    for number in 1..200 {
        append(&mut wal, number, 0, &[100]).unwrap();
        wal.sync().unwrap();
        let newest = wal.segments().end - 1;
        wal.release_before(newest).unwrap();
        assert_eq!(wal.segments(), newest..newest + 1);
        let fork = disk.power_loss(PowerLoss::KeepAll);
        let opened = open(&fork, options(4096)).unwrap();
        assert_eq!(opened.numbers().end, number + 1);
        assert_eq!(opened.report.torn, None);
    }
    assert!(wal.segments().start > 6);
    let error = reader.read(first).unwrap_err();
    assert!(matches!(error, Error::Released { segment: 1 }), "{error}");
    // One segment and one spare are all that the whole run needed.
    assert_eq!(file_names(&disk).len(), 2);
}

#[test]
fn the_newest_records_are_never_released() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[2500]).unwrap();
    append(&mut wal, 1, 0, &[2500]).unwrap();
    wal.release_before(u64::MAX).unwrap();
    assert_eq!(wal.segments(), 2..3);
    // Releasing made the head durable that replaces the old segment.
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(open(&after, options(4096)).unwrap().numbers(), 1..2);
}

#[test]
fn spares_are_prepared_in_steps() {
    let disk = SimDisk::new(1);
    let options = Options {
        segment_bytes: 64 << 10,
        spare_segments: 2,
    };
    let mut wal = create(&disk, options.clone());
    let mut steps = 1;
    while !wal.prepare_spare(8 << 10).unwrap() {
        steps += 1;
    }
    assert_eq!((steps, wal.spares_ready()), (16, 2));
    let ops = disk.op_count();
    assert!(wal.prepare_spare(8 << 10).unwrap());
    assert_eq!(disk.op_count(), ops);
    // A cut that finds a spare writes a header, a batch and nothing else.
    append(&mut wal, 0, 0, &[60_000]).unwrap();
    disk.start_recording();
    append(&mut wal, 1, 0, &[10_000]).unwrap();
    let history = disk.history();
    let writes = (0..history.len())
        .filter(|&k| history.op(k).unwrap().0 == OpKind::Write)
        .count();
    assert_eq!(writes, 2);
    // A cut that finds an unfinished one finishes it.
    wal.prepare_spare(8 << 10).unwrap();
    append(&mut wal, 2, 0, &[60_000]).unwrap();
    append(&mut wal, 3, 0, &[60_000]).unwrap();
    wal.prepare_spare(8 << 10).unwrap();
    append(&mut wal, 4, 0, &[60_000]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert_eq!(open(&disk, options).unwrap().numbers(), 0..5);
}

#[test]
fn opening_keeps_good_spares_and_removes_the_rest() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(8192));
    for number in 0..4 {
        append(&mut wal, number, 0, &[6000]).unwrap();
    }
    wal.release_before(3).unwrap();
    wal.append(&[entry(4, 0, 6000)], &mut || head(4)).unwrap();
    wal.sync().unwrap();
    wal.prepare_spare(4096).unwrap();
    drop(wal);
    let spare = |number: u64| dir().join(format!("{number:016x}.spare"));
    let write = |path: &std::path::Path, content: &[u8]| {
        disk.create(path).unwrap().write_at(content, 0).unwrap();
    };
    // Adopted in the order of their names: one with a header that cannot be read, one too short, two good ones.
    disk.remove(&spare(1)).unwrap_or_default();
    write(&spare(100), &[7; 8192]);
    write(&spare(101), &[0; 4096]);
    write(&spare(102), &[0; 8192]);
    write(&spare(103), &[0; 8192]);
    write(&dir().join("README"), b"not ours");
    let opened = open(&disk, options(8192)).unwrap();
    assert_eq!(opened.wal.spares_ready(), 1);
    let names = file_names(&disk);
    let spares: Vec<&String> = names.iter().filter(|n| n.contains("spare")).collect();
    assert_eq!(spares, ["0000000000000066.spare"]);
    assert!(names.contains(&"README".to_owned()));
    assert!(!names.iter().any(|name| name.contains("tmp")));
}

#[test]
fn segments_of_another_size_are_read_and_followed_by_new_ones() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[3000]).unwrap();
    append(&mut wal, 1, 0, &[3000]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let mut opened = open(&disk, options(16384)).unwrap();
    append(&mut opened.wal, 2, 0, &[3000; 4]).unwrap();
    opened.wal.sync().unwrap();
    opened.wal.release_before(3).unwrap();
    assert_eq!(opened.wal.spares_ready(), 0);
    assert_eq!(opened.wal.file_bytes(), 16384);
    drop(opened);
    assert_eq!(open(&disk, options(4096)).unwrap().numbers(), 2..6);
}

#[test]
fn a_failed_sync_poisons_for_ever() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[10]).unwrap();
    disk.fail_op(disk.op_count(), Fault::Io);
    let error = wal.sync().unwrap_err();
    assert!(matches!(error, Error::Io { op: "sync", .. }), "{error}");
    let ops = disk.op_count();
    let poisoned = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("sync"), "{error}");
    };
    poisoned(wal.sync());
    poisoned(append(&mut wal, 1, 0, &[10]).map(drop));
    poisoned(append(&mut wal, 1, 0, &[10_000]).map(drop));
    poisoned(wal.release_before(1));
    poisoned(wal.prepare_spare(1).map(drop));
    poisoned(wal.mark_synced().map(drop));
    assert_eq!(disk.op_count(), ops);
}

#[test]
fn a_failed_write_poisons_whatever_the_reason() {
    for fault in [Fault::Io, Fault::Short(100), Fault::NoSpace] {
        let disk = SimDisk::new(1);
        let mut wal = create(&disk, options(4096));
        append(&mut wal, 0, 0, &[10]).unwrap();
        disk.fail_op(disk.op_count(), fault);
        let error = append(&mut wal, 1, 0, &[200]).unwrap_err();
        assert!(matches!(error, Error::Io { op: "write", .. }), "{error}");
        let error = append(&mut wal, 1, 0, &[200]).unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    }
}

#[test]
fn records_read_after_a_failed_sync_are_written_again() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(8192));
    append(&mut wal, 0, 0, &[10]).unwrap();
    wal.sync().unwrap();
    append(&mut wal, 1, 0, &[10, 5000, 20]).unwrap();
    disk.fail_op(disk.op_count(), Fault::Io);
    wal.sync().unwrap_err();
    disk.crash();
    // The page cache still shows them to the next process, the disk does not have them.
    let opened = open(&disk, options(8192)).unwrap();
    assert_eq!(opened.numbers(), 0..4);
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(open(&after, options(8192)).unwrap().numbers(), 0..4);
}

#[test]
fn damage_to_the_last_batch_is_noticed_once_it_is_marked() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[100]).unwrap();
    wal.sync().unwrap();
    let at = append(&mut wal, 1, 0, &[100, 100]).unwrap()[0];
    assert!(!disk.fork().exists(&segment(2)).unwrap());
    wal.sync().unwrap();

    let damaged = disk.fork();
    damaged.flip_bit(&segment(1), at.offset + 40, 0).unwrap();
    let opened = open(&damaged, options(4096)).unwrap();
    assert_eq!(opened.numbers(), 0..1);
    let torn = opened.report.torn.unwrap();
    assert_eq!((torn.segment, torn.offset), (1, at.offset));
    assert!(torn.valid_after);

    assert!(wal.mark_synced().unwrap());
    assert!(!wal.mark_synced().unwrap());
    wal.sync().unwrap();
    assert!(!wal.mark_synced().unwrap(), "a mark about a mark");
    disk.flip_bit(&segment(1), at.offset + 40, 0).unwrap();
    let error = open(&disk, options(4096)).unwrap_err();
    let Error::Corrupt {
        segment, offset, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((segment, offset), (1, at.offset));
}

#[test]
fn a_reopened_log_can_be_marked() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let at = append(&mut wal, 0, 0, &[100]).unwrap()[0];
    drop(wal);
    let mut wal = open(&disk, options(4096)).unwrap().wal;
    assert!(wal.mark_synced().unwrap());
    drop(wal);
    let mut wal = open(&disk, options(4096)).unwrap().wal;
    assert!(!wal.mark_synced().unwrap());
    disk.flip_bit(&segment(1), at.offset + 40, 0).unwrap();
    assert!(open(&disk, options(4096)).unwrap_err().is_corrupt());
}

#[test]
fn no_two_uses_of_segment_files_share_a_salt() {
    let salt = |disk: &SimDisk, number| {
        let bytes = disk.read(&segment(number)).unwrap();
        u32::from_le_bytes(*bytes[12..].first_chunk().unwrap())
    };
    let disk = SimDisk::new(1);
    drop(create(&disk, options(4096)));
    let mut salts = vec![salt(&disk, 1)];
    let mut next = 0;
    for _ in 0..5 {
        let mut wal = open(&disk, options(4096)).unwrap().wal;
        for _ in 0..3 {
            append(&mut wal, next, 0, &[2000]).unwrap();
            next += 1;
            let newest = wal.segments().end - 1;
            salts.push(salt(&disk, newest));
            // Now the greatest salt is in a spare, where it must be found after the segment's number is taken back.
            wal.release_before(newest).unwrap();
        }
        append(&mut wal, next, 0, &[2000]).unwrap();
        next += 1;
        wal.sync().unwrap();
        salts.push(salt(&disk, wal.segments().end - 1));
    }
    salts.dedup();
    assert!(salts.len() > 15);
    assert!(salts.is_sorted_by(|a, b| a < b), "{salts:?}");
}

#[test]
fn the_salt_of_a_spare_counts() {
    // A crash between writing a spare's header and renaming it leaves a spare with the newest salt of all.
    let disk = SimDisk::recording(1);
    let mut options = options(4096);
    options.spare_segments = 2;
    let mut wal = create(&disk, options.clone());
    append(&mut wal, 0, 0, &[2000]).unwrap();
    while !wal.prepare_spare(1 << 20).unwrap() {}
    append(&mut wal, 1, 0, &[2000]).unwrap();
    let mut history = disk.history();
    let renamed = (0..history.len()).rev();
    let rename = renamed
        .filter(|&k| history.op(k).unwrap().0 == OpKind::Rename)
        .max()
        .unwrap();
    let crashed = history.fork_at(rename);
    let mut wal = open(&crashed, options).unwrap().wal;
    append(&mut wal, 1, 0, &[2000]).unwrap();
    let bytes = crashed.read(&segment(2)).unwrap();
    assert_eq!(bytes[12..16], [3, 0, 0, 0]);
}

#[test]
fn a_visitor_may_refuse_and_nothing_was_changed() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let at = append(&mut wal, 0, 0, &[100, 100]).unwrap()[1];
    let ops = disk.op_count();
    let mut count = 0;
    let error = Wal::open(arc(&disk), dir(), options(4096), &mut |_, _, _| {
        count += 1;
        if count == 4 {
            Err("I have seen enough".into())
        } else {
            Ok(())
        }
    })
    .unwrap_err();
    let Error::Refused {
        segment, offset, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((segment, offset), (1, at.offset));
    assert_eq!(disk.op_count(), ops);
}

#[test]
fn reading_where_no_record_begins_is_an_error() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    let at = append(&mut wal, 0, 0, &[100]).unwrap()[0];
    let reader = wal.reader();
    for offset in [0, 511, at.offset + 8, 4000, 4090, 4096, u64::MAX] {
        let error = reader.read(Position { offset, ..at }).unwrap_err();
        assert!(error.is_corrupt(), "offset {offset}: {error}");
    }
    let error = reader.read(Position { segment: 9, ..at }).unwrap_err();
    assert!(matches!(error, Error::Released { segment: 9 }), "{error}");
    disk.flip_bit(&segment(1), at.offset + 50, 1).unwrap();
    assert!(reader.read(at).unwrap_err().is_corrupt());
}

#[test]
fn segments_of_an_unknown_version_are_named() {
    let disk = SimDisk::new(1);
    drop(create(&disk, options(4096)));
    let mut sector = disk.read(&segment(1)).unwrap()[..512].to_vec();
    sector[8] = 2;
    let crc = crc32fast::hash(&sector[..508]);
    sector[508..].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(&segment(1), 0, &sector).unwrap();
    let error = open(&disk, options(4096)).unwrap_err();
    let expected = "segment 1 has format version 2, this program knows 1";
    assert_eq!(error.to_string(), expected);
}
