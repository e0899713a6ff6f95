//! The in-process interface of a running member: what the gRPC and HTTP services call, and what an
//! embedding program gets.
//!
//! Every method does what the RPC of its name does, in the order of checks of spec
//! validation.md: validate, see that there is room, propose or read, and build the response. All of
//! it is cheap but for reading rows; long reads go to the reader threads (`readers`).

mod auth;
mod cluster;
mod downgrade;
pub(crate) mod encoding;
mod kv;
mod lease;
mod list;
mod maintenance;
mod questions;
pub mod range_stream;
mod readers;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_storage::mvcc::read::RangeError;
use ferrite_storage::mvcc::view::View;
use ferrite_storage::state::overtaken;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;
use tonic::Code;

use crate::auth::passwords::Hashing;
use crate::auth::{Caller, Tokens};
use crate::config::{Feature, Features};
use crate::error::Error;
use crate::lessor::Lessor;
use crate::member::{Applied, Input, Published, Reads, Reply};
use crate::metrics::{Metrics, RequestKind};
use crate::peer::Peers;
use crate::quota::Quota;
use crate::request_id::RequestIds;
use crate::shell::{Clock, Inbox, Waiter};

pub(crate) use list::{HEADROOM, TAILROOM};
pub use list::{List, RangeReply};
pub(crate) use maintenance::Running;
pub use maintenance::Versions;
pub(crate) use readers::Readers;
pub use watch::WatchStream;
pub(crate) use watch::Watching;

/// The limits that requests are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest encoded proposal, bytes.
    pub max_request_bytes: usize,
    /// Operations per level of a transaction.
    pub max_txn_ops: usize,
    /// The space quota.
    pub quota: Quota,
    /// How long a request may take.
    pub request_timeout: Duration,
}

/// A running member, seen from inside the process. Cheap to clone.
///
/// It may do everything, whoever may not; with [`Handle::with_credentials`] it does what those may.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
    /// Who calls. A handle is the member's own until it is given credentials.
    caller: Caller,
}

/// Does not keep the member's state alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakHandle {
    inner: std::sync::Weak<Inner>,
}

impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let inner = self.inner.upgrade()?;
        Some(Handle {
            inner,
            caller: Caller::Member,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) cluster_id: ClusterId,
    pub(crate) member_id: MemberId,
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) ids: Arc<RequestIds>,
    /// The member's lessor; see [`Member::lessor`](crate::member::Member::lessor).
    pub(crate) lessor: Arc<Mutex<Lessor<Waiter>>>,
    /// Tokens of users.
    pub(crate) tokens: Tokens,
    /// Passwords of users.
    pub(crate) hashing: Hashing,
    /// The member's reads; see [`Member::reads`](crate::member::Member::reads).
    pub(crate) reads: Arc<Reads<Waiter>>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) features: Features,
    /// Defragmentations that are running, while the health service has to say so.
    pub(crate) paused: Running,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) watching: Watching,
    pub(crate) readers: Readers,
    /// Where the page file is.
    pub(crate) page_path: PathBuf,
    /// The other members; `None` where there can be none.
    pub(crate) peers: Option<Peers>,
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
            caller: Caller::Member,
        }
    }

    /// The store revision, as far as it is applied here.
    pub fn revision(&self) -> i64 {
        self.inner.published.view().revision
    }

    /// The leader that this member knows; 0 = none.
    pub fn leader(&self) -> u64 {
        self.inner.published.leader()
    }

    /// This member's id.
    pub fn member_id(&self) -> MemberId {
        self.inner.member_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster_id
    }

    /// The other members; `None` where there can be none.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.inner.peers.as_ref()
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.limits.request_timeout
    }

    fn is_on(&self, feature: Feature) -> bool {
        self.inner.features.is_on(feature)
    }

    /// Whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        let cluster = self.inner.published.cluster();
        let member = cluster.members.get(self.inner.member_id);
        member
            .and_then(|member| member.raft_attributes.as_ref())
            .is_some_and(|raft| raft.is_learner)
    }

    /// Whether the member has introduced itself to the cluster and may serve clients.
    pub fn is_ready(&self) -> bool {
        self.inner.published.ready()
    }

    /// Waits until the member is ready ([`Handle::is_ready`]).
    pub async fn ready(&self) {
        self.inner.published.wait_ready().await;
    }

    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// Sets the gauges whose values live in the published state.
    pub(crate) fn measure(&self, metrics: &Metrics) {
        let Inner {
            published,
            member_id,
            reads,
            ..
        } = &*self.inner;
        let (view, leader) = (published.view(), published.leader());
        let server = &metrics.server;
        server.has_leader.set(i64::from(leader != 0));
        server.is_leader.set(i64::from(leader == member_id.get()));
        server.is_learner.set(i64::from(self.is_learner()));
        server.proposals_applied.set(signed(published.applied()));
        server
            .proposals_committed
            .set(signed(published.committed()));
        let reads = reads.take_counts();
        server.slow_read_indexes.inc_by(reads.slow);
        server.read_indexes_failed.inc_by(reads.failed);
        if let Some(version) = published.cluster().version {
            server.set_cluster_version(&version.short());
        }
        let mvcc = &metrics.mvcc;
        let sizes = view.page.sizes();
        mvcc.db_total_size.set(signed(sizes.allocated));
        mvcc.db_total_size_in_use.set(signed(sizes.in_use));
        mvcc.keys.set(signed(view.index.len()));
        mvcc.current_revision.set(view.revision);
        mvcc.compact_revision.set(view.compacted);
        let auth_revision = published.auth().revision();
        metrics.auth_revision.set(signed(auth_revision));
        self.inner.watching.measure(&metrics.watch);
    }

    /// A view for a read: pinned at once for a serializable one, else fresh enough to hold every
    /// write that was acknowledged before now.
    async fn view(&self, serializable: bool) -> Result<Arc<View>, Error> {
        let published = &self.inner.published;
        // The flag before the view: see `Published::reads_locally`.
        if serializable || published.reads_locally() {
            return Ok(published.view());
        }
        self.confirmed_view().await
    }

    /// As [`Handle::view`], by a round even where that is not needed.
    async fn confirmed_view(&self) -> Result<Arc<View>, Error> {
        let (waiter, answer) = oneshot::channel();
        let does = self.inner.reads.read(waiter)?;
        does.carry_out(self.inner.peers.as_ref());
        // Everybody is answered or failed; a waiter is dropped only by a panic.
        match answer.await.map_err(|_| ApiError::Stopped)? {
            Reply::View(view) => Ok(view),
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }

    async fn propose(
        &self,
        kind: RequestKind,
        mut request: pb::InternalRaftRequest,
    ) -> Result<Applied, Error> {
        let begun = Instant::now();
        let id = self.inner.ids.next();
        let mut header = pb::RequestHeader {
            id: id.get(),
            ..Default::default()
        };
        if request.authenticate.is_none()
            && let Some(known) = self.known().await?
        {
            header.username = known.identity.user;
            header.auth_revision = known.identity.revision;
        }
        request.header = Some(header);
        let length = request.encoded_len();
        if length > self.inner.limits.max_request_bytes {
            return Err(ApiError::RequestTooLarge.into());
        }
        let mut payload = bytes::BytesMut::with_capacity(length);
        request
            .encode(&mut payload)
            .expect("the buffer has the encoded length");
        // The entry is all that is needed from here on.
        drop(request);
        let payload = payload.freeze();
        let urgent = kind == RequestKind::LeaseRevoke && self.is_on(Feature::PriorityRequest);
        let reply = self
            .ask(|waiter| Input::Propose {
                id,
                payload,
                urgent,
                waiter,
            })
            .await;
        let result = match reply {
            Ok(Reply::Applied(applied)) => Ok(applied),
            Ok(Reply::Failed(error)) | Err(error) => Err(error),
            Ok(_) => Err(mixed_up()),
        };
        if result.is_err() {
            self.inner.metrics.server.proposals_failed.inc();
        }
        let success = result.as_ref().is_ok_and(|applied| applied.result.is_ok());
        self.observe(kind, begun, success);
        result
    }

    async fn ask(
        &self,
        input: impl FnOnce(oneshot::Sender<Reply>) -> Input<oneshot::Sender<Reply>>,
    ) -> Result<Reply, Error> {
        let (waiter, answer) = oneshot::channel();
        self.inner.inbox.send(input(waiter))?;
        // The member answers or fails everybody; it drops a waiter only when it panics.
        answer.await.map_err(|_| ApiError::Stopped.into())
    }

    /// Refuses writes while the disk has no room for them, or when they would exceed the quota
    /// (etcd's rule: the allocated size and the cost of the request), which also raises the NOSPACE
    /// alarm. Deletes and compactions cost nothing: they are the way out.
    async fn has_room(&self, cost: u64) -> Result<(), Error> {
        let Inner {
            published, limits, ..
        } = &*self.inner;
        if published.no_space() {
            return Err(ApiError::NoSpace.into());
        }
        let allocated = published.view().page.sizes().allocated;
        if limits.quota.admits(allocated, cost) {
            return Ok(());
        }
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: self.inner.member_id.get(),
            alarm: pb::AlarmType::Nospace as i32,
        };
        // The request is refused, whatever becomes of the alarm.
        if let Err(error) = Box::pin(self.propose_alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise the NOSPACE alarm");
        }
        Err(ApiError::NoSpace.into())
    }

    pub(crate) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.inner.cluster_id.get(),
            member_id: self.inner.member_id.get(),
            revision,
            raft_term: self.inner.published.term(),
        }
    }

    /// The newest compaction that has taken effect.
    fn compacted(&self) -> i64 {
        self.inner.published.view().compacted
    }

    /// The error of a read at revision `at`.
    fn failed(&self, error: RangeError, at: i64) -> Error {
        match overtaken(error, at, self.compacted()) {
            Ok(error) => error.into(),
            Err(error) => {
                tracing::error!(%error, "a read failed");
                Error::status(Code::DataLoss, error.to_string())
            }
        }
    }

    /// The error of a read that a pin protects.
    fn damaged(&self, error: RangeError) -> Error {
        self.failed(error, i64::MAX)
    }

    /// Runs work that reads rows: here if it is short, else on a reader thread.
    async fn run<R: Send + 'static>(
        &self,
        long: bool,
        work: impl FnOnce() -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        if long {
            self.inner.readers.run(work).await
        } else {
            work()
        }
    }

    fn observe(&self, kind: RequestKind, begun: Instant, success: bool) {
        self.inner
            .metrics
            .server
            .request_duration
            .observe(kind, success, begun.elapsed());
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A reply of another kind than the question: a bug of ours, answered instead of a panic.
fn mixed_up() -> Error {
    Error::status(Code::Internal, "the member answered another question")
}
