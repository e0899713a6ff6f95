//! `v3lockpb.Lock`.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::queue::{self, Queue};
use super::wait;
use super::{bare, first, session, unknown};
use crate::error::Error;
use crate::grpc::Kv;

/// Lock.Lock: returns when the lock is held. A lease that holds it already gets it again.
///
/// Cancel safety: a key that waits is taken back.
///
/// # Errors
/// All of them `UNKNOWN` with the text of what went wrong, as etcd's.
pub(crate) async fn lock<K: Kv>(kv: &K, request: LockRequest) -> Result<LockResponse, Error> {
    let lease = session(kv, request.lease).await.map_err(bare)?;
    let queue = Queue::new(&request.name);
    let key = queue.key(lease);
    let join = queue.join(&key, Bytes::new(), lease, true);
    let (joined, place, mut waiter) = wait::join(kv, &key, join).await.map_err(bare)?;
    let revision = place.revision;
    let owner = queue::ranged(&joined, 1)?;
    let header = if owner.is_none_or(|owner| owner.create_revision == revision) {
        waiter.stay();
        joined.header
    } else {
        waiter.begin();
        match acquire(kv, &queue, &key, revision).await {
            Ok(Some(header)) => {
                waiter.stay();
                Some(header)
            }
            Ok(None) => {
                waiter.stay();
                return Err(unknown("mutex: session is expired"));
            }
            Err(error) => {
                waiter.leave().await;
                return Err(bare(error));
            }
        }
    };
    Ok(LockResponse { header, key })
}

/// Waits for its turn. `None`: the key has gone meanwhile, and the lock with it.
async fn acquire<K: Kv>(
    kv: &K,
    queue: &Queue,
    key: &Bytes,
    revision: i64,
) -> Result<Option<pb::ResponseHeader>, Error> {
    wait::turn(kv, queue, revision).await?;
    let (header, own) = first(kv, queue::get(key)).await?;
    Ok(own.map(|_| header))
}

/// Lock.Unlock: deletes the key, whoever it belongs to.
///
/// # Errors
/// As [`lock`].
pub(crate) async fn unlock<K: Kv>(kv: &K, request: UnlockRequest) -> Result<UnlockResponse, Error> {
    let deleted = kv.delete_range(queue::delete(&request.key)).await;
    let header = deleted.map_err(bare)?.header;
    Ok(UnlockResponse { header })
}
