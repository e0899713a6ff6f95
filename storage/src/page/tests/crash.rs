//! Power loss at every single operation of the disk.

use ferrite_disk::sim::{History, OpKind, PowerLoss};

use super::model::Model;
use super::*;

/// What a power loss may do, several times at random.
fn policies(k: usize) -> [PowerLoss; 5] {
    let seed = k as u64 * 3;
    [
        PowerLoss::LoseAll,
        PowerLoss::KeepAll,
        PowerLoss::Random(seed),
        PowerLoss::Random(seed + 1),
        PowerLoss::Random(seed + 2),
    ]
}

/// A run of commits: the operations of the disk, and after how many of them which state was durable.
struct Run {
    history: History,
    durable: Vec<(usize, Model)>,
}

/// Commits that grow the file, replace, remove in ranges and singly, and let it shrink.
fn batches() -> Vec<Batch> {
    let remove = |mains: &mut dyn Iterator<Item = i64>| Batch {
        remove: mains.map(|main| id(main, 0, false)).collect(),
        ..Batch::default()
    };
    let meta = |index| MetaUpdate {
        consistent_index: Some(index),
        ..MetaUpdate::default()
    };
    vec![
        puts(2..=3, 10),
        puts(4..=60, 300),
        Batch {
            rows: vec![row(id(61, 0, false), 40_000), row(id(61, 1, true), 12)],
            tables: vec![
                put_small(Table::Leases, b"1", b"a lease"),
                put_small(Table::Leases, b"2", b"another"),
                TableWrite::Clear {
                    table: Table::Members,
                },
            ],
            meta: meta(170),
            ..Batch::default()
        },
        puts(62..=120, 1500),
        Batch {
            meta: meta(221),
            ..remove(&mut (10..=110).filter(|main| main % 3 == 0))
        },
        Batch {
            meta: meta(222),
            ..remove(&mut (2..=115).step_by(40))
        },
        puts(121..=122, 70_000),
        Batch {
            tables: vec![
                TableWrite::delete(Table::Leases, Bytes::from_static(b"1")),
                put_small(Table::Leases, b"2", b"renewed"),
            ],
            meta: meta(223),
            ..Batch::default()
        },
        Batch {
            meta: meta(224),
            ..remove(&mut (2..=122))
        },
        puts(123..=130, 100),
        puts(131..=131, 5),
    ]
}

fn record_run() -> Run {
    let disk = disk_with_directory(SimDisk::new(3));
    disk.start_recording();
    let file = create(&disk);
    let mut model = Model::new();
    let mut durable = vec![(disk.history().len(), model.clone())];
    for batch in batches() {
        file.commit(&batch).unwrap();
        model.commit(&batch);
        model.assert_in(&file);
        durable.push((disk.history().len(), model.clone()));
    }
    assert_intact(&file);
    Run {
        history: disk.history(),
        durable,
    }
}

/// Opens what a crash left and returns the state it must be, which is that of one of `states`.
fn reopen(disk: &SimDisk, states: &[&Model], context: &str) -> (PageFile, Model) {
    let file = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let index = file.meta().consistent_index;
    let model = states.iter().find(|model| model.is_in(&file));
    let model = model.unwrap_or_else(|| panic!("{context}: a state of index {index}"));
    (file, (*model).clone())
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_state_before_or_after_the_commit() {
    let Run {
        mut history,
        durable,
    } = record_run();
    let created = durable[0].0;
    let mut opened = 0;
    for k in 0..=history.len() {
        for policy in policies(k) {
            let disk = history.power_loss_at(k, policy);
            let context = format!("operation {k} {policy:?}");
            if k < created && !disk.exists(Path::new(FILE)).unwrap() {
                continue;
            }
            let done = durable.iter().rposition(|(at, _)| *at <= k);
            let first = done.unwrap_or(0);
            let last = done.map_or(0, |done| (done + 1).min(durable.len() - 1));
            let states: Vec<_> = durable[first..=last]
                .iter()
                .map(|(_, model)| model)
                .collect();
            let (file, mut model) = reopen(&disk, &states, &context);
            opened += 1;

            // And the file goes on as if nothing had been.
            let next = puts(1000..=1005, 700);
            file.commit(&next)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            model.commit(&next);
            model.assert_in(&file);
            if k % 16 == 0 {
                assert_intact(&file);
            }
        }
    }
    assert!(
        opened > 3 * history.len(),
        "{opened} files of {} operations",
        history.len()
    );
}

#[test]
fn a_file_that_was_synced_into_place_is_there_after_any_later_loss() {
    let Run {
        mut history,
        durable,
    } = record_run();
    for k in durable[0].0..history.len() {
        let disk = history.power_loss_at(k, PowerLoss::LoseAll);
        assert!(disk.exists(Path::new(FILE)).unwrap(), "operation {k}");
    }
}

#[test]
fn a_second_power_loss_while_opening_or_in_the_first_commit_changes_nothing_more() {
    let Run {
        mut history,
        durable,
    } = record_run();
    let created = durable[0].0;
    for k in (created..=history.len()).step_by(13) {
        let disk = history.power_loss_at(k, PowerLoss::Random(k as u64));
        let file = open(&disk).unwrap();
        let found = durable
            .iter()
            .find(|(_, model)| *model.meta() == file.meta());
        let before = found
            .unwrap_or_else(|| panic!("operation {k}: unknown state"))
            .1
            .clone();
        drop(file);

        let next = puts(1000..=1005, 700);
        let mut after = before.clone();
        after.commit(&next);
        disk.start_recording();
        open(&disk).unwrap().commit(&next).unwrap();
        let mut second = disk.history();
        for k2 in 0..=second.len() {
            for policy in policies(k2) {
                let disk = second.power_loss_at(k2, policy);
                let context = format!("operations {k} and {k2} {policy:?}");
                let states = match k2 == second.len() {
                    true => vec![&after],
                    false => vec![&before, &after],
                };
                reopen(&disk, &states, &context);
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_the_state_before_or_after_the_commit() {
    let Run {
        mut history,
        durable,
    } = record_run();
    for k in durable[0].0..=history.len() {
        let disk = history.fork_at(k);
        let done = durable.iter().rposition(|(at, _)| *at <= k).unwrap();
        let last = (done + 1).min(durable.len() - 1);
        let states: Vec<_> = durable[done..=last]
            .iter()
            .map(|(_, model)| model)
            .collect();
        reopen(&disk, &states, &format!("operation {k}"));
    }
}

#[test]
fn a_power_loss_while_the_file_is_cut_loses_nothing() {
    let disk = disk_with_directory(SimDisk::new(3));
    let file = create(&disk);
    let mut model = Model::new();
    let commit = |model: &mut Model, batch: &Batch| {
        file.commit(batch).unwrap();
        model.commit(batch);
    };
    commit(&mut model, &puts(2..=70, 1 << 20));
    let remove = (2..=70).map(|main| id(main, 0, false)).collect();
    disk.start_recording();
    let mut durable = vec![(0, model.clone())];
    commit(
        &mut model,
        &Batch {
            remove,
            ..Batch::default()
        },
    );
    durable.push((disk.history().len(), model.clone()));
    for index in 1000..1040 {
        let meta = MetaUpdate {
            consistent_index: Some(index),
            ..MetaUpdate::default()
        };
        commit(
            &mut model,
            &Batch {
                meta,
                ..Batch::default()
            },
        );
        durable.push((disk.history().len(), model.clone()));
    }
    let mut history = disk.history();
    let cuts: Vec<_> = (0..history.len())
        .filter(|k| {
            history
                .op(*k)
                .is_some_and(|(kind, _)| kind == OpKind::SetLen)
        })
        .collect();
    assert!(!cuts.is_empty(), "the file was never cut");
    for k in cuts.into_iter().flat_map(|cut| cut - 2..cut + 12) {
        for policy in policies(k) {
            let disk = history.power_loss_at(k, policy);
            let done = durable.iter().rposition(|(at, _)| *at <= k).unwrap();
            let last = (done + 1).min(durable.len() - 1);
            let states: Vec<_> = durable[done..=last]
                .iter()
                .map(|(_, model)| model)
                .collect();
            let context = format!("operation {k} {policy:?}");
            let (file, mut model) = reopen(&disk, &states, &context);
            let next = puts(1000..=1010, 40_000);
            file.commit(&next).unwrap();
            model.commit(&next);
            model.assert_in(&file);
        }
    }
}
