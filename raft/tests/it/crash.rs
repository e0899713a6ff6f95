//! Power loss at every disk operation of a scripted run, and again at every operation of the
//! recovery.

use ferrite_disk::sim::{PowerLoss, SimDisk};

use crate::support::{Member, Setup, payload};

/// What was promised once the disk had carried out so many operations.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    operations: u64,
    /// Payloads applied, so acknowledged to whoever proposed them.
    payloads: usize,
    term: u64,
    vote: u64,
}

fn promise(member: &Member) -> Promise {
    let status = member.driver.status();
    Promise {
        operations: member.disk.op_count(),
        payloads: member.applied.payloads.len(),
        term: status.term,
        vote: status.vote,
    }
}

fn length(number: u64) -> usize {
    [8, 30, 200, 900][number as usize % 4]
}

/// Proposes, checkpoints, compacts, releases, restarts; segments hold a few entries each, one
/// payload needs a segment of its own.
fn script(setup: &Setup, disk: &SimDisk) -> Vec<Promise> {
    let mut promises = vec![Promise::default()];
    let mut member = setup.start(disk).unwrap();
    member.lead();
    promises.push(promise(&member));
    let mut number = 0;
    for turn in 0..36 {
        for _ in 0..=turn % 3 {
            member.propose(payload(
                number,
                if number == 20 { 6000 } else { length(number) },
            ));
            number += 1;
        }
        member.run();
        promises.push(promise(&member));
        if turn % 7 == 6 {
            member.checkpoint();
            let to = member.checkpointed.saturating_sub(4);
            member.compact(to);
        }
        if turn == 20 {
            drop(member);
            member = setup.start(disk).unwrap();
            member.lead();
            promises.push(promise(&member));
        }
    }
    assert!(member.wal.segments().start > 3, "segments were released");
    assert!(member.wal.segments().end > 8, "segments were switched");
    promises
}

/// Starts on what a power loss left and checks that the promise holds.
fn check(setup: &Setup, disk: &SimDisk, promise: &Promise, context: &str) -> Member {
    let mut member = setup
        .start(disk)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let status = member.driver.status();
    assert!(
        status.term >= promise.term,
        "{context}: term {} after {}",
        status.term,
        promise.term
    );
    if status.term == promise.term {
        assert_eq!(status.vote, promise.vote, "{context}");
    }
    member.lead();
    let found = &member.applied.payloads;
    assert!(
        found.len() >= promise.payloads,
        "{context}: {} payloads, {} were acknowledged",
        found.len(),
        promise.payloads
    );
    for (number, payload) in found.iter().enumerate() {
        assert_eq!(payload[..8], (number as u64).to_be_bytes(), "{context}");
    }
    assert_eq!(member.driver.status().applied, member.applied.index);
    member
}

/// What a recovered member does next: everything that writes.
fn go_on(member: &mut Member) -> Promise {
    let next = member.applied.payloads.len() as u64;
    member.propose(payload(next, 900));
    member.run();
    member.checkpoint();
    member.compact(member.checkpointed);
    member.propose(payload(next + 1, 900));
    member.run();
    promise(member)
}

fn crash_everywhere(setup: &Setup, policies: impl Fn(u64) -> Vec<PowerLoss>) -> usize {
    let disk = SimDisk::recording(1);
    let promises = script(setup, &disk);
    let mut crashes = 0;
    for (k, fork) in disk.history() {
        let reached = promises.partition_point(|promise| promise.operations <= k as u64);
        let before = &promises[reached - 1];
        for policy in policies(k as u64) {
            let context = format!("power lost before operation {k}, {policy:?}");
            let disk = fork.power_loss(policy);
            let mut member = check(setup, &disk, before, &context);
            let after = go_on(&mut member);
            drop(member);
            check(setup, &disk, &after, &format!("{context}, restarted"));
            crashes += 1;
        }
    }
    crashes
}

fn some_policies(k: u64) -> Vec<PowerLoss> {
    let random = [
        PowerLoss::Random(3 * k),
        PowerLoss::Random(3 * k + 1),
        PowerLoss::Random(3 * k + 2),
    ];
    [&[PowerLoss::LoseAll, PowerLoss::KeepAll], &random[..]].concat()
}

#[test]
fn nothing_acknowledged_is_lost_wherever_power_fails() {
    let crashes = crash_everywhere(&Setup::sole(), some_policies);
    assert!(crashes > 1000, "only {crashes} crashes");
}

/// The same with everything read back from the WAL.
#[test]
fn nothing_acknowledged_is_lost_without_any_cache() {
    let crashes = crash_everywhere(&Setup::sole().cache(0), |k| vec![PowerLoss::Random(k)]);
    assert!(crashes > 200, "only {crashes} crashes");
}

#[test]
fn power_may_fail_again_at_any_point_of_the_recovery() {
    let setup = Setup::sole();
    let disk = SimDisk::recording(2);
    let promises = script(&setup, &disk);
    let mut crashes = 0;
    for (k, fork) in disk.history() {
        let reached = promises.partition_point(|promise| promise.operations <= k as u64);
        let before = &promises[reached - 1];
        let recovering = fork.power_loss(PowerLoss::Random(k as u64));
        recovering.start_recording();
        let mut member = check(&setup, &recovering, before, "recovering");
        go_on(&mut member);
        for (j, fork) in recovering.history() {
            let context = format!("power lost before operation {k}, again before {j}");
            let disk = fork.power_loss(PowerLoss::Random((k * 1000 + j) as u64));
            check(&setup, &disk, before, &context);
            crashes += 1;
        }
    }
    assert!(crashes > 3000, "only {crashes} crashes");
}

/// A process that dies leaves the page cache: what was written and not synced is seen, and made
/// durable, by the next one.
#[test]
fn a_process_crash_followed_by_a_power_loss_keeps_what_the_next_process_saw() {
    let setup = Setup::sole();
    let disk = SimDisk::new(3);
    let mut member = setup.start(&disk.session()).unwrap();
    member.lead();
    let mut outcome = crate::support::Outcome::default();
    member.propose(payload(0, 50));
    member.turn(&mut outcome);
    assert_eq!(member.unsynced.len(), 1);
    disk.crash();
    drop(member);
    let member = setup.start(&disk.session()).unwrap();
    assert_eq!(member.driver.status().last_index, 2);
    drop(member);
    let disk = disk.power_loss(PowerLoss::LoseAll);
    assert_eq!(setup.start(&disk).unwrap().driver.status().last_index, 2);
}
