//! What every call goes through, whatever serves it: is it proper gRPC, where does it go, how long
//! may it take, may this member answer it, and how is it counted. Order and texts are etcd's
//! (spec/errors.md section 5).

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method as HttpMethod, Response, StatusCode, request};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tonic::Code;

use super::body::Body;
use super::methods;
use super::{Kv, status};
use crate::auth::Token;
use crate::error::Error;
use crate::metrics::server::CallKind;
use crate::metrics::{Method, Metrics};
use crate::spans::{CallSpan, Spans};

/// A call whose headers were found to be in order, and what they say.
#[derive(Debug)]
pub(crate) struct Call {
    pub(super) method: Method,
    /// Whether the client compresses, and so wants compressed answers.
    pub(super) gzip: bool,
    /// When the client stops waiting.
    pub(super) deadline: Option<Instant>,
    /// Whether the client set `hasleader`.
    pub(super) wants_leader: bool,
    /// Metadata `client-api-version`.
    version: Option<HeaderValue>,
    /// Metadata `traceparent`, of clients that trace. Boxed, because others have none.
    parent: Option<Box<HeaderValue>>,
    /// The token of the caller.
    pub(super) token: Option<Token>,
    /// Whether a gateway has passed the call on: then the certificate is that of the gateway.
    pub(super) through_gateway: bool,
}

/// The headers that matter here, the first of each name. Found in one pass: there are few headers,
/// so looking up each name would cost more.
#[derive(Default)]
struct Known<'a> {
    content_type: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    encoding: Option<&'a HeaderValue>,
    version: Option<&'a HeaderValue>,
    has_leader: Option<&'a HeaderValue>,
    parent: Option<&'a HeaderValue>,
    token: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    gateway: Option<&'a HeaderValue>,
}

impl<'a> Known<'a> {
    fn find(headers: &'a HeaderMap) -> Self {
        let mut known = Self::default();
        for (name, value) in headers {
            let known = match name.as_str() {
                "content-type" => &mut known.content_type,
                "grpc-timeout" => &mut known.timeout,
                "grpc-encoding" => &mut known.encoding,
                "client-api-version" => &mut known.version,
                "hasleader" => &mut known.has_leader,
                "traceparent" => &mut known.parent,
                "token" => &mut known.token,
                "authorization" => &mut known.authorization,
                "grpcgateway-accept" => &mut known.gateway,
                _ => continue,
            };
            known.get_or_insert(value);
        }
        known
    }
}

impl Call {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// The response to a request that goes no further.
    pub(super) fn read(parts: &request::Parts) -> Result<Self, Box<Response<Body>>> {
        let refuse = |status, error| Err(Box::new(status::refuse_with(status, &error)));
        let known = Known::find(&parts.headers);
        let content_type = known.content_type.map(HeaderValue::as_bytes);
        if !content_type.is_some_and(is_grpc) {
            let given = String::from_utf8_lossy(content_type.unwrap_or_default());
            let text = format!("invalid gRPC request content-type {given:?}");
            let error = Error::status(Code::InvalidArgument, text);
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
        }
        let timeout = match known.timeout.map(HeaderValue::as_bytes) {
            None => None,
            Some(given) => match parse_timeout(given) {
                Ok(timeout) => Some(timeout),
                Err(reason) => {
                    let given = String::from_utf8_lossy(given);
                    let text = format!("malformed grpc-timeout: transport: {reason}: {given:?}");
                    return refuse(StatusCode::BAD_REQUEST, Error::status(Code::Internal, text));
                }
            },
        };
        if parts.method != HttpMethod::POST {
            let text = format!(
                "Received a HEADERS frame with :method \"{}\" which should be POST",
                parts.method
            );
            let error = Error::status(Code::Internal, text);
            return refuse(StatusCode::METHOD_NOT_ALLOWED, error);
        }
        if timeout == Some(Duration::ZERO) {
            return refuse(StatusCode::OK, deadline_exceeded());
        }
        let method = methods::find(parts.uri.path()).map_err(|e| Box::new(status::refuse(&e)))?;
        let gzip = match known.encoding.map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => false,
            Some(b"gzip") => true,
            Some(other) => {
                let name = String::from_utf8_lossy(other);
                let text =
                    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
                return refuse(StatusCode::OK, Error::status(Code::Unimplemented, text));
            }
        };
        Ok(Self {
            method,
            gzip,
            // Out of the clock's reach is as good as no deadline.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            wants_leader: known.has_leader.is_some_and(|value| value == "true"),
            version: known.version.cloned(),
            parent: known.parent.cloned().map(Box::new),
            // The first of the two that is there counts, good or not.
            token: known
                .token
                .or(known.authorization)
                .map(|value| Token::of_header(value.as_bytes())),
            through_gateway: known.gateway.is_some(),
        })
    }

    /// Whether this member may answer now, by its state and the call's metadata: etcd's
    /// interceptors. Counts the call by client version.
    ///
    /// # Errors
    /// `NotSupportedForLearner`, `InvalidClientAPIVersion`, `NoLeader`, in this order.
    pub(super) fn admit<K: Kv>(
        &self,
        kv: &K,
        metrics: &Metrics,
        kind: CallKind,
        serves_learner: bool,
    ) -> Result<(), ferrite_api::Error> {
        if !serves_learner && kv.is_learner() {
            return Err(ferrite_api::Error::NotSupportedForLearner);
        }
        let version = self
            .version
            .as_ref()
            .map(|value| std::str::from_utf8(value.as_bytes()));
        let Ok(version) = version.transpose() else {
            return Err(ferrite_api::Error::InvalidClientAPIVersion);
        };
        metrics.server.count_client_request(kind, version);
        if self.wants_leader && kv.leader() == 0 {
            return Err(ferrite_api::Error::NoLeader);
        }
        Ok(())
    }
}

/// gRPC's rule: `application/grpc`, alone or followed by `+` or `;` and anything.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest, [] | [b'+' | b';', ..]),
        None => false,
    }
}

/// The answer of a call whose client has stopped waiting.
pub(super) fn deadline_exceeded() -> Error {
    Error::status(Code::DeadlineExceeded, "context deadline exceeded")
}

/// gRPC's `grpc-timeout`: one to eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Result<Duration, &'static str> {
    if value.len() < 2 {
        return Err("timeout string is too short");
    }
    if value.len() > 9 {
        return Err("timeout string is too long");
    }
    let (unit, digits) = value.split_last().ok_or("timeout string is too short")?;
    let of: fn(u64) -> Duration = match unit {
        b'H' => |hours| Duration::from_secs(hours * 3600),
        b'M' => |minutes| Duration::from_secs(minutes * 60),
        b'S' => Duration::from_secs,
        b'm' => Duration::from_millis,
        b'u' => Duration::from_micros,
        b'n' => Duration::from_nanos,
        _ => return Err("timeout unit is not recognized"),
    };
    let mut amount = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err("timeout is not a number");
        }
        // At most eight digits: far from overflow, also in seconds.
        amount = amount * 10 + u64::from(digit - b'0');
    }
    Ok(of(amount))
}

/// Counts one call: begun when made, handled when ended, or when dropped because the client went
/// away, its deadline passed or the handler panicked.
pub(super) struct Account {
    metrics: Arc<Metrics>,
    method: Method,
    began: Instant,
    deadline: Option<Instant>,
    /// Time above which the call is worth a line in the log.
    slow: Duration,
    /// Its span, where calls are traced.
    span: Option<Box<CallSpan>>,
    ended: bool,
}

impl Account {
    pub(super) fn begin(
        metrics: &Arc<Metrics>,
        method: Method,
        deadline: Option<Instant>,
        slow: Duration,
    ) -> Self {
        metrics.grpc.method(method).started();
        let began = Instant::now();
        Self {
            metrics: metrics.clone(),
            method,
            began,
            deadline,
            slow,
            span: None,
            ended: false,
        }
    }

    /// Begins a span for it, where calls are traced.
    pub(super) fn traced(mut self, spans: Option<&Spans>, call: &Call) -> Self {
        let span = spans.map(|spans| spans.begin(self.method, call.parent.as_deref()));
        self.span = span.map(Box::new);
        self
    }

    /// From now on the client takes the time: that is not worth a line.
    pub(super) fn without_slow(mut self) -> Self {
        self.slow = Duration::MAX;
        self
    }

    /// The call ended with this code. Only the first end counts.
    pub(super) fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            let took = self.began.elapsed();
            self.metrics.grpc.method(self.method).handled(code, took);
            if let Some(span) = self.span.take() {
                span.end(code);
            }
            if took > self.slow {
                let (service, method) = (self.method.service(), self.method.name());
                tracing::warn!(
                    "time spent" = ?took,
                    "response type" = format!("/{service}/{method}"),
                    ?code,
                    expected = ?self.slow,
                    "request stats"
                );
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ended {
            self.end(if std::thread::panicking() {
                Code::Internal
            } else if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                Code::DeadlineExceeded
            } else {
                Code::Cancelled
            });
        }
    }
}

/// The answer of a call whose handler panicked. The text names no detail: those are in the log.
pub(super) fn panicked() -> Error {
    Error::status(
        Code::Internal,
        "etcdserver: internal error, see the log of the server",
    )
}

pin_project! {
    /// A handler within its bounds: a panic ends the call, not the connection nor the process, and
    /// so does the deadline. (A type and not an `async fn`: those hold what they are given twice.)
    pub(super) struct Bounded<F> {
        #[pin]
        handler: F,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F> Bounded<F> {
    pub(super) fn new(handler: F, deadline: Option<Instant>) -> Self {
        let timer = deadline.map(tokio::time::sleep_until);
        Self { handler, timer }
    }
}

impl<T, F: Future<Output = Result<T, Error>>> Future for Bounded<F> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A handler that panicked is dropped and never polled again, so nobody sees what it left
        // half done but the state it shares, whose locks do not poison.
        match catch_unwind(AssertUnwindSafe(|| this.handler.poll(cx))) {
            Ok(Poll::Ready(answer)) => return Poll::Ready(answer),
            Ok(Poll::Pending) => {}
            Err(_) => {
                tracing::error!("an RPC handler panicked");
                return Poll::Ready(Err(panicked()));
            }
        }
        if let Some(timer) = this.timer.as_pin_mut() {
            ready!(timer.poll(cx));
            return Poll::Ready(Err(deadline_exceeded()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for ok in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x",
            "application/grpc+",
        ] {
            assert!(is_grpc(ok.as_bytes()), "{ok}");
        }
        for other in [
            "",
            "application/grpcx",
            "application/grpc-web",
            "application/json",
        ] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_certificate_of_a_gateway_is_nobodys() {
        let call = |name: &'static str| {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            parts.method = HttpMethod::POST;
            parts.uri = "/etcdserverpb.KV/Range".parse().unwrap();
            let grpc = HeaderValue::from_static("application/grpc");
            parts.headers.insert("content-type", grpc);
            parts.headers.insert(name, HeaderValue::from_static("x"));
            Call::read(&parts).expect("a call")
        };
        assert!(call("grpcgateway-accept").through_gateway);
        assert!(!call("grpcgateway-user-agent").through_gateway);
    }

    #[test]
    fn timeouts() {
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("0m", Duration::ZERO),
            ("15m", Duration::from_millis(15)),
            ("7u", Duration::from_micros(7)),
            ("8n", Duration::from_nanos(8)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), Ok(timeout), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1 S", "123456789S"] {
            assert!(parse_timeout(text.as_bytes()).is_err(), "{text}");
        }
    }
}
