//! Snapshots: offered by a leader, taken by a follower, and what is durable when.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_disk::wal::Position;
use ferrite_raft::log::{Logged, recover_watched};
use ferrite_raft::{
    Change, ConfChange, ConfState, HardState, Mark, Role, Snapshot, StepError, Ticket,
};
use raft::eraftpb::{Message, MessageType};

use crate::peers::{append, from, kinds, leader, of_three, step, turns};
use crate::support::{Applied, DIR, Member, Outcome, Setup, encode, message, payload};

fn snapshot(index: u64, term: u64) -> Snapshot {
    Snapshot {
        index,
        term,
        conf_state: ConfState::new(vec![1, 2, 3], vec![]),
    }
}

fn body(snapshot: &Snapshot) -> Applied {
    Applied {
        index: snapshot.index,
        term: snapshot.term,
        payloads: vec![payload(snapshot.index, 30)],
        conf: snapshot.conf_state.clone(),
    }
}

/// As the leader 2 of `leader_term` sends it.
fn carrying(leader_term: u64, snapshot: &Snapshot) -> Message {
    let mut message = from(2, leader_term, MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (snapshot.index, snapshot.term);
    let ConfState {
        voters, learners, ..
    } = snapshot.conf_state.clone();
    metadata.mut_conf_state().set_voters(voters);
    metadata.mut_conf_state().set_learners(learners);
    message
}

fn receive(member: &mut Member, leader_term: u64, snapshot: &Snapshot) -> Result<bool, StepError> {
    let message = encode(&carrying(leader_term, snapshot));
    member.receive(&message, &body(snapshot))
}

/// One turn, written and not synced.
fn turn(member: &mut Member) -> Outcome {
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    outcome
}

/// Two members of which the second is a learner that joins; the first has compacted its log.
struct Pair {
    members: [Member; 2],
    setups: [Setup; 2],
}

impl Pair {
    fn new(entries: u64) -> Pair {
        let mut setups = [Setup::sole(), Setup::of(2, &[])];
        setups[0].start = Mark { index: 1, term: 1 };
        let mut members = setups
            .each_ref()
            .map(|setup| setup.start(&SimDisk::new(setup.seed)).unwrap());
        let leader = &mut members[0];
        leader.lead();
        for number in 0..entries {
            leader.propose(payload(number, 50));
            leader.run();
        }
        let learner = ConfChange::new(Change::AddLearner(2), Bytes::new());
        leader.driver.propose_conf_change(&learner).unwrap();
        Pair { members, setups }
    }

    /// Ticks and delivers until the leader wants a snapshot for the learner.
    fn until_wanted(&mut self) {
        for _ in 0..10 {
            if self.round().snapshots_wanted == [2] {
                return;
            }
        }
        panic!("no snapshot wanted");
    }

    /// One tick of the leader, and everything that follows from it. Gives what the leader did.
    fn round(&mut self) -> Outcome {
        let [leader, learner] = &mut self.members;
        leader.driver.tick();
        let mut did = Outcome::default();
        loop {
            let outcome = leader.run();
            did.snapshots_wanted.extend(outcome.snapshots_wanted);
            did.snapshots.extend(outcome.snapshots);
            if outcome.sent.is_empty() {
                did.snapshots_wanted.dedup();
                return did;
            }
            for (to, bytes) in outcome.sent {
                assert_eq!(to, 2);
                learner.driver.step(&bytes).unwrap();
            }
            for (to, bytes) in learner.run().sent {
                assert_eq!(to, 1);
                leader.driver.step(&bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_member_that_joins_gets_a_snapshot_and_then_the_log() {
    let mut pair = Pair::new(20);
    pair.until_wanted();
    assert_eq!(pair.members[1].driver.conf_state(), &ConfState::default());
    let captured = pair.members[0].applied.clone();
    pair.members[0].propose(payload(20, 50));
    pair.members[0].run();

    let leader = &mut pair.members[0];
    assert!(leader.driver.offer_snapshot(2, captured.snapshot()));
    assert!(
        !leader.driver.offer_snapshot(2, captured.snapshot()),
        "twice"
    );
    let outcome = leader.run();
    assert!(outcome.sent.is_empty());
    let [outgoing] = &outcome.snapshots[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!((outgoing.to, &outgoing.snapshot), (2, &captured.snapshot()));
    let progress = leader.driver.progress();
    assert_eq!(progress.len(), 2);
    assert!(progress[1].learner && progress[1].snapshot && !progress[0].learner);
    assert_eq!((progress[0].id, progress[1].id), (1, 2));

    let learner = &mut pair.members[1];
    assert_eq!(learner.receive(&outgoing.message, &captured), Ok(true));
    let outcome = learner.run();
    assert_eq!(outcome.installed, [captured.index]);
    assert_eq!(learner.driver.conf_state(), &captured.conf);
    assert_eq!(learner.driver.status().applied, captured.index);
    for (_, bytes) in outcome.sent {
        pair.members[0].driver.step(&bytes).unwrap();
    }
    pair.members[0].driver.report_snapshot(2, true);
    for _ in 0..3 {
        pair.round();
    }
    assert_eq!(pair.members[0].applied, pair.members[1].applied);
    let progress = pair.members[0].driver.progress();
    assert_eq!(progress[0].matched, progress[1].matched);
    assert!(progress[1].recent_active && !progress[1].snapshot);
    assert_eq!(pair.members[1].driver.progress(), []);

    // All of it is there after a power loss.
    let disk = pair.members[1].disk.power_loss(PowerLoss::LoseAll);
    let again = pair.setups[1].start(&disk).unwrap();
    assert_eq!(again.applied.index, captured.index);
    assert_eq!(
        again.driver.log().mark(),
        Mark {
            index: captured.index,
            term: 2
        }
    );
    assert_eq!(again.driver.status().last_index, captured.index + 1);
}

#[test]
fn an_offer_of_which_raft_has_no_use_is_not_taken() {
    let mut pair = Pair::new(20);
    let [leader, learner] = &mut pair.members;
    leader.run();
    let now = leader.applied.snapshot();
    assert!(
        !learner.driver.offer_snapshot(1, snapshot(0, 0)),
        "no leader"
    );
    assert!(!leader.driver.offer_snapshot(1, now.clone()), "itself");
    assert!(!leader.driver.offer_snapshot(9, now.clone()), "a stranger");
    let without = Snapshot {
        conf_state: ConfState::new(vec![1], vec![]),
        ..now.clone()
    };
    assert!(
        !leader.driver.offer_snapshot(2, without),
        "before it was a member"
    );
    // Raft waits for the answer to its first probe.
    assert!(!leader.driver.offer_snapshot(2, now.clone()));
    pair.until_wanted();
    let leader = &mut pair.members[0];
    leader.propose(payload(20, 50));
    leader.run();
    leader.checkpoint();
    leader.compact(leader.applied.index);
    assert!(!leader.driver.offer_snapshot(2, now), "too old");
    assert!(leader.driver.offer_snapshot(2, leader.applied.snapshot()));
    assert_eq!(leader.run().snapshots.len(), 1);
}

#[test]
#[should_panic(expected = "of a log that is applied up to")]
fn what_is_not_applied_cannot_be_offered() {
    let mut pair = Pair::new(3);
    pair.until_wanted();
    let leader = &mut pair.members[0];
    let mut ahead = leader.applied.snapshot();
    ahead.index += 1;
    leader.driver.offer_snapshot(2, ahead);
}

#[test]
fn entries_after_a_snapshot_stay_until_it_has_ended() {
    let mut pair = Pair::new(10);
    assert_eq!(pair.members[0].driver.snapshot_floor(), None);
    pair.until_wanted();
    let leader = &mut pair.members[0];
    let offered = leader.applied.snapshot();
    assert!(leader.driver.offer_snapshot(2, offered.clone()));
    for number in 10..20 {
        leader.propose(payload(number, 50));
        leader.run();
    }
    leader.checkpoint();
    assert_eq!(leader.driver.snapshot_floor(), Some(offered.index));
    leader.compact(leader.applied.index);
    assert_eq!(leader.driver.log().mark().index, offered.index);
    leader.driver.report_snapshot(2, false);
    assert_eq!(leader.driver.snapshot_floor(), None);
    assert!(leader.driver.compact(leader.applied.index));
    leader.run();
    // The next one is wanted at the next heartbeat.
    assert_eq!(pair.round().snapshots_wanted, [2]);
    let leader = &mut pair.members[0];
    assert!(leader.driver.offer_snapshot(2, leader.applied.snapshot()));
    leader.run();
    assert!(leader.driver.snapshot_floor().is_some());
    // It ends with the follower, too.
    let removal = ConfChange::new(Change::Remove(2), Bytes::new());
    leader.driver.propose_conf_change(&removal).unwrap();
    leader.run();
    assert_eq!(leader.driver.snapshot_floor(), None);
}

#[test]
fn a_snapshot_ends_with_the_leadership() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    member.run();
    for peer in [2, 3] {
        let mut ack = from(peer, 1, MessageType::MsgAppendResponse);
        ack.index = 1;
        step(&mut member, &ack);
    }
    member.run();
    member.checkpoint();
    for number in 0..5 {
        member.propose(payload(number, 20));
    }
    member.run();
    let mut ack = from(2, 1, MessageType::MsgAppendResponse);
    ack.index = 6;
    step(&mut member, &ack);
    member.run();
    member.checkpoint();
    member.compact(6);
    // The third one has lost contact, and asks for what is gone.
    member.driver.report_unreachable(3);
    step(&mut member, &from(3, 1, MessageType::MsgHeartbeatResponse));
    assert_eq!(member.run().snapshots_wanted, [3]);
    assert!(member.driver.offer_snapshot(3, member.applied.snapshot()));
    assert_eq!(member.driver.snapshot_floor(), Some(6));
    step(&mut member, &from(2, 2, MessageType::MsgHeartbeat));
    assert_eq!(member.driver.snapshot_floor(), None);
    assert!(!member.driver.offer_snapshot(3, member.applied.snapshot()));
    member.driver.report_snapshot(3, false);
    member.run();
}

/// The order of things: restart of the log, its sync, the acknowledgement, the new state, the
/// entries after it.
#[test]
fn a_follower_restarts_its_log_then_acknowledges_then_swaps_then_goes_on() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 4, 2));
    member.run();
    assert_eq!(member.applied.index, 2);
    assert_eq!(receive(&mut member, 3, &snapshot(20, 2)), Ok(true));
    // The next entries come before anything was carried out.
    step(&mut member, &append(2, 3, (20, 2), 3, 22));

    let effects = member.driver.effects();
    let restart = effects.append.unwrap();
    assert!(restart.must_sync && effects.send.is_empty() && effects.committed.is_empty());
    assert!(effects.install.is_none());
    let kinds_of = |records: &[ferrite_disk::wal::Record]| -> Vec<u8> {
        records.iter().map(|record| record.kind).collect()
    };
    assert_eq!(kinds_of(&restart.records), [3, 5, 3]);
    assert!(!member.driver.has_effects(), "alone");
    let positions = member
        .wal
        .append(&restart.records, &mut || restart.head())
        .unwrap();
    member.wal.sync().unwrap();
    assert_eq!(member.driver.status().durable, 2);
    member.driver.persisted(restart.ticket, &positions);
    assert_eq!(member.driver.status().durable, 20);

    let outcome = turn(&mut member);
    assert_eq!(member.install, Some(snapshot(20, 2)));
    assert_eq!(kinds(&outcome.sent), [MessageType::MsgAppendResponse]);
    assert_eq!(message(&outcome.sent[0].1).index, 20);
    assert!(member.driver.status().installing);
    assert_eq!(member.unsynced.len(), 1, "the entries after it");
    member.sync();
    let outcome = turns(&mut member);
    assert_eq!(message(&outcome.sent[0].1).index, 23, "acknowledged");
    assert!(outcome.committed.is_empty(), "before it is installed");
    let status = member.driver.status();
    assert_eq!((status.commit, status.durable, status.applied), (22, 23, 2));

    assert_eq!(member.finish_install(), Some(20));
    let indices: Vec<u64> = turns(&mut member)
        .committed
        .iter()
        .map(|e| e.index)
        .collect();
    assert_eq!(indices, [21, 22]);
    let status = member.driver.status();
    assert!(!status.installing);
    assert_eq!(
        (status.applied, status.first_index, status.last_index),
        (22, 21, 23)
    );
    drop(member);
    let member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    assert_eq!(
        (member.applied.index, member.driver.status().last_index),
        (20, 23)
    );
}

/// A power loss at any time finds a log and a state that belong together.
#[test]
fn every_prefix_of_what_is_written_for_a_snapshot_is_a_log() {
    let setup = of_three();
    for written in 0..=3 {
        let disk = SimDisk::new(1);
        let mut member = setup.start(&disk).unwrap();
        step(&mut member, &append(2, 1, (0, 0), 4, 2));
        member.run();
        member.checkpoint();
        assert_eq!(receive(&mut member, 3, &snapshot(20, 2)), Ok(true));
        let append = member.driver.effects().append.unwrap();
        let prefix = &append.records[..written];
        if written > 0 {
            member.wal.append(prefix, &mut || append.head()).unwrap();
            member.wal.sync().unwrap();
        }
        drop(member);
        let member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
        let status = member.driver.status();
        let expected = match written {
            0 => (1, 2, 2, 4),
            1 => (3, 2, 2, 4),
            _ => (3, 20, 20, 20),
        };
        let found = (
            status.term,
            status.commit,
            status.applied,
            status.last_index,
        );
        assert_eq!(found, expected, "{written} records");
    }
}

/// The report of entries that the snapshot has dropped comes after it was accepted; the same
/// entries come again, and it must not count for them.
#[test]
fn appends_under_way_when_a_snapshot_comes_keep_their_order_and_count_for_nothing() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 4, 1));
    turns(&mut member);
    step(&mut member, &append(2, 1, (4, 1), 26, 1));
    turns(&mut member);
    assert_eq!(member.unsynced.len(), 2);
    // Entry 20 has another term in the log of the new leader.
    assert_eq!(receive(&mut member, 3, &snapshot(20, 2)), Ok(true));
    step(&mut member, &append(2, 3, (20, 2), 10, 20));
    assert!(turns(&mut member).sent.is_empty());
    let tickets: Vec<Ticket> = member.unsynced.iter().map(|(ticket, _)| *ticket).collect();
    assert!(tickets.len() == 3 && tickets.is_sorted());
    for _ in 0..2 {
        let (ticket, positions) = member.unsynced.pop_front().unwrap();
        member.driver.persisted(ticket, &positions);
        assert_eq!(member.driver.status().durable, 0);
        let outcome = turns(&mut member);
        assert!(outcome.committed.is_empty() && member.install.is_none());
    }
    member.sync();
    assert_eq!(member.driver.status().durable, 20);
    turns(&mut member);
    assert_eq!(member.finish_install(), Some(20));
    assert_eq!(member.driver.status().durable, 20, "30 is not synced");
    member.sync();
    assert_eq!(member.driver.status().durable, 30);
    member.run();
    assert_eq!(member.applied.index, 20);
}

#[test]
fn segments_before_a_snapshot_are_released() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    for index in 0..100 {
        step(&mut member, &append(2, 1, (index, index.min(1)), 1, index));
        member.run();
    }
    assert!(member.wal.segments().end > 4);
    assert_eq!(receive(&mut member, 1, &snapshot(500, 1)), Ok(true));
    assert_eq!(member.driver.releasable_before(), 0);
    member.run();
    let releasable = member.driver.releasable_before();
    assert_eq!(releasable + 1, member.wal.segments().end);
    member.wal.release_before(releasable).unwrap();
    // Later segments carry on from there.
    for index in 500..600 {
        step(&mut member, &append(2, 1, (index, 1), 1, index));
        member.run();
    }
    member.checkpoint();
    member.compact(550);
    assert!(member.wal.segments().start > releasable);
    drop(member);
    let member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    let status = member.driver.status();
    assert_eq!((status.first_index, status.last_index), (551, 600));
    // What a member that died before the release would release.
    assert!(member.driver.releasable_before() >= releasable);
}

#[test]
fn snapshots_that_bring_nothing_are_answered_and_not_installed() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 6, 4));
    member.run();
    // Older than the commit index.
    assert_eq!(receive(&mut member, 1, &snapshot(3, 1)), Ok(false));
    let sent = member.run().sent;
    assert_eq!(
        (kinds(&sent), message(&sent[0].1).index),
        (vec![MessageType::MsgAppendResponse], 4)
    );
    // The log has it: only the commit index moves.
    assert!(!member.driver.needs_snapshot(&snapshot(5, 1)));
    assert_eq!(receive(&mut member, 1, &snapshot(5, 1)), Ok(false));
    let status = member.driver.status();
    assert_eq!(
        (status.commit, status.last_index, status.installing),
        (5, 6, false)
    );
    // Of an old term.
    step(&mut member, &from(3, 4, MessageType::MsgHeartbeat));
    assert_eq!(receive(&mut member, 3, &snapshot(9, 1)), Ok(false));
    member.run();
    assert_eq!(member.applied.index, 5);
    assert!(member.install.is_none());
}

#[test]
fn snapshots_that_contradict_what_is_committed_are_refused() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 2, (0, 0), 4, 4));
    member.run();
    // raft-rs would replace the committed entry.
    for (index, term) in [(4, 1), (4, 3), (9, 1)] {
        let refused = receive(&mut member, 3, &snapshot(index, term));
        let expected = StepError::SnapshotConflict {
            from: 2,
            index,
            term,
            commit: 4,
            commit_term: 2,
        };
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn one_snapshot_is_installed_at_a_time() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    assert_eq!(receive(&mut member, 1, &snapshot(20, 1)), Ok(true));
    let under_way = Err(StepError::SnapshotUnderWay { index: 20 });
    assert_eq!(receive(&mut member, 1, &snapshot(30, 1)), under_way);
    turns(&mut member);
    member.sync();
    turns(&mut member);
    assert_eq!(receive(&mut member, 1, &snapshot(30, 1)), under_way);
    assert_eq!(member.finish_install(), Some(20));
    assert_eq!(receive(&mut member, 1, &snapshot(30, 1)), Ok(true));
    assert_eq!(member.run().installed, [30]);
}

#[test]
#[should_panic(expected = "no snapshot at index 21 was to be installed")]
fn only_what_was_to_be_installed_can_be_installed() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    assert_eq!(receive(&mut member, 1, &snapshot(20, 1)), Ok(true));
    turns(&mut member);
    member.sync();
    turns(&mut member);
    member.driver.installed(21);
}

/// raft-rs panics on a campaign of a member whose snapshot does not count as applied yet.
#[test]
fn a_member_does_not_campaign_while_it_installs_a_snapshot() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    assert_eq!(receive(&mut member, 1, &snapshot(20, 1)), Ok(true));
    let try_all = |member: &mut Member| {
        member.driver.campaign();
        (0..50).for_each(|_| member.driver.tick());
        step(member, &from(2, 1, MessageType::MsgTimeoutNow));
        assert_eq!(member.driver.status().role, Role::Follower);
    };
    try_all(&mut member);
    turns(&mut member);
    try_all(&mut member);
    member.sync();
    turns(&mut member);
    try_all(&mut member);
    // It has not heard of its leader for long, so it votes.
    let mut vote = from(3, 2, MessageType::MsgRequestVote);
    (vote.index, vote.log_term) = (20, 1);
    step(&mut member, &vote);
    member.sync();
    turns(&mut member);
    assert_eq!(member.driver.status().vote, 3);
    member.sync();
    member.finish_install();
    member.run();
    member.driver.campaign();
    assert_eq!(member.driver.status().role, Role::Candidate);
    member.run();
}

#[test]
fn a_leader_that_was_deposed_takes_a_snapshot() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    member.propose(payload(1, 20));
    turns(&mut member);
    member.propose(payload(2, 20));
    assert_eq!(receive(&mut member, 2, &snapshot(2, 2)), Ok(true));
    member.run();
    let status = member.driver.status();
    assert_eq!(
        (status.role, status.applied, status.last_index),
        (Role::Follower, 2, 2)
    );
}

/// Without any voter every vote is won, for raft-rs.
#[test]
fn a_member_that_joins_never_campaigns_and_takes_no_entries_before_its_first_snapshot() {
    let mut member = Setup::of(1, &[]).start(&SimDisk::new(1)).unwrap();
    member.driver.campaign();
    (0..50).for_each(|_| member.driver.tick());
    step(&mut member, &from(2, 1, MessageType::MsgTimeoutNow));
    assert_eq!(member.driver.status().role, Role::Follower);
    let refused = member.driver.step(&encode(&append(2, 1, (0, 0), 3, 3)));
    assert_eq!(refused, Err(StepError::NoConfiguration { from: 2 }));
    // It follows, and says that it has nothing.
    step(&mut member, &from(2, 1, MessageType::MsgHeartbeat));
    step(&mut member, &append(2, 1, (8, 1), 3, 3));
    let sent = member.run().sent;
    let expected = [
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgAppendResponse,
    ];
    assert_eq!(kinds(&sent), expected);
    assert!(message(&sent[1].1).reject);
    assert_eq!(member.driver.status().leader, 2);
    assert_eq!(receive(&mut member, 1, &snapshot(8, 1)), Ok(true));
    step(&mut member, &append(2, 1, (8, 1), 3, 10));
    member.run();
    assert_eq!(member.applied.index, 10);
    assert_eq!(member.driver.conf_state().voters, [1, 2, 3]);
    member.driver.campaign();
    assert_eq!(member.driver.status().role, Role::PreCandidate);
}

#[test]
fn the_restart_is_shown_to_whoever_looks_at_the_log() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    assert_eq!(receive(&mut member, 3, &snapshot(20, 2)), Ok(true));
    member.run();
    drop(member);
    let mut shown = Vec::new();
    let mut watch = |_, logged| shown.push(logged);
    recover_watched(Arc::new(disk), Path::new(DIR), &setup.options, &mut watch).unwrap();
    let state = |commit| {
        Logged::HardState(HardState {
            term: 3,
            vote: 0,
            commit,
        })
    };
    let expected = [
        state(0),
        Logged::Snapshot(Mark { index: 20, term: 2 }),
        state(20),
    ];
    assert_eq!(shown[3..], expected);
}

/// The entries before it are gone, so a log without it would be another one.
#[test]
fn a_damaged_restart_is_refused() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 4, 2));
    member.run();
    assert_eq!(receive(&mut member, 3, &snapshot(20, 2)), Ok(true));
    member.run();
    step(&mut member, &append(2, 3, (20, 2), 2, 20));
    member.run();
    drop(member);
    let mut found = None;
    let mut watch = |position: Position, logged| {
        if matches!(logged, Logged::Snapshot(_)) {
            found = Some(position);
        }
    };
    let shared: Arc<dyn Disk> = Arc::new(disk.fork());
    recover_watched(shared, Path::new(DIR), &setup.options, &mut watch).unwrap();
    let Position { segment, offset } = found.unwrap();
    let file = Path::new(DIR).join(format!("{segment:016x}.wal"));
    for byte in 0..48 {
        let damaged = disk.fork();
        damaged.flip_bit(&file, offset + byte, 3).unwrap();
        let error = setup.start(&damaged).unwrap_err().to_string();
        assert!(error.contains(&format!("{offset}")), "{error}");
    }
}
