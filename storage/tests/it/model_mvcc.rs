//! Range, Put, DeleteRange, Txn, Compact and leases against the naive model, with checkpoints,
//! index pruning and restarts in between.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb::compare::TargetUnion;
use ferrite_api::pb::etcdserverpb::range_request::SortTarget;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, InternalRaftRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest,
};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::LeaseId;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::apply::read_only;
use ferrite_storage::mvcc::append_field;
use ferrite_storage::mvcc::list::{self, KVS, Listing, Run};
use ferrite_storage::mvcc::pins::Pin;
use ferrite_storage::mvcc::read::RangeError;
use ferrite_storage::state::overtaken;
use proptest::prelude::*;
use prost::Message;

use crate::harness::Harness;
use crate::model::Model;

#[derive(Clone, Debug)]
enum Step {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    /// Relative to the current revision, so that most are possible.
    Compact(i64),
    Range(RangeRequest),
    /// Begins a long read, in the place of the one before.
    Open(RangeRequest),
    /// Goes on with it: at most so many bytes, after renewing its root or resting or neither.
    Read(usize, Hold),
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke(i64),
    LeaseCheckpoint(Vec<(i64, i64)>),
    Checkpoint(usize),
    Restart,
}

/// What a long read does with its index root before it goes on.
#[derive(Clone, Copy, Debug)]
enum Hold {
    Keep,
    Renew,
    Rest,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(b'a'..b'd', 1..3).prop_map(Bytes::from),
        1 => Just(Bytes::from_static(b"\xff\xff")),
        1 => Just(Bytes::from_static(b"\0")),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just(Bytes::new()), 1 => Just(Bytes::from_static(b"\0")), 4 => key()]
}

/// Few, so that most are granted at some time; one is negative.
fn lease() -> impl Strategy<Value = i64> {
    -1i64..4
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(b'u'..b'z', 0..3).prop_map(Bytes::from),
        1 => (1900usize..6000).prop_map(|length| Bytes::from(vec![b'v'; length])),
    ]
}

prop_compose! {
    fn put()(
        key in key(),
        value in value(),
        lease in prop_oneof![5 => Just(0i64), 5 => lease()],
        prev_kv in any::<bool>(),
        ignore_value in prop::bool::weighted(0.2),
        ignore_lease in prop::bool::weighted(0.1),
    ) -> PutRequest {
        let value = if ignore_value { Bytes::new() } else { value };
        let lease = if ignore_lease { 0 } else { lease };
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv in any::<bool>()) -> DeleteRangeRequest {
        DeleteRangeRequest { key, range_end, prev_kv }
    }
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![12 => Just(0i64), 2 => 1i64..30, 1 => Just(i64::MAX)]
}

prop_compose! {
    fn range()(
        key in key(),
        range_end in range_end(),
        limit in prop_oneof![2 => Just(0i64), 1 => -2i64..6],
        revision in prop_oneof![4 => Just(0i64), 3 => -2i64..40],
        (sort_order, sort_target) in prop_oneof![2 => Just((0, 0)), 2 => (0i32..3, 0i32..5)],
        (keys_only, count_only) in (prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
        (min_mod_revision, max_mod_revision) in (bound(), bound()),
        (min_create_revision, max_create_revision) in (bound(), bound()),
    ) -> RangeRequest {
        RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
            serializable: false,
        }
    }
}

prop_compose! {
    fn compare()(
        key in key(),
        range_end in range_end(),
        target in 0i32..6,
        result in 0i32..5,
        number in 0i64..4,
        value in value(),
        kind in 0u8..6,
    ) -> Compare {
        let target_union = match kind {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(value)),
            4 => Some(TargetUnion::Lease(number)),
            _ => None,
        };
        Compare { result, target, key, range_end, target_union }
    }
}

fn op(depth: u32) -> BoxedStrategy<RequestOp> {
    let leaf = prop_oneof![
        2 => range().prop_map(Request::RequestRange),
        4 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
    ];
    let request = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![6 => leaf, 1 => txn(depth - 1).prop_map(Request::RequestTxn)].boxed()
    };
    request
        .prop_map(|request| RequestOp {
            request: Some(request),
        })
        .boxed()
}

fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let ops = move || prop::collection::vec(op(depth), 0..5);
    (prop::collection::vec(compare(), 0..3), ops(), ops())
        .prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
        .boxed()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => put().prop_map(Step::Put),
        3 => delete().prop_map(Step::Delete),
        6 => txn(2).prop_map(Step::Txn),
        2 => (-8i64..3).prop_map(Step::Compact),
        8 => range().prop_map(Step::Range),
        3 => range().prop_map(Step::Open),
        8 => (0usize..400, prop_oneof![4 => Just(Hold::Keep), 1 => Just(Hold::Renew), 1 => Just(Hold::Rest)])
            .prop_map(|(most, hold)| Step::Read(most, hold)),
        4 => (lease(), prop_oneof![5 => 1i64..100, 1 => Just(9_000_000_001)])
            .prop_map(|(id, ttl)| Step::Grant { id, ttl }),
        3 => lease().prop_map(Step::Revoke),
        2 => prop::collection::vec((lease(), 0i64..50), 1..3).prop_map(Step::LeaseCheckpoint),
        3 => (1usize..4).prop_map(Step::Checkpoint),
        1 => Just(Step::Restart),
    ]
}

/// In an order that is not that of the keys, too: those pairs wait in memory.
#[test]
fn a_piece_holds_no_more_than_it_may() {
    let put = |key: &'static [u8]| {
        let key = Bytes::from_static(key);
        Step::Put(PutRequest {
            key,
            ..Default::default()
        })
    };
    let by_version = RangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"\0"),
        sort_target: SortTarget::Version as i32,
        keys_only: true,
        ..Default::default()
    };
    run(vec![
        put(b"a"),
        put(b"b"),
        Step::Open(by_version),
        Step::Read(12, Hold::Keep),
        Step::Read(12, Hold::Keep),
        Step::Read(12, Hold::Keep),
    ]);
}

/// etcd cuts before it sorts, unless there is a bound, be it one that lets everything pass.
#[test]
fn a_bound_that_excludes_nothing_is_a_bound() {
    let mut steps: Vec<Step> = [(b"a", b"z"), (b"b", b"y"), (b"c", b"x"), (b"d", b"w")]
        .map(|(key, value)| {
            Step::Put(PutRequest {
                key: Bytes::from_static(key),
                value: Bytes::from_static(value),
                ..Default::default()
            })
        })
        .into();
    for bound in [0, i64::MAX] {
        steps.push(Step::Range(RangeRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"\0"),
            limit: 1,
            sort_target: SortTarget::Value as i32,
            max_create_revision: bound,
            ..Default::default()
        }));
    }
    run(steps);
}

fn run(steps: Vec<Step>) {
    let (mut store, mut model) = (Harness::new(), Model::new());
    let mut long = None;
    for step in steps {
        match step {
            Step::Open(request) => long = LongRead::open(&store, &model, &request),
            Step::Read(most, hold) => {
                long = long.and_then(|long: LongRead| long.read(&store, most, hold));
            }
            Step::Put(put) => {
                let expected = model.put(&put);
                let request = InternalRaftRequest {
                    put: Some(put),
                    ..Default::default()
                };
                let actual = store.apply(request).map(|response| match response {
                    Response::Put(outcome) => outcome.resolve(&store.state.view()).unwrap(),
                    other => panic!("{other:?} answers a put"),
                });
                assert_eq!(actual, expected);
            }
            Step::Delete(delete) => {
                let expected = model.delete(&delete);
                let request = InternalRaftRequest {
                    delete_range: Some(delete),
                    ..Default::default()
                };
                match store.apply(request).unwrap() {
                    Response::DeleteRange(outcome) => {
                        assert_eq!(outcome.resolve(&store.state.view()).unwrap(), expected);
                    }
                    other => panic!("{other:?} answers a delete"),
                }
            }
            Step::Txn(txn) => {
                if only_ranges(&txn) {
                    let expected = model.clone().txn(&txn);
                    let view = store.state.view();
                    let actual = read_only(&view, &txn)
                        .and_then(|outcome| outcome.resolve(&view))
                        .map_err(|error| answer(error, &model));
                    assert_eq!(actual, expected, "read-only {txn:?}");
                }
                let expected = model.txn(&txn);
                let request = InternalRaftRequest {
                    txn: Some(txn.clone()),
                    ..Default::default()
                };
                let actual = store.apply(request).map(|response| match response {
                    Response::Txn(outcome) => outcome.resolve(&store.state.view()).unwrap(),
                    other => panic!("{other:?} answers a txn"),
                });
                assert_eq!(actual, expected, "{txn:?}");
            }
            Step::Compact(offset) => {
                let revision = model.revision() + offset;
                let expected = model.compact(revision);
                let compaction = Some(CompactionRequest {
                    revision,
                    physical: false,
                });
                let request = InternalRaftRequest {
                    compaction,
                    ..Default::default()
                };
                assert_eq!(store.apply(request).map(drop), expected);
            }
            Step::Range(request) => check_range(&store, &model, &request),
            Step::Grant { id, ttl } => {
                let expected = model.grant(id, ttl);
                let actual = store.apply(grant(id, ttl)).map(|response| match response {
                    Response::LeaseGrant { id, ttl } => (id.get(), ttl),
                    other => panic!("{other:?} answers a grant"),
                });
                assert_eq!(actual, expected.map(|()| (id, ttl)));
            }
            Step::Revoke(id) => {
                let expected = model.revoke(id).map(|()| model.revision());
                let actual = store.apply(revoke(id)).map(|response| match response {
                    Response::LeaseRevoke { revision, .. } => revision,
                    other => panic!("{other:?} answers a revocation"),
                });
                assert_eq!(actual, expected);
            }
            Step::LeaseCheckpoint(left) => {
                for (id, remaining) in &left {
                    model.checkpoint(*id, *remaining);
                }
                store.apply(lease_checkpoint(&left)).unwrap();
            }
            Step::Checkpoint(remove_rows) => {
                store.checkpoint(remove_rows);
            }
            Step::Restart => {
                long = None;
                let before = store.state.digest();
                let compacting = store.state.compacting();
                store.restart();
                if !compacting {
                    assert_eq!(store.state.digest(), before, "digest across a restart");
                }
            }
        }
        assert_eq!(store.state.store().revision(), model.revision());
        assert_eq!(store.state.store().compacted(), model.compacted);
        check_leases(&store, &model);
        store.state.store().index().check_invariants();
    }
    drop(long);
    // Whatever is left of compactions ends, and every revision still reads the same.
    while store.checkpoint(3) || store.state.prune_step(1) {}
    assert!(!store.state.compacting());
    for revision in model.compacted.max(1)..=model.revision() {
        let all = Bytes::from_static(b"\0");
        let request = RangeRequest {
            key: all.clone(),
            range_end: all,
            revision,
            ..Default::default()
        };
        check_range(&store, &model, &request);
    }
    let report = store
        .state
        .store()
        .page()
        .verify(&mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(report.damage, []);
}

fn grant(id: i64, ttl: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl }),
        ..Default::default()
    }
}

fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    }
}

fn lease_checkpoint(left: &[(i64, i64)]) -> InternalRaftRequest {
    let checkpoints = left
        .iter()
        .map(|&(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl });
    InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: checkpoints.collect(),
        }),
        ..Default::default()
    }
}

fn check_leases(store: &Harness, model: &Model) {
    let leases = store.state.leases();
    leases.check_invariants();
    let actual: Vec<_> = leases
        .iter()
        .map(|(id, lease)| (id.get(), (lease.ttl, lease.remaining)))
        .collect();
    let expected: Vec<_> = model
        .leases
        .iter()
        .map(|(id, lease)| (*id, *lease))
        .collect();
    assert_eq!(actual, expected);
    for id in model.leases.keys() {
        let keys: Vec<_> = leases
            .keys(LeaseId::new(*id))
            .map(Bytes::copy_from_slice)
            .collect();
        assert_eq!(keys, model.keys_of(*id), "keys of lease {id}");
    }
}

fn check_range(store: &Harness, model: &Model, request: &RangeRequest) {
    let view = store.state.view();
    let actual = view
        .range(request)
        .map_err(|error| answer(error, model))
        .map(|range| {
            let kvs = range
                .kvs
                .iter()
                .map(|record| KeyValue::decode(record.clone()).unwrap())
                .collect();
            let header = Some(ResponseHeader {
                revision: view.revision,
                ..Default::default()
            });
            RangeResponse {
                header,
                kvs,
                more: range.more,
                count: range.count,
            }
        });
    assert_eq!(actual, model.range(request), "{request:?}");
}

/// A range that is read in pieces while the store changes.
struct LongRead {
    listing: Listing,
    at: i64,
    /// The pairs that have to come, in the form of an answer.
    expected: Bytes,
    pin: Option<Pin>,
}

impl LongRead {
    fn open(store: &Harness, model: &Model, request: &RangeRequest) -> Option<Self> {
        let view = store.state.view();
        let at = view.resolve(request.revision).ok()?;
        let listing = Listing::begin(&view, &view.index, at, request).unwrap();
        let answer = model.range(request).unwrap();
        assert_eq!(
            (listing.more(), listing.count()),
            (answer.more, answer.count)
        );
        let mut expected = BytesMut::new();
        for kv in &answer.kvs {
            append_field(KVS, &kv.encode_to_vec(), &mut expected);
        }
        assert_eq!(listing.left().count, answer.kvs.len() as u64);
        assert_eq!(listing.left().framed_bytes, expected.len() as u64);
        Some(Self {
            listing,
            at,
            expected: expected.freeze(),
            pin: Some(view.pins.pin(at)),
        })
    }

    /// Goes on, until the end or until a compaction took what is left.
    fn read(mut self, store: &Harness, most: usize, hold: Hold) -> Option<Self> {
        if self.listing.left().count == 0 {
            assert!(self.expected.is_empty());
            return None;
        }
        let view = store.state.view();
        match (hold, self.listing.run_mut()) {
            (Hold::Renew, Some(run)) => run.renew(&view),
            (Hold::Rest, run) => {
                self.pin = None;
                run.into_iter().for_each(Run::rest);
            }
            _ => {}
        }
        let mut piece = BytesMut::new();
        match self.listing.read(&view, most, &mut piece) {
            Ok(()) => {
                let pairs = list::pairs(piece.clone().freeze()).count();
                assert!(
                    pairs == 1 || piece.len() <= most,
                    "{pairs} of {} bytes",
                    piece.len()
                );
                assert_eq!(piece, self.expected.split_to(piece.len()));
                Some(self)
            }
            Err(error) => {
                let answer = overtaken(error, self.at, view.compacted).unwrap();
                assert_eq!(answer, Error::Compacted);
                None
            }
        }
    }
}

fn answer(error: RangeError, model: &Model) -> Error {
    overtaken(error, i64::MAX, model.compacted).unwrap()
}

fn only_ranges(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn store_equals_the_naive_model(steps in prop::collection::vec(step(), 1..60)) {
        run(steps);
    }
}

/// etcd panics on this one; nothing must be changed here (spec validation.md, last section).
#[test]
fn put_that_keeps_the_value_of_a_key_deleted_before_it_changes_nothing() {
    let key = Bytes::from_static(b"k");
    let put = PutRequest {
        key: key.clone(),
        value: Bytes::from_static(b"v"),
        ..Default::default()
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let keep = PutRequest {
        key: key.clone(),
        ignore_value: true,
        ..Default::default()
    };
    let other = PutRequest {
        key: Bytes::from_static(b"other"),
        ..Default::default()
    };
    let delete = DeleteRangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(other)),
            op(Request::RequestDeleteRange(delete)),
            op(Request::RequestPut(keep)),
        ],
        ..Default::default()
    };
    let mut store = Harness::new();
    store
        .apply(InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        })
        .unwrap();
    let digest = store.state.digest();
    let result = store.apply(InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    });
    assert_eq!(result.map(drop), Err(Error::KeyNotFound));
    assert_eq!(
        (store.state.store().revision(), store.state.digest()),
        (2, digest)
    );
    assert_eq!(store.state.store().index().len(), 1);
}
