//! The queue under a name: its keys, what is asked of the store, and what the answers mean.
//!
//! ```text
//!   name/lease   one key for each lease, in the order of their create revisions
//! ```

use bytes::{Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::response_op::Response;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::LeaseId;

use super::unknown;
use crate::error::Error;

/// The keys of a lock or an election.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    prefix: Bytes,
    /// The first key behind the prefix.
    end: Bytes,
}

/// A key's place in the queue.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// The create revision of the key.
    pub(super) revision: i64,
    /// The key as it was there before: the lease had joined already.
    pub(super) before: Option<KeyValue>,
}

impl Queue {
    pub(super) fn new(name: &[u8]) -> Self {
        let with = |last: u8| {
            let mut bytes = BytesMut::with_capacity(name.len() + 1);
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&[last]);
            bytes.freeze()
        };
        Self {
            prefix: with(b'/'),
            end: with(b'/' + 1),
        }
    }

    /// The key of a lease: hexadecimal, without padding, with a sign, as Go prints it.
    pub(super) fn key(&self, lease: LeaseId) -> Bytes {
        let sign = if lease.get() < 0 { "-" } else { "" };
        let digits = format!("{sign}{:x}", lease.get().unsigned_abs());
        [&self.prefix[..], digits.as_bytes()].concat().into()
    }

    /// The key that is first.
    pub(super) fn oldest(&self) -> pb::RangeRequest {
        self.one(SortOrder::Ascend)
    }

    /// The last key before the one that was created at `revision`.
    pub(super) fn before(&self, revision: i64) -> pb::RangeRequest {
        pb::RangeRequest {
            max_create_revision: revision - 1,
            ..self.one(SortOrder::Descend)
        }
    }

    fn one(&self, order: SortOrder) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.prefix.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_order: order as i32,
            sort_target: SortTarget::Create as i32,
            ..Default::default()
        }
    }

    /// The changes of all keys from `revision` on.
    pub(super) fn watch(&self, revision: i64) -> pb::WatchCreateRequest {
        pb::WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: self.end.clone(),
            start_revision: revision,
            ..Default::default()
        }
    }

    /// Joins the queue with `key`, unless it is in it. With `owner`, also asks who is first.
    pub(super) fn join(
        &self,
        key: &Bytes,
        value: Bytes,
        lease: LeaseId,
        owner: bool,
    ) -> pb::TxnRequest {
        let owner = owner.then(|| Request::RequestRange(self.oldest()));
        let branch = |first| {
            std::iter::once(first)
                .chain(owner.clone())
                .map(op)
                .collect()
        };
        pb::TxnRequest {
            compare: vec![created_at(key, 0)],
            success: branch(Request::RequestPut(put(key, value, lease))),
            failure: branch(Request::RequestRange(get(key))),
        }
    }
}

/// What joining has come to.
///
/// # Errors
/// The store has answered something else than it was asked.
pub(super) fn place(response: &pb::TxnResponse) -> Result<Place, Error> {
    if response.succeeded {
        let header = response.header.ok_or_else(odd)?;
        return Ok(Place {
            revision: header.revision,
            before: None,
        });
    }
    let before = ranged(response, 0)?.ok_or_else(odd)?;
    Ok(Place {
        revision: before.create_revision,
        before: Some(before.clone()),
    })
}

/// The pair that the range at `position` of a Txn has found.
///
/// # Errors
/// There is no range.
pub(super) fn ranged(
    response: &pb::TxnResponse,
    position: usize,
) -> Result<Option<&KeyValue>, Error> {
    let answer = response.responses.get(position);
    match answer.and_then(|answer| answer.response.as_ref()) {
        Some(Response::ResponseRange(range)) => Ok(range.kvs.first()),
        _ => Err(odd()),
    }
}

/// If `key` was created at `revision`: this.
pub(super) fn if_created_at(key: &Bytes, revision: i64, then: Request) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![created_at(key, revision)],
        success: vec![op(then)],
        failure: vec![],
    }
}

pub(super) fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

pub(super) fn put(key: &Bytes, value: Bytes, lease: LeaseId) -> pb::PutRequest {
    pb::PutRequest {
        key: key.clone(),
        value,
        lease: lease.get(),
        ..Default::default()
    }
}

pub(super) fn delete(key: &Bytes) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn odd() -> Error {
    unknown("the store answered another question")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_gos_recipes() {
        let queue = Queue::new(b"foo");
        let key = |lease| queue.key(LeaseId::new(lease));
        assert_eq!(key(7_587_862_094_711_389_457), "foo/694d805f77ec7d11");
        assert_eq!(key(10), "foo/a");
        assert_eq!(key(-1), "foo/-1");
        assert_eq!(key(i64::MIN), "foo/-8000000000000000");
        assert_eq!(Queue::new(b"").key(LeaseId::new(1)), "/1");
        let range = Queue::new(b"\xff").oldest();
        assert_eq!(
            (&range.key[..], &range.range_end[..]),
            (&b"\xff/"[..], &b"\xff0"[..])
        );
    }

    #[test]
    fn a_place_is_the_create_revision_of_the_key() {
        let header = pb::ResponseHeader {
            revision: 9,
            ..Default::default()
        };
        let mut response = pb::TxnResponse {
            header: Some(header),
            succeeded: true,
            responses: vec![],
        };
        let new = Place {
            revision: 9,
            before: None,
        };
        assert_eq!(place(&response).unwrap(), new);
        response.succeeded = false;
        assert!(place(&response).is_err());
        let mine = KeyValue {
            create_revision: 4,
            ..Default::default()
        };
        let range = pb::RangeResponse {
            kvs: vec![mine.clone()],
            ..Default::default()
        };
        response.responses = vec![pb::ResponseOp {
            response: Some(Response::ResponseRange(range)),
        }];
        let old = Place {
            revision: 4,
            before: Some(mine),
        };
        assert_eq!(place(&response).unwrap(), old);
    }
}
