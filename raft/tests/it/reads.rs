//! What reads go by.

use ferrite_disk::sim::SimDisk;
use ferrite_raft::{Change, ConfChange, Role};
use raft::eraftpb::{Message, MessageType};

use crate::support::{Member, Setup, encode};

fn from(peer: u64, term: u64, kind: MessageType) -> Message {
    let mut answer = Message::default();
    answer.set_msg_type(kind);
    (answer.from, answer.to, answer.term) = (peer, 1, term);
    answer
}

/// The leader of three; nobody has acknowledged an entry yet.
fn leader_of_three() -> Member {
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
    member
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
fn a_leader_serves_reads_once_an_entry_of_its_term_is_committed_and_while_it_leads() {
    let mut member = leader_of_three();
    assert_eq!(member.driver.status().role, Role::Leader);
    assert!(!member.driver.serves_reads());
    let mut acknowledgement = from(2, 1, MessageType::MsgAppendResponse);
    acknowledgement.index = 1;
    member.driver.step(&encode(&acknowledgement)).unwrap();
    assert!(member.driver.serves_reads());
    let mut deposed = from(3, 9, MessageType::MsgHeartbeat);
    deposed.commit = 1;
    member.driver.step(&encode(&deposed)).unwrap();
    assert!(!member.driver.serves_reads());
}

#[test]
fn a_leader_that_loses_its_quorum_serves_no_reads() {
    let mut member = leader_of_three();
    let mut acknowledgement = from(2, 1, MessageType::MsgAppendResponse);
    acknowledgement.index = 1;
    member.driver.step(&encode(&acknowledgement)).unwrap();
    member.run();
    assert!(member.driver.serves_reads());
    for _ in 0..20 {
        member.driver.tick();
    }
    assert!(!member.driver.serves_reads());
    assert!(!member.driver.sole_voter());
}
