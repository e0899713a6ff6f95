//! Read indexes.

use std::collections::BTreeSet;

use ferrite_disk::sim::SimDisk;
use ferrite_raft::{Change, ConfChange, ReadError};
use raft::eraftpb::{Message, MessageType};

use crate::support::{Member, Setup, encode, message, payload};

/// The contexts that left in heartbeats.
fn contexts(sent: &[(u64, bytes::Bytes)]) -> Vec<Vec<u8>> {
    let heartbeats = sent.iter().map(|(_, bytes)| message(bytes));
    let contexts = heartbeats
        .filter(|m| m.get_msg_type() == MessageType::MsgHeartbeat && !m.context.is_empty())
        .map(|m| m.context.to_vec());
    contexts.collect()
}

fn from(peer: u64, term: u64, kind: MessageType) -> Message {
    let mut answer = Message::default();
    answer.set_msg_type(kind);
    (answer.from, answer.to, answer.term) = (peer, 1, term);
    answer
}

/// The leader of three, with an entry of its term committed if the followers are to acknowledge it.
fn leader_of_three(acknowledged: bool) -> Member {
    let mut setup = Setup::of(1, &[1, 2, 3]);
    setup.config = |config| config.pre_vote = false;
    let mut member = setup.start(&SimDisk::new(1)).unwrap();
    member.driver.campaign();
    member.run();
    member
        .driver
        .step(&encode(&from(2, 1, MessageType::MsgRequestVoteResponse)))
        .unwrap();
    member.run();
    if acknowledged {
        acknowledge(&mut member, 1);
    }
    member
}

fn acknowledge(member: &mut Member, index: u64) {
    let mut acknowledgement = from(2, 1, MessageType::MsgAppendResponse);
    acknowledgement.index = index;
    member.driver.step(&encode(&acknowledgement)).unwrap();
}

fn answer(member: &mut Member, peer: u64, context: &[u8]) {
    let mut beat = from(peer, 1, MessageType::MsgHeartbeatResponse);
    beat.context = context.to_vec().into();
    member.driver.step(&encode(&beat)).unwrap();
}

#[test]
fn a_sole_voter_answers_at_once_with_its_commit_index() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let first = member.driver.read_index();
    assert_eq!(member.run().reads, [(first, Ok(1))]);
    member.propose(payload(1, 10));
    let second = member.driver.read_index();
    assert!(second != first);
    // Proposed, not committed: nobody has been told about it.
    assert_eq!(member.run().reads, [(second, Ok(1))]);
    let third = member.driver.read_index();
    assert_eq!(member.run().reads, [(third, Ok(2))]);
}

#[test]
fn a_sole_voter_may_read_locally_only_with_an_applied_entry_of_its_own_term() {
    let disk = SimDisk::new(1);
    let setup = Setup::sole();
    let mut member = setup.start(&disk).unwrap();
    assert!(!member.driver.sole_voter());
    member.driver.campaign();
    assert!(
        !member.driver.sole_voter(),
        "the term's entry is not durable"
    );
    let append = member.driver.effects().append.unwrap();
    let positions = member
        .wal
        .append(&append.records, &mut || append.head())
        .unwrap();
    member.wal.sync().unwrap();
    member.driver.persisted(append.ticket, &positions);
    let committed = member.driver.effects().committed;
    assert_eq!(committed.len(), 1);
    assert!(
        !member.driver.sole_voter(),
        "the term's entry is not applied"
    );
    member.driver.applied(1);
    assert!(member.driver.sole_voter());

    member.applied.index = 1;
    member
        .driver
        .propose_conf_change(&ConfChange::new(Change::AddLearner(2), "".into()))
        .unwrap();
    member.run();
    assert!(member.driver.sole_voter(), "learners have no say");
    member
        .driver
        .propose_conf_change(&ConfChange::new(Change::AddVoter(2), "".into()))
        .unwrap();
    assert!(
        member.driver.sole_voter(),
        "a change counts when it is applied"
    );
    member.run();
    assert!(!member.driver.sole_voter());
    assert!(!member.driver.status().sole_voter);
}

#[test]
fn a_member_that_does_not_lead_refuses() {
    let mut member = Setup::of(1, &[1, 2, 3]).start(&SimDisk::new(1)).unwrap();
    let token = member.driver.read_index();
    assert_eq!(
        member.run().reads,
        [(token, Err(ReadError::NotLeader { leader: 0 }))]
    );
    member
        .driver
        .step(&encode(&from(3, 4, MessageType::MsgHeartbeat)))
        .unwrap();
    let token = member.driver.read_index();
    let outcome = member.run();
    assert_eq!(
        outcome.reads,
        [(token, Err(ReadError::NotLeader { leader: 3 }))]
    );
    let asked = outcome
        .sent
        .iter()
        .any(|(_, m)| message(m).get_msg_type() == MessageType::MsgReadIndex);
    assert!(!asked, "raft-rs must not forward reads");
}

/// raft-rs drops a read silently before the leader has committed in its term.
#[test]
fn a_read_that_comes_before_the_first_commit_of_the_term_is_asked_then() {
    let mut member = leader_of_three(false);
    let token = member.driver.read_index();
    let outcome = member.run();
    assert!(contexts(&outcome.sent).is_empty());
    for _ in 0..6 {
        member.driver.tick();
    }
    assert!(contexts(&member.run().sent).is_empty());
    acknowledge(&mut member, 1);
    let asked = contexts(&member.run().sent);
    assert_eq!(asked.len(), 2, "one heartbeat to each follower");
    answer(&mut member, 3, &asked[0]);
    assert_eq!(member.run().reads, [(token, Ok(1))]);
}

/// etcd #20418: a context that is used again lets a late acknowledgement confirm a stale read.
#[test]
fn a_read_is_asked_again_with_a_new_context_and_none_is_ever_used_twice() {
    let mut member = leader_of_three(true);
    member.run();
    let mut seen = BTreeSet::new();
    let token = member.driver.read_index();
    let first = contexts(&member.run().sent)[0].clone();
    assert!(seen.insert(first.clone()));
    for round in 0..3 {
        for _ in 0..5 {
            // Contact keeps the leader in office.
            member
                .driver
                .step(&encode(&from(2, 1, MessageType::MsgHeartbeatResponse)))
                .unwrap();
            member.driver.tick();
        }
        let sent = contexts(&member.run().sent);
        let last = sent.last().unwrap();
        assert!(
            seen.insert(last.clone()),
            "round {round} used a context again"
        );
        assert!(sent.iter().all(|context| seen.contains(context)));
    }
    assert_eq!(member.driver.status().reads_asked_again, 3);
    // Any of the rounds answers; once.
    answer(&mut member, 2, &first);
    assert_eq!(member.run().reads, [(token, Ok(1))]);
    for context in &seen {
        answer(&mut member, 3, context);
    }
    assert!(member.run().reads.is_empty());
    // A late answer to an old round says nothing about a new read.
    let token = member.driver.read_index();
    let new = contexts(&member.run().sent)[0].clone();
    for context in &seen {
        answer(&mut member, 2, context);
    }
    assert!(member.run().reads.is_empty());
    answer(&mut member, 2, &new);
    assert_eq!(member.run().reads, [(token, Ok(1))]);
}

#[test]
fn one_answer_serves_the_reads_before_it_and_not_the_ones_after() {
    let mut member = leader_of_three(true);
    let first = member.driver.read_index();
    let second = member.driver.read_index();
    let asked = contexts(&member.run().sent);
    let third = member.driver.read_index();
    answer(&mut member, 2, &asked[2]);
    assert_eq!(member.run().reads, [(first, Ok(1)), (second, Ok(1))]);
    assert_eq!(member.driver.status().reads_waiting, 1);
    let mut deposed = from(3, 9, MessageType::MsgHeartbeat);
    deposed.commit = 1;
    member.driver.step(&encode(&deposed)).unwrap();
    assert_eq!(member.run().reads, [(third, Err(ReadError::LeaderChanged))]);
}

#[test]
fn a_leader_that_loses_its_quorum_fails_its_reads() {
    let mut member = leader_of_three(true);
    member.run();
    let token = member.driver.read_index();
    for _ in 0..20 {
        member.driver.tick();
    }
    assert_eq!(member.run().reads, [(token, Err(ReadError::LeaderChanged))]);
    assert!(!member.driver.sole_voter());
}
