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
/// A sort target without a sort order passes, as in etcd.
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
mod tests;
