//! A whole member on a failing disk: full, broken, and with flipped bits.

use std::path::Path;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RangeRequest};
use ferrite_disk::Disk;
use ferrite_disk::sim::{Fault, OpKind, PowerLoss, SimDisk};
use ferrite_robustness::script::{Reference, Script};
use ferrite_robustness::sim::{Error, SimMember, bootstrap_options};
use ferrite_server::member::Reply;

fn put(key: &str, length: usize) -> InternalRaftRequest {
    let put = PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(vec![b'v'; length]),
        ..Default::default()
    };
    InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    }
}

fn read_all(member: &SimMember) -> usize {
    let all = Bytes::from_static(b"\0");
    let request = RangeRequest {
        key: all.clone(),
        range_end: all,
        ..Default::default()
    };
    member.published().view().range(&request).unwrap().kvs.len()
}

#[test]
fn full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let disk = SimDisk::new(5);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    let headroom = bootstrap_options().page.headroom_bytes;
    disk.set_capacity(Some(disk.used_bytes() + headroom / 8));

    // Writes until the member says that it has no space, then some more.
    let mut acknowledged = 0;
    let mut refused = 0;
    let mut waiting = Vec::new();
    for number in 0..100_000 {
        let waiter = member
            .propose(put(&format!("k{number:06}"), 4_000))
            .unwrap();
        member.carry_out().unwrap();
        member.tick().unwrap();
        match member
            .replies()
            .into_iter()
            .find(|(answered, _)| *answered == waiter)
        {
            Some((_, Reply::Applied(applied))) => {
                assert!(applied.result.is_ok());
                acknowledged += 1;
            }
            Some((_, Reply::Failed(error))) => {
                assert_eq!(error, ferrite_api::Error::NoSpace.into());
                refused += 1;
            }
            Some((_, other)) => panic!("{other:?} answers a put"),
            None => waiting.push(waiter),
        }
        if member.published().no_space() {
            refused += 1;
        }
        if refused > 20 {
            break;
        }
    }
    assert!(
        refused > 20,
        "the disk never filled up, {acknowledged} writes"
    );
    assert!(member.published().no_space());
    assert!(read_all(&member) >= acknowledged, "reads go on");

    // Space returns: so does the member, without help.
    disk.set_capacity(None);
    for _ in 0..10 {
        member.tick().unwrap();
    }
    assert!(
        !member.published().no_space(),
        "the member must recover by itself"
    );
    let waiter = member.propose(put("after", 10)).unwrap();
    member.carry_out().unwrap();
    assert!(
        member
            .replies()
            .iter()
            .any(|(answered, _)| *answered == waiter)
    );

    // Nothing acknowledged was lost on the way.
    let keys = read_all(&member);
    drop(member);
    let disk = disk.power_loss(PowerLoss::LoseAll);
    let mut member = SimMember::boot(&disk, 2).unwrap();
    member.tick().unwrap();
    assert_eq!(read_all(&member), keys);
}

/// What it copies may take the last room, which checkpoints then lack.
#[test]
fn a_full_disk_ends_a_defragmentation_and_writes_go_on_in_its_room() {
    let disk = SimDisk::new(7);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    for number in 0..200 {
        member.propose(put(&format!("k{number}"), 4_000)).unwrap();
        member.carry_out().unwrap();
    }
    let defragmentation = member.defragment().unwrap();
    for _ in 0..20 {
        assert!(member.carry_out_one_job().unwrap());
    }
    // The log has room for what comes, the page file for less of it, and the copy needs none.
    let megabytes = 35;
    let room = (megabytes + 1) << 20;
    disk.set_capacity(Some(disk.used_bytes() + room));
    for number in 0..megabytes {
        member.propose(put(&format!("n{number}"), 1 << 20)).unwrap();
    }
    let mut full = false;
    let outcome = loop {
        let more = member.carry_out_one_job().unwrap();
        full |= member.published().no_space();
        let replies = member.replies().into_iter();
        let mut outcomes = replies.filter(|(waiter, _)| *waiter == defragmentation);
        match outcomes.next() {
            Some((_, outcome)) => break outcome,
            None => assert!(more, "the defragmentation has no end"),
        }
    };
    assert!(full, "a checkpoint found no room: {outcome:?}");
    let Reply::Failed(error) = outcome else {
        panic!("{outcome:?} answers the defragmentation");
    };
    assert!(error.message().contains("space"), "{error:?}");

    // No room was made but that one.
    member.carry_out().unwrap();
    assert!(!member.published().no_space());
    let waiter = member.propose(put("after", 10)).unwrap();
    member.carry_out().unwrap();
    let replies = member.replies();
    let answer = replies.iter().find(|(answered, _)| *answered == waiter);
    assert!(matches!(answer, Some((_, Reply::Applied(applied))) if applied.result.is_ok()));
}

#[test]
fn failed_sync_ends_the_member_and_loses_nothing_acknowledged() {
    let sessions = SimDisk::new(6);
    let disk = sessions.session();
    let mut member = SimMember::boot(&disk, 1).unwrap();
    let kept = member.propose(put("kept", 10)).unwrap();
    member.carry_out().unwrap();
    assert!(
        member
            .replies()
            .iter()
            .any(|(answered, _)| *answered == kept)
    );
    sessions.fail_when(
        |path, kind| {
            kind == OpKind::Sync && path.extension().is_some_and(|extension| extension == "wal")
        },
        Fault::Io,
    );
    let waiter = member.propose(put("lost", 10)).unwrap();
    let error = member.carry_out().expect_err("a failed sync is fatal");
    assert!(matches!(error, Error::Fatal(_)), "{error}");
    let answered = member
        .replies()
        .iter()
        .any(|(answered, _)| *answered == waiter);
    assert!(!answered, "nothing that was not synced is acknowledged");
    drop(member);
    sessions.crash();
    sessions.clear_faults();
    let disk = sessions.power_loss(PowerLoss::LoseAll);
    let member = SimMember::boot(&disk, 2).unwrap();
    let view = member.published().view();
    let live = |key: &str| view.index.latest(key.as_bytes()).is_some();
    assert!(
        live("kept") && !live("lost"),
        "what was acknowledged, and nothing else"
    );
}

#[test]
fn corruption_in_the_middle_of_the_log_is_refused_and_named() {
    let disk = SimDisk::new(7);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    for number in 0..20 {
        member.propose(put(&format!("k{number}"), 100)).unwrap();
        member.carry_out().unwrap();
    }
    drop(member);
    let disk = disk.power_loss(PowerLoss::KeepAll);
    let dir = bootstrap_options().data_dir.join("member/wal");
    let segment = disk
        .list(&dir)
        .unwrap()
        .into_iter()
        .find(|file| file.name.ends_with(".wal"))
        .map(|file| dir.join(file.name))
        .unwrap();
    // Well after the header and the head of the segment, well before its end.
    disk.flip_bit(&segment, 2048, 3).unwrap();
    let error = SimMember::boot(&disk, 2)
        .expect_err("a damaged log must not be served")
        .to_string();
    assert!(error.contains("segment 1"), "{error}");
    assert!(error.contains("offset"), "{error}");
}

#[test]
fn torn_tail_is_dropped() {
    let disk = SimDisk::new(8);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    for number in 0..5 {
        member.propose(put(&format!("k{number}"), 100)).unwrap();
        member.carry_out().unwrap();
    }
    let synced = disk.op_count();
    disk.start_recording();
    member.propose(put("torn", 3_000)).unwrap();
    member.carry_out().unwrap();
    assert!(disk.op_count() > synced);
    drop(member);
    let mut history = disk.history();
    let mut torn = 0;
    for seed in 0..50 {
        // After the write of the record and before its sync.
        let disk = history.power_loss_at(1, PowerLoss::Random(seed));
        let member = SimMember::boot(&disk, 2).unwrap();
        let keys = read_all(&member);
        assert!(keys == 5 || keys == 6, "{keys} keys");
        torn += usize::from(keys == 5);
    }
    assert!(torn > 0, "no seed tore the record");
}

/// Every page of the page file in turn: whatever the flipped bit hits, no wrong pair is served.
#[test]
fn flipped_bits_in_the_page_file_are_never_served() {
    let disk = SimDisk::new(9);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    let mut reference = Reference::default();
    reference.record(member.member().state());
    let mut script = Script::new(9, 12);
    for _ in 0..60 {
        let (revision, compacted) = {
            let store = member.member().state().store();
            (store.revision(), store.compacted())
        };
        member.propose(script.next(revision, compacted)).unwrap();
        member.carry_out().unwrap();
        reference.record(member.member().state());
    }
    while member.member().state().compacting() {
        member.tick().unwrap();
    }
    for _ in 0..6 {
        member.tick().unwrap();
    }
    let writes = reference.writes();
    drop(member);
    let disk = disk.power_loss(PowerLoss::KeepAll);
    let path = bootstrap_options().data_dir.join("member/snap/db");
    let length = disk.read(&path).unwrap().len() as u64;
    let (mut refused, mut unharmed) = (0, 0);
    for offset in (0..length).step_by(509) {
        let damaged = disk.fork();
        damaged.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
        match boot_and_check(&damaged, &reference, writes) {
            Ok(()) => unharmed += 1,
            Err(error) => {
                assert!(!error.is_empty());
                refused += 1;
            }
        }
    }
    assert!(
        refused > 0,
        "no flip was noticed in {length} bytes, {unharmed} did no harm"
    );
}

/// Boots and compares; an error is fine, a wrong answer panics.
fn boot_and_check(disk: &SimDisk, reference: &Reference, writes: usize) -> Result<(), String> {
    let mut member = SimMember::boot(disk, 2).map_err(|error| error.to_string())?;
    member.tick().map_err(|error| error.to_string())?;
    reference.check(
        member.member().state(),
        writes,
        writes,
        "with a flipped bit",
    );
    Ok(())
}

#[test]
fn lock_is_held_while_the_member_lives() {
    let disk = SimDisk::new(10);
    let member = SimMember::boot(&disk, 1).unwrap();
    let error = SimMember::boot(&disk, 2)
        .expect_err("the directory is in use")
        .to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(member);
    assert!(
        disk.exists(Path::new("/data/default.etcd/member/lock"))
            .unwrap()
    );
    SimMember::boot(&disk, 3).unwrap();
}
