//! The Lock service.

use std::future::Future;

use ferrite_api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::Kv;
use super::unary::Unary;
use crate::concurrency::lock;
use crate::error::Error;
use crate::metrics::Method;

/// Lock.Lock.
pub(super) struct Lock;

impl Unary for Lock {
    const METHOD: Method = Method::LockLock;
    type Request = LockRequest;
    type Reply = LockResponse;

    fn call<K: Kv>(
        kv: &K,
        request: LockRequest,
    ) -> impl Future<Output = Result<LockResponse, Error>> + Send {
        lock::lock(kv, request)
    }
}

/// Lock.Unlock.
pub(super) struct Unlock;

impl Unary for Unlock {
    const METHOD: Method = Method::LockUnlock;
    type Request = UnlockRequest;
    type Reply = UnlockResponse;

    fn call<K: Kv>(
        kv: &K,
        request: UnlockRequest,
    ) -> impl Future<Output = Result<UnlockResponse, Error>> + Send {
        lock::unlock(kv, request)
    }
}
