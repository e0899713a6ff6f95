//! A defragmentation in turns with checkpoints.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{CompactionRequest, InternalRaftRequest, PutRequest};
use ferrite_disk::Disk;
use ferrite_storage::checkpoint::{Finished, Job, Policy, Reason};
use ferrite_storage::page::{Error, Rebuilt};

use crate::harness::{Harness, PATH};

/// Every change makes a checkpoint due, and a step copies a row or two.
const POLICY: Policy = Policy {
    max_bytes: 1,
    remove_rows: 10,
    rebuild_bytes: 5_000,
};

impl Harness {
    fn put_many(&mut self, keys: Range<u32>, length: usize) {
        for key in keys {
            let put = PutRequest {
                key: Bytes::from(format!("key{key:05}")),
                value: Bytes::from(vec![7; length]),
                ..Default::default()
            };
            let request = InternalRaftRequest {
                put: Some(put),
                ..Default::default()
            };
            self.apply(request).unwrap();
        }
    }

    /// Two versions of some keys, in the page file, and a compaction that dooms the older.
    fn with_doomed_rows() -> Self {
        let mut store = Self::new();
        store.put_many(0..50, 4_000);
        store.put_many(0..50, 4_000);
        store.job(Reason::Changed).unwrap().1.unwrap();
        let revision = store.state.store().revision();
        let compaction = CompactionRequest {
            revision,
            physical: false,
        };
        let request = InternalRaftRequest {
            compaction: Some(compaction),
            ..Default::default()
        };
        store.apply(request).unwrap();
        store
    }

    fn hash_due(&mut self) {
        let hash = self.state.next_hash().unwrap();
        self.state.finish_hash(hash.run()).unwrap().unwrap();
    }

    /// Runs jobs until none is due: what the defragmentation among them came to, and whether rows were
    /// removed after it had begun.
    fn jobs(&mut self) -> (Option<Result<Rebuilt, String>>, bool) {
        let (mut outcome, mut begun, mut removed) = (None, false, false);
        while let Some((step, finished)) = self.job(Reason::Changed) {
            let finished = finished.unwrap();
            begun |= step;
            removed |= begun && finished.compacted.is_some();
            outcome = finished.defragmented.or(outcome);
        }
        (outcome, removed)
    }

    /// Runs the next job: whether it was a step of a defragmentation, and what it came to.
    fn job(&mut self, reason: Reason) -> Option<(bool, Result<Finished, Error>)> {
        let job = self.state.next_job(&POLICY, reason)?;
        let step = matches!(job, Job::Defragment { .. });
        Some((step, self.state.finish_job(job.run())))
    }

    fn files(&self) -> Vec<String> {
        let directory = Path::new(PATH).parent().unwrap();
        let entries = self.disk.list(directory).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

/// Else a copy that has taken the last room would hold up every checkpoint, and itself.
#[test]
fn a_checkpoint_without_room_ends_it_and_goes_on_with_that_room() {
    let mut store = Harness::new();
    store.put_many(0..200, 4_000);
    store.job(Reason::Changed).unwrap().1.unwrap();
    store.state.defragment(PATH.into());
    for _ in 0..50 {
        let (step, finished) = store.job(Reason::Changed).unwrap();
        assert!(step && finished.unwrap().defragmented.is_none());
    }
    store.disk.set_capacity(Some(store.disk.used_bytes()));
    // More than any headroom holds.
    store.put_many(0..35, 1 << 20);
    let (step, refused) = store.job(Reason::Changed).unwrap();
    assert!(!step);
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    let (step, finished) = store.job(Reason::Changed).unwrap();
    let outcome = finished.unwrap().defragmented.unwrap();
    assert!(step && outcome.unwrap_err().contains("space"));
    assert_eq!(store.files(), ["db"]);
    let (step, finished) = store.job(Reason::Changed).unwrap();
    assert!(!step);
    assert_eq!(finished.unwrap().consistent_index, Some(235));
    store.restart();
    assert_eq!(store.state.store().revision(), 236);
}

/// Twice what a checkpoint has written is copied before the next one.
#[test]
fn it_ends_however_much_is_written() {
    let mut store = Harness::new();
    store.put_many(0..200, 4_000);
    store.job(Reason::Changed).unwrap().1.unwrap();
    store.state.defragment(PATH.into());
    let (mut steps, mut checkpoints) = (0_u32, 0_u32);
    loop {
        store.put_many(0..1, 4_000);
        let (step, finished) = store.job(Reason::Changed).unwrap();
        match step {
            true => steps += 1,
            false => checkpoints += 1,
        }
        if let Some(outcome) = finished.unwrap().defragmented {
            outcome.unwrap();
            break;
        }
        assert!(
            steps + checkpoints < 2_000,
            "{steps} steps, {checkpoints} checkpoints"
        );
    }
    assert!(checkpoints > 5, "{checkpoints}");
    assert_eq!(store.files(), ["db"]);
    let revision = store.state.store().revision();
    store.restart();
    assert_eq!(store.state.store().revision(), revision);
}

/// Its steps come one after the other, so time hardly ever finds none running.
#[test]
fn a_checkpoint_that_was_due_while_a_step_ran_is_the_next_job() {
    let mut store = Harness::new();
    store.put_many(0..200, 4_000);
    store.job(Reason::Changed).unwrap().1.unwrap();
    store.state.defragment(PATH.into());
    let lazy = Policy {
        max_bytes: usize::MAX,
        ..POLICY
    };
    let step = store.state.next_job(&lazy, Reason::Changed).unwrap();
    store.put_many(0..1, 4_000);
    assert!(store.state.next_job(&lazy, Reason::Aged).is_none());
    store.state.finish_job(step.run()).unwrap();
    let next = store.state.next_job(&lazy, Reason::Changed);
    assert!(matches!(next, Some(Job::Checkpoint(_))), "{next:?}");
}

/// An operator asks for the two in a row, for room: what a copy took of the doomed rows would stay room
/// of the new file.
#[test]
fn the_rows_of_a_compaction_that_was_asked_for_before_go_first() {
    let mut store = Harness::with_doomed_rows();
    store.state.defragment(PATH.into());
    assert_eq!(store.jobs(), (None, false), "the hash is not known");
    store.hash_due();
    let (outcome, removed_later) = store.jobs();
    let after = outcome.unwrap().unwrap().after;
    assert!(!removed_later);
    assert_eq!(store.state.store().page().meta().rows, 50);
    // Nothing is left for another.
    store.state.defragment(PATH.into());
    let (outcome, _) = store.jobs();
    assert_eq!(outcome.unwrap().unwrap().after, after);
}

/// The compaction cannot go on without room, so what waits for it would wait for ever.
#[test]
fn a_checkpoint_without_room_ends_the_wait_for_a_compaction() {
    let mut store = Harness::with_doomed_rows();
    store.job(Reason::Changed).unwrap().1.unwrap();
    store.hash_due();
    store.state.defragment(PATH.into());
    store.disk.set_capacity(Some(store.disk.used_bytes()));
    // More than any headroom holds.
    store.put_many(0..70, 1 << 20);
    let (step, refused) = store.job(Reason::Changed).unwrap();
    assert!(!step);
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    let (step, finished) = store.job(Reason::Changed).unwrap();
    let outcome = finished.unwrap().defragmented.unwrap();
    assert!(step && outcome.unwrap_err().contains("space"));
    assert!(store.state.compacting());
}

/// As compactions, it waits for a reader that goes on, but not for half an hour for a backup.
#[test]
fn a_backup_that_holds_a_compaction_back_holds_it_back_for_a_minute() {
    let mut store = Harness::with_doomed_rows();
    let pins = store.state.store().pins().clone();
    let (reader, backup) = (pins.pin(60), pins.pin_long(60));
    store.job(Reason::Changed).unwrap().1.unwrap();
    store.hash_due();
    store.state.defragment(PATH.into());
    for _ in 0..11 {
        // What was applied is checkpointed meanwhile.
        assert!(!matches!(store.job(Reason::Aged), Some((true, _))));
        assert!(store.job(Reason::Changed).is_none());
    }
    store.job(Reason::Aged);
    let (outcome, _) = store.jobs();
    outcome.unwrap().unwrap();
    assert!(store.state.compacting());
    assert_eq!(store.state.store().page().meta().rows, 100);
    drop((reader, backup));
}
