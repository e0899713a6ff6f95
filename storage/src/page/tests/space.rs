//! Full disks, and what commits need.

use super::model::Model;
use super::*;

/// Commits small batches until there is no room; what was refused.
fn fill(file: &PageFile, model: &mut Model, from: i64) -> Batch {
    for step in 0.. {
        let main = from + step * 20;
        let batch = puts(main..=main + 19, 2000);
        match file.commit(&batch) {
            Ok(_) => model.commit(&batch),
            Err(Error::NoSpace { needed, reserved }) => {
                assert!(needed > reserved, "{needed} needed, {reserved} reserved");
                return batch;
            }
            Err(error) => panic!("batch {step}: {error:?}"),
        }
    }
    unreachable!("the disk is finite")
}

#[test]
fn a_full_disk_refuses_commits_and_serves_reads_until_there_is_room() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = create(&disk);
    let mut model = Model::new();
    for round in 1..=3 {
        disk.set_capacity(Some(round * (12 << 20)));
        let from = model.meta().revision + 1;
        let refused = fill(&file, &mut model, from);
        assert!(disk.used_bytes() <= round * (12 << 20));
        for _ in 0..2 {
            let again = file.commit(&refused);
            assert!(matches!(again, Err(Error::NoSpace { .. })), "{again:?}");
            model.assert_in(&file);
        }
        disk.set_capacity(None);
        file.commit(&refused).unwrap();
        model.commit(&refused);
        model.assert_in(&file);
    }
    assert_intact(&file);
    drop(file);
    model.assert_in(&open(&disk).unwrap());
}

#[test]
fn any_capacity_means_a_whole_commit_or_none() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = create(&disk);
    let mut before = Model::new();
    let first = puts(2..=200, 300);
    file.commit(&first).unwrap();
    before.commit(&first);
    drop(file);
    // The same bytes, and nothing reserved beyond them.
    let bytes = disk.read(Path::new(FILE)).unwrap();
    disk.remove(Path::new(FILE)).unwrap();
    disk.create(Path::new(FILE))
        .unwrap()
        .write_at(&bytes, 0)
        .unwrap();
    let batch = Batch {
        remove: (2..=100)
            .step_by(9)
            .map(|main| id(main, 0, false))
            .collect(),
        tables: vec![TableWrite::put(
            Table::AuthRoles,
            Bytes::from_static(b"role"),
            Bytes::from(vec![7; 60_000]),
        )],
        ..puts(201..=230, 6000)
    };
    let mut after = before.clone();
    after.commit(&batch);
    let (mut committed, mut refused) = (0, 0);
    for step in 0..120 {
        let disk = disk.fork();
        disk.set_capacity(Some(disk.used_bytes() + step * (128 << 10)));
        let no_headroom = Options {
            headroom_bytes: 0,
            ..options()
        };
        let file = PageFile::open(&as_disk(&disk), Path::new(FILE), no_headroom).unwrap();
        match file.commit(&batch) {
            Ok(_) => {
                committed += 1;
                after.assert_in(&file);
            }
            Err(Error::NoSpace { .. }) => {
                refused += 1;
                before.assert_in(&file);
            }
            Err(error) => panic!("step {step}: {error:?}"),
        }
        assert_intact(&file);
        drop(file);
        disk.set_capacity(None);
        let file = open(&disk).unwrap();
        assert!(before.is_in(&file) || after.is_in(&file), "step {step}");
    }
    assert!(
        committed > 10 && refused > 10,
        "{committed} committed, {refused} refused"
    );
}

#[test]
fn creating_on_a_full_disk_leaves_nothing() {
    let disk = disk_with_directory(SimDisk::new(2));
    let mut made = 0;
    for step in 0..60 {
        let disk = disk.fork();
        disk.set_capacity(Some(disk.used_bytes() + step * (16 << 10)));
        let path = Path::new(FILE);
        match PageFile::create(&as_disk(&disk), path, options(), &initial()) {
            Ok(file) => {
                made += 1;
                Model::new().assert_in(&file);
            }
            Err(Error::NoSpace { .. }) => {
                assert_eq!(disk.list(Path::new("/data")).unwrap(), [], "step {step}");
                disk.set_capacity(None);
                create(&disk);
            }
            Err(error) => panic!("step {step}: {error:?}"),
        }
    }
    assert!((10..60).contains(&made), "{made} of 60");
}

#[test]
fn compaction_works_on_a_full_disk_and_makes_room() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = create(&disk);
    let mut model = Model::new();
    disk.set_capacity(Some(112 << 20));
    let refused = fill(&file, &mut model, 2);
    let mut doomed: Vec<_> = model
        .rows()
        .keys()
        .copied()
        .filter(|id| id.revision.main % 4 != 0)
        .collect();
    assert!(doomed.len() > 4000, "{} rows", doomed.len());
    // Nobody else leaves anything either.
    disk.set_capacity(Some(disk.used_bytes()));
    while !doomed.is_empty() {
        let rest = doomed.split_off(doomed.len().min(2000));
        let batch = Batch {
            remove: std::mem::replace(&mut doomed, rest),
            ..Batch::default()
        };
        file.commit(&batch).unwrap();
        model.commit(&batch);
    }
    model.assert_in(&file);
    assert_intact(&file);
    // The freed pages are inside the file: writing goes on once there is any room beside it.
    disk.set_capacity(Some(disk.used_bytes() + (64 << 20)));
    file.commit(&refused).unwrap();
}

#[test]
fn a_restart_on_a_full_disk_finds_its_headroom_again() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = create(&disk);
    let mut model = Model::new();
    disk.set_capacity(Some(40 << 20));
    fill(&file, &mut model, 2);
    drop(file);
    disk.set_capacity(Some(disk.used_bytes()));
    let file = open(&disk).unwrap();
    model.assert_in(&file);
    let remove = model.rows().keys().copied().take(500).collect();
    let batch = Batch {
        remove,
        ..Batch::default()
    };
    file.commit(&batch).unwrap();
    model.commit(&batch);
    model.assert_in(&file);
}

#[test]
fn commits_reserve_more_than_they_use() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = PageFile::create(
        &as_disk(&disk),
        Path::new(FILE),
        Options {
            cache_bytes: 4 << 20,
            headroom_bytes: 0,
            ..Options::default()
        },
        &initial(),
    )
    .unwrap();
    // Large and small, appended, removed densely, singly, and all that at once.
    let mut next = 2;
    let mut batches = 0;
    for (count, len) in [
        (1, 1),
        (3000, 100),
        (400, 6000),
        (30, 300_000),
        (20_000, 40),
        (1, 1 << 20),
    ] {
        for scatter in [1, 2, 60] {
            let put = puts(next..=next + count - 1, len);
            let doomed = (2..next).rev().step_by(scatter).take(2000);
            let mut remove: Vec<_> = doomed.map(|main| id(main, 0, false)).collect();
            remove.reverse();
            let both = Batch { remove, ..put };
            let only_remove = Batch {
                remove: (2..next + count)
                    .step_by(17)
                    .take(2000)
                    .map(|at| id(at, 0, false))
                    .collect(),
                ..Batch::default()
            };
            for batch in [both, only_remove] {
                file.commit(&batch).unwrap();
                assert_eq!(file.shared().late_reservations(), 0);
                batches += 1;
            }
            next += count;
        }
    }
    assert_eq!(batches, 36);
    assert_intact(&file);
}

#[test]
fn the_file_grows_by_regions_and_shrinks_when_its_end_is_free() {
    let disk = disk_with_directory(SimDisk::new(2));
    let file = create(&disk);
    let region = u64::from(super::super::layout::REGION_PAGES) * super::super::layout::PAGE;
    let mut largest_step = 0;
    let mut peak = 0;
    for step in 0..40 {
        let before = file.sizes().allocated;
        file.commit(&puts(2 + step * 200..=201 + step * 200, 10_000))
            .unwrap();
        peak = file.sizes().allocated;
        largest_step = largest_step.max(peak.saturating_sub(before));
    }
    assert!(peak > 5 * region && peak < 7 * region, "{peak}");
    assert!(largest_step < 2 * region, "{largest_step}");
    assert!(file.sizes().in_use < peak && file.sizes().in_use > 4 * region);
    for step in 0..40 {
        let remove = (2 + step * 200..=201 + step * 200)
            .map(|main| id(main, 0, false))
            .collect();
        file.commit(&Batch {
            remove,
            ..Batch::default()
        })
        .unwrap();
    }
    for index in 0..40 {
        let meta = MetaUpdate {
            consistent_index: Some(index),
            ..MetaUpdate::default()
        };
        file.commit(&Batch {
            meta,
            ..Batch::default()
        })
        .unwrap();
    }
    assert!(file.sizes().allocated < 2 * region, "{:?}", file.sizes());
    // What was cut off went back to the disk, but for some headroom.
    let used = disk.used_bytes();
    assert!(used < 5 * region, "{used}");
    assert_intact(&file);
}
