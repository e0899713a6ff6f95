//! Waiting in the queue, and leaving it.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::mvccpb::event::EventType;
use tokio::runtime;

use super::queue::{self, Place, Queue};
use super::{first, unknown};
use crate::error::Error;
use crate::grpc::Kv;

/// Carries out the request that joins a queue with `key`.
///
/// Cancel safety: in a task of its own, so that a call which is dropped before it hears of the key
/// takes it back all the same, if it has put it.
///
/// # Errors
/// The request has failed, or the store has answered something else than it was asked.
pub(super) async fn join<K: Kv>(
    kv: &K,
    key: &Bytes,
    request: pb::TxnRequest,
) -> Result<(pb::TxnResponse, Place, Waiter<K>), Error> {
    let (kv, key) = (kv.clone(), key.clone());
    let joining = tokio::spawn(async move {
        let joined = kv.txn(request).await?;
        let place = queue::place(&joined)?;
        let waiter = Waiter {
            kv,
            key,
            revision: place.revision,
            leaves: place.before.is_none(),
        };
        Ok((joined, place, waiter))
    });
    joining
        .await
        .unwrap_or_else(|error| Err(unknown(error.to_string())))
}

/// Waits until every key that was created before `revision` is gone. Watches one key at a time, the
/// last before: so a key that goes wakes one waiter. Returns whether there was anything to wait for.
///
/// # Errors
/// The range or the watch has failed.
pub(super) async fn turn<K: Kv>(kv: &K, queue: &Queue, revision: i64) -> Result<bool, Error> {
    let mut waited = false;
    loop {
        let (header, before) = first(kv, queue.before(revision)).await?;
        let Some(before) = before else {
            return Ok(waited);
        };
        waited = true;
        deletion(kv, before.key, header.revision).await?;
    }
}

/// Waits until `key`, which was there at `revision`, is deleted.
async fn deletion<K: Kv>(kv: &K, key: Bytes, revision: i64) -> Result<(), Error> {
    let mut watch = kv.watch()?;
    let create = pb::WatchCreateRequest {
        key,
        start_revision: revision,
        ..Default::default()
    };
    watch.create(create).await;
    loop {
        let response = watch.next().await?.to_message();
        goes_on(&response)?;
        let deleted = |event: &ferrite_api::pb::mvccpb::Event| event.r#type() == EventType::Delete;
        if response.events.iter().any(deleted) {
            return Ok(());
        }
    }
}

/// # Errors
/// The watcher has ended, for the reason that etcd's client would give.
pub(super) fn goes_on(response: &pb::WatchResponse) -> Result<(), Error> {
    if response.compact_revision != 0 {
        return Err(ferrite_api::Error::Compacted.into());
    }
    match (response.canceled, response.cancel_reason.as_str()) {
        (false, _) => Ok(()),
        (true, "") => Err(unknown("lost watcher waiting for delete")),
        (true, reason) => Err(unknown(reason.to_owned())),
    }
}

/// A key in the queue that is taken back when its wait ends without success; also when the call is
/// dropped because its client has gone or its time is over.
#[derive(Debug)]
pub(super) struct Waiter<K: Kv> {
    kv: K,
    key: Bytes,
    revision: i64,
    leaves: bool,
}

impl<K: Kv> Waiter<K> {
    /// The wait begins: from here on a key that was in the queue before is taken back, too.
    pub(super) fn begin(&mut self) {
        self.leaves = true;
    }

    /// The key stays.
    pub(super) fn stay(mut self) {
        self.leaves = false;
    }

    /// Takes the key back, and returns when that is done.
    pub(super) async fn leave(mut self) {
        self.leaves = false;
        // In a task of its own: the caller may be dropped meanwhile.
        if let Err(error) = tokio::spawn(self.taking_back()).await {
            tracing::error!(%error, "leaving a queue panicked");
        }
    }

    fn taking_back(&self) -> impl Future<Output = ()> + Send + use<K> {
        let kv = self.kv.clone();
        let delete = Request::RequestDeleteRange(queue::delete(&self.key));
        let request = queue::if_created_at(&self.key, self.revision, delete);
        async move {
            // Best effort: it goes with its lease at the latest.
            if let Err(error) = kv.txn(request).await {
                tracing::debug!(%error, "a waiter's key stays until its lease ends");
            }
        }
    }
}

impl<K: Kv> Drop for Waiter<K> {
    fn drop(&mut self) {
        if self.leaves
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            runtime.spawn(self.taking_back());
        }
    }
}
