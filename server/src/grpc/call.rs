//! What every call goes through, whatever serves it: is it proper gRPC, where does it go, how long
//! may it take, may this member answer it, and how is it counted. Order and texts are etcd's
//! (spec/errors.md section 5).

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method as HttpMethod, Response, StatusCode, request};
use tokio::time::Instant;
use tonic::Code;

use super::body::Body;
use super::methods::{self, Route};
use super::reply::GRPC_ENCODING;
use super::{Kv, status};
use crate::error::Error;
use crate::metrics::server::CallKind;
use crate::metrics::{Method, Metrics};

/// A call whose headers were found to be in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) route: Route,
    /// Whether the client compresses, and so wants compressed answers.
    pub(super) gzip: bool,
    /// When the client stops waiting.
    pub(super) deadline: Option<Instant>,
}

impl Call {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// The response to a request that goes no further.
    pub(super) fn read(parts: &request::Parts) -> Result<Self, Box<Response<Body>>> {
        let refuse = |status, error| Err(Box::new(status::refuse_with(status, &error)));
        let content_type = parts
            .headers
            .get(CONTENT_TYPE)
            .map(|value| value.as_bytes());
        if !content_type.is_some_and(is_grpc) {
            let given = String::from_utf8_lossy(content_type.unwrap_or_default());
            let text = format!("invalid gRPC request content-type {given:?}");
            let error = Error::status(Code::InvalidArgument, text);
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
        }
        let timeout = match parts.headers.get("grpc-timeout") {
            None => None,
            Some(value) => match parse_timeout(value.as_bytes()) {
                Ok(timeout) => Some(timeout),
                Err(reason) => {
                    let given = String::from_utf8_lossy(value.as_bytes());
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
            return refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                Error::status(Code::Internal, text),
            );
        }
        if timeout == Some(Duration::ZERO) {
            return refuse(StatusCode::OK, deadline_exceeded());
        }
        let route = methods::route(parts.uri.path()).map_err(|e| Box::new(status::refuse(&e)))?;
        let gzip = match parts
            .headers
            .get(GRPC_ENCODING)
            .map(|value| value.as_bytes())
        {
            None | Some(b"" | b"identity") => false,
            Some(b"gzip") => true,
            Some(other) => {
                let name = String::from_utf8_lossy(other);
                let text =
                    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
                return refuse(StatusCode::OK, Error::status(Code::Unimplemented, text));
            }
        };
        // Out of the clock's reach is as good as no deadline.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self {
            route,
            gzip,
            deadline,
        })
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

/// Whether this member may answer now, by its state and the call's metadata: etcd's interceptors.
/// Counts the call by client version.
///
/// # Errors
/// `NotSupportedForLearner`, `InvalidClientAPIVersion`, `NoLeader`, in this order.
pub(super) fn admit<K: Kv>(
    kv: &K,
    metrics: &Metrics,
    headers: &HeaderMap,
    kind: CallKind,
    serves_learner: bool,
) -> Result<(), ferrite_api::Error> {
    if !serves_learner && kv.is_learner() {
        return Err(ferrite_api::Error::NotSupportedForLearner);
    }
    let version = match headers.get("client-api-version") {
        None => None,
        Some(value) => match std::str::from_utf8(value.as_bytes()) {
            Ok(version) => Some(version),
            Err(_) => return Err(ferrite_api::Error::InvalidClientAPIVersion),
        },
    };
    metrics.server.count_client_request(kind, version);
    if wants_leader(headers) && kv.leader() == 0 {
        return Err(ferrite_api::Error::NoLeader);
    }
    Ok(())
}

/// Whether the client set `hasleader`.
pub(super) fn wants_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
}

/// Counts one call: begun when made, handled when ended, or when dropped because the client went
/// away, its deadline passed or the handler panicked.
pub(super) struct Account {
    metrics: std::sync::Arc<Metrics>,
    method: Method,
    began: Instant,
    deadline: Option<Instant>,
    ended: bool,
}

impl Account {
    pub(super) fn begin(
        metrics: &std::sync::Arc<Metrics>,
        method: Method,
        deadline: Option<Instant>,
    ) -> Self {
        metrics.grpc.method(method).started();
        let began = Instant::now();
        Self {
            metrics: metrics.clone(),
            method,
            began,
            deadline,
            ended: false,
        }
    }

    /// The call ended with this code. Only the first end counts.
    pub(super) fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            self.metrics
                .grpc
                .method(self.method)
                .handled(code, self.began.elapsed());
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

/// Runs a handler; a panic ends the call, not the connection nor the process.
pub(super) async fn catching<T>(
    handler: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut handler = pin!(handler);
    std::future::poll_fn(|cx| {
        // A handler that panicked is dropped and never polled again, so nobody sees what it left
        // half done but the state it shares, whose locks do not poison.
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                tracing::error!("an RPC handler panicked");
                Poll::Ready(Err(panicked()))
            }
        }
    })
    .await
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
