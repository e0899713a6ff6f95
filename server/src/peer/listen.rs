//! The peer listeners: HTTP/1.1, the paths between members and nothing else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use ferrite_api::types::MemberId;
use http::header::{ALLOW, CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::identity::{self, FROM, Refusal, SESSION};
use super::link::Link;
use super::receive;
use super::shared::Shared;
use super::socket::Socket;
use super::{PROTOCOL, STREAM_PATH, hash_kv, pages, probe, snapshot};
use crate::http::reply;
use crate::serve::{Admitted, Listener, Serves, Stream, Tls, Transport};

/// How long a caller may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// In metrics, whom a snapshot is from that nobody may send.
const UNKNOWN: &str = "UNKNOWN_SNAPSHOT_SENDER";

/// Accepts until draining begins.
pub(super) async fn accept_all(shared: Arc<Shared>, listener: Listener) {
    let tls = listener.tls();
    let begin = |stream| match stream {
        Stream::Tcp(stream) => shared
            .tasks
            .spawn(admit(Arc::clone(&shared), stream, tls.cloned())),
        Stream::Unix(stream) => {
            shared
                .tasks
                .spawn(admit(Arc::clone(&shared), stream, tls.cloned()))
        }
    };
    listener.accept_all(&shared.draining, begin).await;
}

async fn admit<S>(shared: Arc<Shared>, stream: S, tls: Option<Tls>)
where
    S: Transport,
    Socket: From<Admitted<S>>,
{
    let admitted = match &tls {
        Some(tls) => {
            let admitting = tls.admit(stream, Serves::Http);
            shared
                .draining
                .run_until_cancelled(admitting)
                .await
                .flatten()
        }
        None => Some(Admitted::Plain(stream)),
    };
    if let Some(admitted) = admitted {
        serve(shared, admitted.into()).await;
    }
}

async fn serve(shared: Arc<Shared>, socket: Socket) {
    let remote = socket.remote();
    let service = service_fn(|request| {
        let answering = shared.answer(request, &remote);
        async { Ok::<_, Infallible>(answering.await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let connection = pin!(connection.with_upgrades());
    let ended = shared.end.run_until_cancelled(connection).await;
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, remote, "a connection to the peer port broke");
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, remote: &str) -> Response {
        let method = match request.uri().path() {
            STREAM_PATH | snapshot::PATH => Method::POST,
            "/members" | "/version" | "/downgrade/enabled" | hash_kv::PATH => Method::GET,
            probe::PATH => request.method().clone(),
            _ => return reply::not_found(),
        };
        if request.method() != method {
            return not_allowed(&method);
        }
        match request.uri().path() {
            STREAM_PATH => self.begin_stream(request, remote),
            snapshot::PATH => self.take_snapshot(request, remote).await,
            "/members" => pages::members(self.identity.cluster, &self.directory.members()),
            "/version" => crate::http::version_reply(&self.directory.versions()),
            "/downgrade/enabled" => {
                let enabled = self.directory.downgrade_enabled().await;
                pages::downgrade_enabled(self.identity.cluster, enabled)
            }
            hash_kv::PATH => hash_kv::answer(self, request).await,
            _ => pages::probing(),
        }
    }

    async fn take_snapshot(self: &Arc<Self>, request: Request<Incoming>, remote: &str) -> Response {
        match self.caller(request.headers()) {
            Ok(link) => {
                let body = request.into_body();
                // A task of its own, which sees the end when the sender hangs up: this future is
                // dropped then.
                let receiving = snapshot::receive(Arc::clone(self), link, body);
                let Ok(mut answer) = self.tasks.spawn(receiving).await else {
                    let text = "the receiving task has panicked";
                    return reply::error(StatusCode::INTERNAL_SERVER_ERROR, text);
                };
                answer.headers_mut().extend(self.identity.headers());
                answer
            }
            Err(refusal) => {
                let failures = &self.metrics.network.snapshot_receive_failures;
                failures.with_label_values(&[UNKNOWN]).inc();
                self.refused.log(self, refusal, request.headers(), remote);
                self.refuse(refusal)
            }
        }
    }

    fn begin_stream(self: &Arc<Self>, request: Request<Incoming>, remote: &str) -> Response {
        match self.accept_stream(request) {
            Ok(answer) => answer,
            Err((refusal, headers)) => {
                self.refused.log(self, refusal, &headers, remote);
                self.refuse(refusal)
            }
        }
    }

    fn accept_stream(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response, (Refusal, HeaderMap)> {
        let headers = request.headers();
        let accepted = self.caller(headers).and_then(|link| {
            let protocol = identity::text(headers, UPGRADE);
            let session = identity::session(headers).ok_or(Refusal::NoStream)?;
            if protocol != Some(PROTOCOL) {
                return Err(Refusal::NoStream);
            }
            let end = link.sessions.begin(session);
            let end = end.map_err(Refusal::OldSession)?;
            Ok((link, session, end))
        });
        let (link, session, end) = accepted.map_err(|refusal| (refusal, headers.clone()))?;
        // Whatever was on its way over an older stream is lost.
        link.questions.fail_all();
        link.alive.notify_waiters();
        self.refused.forget(link.peer);
        let shared = Arc::clone(self);
        let stream = receive::Stream {
            shared,
            link,
            session,
            end,
        };
        self.tasks.spawn(stream.upgraded(request));
        let mut answer = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
        *answer.headers_mut() = self.identity.headers();
        let upgrade = HeaderValue::from_static("upgrade");
        answer.headers_mut().insert(CONNECTION, upgrade);
        let protocol = HeaderValue::from_static(PROTOCOL);
        answer.headers_mut().insert(UPGRADE, protocol);
        Ok(answer)
    }

    /// The member that sends a request, if it may.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Arc<Link>, Refusal> {
        let sender = self.identity.sender(headers)?;
        let roster = self.roster.read();
        if roster.removed.contains(&sender) {
            return Err(Refusal::Removed);
        }
        let link = roster.links.get(&sender);
        let link = link.ok_or(Refusal::UnknownSender)?;
        if !self.identity.is_meant(headers) {
            return Err(Refusal::NotMe);
        }
        Ok(Arc::clone(link))
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Response {
        let mut answer = reply::error(refusal.status(), refusal.text());
        answer.headers_mut().extend(self.identity.headers());
        if let Refusal::OldSession(newest) = refusal {
            answer
                .headers_mut()
                .insert(SESSION, HeaderValue::from(newest));
        }
        answer
    }
}

impl receive::Stream {
    async fn upgraded(self, request: Request<Incoming>) {
        let upgraded = tokio::select! {
            () = self.end.cancelled() => return,
            () = self.link.end.cancelled() => return,
            upgraded = hyper::upgrade::on(request) => upgraded,
        };
        let parts = upgraded.map(|upgraded| upgraded.downcast::<TokioIo<Socket>>());
        match parts {
            Ok(Ok(parts)) => {
                let early: Bytes = parts.read_buf;
                self.receive(parts.io.into_inner(), early).await;
            }
            // The caller has hung up.
            Ok(Err(_)) | Err(_) => self.over(),
        }
    }
}

/// 405, with the method that is allowed.
fn not_allowed(method: &Method) -> Response<Body> {
    let mut answer = reply::method_not_allowed();
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        answer.headers_mut().insert(ALLOW, method);
    }
    answer
}

/// Who was refused last for what, so that a caller that tries again and again is logged once.
#[derive(Debug, Default)]
pub(super) struct Refused {
    last: Mutex<BTreeMap<String, Refusal>>,
}

impl Refused {
    /// Callers that are remembered; beyond, all are forgotten, and logged again.
    const MOST: usize = 1000;

    fn log(&self, shared: &Shared, refusal: Refusal, headers: &HeaderMap, remote: &str) {
        let from = identity::text(headers, FROM).unwrap_or_default().to_owned();
        let mut last = self.last.lock();
        if last.len() >= Self::MOST {
            last.clear();
        }
        let old_session = matches!(refusal, Refusal::OldSession(_));
        let again = last.insert(from.clone(), refusal) == Some(refusal) || old_session;
        drop(last);
        let own = &shared.identity;
        if again {
            tracing::debug!(from, remote, reason = refusal.text(), "refused a peer");
        } else if let Refusal::OtherCluster(other) = refusal {
            tracing::warn!(
                member_id = %own.member,
                cluster_id = %own.cluster,
                peer = from,
                peer_cluster_id = other.map_or_else(String::new, |id| id.to_string()),
                remote,
                "refused a peer from another cluster"
            );
        } else {
            tracing::warn!(
                member_id = %own.member,
                cluster_id = %own.cluster,
                peer = from,
                peer_urls = identity::text(headers, identity::PEER_URLS),
                peer_version = identity::text(headers, identity::SERVER_VERSION),
                looks_for = identity::text(headers, identity::TO),
                remote,
                reason = refusal.text(),
                "refused a peer"
            );
        }
    }

    fn forget(&self, peer: MemberId) {
        self.last.lock().remove(&peer.to_string());
    }
}
