//! Transactions: compares, the checks on the path taken, execution (spec mvcc.md section 5,
//! validation.md section 4.5).
//!
//! All compares, nested ones on the taken path included, look at the state before the transaction;
//! then the operations of that path are checked against the same state, so that a transaction is
//! refused before it has changed anything; then they run in order, each seeing the earlier ones.

use std::cmp::Ordering;

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::outcome::{OpOutcome, TxnOutcome};
use super::{Failure, check_put, delete_range, put};
use crate::error::Error;
use crate::mvcc::decode_record;
use crate::mvcc::index::KeyMeta;
use crate::mvcc::range::KeyRange;
use crate::mvcc::read::RangeError;
use crate::mvcc::store::{Store, WriteTxn};
use crate::mvcc::view::{RowError, View};

/// The branches taken: of the transaction, then of its nested transactions in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'a>(&self, request: &'a TxnRequest) -> &'a [RequestOp] {
        if self.succeeded {
            &request.success
        } else {
            &request.failure
        }
    }
}

/// Executes a transaction that may write.
pub(super) fn write(store: &mut Store, request: TxnRequest) -> Result<TxnOutcome, Failure> {
    let view = store.view();
    let path = compare(&view, &request).map_err(|error| match error {
        RowError::Missing(at) => Failure::Fatal(Error::Corrupt {
            what: format!("the index names row {at}, the page file lacks it"),
        }),
        RowError::Storage(error) => Failure::Fatal(error),
    })?;
    let (revision, compacted) = (view.revision, view.compacted);
    drop(view);

    // A put with ignore_* after a delete of its key fails only when it is reached.
    let mut txn = store.begin(can_fail_late(&request, &path));
    let result = check_ops(&txn, revision, compacted, &request, &path)
        .and_then(|()| execute(&mut txn, request, path));
    match result {
        Ok(mut outcome) => {
            outcome.revision = txn.commit();
            Ok(outcome)
        }
        Err(failure) => {
            txn.roll_back();
            Err(failure)
        }
    }
}

/// Executes a transaction that only reads, on a pinned view.
///
/// # Errors
/// [`RangeError::Compacted`] and [`RangeError::Future`] for a range at such a revision, and
/// storage failures.
pub fn read_only(view: &View, request: &TxnRequest) -> Result<TxnOutcome, RangeError> {
    let path = compare(view, request)?;
    let mut ops = Vec::new();
    for op in path.branch(request) {
        // Validation has established that every operation is a range.
        if let Some(Request::RequestRange(range)) = &op.request {
            let at = resolve(view.revision, view.compacted, range)?;
            ops.push(OpOutcome::Range {
                index: view.index.clone(),
                at,
                revision: view.revision,
                request: range.clone(),
            });
        }
    }
    Ok(TxnOutcome {
        revision: view.revision,
        succeeded: path.succeeded,
        ops,
    })
}

/// The revision that a range inside a transaction reads at. Unlike outside of one, a negative
/// revision is compared with the compaction as it stands (etcd #13871), -1 at first.
fn resolve(revision: i64, compacted: i64, request: &RangeRequest) -> Result<i64, RangeError> {
    if request.revision > revision {
        return Err(RangeError::Future {
            at: request.revision,
            revision,
        });
    }
    if request.revision != 0 && request.revision < compacted {
        return Err(RangeError::Compacted {
            at: request.revision,
            compacted,
        });
    }
    Ok(if request.revision <= 0 {
        revision
    } else {
        request.revision
    })
}

fn compare(view: &View, request: &TxnRequest) -> Result<Path, RowError> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(view, compare)? {
            succeeded = false;
            break;
        }
    }
    let mut path = Path {
        succeeded,
        nested: Vec::new(),
    };
    for op in path.branch(request) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let nested = self::compare(view, nested)?;
            path.nested.push(nested);
        }
    }
    Ok(path)
}

/// Whether a compare holds for every key of its range.
fn holds(view: &View, compare: &Compare) -> Result<bool, RowError> {
    let target = CompareTarget::try_from(compare.target).ok();
    let range = KeyRange::new(compare.key.clone(), &compare.range_end);
    let mut rows = view.rows();
    let mut any = false;
    for (_, meta) in view.index.range(&range, view.revision) {
        any = true;
        let ordering = match target {
            Some(CompareTarget::Value | CompareTarget::Lease) => {
                let record = rows.get(meta.modified)?;
                let kv = decode_record(meta.modified, &record).map_err(RowError::Storage)?;
                if target == Some(CompareTarget::Value) {
                    let operand = match &compare.target_union {
                        Some(TargetUnion::Value(value)) => &value[..],
                        _ => b"",
                    };
                    kv.value[..].cmp(operand)
                } else {
                    kv.lease.cmp(&number(compare))
                }
            }
            target => metadata(target, &meta).cmp(&operand(target, compare)),
        };
        if !verdict(compare, ordering) {
            return Ok(false);
        }
    }
    if any {
        return Ok(true);
    }
    // An absent key has no value to compare; everything else of it is 0.
    Ok(target != Some(CompareTarget::Value) && verdict(compare, 0.cmp(&operand(target, compare))))
}

fn metadata(target: Option<CompareTarget>, meta: &KeyMeta) -> i64 {
    match target {
        Some(CompareTarget::Version) => meta.version,
        Some(CompareTarget::Create) => meta.created,
        Some(CompareTarget::Mod) => meta.modified.main,
        // Value and lease are handled by the caller; an unknown target compares as equal.
        Some(CompareTarget::Value | CompareTarget::Lease) | None => 0,
    }
}

/// The operand of a compare on metadata; 0 for an unknown target, which so compares as equal.
fn operand(target: Option<CompareTarget>, compare: &Compare) -> i64 {
    if target.is_some() { number(compare) } else { 0 }
}

/// The number in the union if it is of the target's kind, else 0.
fn number(compare: &Compare) -> i64 {
    let target = CompareTarget::try_from(compare.target).ok();
    match (target, &compare.target_union) {
        (Some(CompareTarget::Version), Some(TargetUnion::Version(number)))
        | (Some(CompareTarget::Create), Some(TargetUnion::CreateRevision(number)))
        | (Some(CompareTarget::Mod), Some(TargetUnion::ModRevision(number)))
        | (Some(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

fn verdict(compare: &Compare, ordering: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        Err(_) => true,
    }
}

/// Checks ranges and puts in the order of the operations: the first that cannot be carried out
/// decides how the transaction is refused.
fn check_ops(
    txn: &WriteTxn<'_>,
    revision: i64,
    compacted: i64,
    request: &TxnRequest,
    path: &Path,
) -> Result<(), Failure> {
    for_each_op(request, path, &mut |op| match op {
        Request::RequestRange(range) => match resolve(revision, compacted, range) {
            Ok(_) => Ok(()),
            Err(RangeError::Future { .. }) => Err(ApiError::FutureRev.into()),
            Err(_) => Err(ApiError::Compacted.into()),
        },
        Request::RequestPut(put) => check_put(txn, put),
        _ => Ok(()),
    })
}

/// Whether an operation on the path could fail after an earlier one has changed something.
fn can_fail_late(request: &TxnRequest, path: &Path) -> bool {
    let (mut deletes, mut keeps) = (false, false);
    let known: Result<(), Failure> = for_each_op(request, path, &mut |op| {
        match op {
            Request::RequestDeleteRange(_) => deletes = true,
            Request::RequestPut(PutRequest {
                ignore_value,
                ignore_lease,
                ..
            }) => {
                keeps |= *ignore_value || *ignore_lease;
            }
            _ => {}
        }
        Ok(())
    });
    known.is_ok() && deletes && keeps
}

/// Visits the operations on the path, depth first, nested transactions themselves excluded.
fn for_each_op(
    request: &TxnRequest,
    path: &Path,
    visit: &mut dyn FnMut(&Request) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut nested = path.nested.iter();
    for op in path.branch(request) {
        match &op.request {
            Some(Request::RequestTxn(txn)) => {
                let path = nested
                    .next()
                    .expect("the path has a part for each nested transaction");
                for_each_op(txn, path, visit)?;
            }
            Some(request) => visit(request)?,
            // Validation refuses it before it is proposed; the log gets the same answer.
            None => return Err(ApiError::KeyNotFound.into()),
        }
    }
    Ok(())
}

fn execute(txn: &mut WriteTxn<'_>, request: TxnRequest, path: Path) -> Result<TxnOutcome, Failure> {
    let branch = if path.succeeded {
        request.success
    } else {
        request.failure
    };
    let mut nested = path.nested.into_iter();
    let mut ops = Vec::with_capacity(branch.len());
    for op in branch {
        ops.push(match op.request {
            Some(Request::RequestRange(request)) => {
                let revision = txn.revision();
                let at = if request.revision <= 0 {
                    revision
                } else {
                    request.revision
                };
                OpOutcome::Range {
                    index: txn.index().clone(),
                    at,
                    revision,
                    request,
                }
            }
            Some(Request::RequestPut(request)) => OpOutcome::Put(put(txn, request)?),
            Some(Request::RequestDeleteRange(request)) => {
                OpOutcome::DeleteRange(delete_range(txn, &request))
            }
            Some(Request::RequestTxn(request)) => {
                let path = nested
                    .next()
                    .expect("the path has a part for each nested transaction");
                OpOutcome::Txn(execute(txn, request, path)?)
            }
            None => return Err(ApiError::KeyNotFound.into()), // the checks came across it before
        });
    }
    Ok(TxnOutcome {
        revision: txn.revision(),
        succeeded: path.succeeded,
        ops,
    })
}
