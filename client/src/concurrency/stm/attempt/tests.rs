//! Attempts against a small multi-version store, under random schedules.

use pb::compare::{CompareResult, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use proptest::prelude::*;

use super::*;

/// A key's value and the revision that wrote it.
type Version = Option<(i64, Bytes)>;

/// Every version of every key; the index is the revision.
struct Store {
    states: Vec<BTreeMap<Bytes, (i64, Bytes)>>,
}

impl Store {
    fn new() -> Store {
        Store {
            states: vec![BTreeMap::new(), BTreeMap::new()],
        }
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).expect("short") - 1
    }

    fn at(&self, revision: i64, key: &Bytes) -> Version {
        let state = &self.states[usize::try_from(revision).expect("positive")];
        state.get(key).cloned()
    }

    fn now(&self, key: &Bytes) -> Version {
        self.at(self.revision(), key)
    }

    fn number(&self, key: &Bytes) -> i64 {
        number(self.now(key).map(|(_, value)| value))
    }

    fn run(&mut self, txn: Txn) -> pb::TxnResponse {
        let request = txn.into_request();
        let holds = |compare: &pb::Compare| {
            let found = self.now(&compare.key).map_or(0, |(revision, _)| revision);
            let Some(TargetUnion::ModRevision(wanted)) = compare.target_union else {
                panic!("attempts compare revisions only");
            };
            match compare.result() {
                CompareResult::Equal => found == wanted,
                CompareResult::Less => found < wanted,
                other => panic!("attempts do not compare with {other:?}"),
            }
        };
        let succeeded = request.compare.iter().all(holds);
        let ops = match succeeded {
            true => request.success,
            false => request.failure,
        };
        let mut state = self.states.last().cloned().expect("never empty");
        let next = self.revision() + 1;
        let mut changed = false;
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.expect("set") {
                Request::RequestRange(range) => {
                    let revision = match range.revision {
                        0 => self.revision(),
                        revision => revision,
                    };
                    let pair = |(mod_revision, value)| KeyValue {
                        key: range.key.clone(),
                        value,
                        mod_revision,
                        ..Default::default()
                    };
                    let kvs = self.at(revision, &range.key).map(pair).into_iter();
                    Response::ResponseRange(pb::RangeResponse {
                        kvs: kvs.collect(),
                        ..Default::default()
                    })
                }
                Request::RequestPut(put) => {
                    changed = true;
                    state.insert(put.key, (next, put.value));
                    Response::ResponsePut(pb::PutResponse::default())
                }
                Request::RequestDeleteRange(delete) => {
                    changed |= state.remove(&delete.key).is_some();
                    Response::ResponseDeleteRange(pb::DeleteRangeResponse::default())
                }
                Request::RequestTxn(_) => panic!("attempts do not nest"),
            };
            responses.push(pb::ResponseOp {
                response: Some(response),
            });
        }
        if changed {
            self.states.push(state);
        }
        pb::TxnResponse {
            header: Some(pb::ResponseHeader {
                revision: self.revision(),
                ..Default::default()
            }),
            succeeded,
            responses,
        }
    }

    /// Reads a key as an attempt does.
    fn read(&mut self, attempt: &mut Attempt, key: &Bytes) -> Option<Bytes> {
        if !attempt.is_written(key) {
            let missing = attempt.missing(vec![key.clone()]);
            if !missing.is_empty() {
                let answer = self.run(attempt.fetch(&missing));
                attempt.fetched(missing, &answer).expect("well-formed");
            }
        }
        attempt.value(key)
    }

    fn put(&mut self, key: &Bytes, value: i64) {
        let put = TxnOp::put(key.clone(), value.to_string(), PutOptions::new());
        self.run(Txn::new().and_then([put]));
    }
}

fn key(index: usize) -> Bytes {
    format!("k{index}").into()
}

fn number(value: Option<Bytes>) -> i64 {
    let text = value.unwrap_or_default();
    String::from_utf8_lossy(&text).parse().unwrap_or(0)
}

const LEVELS: [Isolation; 4] = [
    Isolation::SerializableSnapshot,
    Isolation::Serializable,
    Isolation::RepeatableReads,
    Isolation::ReadCommitted,
];

#[test]
fn reads_see_the_writes_of_their_transaction() {
    let mut store = Store::new();
    store.put(&key(0), 7);
    for isolation in LEVELS {
        let mut attempt = Attempt::new(isolation);
        attempt.put(key(0), "8".into(), PutOptions::new());
        assert_eq!(store.read(&mut attempt, &key(0)), Some("8".into()));
        attempt.delete(key(0));
        assert_eq!(store.read(&mut attempt, &key(0)), None);
        assert_eq!(store.read(&mut attempt, &key(1)), None);
    }
}

#[test]
fn a_written_key_that_others_write_conflicts_under_snapshot_isolation_only() {
    for isolation in LEVELS {
        let mut store = Store::new();
        let mut attempt = Attempt::new(isolation);
        store.read(&mut attempt, &key(0));
        attempt.put(key(1), "1".into(), PutOptions::new());
        store.put(&key(1), 5);
        let committed = store.run(attempt.commit()).succeeded;
        let expected = isolation != Isolation::SerializableSnapshot;
        assert_eq!(committed, expected, "{isolation:?}");
    }
}

#[test]
fn a_read_key_that_others_write_conflicts_unless_only_committed_data_is_asked_for() {
    for isolation in LEVELS {
        let mut store = Store::new();
        let mut attempt = Attempt::new(isolation);
        store.read(&mut attempt, &key(0));
        store.put(&key(0), 5);
        let committed = store.run(attempt.commit()).succeeded;
        assert_eq!(
            committed,
            isolation == Isolation::ReadCommitted,
            "{isolation:?}"
        );
    }
}

#[test]
fn a_blind_write_never_conflicts() {
    let mut store = Store::new();
    store.put(&key(0), 5);
    let mut attempt = Attempt::new(Isolation::SerializableSnapshot);
    attempt.put(key(0), "1".into(), PutOptions::new());
    let request = attempt.commit().into_request();
    let bound = Some(TargetUnion::ModRevision(i64::MAX));
    assert_eq!(request.compare[0].target_union, bound);
    assert!(store.run(attempt.commit()).succeeded);
}

#[test]
fn a_conflict_brings_the_new_values_along() {
    for isolation in LEVELS {
        let mut store = Store::new();
        let mut attempt = Attempt::new(isolation);
        store.read(&mut attempt, &key(0));
        attempt.put(key(1), "1".into(), PutOptions::new());
        store.put(&key(0), 5);
        let answer = store.run(attempt.commit());
        if answer.succeeded {
            continue;
        }
        attempt.restart(&answer).expect("well-formed");
        let pinning = attempt.is_pinning();
        assert_eq!(attempt.missing(vec![key(0)]).is_empty(), pinning);
        assert_eq!(store.read(&mut attempt, &key(0)), Some("5".into()));
        // The write of the failed attempt is forgotten, and what is not read again is not compared.
        assert_eq!(store.read(&mut attempt, &key(1)), None);
    }
}

#[test]
fn old_prefetches_do_not_mix_with_newer_reads() {
    let mut store = Store::new();
    let mut attempt = Attempt::new(Isolation::Serializable);
    store.read(&mut attempt, &key(0));
    store.put(&key(0), 1);
    let refused = store.run(attempt.commit());
    attempt.restart(&refused).expect("well-formed");
    store.put(&key(0), 2);
    store.put(&key(1), 2);
    assert_eq!(store.read(&mut attempt, &key(1)), Some("2".into()));
    assert_eq!(store.read(&mut attempt, &key(0)), Some("2".into()));
}

#[test]
fn a_short_answer_is_an_error() {
    let mut attempt = Attempt::new(Isolation::Serializable);
    let empty = pb::TxnResponse::default();
    assert!(attempt.fetched(vec![key(0)], &empty).is_err());
}

/// Moves an amount between accounts, reading all of them one by one.
struct Transfer {
    attempt: Attempt,
    from: usize,
    to: usize,
    amount: i64,
    read: Vec<i64>,
    done: bool,
}

const ACCOUNTS: usize = 4;
const OPENING: i64 = 100;

impl Transfer {
    fn step(&mut self, store: &mut Store) {
        if self.done {
            return;
        }
        if self.read.len() < ACCOUNTS {
            let account = key(self.read.len());
            let value = store.read(&mut self.attempt, &account);
            self.read.push(number(value));
            return;
        }
        let isolation = self.attempt.isolation;
        if self.attempt.is_pinning() {
            let total: i64 = self.read.iter().sum();
            assert_eq!(total, OPENING * ACCOUNTS as i64, "not one revision");
        }
        let (from, to) = (self.read[self.from], self.read[self.to]);
        let put = |attempt: &mut Attempt, account, value: i64| {
            attempt.put(key(account), value.to_string().into(), PutOptions::new());
        };
        put(&mut self.attempt, self.from, from - self.amount);
        put(&mut self.attempt, self.to, to + self.amount);
        let before: Vec<i64> = (0..ACCOUNTS)
            .map(|account| store.number(&key(account)))
            .collect();
        let answer = store.run(self.attempt.commit());
        if answer.succeeded {
            self.done = true;
            // As if it had run alone, now.
            if isolation != Isolation::ReadCommitted {
                assert_eq!(before, self.read, "{isolation:?}");
            }
        } else {
            self.attempt.restart(&answer).expect("well-formed");
        }
        self.read.clear();
    }
}

proptest! {
    /// `spec/concurrency.md` section 5: what commits has read what there is, whatever others do in
    /// between; the first two levels never see a mixture of revisions at all.
    #[test]
    fn what_commits_might_have_run_alone(
        transfers in prop::collection::vec(
            (0..3usize, 0..ACCOUNTS, 1..ACCOUNTS, 1..50i64), 1..5),
        schedule in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let mut store = Store::new();
        for account in 0..ACCOUNTS {
            store.put(&key(account), OPENING);
        }
        let mut transfers: Vec<Transfer> = transfers
            .into_iter()
            .map(|(level, from, distance, amount)| Transfer {
                attempt: Attempt::new(LEVELS[level]),
                from,
                to: (from + distance) % ACCOUNTS,
                amount,
                read: Vec::new(),
                done: false,
            })
            .collect();
        for index in schedule {
            let which = index.index(transfers.len());
            transfers[which].step(&mut store);
        }
        // Alone, everyone gets through: with no one in between the second attempt is the last.
        for transfer in &mut transfers {
            for _ in 0..3 * (ACCOUNTS + 1) {
                transfer.step(&mut store);
            }
            prop_assert!(transfer.done);
        }
        let total: i64 = (0..ACCOUNTS).map(|account| store.number(&key(account))).sum();
        prop_assert_eq!(total, OPENING * ACCOUNTS as i64);
    }
}
