//! The in-process interface of a running member: what the gRPC and HTTP services call, and what an
//! embedding program gets.
//!
//! Every method does what the RPC of its name does, in the order of checks of spec
//! validation.md: validate, see that there is room, propose or read, and build the response. All of
//! it is cheap but for reading rows; long reads go to the blocking pool.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::apply::read_only;
use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::mvcc::read::{RangeError, RangeResult};
use ferrite_storage::mvcc::view::View;
use ferrite_storage::state::overtaken;
use prost::Message;
use tokio::sync::oneshot;
use tonic::Code;

use crate::error::Error;
use crate::member::{Applied, Input, Published, Reply};
use crate::metrics::{ETCD_VERSION, Metrics, RequestKind};
use crate::request_id::RequestIds;
use crate::shell::Inbox;
use crate::validate;

/// Rows above which a read leaves the async workers: some hundred microseconds of work.
const LONG_READ: u64 = 64;

/// The limits that requests are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest encoded proposal, bytes.
    pub max_request_bytes: usize,
    /// Operations per level of a transaction.
    pub max_txn_ops: usize,
    /// The quota as Status reports it, bytes.
    pub quota_bytes: i64,
}

/// A running member, seen from inside the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// Does not keep the member's state alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakHandle {
    inner: std::sync::Weak<Inner>,
}

impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        self.inner.upgrade().map(|inner| Handle { inner })
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) cluster_id: ClusterId,
    pub(crate) member_id: MemberId,
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
}

/// The answer to a Range: every pair is an already encoded `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// Ids, revision and term.
    pub header: pb::ResponseHeader,
    /// Encoded `mvccpb.KeyValue` messages, in answer order.
    pub kvs: Vec<Bytes>,
    /// Whether the limit cut the result.
    pub more: bool,
    /// Keys in the range at the revision, whatever the limit.
    pub count: i64,
}

/// The versions of `/version`.
#[derive(Clone, Debug)]
pub struct Versions {
    /// This program's level, `3.7.1`.
    pub server: String,
    /// The cluster version, `3.7.0`, once decided.
    pub cluster: Option<String>,
    /// The storage schema version, `3.7.0`, once known.
    pub storage: Option<String>,
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// KV.Range. Validates, waits for linearizability unless `serializable`, reads.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<RangeReply, Error> {
        validate::range(&request)?;
        let begun = Instant::now();
        let result = self.read_range(request).await;
        self.observe(RequestKind::Range, begun, result.is_ok());
        result
    }

    async fn read_range(&self, request: pb::RangeRequest) -> Result<RangeReply, Error> {
        let view = self.view(request.serializable).await?;
        let long = long_read(&view, &request);
        let this = self.clone();
        run(long, move || this.range_of(view, &request)).await
    }

    /// Reads, again on a newer view if a compaction has overtaken a read of the newest revision.
    fn range_of(
        &self,
        mut view: Arc<View>,
        request: &pb::RangeRequest,
    ) -> Result<RangeReply, Error> {
        let begun = Instant::now();
        loop {
            let result = self.range_once(&view, request);
            let result = match result {
                Err(RangeError::Missing(_))
                    if request.revision <= 0 && self.compacted() > view.revision =>
                {
                    view = self.inner.published.view();
                    continue;
                }
                result => result,
            };
            self.inner.metrics.mvcc.range.inc();
            self.inner
                .metrics
                .server
                .observe_range(result.is_ok(), begun.elapsed());
            let at = if request.revision <= 0 {
                view.revision
            } else {
                request.revision
            };
            let RangeResult { kvs, more, count } =
                result.map_err(|error| self.failed(error, at))?;
            return Ok(RangeReply {
                header: self.header(view.revision),
                kvs,
                more,
                count,
            });
        }
    }

    fn range_once(
        &self,
        view: &View,
        request: &pb::RangeRequest,
    ) -> Result<RangeResult, RangeError> {
        let published = &self.inner.published;
        let at = view.resolve(request.revision)?;
        let _pin = view.pins.pin(at);
        if at < view.revision
            && let Some(root) = published.roots().get(at)
        {
            return view.range_at(&root, at, request);
        }
        let result = view.range_at(&view.index, at, request)?;
        if at == view.revision && result.more {
            published.roots().keep(view);
        }
        Ok(result)
    }

    /// KV.Put.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.has_room(put_cost(&request)).await?;
        validate::put(&request)?;
        let request = pb::InternalRaftRequest {
            put: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Put, request).await?;
        let Response::Put(outcome) = &applied.result? else {
            return Err(mixed_up());
        };
        let mut response = outcome
            .resolve(&applied.view)
            .map_err(|error| self.damaged(error))?;
        response.header = Some(self.header(outcome.revision));
        Ok(response)
    }

    /// KV.DeleteRange.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        validate::delete_range(&request)?;
        let request = pb::InternalRaftRequest {
            delete_range: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::DeleteRange, request).await?;
        let Response::DeleteRange(outcome) = applied.result? else {
            return Err(mixed_up());
        };
        let (this, view, pin) = (self.clone(), applied.view, applied.pin);
        run(outcome.previous.len() as u64 > LONG_READ, move || {
            let _pin = pin;
            let mut response = outcome
                .resolve(&view)
                .map_err(|error| this.damaged(error))?;
            response.header = Some(this.header(outcome.revision));
            Ok(response)
        })
        .await
    }

    /// KV.Txn.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let cost = txn_cost(&request);
        if cost > 0 {
            self.has_room(cost).await?;
        }
        validate::txn(&request, self.inner.limits.max_txn_ops)?;
        if validate::is_read_only(&request) {
            return self.read_txn(request).await;
        }
        self.warm(&request);
        let request = pb::InternalRaftRequest {
            txn: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Txn, request).await?;
        let Response::Txn(outcome) = applied.result? else {
            return Err(mixed_up());
        };
        let (this, view, pin) = (self.clone(), applied.view, applied.pin);
        run(reads_ranges(&outcome), move || {
            let _pin = pin;
            let mut response = outcome
                .resolve(&view)
                .map_err(|error| this.damaged(error))?;
            response.header = Some(this.header(outcome.revision));
            Ok(response)
        })
        .await
    }

    async fn read_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let begun = Instant::now();
        let result = async {
            let view = self.view(validate::all_serializable(&request)).await?;
            let this = self.clone();
            run(true, move || {
                let _pin = view.pins.pin(view.revision);
                let read = || {
                    let outcome = read_only(&view, &request)?;
                    let mut response = outcome.resolve(&view)?;
                    response.header = Some(this.header(outcome.revision));
                    Ok(response)
                };
                read().map_err(|error| this.failed(error, view.compacted.max(0)))
            })
            .await
        }
        .await;
        self.observe(RequestKind::ReadonlyTxn, begun, result.is_ok());
        result
    }

    /// KV.Compact. With `physical`, returns when the rows are removed.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Error> {
        let physical = request.physical;
        let request = pb::InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Compaction, request).await?;
        if physical {
            // Also when the revision was compacted before: its rows may still be there.
            let revision = applied.view.compacted;
            self.ask(|waiter| Input::AwaitCompaction { revision, waiter })
                .await?;
        }
        applied.result?;
        let header = Some(self.header(self.inner.published.view().revision));
        Ok(pb::CompactionResponse { header })
    }

    /// Maintenance.Status: local, never waits.
    pub fn status(&self) -> pb::StatusResponse {
        let Inner {
            published, limits, ..
        } = &*self.inner;
        let view = published.view();
        let sizes = view.page.sizes();
        let leader = published.leader();
        let mut errors = Vec::new();
        if leader == 0 {
            errors.push(ApiError::NoLeader.message().to_owned());
        }
        errors.extend(self.alarms().iter().map(|alarm| {
            format!(
                "memberID:{} alarm:{}",
                alarm.member_id,
                alarm.alarm().as_str_name()
            )
        }));
        pb::StatusResponse {
            header: Some(self.header(view.revision)),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(sizes.allocated),
            leader,
            raft_index: published.committed(),
            raft_term: published.term(),
            raft_applied_index: published.applied(),
            errors,
            db_size_in_use: signed(sizes.in_use),
            is_learner: self.is_learner(),
            storage_version: view.page.meta().storage_version,
            db_size_quota: limits.quota_bytes,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }
    }

    /// Cluster.MemberList.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, Error> {
        if request.linearizable {
            self.view(false).await?;
        }
        let members = self.inner.published.cluster().members.to_api();
        // Membership has no store revision: etcd answers 0.
        Ok(pb::MemberListResponse {
            header: Some(self.header(0)),
            members,
        })
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
            ..
        } = &*self.inner;
        let (view, leader) = (published.view(), published.leader());
        let server = &metrics.server;
        server.has_leader.set(i64::from(leader != 0));
        server.is_leader.set(i64::from(leader == member_id.get()));
        server.is_learner.set(i64::from(self.is_learner()));
        server
            .proposals_committed
            .set(signed(published.committed()));
        server.proposals_applied.set(signed(published.applied()));
        if let Some(version) = &published.cluster().version {
            server.set_cluster_version(version);
        }
        let mvcc = &metrics.mvcc;
        let sizes = view.page.sizes();
        mvcc.db_total_size.set(signed(sizes.allocated));
        mvcc.db_total_size_in_use.set(signed(sizes.in_use));
        mvcc.keys.set(signed(view.index.len()));
        mvcc.current_revision.set(view.revision);
        mvcc.compact_revision.set(view.compacted);
    }

    /// Active alarms of all members.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.inner
            .published
            .cluster()
            .alarms
            .list(pb::AlarmType::None as i32)
    }

    /// Maintenance.Alarm.
    ///
    /// # Errors
    /// As etcd's; an action that does not exist (etcd crashes on one).
    pub async fn alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Error> {
        if pb::alarm_request::AlarmAction::try_from(request.action).is_err() {
            let text = "etcdserver: unknown alarm action";
            return Err(Error::status(Code::InvalidArgument, text));
        }
        let request = pb::InternalRaftRequest {
            alarm: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Alarm, request).await?;
        let Response::Alarm(alarms) = applied.result? else {
            return Err(mixed_up());
        };
        let header = Some(self.header(applied.view.revision));
        Ok(pb::AlarmResponse { header, alarms })
    }

    /// A read of the local state that succeeds if the store can be read (livez, readyz).
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn serializable_read(&self) -> Result<(), Error> {
        self.probe(true).await
    }

    /// A confirmed read (readyz, health).
    ///
    /// # Errors
    /// The read could not be confirmed or done.
    pub async fn linearizable_read(&self) -> Result<(), Error> {
        self.probe(false).await
    }

    async fn probe(&self, serializable: bool) -> Result<(), Error> {
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            limit: 1,
            serializable,
            ..Default::default()
        };
        self.read_range(request).await.map(drop)
    }

    /// The three versions.
    pub fn versions(&self) -> Versions {
        let published = &self.inner.published;
        let storage = published.view().page.meta().storage_version;
        Versions {
            server: ETCD_VERSION.to_owned(),
            cluster: published.cluster().version.clone(),
            storage: Some(storage).filter(|version| !version.is_empty()),
        }
    }

    /// A view for a read: pinned at once for a serializable one, else fresh enough to hold every
    /// write that was acknowledged before now.
    async fn view(&self, serializable: bool) -> Result<Arc<View>, Error> {
        let published = &self.inner.published;
        // The flag before the view: see `Published::reads_locally`.
        if serializable || published.reads_locally() {
            return Ok(published.view());
        }
        match self.ask(|waiter| Input::Read { waiter }).await? {
            Reply::View(view) => Ok(view),
            Reply::Applied(_) => Err(mixed_up()),
            Reply::Failed(error) => Err(error),
        }
    }

    async fn propose(
        &self,
        kind: RequestKind,
        mut request: pb::InternalRaftRequest,
    ) -> Result<Applied, Error> {
        let begun = Instant::now();
        let id = self.inner.ids.next();
        request.header = Some(pb::RequestHeader {
            id: id.get(),
            ..Default::default()
        });
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
        let reply = self
            .ask(|waiter| Input::Propose {
                id,
                payload,
                waiter,
            })
            .await;
        let result = match reply {
            Ok(Reply::Applied(applied)) => Ok(applied),
            Ok(Reply::View(_)) => Err(mixed_up()),
            Ok(Reply::Failed(error)) | Err(error) => Err(error),
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
        // A negative quota is none.
        let Ok(quota) = u64::try_from(limits.quota_bytes) else {
            return Ok(());
        };
        if published.view().page.sizes().allocated + cost < quota {
            return Ok(());
        }
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: self.inner.member_id.get(),
            alarm: pb::AlarmType::Nospace as i32,
        };
        // The request is refused, whatever becomes of the alarm.
        if let Err(error) = Box::pin(self.alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise the NOSPACE alarm");
        }
        Err(ApiError::NoSpace.into())
    }

    /// Reads what apply will have to read to decide, so that it finds it in memory: a cold page
    /// then costs this client time and nobody else.
    fn warm(&self, request: &pb::TxnRequest) {
        let view = self.inner.published.view();
        let mut rows = view.rows();
        for compare in &request.compare {
            use pb::compare::CompareTarget::{Lease, Value};
            let reads = matches!(
                pb::compare::CompareTarget::try_from(compare.target),
                Ok(Value | Lease)
            );
            if reads
                && compare.range_end.is_empty()
                && let Some(meta) = view.index.latest(&compare.key)
            {
                // Only for its effect on the cache; apply reports what is wrong with the row.
                let _warmed = rows.get(meta.modified);
            }
        }
    }

    fn header(&self, revision: i64) -> pb::ResponseHeader {
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

    fn observe(&self, kind: RequestKind, begun: Instant, success: bool) {
        self.inner
            .metrics
            .server
            .request_duration
            .observe(kind, success, begun.elapsed());
    }
}

/// Runs work that reads rows: here if it is short, else on the blocking pool.
async fn run<R: Send + 'static>(
    long: bool,
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    if !long {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "a read panicked");
            Err(Error::status(
                Code::Internal,
                "the read failed; see the server's log",
            ))
        }
    }
}

fn long_read(view: &View, request: &pb::RangeRequest) -> bool {
    if request.range_end.is_empty() || request.count_only {
        return false;
    }
    if (1..=LONG_READ.cast_signed()).contains(&request.limit) && request.sort_target == 0 {
        return false;
    }
    let range = KeyRange::new(request.key.clone(), &request.range_end);
    view.index.count(&range, view.revision) > LONG_READ
}

fn reads_ranges(outcome: &ferrite_storage::apply::outcome::TxnOutcome) -> bool {
    use ferrite_storage::apply::outcome::OpOutcome;
    outcome.ops.iter().any(|op| match op {
        OpOutcome::Range { request, .. } => !request.range_end.is_empty(),
        OpOutcome::Txn(nested) => reads_ranges(nested),
        OpOutcome::Put(_) => false,
        OpOutcome::DeleteRange(delete) => delete.previous.len() as u64 > LONG_READ,
    })
}

/// What a put costs against the quota (bytes).
fn put_cost(request: &pb::PutRequest) -> u64 {
    256 + (request.key.len() + request.value.len()) as u64
}

/// What a transaction costs: the puts of its larger branch, nested ones included; 0 without puts.
fn txn_cost(request: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Request::RequestPut(put)) => put_cost(put),
                Some(Request::RequestTxn(nested)) => txn_cost(nested),
                _ => 0,
            })
            .sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A reply of another kind than the question: a bug of ours, answered instead of a panic.
fn mixed_up() -> Error {
    Error::status(Code::Internal, "the member answered another question")
}
