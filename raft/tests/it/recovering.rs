//! Members that have lost entries which they had acknowledged.

use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::{ConfState, Mark, Role};
use raft::eraftpb::{Message, MessageType};

use crate::peers::{append, from, kinds, leader, of_three, step, turns};
use crate::support::{Member, Outcome, Setup, message, payload};

/// Three members and a network that loses nothing. Member 1 leads.
struct Trio {
    members: Vec<Member>,
    setups: Vec<Setup>,
}

impl Trio {
    fn new() -> Trio {
        let setup = |id| {
            let mut setup = Setup::of(id, &[1, 2, 3]);
            setup.start = Mark { index: 1, term: 1 };
            setup
        };
        let setups: Vec<Setup> = (1..=3).map(setup).collect();
        let start = |setup: &Setup| setup.start(&SimDisk::new(setup.seed)).unwrap();
        let members = setups.iter().map(start).collect();
        let mut trio = Trio { members, setups };
        trio.members[0].driver.campaign();
        trio.deliver();
        assert_eq!(trio.members[0].driver.status().role, Role::Leader);
        trio
    }

    /// A tick for everybody, and everything that follows from it. Gives what all of them did.
    fn round(&mut self) -> Outcome {
        self.members.iter_mut().for_each(|it| it.driver.tick());
        self.deliver()
    }

    fn deliver(&mut self) -> Outcome {
        let mut did = Outcome::default();
        loop {
            let mut quiet = true;
            for at in 0..self.members.len() {
                let outcome = self.members[at].run();
                did.recovered |= outcome.recovered;
                did.leaderships.extend(outcome.leaderships);
                did.snapshots_wanted.extend(outcome.snapshots_wanted);
                did.installed.extend(outcome.installed);
                for (to, bytes) in outcome.sent {
                    quiet = false;
                    self.members[to as usize - 1].driver.step(&bytes).unwrap();
                }
                for snapshot in outcome.snapshots {
                    let body = self.members[at].applied.clone();
                    assert_eq!(body.index, snapshot.snapshot.index);
                    let to = &mut self.members[snapshot.to as usize - 1];
                    assert_eq!(to.receive(&snapshot.message, &body), Ok(true));
                }
            }
            if quiet {
                return did;
            }
        }
    }

    fn propose(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.members[0].propose(payload(number, 60));
            self.deliver();
        }
    }

    /// Member 3 starts again on an earlier copy of its disk.
    fn lose(&mut self, earlier: &SimDisk) {
        let status = self.members[2].driver.status();
        let setup = &mut self.setups[2];
        setup.lose_entries(earlier, status.term, status.vote);
        (setup.recovering, setup.seed) = (true, setup.seed + 1);
        self.members[2] = setup.start(earlier).unwrap();
        assert!(self.members[2].driver.status().recovering);
    }

    fn copy(&self) -> SimDisk {
        self.members[2].disk.power_loss(PowerLoss::LoseAll)
    }

    /// Everything is well again, and nobody else has led.
    fn check(&self, did: &Outcome) {
        assert!(did.leaderships.is_empty(), "{did:?}");
        let [first, .., third] = &self.members[..] else {
            panic!("three members");
        };
        assert_eq!(first.applied, third.applied);
        assert!(!third.driver.status().recovering);
        let progress = first.driver.progress();
        assert_eq!(progress[2].matched, progress[0].matched);
    }
}

/// raft-rs takes the rejections for old ones, for ever: what a follower has acknowledged it must
/// have.
#[test]
fn a_member_that_lost_entries_gets_them_from_the_leader_that_counted_on_them() {
    let mut trio = Trio::new();
    trio.propose(0..10);
    let copy = trio.copy();
    trio.propose(10..40);
    trio.lose(&copy);
    let mut recovered = 0;
    let mut all = Outcome::default();
    for _ in 0..4 {
        let did = trio.round();
        recovered += usize::from(did.recovered);
        assert!(did.snapshots_wanted.is_empty());
        // Its own election timeout has begun anew; it hears of the leader it had.
        all.leaderships.extend(
            did.leaderships
                .iter()
                .filter(|it| it.role != Role::Follower),
        );
    }
    trio.check(&all);
    assert_eq!(recovered, 1);
    assert_eq!(trio.members[2].applied.payloads.len(), 40);
    // From then on it is like everybody else.
    trio.propose(40..45);
    trio.check(&Outcome::default());
}

#[test]
fn it_also_gets_them_while_others_write() {
    let mut trio = Trio::new();
    trio.propose(0..10);
    let copy = trio.copy();
    trio.propose(10..40);
    trio.lose(&copy);
    trio.propose(40..45);
    assert!(trio.members[2].driver.status().recovering);
    trio.round();
    trio.propose(45..50);
    assert_eq!(trio.members[2].applied.payloads.len(), 50);
    assert!(trio.round().recovered);
    trio.check(&Outcome::default());
}

#[test]
fn it_gets_a_snapshot_if_the_leader_has_dropped_them() {
    let mut trio = Trio::new();
    trio.propose(0..10);
    let copy = trio.copy();
    trio.propose(10..40);
    trio.members[0].checkpoint();
    let applied = trio.members[0].applied.index;
    trio.members[0].compact(applied);
    trio.lose(&copy);
    let wanted = |trio: &mut Trio| trio.round().snapshots_wanted;
    let wanted = (0..3).any(|_| wanted(&mut trio) == [3]);
    assert!(wanted);
    let snapshot = trio.members[0].applied.snapshot();
    assert!(trio.members[0].driver.offer_snapshot(3, snapshot));
    let did = trio.deliver();
    assert_eq!(did.installed, [applied]);
    assert!((0..3).any(|_| trio.round().recovered));
    trio.check(&Outcome::default());
}

/// Its log was replaced by an empty one, its state as well: it joins again, under its old name.
#[test]
fn a_member_that_lost_everything_but_its_term_joins_again() {
    let mut trio = Trio::new();
    trio.propose(0..10);
    trio.members[0].checkpoint();
    let applied = trio.members[0].applied.index;
    trio.members[0].compact(applied);
    let setup = Setup {
        seed: 9,
        ..Setup::of(3, &[])
    };
    let disk = SimDisk::new(9);
    drop(setup.start(&disk).unwrap());
    trio.setups[2] = setup;
    trio.lose(&disk);
    assert_eq!(trio.members[2].driver.conf_state(), &ConfState::default());
    assert!((0..3).any(|_| trio.round().snapshots_wanted == [3]));
    let snapshot = trio.members[0].applied.snapshot();
    assert!(trio.members[0].driver.offer_snapshot(3, snapshot));
    assert_eq!(trio.deliver().installed, [applied]);
    for _ in 0..3 {
        trio.round();
    }
    trio.check(&Outcome::default());
}

/// A member of term 2 with `entries` of term 1, that may have had more.
fn recovering(entries: u64) -> Member {
    let disk = SimDisk::new(1);
    let mut setup = of_three();
    let mut member = setup.start(&disk).unwrap();
    step(&mut member, &append(2, 1, (0, 0), entries, 1));
    step(&mut member, &from(2, 2, MessageType::MsgHeartbeat));
    member.run();
    drop(member);
    setup.recovering = true;
    let mut member = setup.start(&disk).unwrap();
    member.run();
    member
}

/// What it asks the leader of this term, by a heartbeat: to forget what it had.
fn loss(member: &mut Member, leader: u64, term: u64) -> Message {
    step(member, &from(leader, term, MessageType::MsgHeartbeat));
    let sent = member.run().sent;
    let expected = [
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgAppendResponse,
    ];
    assert_eq!(kinds(&sent), expected);
    let loss = message(&sent[1].1);
    assert!(loss.reject && loss.request_snapshot != 0 && loss.to == leader);
    loss
}

#[test]
fn a_recovering_member_neither_votes_nor_leads() {
    let mut member = recovering(3);
    member.driver.campaign();
    (0..60).for_each(|_| member.driver.tick());
    for kind in [
        MessageType::MsgRequestVote,
        MessageType::MsgRequestPreVote,
        MessageType::MsgTimeoutNow,
    ] {
        let mut message = from(2, 9, kind);
        (message.index, message.log_term) = (50, 8);
        step(&mut member, &message);
    }
    let outcome = member.run();
    assert!(outcome.sent.is_empty() && outcome.leaderships.is_empty());
    let status = member.driver.status();
    assert_eq!(
        (status.role, status.term, status.vote),
        (Role::Follower, 2, 0)
    );
    assert!(status.recovering);
}

#[test]
fn a_sole_voter_that_is_recovering_does_not_lead() {
    let disk = SimDisk::new(1);
    let mut setup = Setup::sole();
    let mut member = setup.start(&disk).unwrap();
    member.lead();
    drop(member);
    setup.recovering = true;
    let mut member = setup.start(&disk).unwrap();
    member.driver.campaign();
    (0..60).for_each(|_| member.driver.tick());
    member.run();
    let status = member.driver.status();
    assert!(!status.sole_voter && !member.driver.sole_voter());
    assert_eq!(status.role, Role::Follower);
}

/// A heartbeat commits what the leader takes for acknowledged. The entries there need not be those:
/// they may have been replaced, and the replacement lost.
#[test]
fn a_recovering_member_believes_no_commit_index_of_a_leader_that_counts_on_lost_entries() {
    let mut member = recovering(3);
    for commit in [2, 3, 9] {
        let mut beat = from(2, 2, MessageType::MsgHeartbeat);
        beat.commit = commit;
        step(&mut member, &beat);
        assert_eq!(member.driver.status().commit, 1);
    }
    member.run();
    // That of an append comes with a proof.
    let number = loss(&mut member, 2, 2).request_snapshot;
    step(&mut member, &append(2, 2, (2, 1), 1, 2));
    assert_eq!(member.driver.status().commit, 2);
    // From one that has forgotten, it is good, unless it cannot be.
    let mut beat = from(2, 2, MessageType::MsgHeartbeat);
    (beat.request_snapshot, beat.commit) = (number, 3);
    step(&mut member, &beat);
    assert_eq!(member.driver.status().commit, 3);
    beat.commit = 99;
    step(&mut member, &beat);
    assert_eq!(member.driver.status().commit, 3);
    member.run();
}

/// A heartbeat of a leader that has forgotten.
fn stamped(leader: u64, term: u64, number: u64, commit: u64) -> Message {
    let mut beat = from(leader, term, MessageType::MsgHeartbeat);
    (beat.request_snapshot, beat.index) = (number, commit);
    beat
}

/// The leader may have committed, by what was lost, more than an earlier message of it says.
#[test]
fn a_recovery_ends_with_a_commit_index_from_after_the_leader_forgot() {
    let mut member = recovering(3);
    let number = loss(&mut member, 2, 2).request_snapshot;
    step(&mut member, &append(2, 2, (3, 1), 1, 4));
    assert!(!member.run().recovered);
    assert_eq!(member.applied.index, 4);
    step(&mut member, &stamped(2, 2, number + 1, 4));
    assert!(!member.run().recovered, "the number of another start");
    step(&mut member, &stamped(2, 2, number, 8));
    step(&mut member, &append(2, 2, (4, 2), 3, 9));
    assert!(!member.run().recovered);
    assert_eq!(member.applied.index, 7);
    // Later ones do not move the goal.
    step(&mut member, &stamped(2, 2, number, 9));
    step(&mut member, &append(2, 2, (7, 2), 1, 9));
    assert!(member.run().recovered);
    assert!(!member.driver.status().recovering);
    step(&mut member, &append(2, 2, (8, 2), 1, 9));
    assert!(!member.run().recovered, "once");
    // It votes again, and asks no more.
    (0..30).for_each(|_| member.driver.tick());
    member.run();
    let mut vote = from(3, 7, MessageType::MsgRequestVote);
    (vote.index, vote.log_term) = (10, 2);
    step(&mut member, &vote);
    let sent = member.run().sent;
    assert_eq!(kinds(&sent), [MessageType::MsgRequestVoteResponse]);
    assert!(!message(&sent[0].1).reject);
    step(&mut member, &from(3, 7, MessageType::MsgHeartbeat));
    assert_eq!(
        kinds(&member.run().sent),
        [MessageType::MsgHeartbeatResponse]
    );
}

/// A new leader does not know yet what was committed before its term.
#[test]
fn a_recovery_ends_with_an_entry_of_the_leaders_own_term() {
    let mut member = recovering(3);
    let number = loss(&mut member, 2, 2).request_snapshot;
    step(&mut member, &stamped(2, 2, number, 3));
    step(&mut member, &append(2, 2, (3, 1), 0, 3));
    assert!(!member.run().recovered);
    assert_eq!(member.applied.index, 3);
    // Another leader has not been told.
    step(&mut member, &append(3, 4, (3, 1), 1, 4));
    assert!(!member.run().recovered);
    assert_eq!(member.applied.index, 4);
    let again = loss(&mut member, 3, 4);
    assert_eq!(again.request_snapshot, number);
    step(&mut member, &stamped(3, 4, number, 4));
    assert!(member.run().recovered);
}

#[test]
fn each_start_has_a_number_of_its_own() {
    let disk = SimDisk::new(1);
    let mut numbers = std::collections::BTreeSet::new();
    for seed in 1..=50 {
        let mut setup = of_three();
        (setup.recovering, setup.seed) = (true, seed);
        let mut member = setup.start(&disk).unwrap();
        member.run();
        numbers.insert(loss(&mut member, 2, 2).request_snapshot);
    }
    assert_eq!(numbers.len(), 50);
}

/// A leader whose followers have everything.
fn leader_of_ten() -> Member {
    let mut member = leader(&of_three(), &SimDisk::new(1));
    for number in 0..9 {
        member.propose(payload(number, 20));
    }
    member.run();
    for peer in [2, 3] {
        acknowledge(&mut member, peer, 10);
    }
    member.run();
    member
}

fn acknowledge(member: &mut Member, peer: u64, index: u64) {
    let mut ack = from(peer, 1, MessageType::MsgAppendResponse);
    ack.index = index;
    step(member, &ack);
}

fn lost(last: u64, number: u64) -> Message {
    let mut lost = from(3, 1, MessageType::MsgAppendResponse);
    (lost.reject, lost.request_snapshot) = (true, number);
    (lost.index, lost.reject_hint, lost.log_term) = (last, last, u64::from(last > 0));
    lost
}

fn matched(member: &Member) -> u64 {
    member.driver.progress()[2].matched
}

#[test]
fn a_leader_forgets_what_was_lost_and_stamps_what_it_says_after() {
    let mut member = leader_of_ten();
    assert_eq!(matched(&member), 10);
    // Made before: it would commit what was lost.
    member.driver.tick();
    step(&mut member, &lost(4, 77));
    assert_eq!(matched(&member), 0);
    let sent: Vec<Message> = turns(&mut member)
        .sent
        .iter()
        .map(|(_, it)| message(it))
        .collect();
    let to_third: Vec<&Message> = sent.iter().filter(|it| it.to == 3).collect();
    let [probe] = to_third[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (probe.get_msg_type(), probe.index),
        (MessageType::MsgAppend, 4)
    );
    member.driver.tick();
    let mut beats: Vec<Message> = turns(&mut member)
        .sent
        .iter()
        .map(|(_, it)| message(it))
        .collect();
    beats.sort_by_key(|it| it.to);
    let stamps: Vec<u64> = beats.iter().map(|it| it.request_snapshot).collect();
    assert_eq!(stamps, [0, 77]);
    assert_eq!((beats[1].commit, beats[1].index), (0, 10));

    // The same again is old news; another start is not.
    acknowledge(&mut member, 3, 10);
    step(&mut member, &lost(4, 77));
    assert_eq!(matched(&member), 10);
    step(&mut member, &lost(6, 78));
    assert_eq!(matched(&member), 0);
    turns(&mut member);
    // The end of the leadership is the end of it.
    step(&mut member, &from(2, 2, MessageType::MsgHeartbeat));
    turns(&mut member);
    assert!(member.driver.progress().is_empty());
}

/// However the follower's log ends, the next probe is one that it can answer.
#[test]
fn a_leader_probes_where_the_follower_says_that_its_log_ends() {
    for (last, probed) in [(0, 0), (1, 1), (9, 9), (10, 9), (11, 9), (1 << 40, 9)] {
        let mut member = leader_of_ten();
        step(&mut member, &lost(last, 5));
        let sent = turns(&mut member).sent;
        let probe = message(&sent[0].1);
        assert_eq!((probe.index, probe.to), (probed, 3), "{last}");
        acknowledge(&mut member, 3, 10);
        turns(&mut member);
        assert_eq!(matched(&member), 10);
    }
}

#[test]
fn a_snapshot_on_its_way_goes_on_when_the_follower_says_that_it_lost_entries() {
    let mut member = leader_of_ten();
    member.checkpoint();
    member.compact(10);
    step(&mut member, &lost(4, 5));
    assert_eq!(member.run().snapshots_wanted, [3]);
    let offered = member.applied.snapshot();
    assert!(member.driver.offer_snapshot(3, offered));
    member.run();
    acknowledge(&mut member, 3, 8);
    step(&mut member, &lost(4, 6));
    assert_eq!(matched(&member), 0);
    assert!(member.driver.progress()[2].snapshot);
    acknowledge(&mut member, 3, 10);
    assert!(!member.driver.progress()[2].snapshot);
    member.propose(payload(9, 20));
    assert!(turns(&mut member).sent.iter().any(|(to, _)| *to == 3));
}
