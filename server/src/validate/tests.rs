//! Each row of spec/validation.md sections 4.1 to 4.5, and the overlap rules against a naive model.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::Compare;
use proptest::prelude::*;

use super::*;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn get(key: &str) -> RequestOp {
    op(Request::RequestRange(RangeRequest {
        key: bytes(key),
        ..Default::default()
    }))
}

fn get_local(key: &str) -> RequestOp {
    let key = bytes(key);
    op(Request::RequestRange(RangeRequest {
        key,
        serializable: true,
        ..Default::default()
    }))
}

fn put_op(key: &str) -> RequestOp {
    op(Request::RequestPut(PutRequest {
        key: bytes(key),
        ..Default::default()
    }))
}

fn delete(key: &str, range_end: &str) -> RequestOp {
    let (key, range_end) = (bytes(key), bytes(range_end));
    op(Request::RequestDeleteRange(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    }))
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest {
        compare: vec![],
        success,
        failure,
    }))
}

fn compare(key: &str) -> Compare {
    Compare {
        key: bytes(key),
        ..Default::default()
    }
}

fn branch(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..Default::default()
    }
}

fn check_txn(request: TxnRequest) -> Checked {
    txn(&request, 128)
}

const NOT_GIVEN: RequestOp = RequestOp { request: None };

#[test]
fn range_wants_a_key_then_a_known_order_then_a_known_target() {
    let ok = RangeRequest {
        key: bytes("k"),
        ..Default::default()
    };
    assert_eq!(range(&ok), Ok(()));
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (0, -1)] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            ..ok.clone()
        };
        assert_eq!(
            range(&request),
            Err(InvalidSortOption),
            "{sort_order} {sort_target}"
        );
        let keyless = RangeRequest {
            key: Bytes::new(),
            ..request
        };
        assert_eq!(range(&keyless), Err(EmptyKey));
    }
    for (sort_order, sort_target) in [(0, 4), (2, 0), (1, 3)] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            ..ok.clone()
        };
        assert_eq!(range(&request), Ok(()), "{sort_order} {sort_target}");
    }
    let nonsense = RangeRequest {
        revision: -5,
        limit: -1,
        ..ok
    };
    assert_eq!(
        range(&nonsense),
        Ok(()),
        "revision and limit are not checked here"
    );
}

#[test]
fn range_stream_goes_in_key_order_without_filters() {
    let ok = RangeRequest {
        key: bytes("k"),
        ..Default::default()
    };
    let order = "RangeStream does not support custom sort orders";
    let filter = "RangeStream does not support revision filters";
    let refused = |request: &RangeRequest| range_stream(request).expect_err("refused");
    for (sort_order, sort_target) in [(0, 0), (1, 0), (0, 2)] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            ..ok.clone()
        };
        assert_eq!(range_stream(&request), Ok(()), "{sort_order} {sort_target}");
    }
    for (sort_order, sort_target) in [(2, 0), (1, 1), (2, 4)] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            max_mod_revision: 1,
            ..ok.clone()
        };
        assert_eq!(refused(&request), Error::status(Code::Unimplemented, order));
    }
    for request in [
        RangeRequest {
            min_mod_revision: 1,
            ..ok.clone()
        },
        RangeRequest {
            max_mod_revision: -1,
            ..ok.clone()
        },
        RangeRequest {
            min_create_revision: 1,
            ..ok.clone()
        },
        RangeRequest {
            max_create_revision: 1,
            ..ok.clone()
        },
    ] {
        assert_eq!(
            refused(&request),
            Error::status(Code::Unimplemented, filter)
        );
    }
    let unknown = RangeRequest {
        sort_order: 9,
        ..ok
    };
    assert_eq!(refused(&unknown), InvalidSortOption.into());
    assert_eq!(refused(&RangeRequest::default()), EmptyKey.into());
}

#[test]
fn put_wants_a_key_then_no_value_then_no_lease_when_they_are_ignored() {
    let all_wrong = PutRequest {
        value: bytes("v"),
        lease: 7,
        ignore_value: true,
        ignore_lease: true,
        ..Default::default()
    };
    assert_eq!(put(&all_wrong), Err(EmptyKey));
    let keyed = PutRequest {
        key: bytes("k"),
        ..all_wrong
    };
    assert_eq!(put(&keyed), Err(ValueProvided));
    let valueless = PutRequest {
        value: Bytes::new(),
        ..keyed
    };
    assert_eq!(put(&valueless), Err(LeaseProvided));
    let leaseless = PutRequest {
        lease: 0,
        ..valueless
    };
    assert_eq!(put(&leaseless), Ok(()));
    let plain = PutRequest {
        key: bytes("k"),
        value: bytes("v"),
        lease: 7,
        ..Default::default()
    };
    assert_eq!(put(&plain), Ok(()));
}

#[test]
fn delete_range_wants_a_key() {
    assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(EmptyKey));
    let ok = DeleteRangeRequest {
        key: bytes("k"),
        ..Default::default()
    };
    assert_eq!(delete_range(&ok), Ok(()));
}

#[test]
fn txn_limits_the_longest_list_before_it_looks_at_any_op() {
    for (compares, successes, failures) in [(3, 0, 0), (0, 3, 0), (0, 0, 3)] {
        let request = TxnRequest {
            compare: vec![Compare::default(); compares],
            success: vec![NOT_GIVEN; successes],
            failure: vec![NOT_GIVEN; failures],
        };
        assert_eq!(txn(&request, 2), Err(TooManyOps));
        assert_ne!(txn(&request, 3), Err(TooManyOps));
    }
    let request = TxnRequest {
        compare: vec![compare("a"); 2],
        success: vec![get("a"); 2],
        failure: vec![get("a"); 2],
    };
    assert_eq!(txn(&request, 2), Ok(()), "the lists are not added up");
    assert_eq!(txn(&TxnRequest::default(), 0), Ok(()));
}

#[test]
fn nested_txns_get_what_the_outer_level_left() {
    // Widest list: 2 outside, then 1, then 1.
    let inner = nested(vec![nested(vec![get("a")], vec![])], vec![]);
    let request = branch(vec![inner, get("a")]);
    assert_eq!(txn(&request, 4), Ok(()));
    assert_eq!(txn(&request, 3), Err(TooManyOps));
    // Siblings do not share: each gets all that is left.
    let siblings = branch(vec![nested(vec![get("a"); 2], vec![]); 3]);
    assert_eq!(txn(&siblings, 5), Ok(()));
    assert_eq!(txn(&siblings, 4), Err(TooManyOps));
}

#[test]
fn nesting_ends_where_the_ops_end() {
    let mut request = branch(vec![get("a")]);
    for _ in 1..128 {
        request = branch(vec![op(Request::RequestTxn(request))]);
    }
    assert_eq!(check_txn(request.clone()), Ok(()));
    let deeper = branch(vec![op(Request::RequestTxn(request))]);
    assert_eq!(check_txn(deeper), Err(TooManyOps));
}

#[test]
fn txn_checks_compares_then_success_then_failure() {
    let bad_put = op(Request::RequestPut(PutRequest {
        key: bytes("k"),
        value: bytes("v"),
        ignore_value: true,
        ..Default::default()
    }));
    let bad_lease = op(Request::RequestPut(PutRequest {
        key: bytes("k"),
        lease: 1,
        ignore_lease: true,
        ..Default::default()
    }));
    let bad_sort = op(Request::RequestRange(RangeRequest {
        key: bytes("k"),
        sort_order: 7,
        ..Default::default()
    }));
    let mut request = TxnRequest {
        compare: vec![compare("a"), compare("")],
        success: vec![get("a"), bad_put.clone()],
        failure: vec![NOT_GIVEN, bad_lease],
    };
    assert_eq!(check_txn(request.clone()), Err(EmptyKey));
    request.compare.clear();
    assert_eq!(check_txn(request.clone()), Err(ValueProvided));
    request.success.clear();
    assert_eq!(check_txn(request.clone()), Err(KeyNotFound));
    request.failure.remove(0);
    assert_eq!(check_txn(request), Err(LeaseProvided));
    assert_eq!(check_txn(branch(vec![delete("", "")])), Err(EmptyKey));
    assert_eq!(check_txn(branch(vec![bad_sort])), Err(InvalidSortOption));
    // The nested op comes where it stands, and before any overlap is looked for.
    let mixed = branch(vec![nested(vec![], vec![NOT_GIVEN]), bad_put]);
    assert_eq!(check_txn(mixed), Err(KeyNotFound));
    let overlapping = branch(vec![put_op("a"), put_op("a"), get("")]);
    assert_eq!(check_txn(overlapping), Err(EmptyKey));
}

#[test]
fn a_key_is_put_once_and_not_deleted_in_one_branch() {
    let duplicate = Err(DuplicateKey);
    assert_eq!(check_txn(branch(vec![put_op("a"), put_op("a")])), duplicate);
    assert_eq!(
        check_txn(branch(vec![put_op("a"), delete("a", "")])),
        duplicate
    );
    assert_eq!(
        check_txn(branch(vec![delete("a", ""), put_op("a")])),
        duplicate
    );
    assert_eq!(
        check_txn(branch(vec![put_op("b"), delete("a", "c")])),
        duplicate
    );
    assert_eq!(
        check_txn(branch(vec![put_op("a"), delete("a", "c")])),
        duplicate
    );
    assert_eq!(
        check_txn(branch(vec![put_op("c"), delete("a", "c")])),
        Ok(())
    );
    let in_failure = TxnRequest {
        failure: vec![put_op("a"), put_op("a")],
        ..Default::default()
    };
    assert_eq!(check_txn(in_failure), duplicate);
    let one_each = TxnRequest {
        success: vec![put_op("a")],
        failure: vec![put_op("a"), delete("b", "")],
        ..Default::default()
    };
    assert_eq!(check_txn(one_each), Ok(()), "only one branch runs");
}

#[test]
fn deletes_overlap_deletes_and_ranges_overlap_anything() {
    let ops = vec![
        delete("a", "c"),
        delete("b", "d"),
        delete("b", ""),
        get("b"),
        get("b"),
    ];
    assert_eq!(check_txn(branch(ops)), Ok(()));
    assert_eq!(
        check_txn(branch(vec![get("a"), put_op("a"), get("a")])),
        Ok(())
    );
}

#[test]
fn a_delete_to_the_end_or_backwards_never_overlaps() {
    assert_eq!(
        check_txn(branch(vec![delete("a", "\0"), put_op("b")])),
        Ok(())
    );
    assert_eq!(
        check_txn(branch(vec![delete("\0", "\0"), put_op("a")])),
        Ok(())
    );
    assert_eq!(
        check_txn(branch(vec![delete("c", "a"), put_op("b")])),
        Ok(())
    );
    assert_eq!(
        check_txn(branch(vec![delete("a", "a"), put_op("a")])),
        Ok(())
    );
}

#[test]
fn both_branches_of_one_nested_txn_may_put_a_key_but_siblings_may_not() {
    let either = nested(vec![put_op("a")], vec![put_op("a")]);
    assert_eq!(check_txn(branch(vec![either.clone()])), Ok(()));
    assert_eq!(
        check_txn(branch(vec![either.clone(), put_op("a")])),
        Err(DuplicateKey)
    );
    let sibling = nested(vec![], vec![put_op("a")]);
    assert_eq!(check_txn(branch(vec![either, sibling])), Err(DuplicateKey));
}

#[test]
fn own_deletes_count_for_all_nested_puts() {
    let inner = nested(vec![], vec![put_op("b")]);
    assert_eq!(
        check_txn(branch(vec![inner.clone(), delete("a", "c")])),
        Err(DuplicateKey)
    );
    assert_eq!(
        check_txn(branch(vec![delete("a", "c"), inner.clone()])),
        Err(DuplicateKey)
    );
    let deeper = nested(vec![inner], vec![]);
    assert_eq!(
        check_txn(branch(vec![deeper, delete("b", "")])),
        Err(DuplicateKey)
    );
}

#[test]
fn nested_deletes_count_for_later_siblings_and_the_parent_only() {
    let deletes = nested(vec![delete("a", "c")], vec![]);
    let puts = nested(vec![put_op("b")], vec![]);
    let later = branch(vec![deletes.clone(), puts.clone()]);
    assert_eq!(check_txn(later), Err(DuplicateKey));
    let earlier = branch(vec![puts, deletes.clone()]);
    assert_eq!(check_txn(earlier), Ok(()));
    assert_eq!(
        check_txn(branch(vec![put_op("b"), deletes])),
        Err(DuplicateKey)
    );
    let exclusive = nested(vec![delete("a", "c")], vec![put_op("b")]);
    assert_eq!(check_txn(branch(vec![exclusive])), Ok(()));
}

#[test]
fn read_only_is_all_ranges_and_serializable_all_local() {
    let request = |success, failure| TxnRequest {
        compare: vec![],
        success,
        failure,
    };
    for (request, read_only, serializable) in [
        (request(vec![], vec![]), true, true),
        (request(vec![get("a")], vec![get_local("a")]), true, false),
        (
            request(vec![get_local("a")], vec![get_local("a")]),
            true,
            true,
        ),
        (
            request(vec![get_local("a")], vec![put_op("a")]),
            false,
            false,
        ),
        (request(vec![delete("a", "")], vec![]), false, false),
        (request(vec![nested(vec![], vec![])], vec![]), false, false),
        (request(vec![NOT_GIVEN], vec![]), false, false),
    ] {
        assert_eq!(is_read_only(&request), read_only, "{request:?}");
        assert_eq!(all_serializable(&request), serializable, "{request:?}");
    }
    let compare_only = TxnRequest {
        compare: vec![compare("a")],
        ..Default::default()
    };
    assert!(is_read_only(&compare_only) && all_serializable(&compare_only));
}

/// The rules of 4.5 step 3 with lists and nothing clever.
mod naive {
    use super::*;

    type Ranges = Vec<(Vec<u8>, Vec<u8>)>;

    fn hit(deletes: &Ranges, key: &[u8]) -> bool {
        deletes
            .iter()
            .any(|(start, end)| start.as_slice() <= key && key < end.as_slice())
    }

    pub(super) fn branch(ops: &[RequestOp]) -> Option<(Vec<Vec<u8>>, Ranges)> {
        let (mut puts, mut deletes) = (Vec::new(), Ranges::new());
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                let end = if delete.range_end.is_empty() {
                    [&delete.key[..], b"\0"].concat()
                } else {
                    delete.range_end.to_vec()
                };
                deletes.push((delete.key.to_vec(), end));
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                let (then_puts, then_deletes) = branch(&txn.success)?;
                let (else_puts, else_deletes) = branch(&txn.failure)?;
                let before = puts.clone();
                for key in then_puts.into_iter().chain(else_puts) {
                    if before.contains(&key) || hit(&deletes, &key) {
                        return None;
                    }
                    puts.push(key);
                }
                deletes.extend(then_deletes);
                deletes.extend(else_deletes);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                if puts.iter().any(|key| *key == put.key) || hit(&deletes, &put.key) {
                    return None;
                }
                puts.push(put.key.to_vec());
            }
        }
        Some((puts, deletes))
    }
}

fn any_op() -> impl Strategy<Value = RequestOp> {
    let key = "[a-h]{1,2}";
    let leaf = prop_oneof![
        3 => key.prop_map(|key| put_op(&key)),
        2 => (key, prop_oneof![Just(String::new()), Just("\0".into()), key.boxed()])
            .prop_map(|(key, end)| delete(&key, &end)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let ops = prop::collection::vec(inner, 0..4);
        (ops.clone(), ops).prop_map(|(success, failure)| nested(success, failure))
    })
}

proptest! {
    #[test]
    fn overlaps_are_those_of_the_naive_rules(ops in prop::collection::vec(any_op(), 0..6)) {
        let expected = match naive::branch(&ops) {
            Some(_) => Ok(()),
            None => Err(DuplicateKey),
        };
        prop_assert_eq!(check_txn(branch(ops)), expected);
    }
}
