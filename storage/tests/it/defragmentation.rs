//! A defragmentation in turns with checkpoints.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_disk::Disk;
use ferrite_storage::checkpoint::{Finished, Job, Policy, Reason};
use ferrite_storage::page::Error;

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
