//! Power loss at every disk operation of a scripted run, and again at every operation of the
//! recovery.

use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::{ConfState, Error, Snapshot};
use raft::eraftpb::MessageType;

use crate::peers::{append, from, of_three, step};
use crate::support::{Applied, Member, Outcome, Setup, encode, message, payload};

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

/// The state after the entries up to `index`, whoever applied them.
fn state_at(index: u64, term: u64) -> Applied {
    Applied {
        index,
        term,
        payloads: (1..=index).map(|index| payload(index, 20)).collect(),
        conf: ConfState::new(vec![1, 2, 3], vec![]),
    }
}

/// As the leader 2 of `term` sends it.
fn receive(member: &mut Member, state: &Applied, term: u64) -> bool {
    let Snapshot {
        index,
        term: of,
        conf_state,
    } = state.snapshot();
    let mut message = from(2, term, MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, of);
    metadata.mut_conf_state().set_voters(conf_state.voters);
    member.receive(&encode(&message), state).unwrap()
}

/// What a follower has told its leader once the disk had carried out so many operations.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    operations: u64,
    acknowledged: u64,
    term: u64,
}

struct Follower {
    member: Member,
    told: Vec<Told>,
}

impl Follower {
    fn start(setup: &Setup, disk: &SimDisk) -> Follower {
        let mut follower = Follower {
            member: setup.start(disk).unwrap(),
            told: vec![Told::default()],
        };
        follower.carry_out();
        follower
    }

    /// Step by step: what is sent in a turn counts from its end.
    fn carry_out(&mut self) {
        while self.member.driver.has_effects() {
            let mut outcome = Outcome::default();
            self.member.turn(&mut outcome);
            let mut told = *self.told.last().unwrap();
            for (_, bytes) in &outcome.sent {
                let sent = message(bytes);
                if sent.term > told.term {
                    // Entries of an older term may be replaced.
                    (told.term, told.acknowledged) = (sent.term, 0);
                }
                if sent.get_msg_type() == MessageType::MsgAppendResponse && !sent.reject {
                    told.acknowledged = told.acknowledged.max(sent.index);
                }
            }
            told.operations = self.member.disk.op_count();
            self.told.push(told);
            self.member.sync();
            self.member.finish_install();
        }
    }

    /// Entries from the leader, up to `to`.
    fn append(&mut self, term: u64, before: u64, count: u64) {
        let last = self.member.driver.status().last_index;
        for index in last..last + count {
            let before = if index == last { before } else { term };
            let entry = append(2, term, (index, before), 1, index + 1);
            step(&mut self.member, &entry);
            self.carry_out();
        }
    }

    fn snapshot(&mut self, state: &Applied, term: u64) {
        assert!(receive(&mut self.member, state, term));
        self.carry_out();
    }
}

/// Falls behind three times, once with entries on their way that the snapshot replaces.
fn followed(setup: &Setup, disk: &SimDisk) -> Vec<Told> {
    let mut follower = Follower::start(setup, disk);
    follower.append(1, 0, 12);
    follower.member.checkpoint();
    follower.snapshot(&state_at(40, 1), 1);
    follower.append(1, 1, 30);
    follower.member.checkpoint();
    let to = follower.member.checkpointed - 3;
    follower.member.compact(to);
    follower.snapshot(&state_at(90, 3), 3);
    // Nobody has them but a leader that lost.
    step(&mut follower.member, &append(2, 3, (90, 3), 10, 90));
    let mut outcome = Outcome::default();
    follower.member.turn(&mut outcome);
    follower.snapshot(&state_at(95, 4), 4);
    follower.append(4, 4, 20);
    assert!(
        follower.member.wal.segments().end > 4,
        "segments were switched"
    );
    follower.told
}

/// Starts on what a power loss left.
fn check_follower(setup: &Setup, disk: &SimDisk, told: &Told, context: &str) -> Member {
    let member = setup
        .start(disk)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let status = member.driver.status();
    assert!(status.term >= told.term, "{context}: {status:?}");
    let last = status.last_index;
    assert!(
        last >= told.acknowledged,
        "{context}: {last} after {told:?}"
    );
    assert!(status.first_index <= member.applied.index + 1, "{context}");
    let state = state_at(member.applied.index, member.applied.term);
    assert_eq!(member.applied, state, "{context}");
    member
}

#[test]
fn a_snapshot_is_installed_whole_or_not_at_all_wherever_power_fails() {
    let setup = of_three();
    let disk = SimDisk::recording(5);
    let promises = followed(&setup, &disk);
    let mut crashes = 0;
    for (k, fork) in disk.history() {
        let reached = promises.partition_point(|told| told.operations <= k as u64);
        let told = &promises[reached - 1];
        for policy in some_policies(k as u64) {
            let context = format!("power lost before operation {k}, {policy:?}");
            let recovering = fork.power_loss(policy);
            recovering.start_recording();
            drop(check_follower(&setup, &recovering, told, &context));
            crashes += 1;
            if policy != PowerLoss::Random(3 * k as u64) {
                continue;
            }
            // And again, in the middle of that.
            for (j, fork) in recovering.history() {
                let context = format!("{context}, again before {j}");
                let disk = fork.power_loss(PowerLoss::Random((k * 100 + j) as u64));
                let mut member = check_follower(&setup, &disk, told, &context);
                if k % 7 == 0 && j == 0 {
                    // It goes on.
                    member.run();
                    assert!(receive(&mut member, &state_at(200, 9), 9));
                    member.run();
                    assert_eq!(member.applied.index, 200, "{context}");
                }
            }
        }
    }
    assert!(crashes > 1000, "only {crashes} crashes");
}

/// Who starts puts the content in place first; a driver that is not given it does not start.
#[test]
fn a_state_from_before_the_snapshot_does_not_start() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    assert!(receive(&mut member, &state_at(40, 1), 1));
    while member.install.is_none() {
        member.turn(&mut Outcome::default());
        member.sync();
    }
    drop(member);
    let content = std::path::Path::new(crate::support::RECEIVED);
    ferrite_disk::Disk::remove(&disk, content).unwrap();
    let error = setup.start(&disk).unwrap_err();
    let expected = Error::LogBehindCheckpoint {
        applied: 0,
        truncated: 40,
    };
    assert_eq!(error.to_string(), expected.to_string());
}
