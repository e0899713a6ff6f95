//! The log on a disk that fills up.

use ferrite_disk::Disk;
use ferrite_disk::sim::{Fault, OpKind, PowerLoss, SimDisk};
use ferrite_disk::wal::{Error, Wal};

use crate::support::{append, arc, create, dir, head, open, options};

#[test]
fn no_space_for_a_segment_appends_nothing_and_passes() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[2000]).unwrap();
    wal.sync().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let end = wal.end();
    for _ in 0..3 {
        let error = append(&mut wal, 1, 0, &[2000, 100]).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    }
    assert_eq!((wal.end(), wal.segments()), (end, 1..2));
    let error = wal.prepare_spare(4096).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    let after = disk.power_loss(PowerLoss::KeepAll);
    assert_eq!(open(&after, options(4096)).unwrap().numbers(), 0..1);

    // What fits into the active segment still goes.
    append(&mut wal, 1, 0, &[100]).unwrap();
    wal.sync().unwrap();
    append(&mut wal, 2, 0, &[2000]).unwrap_err();
    disk.set_capacity(None);
    append(&mut wal, 2, 0, &[2000]).unwrap();
    wal.sync().unwrap();
    assert_eq!(
        disk.list(dir()).unwrap().len(),
        2,
        "failed attempts left files"
    );
    let after = disk.power_loss(PowerLoss::LoseAll);
    let opened = open(&after, options(4096)).unwrap();
    assert_eq!((opened.numbers(), opened.report.torn), (0..3, None));
}

#[test]
fn every_step_of_a_cut_may_find_the_disk_full() {
    // The steps that make a segment, counted on a disk with space.
    let setup = || {
        let disk = SimDisk::recording(1);
        let mut wal = create(&disk, options(4096));
        append(&mut wal, 0, 0, &[2000]).unwrap();
        wal.sync().unwrap();
        disk.start_recording();
        (disk, wal)
    };
    let (disk, mut wal) = setup();
    append(&mut wal, 1, 0, &[2000]).unwrap();
    let history = disk.history();
    let kinds: Vec<OpKind> = (0..history.len())
        .map(|k| history.op(k).unwrap().0)
        .collect();
    let last = kinds.iter().rposition(|&kind| kind == OpKind::SyncDir);
    let last = last.unwrap();
    assert!(last >= 7, "{kinds:?}");
    for (k, kind) in kinds.iter().enumerate().take(last) {
        let (disk, mut wal) = setup();
        disk.fail_op(disk.op_count() + k as u64, Fault::NoSpace);
        let error = append(&mut wal, 1, 0, &[2000]).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{kind:?}: {error}");
        append(&mut wal, 1, 0, &[2000]).unwrap();
        wal.sync().unwrap();
        let after = disk.power_loss(PowerLoss::LoseAll);
        assert_eq!(open(&after, options(4096)).unwrap().numbers(), 0..2);
    }
}

#[test]
fn a_log_that_could_not_be_created_can_be_later() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(4096));
    for _ in 0..2 {
        let error = Wal::create(arc(&disk), dir(), options(8192), &head(0)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(!Wal::exists(&disk, dir()).unwrap());
    }
    disk.set_capacity(None);
    drop(create(&disk, options(8192)));
    open(&disk, options(8192)).unwrap();
}
