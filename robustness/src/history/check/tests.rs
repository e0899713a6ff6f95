//! One legal history, and one illegal change of it for each property: all must be found.

use super::*;
use crate::history::{Watched, fingerprint};

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn pair(created: i64, modified: i64, version: i64, value: u64, lease: i64) -> Pair {
    Pair {
        created,
        modified,
        version,
        value,
        lease,
    }
}

fn swap(key: &'static str, expected: i64, change: Change) -> Action {
    Action::Swap {
        key: Bytes::from(key),
        expected,
        change,
    }
}

fn put(value: u64, lease: i64) -> Change {
    Change::Put { value, lease }
}

fn operation(called: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    Operation {
        called: at(called),
        returned: at(returned),
        action,
        outcome,
    }
}

fn event(revision: i64, key: &'static str, new: Option<Pair>, old: Option<Pair>) -> Event {
    Event {
        revision,
        key: Bytes::from(key),
        pair: new,
        previous: old,
        received: at(1_000_000),
    }
}

/// a created, b created without an answer, a failed swap of a, a updated, both keys of a lease
/// created and expired, a deleted; reads in between; one write lost.
fn legal() -> History {
    let (a1, a2) = (pair(2, 2, 1, 1, 0), pair(2, 4, 2, 3, 0));
    let b = pair(3, 3, 1, 2, 0);
    let (l1, l2) = (pair(5, 5, 1, 5, 7), pair(6, 6, 1, 6, 7));
    let log = vec![
        event(2, "k/a", Some(a1), None),
        event(3, "k/b", Some(b), None),
        event(4, "k/a", Some(a2), Some(a1)),
        event(5, "l/1", Some(l1), None),
        event(6, "l/2", Some(l2), None),
        event(7, "l/1", None, Some(l1)),
        event(7, "l/2", None, Some(l2)),
        event(8, "k/a", None, Some(a2)),
    ];
    let mut listed = Digest::default();
    listed.add(b"k/a", &a2);
    listed.add(b"k/b", &b);
    let list = Action::List {
        prefix: Bytes::from("k/"),
    };
    let get = Action::Get {
        key: Bytes::from("k/a"),
    };
    let operations = vec![
        operation(
            0,
            10,
            swap("k/a", 0, put(1, 0)),
            Outcome::Applied { revision: 2 },
        ),
        operation(1, 30, swap("k/b", 0, put(2, 0)), Outcome::Unknown),
        operation(
            12,
            20,
            swap("k/a", 0, put(9, 0)),
            Outcome::Refused {
                revision: 3,
                current: Some(a1),
            },
        ),
        operation(
            21,
            30,
            swap("k/a", 2, put(3, 0)),
            Outcome::Applied { revision: 4 },
        ),
        operation(
            31,
            39,
            get,
            Outcome::Found {
                revision: 4,
                pair: Some(a2),
            },
        ),
        operation(
            31,
            40,
            list,
            Outcome::Listed {
                revision: 4,
                digest: listed,
            },
        ),
        operation(
            41,
            50,
            swap("l/1", 0, put(5, 7)),
            Outcome::Applied { revision: 5 },
        ),
        operation(
            41,
            51,
            swap("l/2", 0, put(6, 7)),
            Outcome::Applied { revision: 6 },
        ),
        operation(90, 91, swap("k/c", 0, put(8, 0)), Outcome::Unknown),
        operation(
            95,
            99,
            swap("k/a", 4, Change::Delete),
            Outcome::Applied { revision: 8 },
        ),
    ];
    let watched = Watched {
        prefix: Bytes::from("k/"),
        from: 3,
        events: [&log[1], &log[2], &log[7]]
            .map(|event| {
                (
                    event.revision,
                    fingerprint(&event.key, event.pair.as_ref(), event.previous.as_ref()),
                )
            })
            .to_vec(),
        progress: vec![(2, 0), (7, 2), (8, 3)],
        responses: vec![0, 1, 2],
        with_previous: true,
        compacted: 0,
    };
    History {
        operations,
        leases: vec![Granted {
            id: 7,
            ttl: at(30),
            called: at(40),
        }],
        renewals: Vec::new(),
        log,
        watched: vec![watched],
    }
}

#[test]
fn a_legal_history_passes_and_is_counted() {
    let summary = check(&legal()).unwrap();
    let expected = Summary {
        revision: 8,
        acknowledged: 5,
        unacknowledged: 1,
        lost: 1,
        reads: 3,
        expired: 2,
        watched: 3,
    };
    assert_eq!(summary, expected);
}

/// The history with a change is refused, and the message names why.
fn refused(change: impl FnOnce(&mut History), why: &str) {
    let mut history = legal();
    change(&mut history);
    let error = format!("{:#}", check(&history).expect_err(why));
    assert!(error.contains(why), "expected {why:?}: {error}");
}

#[test]
fn what_is_wrong_with_the_log_is_found() {
    refused(|h| drop(h.log.remove(1)), "from revision 2 to 4");
    refused(|h| h.log.swap(1, 2), "from revision 2 to 4");
    refused(
        |h| h.log.insert(1, h.log[0].clone()),
        "was told it had made this change",
    );
    refused(|h| h.log[2].previous = None, "the previous pair");
    refused(
        |h| h.log[2].pair.as_mut().unwrap().version = 3,
        "should be created at 2, of version 2",
    );
    refused(
        |h| h.log[2].pair.as_mut().unwrap().created = 4,
        "should be created at 2, of version 2",
    );
}

#[test]
fn what_is_wrong_with_writes_is_found() {
    refused(
        |h| h.operations[3].outcome = Outcome::Applied { revision: 2 },
        "two writes at revision 2",
    );
    refused(
        |h| h.operations[0].outcome = Outcome::Applied { revision: 9 },
        "nobody made this change",
    );
    refused(|h| drop(h.log.pop()), "without");
    refused(|h| drop(h.operations.remove(1)), "nobody made this change");
    refused(
        |h| h.operations[3].action = swap("k/a", 3, put(3, 0)),
        "was told it had made this change",
    );
    refused(
        |h| h.operations[1].action = swap("k/b", 2, put(2, 0)),
        "nobody made this change",
    );
    // One write without an answer cannot have happened twice.
    refused(
        |h| {
            let pair = pair(9, 9, 1, 8, 0);
            h.log.push(event(9, "k/c", Some(pair), None));
            h.log.push(event(10, "k/c", None, Some(pair)));
            h.log.push(event(
                11,
                "k/c",
                Some(super::super::Pair {
                    created: 11,
                    modified: 11,
                    ..pair
                }),
                None,
            ));
            h.operations.push(operation(
                91,
                99,
                swap("k/c", 9, Change::Delete),
                Outcome::Applied { revision: 10 },
            ));
        },
        "nobody made this change",
    );
}

#[test]
fn what_is_wrong_with_reads_is_found() {
    refused(
        |h| {
            h.operations[2].outcome = Outcome::Refused {
                revision: 3,
                current: None,
            };
        },
        "at revision 3 this was read",
    );
    refused(
        |h| h.operations[2].action = swap("k/a", 2, put(9, 0)),
        "at revision 3 this was read",
    );
    refused(
        |h| {
            h.operations[4].outcome = Outcome::Found {
                revision: 4,
                pair: None,
            };
        },
        "at revision 4 this was read",
    );
    refused(
        |h| {
            h.operations[5].outcome = Outcome::Listed {
                revision: 4,
                digest: Digest::default(),
            };
        },
        "at revision 4 this was read",
    );
    refused(
        |h| {
            h.operations[4].outcome = Outcome::Found {
                revision: 9,
                pair: None,
            };
        },
        "the log ends at revision 8",
    );
}

#[test]
fn what_contradicts_the_clock_is_found() {
    // A stale read: what it missed had been returned before it was called.
    refused(
        |h| {
            h.operations[4].outcome = Outcome::Found {
                revision: 3,
                pair: Some(pair(2, 2, 1, 1, 0)),
            };
        },
        "had returned revision 4",
    );
    // A read of what nobody had asked to write yet.
    refused(|h| h.operations[3].called = at(45), "at the earliest");
    // Two writes in an order that their clients can tell is wrong.
    refused(
        |h| (h.operations[7].called, h.operations[7].returned) = (at(22), at(23)),
        "had returned revision 6",
    );
}

#[test]
fn what_is_wrong_with_leases_is_found() {
    refused(|h| h.log[5].received = at(69), "before");
    refused(|h| drop(h.log.remove(6)), "lease 7 had the keys");
    refused(|h| h.log.swap(5, 6), "lease 7 had the keys");
    refused(|h| h.leases.clear(), "nobody granted lease 7");
    refused(
        |h| {
            h.log.push(event(9, "l/3", Some(pair(9, 9, 1, 9, 7)), None));
            h.operations.push(operation(
                98,
                99,
                swap("l/3", 0, put(9, 7)),
                Outcome::Unknown,
            ));
        },
        "which had ended",
    );
}

#[test]
fn what_is_wrong_with_watches_is_found() {
    refused(|h| _ = h.watched[0].events.remove(1), "watch k/: event 1");
    refused(|h| h.watched[0].events.swap(0, 1), "watch k/: event 0");
    refused(|h| h.watched[0].events.push((8, 1)), "is not in the log");
    refused(|h| h.watched[0].events[1].1 ^= 1, "watch k/: event 1");
    // Previous pairs may be missing where a compaction has been, or where nobody has asked for them.
    let bare = |h: &mut History| {
        let event = &h.log[7];
        h.watched[0].events[2].1 = fingerprint(&event.key, event.pair.as_ref(), None);
    };
    refused(bare, "watch k/: event 2");
    let mut history = legal();
    bare(&mut history);
    history.watched[0].compacted = 8;
    check(&history).unwrap();
    refused(|h| h.watched[0].with_previous = false, "watch k/: event 1");
    refused(|h| h.watched[0].progress[1].1 = 1, "had not been received");
    refused(
        |h| h.watched[0].progress.swap(0, 1),
        "went from revision 7 back to 2",
    );
    // A revision in two responses.
    refused(
        |h| {
            let events = [&h.log[5], &h.log[6]].map(|event| {
                (
                    event.revision,
                    fingerprint(&event.key, event.pair.as_ref(), event.previous.as_ref()),
                )
            });
            h.watched.push(Watched {
                events: events.to_vec(),
                responses: vec![0, 1],
                ..Watched::new("l/", 7)
            });
        },
        "continues the revision",
    );
}

/// A transaction over three keys, one of which is not there; a deletion of nothing; a lease that is renewed
/// and revoked.
fn with_more() -> History {
    let mut history = legal();
    let (c, l3) = (pair(9, 9, 1, 11, 0), pair(9, 9, 1, 12, 8));
    history
        .log
        .push(event(9, "k/b", None, Some(pair(3, 3, 1, 2, 0))));
    history.log.push(event(9, "k/c", Some(c), None));
    history.log.push(event(9, "l/3", Some(l3), None));
    history.log.push(event(10, "l/3", None, Some(l3)));
    for event in &mut history.log[8..] {
        event.received = at(150);
    }
    let changes = |keys: &[(&'static str, Change)]| Action::Write {
        changes: keys
            .iter()
            .map(|(key, change)| (Bytes::from(*key), *change))
            .collect(),
    };
    let all = changes(&[
        ("k/b", Change::Delete),
        ("k/x", Change::Delete),
        ("k/c", put(11, 0)),
        ("l/3", put(12, 8)),
    ]);
    history.operations.extend([
        operation(101, 110, all, Outcome::Applied { revision: 9 }),
        operation(
            111,
            112,
            changes(&[("k/x", Change::Delete)]),
            Outcome::Absent { revision: 9 },
        ),
        operation(
            120,
            130,
            Action::Peek {
                key: Bytes::from("k/a"),
            },
            // Old, and it may be.
            Outcome::Found {
                revision: 2,
                pair: Some(pair(2, 2, 1, 1, 0)),
            },
        ),
        operation(
            140,
            160,
            Action::Revoke { lease: 8 },
            Outcome::Absent { revision: 10 },
        ),
    ]);
    history.leases.push(Granted {
        id: 8,
        ttl: at(60),
        called: at(80),
    });
    history.renewals.push(crate::history::Renewed {
        id: 8,
        called: at(130),
    });
    history
}

#[test]
fn transactions_renewals_and_revocations_are_checked() {
    check(&with_more()).unwrap();
    let refused = |change: fn(&mut History), why: &str| {
        let mut history = with_more();
        change(&mut history);
        let error = format!("{:#}", check(&history).expect_err(why));
        assert!(error.contains(why), "expected {why:?}: {error}");
    };
    // An answer is not needed.
    let mut history = with_more();
    history.operations[10].outcome = Outcome::Unknown;
    history.operations[13].outcome = Outcome::Unknown;
    check(&history).unwrap();
    refused(
        |h| drop(h.log.remove(9)),
        "was told it had made this change",
    );
    refused(|h| h.log.swap(8, 9), "was told it had made this change");
    refused(
        |h| h.operations[11].outcome = Outcome::Absent { revision: 1 },
        "had returned revision 9",
    );
    refused(
        |h| {
            h.operations[11].action = Action::Write {
                changes: vec![(Bytes::from("k/c"), Change::Delete)],
            };
        },
        "at revision 9 this was read",
    );
    refused(|h| drop(h.operations.pop()), "ended at 150ms, before 190ms");
    refused(
        |h| h.operations[13].called = at(151),
        "ended at 150ms, before 190ms",
    );
    refused(|h| h.renewals[0].called = at(151), "was renewed at 151ms");
    refused(
        |h| h.operations[13].outcome = Outcome::Absent { revision: 9 },
        "at revision 9 this was read",
    );
    // A write is not the cause of what came before it.
    refused(
        |h| {
            h.operations[10].outcome = Outcome::Unknown;
            h.operations[10].called = at(151);
        },
        "nobody made this change",
    );
}
