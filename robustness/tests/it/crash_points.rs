//! Power loss at every disk operation of a scripted run, and again during the recovery.

use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_robustness::script::{Reference, Script};
use ferrite_robustness::sim::SimMember;

/// What was known when an operation of the disk began.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Disk operations done before.
    ops: u64,
    acknowledged: usize,
    proposed: usize,
}

struct Run {
    disk: SimDisk,
    reference: Reference,
    /// In order of time.
    known: Vec<Known>,
    segments: std::ops::Range<u64>,
    compactions: usize,
    /// Revocations that deleted keys.
    leases: usize,
}

/// Runs a script on a recording disk: batches of writes, ticks in between.
fn record(seed: u64, writes: usize) -> Run {
    let disk = SimDisk::recording(seed);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    let mut reference = Reference::default();
    reference.record(member.member().state());
    let mut script = Script::new(seed, 12);
    let mut known = vec![Known {
        ops: disk.op_count(),
        ..Known::default()
    }];
    let (mut compactions, mut leases) = (0, 0);
    for write in 0..writes {
        let (revision, compacted) = {
            let store = member.member().state().store();
            (store.revision(), store.compacted())
        };
        let request = script.next(revision, compacted);
        compactions += usize::from(request.compaction.is_some());
        let revokes = request.lease_revoke.is_some();
        let waiter = member.propose(request).unwrap();
        let before = Known {
            ops: disk.op_count(),
            acknowledged: write,
            proposed: write + 1,
        };
        known.push(before);
        member.carry_out().unwrap();
        assert!(
            member
                .replies()
                .iter()
                .any(|(answered, _)| *answered == waiter)
        );
        let changed = member.member().state().store().revision() > revision;
        leases += usize::from(revokes && changed);
        reference.record(member.member().state());
        known.push(Known {
            ops: disk.op_count(),
            acknowledged: write + 1,
            proposed: write + 1,
        });
        if write % 3 == 0 {
            member.tick().unwrap();
        }
    }
    let segments = member.wal().segments();
    reference.check(
        member.member().state(),
        writes,
        writes,
        "the undisturbed run",
    );
    Run {
        disk,
        reference,
        known,
        segments,
        compactions,
        leases,
    }
}

/// What was known right before operation `k`.
fn known_at(known: &[Known], k: usize) -> Known {
    let after = known.partition_point(|known| known.ops <= k as u64);
    after
        .checked_sub(1)
        .map_or(Known::default(), |at| known[at])
}

/// Boots what a power loss left, checks it, lets it go on, and checks the digest.
fn recover(run: &Run, disk: &SimDisk, k: usize, what: &str) {
    let Known {
        acknowledged,
        proposed,
        ..
    } = known_at(&run.known, k);
    let context = format!("operation {k}, {what}");
    let mut member = match SimMember::boot(disk, 2) {
        Ok(member) => member,
        Err(error) => panic!("{context}: does not boot: {error}"),
    };
    for _ in 0..3 {
        if let Err(error) = member.tick() {
            panic!("{context}: cannot go on: {error}");
        }
    }
    assert!(member.published().ready(), "{context}: not ready");
    run.reference
        .check(member.member().state(), acknowledged, proposed, &context);
    while member.member().state().compacting() {
        member.tick().unwrap();
    }
    run.reference
        .check_digest(member.member().state(), &context);
    run.reference
        .check(member.member().state(), acknowledged, proposed, &context);
}

const WRITES: usize = 120;

#[test]
fn power_loss_at_every_operation_loses_nothing_acknowledged() {
    let run = record(42, WRITES);
    let mut history = run.disk.history();
    let operations = history.len();
    assert!(
        run.segments.start > 2,
        "the script must release segments: {:?}",
        run.segments
    );
    assert!(run.compactions > 2, "the script must compact");
    assert!(run.leases > 2, "the script must revoke leases with keys");
    for k in 0..=operations {
        for policy in [
            PowerLoss::LoseAll,
            PowerLoss::KeepAll,
            PowerLoss::Random(k as u64),
        ] {
            let disk = history.power_loss_at(k, policy);
            recover(&run, &disk, k, &format!("{policy:?} of {operations}"));
        }
    }
}

#[test]
fn power_loss_during_recovery_loses_nothing_either() {
    let run = record(43, WRITES);
    let mut history = run.disk.history();
    let operations = history.len();
    // Every 7th crash point of the run, and from there every operation of the recovery.
    for k in (0..=operations).step_by(7) {
        let crashed = history.power_loss_at(k, PowerLoss::Random(k as u64));
        crashed.start_recording();
        if let Ok(mut member) = SimMember::boot(&crashed, 2) {
            member.tick().unwrap();
        }
        let mut recovery = crashed.history();
        for again in 0..=recovery.len() {
            let disk = recovery.power_loss_at(again, PowerLoss::Random(again as u64));
            recover(
                &run,
                &disk,
                k,
                &format!("then operation {again} of the recovery"),
            );
        }
    }
}
