//! Scripts: writes from a seed, and the states that they must leave behind.
//!
//! [`Reference`] remembers the state after each write of an undisturbed run: the revision, the
//! compaction, the leases with their keys, and every row ever written. A member that comes back after a crash must be in one of
//! those states, at or after the last write it had acknowledged and not after the last proposed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::LeaseId;
use ferrite_storage::leases::Lease;
use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::mvcc::recent::Row;
use ferrite_storage::page::{RowId, record_digest};
use ferrite_storage::state::State;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Writes from a seed: puts of all sizes, deletes, transactions, compactions, and leases, some of
/// which do not exist. The leases are so long that none ends by itself.
#[derive(Debug)]
pub struct Script {
    rng: StdRng,
    keys: u32,
}

impl Script {
    /// A script over `keys` different keys.
    pub fn new(seed: u64, keys: u32) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            keys,
        }
    }

    /// The next write, for a store at `revision`.
    pub fn next(&mut self, revision: i64, compacted: i64) -> InternalRaftRequest {
        let mut request = InternalRaftRequest::default();
        match self.rng.random_range(0..100) {
            0..45 => request.put = Some(self.put()),
            45..53 => {
                request.lease_grant = Some(LeaseGrantRequest {
                    id: self.lease(),
                    ttl: self.rng.random_range(100_000..200_000),
                });
            }
            53..57 => request.lease_revoke = Some(LeaseRevokeRequest { id: self.lease() }),
            57..60 => request.lease_checkpoint = Some(self.lease_checkpoint()),
            60..75 => request.delete_range = Some(self.delete()),
            75..92 => {
                let ops = self.rng.random_range(1..6);
                let success = (0..ops).map(|_| self.op()).collect();
                request.txn = Some(TxnRequest {
                    success,
                    ..TxnRequest::default()
                });
            }
            _ => {
                let revision = if revision > compacted.max(1) {
                    self.rng.random_range(compacted.max(1)..=revision)
                } else {
                    revision
                };
                request.compaction = Some(CompactionRequest {
                    revision,
                    physical: false,
                });
            }
        }
        request
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!(
            "/registry/{:04}",
            self.rng.random_range(0..self.keys)
        ))
    }

    fn lease(&mut self) -> i64 {
        [-1, 1, 2][self.rng.random_range(0..3)]
    }

    fn lease_checkpoint(&mut self) -> LeaseCheckpointRequest {
        let checkpoint = LeaseCheckpoint {
            id: self.lease(),
            remaining_ttl: self.rng.random_range(0..100_000),
        };
        LeaseCheckpointRequest {
            checkpoints: vec![checkpoint],
        }
    }

    fn put(&mut self) -> PutRequest {
        let length = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(2000..7000),
            _ => self.rng.random_range(0..200),
        };
        let value: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
        PutRequest {
            key: self.key(),
            value: Bytes::from(value),
            lease: if self.rng.random_bool(0.4) {
                self.lease()
            } else {
                0
            },
            ..PutRequest::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        let range_end = if self.rng.random_bool(0.3) {
            self.key()
        } else {
            Bytes::new()
        };
        DeleteRangeRequest {
            key,
            range_end,
            prev_kv: false,
        }
    }

    fn op(&mut self) -> RequestOp {
        let request = if self.rng.random_bool(0.7) {
            Request::RequestPut(self.put())
        } else {
            Request::RequestDeleteRange(self.delete())
        };
        RequestOp {
            request: Some(request),
        }
    }
}

/// The state after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct After {
    revision: i64,
    compacted: i64,
    /// Id, lease, keys in order.
    leases: Vec<(LeaseId, Lease, Vec<Bytes>)>,
}

impl After {
    fn of(state: &State) -> Self {
        let leases = state.leases();
        let with_keys = leases.iter().map(|(id, lease)| {
            let keys = leases.keys(id).map(Bytes::copy_from_slice).collect();
            (id, lease, keys)
        });
        Self {
            revision: state.store().revision(),
            compacted: state.store().compacted(),
            leases: with_keys.collect(),
        }
    }
}

/// The states of an undisturbed run.
#[derive(Debug, Default)]
pub struct Reference {
    /// `after[n]` is the state after `n` writes.
    after: Vec<After>,
    rows: BTreeMap<(i64, i64), Row>,
}

impl Reference {
    /// Remembers the state that an undisturbed member is in.
    pub fn record(&mut self, state: &State) {
        let revision = state.store().revision();
        let known = self.after.last().map_or(0, |after| after.revision);
        let view = state.view();
        for (_, change) in view.index.changes(&KeyRange::all(), known, revision) {
            let (revision, tombstone) = (change.revision, change.tombstone);
            let row = view.recent.get(revision).cloned().unwrap_or_else(|| {
                let reader = view
                    .page
                    .reader()
                    .expect("the undisturbed disk can be read");
                let record = reader
                    .row(revision, tombstone)
                    .expect("the row was just applied");
                Row {
                    revision,
                    tombstone,
                    record,
                }
            });
            self.rows.insert((revision.main, revision.sub), row);
        }
        self.after.push(After::of(state));
    }

    /// How many writes are remembered.
    pub fn writes(&self) -> usize {
        self.after.len().saturating_sub(1)
    }

    /// Checks that `state` is the one after some number of writes in `least..=most`, to the byte,
    /// at every revision that can still be read. Returns that number.
    ///
    /// # Panics
    /// It is not.
    pub fn check(&self, state: &State, least: usize, most: usize, context: &str) -> usize {
        let store = state.store();
        let is = After::of(state);
        let writes = (least..=most)
            .find(|writes| self.after[*writes] == is)
            .unwrap_or_else(|| {
                panic!("{context}: {is:?} is not a state after {least} to {most} writes")
            });
        store.index().check_invariants();
        store.leases().check_invariants();
        let view = state.view();
        for revision in is.compacted.max(1)..=is.revision {
            let all = Bytes::from_static(b"\0");
            let request = RangeRequest {
                key: all.clone(),
                range_end: all,
                revision,
                ..RangeRequest::default()
            };
            let read = view.range(&request).unwrap_or_else(|error| {
                panic!(
                    "{context}: revision {revision} cannot be read after {writes} writes: {error}"
                )
            });
            let expected = self.pairs(revision);
            assert_eq!(
                read.kvs, expected,
                "{context}: revision {revision} after {writes} writes"
            );
        }
        writes
    }

    /// Checks the digest of a state whose compactions are finished.
    ///
    /// # Panics
    /// It is not that of the rows which must be there.
    pub fn check_digest(&self, state: &State, context: &str) {
        assert!(
            !state.compacting(),
            "{context}: the digest is known only when compactions are finished"
        );
        let (revision, compacted) = (state.store().revision(), state.store().compacted());
        let kept = self.survivors(revision, compacted);
        let digest = kept.iter().fold(0u64, |digest, row| {
            let id = RowId {
                revision: row.revision,
                tombstone: row.tombstone,
            };
            digest.wrapping_add(record_digest(id, &row.record).expect("a revision has a key"))
        });
        assert_eq!(
            state.digest(),
            digest,
            "{context}: at {revision}, compacted at {compacted}"
        );
    }

    /// The encoded pairs at a revision, in key order.
    fn pairs(&self, revision: i64) -> Vec<Bytes> {
        let mut newest: BTreeMap<Bytes, &Row> = BTreeMap::new();
        for row in self.rows.range(..(revision + 1, 0)).map(|(_, row)| row) {
            newest.insert(key(row), row);
        }
        newest
            .into_values()
            .filter(|row| !row.tombstone)
            .map(|row| row.record.clone())
            .collect()
    }

    /// The rows that a compaction leaves (spec mvcc.md section 6).
    fn survivors(&self, revision: i64, compacted: i64) -> Vec<&Row> {
        let mut decided = BTreeSet::new();
        let mut kept = Vec::new();
        for ((main, _), row) in self.rows.range(..(revision + 1, 0)).rev() {
            let newest = *main <= compacted && decided.insert(key(row));
            if *main > compacted || newest && (!row.tombstone || *main == compacted) {
                kept.push(row);
            }
        }
        kept
    }
}

fn key(row: &Row) -> Bytes {
    KeyValue::decode(row.record.clone())
        .expect("a record that was just written decodes")
        .key
}
