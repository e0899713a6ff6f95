//! HashKV against a naive model of etcd's, and against values taken from a real one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestOp, TxnRequest,
};
use ferrite_api::types::Revision;
use ferrite_storage::mvcc::hash::{HashError, Hashing, KeyValueHash};
use proptest::prelude::*;

use crate::harness::Harness;

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..Default::default()
    }
}

fn compact(revision: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            physical: false,
        }),
        ..Default::default()
    }
}

impl Harness {
    fn put(&mut self, key: &str, value: &str) {
        let put = Some(put(key, value));
        let request = InternalRaftRequest {
            put,
            ..Default::default()
        };
        self.apply(request).unwrap();
    }

    fn delete(&mut self, key: &str, range_end: &str) {
        let delete_range = Some(delete(key, range_end));
        let request = InternalRaftRequest {
            delete_range,
            ..Default::default()
        };
        self.apply(request).unwrap();
    }

    fn compact(&mut self, revision: i64) {
        self.apply(compact(revision)).unwrap();
    }

    fn hash(&self, revision: i64) -> KeyValueHash {
        Hashing::at(self.state.view(), revision)
            .unwrap()
            .run()
            .unwrap()
    }

    /// Until nothing is left to be done.
    fn settle(&mut self) {
        while self.checkpoint(100) || self.state.prune_step(100) {}
    }
}

fn hash_of(hash: u32, compact_revision: i64, revision: i64) -> KeyValueHash {
    KeyValueHash {
        hash,
        compact_revision,
        revision,
    }
}

/// The vectors of etcd's own tests (spec mvcc.md section 8): of the store before each compaction,
/// and kept by it.
#[test]
fn etcds_vectors() {
    let names = "alice bob celine dominik eve frederica gorge";
    let names: Vec<_> = names.split(' ').collect();
    let mut harness = Harness::new();
    let expected = [
        hash_of(1_913_897_190, -1, 73),
        hash_of(224_860_069, 73, 145),
        hash_of(1_565_167_519, 145, 217),
        hash_of(1_566_261_620, 217, 289),
        hash_of(2_037_173_024, 289, 361),
        hash_of(691_659_396, 361, 433),
    ];
    for (round, expected) in expected.into_iter().enumerate() {
        for i in round * 71..=round * 71 + 71 {
            let key = match i {
                i if i % 142 == 30 => "zenek",
                i if i % 71 == 30 => "xavery",
                i => names[i % 7],
            };
            harness.put(key, &i.to_string());
        }
        assert_eq!(harness.hash(0), expected);
        harness.compact(expected.revision);
        harness.settle();
        assert_eq!(harness.hashes[round], expected);
    }
}

#[test]
fn revisions_outside_the_history() {
    let mut harness = Harness::new();
    harness.put("a", "1");
    harness.put("a", "2");
    harness.put("a", "3");
    harness.compact(3);
    let at = |revision| Hashing::at(harness.state.view(), revision).unwrap_err();
    assert!(matches!(at(2), HashError::Compacted));
    assert!(matches!(at(5), HashError::Future));
    assert_eq!(harness.hash(3).revision, 3);
    // No row has a revision below 0: the hash of the bucket's name.
    assert_eq!(harness.hash(-1), hash_of(crc32c::crc32c(b"key"), 3, -1));
}

#[test]
fn a_compaction_that_does_not_wait_ends_the_hash() {
    let mut harness = Harness::new();
    for value in 0..5 {
        harness.put("a", &value.to_string());
    }
    harness.checkpoint(1);
    let mut held = Hashing::at(harness.state.view(), 0).unwrap();
    harness.compact(5);
    // Its patience lasts for a few checkpoints; the changes in between make them due.
    while harness.state.compacting() {
        harness.put("b", "");
        harness.checkpoint(1);
    }
    assert!(matches!(held.step(), Err(HashError::Overtaken)));
}

#[test]
fn rows_stay_until_the_compaction_is_hashed() {
    let mut harness = Harness::new();
    for value in 0..5 {
        harness.put("a", &value.to_string());
    }
    let before = harness.hash(5);
    harness.compact(5);
    let hash = harness.state.next_hash().expect("the first one is hashed");
    for _ in 0..20 {
        harness.put("b", "");
        harness.checkpoint(1);
    }
    assert_eq!(harness.state.removed_through(), -1);
    let stored = harness.state.finish_hash(hash.run()).unwrap();
    assert_eq!(stored, Some(before));
    harness.settle();
    assert_eq!(harness.state.removed_through(), 5);
    assert_eq!(harness.hash(5).compact_revision, 5);
}

#[test]
fn a_compaction_over_an_unfinished_one_is_not_hashed() {
    let mut harness = Harness::new();
    for value in 0..9 {
        harness.put("a", &value.to_string());
    }
    harness.compact(3);
    harness.compact(5);
    harness.settle();
    assert_eq!(harness.hashes.len(), 1);
    assert_eq!(harness.hashes[0].revision, 3);
    harness.compact(7);
    harness.restart();
    harness.settle();
    // Entries after the last checkpoint are applied again, so this one is new to the member.
    assert_eq!(harness.hashes.len(), 1);
    assert_eq!(harness.hashes[0].compact_revision, 5);
}

/// etcd's store, as its file is once every compaction is finished.
#[derive(Default)]
struct Naive {
    /// Key and whether it was a deletion, by revision; what compactions have removed is missing.
    rows: BTreeMap<Revision, (Bytes, bool, Bytes)>,
    /// The same with everything.
    history: BTreeMap<Revision, (Bytes, bool)>,
    compacted: i64,
}

impl Naive {
    fn new() -> Self {
        Self {
            compacted: -1,
            ..Self::default()
        }
    }

    /// Learns the rows that were applied since the last call.
    fn learn(&mut self, harness: &Harness) {
        let known = self.history.last_key_value().map_or(0, |(rev, _)| rev.main);
        let store = harness.state.store();
        for row in store.recent().between(known, store.revision()) {
            let kv = ferrite_storage::mvcc::decode_record(row.revision, &row.record).unwrap();
            let (key, record) = (kv.key, row.record.clone());
            self.history
                .insert(row.revision, (key.clone(), row.tombstone));
            self.rows.insert(row.revision, (key, row.tombstone, record));
        }
    }

    /// What a compaction at `at` leaves of the rows up to it.
    fn keep(&self, at: i64, tombstones: bool) -> BTreeSet<Revision> {
        let mut newest = BTreeMap::new();
        for (revision, (key, tombstone)) in &self.history {
            if revision.main <= at {
                newest.insert(key, (*revision, *tombstone));
            }
        }
        newest
            .into_values()
            .filter(|(revision, tombstone)| !tombstone || tombstones && revision.main == at)
            .map(|(revision, _)| revision)
            .collect()
    }

    fn hash(&self, at: i64, keep: &BTreeSet<Revision>) -> KeyValueHash {
        let mut bytes = b"key".to_vec();
        for (revision, (_, tombstone, record)) in &self.rows {
            let dropped =
                revision.main <= self.compacted && !keep.is_empty() && !keep.contains(revision);
            if revision.main > at || dropped || revision.main == self.compacted && *tombstone {
                continue;
            }
            bytes.extend(revision.main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend(revision.sub.to_be_bytes());
            bytes.extend(tombstone.then_some(b't'));
            bytes.extend(record);
        }
        hash_of(crc32c::crc32c(&bytes), self.compacted, at)
    }

    fn compact(&mut self, at: i64) -> KeyValueHash {
        let keep = self.keep(at, true);
        let hash = self.hash(at, &keep);
        self.rows
            .retain(|revision, _| revision.main > at || keep.contains(revision));
        self.compacted = at;
        hash
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, usize),
    Delete(String, String),
    Txn(Vec<(String, bool)>),
    Compact(i64),
    Checkpoint(usize),
    Restart,
}

fn key() -> impl Strategy<Value = String> {
    "[a-c]{1,2}"
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), 0usize..3000).prop_map(|(key, length)| Step::Put(key, length)),
        3 => (key(), prop_oneof![Just(String::new()), key()])
            .prop_map(|(key, end)| Step::Delete(key, end)),
        1 => Just(Step::Delete("a".to_owned(), "z".to_owned())),
        2 => prop::collection::btree_map(key(), any::<bool>(), 1..4)
            .prop_map(|ops| Step::Txn(ops.into_iter().collect())),
        2 => (0i64..4).prop_map(Step::Compact),
        3 => (0usize..4).prop_map(Step::Checkpoint),
        1 => Just(Step::Restart),
    ]
}

fn txn(ops: Vec<(String, bool)>) -> TxnRequest {
    let ops = ops.into_iter().map(|(key, puts)| RequestOp {
        request: Some(if puts {
            Request::RequestPut(put(&key, "txn"))
        } else {
            Request::RequestDeleteRange(delete(&key, ""))
        }),
    });
    TxnRequest {
        success: ops.collect(),
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn hashes_are_those_of_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut harness = Harness::new();
        let mut naive = Naive::new();
        // Of compactions whose predecessor was complete.
        let mut expected = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, length) => harness.put(&key, &"v".repeat(length)),
                Step::Delete(key, end) => harness.delete(&key, &end),
                Step::Txn(ops) => {
                    let txn = Some(txn(ops));
                    harness.apply(InternalRaftRequest { txn, ..Default::default() }).unwrap();
                }
                Step::Compact(back) => {
                    let at = harness.state.store().revision() - back;
                    if at > naive.compacted {
                        let complete = harness.state.removed_through() == naive.compacted;
                        harness.compact(at);
                        let hash = naive.compact(at);
                        expected.extend(complete.then_some(hash));
                    }
                }
                Step::Checkpoint(rows) => {
                    harness.checkpoint(rows);
                }
                Step::Restart => {
                    harness.restart();
                    // Which of them come again depends on what was checkpointed.
                    expected.clear();
                    harness.settle();
                    harness.hashes.clear();
                }
            }
            naive.learn(&harness);
            let newest = harness.state.store().revision();
            for at in naive.compacted.max(1)..=newest {
                let keep = naive.keep(at, false);
                prop_assert_eq!(harness.hash(at), naive.hash(at, &keep));
            }
        }
        harness.settle();
        prop_assert_eq!(&harness.hashes, &expected);
    }
}
