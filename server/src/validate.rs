//! What the answering member checks in a KV request before it does anything with it
//! (spec/validation.md sections 4.1 to 4.5): pure functions of the request, in etcd's order, so
//! that a request with several faults gets the same error from both.
//!
//! Left to others: quota and credentials (they need state), revisions and leases (checked where
//! the request executes), message size and UTF-8 (checked where it is decoded).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Bound;

use ferrite_api::Error::{
    DuplicateKey, EmptyKey, InvalidSortOption, KeyNotFound, LeaseProvided, TooManyOps,
    ValueProvided,
};
use ferrite_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::Code;

use crate::error::Error;

/// What the checks of the table answer.
type Checked = Result<(), ferrite_api::Error>;

/// The checks of Range, alone or in a Txn (4.1 steps 1 to 3).
///
/// # Errors
/// `EmptyKey`, `InvalidSortOption`.
pub fn range(request: &RangeRequest) -> Checked {
    if request.key.is_empty() {
        return Err(EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(InvalidSortOption);
    }
    Ok(())
}

/// The checks of RangeStream (4.2 steps 1 to 5).
///
/// A sort target without a sort order passes, as in etcd, where it makes chunks overlap; whoever
/// streams must ignore the target.
///
/// # Errors
/// As [`range`], then `UNIMPLEMENTED` for what a stream in key order cannot do.
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    range(request)?;
    let key_order = request.sort_order == SortOrder::None as i32
        || (request.sort_order == SortOrder::Ascend as i32
            && request.sort_target == SortTarget::Key as i32);
    if !key_order {
        return Err(Error::status(
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|revision| *revision != 0) {
        return Err(Error::status(
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ));
    }
    Ok(())
}

/// The checks of Put, alone or in a Txn (4.3 steps 2 to 4).
///
/// # Errors
/// `EmptyKey`, `ValueProvided`, `LeaseProvided`.
pub fn put(request: &PutRequest) -> Checked {
    if request.key.is_empty() {
        return Err(EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LeaseProvided);
    }
    Ok(())
}

/// The check of DeleteRange, alone or in a Txn (4.4 step 1).
///
/// # Errors
/// `EmptyKey`.
pub fn delete_range(request: &DeleteRangeRequest) -> Checked {
    if request.key.is_empty() {
        return Err(EmptyKey);
    }
    Ok(())
}

/// The checks of Txn (4.5 steps 2 and 3). `max_ops` is `--max-txn-ops`.
///
/// Recursion is as deep as the request is nested: at most `max_ops` levels, because each level
/// takes at least one op from what the levels below may use, and for a request from the wire at
/// most [the decoder's depth](crate::grpc::MAX_NESTED_TXNS).
///
/// # Errors
/// `TooManyOps`, `EmptyKey`, those of the ops, `KeyNotFound` for an op without content,
/// `DuplicateKey`.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Checked {
    txn_ops(request, max_ops)?;
    // After all limits: the work below is bounded by the number of ops.
    Writes::of_branch(&request.success)?;
    Writes::of_branch(&request.failure)?;
    Ok(())
}

/// Whether a Txn writes nothing whatever branch is taken: all ops are ranges. A nested Txn makes
/// it writing, even if that one only reads; a Txn without any op is read-only (4.5 step 4).
pub fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether a read-only Txn may be answered from local state: all its ranges are serializable.
/// True without any op, so a compare-only Txn reads local state (4.5 step 4).
pub fn all_serializable(request: &TxnRequest) -> bool {
    ops(request)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

fn txn_ops(request: &TxnRequest, max_ops: usize) -> Checked {
    let widest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = max_ops.checked_sub(widest) else {
        return Err(TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EmptyKey);
    }
    ops(request).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_ops(request, left),
        None => Err(KeyNotFound),
    })
}

/// What one branch of a Txn may write, its nested Txns included: the keys it puts and the keys
/// its deletes cover.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Cover<'a>,
}

impl<'a> Writes<'a> {
    /// Collects a branch in etcd's order, which decides what is found: own deletes, then the
    /// nested Txns one after the other, then own puts. So a nested delete meets the puts of later
    /// siblings and of the parent, but not those of earlier siblings.
    fn of_branch(ops: &'a [RequestOp]) -> Result<Self, ferrite_api::Error> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.insert(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let success = Self::of_branch(&nested.success)?;
                let failure = Self::of_branch(&nested.failure)?;
                writes.add_nested(success, failure)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    /// Adds the two branches of one nested Txn. Only one of them runs, so both may put a key; but
    /// neither may put what is already written here.
    fn add_nested(&mut self, success: Self, failure: Self) -> Checked {
        let mut puts = success.puts;
        union(&mut puts, failure.puts);
        if puts.iter().any(|key| self.deletes.contains(key)) || !disjoint(&self.puts, &puts) {
            return Err(DuplicateKey);
        }
        union(&mut self.puts, puts);
        self.deletes.union(success.deletes);
        self.deletes.union(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a [u8]) -> Checked {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(DuplicateKey);
        }
        Ok(())
    }
}

fn disjoint(a: &BTreeSet<&[u8]>, b: &BTreeSet<&[u8]>) -> bool {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    !small.iter().any(|key| large.contains(key))
}

/// Moves the smaller set into the larger one, so that deep nesting does not move every key at
/// every level.
fn union<'a>(into: &mut BTreeSet<&'a [u8]>, mut other: BTreeSet<&'a [u8]>) {
    if into.len() < other.len() {
        mem::swap(into, &mut other);
    }
    into.extend(other);
}

/// A set of keys made of ranges: disjoint, start to end. Which delete covers a key is of no
/// interest, so ranges that overlap are merged.
#[derive(Default)]
struct Cover<'a> {
    /// Start (inclusive) to end of each range, none overlapping another.
    ranges: BTreeMap<&'a [u8], CoverEnd<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CoverEnd<'a> {
    /// Only the start itself; sorts as `start + "\0"`.
    Single,
    /// Up to this key, exclusive.
    Before(&'a [u8]),
}

impl<'a> Cover<'a> {
    /// Adds the range of a delete. `range_end` is taken literally: `\0`, which elsewhere means
    /// "to the end", is below every key, so such a delete covers nothing here (etcd's quirk).
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        let end = if range_end.is_empty() {
            CoverEnd::Single
        } else if range_end > key {
            CoverEnd::Before(range_end)
        } else {
            return;
        };
        self.insert_range(key, end);
    }

    fn insert_range(&mut self, start: &'a [u8], end: CoverEnd<'a>) {
        // Single keys inside a range and ranges that begin inside another are swallowed by it.
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && covers(before, before_end, start)
        {
            let CoverEnd::Before(new_end) = end else {
                return;
            };
            match before_end {
                CoverEnd::Before(old_end) if old_end >= new_end => return,
                _ => return self.replace(before, new_end),
            }
        }
        match end {
            CoverEnd::Single => {
                self.ranges.insert(start, end);
            }
            CoverEnd::Before(end) => self.replace(start, end),
        }
    }

    /// Stores `[start, end)`, swallowing every range that begins inside it. Nothing before
    /// `start` reaches into it.
    fn replace(&mut self, start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&next, &next_end)) = self.ranges.range(start..end).next_back() {
            if let CoverEnd::Before(next_end) = next_end {
                end = end.max(next_end);
            }
            self.ranges.remove(next);
        }
        self.ranges.insert(start, CoverEnd::Before(end));
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(start, end)| covers(start, *end, key))
    }

    fn union(&mut self, mut other: Self) {
        if self.ranges.len() < other.ranges.len() {
            mem::swap(self, &mut other);
        }
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }
}

/// Whether the range that begins at `start` (at or before `key`) holds `key`.
fn covers(start: &[u8], end: CoverEnd<'_>, key: &[u8]) -> bool {
    match end {
        CoverEnd::Single => start == key,
        CoverEnd::Before(end) => key < end,
    }
}

#[cfg(test)]
mod tests {
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
}
