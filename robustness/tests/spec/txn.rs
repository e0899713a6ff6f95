//! Section 4.5: Txn.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use crate::support::*;

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn get_op(key: &str) -> pb::RequestOp {
    op(Request::RequestRange(get(key)))
}

fn delete_op(key: &str, end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(delete(key, end)))
}

fn nested(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
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

fn version(key: &str, result: CompareResult, operand: i64) -> pb::Compare {
    compare(
        key,
        CompareTarget::Version,
        result,
        TargetUnion::Version(operand),
    )
}

fn value(key: &str, result: CompareResult, operand: &'static str) -> pb::Compare {
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
    ] {
        assert_eq!(holds(&member, row.clone()).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn s4_5_7_checks_of_the_taken_branch_only() {
    let member = Member::start().await;
    let mut kv = member.kv();
    for _ in 2..=4 {
        member.put("a", "1").await;
    }
    let at = |revision| {
        op(Request::RequestRange(pb::RangeRequest {
            revision,
            ..get("a")
        }))
    };
    let leased = op(Request::RequestPut(pb::PutRequest {
        lease: 99,
        ..put("b", "")
    }));
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
    let responses: Vec<_> = answer
        .responses
        .into_iter()
        .map(|op| op.response.unwrap())
        .collect();
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
