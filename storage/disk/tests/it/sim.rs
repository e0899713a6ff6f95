//! The simulated disk does to programs what its documentation says.

use std::io;
use std::path::Path;

use ferrite_disk::sim::{Fault, OpKind, PowerLoss, SimDisk};
use ferrite_disk::{Disk, DiskFile};

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn write(disk: &SimDisk, path: &str, data: &[u8]) {
    disk.create(p(path)).unwrap().write_at(data, 0).unwrap();
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn names(disk: &SimDisk, dir: &str) -> Vec<String> {
    let entries = disk.list(p(dir)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn only_synced_content_under_a_synced_name_survives() {
    let disk = SimDisk::new(1);
    disk.create_dir(p("/d")).unwrap();
    disk.sync_dir(p("/")).unwrap();
    for name in ["both", "data", "name"] {
        write(&disk, &format!("/d/{name}"), b"old");
    }
    disk.open(p("/d/both")).unwrap().sync_data().unwrap();
    disk.open(p("/d/data")).unwrap().sync_data().unwrap();
    disk.rename(p("/d/data"), p("/d/renamed")).unwrap();
    let before = disk.power_loss(PowerLoss::LoseAll);
    assert!(names(&before, "/d").is_empty());

    disk.rename(p("/d/renamed"), p("/d/data")).unwrap();
    disk.sync_dir(p("/d")).unwrap();
    disk.rename(p("/d/data"), p("/d/renamed")).unwrap();
    disk.open(p("/d/both"))
        .unwrap()
        .write_at(b"new!", 0)
        .unwrap();
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(names(&after, "/d"), ["both", "data", "name"]);
    assert_eq!(after.read(p("/d/both")).unwrap(), b"old");
    assert_eq!(after.read(p("/d/name")).unwrap(), b"");
    // The original went on as if nothing had happened.
    assert_eq!(names(&disk, "/d"), ["both", "name", "renamed"]);
    assert_eq!(disk.read(p("/d/both")).unwrap(), b"new!");
    assert_eq!(disk.read_durable(p("/d/both")).unwrap(), b"old");
    let kept = disk.power_loss(PowerLoss::KeepAll);
    assert_eq!(names(&kept, "/d"), ["both", "name", "renamed"]);
    assert_eq!(kept.read(p("/d/both")).unwrap(), b"new!");
}

#[test]
fn syncing_a_directory_syncs_no_other() {
    let disk = SimDisk::new(1);
    disk.create_dir(p("/a/b")).unwrap();
    write(&disk, "/a/b/f", b"x");
    disk.sync_dir(p("/a/b")).unwrap();
    assert!(names(&disk.power_loss(PowerLoss::LoseAll), "/").is_empty());
    disk.sync_dir(p("/a")).unwrap();
    disk.sync_dir(p("/")).unwrap();
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(names(&after, "/a/b"), ["f"]);
}

#[test]
fn a_rename_between_directories_is_atomic() {
    let disk = SimDisk::new(1);
    disk.create_dir(p("/a")).unwrap();
    disk.create_dir(p("/b")).unwrap();
    disk.sync_dir(p("/")).unwrap();
    write(&disk, "/a/f", b"x");
    disk.rename(p("/a/f"), p("/b/g")).unwrap();
    disk.sync_dir(p("/b")).unwrap();
    disk.sync_dir(p("/a")).unwrap();
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert!(names(&after, "/a").is_empty());
    assert_eq!(names(&after, "/b"), ["g"]);
}

#[test]
fn renaming_replaces_files_and_empty_directories_only() {
    let disk = SimDisk::new(1);
    write(&disk, "f", b"f");
    write(&disk, "g", b"g");
    disk.create_dir(p("empty")).unwrap();
    disk.create_dir(p("full")).unwrap();
    write(&disk, "full/x", b"x");
    let kind = |from, to| disk.rename(p(from), p(to)).unwrap_err().kind();
    assert_eq!(kind("empty", "full"), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind("f", "full"), io::ErrorKind::IsADirectory);
    assert_eq!(kind("full", "f"), io::ErrorKind::NotADirectory);
    assert_eq!(kind("none", "f"), io::ErrorKind::NotFound);
    let full = disk.remove(p("full")).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::DirectoryNotEmpty);
    disk.rename(p("full"), p("empty")).unwrap();
    let g = disk.open(p("g")).unwrap();
    disk.rename(p("f"), p("g")).unwrap();
    assert_eq!(names(&disk, ""), ["empty", "g"]);
    assert_eq!(disk.read(p("g")).unwrap(), b"f");
    assert_eq!(content(&*g), b"g");
}

/// Builds a file whose pages say which of 8 writes they come from, the first 4 synced.
fn eight_writes(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let file = disk.create(p("f")).unwrap();
    for i in 0..8u8 {
        file.write_at(&[i + 1; 2048], 2048 * u64::from(i)).unwrap();
        if i == 3 {
            file.sync_data().unwrap();
            disk.sync_dir(p("")).unwrap();
        }
    }
    disk
}

#[test]
fn random_power_losses_keep_what_was_synced_and_reach_every_outcome() {
    let disk = eight_writes(1);
    let (mut none, mut all, mut gap, mut torn) = (0, 0, 0, 0);
    for seed in 0..400 {
        let after = disk.power_loss(PowerLoss::Random(seed));
        let bytes = after.read(p("f")).unwrap();
        assert_eq!(bytes[..8192], disk.read(p("f")).unwrap()[..8192]);
        let mut survived = Vec::new();
        for (i, block) in (4..8).zip(bytes[8192..].chunks(2048)) {
            let sectors = block.chunks(512).filter(|sector| {
                let first = sector[0];
                assert!(sector.iter().all(|&byte| byte == first));
                assert!(first == 0 || first == i + 1);
                first != 0
            });
            survived.push(sectors.count());
        }
        survived.resize(4, 0);
        none += usize::from(survived == [0; 4]);
        all += usize::from(survived == [4; 4]);
        gap += usize::from(survived.windows(2).any(|two| two[0] == 0 && two[1] > 0));
        torn += usize::from(survived.iter().any(|&n| 0 < n && n < 4));
        let again = disk.power_loss(PowerLoss::Random(seed));
        assert_eq!(
            again.read(p("f")).unwrap(),
            bytes,
            "seed {seed} is not reproducible"
        );
    }
    for (what, count) in [("none", none), ("all", all), ("gap", gap), ("torn", torn)] {
        assert!(count > 10, "{what} happened {count} times in 400");
    }
}

#[test]
fn a_history_forks_right_before_every_operation() {
    let disk = SimDisk::recording(7);
    disk.create_dir(p("/d")).unwrap();
    let file = disk.create(p("/d/f")).unwrap();
    let mut expected = vec![None, None];
    for i in 0..5u8 {
        expected.push(Some(vec![7; 100 * usize::from(i)]));
        file.write_at(&[7; 100], 100 * u64::from(i)).unwrap();
    }
    expected.push(Some(vec![7; 500]));
    file.sync_data().unwrap();
    expected.push(Some(vec![7; 500]));
    disk.remove(p("/d/f")).unwrap();
    expected.push(None);
    assert_eq!(disk.op_count(), 9);

    let mut history = disk.history();
    assert_eq!(history.len(), 9);
    assert_eq!(history.op(1), Some((OpKind::Create, "/d/f".into())));
    assert_eq!(history.op(8), Some((OpKind::Remove, "/d/f".into())));
    assert_eq!(history.op(9), None);
    for (k, fork) in history.clone() {
        assert_eq!(
            fork.read(p("/d/f")).ok(),
            expected[k],
            "before operation {k}"
        );
    }
    // In any order, and what happens to a fork stays there.
    for k in [9, 3, 8, 0, 5] {
        let fork = history.fork_at(k);
        assert_eq!(fork.read(p("/d/f")).ok(), expected[k]);
        if let Ok(file) = fork.open(p("/d/f")) {
            file.write_at(b"changed", 0).unwrap();
        }
    }
    let lost = history.power_loss_at(8, PowerLoss::LoseAll);
    assert!(!lost.exists(p("/d")).unwrap());
    assert!(
        disk.history()
            .all(|(k, fork)| fork.read(p("/d/f")).ok() == expected[k])
    );
}

#[test]
fn a_failed_sync_drops_the_dirty_data_for_ever() {
    let disk = SimDisk::new(1);
    let file = disk.create(p("f")).unwrap();
    disk.sync_dir(p("")).unwrap();
    file.write_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"doomed", 0).unwrap();
    disk.fail_op(disk.op_count(), Fault::Io);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(content(&*file), b"doomed");
    let after = disk.power_loss(PowerLoss::KeepAll);
    assert_eq!(after.read(p("f")).unwrap(), b"synced");
    // Writing it once more makes it dirty again.
    file.write_at(b"doomed", 0).unwrap();
    file.sync_data().unwrap();
    let after = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(after.read(p("f")).unwrap(), b"doomed");
}

#[test]
fn armed_faults_hit_what_they_are_armed_for() {
    let disk = SimDisk::recording(1);
    let file = disk.create(p("wal")).unwrap();
    let other = disk.create(p("db")).unwrap();
    disk.fail_when(
        |path, kind| path == Path::new("/wal") && kind == OpKind::Write,
        Fault::Io,
    );
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.write_at(b"x", 0).is_err());
    other.write_at(b"abcdef", 0).unwrap();
    disk.clear_faults();
    file.write_at(b"abcdef", 0).unwrap();

    disk.fail_op(disk.op_count(), Fault::Short(2));
    assert!(file.write_at(b"123456", 0).is_err());
    assert_eq!(content(&*file), b"12cdef");
    disk.fail_op(disk.op_count(), Fault::Lost);
    file.write_at(b"??????", 0).unwrap();
    assert_eq!(content(&*file), b"12cdef");
    disk.fail_op(disk.op_count(), Fault::Misdirected(3));
    file.write_at(b"!", 0).unwrap();
    assert_eq!(content(&*file), b"12c!ef");
    disk.fail_op(disk.op_count(), Fault::NoSpace);
    let full = file.write_at(b"!", 0).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);

    disk.fail_when(|_, kind| kind == OpKind::Read, Fault::Io);
    let mut buf = [0; 1];
    assert_eq!(
        file.read_at(&mut buf, 0).unwrap_err().raw_os_error(),
        Some(5)
    );
    disk.clear_faults();
    file.read_at(&mut buf, 0).unwrap();

    disk.fail_op(disk.op_count(), Fault::Lost);
    file.sync_data().unwrap();
    assert_eq!(disk.read_durable(p("wal")).unwrap(), b"");
    file.sync_data().unwrap();
    assert_eq!(disk.read_durable(p("wal")).unwrap(), b"12c!ef");
    // Failed operations have numbers too, and the history repeats what they really did.
    let mut history = disk.history();
    assert_eq!(history.len() as u64, disk.op_count());
    let end = history.fork_at(usize::MAX);
    assert_eq!(end.read(p("wal")).unwrap(), b"12c!ef");
}

#[test]
fn random_faults_come_from_the_seed() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = disk.create(p("f")).unwrap();
        disk.fail_randomly(0.3);
        (0..100)
            .map(|i| file.write_at(b"x", i).is_ok())
            .collect::<Vec<bool>>()
    };
    let ok = run(1).iter().filter(|ok| **ok).count();
    assert!((50..90).contains(&ok), "{ok} of 100 succeeded");
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_full_disk_refuses_new_pages_and_recovers() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(4 * 4096));
    let file = disk.create(p("f")).unwrap();
    file.allocate(3 * 4096).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    assert_eq!(file.allocated_len().unwrap(), 3 * 4096);
    assert_eq!(disk.free_bytes(p("")).unwrap(), 4096);
    let other = disk.create(p("g")).unwrap();
    let error = other.allocate(2 * 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    // A write takes what there is, and only then fails.
    let error = other.write_at(&[1; 8192], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 4096);
    // What was reserved can be written on a full disk.
    file.write_at(&[2; 3 * 4096], 0).unwrap();
    assert!(file.write_at(&[2; 1], 3 * 4096).is_err());
    disk.set_capacity(Some(5 * 4096));
    other.write_at(&[1; 8192], 0).unwrap();
    assert_eq!(disk.used_bytes(), 5 * 4096);
    // Space of a removed file comes back when its last handle goes.
    disk.remove(p("f")).unwrap();
    assert_eq!(disk.free_bytes(p("")).unwrap(), 0);
    drop(file);
    assert_eq!(disk.free_bytes(p("")).unwrap(), 3 * 4096);
}

#[test]
fn a_crash_fences_handles_sessions_and_locks() {
    let disk = SimDisk::new(1);
    let process = disk.session();
    let file = process.create(p("f")).unwrap();
    let lock = process.lock(p("lock")).unwrap();
    let held = disk.lock(p("lock")).unwrap_err();
    assert_eq!(held.kind(), io::ErrorKind::WouldBlock);
    file.write_at(b"before", 0).unwrap();
    disk.crash();

    let mut buf = [0; 1];
    assert!(file.write_at(b"after", 0).is_err());
    assert!(file.read_at(&mut buf, 0).is_err());
    assert!(file.sync_data().is_err());
    assert!(file.len().is_err());
    assert!(process.open(p("f")).is_err());
    assert!(process.rename(p("f"), p("g")).is_err());
    // The machine goes on: what was written is there, unsynced still.
    let next = disk.session();
    assert_eq!(next.read(p("f")).unwrap(), b"before");
    assert_eq!(next.read_durable(p("f")).unwrap(), b"");
    let relocked = next.lock(p("lock")).unwrap();
    drop(lock);
    assert!(
        next.lock(p("lock")).is_err(),
        "a dead process released another's lock"
    );
    drop(relocked);
    next.lock(p("lock")).unwrap();
}

#[test]
fn power_loss_frees_locks() {
    let disk = SimDisk::new(1);
    let _held = disk.lock(p("lock")).unwrap();
    disk.sync_dir(p("")).unwrap();
    let after = disk.power_loss(PowerLoss::LoseAll);
    after.lock(p("lock")).unwrap();
    assert!(disk.lock(p("lock")).is_err());
}

#[test]
fn damage_is_on_both_images_and_in_the_history() {
    let disk = SimDisk::recording(1);
    write(&disk, "f", &[0; 2000]);
    disk.open(p("f")).unwrap().sync_data().unwrap();
    disk.flip_bit(p("f"), 100, 3).unwrap();
    disk.overwrite(p("f"), 1998, b"abcdef").unwrap();
    disk.corrupt(p("f"), 512..1024).unwrap();
    let bytes = disk.read(p("f")).unwrap();
    assert_eq!(bytes.len(), 2000);
    assert_eq!(bytes[100], 8);
    assert_eq!(&bytes[1998..], b"ab");
    assert!(bytes[512..1024].iter().filter(|byte| **byte != 0).count() > 400);
    assert!(bytes[1024..1998].iter().all(|byte| *byte == 0));
    assert_eq!(disk.read_durable(p("f")).unwrap(), bytes);
    let mut history = disk.history();
    assert_eq!(history.fork_at(3).read(p("f")).unwrap(), [0; 2000]);
    assert_eq!(history.fork_at(6).read(p("f")).unwrap(), bytes);
}
