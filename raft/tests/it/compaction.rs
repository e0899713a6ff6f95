//! Memory, compaction, and the release of segments.

use std::path::Path;

use ferrite_disk::sim::{Fault, OpKind, SimDisk};
use ferrite_raft::{Error, Mark, Role};

use crate::support::{DIR, Member, Setup, payload};

fn filled(setup: &Setup, disk: &SimDisk, count: u64) -> Member {
    let mut member = setup.start(disk).unwrap();
    member.lead();
    for number in 0..count {
        member.propose(payload(number, 100));
        member.run();
    }
    member
}

#[test]
fn a_member_without_followers_keeps_little_of_what_it_has_applied() {
    let member = filled(&Setup::sole().cache(1 << 20), &SimDisk::new(1), 2000);
    let status = member.driver.status();
    assert_eq!(status.last_index, 2001);
    assert!(
        status.cached_bytes <= 64 << 10,
        "{} bytes",
        status.cached_bytes
    );
    assert!(status.cached_entries > 0);
}

/// Recovery reads far more than it may keep, and hands all of it out again.
#[test]
fn entries_beyond_the_memory_bound_are_read_back() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole().cache(2000);
    drop(filled(&setup, &disk, 500));
    let mut member = setup.start(&disk).unwrap();
    let status = member.driver.status();
    assert!(
        status.cached_bytes <= 2000 && status.cached_entries < 20,
        "{status:?}"
    );
    assert_eq!(status.last_index, 501);
    member.lead();
    assert_eq!(
        member.applied.payloads,
        (0..500).map(|n| payload(n, 100)).collect::<Vec<_>>()
    );
}

/// What is not synced yet cannot be read back, so it stays, whatever the bound.
#[test]
fn unsynced_entries_stay_in_memory() {
    let mut member = Setup::sole().cache(0).start(&SimDisk::new(1)).unwrap();
    member.lead();
    let mut outcome = crate::support::Outcome::default();
    for number in 0..50 {
        member.propose(payload(number, 100));
        member.turn(&mut outcome);
    }
    assert_eq!(member.driver.status().cached_entries, 50);
    member.sync();
    member.run();
    assert_eq!(member.driver.status().cached_entries, 0);
    assert_eq!(member.applied.payloads.len(), 50);
}

/// raft-rs asks for all unapplied entries before it campaigns, without a limit, and panics if it
/// does not get them. Only types are needed, so nothing is read.
#[test]
fn a_campaign_with_a_long_unapplied_log_reads_nothing() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole().cache(0);
    drop(filled(&setup, &disk, 200));
    let mut member = setup.start(&disk).unwrap();
    disk.fail_when(|_, kind| kind == OpKind::Read, Fault::Io);
    member.driver.campaign();
    assert_eq!(member.driver.status().role, Role::Leader);
}

/// raft-rs panics if entries to apply cannot be read; the member must stop with an error that says
/// what is broken.
#[test]
fn an_entry_that_cannot_be_read_back_for_applying_fails_the_member() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole().cache(0);
    drop(filled(&setup, &disk, 50));
    let mut member = setup.start(&disk).unwrap();
    disk.fail_when(|_, kind| kind == OpKind::Read, Fault::Io);
    let outcome = member.run();
    let failure = outcome.failure.unwrap();
    assert!(
        matches!(failure, Error::ReadBack { index: 1, .. }),
        "{failure}"
    );
    assert!(outcome.committed.is_empty());
    assert!(!member.driver.has_effects());
    member.driver.tick();
    member.driver.campaign();
    assert!(!member.driver.has_effects());
}

#[test]
fn compaction_drops_entries_and_releases_their_segments() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole();
    let mut member = filled(&setup, &disk, 300);
    let segments = member.wal.segments();
    assert!(segments.end - segments.start > 8);
    assert_eq!(member.driver.releasable_before(), 0);
    member.checkpoint();

    assert!(member.driver.compact(200));
    assert!(!member.driver.compact(200), "again");
    assert!(!member.driver.compact(100), "backwards");
    assert_eq!(
        member.driver.log().mark(),
        Mark {
            index: 200,
            term: 1
        }
    );
    assert_eq!(member.driver.status().first_index, 201);
    assert_eq!(
        member.driver.releasable_before(),
        0,
        "the mark is not in the WAL"
    );
    let effects = member.driver.effects();
    let append = effects.append.unwrap();
    assert!(!append.must_sync);
    assert_eq!(
        append.records.len(),
        2,
        "the commit index goes with the mark"
    );
    let positions = member
        .wal
        .append(&append.records, &mut || append.head())
        .unwrap();
    member.driver.persisted(append.ticket, &positions);
    let releasable = member.driver.releasable_before();
    assert!(segments.start < releasable && releasable < segments.end);
    member.wal.release_before(releasable).unwrap();
    assert_eq!(member.wal.segments().start, releasable);

    // Recovery works from the head of the oldest segment kept.
    drop(member);
    let mut member = setup.start(&disk).unwrap();
    assert_eq!(
        member.driver.log().mark(),
        Mark {
            index: 200,
            term: 1
        }
    );
    // A member that died before the release catches up on it.
    assert_eq!(member.driver.releasable_before(), releasable);
    assert_eq!(member.driver.status().last_index, 301);
    member.lead();
    assert_eq!(member.applied.payloads.len(), 300);
    member.compact(302);
    assert_eq!(member.driver.status().first_index, 303);
    let segments = member.wal.segments();
    assert_eq!(segments.end - segments.start, 1);
    drop(member);
    let disk = disk.power_loss(ferrite_disk::sim::PowerLoss::LoseAll);
    // The mark was written but not synced; the release synced it.
    let member = setup.start(&disk).unwrap_err().to_string();
    assert!(
        member.contains("applied up to index 301, log truncated at index 302"),
        "{member}"
    );
}

#[test]
#[should_panic(expected = "compacting to 3, applied 2")]
fn what_is_not_applied_cannot_be_compacted() {
    let mut member = filled(&Setup::sole(), &SimDisk::new(1), 1);
    member.driver.compact(3);
}

/// A full disk refuses the append; the same one succeeds later, and nothing was lost or doubled.
#[test]
fn an_append_refused_for_lack_of_space_can_be_repeated() {
    let disk = SimDisk::new(1);
    let mut setup = Setup::sole();
    setup.options.wal.spare_segments = 0;
    let mut member = filled(&setup, &disk, 10);
    disk.set_capacity(Some(disk.used_bytes()));
    let mut refused = 0;
    for number in 10..100 {
        member.propose(payload(number, 100));
        let append = member.driver.effects().append.unwrap();
        let mut result = member.wal.append(&append.records, &mut || append.head());
        if let Err(error) = &result {
            assert!(error.is_no_space(), "{error}");
            refused += 1;
            disk.set_capacity(Some(disk.used_bytes() + (16 << 10)));
            result = member.wal.append(&append.records, &mut || append.head());
        }
        member.wal.sync().unwrap();
        member.driver.persisted(append.ticket, &result.unwrap());
        member.run();
    }
    assert!(refused > 0);
    drop(member);
    let mut member = setup.start(&disk).unwrap();
    member.lead();
    assert_eq!(
        member.applied.payloads,
        (0..100).map(|n| payload(n, 100)).collect::<Vec<_>>()
    );
    assert!(ferrite_raft::log::exists(&disk, Path::new(DIR)).unwrap());
}
