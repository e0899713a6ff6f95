//! A part of the keys in memory, kept up to date by one watch: reads and any number of local
//! watches cost the server nothing, or one small question.
//!
//! The cache lists its prefix, watches it from there, and lists again should the server have
//! compacted what it still needed. What it shows is always a state that the store had.

mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::{Event, KeyValue};
use parking_lot::Mutex;
use tokio::sync::watch as signal;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::kv::{SortOrder, revision};
use crate::local;
use crate::range::{ZERO, contains, prefix_end};
use crate::watch::Streams;
use crate::{Client, Error, EtcdError, GetOptions, Mirror, WatchOptions};

use store::{Store, TooOld};

/// What a [`Cache`] refuses, in the words of etcd's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The key or range is not below the prefix of the cache.
    #[error("cache: invalid or out-of-range key range")]
    OutOfRange,
    /// An option that the cache does not know how to serve.
    #[error("cache: unsupported request parameters")]
    Unsupported,
    /// The cache did not get as far as it had to in time.
    #[error("cache: timed out waiting for revision")]
    TimedOut,
}

/// How a [`Cache`] works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheOptions {
    /// Revisions of which changes are kept, for watches that lag and reads of the past. Default
    /// 2048.
    pub history: usize,
    /// How long a read may wait for the cache to be ready and recent enough. Default 3 s.
    pub wait_timeout: Duration,
    /// How often the server is asked how far it is while a read waits. Default 100 ms.
    pub progress_interval: Duration,
    /// Pause before the keys are listed again after a failure; doubles each time. Default 50 ms.
    pub backoff: Duration,
    /// The longest such pause. Default 2 s.
    pub max_backoff: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            history: 2048,
            wait_timeout: Duration::from_secs(3),
            progress_interval: Duration::from_millis(100),
            backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
        }
    }
}

impl CacheOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`CacheOptions::history`].
    #[must_use]
    pub fn history(mut self, revisions: usize) -> Self {
        self.history = revisions;
        self
    }

    /// Sets [`CacheOptions::wait_timeout`].
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// Sets [`CacheOptions::backoff`] and [`CacheOptions::max_backoff`].
    #[must_use]
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.backoff = first;
        self.max_backoff = max;
        self
    }
}

/// All pairs with one prefix, in memory.
///
/// ```no_run
/// # use ferrite_client::{Cache, CacheOptions, Client, Error, GetOptions, WatchOptions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let cache = Cache::start(&client, "services/", CacheOptions::new());
/// // As new as any read: asks the server for its revision only.
/// let found = cache.get("services/a", GetOptions::new()).await?;
/// // What is here now, without asking anybody.
/// let known = cache.get("services/", GetOptions::new().prefix().serializable()).await?;
/// let next = known.header.unwrap_or_default().revision + 1;
/// let mut changes = cache.watch("services/", WatchOptions::new().prefix().start_revision(next))?;
/// println!("{} changes", changes.next().await?.events.len());
/// # Ok(())
/// # }
/// ```
///
/// Dropping it ends the watch on the server.
#[derive(Debug)]
pub struct Cache {
    shared: Arc<Shared>,
    feeder: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    prefix: Bytes,
    options: CacheOptions,
    /// Of its own: answers about progress only come when all watches of a stream are up to date.
    streams: Streams,
    /// Held for a few instructions or one range, never over an await.
    state: Mutex<State>,
    changed: signal::Sender<()>,
}

#[derive(Debug)]
struct State {
    store: Store,
    ready: bool,
    /// The revision of the first list; 0 before it.
    first_listed: i64,
    last_error: Option<Error>,
}

impl Cache {
    /// Begins to list and watch the keys with this prefix; all keys with an empty one. Must be
    /// called inside a tokio runtime.
    pub fn start(client: &Client, prefix: impl Into<Bytes>, options: CacheOptions) -> Cache {
        let shared = Arc::new(Shared {
            client: client.clone(),
            prefix: prefix.into(),
            options,
            streams: Streams::default(),
            state: Mutex::new(State {
                store: Store::new(options.history),
                ready: false,
                first_listed: 0,
                last_error: None,
            }),
            changed: signal::Sender::new(()),
        });
        let feeder = tokio::spawn(feed(shared.clone())).abort_handle();
        Cache { shared, feeder }
    }

    /// Whether the cache has its keys. It may lose that again while it lists them anew.
    pub fn is_ready(&self) -> bool {
        self.shared.state.lock().ready
    }

    /// Waits until the cache has its keys, however long that takes.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn ready(&self) {
        self.shared.reached(0).await;
    }

    /// Why the cache had to list its keys again, or could not, the last time.
    pub fn last_error(&self) -> Option<Error> {
        self.shared.state.lock().last_error.clone()
    }

    /// Everything up to this revision is known; 0 before the first list.
    pub fn revision(&self) -> i64 {
        self.shared.state.lock().store.revision()
    }

    /// Waits until the cache knows everything up to `revision`: that of a write, for instance.
    ///
    /// # Errors
    ///
    /// [`CacheError::TimedOut`].
    pub async fn wait_for_revision(&self, revision: i64) -> Result<(), Error> {
        let limit = self.shared.options.wait_timeout;
        let reached = timeout(limit, self.shared.reached(revision)).await;
        reached.map_err(|_| Error::Cache(CacheError::TimedOut))
    }

    /// Reads a key or, with the options, a range of keys, as [`Client::get`].
    ///
    /// A linearizable read, the default, asks the server for its revision and waits until the
    /// cache is that far. A serializable one shows what is here. A revision of the past can be
    /// read as far as the history goes.
    ///
    /// Cancel safety: a read changes nothing.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; sorting is not supported. [`EtcdError::Compacted`] for a revision before the
    /// history. The call's, when the server is asked.
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        options: GetOptions,
    ) -> Result<pb::RangeResponse, Error> {
        let request = options.into_request(key);
        let shared = &self.shared;
        shared.check_range(&request.key, &request.range_end)?;
        if request.sort_order() != SortOrder::None {
            return Err(Error::Cache(CacheError::Unsupported));
        }
        let wanted = match request.revision {
            revision if request.serializable || revision > 0 => revision,
            _ => shared.servers_revision().await?,
        };
        self.wait_for_revision(wanted).await?;
        let state = shared.state.lock();
        let found = state
            .store
            .range(&request.key, &request.range_end, request.revision);
        let found = found.map_err(compacted)?;
        let header = Some(header(state.store.revision()));
        drop(state);
        Ok(local::answer(found, &request, header))
    }

    /// Watches a key or a range of keys. Begins with `start_revision`, or with what comes after
    /// what is known now.
    ///
    /// A watch is a place in the history of the cache and costs nothing while it waits. One whose
    /// reader falls behind the history ends with [`EtcdError::Compacted`], as does one that was
    /// started before it: read and watch again.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; notes of progress and creation are not supported.
    pub fn watch(
        &self,
        key: impl Into<Bytes>,
        options: WatchOptions,
    ) -> Result<CacheWatcher, Error> {
        if options.wants_notes() {
            return Err(Error::Cache(CacheError::Unsupported));
        }
        let request = options.into_request(key);
        self.shared.check_range(&request.key, &request.range_end)?;
        let next = match request.start_revision {
            start if start > 0 => start,
            // Before the first list that is: from its revision on.
            _ => match self.revision() {
                0 => 0,
                revision => revision + 1,
            },
        };
        Ok(CacheWatcher {
            changes: self.shared.changed.subscribe(),
            shared: self.shared.clone(),
            request,
            next,
        })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.feeder.abort();
    }
}

impl Shared {
    /// Whether the range lies below the prefix.
    fn check_range(&self, key: &Bytes, end: &Bytes) -> Result<(), Error> {
        let limit = match self.prefix.is_empty() {
            true => ZERO,
            false => prefix_end(&self.prefix),
        };
        let inside = !key.is_empty()
            && key.starts_with(&self.prefix)
            && (end.is_empty() || limit == ZERO || (*end != ZERO && *end <= limit));
        if inside && (end.is_empty() || *end == ZERO || key < end) {
            return Ok(());
        }
        Err(Error::Cache(CacheError::OutOfRange))
    }

    async fn servers_revision(&self) -> Result<i64, Error> {
        let options = GetOptions::new().prefix().count_only();
        let counted = self.client.get(self.prefix.clone(), options).await?;
        Ok(revision(counted.header.as_ref()))
    }

    /// Waits until the cache is ready and this far, and keeps asking the server how far it is.
    async fn reached(&self, revision: i64) {
        let mut changes = self.changed.subscribe();
        loop {
            let ready = {
                let state = self.state.lock();
                if state.ready && state.store.revision() >= revision {
                    return;
                }
                state.ready
            };
            if ready {
                self.streams.request_progress(&self.client);
            }
            // The sender is a field of what is borrowed here, so waiting ends by a change.
            let _ = timeout(self.options.progress_interval, changes.changed()).await;
        }
    }

    /// Changes what is known, and tells everybody.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.send_replace(());
    }
}

/// Keeps the cache up to date; ends by being aborted.
async fn feed(shared: Arc<Shared>) {
    let options = &shared.options;
    let mut backoff = options.backoff;
    loop {
        let Err(error) = list_and_watch(&shared).await;
        tracing::debug!(%error, "the cache begins anew");
        if shared.state.lock().ready {
            backoff = options.backoff;
        }
        shared.change(|state| {
            state.ready = false;
            state.last_error = Some(error);
        });
        sleep(backoff).await;
        backoff = (backoff * 2).min(options.max_backoff);
    }
}

async fn list_and_watch(shared: &Shared) -> Result<std::convert::Infallible, Error> {
    let mut mirror = Mirror::new(&shared.client, shared.prefix.clone());
    let mut pairs: Vec<KeyValue> = Vec::new();
    while let Some(more) = mirror.next_base().await? {
        pairs.extend(more);
    }
    let listed = mirror.revision();
    let options = WatchOptions::new()
        .prefix()
        .start_revision(listed + 1)
        .fragment()
        .progress_notify();
    let watching = shared
        .client
        .watch_on(&shared.streams, shared.prefix.clone(), options);
    let mut watcher = watching.await?;
    shared.change(|state| {
        state.store.reset(pairs, listed);
        state.ready = true;
        if state.first_listed == 0 {
            state.first_listed = listed;
        }
    });
    loop {
        let response = watcher.next().await?;
        shared.change(|state| match response.events.is_empty() {
            true => state.store.progress(revision(response.header.as_ref())),
            false => state.store.apply(response.events),
        });
    }
}

/// A watch on a cache: see [`Cache::watch`]. It outlives the cache, and is silent then.
#[derive(Debug)]
pub struct CacheWatcher {
    shared: Arc<Shared>,
    changes: signal::Receiver<()>,
    request: pb::WatchCreateRequest,
    /// The first revision that was not handed over; 0 until the keys were listed for the first
    /// time.
    next: i64,
}

impl CacheWatcher {
    /// What the next revision has changed.
    ///
    /// Cancel safety: no change is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Compacted`]: changes that were not handed over are no longer known.
    pub async fn next(&mut self) -> Result<pb::WatchResponse, Error> {
        loop {
            self.changes.borrow_and_update();
            if let Some(response) = self.take()? {
                return Ok(response);
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Result<Option<pb::WatchResponse>, Error> {
        let state = self.shared.state.lock();
        if state.first_listed == 0 {
            return Ok(None);
        }
        if self.next == 0 {
            self.next = state.first_listed + 1;
        }
        let request = &self.request;
        let wanted = |event: &Event| {
            let kv = event.kv.as_ref();
            kv.is_some_and(|kv| contains(&request.key, &request.range_end, &kv.key))
                // A filter has the number of the kind that it keeps away.
                && !request.filters.contains(&event.r#type)
        };
        let changes = state.store.changes(&mut self.next, wanted);
        drop(state);
        let Some((revision, mut events)) = changes.map_err(compacted)? else {
            return Ok(None);
        };
        if !request.prev_kv {
            for event in &mut events {
                event.prev_kv = None;
            }
        }
        Ok(Some(pb::WatchResponse {
            header: Some(header(revision)),
            events,
            ..Default::default()
        }))
    }
}

fn compacted(TooOld: TooOld) -> Error {
    Error::Etcd(EtcdError::Compacted)
}

/// A cache is no member: its answers have a revision only.
fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision,
        ..Default::default()
    }
}
