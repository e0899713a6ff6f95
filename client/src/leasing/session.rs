//! The session behind the keys that are owned: begun again when it is lost, and the place where
//! keys are given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::pb::mvccpb::event::EventType;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::REVOKE;
use super::owned::{Began, Known, Owned};
use crate::concurrency::{Session, SessionOptions};
use crate::namespace::Namespace;
use crate::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseId, Txn, TxnOp, WatchOptions,
};

/// A key that was given up is not acquired again for this long: whoever wanted it may want more.
const REST: Duration = Duration::from_secs(2);
/// Pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    /// Where the owners' keys are.
    pub(super) owners: Namespace,
    /// Held for a few instructions only, never over an await.
    state: Mutex<State>,
    /// The lease of now.
    lease: watch::Sender<Option<LeaseId>>,
}

#[derive(Debug, Default)]
struct State {
    owned: Owned,
    /// When keys were given up, for a while.
    given_up: BTreeMap<Bytes, Instant>,
    /// One for each key that is owned.
    watches: JoinSet<()>,
    keeper: Option<AbortHandle>,
}

impl Shared {
    pub(super) fn start(client: Client, owners: Namespace, session: SessionOptions) -> Arc<Shared> {
        let shared = Arc::new(Shared {
            client,
            owners,
            state: Mutex::default(),
            lease: watch::Sender::new(None),
        });
        let keeper = tokio::spawn(keep_session(shared.clone(), session));
        shared.state.lock().keeper = Some(keeper.abort_handle());
        shared
    }

    /// Ends all tasks, and with them the renewal of the lease. The lease, if there is one.
    pub(super) fn stop(&self) -> Option<LeaseId> {
        let mut state = self.state.lock();
        if let Some(keeper) = state.keeper.take() {
            keeper.abort();
        }
        state.watches.abort_all();
        state.owned.clear();
        self.lease.send_replace(None)
    }

    pub(super) async fn ready(&self) {
        let mut lease = self.lease.subscribe();
        // Cannot fail while the sender, a field of what is borrowed here, lives.
        let _ = lease.wait_for(Option::is_some).await;
    }

    pub(super) fn owned(&self) -> MappedMutexGuard<'_, Owned> {
        MutexGuard::map(self.state.lock(), |state| &mut state.owned)
    }

    /// The lease, while no server can have ended it.
    fn valid_lease(&self) -> Option<LeaseId> {
        let lease = (*self.lease.borrow())?;
        let is_valid = self.client.shared.keeper.is_valid(lease);
        is_valid.then_some(lease)
    }

    /// What may be shown of a key.
    pub(super) fn known(&self, key: &[u8]) -> Option<Known> {
        let known = self.owned().known(key).cloned()?;
        // Looked at last: what was known when the lease was valid is right.
        self.valid_lease().map(|_| known)
    }

    /// The lease to acquire a key with, if it may be acquired now.
    pub(super) fn may_acquire(&self, key: &[u8]) -> Option<LeaseId> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.given_up.retain(|_, at| *at + REST > now);
        let rests = state.given_up.contains_key(key);
        drop(state);
        self.valid_lease().filter(|_| !rests)
    }

    /// Whether the key of an owner is ours.
    pub(super) fn is_ours(&self, owner: &KeyValue) -> bool {
        let lease = *self.lease.borrow();
        lease.is_some_and(|lease| lease.get() == owner.lease)
    }

    /// Keeps the answer to a read of a key that is ours since `revision`.
    pub(super) fn remember(
        self: &Arc<Self>,
        began: Began,
        key: &Bytes,
        revision: i64,
        lease: LeaseId,
        known: Known,
    ) {
        let mut state = self.state.lock();
        if *self.lease.borrow() != Some(lease) {
            return;
        }
        let is_new = state.owned.end_read(began, key, revision, known);
        drop(state);
        if is_new {
            self.watch_over(key.clone(), Some(revision), lease);
        }
    }

    /// Gives the key up when someone asks for it. It is ours since `revision`, or perhaps.
    pub(super) fn watch_over(self: &Arc<Self>, key: Bytes, revision: Option<i64>, lease: LeaseId) {
        let mut state = self.state.lock();
        while state.watches.try_join_next().is_some() {}
        let owner = Owner {
            shared: self.clone(),
            owner: self.owners.key(&key),
            key,
            lease,
        };
        state.watches.spawn(owner.watch_over(revision));
    }

    pub(super) fn writing(self: &Arc<Self>, key: &Bytes) -> Writing {
        Writing {
            shared: self.clone(),
            revision: self.owned().begin_write(key),
            key: key.clone(),
            end: Bytes::new(),
            known: None,
        }
    }

    pub(super) fn writing_range(self: &Arc<Self>, key: &Bytes, end: &Bytes) -> Writing {
        self.owned().begin_range(key, end);
        Writing {
            shared: self.clone(),
            revision: 0,
            key: key.clone(),
            end: end.clone(),
            known: None,
        }
    }
}

/// A write under way: what it writes is shown to nobody meanwhile. Ends when dropped.
pub(super) struct Writing {
    shared: Arc<Shared>,
    key: Bytes,
    /// Empty for one key.
    end: Bytes,
    /// Since when the key is ours; 0 if it is not.
    pub(super) revision: i64,
    known: Option<Known>,
}

impl Writing {
    /// The write was done, and left this.
    pub(super) fn done(mut self, known: Known) {
        // A key with a lease may go without anybody writing it.
        let lasts = known.pair.as_ref().is_none_or(|kv| kv.lease == 0);
        self.known = lasts.then_some(known);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut owned = self.shared.owned();
        if self.end.is_empty() {
            owned.end_write(&self.key, self.revision, self.known.take());
        } else {
            owned.end_range(&self.key, &self.end);
        }
    }
}

/// Keeps a session; ends by being aborted.
async fn keep_session(shared: Arc<Shared>, options: SessionOptions) {
    loop {
        match Session::open(&shared.client, options).await {
            Ok(session) => {
                shared.lease.send_replace(Some(session.lease()));
                let error = session.done().await;
                tracing::debug!(%error, "the session of a leasing client is lost");
                let mut state = shared.state.lock();
                shared.lease.send_replace(None);
                state.owned.clear();
                state.watches.abort_all();
            }
            Err(error) => tracing::debug!(%error, "no session for a leasing client"),
        }
        sleep(AGAIN).await;
    }
}

/// A key that is ours, or may be.
struct Owner {
    shared: Arc<Shared>,
    key: Bytes,
    /// The key that says so.
    owner: Bytes,
    lease: LeaseId,
}

/// What became of an ownership.
enum Fate {
    Revoked,
    Gone,
}

impl Owner {
    async fn watch_over(self, revision: Option<i64>) {
        let mut known = revision;
        let (mut since, mut from) = (revision.unwrap_or(0), revision.unwrap_or(0));
        let fate = loop {
            if known.take().is_none() {
                match self.look().await {
                    Ok(Some((kv, at))) => {
                        (since, from) = (kv.create_revision, at);
                        if kv.value == REVOKE {
                            break Fate::Revoked;
                        }
                    }
                    Ok(None) => break Fate::Gone,
                    Err(error) => {
                        tracing::debug!(%error, "an owned key cannot be looked at");
                        sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            match self.fate(from + 1).await {
                Ok(fate) => break fate,
                Err(error) => tracing::debug!(%error, "an owned key cannot be watched"),
            }
        };
        {
            let mut state = self.shared.state.lock();
            state.owned.lose(&self.key, since);
            if matches!(fate, Fate::Revoked) {
                state.given_up.insert(self.key.clone(), Instant::now());
            }
        }
        if matches!(fate, Fate::Revoked) {
            self.give_up(since).await;
        }
    }

    /// The key that says so, if it does, and the revision of the answer.
    async fn look(&self) -> Result<Option<(KeyValue, i64)>, Error> {
        let found = self
            .shared
            .client
            .get(self.owner.clone(), GetOptions::new());
        let found = found.await?;
        let at = found.header.unwrap_or_default().revision;
        let ours = |kv: &KeyValue| kv.lease == self.lease.get();
        let kv = found.kvs.into_iter().next().filter(ours);
        Ok(kv.map(|kv| (kv, at)))
    }

    async fn fate(&self, from: i64) -> Result<Fate, Error> {
        let options = WatchOptions::new().start_revision(from);
        let watching = self.shared.client.watch(self.owner.clone(), options);
        let mut watcher = watching.await?;
        loop {
            for event in watcher.next().await?.events {
                if event.r#type() == EventType::Delete {
                    return Ok(Fate::Gone);
                }
                if event.kv.is_some_and(|kv| kv.value == REVOKE) {
                    return Ok(Fate::Revoked);
                }
            }
        }
    }

    /// Deletes the key that is ours since `revision`, and no later one.
    async fn give_up(&self, revision: i64) {
        loop {
            let ours = Compare::create_revision(self.owner.clone(), CompareOp::Equal, revision);
            let txn = Txn::new()
                .when([ours])
                .and_then([TxnOp::delete(self.owner.clone(), DeleteOptions::new())]);
            match self.shared.client.txn(txn).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "an owned key cannot be given up"),
            }
            sleep(AGAIN).await;
        }
    }
}
