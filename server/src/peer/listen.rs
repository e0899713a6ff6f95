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
use super::{OFFER_PATH, PROTOCOL, STREAM_PATH, hash_kv, pages, probe, snapshot};
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
            STREAM_PATH | OFFER_PATH | snapshot::PATH => Method::POST,
            "/members" | "/version" | "/downgrade/enabled" | hash_kv::PATH => Method::GET,
            probe::PATH => request.method().clone(),
            _ => return reply::not_found(),
        };
        if request.method() != method {
            return not_allowed(&method);
        }
        match request.uri().path() {
            STREAM_PATH => self.or_refuse(self.accept_stream(request), remote),
            OFFER_PATH => self.or_refuse(self.accept_offer(request), remote),
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

    fn or_refuse(
        &self,
        accepted: Result<Response, (Refusal, HeaderMap)>,
        remote: &str,
    ) -> Response {
        accepted.unwrap_or_else(|(refusal, headers)| {
            self.refused.log(self, refusal, &headers, remote);
            self.refuse(refusal)
        })
    }

    /// A stream for the caller to write to.
    fn accept_stream(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response, (Refusal, HeaderMap)> {
        let accepted = self
            .streaming(request.headers())
            .and_then(|(link, session)| {
                let end = link.sessions.begin(session);
                let end = end.map_err(Refusal::OldSession)?;
                Ok((link, session, end))
            });
        let (link, session, end) =
            accepted.map_err(|refusal| (refusal, request.headers().clone()))?;
        link.alive.notify_waiters();
        self.refused.forget(link.peer);
        let stream = receive::Stream::begin(Arc::clone(self), link, session, end);
        self.tasks.spawn(stream.upgraded(request));
        Ok(self.switching())
    }

    /// A stream for this side to write to.
    fn accept_offer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response, (Refusal, HeaderMap)> {
        let accepted = self
            .streaming(request.headers())
            .and_then(|(link, newest)| {
                if link.since.lock().is_some() {
                    return Err(Refusal::Connected);
                }
                Ok((link, newest))
            });
        let (link, newest) = accepted.map_err(|refusal| (refusal, request.headers().clone()))?;
        self.begin_sessions_after(newest);
        let mut answer = self.switching();
        let session = HeaderValue::from(self.next_session());
        answer.headers_mut().insert(SESSION, session);
        self.tasks.spawn(async move {
            let upgraded = link.end.run_until_cancelled(upgraded(request)).await;
            // The caller says nothing before it is asked: nothing has come early.
            if let Some((socket, _)) = upgraded.flatten() {
                // Another one may wait: then this one ends, and the caller knows.
                let _superfluous = link.offered.try_send(socket);
            }
        });
        Ok(answer)
    }

    /// Who asks for a stream, and its session.
    fn streaming(&self, headers: &HeaderMap) -> Result<(Arc<Link>, u64), Refusal> {
        let link = self.caller(headers)?;
        let session = identity::session(headers).ok_or(Refusal::NoStream)?;
        if identity::text(headers, UPGRADE) != Some(PROTOCOL) {
            return Err(Refusal::NoStream);
        }
        Ok((link, session))
    }

    /// The answer behind which a stream begins.
    fn switching(&self) -> Response {
        let mut answer = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = answer.headers_mut();
        *headers = self.identity.headers();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        answer
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
            upgraded = upgraded(request) => upgraded,
        };
        match upgraded {
            Some((socket, early)) => self.receive(socket, early).await,
            None => self.over(),
        }
    }
}

/// The connection of a request that was answered with an upgrade, and what has come behind the request;
/// `None` if the caller has hung up.
async fn upgraded(request: Request<Incoming>) -> Option<(Socket, Bytes)> {
    let upgraded = hyper::upgrade::on(request).await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Socket>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
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
        // What may happen to any two members.
        let usual = matches!(refusal, Refusal::OldSession(_) | Refusal::Connected);
        let again = last.insert(from.clone(), refusal) == Some(refusal) || usual;
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
