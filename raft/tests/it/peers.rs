//! What may leave a member before its own disk has it, and what may not.

use bytes::Bytes;
use ferrite_disk::sim::{Fault, OpKind, PowerLoss, SimDisk};
use ferrite_disk::wal;
use ferrite_raft::{Change, ConfChange, DropReason, ProposeError, Role};
use raft::eraftpb::{Entry, Message, MessageType};

use crate::support::{Member, Outcome, Setup, encode, message, payload};

pub(crate) fn from(peer: u64, term: u64, kind: MessageType) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (peer, 1, term);
    message
}

/// Entries of `term` after `index`, as the leader `peer` of that term sends them.
pub(crate) fn append(peer: u64, term: u64, after: (u64, u64), count: u64, commit: u64) -> Message {
    let mut append = from(peer, term, MessageType::MsgAppend);
    (append.index, append.log_term) = after;
    append.commit = commit;
    let entry = |index| {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (index, term);
        entry.data = payload(index, 20);
        entry
    };
    let entries: Vec<Entry> = (after.0 + 1..=after.0 + count).map(entry).collect();
    append.set_entries(entries.into());
    append
}

pub(crate) fn step(member: &mut Member, message: &Message) {
    member.driver.step(&encode(message)).unwrap();
}

pub(crate) fn kinds(sent: &[(u64, Bytes)]) -> Vec<MessageType> {
    sent.iter()
        .map(|(_, bytes)| message(bytes).get_msg_type())
        .collect()
}

pub(crate) fn of_three() -> Setup {
    let mut setup = Setup::of(1, &[1, 2, 3]);
    setup.config = |config| config.pre_vote = false;
    setup
}

pub(crate) fn leader(setup: &Setup, disk: &SimDisk) -> Member {
    let mut member = setup.start(disk).unwrap();
    member.driver.campaign();
    member.run();
    let term = member.driver.status().term;
    step(
        &mut member,
        &from(2, term, MessageType::MsgRequestVoteResponse),
    );
    assert_eq!(member.driver.status().role, Role::Leader);
    member
}

/// Takes effects until there are none, writing and not syncing.
pub(crate) fn turns(member: &mut Member) -> Outcome {
    let mut outcome = Outcome::default();
    while member.driver.has_effects() {
        member.turn(&mut outcome);
    }
    outcome
}

#[test]
fn a_leader_sends_entries_before_it_has_synced_them_and_counts_itself_after() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    let sent = turns(&mut member).sent;
    assert_eq!(kinds(&sent), [MessageType::MsgAppend; 2]);
    assert_eq!(member.unsynced.len(), 1);
    // One of two followers: no quorum without the leader's own disk.
    let mut ack = from(2, 1, MessageType::MsgAppendResponse);
    ack.index = 1;
    step(&mut member, &ack);
    assert_eq!(member.driver.status().commit, 0);
    member.sync();
    assert_eq!(member.driver.status().commit, 1);
    assert_eq!(turns(&mut member).committed.len(), 1);
}

/// A follower that acknowledges an entry must know for ever what was committed when the entry was
/// sent: that is what keeps a configuration that two changes have left from electing a leader.
#[test]
fn the_commit_index_that_comes_with_an_entry_is_durable_with_it() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 2, 0));
    member.run();
    step(&mut member, &append(2, 1, (2, 1), 1, 2));
    turns(&mut member);
    member.sync();
    let sent = turns(&mut member).sent;
    assert_eq!(message(&sent[0].1).index, 3, "acknowledged");
    drop(member);
    let member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    let status = member.driver.status();
    assert_eq!((status.commit, status.last_index), (2, 3));
}

/// Two followers are a quorum: the leader commits what its own disk does not have, and must not
/// apply it yet.
#[test]
fn a_leader_applies_nothing_that_is_not_durable_here_even_if_committed() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    turns(&mut member);
    for peer in [2, 3] {
        let mut ack = from(peer, 1, MessageType::MsgAppendResponse);
        ack.index = 1;
        step(&mut member, &ack);
    }
    assert_eq!(member.driver.status().commit, 1);
    assert!(turns(&mut member).committed.is_empty());
    assert_eq!(member.driver.status().durable, 0);
    member.sync();
    assert_eq!(turns(&mut member).committed.len(), 1);
}

#[test]
fn a_follower_acknowledges_after_its_sync_and_everything_later_waits_with_it() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 2, 0));
    assert!(turns(&mut member).sent.is_empty());
    step(&mut member, &from(2, 1, MessageType::MsgHeartbeat));
    assert!(turns(&mut member).sent.is_empty());
    step(&mut member, &append(2, 1, (2, 1), 1, 2));
    let outcome = turns(&mut member);
    assert!(outcome.sent.is_empty() && outcome.committed.is_empty());
    assert_eq!(member.unsynced.len(), 2);
    member.sync();
    let outcome = turns(&mut member);
    let expected = [
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgAppendResponse,
    ];
    assert_eq!(kinds(&outcome.sent), expected);
    assert_eq!(outcome.committed.len(), 2);
    assert_eq!(message(&outcome.sent[2].1).index, 3);
}

#[test]
fn a_vote_leaves_after_it_is_durable() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &from(2, 7, MessageType::MsgRequestVote));
    assert!(turns(&mut member).sent.is_empty());
    member.sync();
    let sent = turns(&mut member).sent;
    assert_eq!(kinds(&sent), [MessageType::MsgRequestVoteResponse]);
    assert!(!message(&sent[0].1).reject);
    drop(member);
    let mut member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    assert_eq!(
        (member.driver.status().term, member.driver.status().vote),
        (7, 2)
    );
    step(&mut member, &from(3, 7, MessageType::MsgRequestVote));
    let sent = member.run().sent;
    assert!(message(&sent[0].1).reject, "a second vote in one term");
}

#[test]
fn a_candidate_asks_after_its_own_vote_is_durable() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    member.driver.campaign();
    assert!(turns(&mut member).sent.is_empty());
    member.sync();
    assert_eq!(
        kinds(&turns(&mut member).sent),
        [MessageType::MsgRequestVote; 2]
    );
}

/// raft-rs lets a leader send at once. A sole voter becomes leader without asking anybody, so its
/// term is not durable yet: after a power loss it would lead the same term again, and the learner
/// would have entries of that term that nobody else ever had.
#[test]
fn a_sole_voter_sends_nothing_to_learners_before_its_term_is_durable() {
    let mut setup = Setup::sole();
    setup.learners = vec![2];
    let mut member = setup.start(&SimDisk::new(1)).unwrap();
    member.driver.campaign();
    member.propose(payload(1, 20));
    assert_eq!(member.driver.status().role, Role::Leader);
    assert!(turns(&mut member).sent.is_empty());
    member.driver.tick();
    assert!(turns(&mut member).sent.is_empty());
    member.sync();
    let sent = turns(&mut member).sent;
    assert!(kinds(&sent).contains(&MessageType::MsgAppend));
    // From then on they do not wait.
    let mut ack = from(2, 1, MessageType::MsgAppendResponse);
    ack.index = 2;
    step(&mut member, &ack);
    turns(&mut member);
    member.propose(payload(2, 20));
    assert_eq!(kinds(&turns(&mut member).sent), [MessageType::MsgAppend]);
    assert_eq!(member.unsynced.len(), 1);
}

/// Whatever a member promised as a follower waits for the disk, even if it leads by the time the
/// message could be sent.
#[test]
fn a_vote_given_in_the_turn_in_which_the_member_becomes_leader_waits() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &from(9, 5, MessageType::MsgRequestVote));
    member.driver.campaign();
    assert_eq!(member.driver.status().role, Role::Leader);
    assert_eq!(member.driver.status().term, 6);
    assert!(turns(&mut member).sent.is_empty());
    member.sync();
    assert_eq!(
        kinds(&turns(&mut member).sent),
        [MessageType::MsgRequestVoteResponse]
    );
}

/// raft-rs panics if it wins an election with entries that are not persisted.
#[test]
fn votes_do_not_count_while_entries_are_on_their_way() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 2, 0));
    turns(&mut member);
    member.driver.campaign();
    assert_eq!(member.driver.status().role, Role::Follower);
    step(&mut member, &from(2, 1, MessageType::MsgTimeoutNow));
    assert_eq!(member.driver.status().role, Role::Follower);
    for _ in 0..20 {
        member.driver.tick();
    }
    let status = member.driver.status();
    assert_eq!((status.role, status.term), (Role::Candidate, 2));
    // Nobody has been asked yet, so nobody answers, except somebody who wants to do harm.
    step(
        &mut member,
        &from(2, 2, MessageType::MsgRequestVoteResponse),
    );
    step(
        &mut member,
        &from(3, 2, MessageType::MsgRequestVoteResponse),
    );
    assert_eq!(member.driver.status().role, Role::Candidate);
    turns(&mut member);
    member.sync();
    assert_eq!(kinds(&turns(&mut member).sent).len(), 3);
    step(
        &mut member,
        &from(3, 2, MessageType::MsgRequestVoteResponse),
    );
    assert_eq!(member.driver.status().role, Role::Leader);
}

/// A later leader replaces entries that are still on their way: their report must not make the new
/// ones durable.
#[test]
fn the_report_of_replaced_entries_does_not_count_for_their_successors() {
    let disk = SimDisk::new(1);
    let setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 4, 0));
    turns(&mut member);
    step(&mut member, &append(3, 2, (2, 1), 2, 4));
    turns(&mut member);
    assert_eq!(member.unsynced.len(), 2);
    let (ticket, positions) = member.unsynced.pop_front().unwrap();
    member.driver.persisted(ticket, &positions);
    assert_eq!(member.driver.status().durable, 2);
    let terms = |outcome: &Outcome| outcome.committed.iter().map(|e| e.term).collect::<Vec<_>>();
    let mut committed = terms(&turns(&mut member));
    member.sync();
    assert_eq!(member.driver.status().durable, 4);
    committed.extend(terms(&turns(&mut member)));
    assert_eq!(committed, [1, 1, 2, 2]);
    drop(member);
    let member = setup.start(&disk.power_loss(PowerLoss::LoseAll)).unwrap();
    assert_eq!(member.driver.status().last_index, 4);
}

#[test]
fn durable_entries_that_are_replaced_are_durable_no_more() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &append(2, 1, (0, 0), 4, 0));
    member.run();
    assert_eq!(member.driver.status().durable, 4);
    step(&mut member, &append(3, 2, (2, 1), 1, 0));
    turns(&mut member);
    assert_eq!(member.driver.status().durable, 2);
    member.sync();
    assert_eq!(member.driver.status().durable, 3);
}

#[test]
fn a_follower_neither_forwards_proposals_nor_takes_forwarded_ones() {
    let mut member = of_three().start(&SimDisk::new(1)).unwrap();
    step(&mut member, &from(3, 4, MessageType::MsgHeartbeat));
    member.run();
    let refused = member.driver.propose(payload(1, 20));
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: 3 }));
    assert!(member.run().sent.is_empty());
    for kind in [
        MessageType::MsgPropose,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgTransferLeader,
    ] {
        assert!(member.driver.step(&encode(&from(2, 4, kind))).is_err());
    }
    assert!(member.run().sent.is_empty());
}

#[test]
fn leadership_is_handed_over_and_proposals_are_refused_meanwhile() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    member.run();
    let mut ack = from(3, 1, MessageType::MsgAppendResponse);
    ack.index = 1;
    step(&mut member, &ack);
    member.run();
    assert_eq!(member.driver.transfer_target(|_| true), Some(3));
    assert!(!member.driver.transfer_leader(1));
    assert!(!member.driver.transfer_leader(9));
    assert!(member.driver.transfer_leader(3));
    assert_eq!(kinds(&member.run().sent), [MessageType::MsgTimeoutNow]);
    let refused = member.driver.propose(payload(1, 20));
    assert_eq!(
        refused,
        Err(ProposeError::Dropped(DropReason::LeaderTransfer))
    );
    let removal = ConfChange::new(Change::Remove(2), Bytes::new());
    let refused = member.driver.propose_conf_change(&removal);
    assert_eq!(
        refused,
        Err(ProposeError::Dropped(DropReason::LeaderTransfer))
    );
}

/// Whoever is removed may be gone as soon as it knows: the leader must not need its vote to find out, after
/// a power loss, that the removal is committed.
#[test]
fn a_removal_is_noted_before_the_removed_member_hears_that_it_is_committed() {
    let mut setup = Setup::of(1, &[1, 2]);
    setup.config = |config| config.pre_vote = false;
    let mut member = leader(&setup, &SimDisk::new(1));
    member.run();
    let acknowledged = |index| {
        let mut ack = from(2, 1, MessageType::MsgAppendResponse);
        ack.index = index;
        ack
    };
    step(&mut member, &acknowledged(1));
    member.run();
    let removal = ConfChange::new(Change::Remove(2), Bytes::new());
    member.driver.propose_conf_change(&removal).unwrap();
    member.run();
    let index = member.driver.status().last_index;
    step(&mut member, &acknowledged(index));
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    let told = |outcome: &Outcome| {
        let mut sent = outcome.sent.iter().map(|(_, bytes)| message(bytes));
        sent.any(|sent| sent.commit >= index)
    };
    assert_eq!(member.driver.status().commit, index);
    assert!(!told(&outcome), "before the sync: {outcome:?}");
    member.sync();
    assert!(told(&member.run()), "after it");
    let mut member = setup
        .start(&member.disk.power_loss(PowerLoss::LoseAll))
        .unwrap();
    member.run();
    member.lead();
}

/// Members without a peer to send to do not pile messages up, and proposals of one turn are one
/// message.
#[test]
fn proposals_of_one_turn_are_one_message_per_follower() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    member.run();
    for peer in [2, 3] {
        let mut ack = from(peer, 1, MessageType::MsgAppendResponse);
        ack.index = 1;
        step(&mut member, &ack);
    }
    member.run();
    for number in 0..100 {
        member.propose(payload(number, 20));
    }
    let sent = turns(&mut member).sent;
    assert_eq!(sent.len(), 2);
    assert_eq!(message(&sent[0].1).entries.len(), 100);
}

/// A leader with a log of `count` entries that are not in memory, and a learner that has none of
/// them. Also the index that the learner was asked about.
fn far_behind(count: u64, len: usize) -> (Member, SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut setup = Setup::sole().cache(0);
    setup.options.wal = wal::Options {
        segment_bytes: 1 << 20,
        spare_segments: 1,
    };
    let mut member = setup.start(&disk).unwrap();
    member.lead();
    for number in 0..count {
        member.propose(payload(number, len));
        member.run();
    }
    let learner = ConfChange::new(Change::AddLearner(2), Bytes::new());
    member.driver.propose_conf_change(&learner).unwrap();
    let sent = member.run().sent;
    assert_eq!(member.driver.conf_state().learners, [2]);
    let probe = message(&sent.last().unwrap().1);
    assert_eq!(
        (probe.get_msg_type(), probe.to),
        (MessageType::MsgAppend, 2)
    );
    (member, disk, probe.index)
}

/// The learner says that it has nothing.
fn reject(member: &mut Member, index: u64) {
    let mut reject = from(2, 1, MessageType::MsgAppendResponse);
    (reject.index, reject.reject) = (index, true);
    step(member, &reject);
}

#[test]
fn a_follower_far_behind_gets_entries_from_the_wal_a_bounded_part_each_turn() {
    let (mut member, _disk, probe) = far_behind(120, 100_000);
    reject(&mut member, probe);
    let mut got = Vec::new();
    let (mut largest, mut turns) = (0, 0);
    while member.driver.has_effects() {
        turns += 1;
        let mut outcome = Outcome::default();
        member.turn(&mut outcome);
        member.sync();
        let mut bytes = 0;
        for (_, sent) in &outcome.sent {
            let sent = message(sent);
            if sent.get_msg_type() == MessageType::MsgAppend && !sent.entries.is_empty() {
                got.extend(sent.entries.iter().map(|entry| entry.index));
                bytes += sent
                    .entries
                    .iter()
                    .map(|entry| entry.data.len())
                    .sum::<usize>();
                let mut ack = from(2, 1, MessageType::MsgAppendResponse);
                ack.index = *got.last().unwrap();
                step(&mut member, &ack);
            }
        }
        largest = largest.max(bytes);
    }
    assert_eq!(got, (1..=122).collect::<Vec<_>>());
    // What was read before the effects were taken, and what was read while they were.
    assert!(
        largest <= 2 * ((4 << 20) + 100_000),
        "{largest} bytes in one turn"
    );
    assert!(turns >= 2, "{turns} turns");
}

/// A leader that cannot read its own log back says that the entries are gone: the follower needs a
/// snapshot, which is not there.
#[test]
fn entries_that_cannot_be_read_back_for_a_follower_ask_for_a_snapshot() {
    let (mut member, disk, probe) = far_behind(20, 100);
    disk.fail_when(|_, kind| kind == OpKind::Read, Fault::Io);
    reject(&mut member, probe);
    let outcome = member.run();
    assert_eq!(outcome.snapshots_wanted, [2]);
    assert!(outcome.failure.is_none());
    // The leader goes on.
    member.propose(payload(20, 100));
    assert_eq!(member.run().committed.len(), 1);
    // And the follower gets them when they can be read again.
    disk.clear_faults();
    step(&mut member, &from(2, 1, MessageType::MsgHeartbeatResponse));
    let sent = member.run().sent;
    assert!(
        sent.iter()
            .any(|(_, bytes)| !message(bytes).entries.is_empty())
    );
}

#[test]
fn a_follower_behind_a_compaction_asks_for_a_snapshot() {
    let (mut member, _disk, probe) = far_behind(20, 100);
    member.checkpoint();
    member.compact(10);
    reject(&mut member, probe);
    let outcome = member.run();
    assert_eq!(outcome.snapshots_wanted, [2]);
    assert!(
        outcome
            .sent
            .iter()
            .all(|(_, bytes)| message(bytes).get_msg_type() != MessageType::MsgSnapshot)
    );
}

#[test]
fn a_peer_that_cannot_be_reached_is_probed() {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    member.run();
    for peer in [2, 3] {
        let mut ack = from(peer, 1, MessageType::MsgAppendResponse);
        ack.index = 1;
        step(&mut member, &ack);
    }
    member.run();
    member.driver.report_unreachable(2);
    for number in 0..3 {
        member.propose(payload(number, 20));
        member.run();
    }
    member.propose(payload(3, 20));
    let sent = member.run().sent;
    // Number 3 gets every entry at once, number 2 one probe until it answers.
    assert!(sent.iter().all(|(to, _)| *to == 3), "{:?}", kinds(&sent));
}
