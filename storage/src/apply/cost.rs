//! What requests cost against the space quota (bytes): etcd's estimates.

use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestOp, TxnRequest};

/// The grant of a lease.
pub const LEASE_GRANT: u64 = 64;

/// What a pair takes beside its key and value.
const PAIR: u64 = 256;

/// A put.
pub fn put(request: &PutRequest) -> u64 {
    PAIR + (request.key.len() + request.value.len()) as u64
}

/// A transaction: the puts of its larger branch, nested ones included; 0 without puts.
pub fn txn(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Request::RequestPut(request)) => put(request),
                Some(Request::RequestTxn(nested)) => txn(nested),
                _ => 0,
            })
            .sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// Any request; 0 for one that needs no space.
pub(super) fn of(request: &InternalRaftRequest) -> u64 {
    match request {
        InternalRaftRequest {
            put: Some(request), ..
        } => put(request),
        InternalRaftRequest {
            txn: Some(request), ..
        } => txn(request),
        InternalRaftRequest {
            lease_grant: Some(_),
            ..
        } => LEASE_GRANT,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_larger_branch_counts_with_what_is_nested_in_it() {
        let put = |value: &'static str| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(value.as_bytes()),
                ..Default::default()
            })),
        };
        let of = |success, failure| {
            txn(&TxnRequest {
                success,
                failure,
                ..Default::default()
            })
        };
        assert_eq!(of(vec![], vec![]), 0);
        assert_eq!(of(vec![put("v")], vec![]), 258);
        assert_eq!(of(vec![put("v")], vec![put(""), put("")]), 514);
        let nested = RequestOp {
            request: Some(Request::RequestTxn(TxnRequest {
                failure: vec![put(""), put("")],
                ..Default::default()
            })),
        };
        assert_eq!(of(vec![put("v"), nested], vec![]), 772);
    }
}
