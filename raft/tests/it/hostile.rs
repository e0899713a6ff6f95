//! Bytes from peers that no correct peer sends: refused, and never a panic.

use bytes::Bytes;
use ferrite_disk::sim::SimDisk;
use ferrite_raft::{Role, StepError};
use proptest::prelude::*;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use crate::support::{Applied, Member, Setup, encode, payload};

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn of_three() -> Member {
    Setup::of(1, &[1, 2, 3]).start(&SimDisk::new(1)).unwrap()
}

fn from(peer: u64, term: u64, kind: MessageType) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (peer, 1, term);
    message
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry
}

fn refused(message: &Message) -> StepError {
    of_three().driver.step(&encode(message)).unwrap_err()
}

#[test]
fn messages_that_are_for_somebody_else_or_from_nobody_are_refused() {
    let good = from(2, 1, MessageType::MsgHeartbeat);
    let changes: [&dyn Fn(&mut Message); 5] = [
        &|m| m.to = 3,
        &|m| m.from = 0,
        &|m| m.from = 1,
        &|m| m.term = 0,
        &|m| m.term = u64::MAX,
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(matches!(refused(&bad), StepError::Invalid { .. }));
    }
    of_three().driver.step(&encode(&good)).unwrap();
}

#[test]
fn appends_that_would_break_the_log_are_refused() {
    let append = |index, log_term, entries: Vec<Entry>| {
        let mut append = from(2, 3, MessageType::MsgAppend);
        (append.index, append.log_term) = (index, log_term);
        append.set_entries(entries.into());
        append
    };
    let mut too_new = entry(1, 3);
    too_new.set_entry_type(EntryType::EntryConfChangeV2);
    too_new.data = Bytes::from_static(b"\xff\xff");
    let bad = [
        // raft-rs takes the term of an index beyond its log for 0, so this matches, and panics.
        append(10, 0, vec![entry(11, 3)]),
        append(0, 1, vec![entry(1, 3)]),
        append(1, 4, vec![]),
        append(0, 0, vec![entry(2, 3)]),
        append(0, 0, vec![entry(1, 3), entry(3, 3)]),
        append(0, 0, vec![entry(1, 2), entry(2, 1)]),
        append(0, 0, vec![entry(1, 4)]),
        append(0, 0, vec![entry(1, 0)]),
        append(u64::MAX, 1, vec![entry(0, 3)]),
        append(0, 0, vec![too_new]),
    ];
    for message in &bad {
        refused(message);
    }
    of_three()
        .driver
        .step(&encode(&append(0, 0, vec![entry(1, 2), entry(2, 3)])))
        .unwrap();
}

/// raft-rs panics: a leader only sends what this member has acknowledged, so the log lost its end.
#[test]
fn a_commit_index_beyond_the_log_is_refused_and_named() {
    let mut beat = from(2, 1, MessageType::MsgHeartbeat);
    beat.commit = 5;
    assert_eq!(
        refused(&beat),
        StepError::CommitBeyondLog {
            from: 2,
            commit: 5,
            last: 0
        }
    );
}

/// raft-rs panics if a member of term 0 rejects a pre-vote, which only a priority can make it do.
#[test]
fn priorities_are_refused() {
    for change in [
        |m: &mut Message| m.priority = -1,
        |m: &mut Message| m.deprecated_priority = 1,
    ] {
        let mut vote = from(2, 1, MessageType::MsgRequestPreVote);
        of_three().driver.step(&encode(&vote)).unwrap();
        change(&mut vote);
        assert!(matches!(
            refused(&vote),
            StepError::Invalid {
                what: "priority",
                ..
            }
        ));
    }
}

#[test]
fn snapshots_without_their_content_are_refused() {
    let mut snapshot = from(2, 1, MessageType::MsgSnapshot);
    snapshot.mut_snapshot().mut_metadata().index = 7;
    assert_eq!(
        refused(&snapshot),
        StepError::Snapshot { from: 2, index: 7 }
    );
}

#[test]
fn responses_from_strangers_are_refused() {
    let response = from(9, 1, MessageType::MsgAppendResponse);
    assert_eq!(refused(&response), StepError::UnknownPeer { from: 9 });
}

/// rust-protobuf 2 skips unknown groups recursively and overflows its stack.
#[test]
fn nested_groups_are_refused_before_they_are_decoded() {
    let groups = vec![0xfb; 1 << 20];
    assert!(matches!(
        of_three().driver.step(&Bytes::from(groups)),
        Err(StepError::Malformed(_))
    ));
    let inner = [0x0b; 100_000];
    for field in [7u8, 9] {
        let mut message = vec![field << 3 | 2];
        let mut length = inner.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend(inner);
        let stepped = of_three().driver.step(&message.into());
        assert!(matches!(stepped, Err(StepError::Malformed(_))));
    }
}

#[test]
fn an_acknowledgement_of_entries_that_do_not_exist_is_refused() {
    let mut member = Setup::sole().start(&SimDisk::new(1)).unwrap();
    member.lead();
    let mut ack = from(2, 1, MessageType::MsgAppendResponse);
    ack.index = 99;
    let error = member.driver.step(&encode(&ack)).unwrap_err();
    assert!(matches!(
        error,
        StepError::Invalid {
            what: "index",
            value: 99,
            ..
        }
    ));
}

/// Numbers near the ones that matter, and far from them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8u64, 1 => any::<u64>(), 1 => (u64::MAX - 3)..=u64::MAX]
}

fn any_message() -> impl Strategy<Value = Message> {
    let entry = (
        number(),
        number(),
        0..3usize,
        prop::collection::vec(any::<u8>(), 0..6),
    );
    let contiguous = (
        number(),
        number(),
        prop::collection::vec(entry, 0..4),
        any::<bool>(),
    );
    let numbers = prop::array::uniform8(number());
    (
        0..KINDS.len(),
        1..5u64,
        0..6u64,
        contiguous,
        numbers,
        any::<bool>(),
    )
        .prop_map(
            |(kind, peer, term, (index, log_term, entries, tidy), numbers, reject)| {
                let mut message = from(peer, term, KINDS[kind]);
                let [
                    commit,
                    commit_term,
                    hint,
                    snapshot,
                    context,
                    to,
                    priority,
                    request,
                ] = numbers;
                (message.index, message.log_term) = (index, log_term);
                (message.commit, message.commit_term) = (commit, commit_term);
                (message.reject, message.reject_hint) = (reject, hint);
                message.request_snapshot = request;
                message.priority = priority as i64;
                message.context = context.to_be_bytes().to_vec().into();
                if to == 7 {
                    message.to = 2;
                }
                if snapshot > 6 {
                    message.mut_snapshot().mut_metadata().index = snapshot;
                }
                let mut next = index;
                let entries = entries.into_iter().map(|(index, term, kind, data)| {
                    next = next.wrapping_add(1);
                    let mut built = entry_of(if tidy { next } else { index }, term);
                    built.data = data.into();
                    if !tidy && kind > 0 {
                        built.set_entry_type(
                            [EntryType::EntryConfChange, EntryType::EntryConfChangeV2][kind - 1],
                        );
                    }
                    built
                });
                message.set_entries(entries.collect::<Vec<_>>().into());
                message
            },
        )
}

fn entry_of(index: u64, term: u64) -> Entry {
    entry(index, term)
}

fn any_snapshot() -> impl Strategy<Value = Message> {
    let members = || prop::collection::vec(0..6u64, 0..4);
    let conf = (members(), members(), members(), members(), any::<bool>());
    // Some that hold, for which the lists must fit each other.
    let plain = (1..4u64).prop_map(|n| ((1..=n).collect(), vec![], vec![], vec![], false));
    let conf = prop_oneof![conf, plain];
    let numbers = (number(), number(), number(), number());
    (1..5u64, 0..6u64, numbers, conf).prop_map(|(peer, term, numbers, conf)| {
        let mut message = from(peer, term, MessageType::MsgSnapshot);
        (message.index, message.commit) = (numbers.2, numbers.3);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (numbers.0, numbers.1);
        let state = metadata.mut_conf_state();
        let (voters, learners, outgoing, next, auto_leave) = conf;
        state.set_voters(voters);
        state.set_learners(learners);
        state.set_voters_outgoing(outgoing);
        state.set_learners_next(next);
        state.auto_leave = auto_leave;
        message
    })
}

/// What the member does between messages.
#[derive(Debug, Clone, Copy)]
enum Do {
    Run,
    Turn,
    Sync,
    Tick,
    Campaign,
    Propose,
    Install,
    Offer(u64),
    Report(u64),
    Compact,
}

fn any_step() -> impl Strategy<Value = Result<Message, Do>> {
    let own = prop::sample::select(vec![
        Do::Run,
        Do::Turn,
        Do::Sync,
        Do::Tick,
        Do::Campaign,
        Do::Propose,
        Do::Install,
        Do::Offer(2),
        Do::Offer(3),
        Do::Report(2),
        Do::Compact,
    ]);
    prop_oneof![
        6 => any_message().prop_map(Ok),
        2 => any_snapshot().prop_map(Ok),
        5 => own.prop_map(Err),
    ]
}

/// The content of whatever snapshot the message speaks of.
fn body(member: &Member, message: &Bytes) -> Option<Applied> {
    let snapshot = member.driver.check_snapshot(message).ok()?;
    Some(Applied {
        index: snapshot.index,
        term: snapshot.term,
        payloads: Vec::new(),
        conf: snapshot.conf_state,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut member = of_three();
        let _refused = member.driver.step(&bytes.into());
        member.run();
    }

    /// Peers that lie in every field, at any moment; the member goes on and its log stays a log.
    #[test]
    fn arbitrary_messages_never_panic(
        voters in 0..4u64,
        recovering in any::<bool>(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let voters: Vec<u64> = (1..=voters).collect();
        let disk = SimDisk::new(1);
        let mut setup = Setup::of(1, &voters);
        setup.recovering = recovering;
        let mut member = setup.start(&disk).unwrap();
        let mut outcome = crate::support::Outcome::default();
        for step in &steps {
            let before = member.driver.status();
            match step {
                Ok(message) if message.get_msg_type() == MessageType::MsgSnapshot => {
                    let message = encode(message);
                    if let Some(body) = body(&member, &message) {
                        let _refused = member.receive(&message, &body);
                    }
                    let _refused = member.driver.step(&message);
                }
                Ok(message) => {
                    let _refused = member.driver.step(&encode(message));
                }
                Err(Do::Run) => drop(member.run()),
                Err(Do::Turn) if member.driver.has_effects() => member.turn(&mut outcome),
                Err(Do::Turn) => {}
                Err(Do::Sync) => member.sync(),
                Err(Do::Tick) => (0..7).for_each(|_| member.driver.tick()),
                Err(Do::Campaign) => member.driver.campaign(),
                Err(Do::Propose) => {
                    let _refused = member.driver.propose(payload(1, 10));
                }
                Err(Do::Install) => drop(member.finish_install()),
                Err(Do::Offer(to)) => {
                    member.driver.offer_snapshot(*to, member.applied.snapshot());
                }
                Err(Do::Report(to)) => member.driver.report_snapshot(*to, false),
                Err(Do::Compact) => {
                    member.checkpoint();
                    member.driver.compact(member.checkpointed);
                }
            }
            let after = member.driver.status();
            prop_assert!(before.term <= after.term && before.commit <= after.commit);
            prop_assert!(before.applied <= after.applied);
        }
        member.sync();
        member.run();
        let status = member.driver.status();
        if !status.removed {
            prop_assert!(status.applied <= status.commit && status.handed_out <= status.durable);
            prop_assert_ne!((status.role, status.leader), (Role::Leader, 0));
        }
        drop(member);
        // Whatever was accepted is a log that can be recovered.
        let again = setup.start(&disk).unwrap().driver.status();
        prop_assert_eq!(again.last_index, status.last_index);
        prop_assert_eq!((again.term, again.vote), (status.term, status.vote));
    }
}
