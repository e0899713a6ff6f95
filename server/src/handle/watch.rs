//! Watch: streams for the gRPC service and for whoever embeds the member.

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tonic::Code;

use super::Handle;
use crate::error::Error;
use crate::metrics::WatchMetrics;
use crate::watch::{CatchUp, CaughtUp, Hub, Response, Step, Stream};

/// Chunks of history that are read at a time, for all streams together: enough to keep a disk
/// busy, few enough that writes and reads do not feel them.
const READERS: usize = 2;

/// The shortest interval of progress notifications.
const MIN_NOTIFY_INTERVAL: Duration = Duration::from_millis(100);

/// What the watch streams of a member share.
#[derive(Clone, Debug)]
pub(crate) struct Watching {
    hub: Arc<Hub>,
    readers: Arc<Semaphore>,
    notify_interval: Duration,
}

impl Watching {
    /// `notify_interval` is `--watch-progress-notify-interval`.
    pub(crate) fn new(hub: Arc<Hub>, notify_interval: Duration) -> Self {
        if notify_interval < MIN_NOTIFY_INTERVAL {
            tracing::warn!(
                given = ?notify_interval,
                adjusted = ?MIN_NOTIFY_INTERVAL,
                "the watch progress notify interval is too short"
            );
        }
        Self {
            hub,
            readers: Arc::new(Semaphore::new(READERS)),
            notify_interval: notify_interval.max(MIN_NOTIFY_INTERVAL),
        }
    }

    /// Gives the hub its turns, for ever.
    pub(crate) async fn run(hub: Arc<Hub>) {
        loop {
            hub.published().changed().await;
            while hub.turn() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sets the gauges.
    pub(crate) fn measure(&self, metrics: &WatchMetrics) {
        let counts = self.hub.counts();
        metrics.streams.set(counts.streams.load(Ordering::Relaxed));
        metrics
            .watchers
            .set(counts.watchers.load(Ordering::Relaxed));
        metrics
            .slow_watchers
            .set(counts.behind.load(Ordering::Relaxed));
        metrics
            .pending_events
            .set(counts.pending.load(Ordering::Relaxed));
    }
}

/// Why a watcher is refused, as etcd words it: with the text of a gRPC error. What has no text there is
/// called denied.
fn reason(error: &Error) -> String {
    let error = match error {
        Error::Api(
            error @ (ApiError::InvalidAuthToken | ApiError::AuthOldRevision | ApiError::UserEmpty),
        ) => *error,
        _ => ApiError::PermissionDenied,
    };
    let (code, text) = (error.code(), error.message());
    format!("rpc error: code = {code:?} desc = {text}")
}

type Reading = Pin<Box<dyn Future<Output = Result<CaughtUp, Error>> + Send>>;

/// A stream of watchers: what `Watch.Watch` is on the wire. Dropping it ends its watchers.
///
/// Needs a tokio runtime.
pub struct WatchStream {
    stream: Stream,
    watching: Watching,
    /// History that is being read.
    reading: Option<Reading>,
    /// The next progress notification, once a watcher wants them.
    ticker: Option<Pin<Box<Sleep>>>,
    /// Time between progress notifications: the configured one and up to a tenth more, so that
    /// streams do not all speak at once.
    interval: Duration,
    failed: Option<Error>,
    handle: Handle,
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Handle {
    async fn may_watch(&self, request: &pb::WatchCreateRequest) -> Result<(), Error> {
        // No key is the first one.
        let key = match request.key.is_empty() {
            true => &[0],
            false => &request.key[..],
        };
        self.check_read(key, &request.range_end).await
    }

    /// Opens a stream of watchers.
    pub fn watch(&self) -> WatchStream {
        let watching = self.inner.watching.clone();
        let hub = Arc::clone(&watching.hub);
        let tenth = watching.notify_interval / 10;
        // Differs from hasher to hasher.
        let random = RandomState::new().build_hasher().finish() % 1000;
        let jitter = tenth * u32::try_from(random).unwrap_or(0) / 1000;
        WatchStream {
            stream: Stream::new(hub, self.inner.cluster_id, self.inner.member_id),
            interval: watching.notify_interval + jitter,
            watching,
            reading: None,
            ticker: None,
            failed: None,
            handle: self.clone(),
        }
    }
}

impl WatchStream {
    /// Says which connection the stream is on, before it has watchers. Streams of one connection
    /// are woken one after another, so that what they have to say leaves in one write.
    #[must_use]
    pub(crate) fn of_connection(mut self, connection: u32) -> Self {
        self.stream.of_connection(connection);
        self
    }

    /// Creates a watcher, if the caller may read what it wants to see. The answer comes before its
    /// events, in the order of the requests. Whether the caller may is looked at now, and not again.
    pub async fn create(&mut self, request: pb::WatchCreateRequest) {
        // The order of the checks is etcd's: a negative revision is refused before.
        if request.start_revision >= 0
            && let Err(error) = self.handle.may_watch(&request).await
        {
            return self.stream.refuse(reason(&error));
        }
        let notify = request.progress_notify;
        self.stream.create(request);
        if notify && self.ticker.is_none() {
            self.ticker = Some(Box::pin(tokio::time::sleep(self.interval)));
        }
    }

    /// Ends a watcher; nothing happens if there is none of this id.
    pub fn cancel(&mut self, watch_id: i64) {
        self.stream.cancel(watch_id);
    }

    /// Asks up to where everything was delivered to all watchers of the stream. The answer comes in
    /// order with the events; none comes while a watcher waits for a future revision.
    pub fn request_progress(&mut self) {
        self.stream.request_progress();
    }

    /// The next response.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The stream has ended: the member's storage has failed.
    pub async fn next(&mut self) -> Result<Response, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next response if there is one at once. To be followed by [`WatchStream::next`] if not.
    pub fn ready(&mut self) -> Option<Response> {
        match self.stream.step() {
            Step::Send(response) => return Some(response),
            Step::Run(work) => self.read(work),
            Step::Fail(error) => self.failed = Some(error),
            Step::Wait => {}
        }
        None
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Error>> {
        self.stream.register(cx.waker());
        loop {
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(error));
            }
            if let Some(ticker) = &mut self.ticker
                && ticker.as_mut().poll(cx).is_ready()
            {
                ticker.as_mut().reset(Instant::now() + self.interval);
                self.stream.tick();
                continue;
            }
            if let Some(reading) = &mut self.reading
                && let Poll::Ready(result) = reading.as_mut().poll(cx)
            {
                self.reading = None;
                match result {
                    Ok(result) => self.stream.caught_up(result),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            match self.stream.step() {
                Step::Send(response) => return Poll::Ready(Ok(response)),
                Step::Run(work) => self.read(work),
                Step::Fail(error) => return Poll::Ready(Err(error)),
                Step::Wait => return Poll::Pending,
            }
        }
    }

    fn read(&mut self, work: CatchUp) {
        let readers = Arc::clone(&self.watching.readers);
        self.reading = Some(Box::pin(async move {
            let permit = readers.acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let result = work.run();
                drop(permit);
                result
            });
            read.await.map_err(|error| {
                tracing::error!(%error, "reading history for a watcher panicked");
                Error::status(Code::Internal, "the read failed; see the server's log")
            })
        }));
    }
}
