//! A damaged log: what it held comes from the other members, what it promised is not forgotten, and a
//! member that is alone says what is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_disk::Disk;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::Status;
use ferrite_robustness::sim::{Error, SimMember, bootstrap_options, member_options};
use ferrite_server::bootstrap::{self, Origin};

/// One member of three, which vote without asking first.
fn one_of_three() -> bootstrap::Options {
    let member = |n| (format!("m{n}"), vec![format!("http://m{n}:2380")]);
    bootstrap::Options {
        origin: Origin::New {
            name: "m1".to_owned(),
            members: BTreeMap::from([member(1), member(2), member(3)]),
            token: "t".to_owned(),
        },
        pre_vote: false,
        ..bootstrap_options()
    }
}

fn boot(disk: &SimDisk, incarnation: u64) -> Result<SimMember, Error> {
    SimMember::boot_as(disk, incarnation, &one_of_three(), member_options())
}

/// It has campaigned, in vain, and so voted for itself.
fn voted() -> (SimDisk, Status) {
    let disk = SimDisk::new(1);
    let mut member = boot(&disk, 1).unwrap();
    while member.member().driver().status().vote == 0 {
        member.tick().unwrap();
    }
    let status = member.member().driver().status();
    assert_eq!((status.term, status.recovering), (2, false));
    drop(member);
    (disk.power_loss(PowerLoss::LoseAll), status)
}

fn wal_dir() -> std::path::PathBuf {
    bootstrap_options().data_dir.join("member/wal")
}

/// Damages the first record of the log: others follow.
fn damage(disk: &SimDisk) {
    let files = disk.list(&wal_dir()).unwrap();
    let segment = files.iter().find(|file| file.name.ends_with(".wal"));
    let segment = wal_dir().join(&segment.expect("there is a segment").name);
    // Behind the headers of the segment and of the record.
    disk.flip_bit(&segment, 512 + 40, 3).unwrap();
}

fn remove_log(disk: &SimDisk) {
    for file in disk.list(&wal_dir()).unwrap() {
        disk.remove(&wal_dir().join(file.name)).unwrap();
    }
    disk.remove(&wal_dir()).unwrap();
    disk.sync_dir(wal_dir().parent().unwrap()).unwrap();
}

fn aside(disk: &SimDisk, number: u32) -> bool {
    let path = wal_dir().with_file_name(format!("wal.damaged-{number}"));
    disk.exists(&path).unwrap()
}

/// Recovering, with its promise, and without a vote for anybody.
fn check(member: &mut SimMember, promised: &Status, context: &str) {
    let status = member.member().driver().status();
    assert!(status.recovering, "{context}");
    assert_eq!(status.term, promised.term, "{context}");
    assert_eq!(status.vote, promised.vote, "{context}");
    for _ in 0..50 {
        member.tick().unwrap();
    }
    let after = member.member().driver().status();
    assert_eq!(after.term, promised.term, "{context}: it does not campaign");
}

#[test]
fn a_damaged_log_is_put_aside_and_its_promises_are_kept() {
    let (disk, promised) = voted();
    damage(&disk);
    let before = disk.list(&wal_dir()).unwrap();
    let mut member = boot(&disk, 2).unwrap();
    check(&mut member, &promised, "first");
    drop(member);
    assert!(aside(&disk, 1));
    let kept = disk.list(&wal_dir().with_file_name("wal.damaged-1"));
    let names = |files: Vec<ferrite_disk::DirEntry>| -> Vec<String> {
        files.into_iter().map(|file| file.name).collect()
    };
    assert_eq!(names(kept.unwrap()), names(before));
    // As long as nobody has brought it what it had, every start is like this one.
    let disk = disk.power_loss(PowerLoss::LoseAll);
    check(&mut boot(&disk, 3).unwrap(), &promised, "again");
    assert!(!aside(&disk, 2));
    damage(&disk);
    check(&mut boot(&disk, 4).unwrap(), &promised, "damaged again");
    assert!(aside(&disk, 2));
}

#[test]
fn a_log_that_is_gone_is_made_up_for_likewise() {
    let (disk, promised) = voted();
    remove_log(&disk);
    check(&mut boot(&disk, 2).unwrap(), &promised, "gone");
    assert!(!aside(&disk, 1), "there was nothing to put aside");
}

/// As if an old copy of the log had been put back, or the disk had dropped its last writes.
#[test]
fn an_old_log_is_not_believed() {
    let disk = SimDisk::new(1);
    let mut member = boot(&disk, 1).unwrap();
    while member.member().driver().status().term < 3 {
        member.tick().unwrap();
    }
    let promised = member.member().driver().status();
    drop(member);
    let (old, _) = voted();
    let disk = disk.power_loss(PowerLoss::LoseAll);
    for file in old.list(&wal_dir()).unwrap() {
        let path = wal_dir().join(file.name);
        disk.overwrite(&path, 0, &old.read(&path).unwrap()).unwrap();
    }
    check(&mut boot(&disk, 2).unwrap(), &promised, "old");
    assert!(aside(&disk, 1));
}

#[test]
fn power_loss_while_it_begins_anew_forgets_no_promise() {
    for break_log in [damage, remove_log] {
        let (disk, promised) = voted();
        break_log(&disk);
        disk.start_recording();
        drop(boot(&disk, 2).unwrap());
        let mut history = disk.history();
        assert!(history.len() > 10);
        for at in 0..=history.len() {
            for policy in [
                PowerLoss::LoseAll,
                PowerLoss::KeepAll,
                PowerLoss::Random(at as u64),
            ] {
                let disk = history.power_loss_at(at, policy);
                let context = format!("operation {at} of {}, {policy:?}", history.len());
                let mut member = boot(&disk, 3).unwrap_or_else(|e| panic!("{context}: {e}"));
                check(&mut member, &promised, &context);
            }
        }
    }
}

#[test]
fn without_its_promises_the_damage_is_an_error() {
    let (disk, _) = voted();
    damage(&disk);
    let ballot = bootstrap_options().data_dir.join("member/ballot");
    disk.corrupt(
        &ballot,
        0..8192.min(disk.read(&ballot).unwrap().len() as u64),
    )
    .unwrap();
    let error = boot(&disk, 2).unwrap_err();
    assert!(
        matches!(error, Error::Boot(bootstrap::Error::Log { .. })),
        "{error}"
    );
    assert!(!aside(&disk, 1), "nothing is touched");
}

/// Nobody else has what it had.
#[test]
fn a_member_that_is_alone_says_what_is_wrong() {
    let alone = || {
        let disk = SimDisk::new(1);
        let mut member = SimMember::boot(&disk, 1).unwrap();
        let put = PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            ..PutRequest::default()
        };
        let request = InternalRaftRequest {
            put: Some(put),
            ..InternalRaftRequest::default()
        };
        member.propose(request).unwrap();
        member.carry_out().unwrap();
        assert!(!member.replies().is_empty(), "acknowledged");
        drop(member);
        disk.power_loss(PowerLoss::LoseAll)
    };
    let disk = alone();
    damage(&disk);
    let error = SimMember::boot(&disk, 2).unwrap_err();
    assert!(
        matches!(error, Error::Boot(bootstrap::Error::Log { .. })),
        "{error}"
    );
    assert!(!aside(&disk, 1));

    // The page file need not have anything yet: what was acknowledged is gone all the same.
    let disk = alone();
    remove_log(&disk);
    let error = SimMember::boot(&disk, 2).unwrap_err().to_string();
    assert!(error.contains("the log is missing"), "{error}");
    assert!(
        !disk.exists(Path::new(&wal_dir())).unwrap(),
        "no new log is laid out"
    );
}
