//! What arrives is the state as of the entry at which it was captured, whatever went on meanwhile.

use proptest::prelude::*;

use super::*;
use ferrite_storage::snapshot::{self, Limits};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Apply(Box<InternalRaftRequest>),
    /// Relative to the current revision.
    Compact(i64),
    Change(MembershipAction),
    /// Writes what is due, and removes so many rows.
    Checkpoint(usize),
    /// Captures the state, if none is being sent.
    Export,
    Piece,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "ba", "c", "d", "e"])
}

fn apply(request: InternalRaftRequest) -> Step {
    Step::Apply(Box::new(request))
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let lease = || prop_oneof![3 => Just(0i64), 1 => -1i64..3];
    let len = prop_oneof![6 => 0usize..20, 2 => 1300usize..4000, 1 => 30_000usize..60_000];
    prop_oneof![
        16 => (key(), len, any::<u64>(), lease())
            .prop_map(|(key, len, seed, lease)| apply(put(key, value(len, seed), lease))),
        5 => (key(), prop_oneof![Just(""), key()]).prop_map(|(key, end)| apply(delete(key, end))),
        2 => (-1i64..3).prop_map(|id| apply(grant(id))),
        1 => (-1i64..3).prop_map(|id| apply(revoke(id))),
        1 => (-1i64..3, 1i64..60).prop_map(|(id, left)| apply(lease_checkpoint(id, left))),
        1 => any::<bool>().prop_map(|on| apply(alarm(match on {
            true => AlarmAction::Activate,
            false => AlarmAction::Deactivate,
        }))),
        1 => Just(apply(version("3.7.0"))),
        2 => (7..12u64, any::<bool>())
            .prop_map(|(id, in_it)| Step::Change(if in_it { add(id) } else { remove(id) })),
        3 => (-10i64..1).prop_map(Step::Compact),
        6 => (1usize..5).prop_map(Step::Checkpoint),
        2 => Just(Step::Export),
        10 => Just(Step::Piece),
    ]
}

/// A state on its way, and what of it has been sent.
struct Sending {
    export: Export,
    stream: Vec<u8>,
    done: bool,
}

impl Sending {
    /// Takes the next piece; `None` if a compaction did not wait.
    fn piece(mut self, member: &Harness) -> Option<Self> {
        match self.export.next_piece() {
            Ok(Some(piece)) => self.stream.extend_from_slice(&piece),
            Ok(None) => self.done = true,
            Err(snapshot::Error::Overtaken { compacted, .. }) => {
                assert!(member.state.store().compacted() > compacted);
                assert!(self.export.next_piece().is_err(), "over is over");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        Some(self)
    }
}

/// What became of the states that were sent.
#[derive(Default)]
struct Seen {
    arrived: usize,
    overtaken: usize,
}

fn run(steps: Vec<Step>, limits: Limits, cut: usize, seen: &mut Seen) {
    let mut member = Harness::new();
    member.apply(put("a", Bytes::new(), 0)).unwrap();
    let mut sending: Option<Sending> = None;
    let mut arrived = Vec::new();
    for step in steps.into_iter().chain([Step::Export]) {
        match step {
            Step::Apply(request) => drop(member.apply(*request)),
            Step::Compact(offset) => {
                let revision = member.state.store().revision() + offset;
                drop(member.apply(compact(revision)));
            }
            Step::Change(action) => drop(member.change(action)),
            Step::Checkpoint(rows) => drop(member.checkpoint(rows)),
            Step::Export => {
                sending.get_or_insert_with(|| Sending {
                    export: member.state.export().with_limits(limits),
                    stream: Vec::new(),
                    done: false,
                });
            }
            Step::Piece => {
                let was = sending.is_some();
                sending = sending.and_then(|sending| sending.piece(&member));
                seen.overtaken += usize::from(was && sending.is_none());
            }
        }
        if sending.as_ref().is_some_and(|sending| sending.done) {
            arrived.extend(sending.take());
        }
    }
    while let Some(now) = sending.take() {
        if now.done {
            arrived.push(now);
            break;
        }
        sending = now.piece(&member);
    }
    seen.arrived += arrived.len();
    for Sending { export, stream, .. } in arrived {
        let disk = empty_disk(2);
        let Received {
            index,
            term,
            conf_state,
            mut state,
        } = received(&disk, &stream, cut).unwrap();
        assert_eq!((index, term), (export.index(), export.term()));
        assert_eq!(conf_state, export.conf_state());
        assert_eq!(state.member_id(), MemberId::new(MEMBER));
        let mut plain = member.replayed(index);
        assert_equal(&state, &plain.state);
        // Rows that are doomed do not even arrive.
        settle(&mut plain.state);
        assert_eq!(state.digest(), plain.state.digest());
        assert!(!state.compacting());
        assert_eq!(names(&disk), ["db.install"]);

        // It goes on with the log, also from the disk.
        snapshot::commit(&as_disk(&disk), Path::new(PATH)).unwrap();
        member.replay_to(&mut state);
        assert_equal(&state, &member.state);
        settle(&mut state);
        let again = crate::harness::restored(&disk);
        assert_equal(&again, &member.state);
        assert_eq!(again.digest(), state.digest());
    }
    settle(&mut member.state);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_arrives_is_what_was_captured(
        steps in prop::collection::vec(step(), 1..120),
        piece_bytes in prop_oneof![Just(1usize), 1usize..500, 1usize..100_000],
        step_rows in 1usize..6,
        cut in prop_oneof![1usize..50, 50usize..100_000],
    ) {
        let limits = Limits { piece_bytes, step_rows, ..Limits::default() };
        run(steps, limits, cut, &mut Seen::default());
    }
}

/// A key that was deleted before the compaction, whose put is sent and whose deletion is removed
/// before it is: it must not live again.
#[test]
fn a_compaction_under_way_brings_no_key_back() {
    let mut member = Harness::new();
    member.apply(put("gone", value(9, 1), 0)).unwrap();
    for other in ["x", "y", "z"] {
        member.apply(put(other, value(9, 1), 0)).unwrap();
    }
    member.apply(delete("gone", "")).unwrap();
    member.apply(put("last", value(9, 1), 0)).unwrap();
    member.apply(compact(7)).unwrap();
    member.checkpoint(1);
    let limits = Limits {
        piece_bytes: 1,
        step_rows: 1,
        ..Limits::default()
    };
    let mut export = member.state.export().with_limits(limits);
    let mut stream = Vec::new();
    while let Some(piece) = export.next_piece().unwrap() {
        stream.extend_from_slice(&piece);
        member.checkpoint(1);
    }
    let Received { state, .. } = received(&empty_disk(3), &stream, 100).unwrap();
    assert_equal(&state, &member.state);
    assert_eq!(state.digest(), member.state.digest());
}

#[test]
fn a_compaction_waits_for_an_export_and_then_ends_it() {
    let mut member = Harness::new();
    for main in 0..50 {
        member.apply(put("k", value(100, main), 0)).unwrap();
    }
    member.checkpoint(1);
    let limits = Limits {
        piece_bytes: 100,
        ..Limits::default()
    };
    let mut export = member.state.export().with_limits(limits);
    export.next_piece().unwrap().unwrap();
    member.apply(compact(40)).unwrap();
    for _ in 0..10 {
        member.checkpoint(1000);
        export.next_piece().unwrap().unwrap();
    }
    while member.state.removed_through() < 40 {
        member.checkpoint(1000);
    }
    let error = export.next_piece().unwrap_err();
    let text = "snapshot at raft index 50: a compaction beyond revision -1 has overtaken it";
    assert_eq!(error.to_string(), text);
    assert!(export.next_piece().is_err());
    // The next one succeeds.
    let stream = stream(member.state.export());
    let Received { state, .. } = received(&empty_disk(4), &stream, 1000).unwrap();
    assert_equal(&state, &member.state);
}

#[test]
fn pieces_are_bounded() {
    let mut member = Harness::new();
    let limits = Limits::default();
    let (mut sent, longest) = (0, 1 << 20);
    for main in 0..3000 {
        let len = if main % 500 == 0 { longest } else { 2000 };
        member
            .apply(put(&format!("{main}"), value(len, main), 0))
            .unwrap();
        sent += len;
        if main == 2000 {
            member.checkpoint(1);
        }
    }
    let export = member.state.export();
    let hint = export.size_hint();
    let pieces = all_pieces(export).unwrap();
    let lengths: Vec<usize> = pieces.iter().map(Bytes::len).collect();
    let most = limits.piece_bytes + longest + 100;
    assert!(lengths.iter().all(|len| *len < most), "{lengths:?}");
    let [inner @ .., _] = &lengths[..] else {
        panic!("no piece")
    };
    assert!(inner.iter().all(|len| *len >= limits.piece_bytes));
    let all: usize = lengths.iter().sum();
    assert!((sent..sent + sent / 10).contains(&all), "{all} of {sent}");
    assert!(
        hint.abs_diff(all as u64) < all as u64 / 10,
        "{hint} of {all}"
    );
    let Received { state, .. } = received(&empty_disk(5), &pieces.concat(), 128 << 10).unwrap();
    assert_eq!(state.digest(), member.state.digest());
    assert_eq!(state.store().index().len(), 3000);
}

#[test]
fn who_reads_the_old_state_goes_on_reading() {
    let mut member = small();
    member.checkpoint(10);
    let newer = {
        let mut newer = member.replayed(member.state.applied().get());
        newer.apply(alarm(AlarmAction::Deactivate)).unwrap();
        newer.apply(put("n", value(9, 9), 0)).unwrap();
        newer
    };
    let old = member.state.view();
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let before = old.range(&all).unwrap();
    let stream = stream(newer.state.export());
    let Received { state, .. } = received(&member.disk, &stream, 1000).unwrap();
    snapshot::commit(&as_disk(&member.disk), Path::new(PATH)).unwrap();
    assert_eq!(names(&member.disk), ["db"]);
    assert_equal(&state, &newer.state);
    assert_eq!(old.range(&all).unwrap(), before);
    drop(member);
    assert_eq!(old.range(&all).unwrap(), before);

    // In the new one, nothing is recent: history is in the page file, all of it.
    let view = state.view();
    assert_eq!(view.recent.between(0, view.revision).count(), 0);
    assert_eq!(view.recent.between(old.revision, view.revision).count(), 0);
}
