//! The ballot: what was kept is found, whatever the power and the disk do.

use std::path::Path;

use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::{Ballot, BallotFile, Error, HardState};

use crate::support::metadata;

const PATH: &str = "/ballot";

fn ballot(term: u64, vote: u64, recovering: bool) -> Ballot {
    Ballot {
        metadata: metadata(1),
        term,
        vote,
        recovering,
    }
}

fn open(disk: &SimDisk) -> BallotFile {
    BallotFile::open(disk, Path::new(PATH)).unwrap()
}

#[test]
fn what_was_kept_last_is_found() {
    let disk = SimDisk::new(1);
    let mut ballots = open(&disk);
    assert_eq!(ballots.known(), None);
    for (term, vote) in [(1, 0), (1, 7), (2, 0), (9, u64::MAX)] {
        ballots.keep(ballot(term, vote, false)).unwrap();
        assert_eq!(ballots.known(), Some(ballot(term, vote, false)));
        let found = open(&disk.power_loss(PowerLoss::LoseAll)).known();
        assert_eq!(found, Some(ballot(term, vote, false)));
    }
    ballots.keep(ballot(9, 3, true)).unwrap();
    // The member goes on being what it is.
    ballots.promise((10, 4)).unwrap();
    assert_eq!(open(&disk).known(), Some(ballot(10, 4, true)));
    ballots.recovered().unwrap();
    assert_eq!(open(&disk).known(), Some(ballot(10, 4, false)));
}

#[test]
fn nothing_is_written_for_what_is_known() {
    let disk = SimDisk::new(1);
    let mut ballots = open(&disk);
    ballots.keep(ballot(3, 1, false)).unwrap();
    let operations = disk.op_count();
    ballots.keep(ballot(3, 1, false)).unwrap();
    ballots.promise((3, 1)).unwrap();
    assert_eq!(disk.op_count(), operations);
}

#[test]
fn a_power_loss_leaves_the_old_one_or_the_new_one() {
    let disk = SimDisk::new(1);
    let mut ballots = open(&disk);
    ballots.keep(ballot(1, 2, false)).unwrap();
    disk.start_recording();
    ballots.promise((2, 3)).unwrap();
    let mut history = disk.history();
    assert!(history.len() > 1, "a write and a sync");
    for at in 0..=history.len() {
        for seed in 0..20 {
            let after = history.power_loss_at(at, PowerLoss::Random(seed));
            let found = open(&after).known();
            // Torn: it was never said that it is kept, and the log is asked.
            let kept = [Some(ballot(1, 2, false)), Some(ballot(2, 3, false)), None];
            let last = at == history.len();
            assert!(kept[usize::from(last)..2 + usize::from(!last)].contains(&found));
        }
    }
}

#[test]
fn a_damaged_file_is_not_believed_and_written_anew() {
    let intact = SimDisk::new(1);
    let mut ballots = open(&intact);
    ballots.keep(ballot(1, 2, false)).unwrap();
    ballots.keep(ballot(2, 3, false)).unwrap();
    for slot in [0, 4096] {
        for offset in 0..64 {
            for bit in 0..8 {
                let disk = intact.fork();
                disk.flip_bit(Path::new(PATH), slot + offset, bit).unwrap();
                let mut ballots = open(&disk);
                assert_eq!(ballots.known(), None, "byte {offset} of slot {slot}");
                ballots.keep(ballot(2, 3, false)).unwrap();
                assert_eq!(ballots.known(), Some(ballot(2, 3, false)));
                assert_eq!(open(&disk).known(), Some(ballot(2, 3, false)));
            }
        }
    }
    // Both slots, from one end to the other.
    intact.corrupt(Path::new(PATH), 0..4096 + 64).unwrap();
    let mut ballots = open(&intact);
    assert_eq!(ballots.known(), None);
    ballots.keep(ballot(5, 1, false)).unwrap();
    assert_eq!(open(&intact).known(), Some(ballot(5, 1, false)));
}

#[test]
fn a_disk_that_fails_is_an_error_that_names_the_file() {
    let disk = SimDisk::new(1);
    let mut ballots = open(&disk);
    disk.fail_randomly(1.0);
    let error = ballots.keep(ballot(1, 0, false)).unwrap_err();
    assert!(matches!(error, Error::Ballot { .. }));
    assert!(error.to_string().starts_with(PATH), "{error}");
}

#[test]
fn a_log_is_behind_if_it_forgets_a_term_or_a_vote() {
    let log = |term, vote| HardState {
        term,
        vote,
        commit: 0,
    };
    let ahead = |ours: (u64, u64), log: HardState| ballot(ours.0, ours.1, false).is_ahead_of(&log);
    assert!(ahead((3, 0), log(2, 9)));
    assert!(ahead((3, 1), log(3, 0)));
    assert!(ahead((3, 1), log(3, 2)));
    // The log is written first.
    assert!(!ahead((3, 0), log(3, 1)));
    assert!(!ahead((3, 1), log(3, 1)));
    assert!(!ahead((3, 1), log(4, 0)));
}
