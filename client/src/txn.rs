//! Transactions: compares, and what to do in either case, in one step of the store.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use crate::range::{ZERO, prefix_end};
use crate::{DeleteOptions, GetOptions, PutOptions};

/// A transaction for [`Client::txn`](crate::Client::txn): if all compares hold, the operations of
/// [`Txn::and_then`] run, otherwise those of [`Txn::or_else`]; either list as one change.
///
/// ```
/// use ferrite_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
///
/// let swap = Txn::new()
///     .when([Compare::value("color", CompareOp::Equal, "red")])
///     .and_then([TxnOp::put("color", "blue", PutOptions::new())])
///     .or_else([TxnOp::get("color", GetOptions::new())]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Txn {
    request: pb::TxnRequest,
}

impl Txn {
    /// No compares (they hold) and no operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds compares; all must hold.
    #[must_use]
    pub fn when(mut self, compares: impl IntoIterator<Item = Compare>) -> Self {
        let compares = compares.into_iter().map(|compare| compare.message);
        self.request.compare.extend(compares);
        self
    }

    /// Adds operations for when all compares hold.
    #[must_use]
    pub fn and_then(mut self, ops: impl IntoIterator<Item = TxnOp>) -> Self {
        self.request
            .success
            .extend(ops.into_iter().map(|op| op.message));
        self
    }

    /// Adds operations for when a compare fails.
    #[must_use]
    pub fn or_else(mut self, ops: impl IntoIterator<Item = TxnOp>) -> Self {
        self.request
            .failure
            .extend(ops.into_iter().map(|op| op.message));
        self
    }

    pub(crate) fn into_request(self) -> pb::TxnRequest {
        self.request
    }

    /// What the transaction may write, whichever way it goes: keys and ranges as requests spell
    /// them.
    pub(crate) fn writes(&self) -> Vec<(Bytes, Bytes)> {
        fn collect(request: &pb::TxnRequest, writes: &mut Vec<(Bytes, Bytes)>) {
            for op in request.success.iter().chain(&request.failure) {
                match &op.request {
                    Some(Request::RequestPut(put)) => writes.push((put.key.clone(), Bytes::new())),
                    Some(Request::RequestDeleteRange(delete)) => {
                        writes.push((delete.key.clone(), delete.range_end.clone()));
                    }
                    Some(Request::RequestTxn(inner)) => collect(inner, writes),
                    Some(Request::RequestRange(_)) | None => {}
                }
            }
        }
        let mut writes = Vec::new();
        collect(&self.request, &mut writes);
        writes.sort();
        writes.dedup();
        writes
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug)]
pub struct TxnOp {
    message: pb::RequestOp,
}

impl TxnOp {
    fn new(request: Request) -> Self {
        let message = pb::RequestOp {
            request: Some(request),
        };
        Self { message }
    }

    /// A read: see [`Client::get`](crate::Client::get).
    pub fn get(key: impl Into<Bytes>, options: GetOptions) -> Self {
        Self::new(Request::RequestRange(options.into_request(key)))
    }

    /// A write: see [`Client::put`](crate::Client::put).
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, options: PutOptions) -> Self {
        Self::new(Request::RequestPut(options.into_request(key, value)))
    }

    /// A deletion: see [`Client::delete`](crate::Client::delete).
    pub fn delete(key: impl Into<Bytes>, options: DeleteOptions) -> Self {
        Self::new(Request::RequestDeleteRange(options.into_request(key)))
    }

    /// A transaction inside the transaction.
    pub fn txn(txn: Txn) -> Self {
        Self::new(Request::RequestTxn(txn.into_request()))
    }
}

/// How a [`Compare`] compares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CompareOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`: what is stored is greater.
    Greater,
    /// `<`: what is stored is less.
    Less,
}

impl From<CompareOp> for CompareResult {
    fn from(op: CompareOp) -> Self {
        match op {
            CompareOp::Equal => CompareResult::Equal,
            CompareOp::NotEqual => CompareResult::NotEqual,
            CompareOp::Greater => CompareResult::Greater,
            CompareOp::Less => CompareResult::Less,
        }
    }
}

/// A condition on a key, or on every key of a range.
///
/// A missing key has version, revisions and lease 0; a compare of its value never holds.
#[derive(Clone, Debug)]
pub struct Compare {
    message: pb::Compare,
}

impl Compare {
    fn new(key: Bytes, target: CompareTarget, op: CompareOp, union: TargetUnion) -> Self {
        let message = pb::Compare {
            result: CompareResult::from(op).into(),
            target: target.into(),
            key,
            range_end: Bytes::new(),
            target_union: Some(union),
        };
        Self { message }
    }

    /// Compares how often the key was written since it was created.
    pub fn version(key: impl Into<Bytes>, op: CompareOp, version: i64) -> Self {
        let union = TargetUnion::Version(version);
        Self::new(key.into(), CompareTarget::Version, op, union)
    }

    /// Compares the revision that created the key.
    pub fn create_revision(key: impl Into<Bytes>, op: CompareOp, revision: i64) -> Self {
        let union = TargetUnion::CreateRevision(revision);
        Self::new(key.into(), CompareTarget::Create, op, union)
    }

    /// Compares the revision that wrote the key last.
    pub fn mod_revision(key: impl Into<Bytes>, op: CompareOp, revision: i64) -> Self {
        let union = TargetUnion::ModRevision(revision);
        Self::new(key.into(), CompareTarget::Mod, op, union)
    }

    /// Compares the value, bytewise.
    pub fn value(key: impl Into<Bytes>, op: CompareOp, value: impl Into<Bytes>) -> Self {
        let union = TargetUnion::Value(value.into());
        Self::new(key.into(), CompareTarget::Value, op, union)
    }

    /// Compares the lease the key is attached to; 0 is none.
    pub fn lease(key: impl Into<Bytes>, op: CompareOp, lease: LeaseId) -> Self {
        let union = TargetUnion::Lease(lease.get());
        Self::new(key.into(), CompareTarget::Lease, op, union)
    }

    /// Holds when the key is there.
    pub fn key_exists(key: impl Into<Bytes>) -> Self {
        Self::create_revision(key, CompareOp::NotEqual, 0)
    }

    /// Holds when the key is not there.
    pub fn key_missing(key: impl Into<Bytes>) -> Self {
        Self::create_revision(key, CompareOp::Equal, 0)
    }

    /// Compares every key in `[key, end)` instead of the one key.
    #[must_use]
    pub fn range(mut self, end: impl Into<Bytes>) -> Self {
        self.message.range_end = end.into();
        self
    }

    /// Compares every key that starts with the key.
    #[must_use]
    pub fn prefix(mut self) -> Self {
        if self.message.key.is_empty() {
            self.message.key = ZERO;
            self.message.range_end = ZERO;
        } else {
            self.message.range_end = prefix_end(&self.message.key);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_fill_the_request_in_order() {
        let inner = Txn::new().and_then([TxnOp::delete("d", DeleteOptions::new().prefix())]);
        let request = Txn::new()
            .when([Compare::key_missing("a")])
            .when([Compare::lease("b", CompareOp::Greater, LeaseId::new(7)).prefix()])
            .and_then([
                TxnOp::put("a", "1", PutOptions::new()),
                TxnOp::get("b", GetOptions::new()),
            ])
            .or_else([TxnOp::txn(inner)])
            .into_request();

        let first = &request.compare[0];
        assert_eq!(
            (first.target(), first.result()),
            (CompareTarget::Create, CompareResult::Equal)
        );
        assert_eq!(first.target_union, Some(TargetUnion::CreateRevision(0)));
        let second = &request.compare[1];
        assert_eq!(
            (second.key.as_ref(), second.range_end.as_ref()),
            (&b"b"[..], &b"c"[..])
        );
        assert_eq!(second.target_union, Some(TargetUnion::Lease(7)));
        assert!(matches!(
            request.success[0].request,
            Some(Request::RequestPut(_))
        ));
        assert!(matches!(
            request.success[1].request,
            Some(Request::RequestRange(_))
        ));
        let Some(Request::RequestTxn(inner)) = &request.failure[0].request else {
            panic!("nested transaction expected");
        };
        assert!(matches!(
            inner.success[0].request,
            Some(Request::RequestDeleteRange(_))
        ));
    }
}
