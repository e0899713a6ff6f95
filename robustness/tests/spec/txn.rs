//! Section 4.5: Txn.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use crate::alarms::{alarm, quota};
use crate::support::*;

pub(crate) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

pub(crate) fn put_op(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

pub(crate) fn get_op(key: &str) -> pb::RequestOp {
    op(Request::RequestRange(get(key)))
}

pub(crate) fn delete_op(key: &str, end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(delete(key, end)))
}

/// A Range at this revision.
fn at(revision: i64) -> pb::RequestOp {
    op(Request::RequestRange(pb::RangeRequest {
        revision,
        ..get("a")
    }))
}

/// A Put that names a lease which nobody has granted.
fn without_its_lease() -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest {
        lease: 99,
        ..put("b", "")
    }))
}

/// What the operations have answered.
fn contents(responses: Vec<pb::ResponseOp>) -> Vec<Response> {
    let responses = responses.into_iter();
    responses.map(|op| op.response.unwrap()).collect()
}

pub(crate) fn nested(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

pub(crate) fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success,
        ..Default::default()
    }
}

fn compare(
    key: &str,
    target: CompareTarget,
    result: CompareResult,
    operand: TargetUnion,
) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: Bytes::from(key.to_owned()),
        target_union: Some(operand),
        ..Default::default()
    }
}

pub(crate) fn version(key: &str, result: CompareResult, operand: i64) -> pb::Compare {
    compare(
        key,
        CompareTarget::Version,
        result,
        TargetUnion::Version(operand),
    )
}

pub(crate) fn value(key: &str, result: CompareResult, operand: &'static str) -> pb::Compare {
    compare(
        key,
        CompareTarget::Value,
        result,
        TargetUnion::Value(operand.into()),
    )
}

async fn holds(member: &Member, compare: pb::Compare) -> bool {
    let txn = pb::TxnRequest {
        compare: vec![compare],
        ..Default::default()
    };
    member.kv().txn(txn).await.unwrap().into_inner().succeeded
}

#[tokio::test]
async fn s4_5_1_room_is_looked_for_before_anything_else_but_only_for_puts() {
    let member = Member::start_with(quota(1)).await;
    let mut kv = member.kv();
    // The larger branch counts, also if it is the other one, or nested.
    let costly = nested(then(vec![put_op("", "v")]));
    let in_failure = pb::TxnRequest {
        failure: vec![costly.clone()],
        ..Default::default()
    };
    for request in [then(vec![costly]), in_failure] {
        let answer = kv.txn(request).await;
        refused(answer, Code::ResourceExhausted, NO_SPACE);
    }
    let answer = kv.txn(then(vec![delete_op("", "")])).await;
    refused(answer, Code::InvalidArgument, EMPTY_KEY);
    kv.txn(then(vec![delete_op("a", "")])).await.unwrap();
}

#[tokio::test]
async fn s4_5_2_every_list_is_limited_and_the_longest_counts() {
    let member = Member::start().await;
    let gets = |count: usize| vec![get_op("k"); count];
    let txn = |compares: usize, success, failure| pb::TxnRequest {
        compare: vec![version("k", CompareResult::Equal, 0); compares],
        success: gets(success),
        failure: gets(failure),
    };
    for (request, fits) in [
        (txn(128, 128, 128), true),
        (txn(129, 0, 0), false),
        (txn(0, 129, 0), false),
        (txn(0, 0, 129), false),
        // What is nested has what the longest list of the outer level has left.
        (
            pb::TxnRequest {
                success: vec![nested(txn(1, 28, 27))],
                ..txn(100, 0, 0)
            },
            true,
        ),
        (
            pb::TxnRequest {
                failure: vec![nested(txn(1, 27, 29))],
                ..txn(100, 0, 0)
            },
            false,
        ),
    ] {
        let answer = member.kv().txn(request).await;
        if fits {
            answer.unwrap();
        } else {
            refused(answer, Code::InvalidArgument, TOO_MANY_OPS);
        }
    }
}

#[tokio::test]
async fn s4_5_2_all_ops_are_checked_before_any_overlap_and_before_what_they_would_find() {
    let member = Member::start().await;
    let mut kv = member.kv();
    let invalid = Code::InvalidArgument;
    let twice = vec![put_op("k", "1"), put_op("k", "2")];
    let request = pb::TxnRequest {
        success: twice.clone(),
        failure: vec![nested(then(vec![get_op("")]))],
        ..Default::default()
    };
    refused(kv.txn(request).await, invalid, EMPTY_KEY);
    let request = pb::TxnRequest {
        success: vec![at(99), put_op("a", "1")],
        failure: twice,
        ..Default::default()
    };
    refused(kv.txn(request).await, invalid, DUPLICATE_KEY);
}

/// Only what writes, whatever branch is taken, is a write; a nested Txn always is.
#[tokio::test]
async fn s4_5_4_what_only_reads_is_not_refused_as_a_write() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt);
    member.alarm(raise).await;
    let compare = pb::TxnRequest {
        compare: vec![value("a", CompareResult::Equal, "1")],
        ..Default::default()
    };
    let reads = pb::TxnRequest {
        success: vec![get_op("a")],
        failure: vec![get_op("b")],
        ..compare.clone()
    };
    for request in [compare, reads.clone()] {
        let answer = member.kv().txn(request).await.unwrap().into_inner();
        assert!(answer.succeeded);
        full(answer.header, 2);
    }
    let other_branch = pb::TxnRequest {
        failure: vec![delete_op("a", "")],
        ..reads.clone()
    };
    for request in [other_branch, then(vec![nested(reads)])] {
        let answer = member.kv().txn(request).await;
        refused(answer, Code::DataLoss, CORRUPT);
    }
}

#[tokio::test]
async fn s4_5_2_refusals_in_order() {
    let member = Member::start().await;
    let mut kv = member.kv();
    let invalid = Code::InvalidArgument;

    let many = (0..129).map(|n| get_op(&format!("k{n}"))).collect();
    refused(kv.txn(then(many)).await, invalid, TOO_MANY_OPS);
    // The count comes before every op.
    let many = (0..129).map(|_| get_op("")).collect();
    refused(kv.txn(then(many)).await, invalid, TOO_MANY_OPS);
    let most = (0..128).map(|n| get_op(&format!("k{n}"))).collect();
    assert_eq!(
        kv.txn(then(most))
            .await
            .unwrap()
            .into_inner()
            .responses
            .len(),
        128
    );
    // A nested level has what the outer one left.
    let inner: Vec<_> = (0..127).map(|n| get_op(&format!("k{n}"))).collect();
    kv.txn(then(vec![nested(then(inner.clone()))]))
        .await
        .unwrap();
    let two = vec![nested(then(inner)), get_op("k")];
    refused(kv.txn(then(two)).await, invalid, TOO_MANY_OPS);

    // A compare before an op, success before failure.
    let both = pb::TxnRequest {
        compare: vec![version("", CompareResult::Equal, 0)],
        success: vec![op(Request::RequestPut(pb::PutRequest {
            ignore_value: true,
            ..put("k", "v")
        }))],
        failure: vec![pb::RequestOp { request: None }],
    };
    refused(kv.txn(both.clone()).await, invalid, EMPTY_KEY);
    let ops = pb::TxnRequest {
        compare: vec![],
        ..both
    };
    refused(kv.txn(ops.clone()).await, invalid, VALUE_PROVIDED);
    let failure = pb::TxnRequest {
        success: vec![],
        ..ops
    };
    refused(kv.txn(failure).await, invalid, KEY_NOT_FOUND);
    for (bad, text) in [
        (get_op(""), EMPTY_KEY),
        (delete_op("", ""), EMPTY_KEY),
        (put_op("", ""), EMPTY_KEY),
        (
            op(Request::RequestRange(pb::RangeRequest {
                sort_order: 9,
                ..get("k")
            })),
            SORT_OPTION,
        ),
        (
            op(Request::RequestPut(pb::PutRequest {
                ignore_lease: true,
                lease: 1,
                ..put("k", "")
            })),
            LEASE_PROVIDED,
        ),
    ] {
        refused(kv.txn(then(vec![bad.clone()])).await, invalid, text);
        refused(
            kv.txn(then(vec![nested(then(vec![bad]))])).await,
            invalid,
            text,
        );
    }
}

#[tokio::test]
async fn s4_5_3_overlaps() {
    let member = Member::start().await;
    let branch = |ops: &[pb::RequestOp]| then(ops.to_vec());
    let in_both = nested(pb::TxnRequest {
        success: vec![put_op("k", "1")],
        failure: vec![put_op("k", "2")],
        ..Default::default()
    });
    let deletes = nested(then(vec![delete_op("k", "")]));
    let refusals = [
        branch(&[put_op("k", "1"), put_op("k", "2")]),
        branch(&[put_op("k", "1"), delete_op("a", "z")]),
        branch(&[delete_op("k", ""), put_op("k", "1")]),
        branch(&[in_both.clone(), in_both.clone()]),
        branch(&[in_both.clone(), put_op("k", "3")]),
        branch(&[in_both.clone(), delete_op("k", "")]),
        branch(&[deletes.clone(), in_both.clone()]),
        branch(&[deletes.clone(), put_op("k", "1")]),
    ];
    for request in refusals {
        let text = format!("{request:?}");
        let answer = member.kv().txn(request).await;
        let status = answer.expect_err(&text);
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, DUPLICATE_KEY),
            "{text}"
        );
    }
    for request in [
        branch(std::slice::from_ref(&in_both)),
        branch(&[in_both, deletes]),
        branch(&[delete_op("a", "z"), delete_op("k", "")]),
        branch(&[put_op("k", "1"), get_op("k"), get_op("k")]),
        branch(&[put_op("k", "1"), delete_op("a", "\0")]),
        pb::TxnRequest {
            success: vec![put_op("k", "1")],
            failure: vec![put_op("k", "1")],
            ..Default::default()
        },
    ] {
        let text = format!("{request:?}");
        member.kv().txn(request).await.expect(&text);
    }
}

#[tokio::test]
async fn s4_5_6_compares() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let member = Member::start().await;
    member.put("a", "5").await;
    member.put("a", "6").await;
    member.put("b", "7").await;
    let target = |target, result, operand| compare("a", target, result, operand);
    for (expected, row) in [
        (true, version("a", Equal, 2)),
        (false, version("a", NotEqual, 2)),
        (true, version("a", Greater, 1)),
        (true, version("a", Less, 3)),
        (
            true,
            target(CompareTarget::Create, Equal, TargetUnion::CreateRevision(2)),
        ),
        (
            true,
            target(CompareTarget::Mod, Equal, TargetUnion::ModRevision(3)),
        ),
        (
            true,
            target(CompareTarget::Lease, Equal, TargetUnion::Lease(0)),
        ),
        (true, value("a", Equal, "6")),
        (true, value("a", Greater, "55")),
        (true, value("a", Less, "60")),
        // No key: 0 for everything but the value, which compares as false.
        (true, version("x", Equal, 0)),
        (
            true,
            compare("x", CompareTarget::Mod, Less, TargetUnion::ModRevision(1)),
        ),
        (false, value("x", Equal, "")),
        (false, value("x", NotEqual, "1")),
        // An operand of another kind, or none: 0, or empty.
        (
            false,
            target(CompareTarget::Version, Equal, TargetUnion::ModRevision(2)),
        ),
        (
            true,
            target(CompareTarget::Version, Greater, TargetUnion::ModRevision(9)),
        ),
        (
            true,
            pb::Compare {
                target_union: None,
                ..value("a", Greater, "")
            },
        ),
        // Unknown numbers.
        (
            true,
            pb::Compare {
                result: 9,
                ..version("a", Equal, 77)
            },
        ),
        (
            true,
            pb::Compare {
                target: 9,
                ..version("a", Equal, 77)
            },
        ),
        // A range: for every key of it.
        (
            true,
            pb::Compare {
                range_end: "z".into(),
                ..value("a", Greater, "5")
            },
        ),
        (
            false,
            pb::Compare {
                range_end: "z".into(),
                ..value("a", Greater, "6")
            },
        ),
        (
            true,
            pb::Compare {
                range_end: "z".into(),
                ..version("x", Equal, 0)
            },
        ),
        // To the end, and one that holds nothing.
        (
            true,
            pb::Compare {
                range_end: "\0".into(),
                ..value("b", Equal, "7")
            },
        ),
        (
            false,
            pb::Compare {
                range_end: "\0".into(),
                ..version("a", Equal, 2)
            },
        ),
        (
            true,
            pb::Compare {
                range_end: "a".into(),
                ..version("b", Equal, 0)
            },
        ),
    ] {
        assert_eq!(holds(&member, row.clone()).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn s4_5_6_nested_compares_see_the_state_before_the_txn() {
    let member = Member::start().await;
    let missing = |key: &str, success: &str, failure: &str| {
        nested(pb::TxnRequest {
            compare: vec![version(key, CompareResult::Equal, 0)],
            success: vec![put_op(success, "")],
            failure: vec![put_op(failure, "")],
        })
    };
    let request = then(vec![
        put_op("a", "1"),
        missing("a", "a was missing", "a was there"),
        missing("a was missing", "both", "one"),
    ]);
    let answer = member.kv().txn(request).await.unwrap().into_inner();
    let succeeded: Vec<_> = answer.responses[1..]
        .iter()
        .map(|op| match op.response.as_ref().unwrap() {
            Response::ResponseTxn(nested) => nested.succeeded,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(succeeded, [true, true]);
    let all = member.kv().range(range("\0", "\0")).await.unwrap();
    assert_eq!(keys(&all.into_inner().kvs), ["a", "a was missing", "both"]);
}

#[tokio::test]
async fn s4_5_7_checks_are_of_the_state_before_the_txn_and_in_the_order_of_the_ops() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let mut kv = member.kv();
    let leased = without_its_lease();
    // 3 is what the put makes.
    let (range, lease) = (Code::OutOfRange, Code::NotFound);
    let answer = kv.txn(then(vec![put_op("a", "2"), at(3)])).await;
    refused(answer, range, FUTURE);
    let inner = |op: &pb::RequestOp| nested(then(vec![op.clone()]));
    for (first, second) in [(at(3), leased.clone()), (inner(&at(3)), inner(&leased))] {
        let answer = kv.txn(then(vec![first.clone(), second.clone()])).await;
        refused(answer, range, FUTURE);
        let answer = kv.txn(then(vec![second, first])).await;
        refused(answer, lease, LEASE_NOT_FOUND);
    }
    // Nested ones on the path that is taken, and only there.
    let branches = |success, failure| {
        nested(pb::TxnRequest {
            success: vec![success],
            failure: vec![failure],
            ..Default::default()
        })
    };
    let answer = kv.txn(then(vec![branches(leased.clone(), get_op("a"))]));
    refused(answer.await, lease, LEASE_NOT_FOUND);
    kv.txn(then(vec![branches(get_op("a"), leased)]))
        .await
        .unwrap();
    // Also where nothing is written.
    refused(kv.txn(then(vec![at(3)])).await, range, FUTURE);
    assert_eq!(member.pair("a").await.unwrap().mod_revision, 2);
}

/// Before the first compaction its revision is -1.
#[tokio::test]
async fn s4_5_7_negative_revisions_mostly_fail() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let at = |revision| then(vec![at(revision)]);
    let mut kv = member.kv();
    for revision in [-2, i64::MIN] {
        refused(kv.txn(at(revision)).await, Code::OutOfRange, COMPACTED);
    }
    for revision in [-1, 0] {
        kv.txn(at(revision)).await.unwrap();
    }
    let zero = pb::CompactionRequest::default();
    kv.compact(zero).await.unwrap();
    refused(kv.txn(at(-1)).await, Code::OutOfRange, COMPACTED);
}

#[tokio::test]
async fn s4_5_ops_are_answered_as_alone() {
    let member = Member::start().await;
    for key in ["a", "b", "c"] {
        member.put(key, "1").await;
    }
    let request = then(vec![
        op(Request::RequestRange(pb::RangeRequest {
            limit: 2,
            ..range("a", "z")
        })),
        op(Request::RequestPut(pb::PutRequest {
            prev_kv: true,
            ..put("a", "2")
        })),
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            prev_kv: true,
            ..delete("b", "z")
        })),
        op(Request::RequestRange(pb::RangeRequest {
            count_only: true,
            ..range("a", "z")
        })),
    ]);
    let answer = member.kv().txn(request).await.unwrap().into_inner();
    let responses = contents(answer.responses);
    let [
        Response::ResponseRange(page),
        Response::ResponsePut(put),
        Response::ResponseDeleteRange(deleted),
        Response::ResponseRange(counted),
    ] = &responses[..]
    else {
        panic!("{responses:?}");
    };
    assert_eq!(keys(&page.kvs), ["a", "b"]);
    assert_eq!((page.more, page.count), (true, 3));
    let previous = put.prev_kv.as_ref().unwrap();
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"1"[..], 2));
    assert_eq!(deleted.deleted, 2);
    assert_eq!(keys(&deleted.prev_kvs), ["b", "c"]);
    assert_eq!((counted.kvs.len(), counted.count), (0, 1));
}

#[tokio::test]
async fn s4_5_7_checks_of_the_taken_branch_only() {
    let member = Member::start().await;
    let mut kv = member.kv();
    for _ in 2..=4 {
        member.put("a", "1").await;
    }
    let leased = without_its_lease();
    let missing = op(Request::RequestPut(pb::PutRequest {
        ignore_value: true,
        ..put("none", "")
    }));
    let compaction = pb::CompactionRequest {
        revision: 3,
        physical: false,
    };
    kv.compact(compaction).await.unwrap();
    for (bad, code, text) in [
        (at(5), Code::OutOfRange, FUTURE),
        (at(2), Code::OutOfRange, COMPACTED),
        (at(-1), Code::OutOfRange, COMPACTED),
        (leased, Code::NotFound, LEASE_NOT_FOUND),
        (missing, Code::InvalidArgument, KEY_NOT_FOUND),
    ] {
        // Nothing of a txn that is refused is applied, whatever came before.
        let taken = then(vec![put_op("c", "1"), bad.clone()]);
        refused(kv.txn(taken).await, code, text);
        let not_taken = pb::TxnRequest {
            success: vec![get_op("a")],
            failure: vec![put_op("c", "1"), bad],
            ..Default::default()
        };
        assert!(kv.txn(not_taken).await.unwrap().into_inner().succeeded);
    }
    assert_eq!(member.pair("c").await, None);
    full(kv.range(get("c")).await.unwrap().into_inner().header, 4);
}

#[tokio::test]
async fn s4_5_8_one_revision_and_headers() {
    let member = Member::start().await;
    member.put("z", "0").await;
    let request = then(vec![
        get_op("a"),
        put_op("a", "1"),
        get_op("a"),
        delete_op("x", ""),
        nested(then(vec![put_op("b", "2"), delete_op("z", "")])),
        get_op("z"),
    ]);
    let answer = member.kv().txn(request).await.unwrap().into_inner();
    assert!(answer.succeeded);
    full(answer.header, 3);
    let revision_only = |header: Option<pb::ResponseHeader>| {
        let header = header.unwrap();
        let expected = pb::ResponseHeader {
            revision: header.revision,
            ..Default::default()
        };
        assert_eq!(header, expected, "the header of an op has a revision only");
        header.revision
    };
    let responses = contents(answer.responses);
    let [
        Response::ResponseRange(before),
        Response::ResponsePut(put),
        Response::ResponseRange(between),
        Response::ResponseDeleteRange(none),
        Response::ResponseTxn(inner),
        Response::ResponseRange(after),
    ] = &responses[..]
    else {
        panic!("{responses:?}");
    };
    assert_eq!((revision_only(before.header), before.count), (2, 0));
    assert_eq!(revision_only(put.header), 3);
    assert_eq!((revision_only(between.header), between.count), (3, 1));
    assert_eq!((revision_only(none.header), none.deleted), (3, 0));
    assert_eq!(inner.header, Some(pb::ResponseHeader::default()));
    assert!(inner.succeeded);
    assert_eq!((revision_only(after.header), after.count), (3, 0));
    assert_eq!(member.pair("b").await.unwrap().mod_revision, 3);

    // An empty branch has an empty list, and no revision of its own.
    let failed = pb::TxnRequest {
        compare: vec![version("b", CompareResult::Equal, 0)],
        success: vec![put_op("b", "3")],
        failure: vec![],
    };
    let answer = member.kv().txn(failed).await.unwrap().into_inner();
    assert_eq!((answer.succeeded, answer.responses.len()), (false, 0));
    full(answer.header, 3);
}

#[tokio::test]
async fn what_kills_etcd_is_answered() {
    let member = Member::start().await;
    member.put("k", "1").await;
    let request = then(vec![
        delete_op("a", "\0"),
        op(Request::RequestPut(pb::PutRequest {
            ignore_value: true,
            ..put("k", "")
        })),
    ]);
    refused(
        member.kv().txn(request).await,
        Code::InvalidArgument,
        KEY_NOT_FOUND,
    );
    assert_eq!(member.pair("k").await.unwrap().value, "1");
}
