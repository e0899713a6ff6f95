//! The gRPC services on the client port.
//!
//! [`Server`] is all of them, as one function from an HTTP/2 request to its response. Unary calls
//! are served here directly (`unary`): that gives every one of them etcd's texts, a Range answer is
//! passed on without being decoded, and a put takes a seventh fewer instructions than on tonic alone,
//! admission and counting included. Streams (`stream`) run inside the body of their response. Both
//! take their messages from the same reader (`message`) and their admission, deadlines and counting
//! from the same place (`call`), so they behave alike on the wire; `tests/it/wire_*.rs` hold them to
//! it.
//!
//! Validation of the requests themselves is in [`crate::validate`], behind [`Kv`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::auth::{CommonName, Credentials};
use crate::error::Error;
use crate::handle::range_stream::Messages;
use crate::handle::snapshot::Snapshot;
use crate::handle::{Handle, List, WatchStream};
use crate::metrics::{Method, Metrics};
use crate::spans::Spans;

mod auth;
mod body;
mod call;
mod cluster;
mod election;
mod health;
mod lease;
mod lock;
pub(crate) mod message;
mod methods;
mod range_reply;
mod range_stream;
mod reflection;
mod reply;
mod snapshot;
mod status;
mod stream;
mod unary;
mod watch;

pub use auth::Auths;
pub use body::Body;
pub use cluster::Clusters;
pub use lease::Leases;
pub(crate) use reply::gzip;
pub(crate) use status::CONTENT_TYPE_GRPC;

use call::Call;

/// How many Txns from the wire can be inside one another, inside the outermost: prost stops
/// decoding at 100 messages inside one another, each level is two (RequestOp and TxnRequest), and
/// the innermost wants an op.
///
/// Deviation: etcd decodes 10,000 levels and is bounded by `--max-txn-ops` alone, which admits 127.
pub const MAX_NESTED_TXNS: usize = 49;

/// What a request may be longer than `--max-request-bytes` by, in bytes: etcd's allowance for what
/// is around the request proper.
const REQUEST_OVERHEAD: usize = 512 * 1024;

/// The longest message that is received, for this `--max-request-bytes`. Also where watch responses
/// are split, if the watcher wants it: etcd's choice.
pub(crate) fn max_message_bytes(max_request_bytes: usize) -> usize {
    max_request_bytes.saturating_add(REQUEST_OVERHEAD)
}

/// Checks in a row without a leader after which a stream that insists on one ends.
const MAX_LEADERLESS_CHECKS: u32 = 3;

/// What the services ask of a member; [`Handle`] in production.
pub trait Kv: Auths + Leases + Clusters + Clone + Send + Sync + 'static {
    /// KV.Range.
    fn list(&self, request: pb::RangeRequest) -> impl Future<Output = Result<List, Error>> + Send;
    /// KV.RangeStream.
    fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> impl Future<Output = Result<Messages, Error>> + Send;
    /// KV.Put.
    fn put(
        &self,
        request: pb::PutRequest,
    ) -> impl Future<Output = Result<pb::PutResponse, Error>> + Send;
    /// KV.DeleteRange.
    fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> impl Future<Output = Result<pb::DeleteRangeResponse, Error>> + Send;
    /// KV.Txn.
    fn txn(
        &self,
        request: pb::TxnRequest,
    ) -> impl Future<Output = Result<pb::TxnResponse, Error>> + Send;
    /// KV.Compact.
    fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> impl Future<Output = Result<pb::CompactionResponse, Error>> + Send;
    /// Cluster.MemberList.
    fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> impl Future<Output = Result<pb::MemberListResponse, Error>> + Send;
    /// Maintenance.Alarm.
    fn alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> impl Future<Output = Result<pb::AlarmResponse, Error>> + Send;
    /// Maintenance.Downgrade.
    fn downgrade(
        &self,
        request: pb::DowngradeRequest,
    ) -> impl Future<Output = Result<pb::DowngradeResponse, Error>> + Send;
    /// Maintenance.Hash.
    fn hash(&self) -> impl Future<Output = Result<pb::HashResponse, Error>> + Send;
    /// Maintenance.HashKV.
    fn hash_kv(
        &self,
        request: pb::HashKvRequest,
    ) -> impl Future<Output = Result<pb::HashKvResponse, Error>> + Send;
    /// Maintenance.Defragment.
    fn defragment(&self) -> impl Future<Output = Result<pb::DefragmentResponse, Error>> + Send;
    /// Maintenance.Snapshot.
    fn snapshot(&self) -> impl Future<Output = Result<Snapshot, Error>> + Send;
    /// Watch.Watch.
    ///
    /// # Errors
    /// The member does not serve watches now.
    fn watch(&self) -> Result<WatchStream, Error>;
    /// Maintenance.Status.
    fn status(&self) -> impl Future<Output = Result<pb::StatusResponse, Error>> + Send;
    /// The same member, as a client with these credentials sees it.
    #[must_use]
    fn with_credentials(&self, _: Credentials) -> Self {
        self.clone()
    }
    /// The leader that this member knows; 0 = none.
    fn leader(&self) -> u64;
    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;
    /// How many reasons there are for the health service to say `NOT_SERVING`; `None`: never any.
    fn paused(&self) -> Option<Receiver<usize>> {
        None
    }
}

impl Kv for Handle {
    fn list(&self, request: pb::RangeRequest) -> impl Future<Output = Result<List, Error>> + Send {
        Handle::list(self, request)
    }
    fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> impl Future<Output = Result<Messages, Error>> + Send {
        Handle::range_stream(self, request)
    }
    fn put(
        &self,
        request: pb::PutRequest,
    ) -> impl Future<Output = Result<pb::PutResponse, Error>> + Send {
        Handle::put(self, request)
    }
    fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> impl Future<Output = Result<pb::DeleteRangeResponse, Error>> + Send {
        Handle::delete_range(self, request)
    }
    fn txn(
        &self,
        request: pb::TxnRequest,
    ) -> impl Future<Output = Result<pb::TxnResponse, Error>> + Send {
        Handle::txn(self, request)
    }
    fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> impl Future<Output = Result<pb::CompactionResponse, Error>> + Send {
        Handle::compact(self, request)
    }
    fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> impl Future<Output = Result<pb::MemberListResponse, Error>> + Send {
        Handle::member_list(self, request)
    }
    fn alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> impl Future<Output = Result<pb::AlarmResponse, Error>> + Send {
        Handle::alarm(self, request)
    }
    fn downgrade(
        &self,
        request: pb::DowngradeRequest,
    ) -> impl Future<Output = Result<pb::DowngradeResponse, Error>> + Send {
        self.downgrade_cluster(request)
    }
    fn hash(&self) -> impl Future<Output = Result<pb::HashResponse, Error>> + Send {
        Handle::hash(self)
    }
    fn hash_kv(
        &self,
        request: pb::HashKvRequest,
    ) -> impl Future<Output = Result<pb::HashKvResponse, Error>> + Send {
        Handle::hash_kv(self, request)
    }
    fn defragment(&self) -> impl Future<Output = Result<pb::DefragmentResponse, Error>> + Send {
        Handle::defragment(self)
    }
    fn paused(&self) -> Option<Receiver<usize>> {
        Some(Handle::paused(self))
    }
    fn snapshot(&self) -> impl Future<Output = Result<Snapshot, Error>> + Send {
        Handle::snapshot(self)
    }
    fn watch(&self) -> Result<WatchStream, Error> {
        Ok(Handle::watch(self))
    }
    fn status(&self) -> impl Future<Output = Result<pb::StatusResponse, Error>> + Send {
        self.status_for_caller()
    }
    fn with_credentials(&self, credentials: Credentials) -> Self {
        Handle::with_credentials(self, credentials)
    }
    fn leader(&self) -> u64 {
        Handle::leader(self)
    }
    fn is_learner(&self) -> bool {
        Handle::is_learner(self)
    }
}

/// A call after its headers were read.
pub(crate) enum Begun<B> {
    /// That was all.
    Answered(Box<Response<Body>>),
    /// A unary call, to be read and served.
    Unary(Method, Call, B),
    /// Anything else: its state shall not make the future of every unary call larger.
    Boxed(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// The gRPC services of one member, for one of its connections. Cheap to clone.
#[derive(Debug)]
pub struct Server<K> {
    inner: Arc<Inner<K>>,
    /// The number of the connection; 0 for none in particular.
    connection: u32,
    /// Who the client of the connection is, by its certificate.
    common_name: Option<CommonName>,
}

#[derive(Debug)]
struct Inner<K> {
    kv: K,
    metrics: Arc<Metrics>,
    /// Longest request message, in bytes.
    max_message_bytes: usize,
    /// Time above which a unary call is logged.
    slow_call: Duration,
    /// Where calls are traced.
    spans: Option<Spans>,
    stopping: CancellationToken,
    /// Ends the streams that insist on a leader; replaced when it was used. A mutex: taken once per
    /// such stream and per loss of the leader, never across an await.
    leaderless: Mutex<CancellationToken>,
    /// The number of the last connection.
    connections: AtomicU32,
}

impl<K> Clone for Server<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            connection: self.connection,
            common_name: self.common_name.clone(),
        }
    }
}

impl<K: Kv> Server<K> {
    /// The services of the member `kv`. `max_request_bytes` is `--max-request-bytes`.
    /// A unary call that takes longer than `slow_call` (`--warning-unary-request-duration`) is logged.
    pub fn new(
        kv: K,
        metrics: Arc<Metrics>,
        max_request_bytes: usize,
        slow_call: Duration,
    ) -> Self {
        Self::traced(kv, metrics, max_request_bytes, slow_call, None)
    }

    /// As [`Server::new`], with spans for all calls if there are `spans`.
    pub(crate) fn traced(
        kv: K,
        metrics: Arc<Metrics>,
        max_request_bytes: usize,
        slow_call: Duration,
        spans: Option<Spans>,
    ) -> Self {
        let stopping = CancellationToken::new();
        let max_message_bytes = max_message_bytes(max_request_bytes);
        let leaderless = Mutex::new(CancellationToken::new());
        Self {
            inner: Arc::new(Inner {
                // Calls are those of clients, whoever the member was handed over by.
                kv: kv.with_credentials(Credentials::default()),
                metrics,
                max_message_bytes,
                slow_call,
                spans,
                stopping,
                leaderless,
                connections: AtomicU32::new(0),
            }),
            connection: 0,
            common_name: None,
        }
    }

    /// The same services, for another connection.
    pub fn for_connection(&self) -> Self {
        let before = self.inner.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: self.inner.clone(),
            connection: before.wrapping_add(1),
            common_name: None,
        }
    }

    /// The same services, for a connection whose client has proved by its certificate that this is its
    /// name. It is the user of calls that bring no token.
    #[must_use]
    pub fn with_common_name(self, common_name: Option<CommonName>) -> Self {
        Self {
            common_name,
            ..self
        }
    }

    /// What the client shows of itself with a call, if anything.
    fn credentials(&self, call: &Call) -> Option<Credentials> {
        let common_name = self.common_name.as_ref().filter(|_| !call.through_gateway);
        if call.token.is_none() && common_name.is_none() {
            return None;
        }
        Some(Credentials {
            token: call.token.clone(),
            common_name: common_name.cloned(),
        })
    }

    /// Ends all streams, also those that begin later. Unary calls finish.
    pub fn stop(&self) {
        self.inner.stopping.cancel();
    }

    /// Whether a request of an HTTP/2 connection is for these services: by content type, or, to
    /// refuse a wrong content type in gRPC's way, by path.
    pub fn accepts<B>(request: &Request<B>) -> bool {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
            || methods::is_service_path(request.uri().path())
    }

    /// Serves one call. Never fails: errors are responses.
    ///
    /// Cancel safety: dropping the future abandons the call; what it proposed may still happen.
    pub fn call<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<K, B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        self.clone().finish(self.begin(request))
    }

    /// What can be done with a request at once. Keeps of it what the rest needs, so that the future
    /// of a call is small: it is moved several times before it runs.
    pub(crate) fn begin<B>(&self, request: Request<B>) -> Begun<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        if let Some(service) = reflection::of(request.uri().path()) {
            let stopping = self.stopping().clone();
            return Begun::Boxed(Box::pin(reflection::call(service, request, stopping)));
        }
        let (parts, body) = request.into_parts();
        let call = match Call::read(&parts) {
            Ok(call) => call,
            Err(response) => return Begun::Answered(response),
        };
        match call.method {
            Method::KvRangeStream => Begun::Boxed(Box::pin(
                self.clone()
                    .stream::<range_stream::RangeStream, B>(call, body),
            )),
            Method::MaintenanceSnapshot => Begun::Boxed(Box::pin(
                self.clone().stream::<snapshot::Snapshot, B>(call, body),
            )),
            Method::HealthWatch => Begun::Boxed(Box::pin(
                self.clone().stream::<health::Watch, B>(call, body),
            )),
            Method::LeaseKeepAlive => Begun::Boxed(Box::pin(
                self.clone().stream::<lease::KeepAlive, B>(call, body),
            )),
            Method::WatchWatch => {
                Begun::Boxed(Box::pin(self.clone().stream::<watch::Watch, B>(call, body)))
            }
            Method::ElectionObserve => Begun::Boxed(Box::pin(
                self.clone().stream::<election::Observe, B>(call, body),
            )),
            method @ (Method::LockLock
            | Method::LockUnlock
            | Method::ElectionCampaign
            | Method::ElectionProclaim
            | Method::ElectionLeader
            | Method::ElectionResign) => {
                Begun::Boxed(Box::pin(self.clone().queue(method, call, body)))
            }
            method => Begun::Unary(method, call, body),
        }
    }

    /// The rest of a call.
    pub(crate) async fn finish<B>(self, begun: Begun<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let (method, call, body) = match begun {
            Begun::Unary(method, call, body) => (method, call, body),
            Begun::Answered(response) => return Ok(*response),
            Begun::Boxed(response) => return Ok(response.await),
        };
        Ok(match method {
            Method::KvPut => self.unary::<unary::Put, B>(&call, body).await,
            Method::KvRange => self.unary::<unary::Range, B>(&call, body).await,
            Method::KvTxn => self.unary::<unary::Txn, B>(&call, body).await,
            Method::KvDeleteRange => self.unary::<unary::DeleteRange, B>(&call, body).await,
            Method::KvCompact => self.unary::<unary::Compact, B>(&call, body).await,
            Method::LeaseGrant => self.unary::<lease::Grant, B>(&call, body).await,
            Method::LeaseRevoke => self.unary::<lease::Revoke, B>(&call, body).await,
            Method::LeaseTimeToLive => self.unary::<lease::TimeToLive, B>(&call, body).await,
            Method::LeaseLeases => self.unary::<lease::List, B>(&call, body).await,
            Method::ClusterMemberList => self.unary::<unary::MemberList, B>(&call, body).await,
            Method::ClusterMemberAdd => self.unary::<cluster::MemberAdd, B>(&call, body).await,
            Method::ClusterMemberRemove => {
                self.unary::<cluster::MemberRemove, B>(&call, body).await
            }
            Method::ClusterMemberUpdate => {
                self.unary::<cluster::MemberUpdate, B>(&call, body).await
            }
            Method::ClusterMemberPromote => {
                self.unary::<cluster::MemberPromote, B>(&call, body).await
            }
            Method::MaintenanceMoveLeader => {
                self.unary::<cluster::MoveLeader, B>(&call, body).await
            }
            Method::MaintenanceAlarm => self.unary::<unary::Alarm, B>(&call, body).await,
            Method::MaintenanceDowngrade => self.unary::<unary::Downgrade, B>(&call, body).await,
            Method::MaintenanceDefragment => self.unary::<unary::Defragment, B>(&call, body).await,
            Method::MaintenanceHash => self.unary::<unary::Hash, B>(&call, body).await,
            Method::MaintenanceHashKv => self.unary::<unary::HashKv, B>(&call, body).await,
            Method::MaintenanceStatus => self.unary::<unary::Status, B>(&call, body).await,
            Method::HealthCheck => self.unary::<health::Check, B>(&call, body).await,
            Method::HealthList => self.unary::<health::List, B>(&call, body).await,
            other => match Box::pin(self.auth(other, &call, body)).await {
                Some(response) => response,
                None => self.refuse_unserved(other),
            },
        })
    }

    /// A unary call of the Lock or the Election service: it may wait for long, but not for longer
    /// than the server runs.
    async fn queue<B>(self, method: Method, call: Call, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let answer = async {
            match method {
                Method::LockLock => self.unary::<lock::Lock, B>(&call, body).await,
                Method::LockUnlock => self.unary::<lock::Unlock, B>(&call, body).await,
                Method::ElectionCampaign => self.unary::<election::Campaign, B>(&call, body).await,
                Method::ElectionProclaim => self.unary::<election::Proclaim, B>(&call, body).await,
                Method::ElectionLeader => self.unary::<election::Leader, B>(&call, body).await,
                Method::ElectionResign => self.unary::<election::Resign, B>(&call, body).await,
                other => self.refuse_unserved(other),
            }
        };
        tokio::select! {
            biased;
            response = answer => response,
            () = self.stopping().cancelled() => status::refuse(&ferrite_api::Error::Stopped.into()),
        }
    }

    /// Watches the leader for the streams that insist on one, until the server stops: after
    /// [`MAX_LEADERLESS_CHECKS`] in a row without, one per `election_timeout`, they end.
    pub async fn watch_leader(&self, election_timeout: Duration) {
        let mut checks = 0;
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(election_timeout) => self.check_leader(&mut checks),
            }
        }
    }

    /// One check; `checks` counts those in a row without a leader.
    fn check_leader(&self, checks: &mut u32) {
        *checks = if self.inner.kv.leader() == 0 {
            checks.saturating_add(1)
        } else {
            0
        };
        if *checks >= MAX_LEADERLESS_CHECKS {
            let used = std::mem::take(&mut *self.inner.leaderless.lock());
            used.cancel();
        }
    }

    /// A method that is in the table and that nothing here serves: a bug of ours, answered instead of a
    /// panic.
    fn refuse_unserved(&self, method: Method) -> Response<Body> {
        let (service, method) = (method.service(), method.name());
        tracing::error!(service, method, "nothing serves this method");
        let text = format!("unknown method {method} for service {service}");
        status::refuse(&Error::status(Code::Unimplemented, text))
    }

    fn kv(&self) -> &K {
        &self.inner.kv
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    pub(crate) fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes
    }

    fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// Cancelled when the leader has been lost for too long, counted from now.
    fn leaderless(&self) -> CancellationToken {
        self.inner.leaderless.lock().clone()
    }
}
