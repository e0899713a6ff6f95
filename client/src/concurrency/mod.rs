//! Locks, elections and transactions in memory, built from keys, leases, transactions and watches.
//!
//! [`Mutex`], [`Election`] and [`Stm`] run in this process and need nothing from the server but
//! the ordinary calls. [`LockService`] and [`ElectionService`] ask the server to run the same
//! recipes. All of them, and etcd's Go client, use the same keys: they may contend for one name.
//!
//! **A lock is not a fence.** A lease may expire while its owner still believes in it: a pause,
//! a partition, a clock. Guard writes inside the store with [`Mutex::is_owner`] in the same
//! transaction; give resources outside the store [`Mutex::revision`] as a fencing token.

mod election;
mod mutex;
mod service;
mod session;
mod stm;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::event::EventType;
use ferrite_api::types::LeaseId;
use pb::response_op::Response;
use tonic::Status;

use crate::{Client, Error, EtcdError, GetOptions, SortOrder, SortTarget, WatchOptions};

pub use election::{Election, Observer};
pub use mutex::Mutex;
pub use service::{ElectionService, Leaders, LockService};
pub use session::{Session, SessionOptions};
pub use stm::{Isolation, Stm};

/// What a recipe refuses, in the words of etcd's clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// [`Mutex::try_lock`]: someone else has the lock.
    #[error("mutex: Locked by another session")]
    Locked,
    /// [`Mutex::lock`]: the session ended before the lock was ours.
    #[error("mutex: session is expired")]
    SessionExpired,
    /// [`Mutex::unlock`]: there is nothing to release.
    #[error("mutex: lock has already been released")]
    LockReleased,
    /// The caller does not lead, or no longer.
    #[error("election: not leader")]
    NotLeader,
    /// Nobody leads.
    #[error("election: no leader")]
    NoLeader,
}

impl RecipeError {
    const ALL: [RecipeError; 5] = [
        RecipeError::Locked,
        RecipeError::SessionExpired,
        RecipeError::LockReleased,
        RecipeError::NotLeader,
        RecipeError::NoLeader,
    ];

    /// The error with exactly this text: how the server's recipes tell it.
    pub(crate) fn from_message(text: &str) -> Option<RecipeError> {
        Self::ALL
            .into_iter()
            .find(|error| error.to_string() == text)
    }
}

/// A place in the queue for a lock or an election.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    key: Bytes,
    /// The revision that created the key; unknown while the answer to its creation is.
    revision: Option<i64>,
}

/// The prefix of the keys of a name.
fn prefix_of(name: impl Into<Bytes>) -> Bytes {
    let mut prefix = name.into().to_vec();
    prefix.push(b'/');
    prefix.into()
}

/// The key of a session below a prefix: the lease in lower-case hexadecimal, sign and magnitude.
fn key_of(prefix: &Bytes, lease: LeaseId) -> Bytes {
    let id = lease.get();
    let sign = if id < 0 { "-" } else { "" };
    let mut key = prefix.to_vec();
    key.extend_from_slice(format!("{sign}{:x}", id.unsigned_abs()).as_bytes());
    key.into()
}

/// The oldest key: the owner's.
fn oldest() -> GetOptions {
    GetOptions::new()
        .prefix()
        .sort(SortTarget::Create, SortOrder::Ascend)
        .limit(1)
}

/// Waits until no key below the prefix is as old as `revision`: one key after the other, always
/// the youngest of the older ones, so that a departure wakes one waiter and not all.
async fn wait_for_older(client: &Client, prefix: &Bytes, revision: i64) -> Result<(), Error> {
    let youngest = GetOptions::new()
        .prefix()
        .sort(SortTarget::Create, SortOrder::Descend)
        .limit(1)
        .max_create_revision(revision);
    loop {
        let found = client.get(prefix.clone(), youngest.clone()).await?;
        let Some(older) = found.kvs.into_iter().next() else {
            return Ok(());
        };
        let from = found.header.unwrap_or_default().revision;
        match wait_for_deletion(client, older.key, from).await {
            // The watch fell behind a compaction: look again.
            Ok(()) | Err(Error::Etcd(EtcdError::Compacted)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until a key is deleted at revision `from` or later.
pub(crate) async fn wait_for_deletion(client: &Client, key: Bytes, from: i64) -> Result<(), Error> {
    let options = WatchOptions::new().start_revision(from).without_puts();
    let mut watcher = client.watch(key, options).await?;
    loop {
        let response = watcher.next().await?;
        let is_deletion = |kind| kind == EventType::Delete;
        if response
            .events
            .iter()
            .any(|event| is_deletion(event.r#type()))
        {
            return Ok(());
        }
    }
}

/// The answer to the read at `index` of a transaction.
pub(crate) fn range_at(
    response: &pb::TxnResponse,
    index: usize,
) -> Result<&pb::RangeResponse, Error> {
    match response.responses.get(index).map(|op| &op.response) {
        Some(Some(Response::ResponseRange(range))) => Ok(range),
        _ => Err(malformed()),
    }
}

/// A server that answers something else than it was asked.
pub(crate) fn malformed() -> Error {
    Error::from(Status::internal("malformed answer to a transaction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_every_etcd_client() {
        let key = |id| key_of(&prefix_of("foo"), LeaseId::new(id));
        assert_eq!(key(7587862094711389457), "foo/694d805f77ec7d11");
        assert_eq!(key(10), "foo/a");
        assert_eq!(key(-255), "foo/-ff");
        assert_eq!(key(i64::MIN), "foo/-8000000000000000");
        assert_eq!(key_of(&prefix_of(""), LeaseId::new(1)), "/1");
    }

    #[test]
    fn errors_of_the_servers_recipes_are_recognised_by_text() {
        for error in RecipeError::ALL {
            let status = Status::unknown(error.to_string());
            assert!(matches!(Error::from(status), Error::Recipe(found) if found == error));
        }
    }
}
