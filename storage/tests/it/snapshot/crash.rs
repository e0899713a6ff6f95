//! Power loss at every operation of receiving and installing a snapshot, and again at the start
//! after it: either the old state is there or the new one, as the log has decided.

use super::*;
use crate::harness::restored;
use ferrite_disk::sim::{History, PowerLoss};
use ferrite_storage::snapshot::{self, Settled};

/// Stands for the log: 8 bytes, the last entry that it has dropped.
const MARK: &str = "/data/mark";

/// Before: the log has dropped all that is in the page file.
const OLD_MARK: u64 = 8;

fn write_mark(disk: &SimDisk, mark: u64) {
    let path = Path::new(MARK);
    let file = match disk.exists(path).unwrap() {
        true => disk.open(path).unwrap(),
        false => disk.create(path).unwrap(),
    };
    file.write_at(&mark.to_le_bytes(), 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
}

fn read_mark(disk: &SimDisk) -> u64 {
    let mark = disk.read(Path::new(MARK)).unwrap();
    u64::from_le_bytes(mark.try_into().unwrap())
}

fn settle_as_log_says(disk: &SimDisk) -> Settled {
    let mark = read_mark(disk);
    let path = Path::new(PATH);
    let awaited = snapshot::awaits_decision(&as_disk(disk), path).unwrap();
    let settled = snapshot::settle(&as_disk(disk), path, mark, &options()).unwrap();
    assert!(awaited || settled == Settled::Kept);
    settled
}

/// Old and new state, and a run of the disk from the one to the other.
struct Run {
    old: Harness,
    new: Harness,
    history: History,
    decided: usize,
    done: usize,
}

fn record() -> Run {
    let mut old = small();
    old.checkpoint(10);
    assert_eq!(old.state.store().page().meta().consistent_index, OLD_MARK);
    write_mark(&old.disk, OLD_MARK);
    let mut new = old.replayed(old.state.applied().get());
    new.apply(alarm(AlarmAction::Deactivate)).unwrap();
    for main in 0..40 {
        new.apply(put("new", value(3000, main), 0)).unwrap();
    }
    new.change(add(10)).unwrap();
    let sent = stream(new.state.export());
    let index = new.state.applied().get();

    old.disk.start_recording();
    let now = |disk: &SimDisk| disk.history().len();
    let mut received = received(&old.disk, &sent, 1000).unwrap();
    assert_eq!(received.index, index);
    write_mark(&old.disk, index);
    let decided = now(&old.disk);
    snapshot::commit(&as_disk(&old.disk), Path::new(PATH)).unwrap();
    let done = now(&old.disk);
    // And it goes on.
    new.apply(put("newer", value(10, 1), 0)).unwrap();
    new.replay_to(&mut received.state);
    assert!(checkpoint(&mut received.state));
    let history = old.disk.history();
    Run {
        old,
        new,
        history,
        decided,
        done,
    }
}

fn policies(k: usize) -> [PowerLoss; 4] {
    let seed = k as u64 * 2;
    [
        PowerLoss::LoseAll,
        PowerLoss::KeepAll,
        PowerLoss::Random(seed),
        PowerLoss::Random(seed + 1),
    ]
}

impl Run {
    /// What is on the disk is one of the two, whole, and nothing beside it.
    fn assert_settled(&self, disk: &SimDisk, mark: u64, context: &str) {
        assert_eq!(names(disk), ["db", "mark"], "{context}");
        let mut state = restored(disk);
        let index = self.new.state.applied().get() - 1;
        if mark == index {
            assert_eq!(state.member_id(), MemberId::new(MEMBER), "{context}");
            assert!(state.applied().get() >= index, "{context}");
            self.new.replay_to(&mut state);
            assert_equal(&state, &self.new.state);
        } else {
            assert_eq!(mark, OLD_MARK, "{context}");
            self.old.replay_to(&mut state);
            assert_equal(&state, &self.old.state);
        }
    }
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_old_state_or_the_new_one() {
    let mut run = record();
    let (mut kept, mut installed) = (0, 0);
    for k in 0..=run.history.len() {
        for policy in policies(k) {
            let context = format!("operation {k} {policy:?}");
            let disk = run.history.power_loss_at(k, policy);
            let mark = read_mark(&disk);
            assert!(mark == OLD_MARK || k + 3 > run.decided, "{context}");
            assert!(mark != OLD_MARK || k < run.decided, "{context}");
            match settle_as_log_says(&disk) {
                Settled::Kept => kept += 1,
                Settled::Installed => {
                    assert!(mark != OLD_MARK && k <= run.done, "{context}");
                    installed += 1;
                }
            }
            run.assert_settled(&disk, mark, &context);
        }
    }
    assert!(kept > 100 && installed > 2, "{kept} {installed}");
}

#[test]
fn a_second_power_loss_while_it_is_settled_changes_nothing_more() {
    let mut run = record();
    // Around the end of receiving, the decision and the renaming.
    for k in run.decided - 12..=run.done + 2 {
        let disk = run.history.power_loss_at(k, PowerLoss::Random(k as u64));
        let mark = read_mark(&disk);
        disk.start_recording();
        settle_as_log_says(&disk);
        let mut second = disk.history();
        for k2 in 0..=second.len() {
            for policy in policies(k2) {
                let disk = second.power_loss_at(k2, policy);
                settle_as_log_says(&disk);
                run.assert_settled(&disk, mark, &format!("operations {k} and {k2} {policy:?}"));
            }
        }
    }
}

#[test]
fn a_received_file_that_is_damaged_is_not_installed_and_not_removed() {
    let mut run = record();
    let disk = run.history.power_loss_at(run.decided, PowerLoss::LoseAll);
    assert_eq!(names(&disk), ["db", "db.install", "mark"]);
    disk.corrupt(Path::new("/data/db.install"), 0..16).unwrap();
    let path = Path::new(PATH);
    let mark = read_mark(&disk);
    let error = snapshot::settle(&as_disk(&disk), path, mark, &options()).unwrap_err();
    assert!(error.to_string().contains("superblock"), "{error}");
    assert_eq!(names(&disk), ["db", "db.install", "mark"]);
    // If it is not needed, nobody looks at it.
    let settled = snapshot::settle(&as_disk(&disk), path, OLD_MARK, &options()).unwrap();
    assert_eq!((settled, names(&disk).len()), (Settled::Kept, 2));
}

#[test]
fn without_a_page_file_a_received_one_takes_its_place() {
    let sent = stream(small().state.export());
    for (mark, settled, left) in [
        (0, Settled::Installed, &["db"][..]),
        (16, Settled::Installed, &["db"]),
        // Too old: a log that begins later does not go with it.
        (17, Settled::Kept, &[]),
    ] {
        let disk = empty_disk(1);
        assert_eq!(received(&disk, &sent, 100).unwrap().index, 16);
        let path = Path::new(PATH);
        let found = snapshot::settle(&as_disk(&disk), path, mark, &options()).unwrap();
        assert_eq!(
            (found, &names(&disk)[..]),
            (
                settled,
                &left.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
            )
        );
    }
}

#[test]
fn what_raft_did_not_want_is_discarded() {
    let sent = stream(small().state.export());
    let disk = empty_disk(1);
    drop(received(&disk, &sent, 100).unwrap());
    assert_eq!(names(&disk), ["db.install"]);
    snapshot::discard(&as_disk(&disk), Path::new(PATH)).unwrap();
    assert_eq!(names(&disk), [""; 0]);
}
