//! Rebuilding: the same content in less space, and a whole file after any crash.

use ferrite_disk::sim::{Fault, PowerLoss};
use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{self, Model};
use super::*;

fn rebuilt(disk: &SimDisk) -> Result<Rebuilt, Error> {
    rebuild(&as_disk(disk), Path::new(FILE), &options(), &mut |_, _| {})
}

/// A file most of whose rows were removed.
fn sparse() -> (SimDisk, Model) {
    let disk = disk_with_directory(SimDisk::new(21));
    let file = create(&disk);
    let mut model = Model::new();
    let batches = [
        puts(2..=2500, 300),
        puts(2501..=2503, 70_000),
        Batch {
            rows: vec![row(id(2504, 0, false), 10), row(id(2504, 1, true), 3)],
            remove: (2..=2400).map(|main| id(main, 0, false)).collect(),
            tables: vec![
                put_small(Table::Leases, b"1", b"a lease"),
                put_small(Table::Auth, b"2", b"a setting"),
            ],
            meta: MetaUpdate {
                consistent_index: Some(99_999),
                term: Some(7),
                revision: Some(2504),
                scheduled_compact: Some(2400),
                finished_compact: Some(2400),
                storage_version: Some("3.6.0".to_owned()),
                conf_state: Some(ConfState {
                    voters: vec![1, 2],
                    learners: vec![3],
                    ..ConfState::default()
                }),
            },
        },
    ];
    for batch in batches {
        file.commit(&batch).unwrap();
        model.commit(&batch);
    }
    drop(file);
    (disk, model)
}

fn names(disk: &SimDisk) -> Vec<String> {
    let entries = disk.list(Path::new("/data")).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_rebuilt_file_has_the_same_content_in_less_space() {
    let (disk, model) = sparse();
    let mut told = Vec::new();
    let sizes = rebuild(
        &as_disk(&disk),
        Path::new(FILE),
        &options(),
        &mut |done, all| {
            told.push((done, all));
        },
    )
    .unwrap();
    assert!(
        sizes.after.allocated < sizes.before.allocated / 2,
        "{sizes:?}"
    );
    assert_eq!(sizes.after.in_use, sizes.before.in_use);
    let rows = model.meta().rows;
    assert_eq!(told.last(), Some(&(rows, rows)));
    assert_eq!(names(&disk), ["db"]);
    let file = open(&disk).unwrap();
    model.assert_in(&file);
    assert_intact(&file);
}

#[test]
fn a_file_in_use_is_replaced_and_its_readers_go_on() {
    let (disk, mut model) = sparse();
    let old = open(&disk).unwrap();
    let reader = old.reader().unwrap();
    let outcome = rebuild_in_use(&old, Path::new(FILE), &mut |_, _| {});
    let RebuildOutcome::Replaced(new, sizes) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(sizes.after.allocated < sizes.before.allocated / 2);
    assert_eq!(names(&disk), ["db"]);
    // Whoever has the old one, and whoever began to read it before.
    model.assert_in(&old);
    let mut rows = 0;
    let count = reader.scan(Revision::default(), &mut |_, _, _| {
        rows += 1;
        ControlFlow::Continue(())
    });
    count.unwrap();
    assert_eq!(rows, model.meta().rows);
    // What is committed now is in the file of that name.
    let batch = puts(2505..=2510, 100);
    new.commit(&batch).unwrap();
    model.commit(&batch);
    drop((new, reader, old));
    let file = open(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    model.assert_in(&file);
    assert_intact(&file);
}

/// Rebuilds a new file in steps of `bytes`. Before each step these commits are made to it.
fn rebuild_among(disk: &SimDisk, bytes: usize, commits: &[Vec<model::Step>]) -> (PageFile, Model) {
    let old = create(disk);
    let mut model = Model::new();
    let mut rebuild = Box::new(Rebuild::new(FILE.into()));
    for steps in 1.. {
        for step in commits.get(steps - 1).into_iter().flatten() {
            let batch = model::batch(step, &model);
            model.commit(&batch);
            old.commit(&batch).unwrap();
            rebuild.removed(&batch.remove);
        }
        rebuild = match rebuild.step(&old, bytes) {
            RebuildStep::More(rebuild) => rebuild,
            RebuildStep::Ended(RebuildOutcome::Replaced(new, _)) => return (new, model),
            RebuildStep::Ended(outcome) => panic!("{outcome:?}"),
        };
    }
    unreachable!("it ends once nothing is committed any more")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn commits_between_the_steps_are_in_the_new_file(
        commits in vec(vec(model::step(), 0..3), 1..12),
        bytes in prop_oneof![Just(1), 100..20_000usize],
        seed in 0..1000u64,
    ) {
        let disk = disk_with_directory(SimDisk::new(seed));
        let (new, mut model) = rebuild_among(&disk, bytes, &commits);
        model.assert_in(&new);
        assert_intact(&new);
        prop_assert_eq!(names(&disk), ["db"]);
        // Nothing of it is only in memory, and it works on.
        drop(new);
        let file = open(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
        model.assert_in(&file);
        let batch = puts(1_000_000..=1_000_009, 100);
        file.commit(&batch).unwrap();
        model.commit(&batch);
        model.assert_in(&file);
    }
}

/// Else the test above says little.
#[test]
fn small_steps_are_many() {
    let disk = disk_with_directory(SimDisk::new(5));
    let old = create(&disk);
    old.commit(&puts(2..=100, 300)).unwrap();
    let mut rebuild = Box::new(Rebuild::new(FILE.into()));
    let mut copied = Vec::new();
    while let RebuildStep::More(more) = rebuild.step(&old, 1000) {
        copied.push(more.copied());
        rebuild = more;
    }
    let expected: Vec<u64> = (1..=24).map(|step| step * 4).collect();
    assert_eq!(copied, expected);
}

/// Not after hours of work.
#[test]
fn a_disk_without_room_for_both_is_found_out_first() {
    let (disk, model) = sparse();
    let old = open(&disk).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + (64 << 10)));
    let mut begun = false;
    let outcome = rebuild_in_use(&old, Path::new(FILE), &mut |_, _| begun = true);
    assert!(
        matches!(outcome, RebuildOutcome::Kept(Error::NoSpace { .. })),
        "{outcome:?}"
    );
    assert!(!begun);
    assert_eq!(names(&disk), ["db"]);
    model.assert_in(&old);
}

#[test]
fn a_file_without_rows_can_be_rebuilt() {
    let disk = disk_with_directory(SimDisk::new(22));
    drop(create(&disk));
    rebuilt(&disk).unwrap();
    Model::new().assert_in(&open(&disk).unwrap());
}

#[test]
fn a_power_loss_at_any_operation_leaves_a_whole_file_that_can_be_rebuilt() {
    let (disk, model) = sparse();
    disk.start_recording();
    rebuilt(&disk).unwrap();
    let mut history = disk.history();
    for k in 0..=history.len() {
        let policies = [
            PowerLoss::LoseAll,
            PowerLoss::KeepAll,
            PowerLoss::Random(k as u64),
        ];
        for policy in policies {
            let disk = history.power_loss_at(k, policy);
            let file = open(&disk).unwrap_or_else(|error| panic!("operation {k}: {error}"));
            model.assert_in(&file);
            drop(file);
            rebuilt(&disk).unwrap();
            assert_eq!(names(&disk), ["db"], "operation {k}");
            model.assert_in(&open(&disk).unwrap());
        }
    }
}

#[test]
fn a_failing_disk_leaves_the_old_file() {
    let (disk, model) = sparse();
    let operations = {
        let disk = disk.fork();
        let before = disk.op_count();
        rebuilt(&disk).unwrap();
        disk.op_count() - before
    };
    let mut refused = 0;
    for number in 0..operations {
        let disk = disk.fork();
        disk.fail_op(disk.op_count() + number, Fault::Io);
        refused += u64::from(rebuilt(&disk).is_err());
        disk.clear_faults();
        model.assert_in(&open(&disk).unwrap());
    }
    assert!(refused > operations / 2, "{refused} of {operations}");
}

#[test]
fn without_room_for_both_files_nothing_changes() {
    let (disk, model) = sparse();
    disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
    let refusal = rebuilt(&disk);
    assert!(matches!(refusal, Err(Error::NoSpace { .. })), "{refusal:?}");
    assert_eq!(names(&disk), ["db"]);
    model.assert_in(&open(&disk).unwrap());
}

#[test]
fn a_damaged_file_is_not_rebuilt() {
    let (disk, model) = sparse();
    let bytes = disk.read(Path::new(FILE)).unwrap();
    let (_, record) = model.rows().iter().next().unwrap();
    // Pages that are no longer in use may hold it too.
    for (at, _) in bytes
        .windows(100)
        .enumerate()
        .filter(|(_, bytes)| *bytes == &record[..100])
    {
        disk.flip_bit(Path::new(FILE), at as u64, 3).unwrap();
    }
    let refusal = rebuilt(&disk);
    assert!(matches!(refusal, Err(Error::Corrupt { .. })), "{refusal:?}");
    assert_eq!(names(&disk), ["db"]);
}
