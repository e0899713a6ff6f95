//! The real disk keeps the contract that the simulated one simulates.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::wal::{Options, Record, Wal};
use ferrite_disk::{DirEntry, Disk, RealDisk};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// That it ends is all that is asserted: `len` is asked until it is 0.
#[test]
fn a_file_without_a_name_is_freed_and_one_with_a_name_is_kept() {
    const LEN: u64 = 40 << 20;
    let temp = tempfile::tempdir().unwrap();
    let (path, other) = (temp.path().join("file"), temp.path().join("other"));
    let file = RealDisk.create(&path).unwrap();
    file.set_len(LEN).unwrap();
    file.free_gently();
    // Had it begun, it would be shorter before the one that is waited for is gone.
    let nameless = RealDisk.create(&other).unwrap();
    nameless.set_len(LEN).unwrap();
    RealDisk.remove(&other).unwrap();
    nameless.free_gently();
    while nameless.len().unwrap() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(file.len().unwrap(), LEN);
}

#[test]
fn files_are_created_written_renamed_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let disk = RealDisk;
    let dir = temp.path().join("a/b");
    disk.create_dir(&dir).unwrap();
    disk.create_dir(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);

    let path = dir.join("file");
    let file = disk.create(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let again = disk.create(&path).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    file.write_at(b"hello", 10).unwrap();
    assert_eq!(file.len().unwrap(), 15);
    let mut buf = [0; 5];
    file.read_at(&mut buf, 10).unwrap();
    assert_eq!(&buf, b"hello");
    let short = file.read_at(&mut buf, 11).unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    file.set_len(12).unwrap();
    assert_eq!(disk.open(&path).unwrap().len().unwrap(), 12);
    file.sync_data().unwrap();
    file.sync_all().unwrap();

    let other = dir.join("other");
    disk.rename(&path, &other).unwrap();
    disk.sync_dir(&dir).unwrap();
    assert!(!disk.exists(&path).unwrap());
    let missing = disk.open(&path).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    disk.create_dir(&dir.join("dir")).unwrap();
    let entry = |name: &str, is_dir| DirEntry {
        name: name.into(),
        is_dir,
    };
    assert_eq!(
        disk.list(&dir).unwrap(),
        [entry("dir", true), entry("other", false)]
    );
    disk.remove(&dir.join("dir")).unwrap();
    disk.remove(&other).unwrap();
    assert!(disk.list(&dir).unwrap().is_empty());
    // A removed file lives on for those who have it open.
    file.read_at(&mut buf[..2], 10).unwrap();
    assert_eq!(&buf[..2], b"he");
}

#[test]
fn allocation_takes_space_and_keeps_the_length() {
    let temp = tempfile::tempdir().unwrap();
    let disk = RealDisk;
    let file = disk.create(&temp.path().join("file")).unwrap();
    assert_eq!(file.allocated_len().unwrap(), 0);
    match file.allocate(1 << 20) {
        Ok(()) => assert!(file.allocated_len().unwrap() >= 1 << 20),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
    }
    assert_eq!(file.len().unwrap(), 0);
    assert!(disk.free_bytes(temp.path()).unwrap() > 0);
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lock");
    let held = RealDisk.lock(&path).unwrap();
    let error = RealDisk.lock(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(held);
    RealDisk.lock(&path).unwrap();
}

#[test]
fn a_log_on_the_real_disk_is_written_cut_released_and_replayed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = Options {
        segment_bytes: 64 << 10,
        spare_segments: 1,
    };
    let record = |number: u64| Record {
        kind: 1,
        payload: Bytes::from(vec![number as u8; 1000]),
    };
    let mut wal = Wal::create(disk.clone(), &dir, options.clone(), &[]).unwrap();
    let reader = wal.reader();
    let mut last = None;
    for number in 0..200 {
        let positions = wal.append(&[record(number)], &mut Vec::new).unwrap();
        wal.sync().unwrap();
        last = positions.first().copied();
    }
    assert_eq!(wal.segments(), 1..5);
    wal.release_before(3).unwrap();
    assert_eq!(wal.segments(), 3..5);
    assert_eq!(wal.spares_ready(), 1);
    let (kind, payload) = reader.read(last.unwrap()).unwrap();
    assert_eq!((kind, payload), (1, record(199).payload));
    drop(wal);

    let mut seen = Vec::new();
    let (wal, report) = Wal::open(disk, &dir, options, &mut |_, _, payload| {
        seen.push(payload);
        Ok(())
    })
    .unwrap();
    assert_eq!(report.torn, None);
    assert_eq!(wal.spares_ready(), 1);
    let expected: Vec<Bytes> = (200 - seen.len() as u64..200)
        .map(|number| record(number).payload)
        .collect();
    assert!(seen.len() > 62 && seen == expected);
}
