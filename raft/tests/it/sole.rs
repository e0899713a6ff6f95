//! One voter, from proposal to apply.

use bytes::Bytes;
use ferrite_disk::sim::SimDisk;
use ferrite_raft::{
    Change, ConfChange, DropReason, EntryKind, MAX_ENTRY_BYTES, ProposeError, Role, StepError,
};

use crate::support::{Outcome, Setup, payload};

/// The owner may be a thread of its own.
#[test]
fn a_driver_can_be_sent() {
    fn sent<T: Send>(_: T) {}
    sent(Setup::sole().start(&SimDisk::new(1)).unwrap().driver);
}

#[test]
fn proposals_are_committed_in_order_after_the_empty_entry_of_the_term() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    let outcome = member.lead();
    assert_eq!(outcome.committed.len(), 1);
    assert_eq!(
        (outcome.committed[0].index, outcome.committed[0].term),
        (1, 1)
    );
    assert!(outcome.committed[0].data.is_empty());
    assert_eq!(outcome.leaderships.last().unwrap().leader, 1);

    for number in 0..10 {
        member.propose(payload(number, 20));
    }
    let outcome = member.run();
    let indices: Vec<u64> = outcome.committed.iter().map(|entry| entry.index).collect();
    assert_eq!(indices, (2..=11).collect::<Vec<_>>());
    assert_eq!(
        member.applied.payloads,
        (0..10).map(|n| payload(n, 20)).collect::<Vec<_>>()
    );
    let status = member.driver.status();
    assert_eq!(
        (status.commit, status.applied, status.last_index),
        (11, 11, 11)
    );
    assert!(!member.driver.has_effects());
}

/// Group commit: what was proposed before the effects are taken is one append.
#[test]
fn proposals_of_one_turn_share_an_append_and_its_sync() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    for number in 0..5 {
        member.propose(payload(number, 20));
    }
    let append = member.driver.effects().append.unwrap();
    assert!(append.must_sync);
    // Five entries, and the commit index of the entry before them.
    assert_eq!(append.records.len(), 6);
}

/// etcd #14370: a sole voter must not commit what is not durable here.
#[test]
fn nothing_is_handed_out_before_it_is_reported_as_durable() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    member.propose(payload(1, 20));
    let mut outcome = Outcome::default();
    while member.driver.has_effects() {
        member.turn(&mut outcome);
    }
    assert!(outcome.committed.is_empty());
    assert_eq!(member.driver.status().commit, 1);
    // More of the same while the disk is busy.
    member.propose(payload(2, 20));
    while member.driver.has_effects() {
        member.turn(&mut outcome);
    }
    assert!(outcome.committed.is_empty());
    assert_eq!(member.unsynced.len(), 2);
    assert_eq!(member.driver.status().appends_pending, 2);
    member.sync();
    while member.driver.has_effects() {
        member.turn(&mut outcome);
    }
    assert_eq!(outcome.committed.len(), 2);
}

/// With two appends under way, the first one's report commits the first one's entries only.
#[test]
fn appends_are_reported_one_by_one() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let mut outcome = Outcome::default();
    for number in 0..2 {
        member.propose(payload(number, 20));
        member.turn(&mut outcome);
    }
    let (ticket, positions) = member.unsynced.pop_front().unwrap();
    member.wal.sync().unwrap();
    member.driver.persisted(ticket, &positions);
    member.turn(&mut outcome);
    assert_eq!(
        outcome
            .committed
            .iter()
            .map(|e| e.index)
            .collect::<Vec<_>>(),
        [2]
    );
}

#[test]
#[should_panic(expected = "reported as durable, the oldest under way is")]
fn appends_cannot_be_reported_out_of_order() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let mut outcome = Outcome::default();
    for number in 0..2 {
        member.propose(payload(number, 20));
        member.turn(&mut outcome);
    }
    let (ticket, positions) = member.unsynced.pop_back().unwrap();
    member.driver.persisted(ticket, &positions);
}

/// A commit index alone is written with the next entries: no write and no sync of its own.
#[test]
fn a_commit_costs_no_append() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    member.propose(payload(1, 20));
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    member.sync();
    let effects = member.driver.effects();
    assert_eq!(effects.committed.len(), 1);
    assert!(effects.append.is_none());
}

#[test]
fn effects_are_bounded_in_bytes_but_give_at_least_one_entry() {
    let mut setup = Setup::sole();
    setup.config = |config| config.max_committed_size_per_ready = 1000;
    let mut member = setup.start(&SimDisk::new(1)).unwrap();
    member.lead();
    for number in 0..10 {
        member.propose(payload(number, 400));
    }
    member.propose(payload(10, 3000));
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    member.sync();
    let mut sizes = Vec::new();
    while member.driver.has_effects() {
        let before = outcome.committed.len();
        member.turn(&mut outcome);
        sizes.push(outcome.committed.len() - before);
    }
    assert_eq!(sizes, [2, 2, 2, 2, 2, 1]);
}

#[test]
fn a_proposal_without_a_leader_is_refused() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    assert_eq!(
        member.driver.propose(Bytes::from_static(b"x")),
        Err(ProposeError::NoLeader)
    );
    assert!(!member.driver.has_effects());
}

#[test]
fn a_leader_bounds_what_is_uncommitted_but_takes_one_entry_of_any_size() {
    let mut setup = Setup::sole();
    setup.config = |config| {
        config.max_size_per_msg = 100;
        config.max_uncommitted_size = 1000;
    };
    let mut member = setup.start(&SimDisk::new(1)).unwrap();
    member.lead();
    member.propose(payload(0, 3000));
    let refused = member.driver.propose(payload(1, 10));
    let full = |bytes| Err(ProposeError::Dropped(DropReason::Uncommitted { bytes }));
    assert_eq!(refused, full(3000));
    member.run();
    // Counted before raft has seen them, and after.
    member.propose(payload(2, 600));
    assert_eq!(member.driver.propose(payload(3, 600)), full(600));
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    assert_eq!(member.driver.propose(payload(3, 600)), full(600));
    assert_eq!(member.driver.status().uncommitted_bytes, 600);
    member.sync();
    member.turn(&mut outcome);
    member.propose(payload(3, 600));
    member.run();
    assert_eq!(member.applied.payloads.len(), 3);
    assert_eq!(member.driver.status().uncommitted_bytes, 0);
}

#[test]
fn a_proposal_that_no_record_can_hold_is_refused() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let bytes = MAX_ENTRY_BYTES + 1;
    let refused = member.driver.propose(Bytes::from(vec![0; bytes]));
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes }));
    member.propose(vec![0; MAX_ENTRY_BYTES]);
    assert_eq!(member.run().committed.len(), 1);
}

/// raft-rs would turn the second change into an empty entry, and its proposer would wait for ever.
#[test]
fn a_second_configuration_change_is_refused_until_the_first_is_applied() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.driver.campaign();
    let change = |id| ConfChange::new(Change::AddLearner(id), Bytes::from_static(b"who"));
    // As a new leader it does not know whether an old change is pending.
    let pending = Err(ProposeError::Dropped(DropReason::ConfChangePending));
    member.run();
    member.driver.propose_conf_change(&change(2)).unwrap();
    assert_eq!(member.driver.propose_conf_change(&change(3)), pending);
    let outcome = member.run();
    assert_eq!(outcome.committed.len(), 1);
    assert_eq!(outcome.committed[0].kind, EntryKind::ConfChange(change(2)));
    assert_eq!(member.driver.conf_state().learners, [2]);
    member.driver.propose_conf_change(&change(3)).unwrap();
    member.run();
    assert_eq!(member.driver.conf_state().learners, [2, 3]);
}

#[test]
fn a_configuration_change_that_contradicts_the_configuration_is_refused() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let last = ConfChange::new(Change::Remove(1), Bytes::new());
    let refused = member.driver.propose_conf_change(&last).unwrap_err();
    assert!(
        matches!(refused, ProposeError::InvalidChange(_)),
        "{refused}"
    );
    let leave = ConfChange::default();
    let refused = member.driver.propose_conf_change(&leave).unwrap_err();
    assert!(
        matches!(refused, ProposeError::InvalidChange(_)),
        "{refused}"
    );
    assert!(!member.driver.has_effects());
}

/// raft-rs panics on the next tick, message or notice of persistence after its own progress is
/// gone.
#[test]
fn a_leader_that_applied_its_own_removal_does_nothing_any_more() {
    let mut member = Setup::of(1, &[1]).start(&SimDisk::new(1)).unwrap();
    member.lead();
    member
        .driver
        .propose_conf_change(&ConfChange::new(Change::AddVoter(2), Bytes::new()))
        .unwrap();
    member.run();
    assert_eq!(member.driver.conf_state().voters, [1, 2]);
    // Straight to the driver: proposing it would be refused until leadership is handed over.
    let removal = ConfChange::new(Change::Remove(1), Bytes::new());
    assert_eq!(
        member.driver.propose_conf_change(&removal),
        Err(ProposeError::Dropped(DropReason::RemovesLeader))
    );
    assert_eq!(member.driver.transfer_target(|_| true), Some(2));
    member.propose(payload(1, 20));
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    let conf = member.driver.apply_conf_change(&removal).unwrap();
    assert_eq!(conf.voters, [2]);
    assert!(member.driver.status().removed);
    // The notice that was under way, ticks, and everything else.
    member.sync();
    for _ in 0..50 {
        member.driver.tick();
    }
    member.driver.campaign();
    member.driver.report_unreachable(2);
    assert!(!member.driver.transfer_leader(2));
    assert_eq!(member.driver.step(&Bytes::new()), Err(StepError::Stopped));
    assert_eq!(
        member.driver.propose(Bytes::new()),
        Err(ProposeError::Stopped)
    );
    assert!(!member.driver.compact(1));
    assert!(!member.driver.sole_voter() && !member.driver.serves_reads());
    let outcome = member.run();
    assert!(outcome.committed.is_empty());
    assert_eq!(outcome.leaderships.last().unwrap().role, Role::Follower);
    assert!(!member.driver.has_effects());
}

/// raft-rs asserts that a new leader's log is persisted; a sole voter leads the moment it
/// campaigns.
#[test]
fn a_sole_voter_does_not_campaign_while_entries_are_on_their_way() {
    use crate::support::encode;
    use raft::eraftpb::{Entry, Message, MessageType};

    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    // Somebody claims a later term and sends an entry: the sole voter follows, and the entry is not
    // synced yet.
    let mut entry = Entry::default();
    entry.index = 2;
    entry.term = 2;
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.from, append.to, append.term) = (9, 1, 2);
    (append.index, append.log_term) = (1, 1);
    append.set_entries(vec![entry].into());
    member.driver.step(&encode(&append)).unwrap();
    for _ in 0..100 {
        member.driver.tick();
        member.driver.campaign();
    }
    let mut outcome = Outcome::default();
    member.turn(&mut outcome);
    for _ in 0..100 {
        member.driver.tick();
        member.driver.campaign();
    }
    assert_eq!(member.driver.status().role, Role::Follower);
    member.sync();
    for _ in 0..20 {
        member.driver.tick();
    }
    member.run();
    let status = member.driver.status();
    assert_eq!(
        (status.role, status.term, status.applied),
        (Role::Leader, 3, 3)
    );
}

/// The same seed and the same inputs give the same effects, to the byte; raft-rs's own random draws
/// do not show.
#[test]
fn equal_seeds_give_equal_traces() {
    let run = |seed| {
        let mut setup = Setup::of(1, &[1, 2, 3]);
        setup.seed = seed;
        let mut member = setup.start(&SimDisk::new(1)).unwrap();
        for _ in 0..500 {
            member.driver.tick();
            member.run();
            member.trace.push(format!("{:?}", member.driver.status()));
        }
        member.trace
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
