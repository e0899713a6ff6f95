//! What goes in comes out.

use super::*;

#[test]
fn records_of_every_size_come_back() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    let sizes = [
        0,
        1,
        300,
        1340,
        1341,
        1342,
        2047,
        2048,
        2049,
        2682,
        10 << 10,
        16_357,
        32_767,
        32_768,
        32_769,
        1 << 20,
        3 << 19,
    ];
    let mut batch = Batch::default();
    for (main, len) in (2..).zip(sizes) {
        batch.rows.push(row(id(main, 0, false), len));
        batch.rows.push(row(id(main, 1, true), len));
    }
    let expected: Vec<_> = batch
        .rows
        .iter()
        .map(|row| {
            (
                id(row.revision.main, row.revision.sub, row.tombstone),
                row.record.clone(),
            )
        })
        .collect();
    file.commit(&batch).unwrap();
    drop(file);

    let file = open(&disk).unwrap();
    let reader = file.reader().unwrap();
    assert_eq!(all_rows(&reader).unwrap(), expected);
    for (id, record) in &expected {
        assert_eq!(reader.row(id.revision, id.tombstone).unwrap(), record);
    }
    assert_intact(&file);
}

#[test]
fn a_row_of_the_other_kind_or_place_is_missing() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(5..=6, 10)).unwrap();
    let reader = file.reader().unwrap();
    for missing in [
        id(5, 0, true),
        id(5, 1, false),
        id(4, 0, false),
        id(7, 0, false),
        id(-1, 0, false),
        id(5, 1 << 40, false),
    ] {
        let found = reader.row(missing.revision, missing.tombstone);
        assert!(
            matches!(found, Err(Error::Missing { revision }) if revision == missing.revision),
            "{missing:?}: {found:?}"
        );
    }
}

#[test]
fn a_scan_begins_where_it_is_told_and_stops_when_it_is_told() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=500, 300)).unwrap();
    let reader = file.reader().unwrap();
    for (from, first) in [(-5, 2), (0, 2), (2, 2), (77, 77), (500, 500)] {
        let mut seen = Vec::new();
        reader
            .scan(Revision::new(from, 0), &mut |revision, _, _| {
                seen.push(revision.main);
                if seen.len() < 3 {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .unwrap();
        let expected: Vec<_> = (first..=500).take(3).collect();
        assert_eq!(seen, expected, "from {from}");
    }
    let mut seen = 0;
    reader
        .scan(Revision::new(501, 0), &mut |_, _, _| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 0);
}

#[test]
fn every_row_is_in_the_section_where_it_begins() {
    let file = create(&disk_with_directory(SimDisk::new(5)));
    // Rows of one leaf, of several leaves, and of more bytes than are read at once.
    file.commit(&puts(2..=40, 700)).unwrap();
    file.commit(&puts(41..=44, 30_000)).unwrap();
    file.commit(&puts(45..=46, 600_000)).unwrap();
    file.commit(&puts(47..=3000, 20)).unwrap();
    let expected = all_rows(&file.reader().unwrap()).unwrap();
    for sections in (1..40).chain([1000]) {
        let rows = all_rows_of_leaves(&file, sections).unwrap();
        assert!(rows == expected, "{sections} sections");
    }
    let mut seen = 0;
    let leaves = file.leaves().unwrap();
    let all = leaves.sections(1).next().unwrap();
    leaves
        .scan(all, &mut |_, _, _| {
            seen += 1;
            if seen == 3 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn a_reader_keeps_its_picture_and_its_file() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    let before = file.commit(&puts(2..=50, 100)).unwrap();
    let reader = file.reader().unwrap();
    let remove = (2..=50).map(|main| id(main, 0, false)).collect();
    let meta = MetaUpdate {
        revision: Some(51),
        ..MetaUpdate::default()
    };
    file.commit(&Batch {
        remove,
        meta,
        ..Batch::default()
    })
    .unwrap();
    drop(file);
    assert_eq!(reader.meta().unwrap(), before);
    assert_eq!(all_rows(&reader).unwrap().len(), 49);
    drop(reader);
    let file = open(&disk).unwrap();
    assert_eq!(file.meta().rows, 0);
    assert_eq!(all_rows(&file.reader().unwrap()).unwrap(), []);
}

#[test]
fn dropping_a_file_writes_nothing() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=50, 100)).unwrap();
    let before = disk.op_count();
    drop(file);
    assert_eq!(disk.op_count(), before);
}

#[test]
fn a_new_file_replaces_the_old_one_and_the_remains_of_a_failed_attempt() {
    let disk = disk_with_directory(SimDisk::new(1));
    let old = create(&disk);
    old.commit(&puts(2..=50, 100)).unwrap();
    disk.create(Path::new("/data/db.tmp"))
        .unwrap()
        .write_at(b"remains", 0)
        .unwrap();
    let new = create(&disk);
    assert_eq!(new.meta().rows, 0);
    assert_eq!(all_rows(&old.reader().unwrap()).unwrap().len(), 49);
    drop((old, new));
    assert_eq!(open(&disk).unwrap().meta(), *model::Model::new().meta());
    assert_eq!(disk.list(Path::new("/data")).unwrap().len(), 1);
}

#[test]
fn invalid_batches_change_nothing() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    let before = file.meta();
    let rows = |ids: &[RowId]| Batch {
        rows: ids.iter().map(|id| row(*id, 5)).collect(),
        ..Batch::default()
    };
    let remove = |ids: &[RowId]| Batch {
        remove: ids.to_vec(),
        ..Batch::default()
    };
    for batch in [
        rows(&[id(3, 0, false), id(2, 0, false)]),
        rows(&[id(3, 0, false), id(3, 0, false)]),
        rows(&[id(-3, 0, false)]),
        rows(&[id(3, -1, false)]),
        remove(&[id(3, 0, false), id(2, 0, false)]),
        remove(&[id(3, 1 << 32, false)]),
    ] {
        let result = file.commit(&batch);
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
        assert_eq!(file.meta(), before);
    }
    file.commit(&puts(2..=3, 5)).unwrap();
}

#[test]
fn a_row_cannot_be_written_again_otherwise() {
    for (first, second) in [(10, 11), (10, 2000), (2000, 10), (40_000, 39_999)] {
        let disk = disk_with_directory(SimDisk::new(1));
        let file = create(&disk);
        file.commit(&puts(2..=2, first)).unwrap();
        let result = file.commit(&puts(2..=2, second));
        assert!(
            matches!(
                result,
                Err(Error::Corrupt {
                    table: REVISIONS,
                    ..
                })
            ),
            "{result:?}"
        );
        drop(file);
        assert_eq!(
            open(&disk)
                .unwrap()
                .reader()
                .unwrap()
                .row(Revision::new(2, 0), false)
                .unwrap()
                .len(),
            first
        );
    }
}

#[test]
fn verification_runs_beside_commits() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=9000, 50)).unwrap();
    let mut pieces = 0;
    let report = file
        .verify(&mut |_| {
            pieces += 1;
            // Before, around and after what has been read.
            let mut remove = [
                pieces * 10,
                pieces * 2048 - 1,
                pieces * 2048 + 5,
                8000 + pieces,
            ]
            .map(|main| id(main, 0, false))
            .to_vec();
            remove.sort_unstable();
            let batch = Batch {
                remove,
                ..puts(9000 + pieces * 3..=9002 + pieces * 3, 50)
            };
            file.commit(&batch).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(pieces >= 4, "{pieces} pieces");
    assert_eq!(report.damage, []);
    assert!(report.complete);
    assert_intact(&file);
}

#[test]
fn verification_can_be_stopped() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=9000, 50)).unwrap();
    let report = file.verify(&mut |_| ControlFlow::Break(())).unwrap();
    assert!(!report.complete && report.rows < 9000, "{report:?}");
    assert_intact(&file);
}

#[test]
fn readers_and_commits_do_not_disturb_each_other() {
    let disk = disk_with_directory(SimDisk::new(1));
    let file = create(&disk);
    file.commit(&puts(2..=400, 500)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3i64)
            .map(|reader| {
                let (file, done) = (&file, &done);
                scope.spawn(move || {
                    let mut found = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) || found == 0 {
                        let reader_of_now = file.reader().unwrap();
                        let meta = reader_of_now.meta().unwrap();
                        for main in (2 + reader..=meta.revision).step_by(7) {
                            match reader_of_now.row(Revision::new(main, 0), false) {
                                Ok(bytes) => {
                                    assert_eq!(bytes, record(id(main, 0, false), 500));
                                    found += 1;
                                }
                                Err(Error::Missing { .. }) => {
                                    assert!(main <= meta.finished_compact, "{main} is gone");
                                }
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        let rows = all_rows(&reader_of_now).unwrap();
                        assert_eq!(rows.len() as u64, meta.rows);
                    }
                    found
                })
            })
            .collect();
        for step in 1..=40 {
            let mut batch = puts(300 + step * 101..=400 + step * 101, 500);
            let compacted = step * 50;
            batch.remove = (compacted - 48..=compacted)
                .map(|main| id(main, 0, false))
                .collect();
            batch.meta.finished_compact = Some(compacted);
            file.commit(&batch).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert_intact(&file);
}

#[test]
fn the_same_batches_make_the_same_operations_and_bytes() {
    let run = || {
        let disk = disk_with_directory(SimDisk::new(1));
        disk.start_recording();
        let file = create(&disk);
        for step in 0..12 {
            let mut batch = puts(2 + step * 300..=301 + step * 300, 700);
            batch.remove = (2..step * 290)
                .step_by(3)
                .map(|main| id(main, 0, false))
                .collect();
            file.commit(&batch).unwrap();
        }
        let history = disk.history();
        let ops: Vec<_> = (0..history.len()).map(|k| history.op(k)).collect();
        (ops, disk.read(Path::new(FILE)).unwrap())
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, second.0);
    assert!(first.1 == second.1, "the files differ");
}

#[test]
fn files_and_readers_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<PageFile>();
    shared::<Reader>();
}

#[test]
fn an_old_fetcher_finds_what_is_still_there() {
    let file = create(&disk_with_directory(SimDisk::new(1)));
    let lens = [10, 1000, 5000, 50_000];
    let len = |main: i64| lens[main as usize % lens.len()];
    let batch = |mains: std::ops::RangeInclusive<i64>, remove: Vec<RowId>| {
        let rows: Vec<_> = mains
            .map(|main| row(id(main, 0, false), len(main)))
            .collect();
        Batch {
            rows,
            remove,
            ..Batch::default()
        }
    };
    file.commit(&batch(1..=200, Vec::new())).unwrap();
    let mut fetchers = vec![file.fetcher().unwrap()];
    // Most of the pages are freed, and then written again.
    for round in 0..8 {
        let removed = (1..=200)
            .filter(|main| main % 8 == round && *main % 3 != 0)
            .map(|main| id(main, 0, false));
        let new = 1000 * (round + 1)..=1000 * (round + 1) + 50;
        file.commit(&batch(new, removed.collect())).unwrap();
        fetchers.push(file.fetcher().unwrap());
    }
    let reader = file.reader().unwrap();
    for fetcher in &mut fetchers {
        for main in (1..=200).chain(8000..=8050) {
            let revision = Revision::new(main, 0);
            let mut filled = vec![0; len(main)];
            match (fetcher.row_into(revision, &mut filled), main) {
                // In a page that was freed and not written again.
                (Ok(()), _) => assert_eq!(filled, row(id(main, 0, false), len(main)).record),
                (Err(Error::Missing { .. }), 1..=200) if main % 3 != 0 => {
                    reader.row(revision, false).unwrap_err();
                }
                (Err(error), _) => panic!("row {main}: {error:?}"),
            }
        }
    }
}
