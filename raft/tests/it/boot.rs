//! Starting: what of log and checkpoint fits together, and what does not.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal::{Record, Wal};
use ferrite_raft::log::{Logged, create, recover, recover_watched, take_over};
use ferrite_raft::{
    Change, ConfChange, ConfState, Config, Driver, EntryKind, Error, HardState, Mark,
};

use crate::support::{DIR, Setup, metadata, options, payload, record};

fn meta(cluster: u64, member: u64) -> Record {
    record(1, &[cluster, member])
}

fn entry(index: u64, term: u64) -> Record {
    record(2, &[index, term, 0])
}

fn state(term: u64, vote: u64, commit: u64) -> Record {
    record(3, &[term, vote, commit])
}

fn truncated(index: u64, term: u64) -> Record {
    record(4, &[index, term])
}

fn snapshot(index: u64, term: u64) -> Record {
    record(5, &[index, term])
}

/// What recovery says to these records.
fn recovered(records: &[Record]) -> Result<(Mark, u64, HardState), Error> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let options = options(1 << 20);
    drop(Wal::create(
        disk.clone(),
        Path::new(DIR),
        options.wal.clone(),
        records,
    )?);
    let recovered = recover(disk, Path::new(DIR), &options)?;
    Ok((
        recovered.log.mark(),
        recovered.log.last(),
        recovered.hard_state,
    ))
}

fn check(records: &[Record], expected: &str) {
    let error = recovered(records).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_later_entry_with_a_smaller_index_replaces_from_there() {
    let records = [
        meta(1, 2),
        state(2, 0, 0),
        entry(1, 1),
        state(2, 0, 1),
        entry(2, 1),
        entry(3, 1),
        entry(2, 2),
        state(2, 0, 2),
    ];
    let (mark, last, state) = recovered(&records).unwrap();
    assert_eq!((mark, last), (Mark::default(), 2));
    assert_eq!(
        state,
        HardState {
            term: 2,
            vote: 0,
            commit: 2
        }
    );
}

#[test]
fn a_log_whose_beginning_was_released_is_complete_once_a_later_mark_says_so() {
    let released = [
        meta(1, 2),
        state(1, 0, 8),
        truncated(5, 1),
        entry(9, 1),
        entry(10, 1),
    ];
    check(&released, "truncated at index 5 but begins at index 9");
    for mark in 8..=10 {
        let records = [&released[..], &[truncated(mark, 1)]].concat();
        let (found, last, _) = recovered(&records).unwrap();
        assert_eq!(
            (found, last),
            (
                Mark {
                    index: mark,
                    term: 1
                },
                10
            )
        );
    }
    // The first entry kept may be replaced by an earlier one.
    let records = [
        &released[..],
        &[state(2, 0, 8), entry(9, 2), truncated(8, 1)],
    ]
    .concat();
    assert_eq!(recovered(&records).unwrap().1, 9);
}

/// Everything before a snapshot is gone, whatever it was, and the log goes on after it.
#[test]
fn a_snapshot_restarts_the_log() {
    let records = [
        meta(1, 2),
        state(1, 0, 0),
        truncated(0, 0),
        entry(1, 1),
        entry(2, 1),
        state(1, 0, 1),
        entry(3, 1),
        // An append of a follower that heard of a new term with the snapshot.
        state(3, 0, 1),
        snapshot(9, 2),
        state(3, 0, 9),
        entry(10, 2),
        entry(11, 3),
        state(3, 0, 10),
        truncated(10, 2),
        // Another one.
        snapshot(20, 3),
        state(3, 0, 20),
    ];
    let mark = |index, term| Mark { index, term };
    let expected = [
        (9, mark(9, 2), 9, 9),
        (10, mark(9, 2), 9, 9),
        (12, mark(9, 2), 11, 9),
        (13, mark(9, 2), 11, 10),
        (14, mark(10, 2), 11, 10),
        (15, mark(20, 3), 20, 20),
        (16, mark(20, 3), 20, 20),
    ];
    for length in 3..=records.len() {
        let (found, last, state) = recovered(&records[..length]).unwrap();
        let known = expected.iter().find(|(of, ..)| *of == length);
        if let Some((_, mark, end, commit)) = known {
            assert_eq!((found, last, state.commit), (*mark, *end, *commit));
        }
        assert!(found.index <= state.commit && state.commit <= last);
    }
}

/// The segments before it were released, and with them what the head says to be committed.
#[test]
fn a_snapshot_closes_the_gap_of_a_released_beginning() {
    let head = [meta(1, 2), state(1, 0, 8), truncated(5, 1)];
    let records = [&head[..], &[entry(9, 1), snapshot(12, 1), state(1, 0, 12)]].concat();
    let (mark, last, _) = recovered(&records).unwrap();
    assert_eq!((mark, last), (Mark { index: 12, term: 1 }, 12));
    let records = [&head[..], &[snapshot(12, 1), entry(15, 1)]].concat();
    check(&records, "truncated at index 12 but begins at index 15");
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let start = [
        meta(1, 2),
        state(3, 1, 0),
        truncated(0, 0),
        entry(1, 1),
        entry(2, 3),
    ];
    let and = |more: &[Record]| [&start[..], more].concat();
    check(&[state(1, 0, 0)], "no metadata");
    check(
        &and(&[meta(1, 3)]),
        "conflicting metadata: member 2 of cluster 1 before, member 3 of",
    );
    check(
        &and(&[entry(4, 3)]),
        "entry gap: the log ends at index 2, segment 1 goes on with index 4",
    );
    check(
        &and(&[entry(3, 2)]),
        "terms go backwards: entry 3 has term 2, the one before it 3",
    );
    check(
        &and(&[entry(3, 4)]),
        "entry 3 has term 4, the hard state before it only term 3",
    );
    check(&and(&[state(2, 0, 0)]), "hard state goes backwards");
    check(&and(&[state(3, 2, 0)]), "hard state goes backwards");
    check(&and(&[state(3, 0, 0)]), "hard state goes backwards");
    check(
        &and(&[state(3, 1, 1), state(3, 1, 0)]),
        "hard state goes backwards",
    );
    check(
        &and(&[state(3, 1, 2), entry(2, 3)]),
        "entry 2 follows in the log although entries up to 2",
    );
    check(
        &and(&[truncated(1, 1), entry(1, 3)]),
        "entry 1 follows in the log although entries up to 1",
    );
    check(&and(&[truncated(3, 3)]), "does not fit the log");
    check(&and(&[truncated(2, 2)]), "does not fit the log");
    check(
        &and(&[truncated(2, 3), truncated(1, 1)]),
        "does not fit the log",
    );
    check(
        &and(&[state(3, 1, 3)]),
        "commits up to index 3 but the log ends at index 2",
    );
    for backwards in [snapshot(1, 3), snapshot(2, 3)] {
        check(&and(&[state(3, 1, 2), backwards]), "does not fit the log");
    }
    check(&and(&[snapshot(9, 4)]), "does not fit the log");
    check(
        &and(&[truncated(2, 3), snapshot(9, 2)]),
        "does not fit the log",
    );
    check(
        &and(&[snapshot(9, 3), entry(9, 3)]),
        "entry 9 follows in the log although entries up to 9",
    );
    check(&and(&[snapshot(0, 3)]), "snapshot index is 0");
    check(&and(&[snapshot(9, 0)]), "snapshot term is 0");
    check(&and(&[record(5, &[9])]), "snapshot record of 8 bytes");
    check(&and(&[record(9, &[])]), "unknown record kind 9");
    check(&and(&[record(4, &[1])]), "truncated record of 8 bytes");
    check(
        &and(&[record(3, &[u64::MAX, 0, 0])]),
        "term is 18446744073709551615",
    );
    check(&and(&[record(2, &[3, 3, 7])]), "entry of unknown type 7");
    check(
        &and(&[record(2, &[3, 3, 0xff << 40])]),
        "entry record of 24 bytes",
    );
    // An entry that claims to be a configuration change and is none would stop the member when it
    // is applied.
    check(
        &and(&[record(2, &[3, 3, 2, u64::MAX])]),
        "configuration: entry 3",
    );
    assert!(recovered(&and(&[])).is_ok());
}

/// The commit index is not synced on its own, so the checkpoint may be ahead of it; raft-rs would
/// panic.
#[test]
fn a_checkpoint_ahead_of_the_commit_index_raises_it() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole();
    let mut member = setup.start(&disk).unwrap();
    member.lead();
    for number in 0..5 {
        member.propose(payload(number, 20));
    }
    member.run();
    member.checkpoint();
    assert_eq!(member.checkpointed, 6);
    drop(member);
    let recovered = recover(Arc::new(disk.clone()), Path::new(DIR), &setup.options).unwrap();
    assert_eq!(recovered.hard_state.commit, 1);
    let mut member = setup.start(&disk).unwrap();
    let status = member.driver.status();
    assert_eq!(
        (status.commit, status.applied, status.last_index),
        (6, 6, 6)
    );
    member.lead();
    assert_eq!(member.applied.index, 7);
}

#[test]
fn entries_after_the_checkpoint_are_handed_out_again() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole();
    let mut member = setup.start(&disk).unwrap();
    member.lead();
    for number in 0..5 {
        member.propose(payload(number, 20));
        member.run();
        if number == 2 {
            member.checkpoint();
        }
    }
    drop(member);
    let mut member = setup.start(&disk).unwrap();
    assert_eq!(member.applied.payloads.len(), 3);
    // The last commit index was not written: its entry waits for the new term.
    let committed: Vec<u64> = member.run().committed.iter().map(|e| e.index).collect();
    assert_eq!(committed, [5]);
    let committed: Vec<u64> = member.lead().committed.iter().map(|e| e.index).collect();
    assert_eq!(committed, [6, 7]);
    assert_eq!(
        member.applied.payloads,
        (0..5).map(|n| payload(n, 20)).collect::<Vec<_>>()
    );
}

#[test]
fn a_log_that_does_not_fit_the_checkpoint_is_refused() {
    let start = |applied: u64| {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let start = Mark { index: 10, term: 2 };
        let log = create(
            disk,
            Path::new(DIR),
            &options(1 << 20),
            metadata(1),
            start,
            None,
        )
        .unwrap()
        .log;
        Driver::new(
            Config::new(1, applied, ConfState::new(vec![1], vec![]), 1),
            log,
        )
    };
    let error = start(9).unwrap_err();
    assert!(
        matches!(
            error,
            Error::LogBehindCheckpoint {
                applied: 9,
                truncated: 10
            }
        ),
        "{error}"
    );
    let error = start(11).unwrap_err();
    assert!(
        matches!(
            error,
            Error::AppliedBeyondLog {
                applied: 11,
                last: 10
            }
        ),
        "{error}"
    );
    let driver = start(10).unwrap();
    assert_eq!((driver.status().term, driver.status().first_index), (2, 11));
}

#[test]
fn configurations_that_raft_cannot_start_from_are_refused() {
    let start = |change: &dyn Fn(&mut Config)| {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let log = create(
            disk,
            Path::new(DIR),
            &options(1 << 20),
            metadata(1),
            Mark::default(),
            None,
        );
        let mut config = Config::new(1, 0, ConfState::new(vec![1], vec![]), 1);
        change(&mut config);
        Driver::new(config, log.unwrap().log).map(drop)
    };
    assert!(start(&|_| {}).is_ok());
    let refused: [&dyn Fn(&mut Config); 7] = [
        &|config| config.conf_state.learners = vec![1],
        &|config| config.conf_state.voters = vec![0],
        &|config| config.conf_state.auto_leave = true,
        &|config| config.conf_state.learners_next = vec![5],
        &|config| config.election_ticks = 1,
        &|config| config.max_inflight = 0,
        &|config| config.max_uncommitted_size = 1,
    ];
    for change in refused {
        assert!(matches!(start(change), Err(Error::Config(_))));
    }
    let mut joint = ConfState::new(vec![1, 2], vec![3]);
    (joint.voters_outgoing, joint.learners_next, joint.auto_leave) = (vec![1, 4], vec![4], true);
    assert!(start(&|config| config.conf_state = joint.clone()).is_ok());
}

#[test]
fn creating_over_a_log_is_refused() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let make = || {
        create(
            disk.clone(),
            Path::new(DIR),
            &options(1 << 20),
            metadata(1),
            Mark::default(),
            None,
        )
    };
    make().unwrap();
    assert!(matches!(make(), Err(Error::Wal(_))));
}

/// Terms, votes and the log come back as they were promised.
#[test]
fn a_restart_keeps_the_term_and_the_vote() {
    let disk = SimDisk::new(1);
    for term in 1..=5 {
        let mut member = Setup::sole().start(&disk).unwrap();
        assert_eq!(member.driver.status().term, term - 1);
        member.lead();
        member.propose(Bytes::from_static(b"x"));
        member.run();
        let status = member.driver.status();
        assert_eq!((status.term, status.vote), (term, 1));
        assert_eq!(member.applied.payloads.len() as u64, term);
    }
}

/// Takes a log of member 2 over, entries up to 2 of which are known to be committed, and gives what is
/// in it then: the hard state, and index, term and change of each entry.
#[expect(clippy::type_complexity, reason = "compared as it is")]
fn taken_over(
    drop_from: Option<u64>,
    changes: &[ConfChange],
) -> Result<(HardState, Vec<(u64, u64, Option<Change>)>), Error> {
    let records = [
        meta(1, 2),
        state(3, 9, 0),
        entry(1, 1),
        entry(2, 3),
        state(3, 9, 2),
        entry(3, 3),
        entry(4, 3),
    ];
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let options = options(1 << 20);
    let dir = Path::new(DIR);
    drop(Wal::create(
        disk.clone(),
        dir,
        options.wal.clone(),
        &records,
    )?);
    take_over(recover(disk.clone(), dir, &options)?, drop_from, changes)?;
    let mut entries: Vec<(u64, u64, Option<Change>)> = Vec::new();
    let recovered = recover_watched(disk, dir, &options, &mut |_, record| {
        if let Logged::Entry {
            index, term, kind, ..
        } = record
        {
            let change = match kind {
                EntryKind::Normal => None,
                EntryKind::ConfChange(change) => change.changes.first().copied(),
            };
            entries.retain(|(earlier, ..)| *earlier < index);
            entries.push((index, term, change));
        }
    })?;
    assert_eq!(recovered.log.last(), entries.len() as u64);
    Ok((recovered.hard_state, entries))
}

#[test]
fn a_log_that_is_taken_over_is_committed_to_its_end() {
    let remove = |id| ConfChange::new(Change::Remove(id), Bytes::from_static(b"why"));
    let changes = [remove(8), remove(9)];
    let own = |commit| HardState {
        term: 4,
        vote: 2,
        commit,
    };
    let kept = [(1, 1, None), (2, 3, None), (3, 3, None), (4, 3, None)];
    let (hard_state, entries) = taken_over(None, &changes).unwrap();
    assert_eq!(hard_state, own(6));
    assert_eq!(entries[..4], kept);
    let appended = [
        (5, 4, Some(Change::Remove(8))),
        (6, 4, Some(Change::Remove(9))),
    ];
    assert_eq!(entries[4..], appended);

    // Replaced from the third on, longer or shorter than what was there.
    let (hard_state, entries) = taken_over(Some(3), &changes[..1]).unwrap();
    assert_eq!((hard_state, entries.len()), (own(3), 3));
    assert_eq!(entries[2], (3, 4, Some(Change::Remove(8))));
    // Nothing to change, and nothing to drop.
    let (hard_state, entries) = taken_over(Some(9), &[]).unwrap();
    assert_eq!((hard_state, &entries[..]), (own(4), &kept[..]));
    let error = taken_over(Some(2), &changes).unwrap_err().to_string();
    assert!(error.contains("entry 2 is committed"), "{error}");
}
