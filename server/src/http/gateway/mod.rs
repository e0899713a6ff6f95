//! The JSON gateway: the API as JSON over HTTP, under `/v3/` (spec/wire.md section 7).
//!
//! A request becomes a gRPC call of the services of this server, inside the process: the same headers,
//! frames and trailers, but no connection. So every check, bound, deadline and counter of gRPC is the
//! gateway's too, and an RPC that is not built answers as it does there. Nothing here knows a particular
//! RPC: paths are in `routes`, messages come from descriptors (`json`).
//!
//! What a client can make this hold is bounded: a JSON value by the longest message, an answer by a
//! piece of it, a stream by one message in each direction. A client that leaves drops its call.

mod json;
mod large;
mod metadata;
mod reply;
mod requests;
mod routes;
mod values;
mod websocket;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, Method, Version};
use tonic::Status;

use crate::grpc;
use crate::metrics::grpc::MethodType;

use requests::CallBody;
use values::Values;

pub(super) use routes::PREFIX;

/// What JSON may be longer than the message that it means: base64, names, and blanks around much
/// that is short. etcd's gateway has no limit.
const JSON_FACTOR: usize = 8;

const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

type Calling = Pin<Box<dyn Future<Output = http::Response<grpc::Body>> + Send>>;

/// The gateway to the gRPC services of a server. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    call: Arc<dyn Fn(http::Request<CallBody>) -> Calling + Send + Sync>,
    /// Longest JSON value, in bytes.
    max_json: usize,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// What follows the request of a call that has only one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Is read to its end before the call is made, as etcd's gateway does.
    Read,
    /// Is left alone: the client ends it only when it has its answer.
    Leave,
}

impl Gateway {
    /// A gateway to these services.
    pub fn new<K: grpc::Kv>(services: grpc::Server<K>) -> Self {
        let max_json = services.max_message_bytes().saturating_mul(JSON_FACTOR);
        Self {
            call: Arc::new(move |request| {
                let services = services.clone();
                Box::pin(async move {
                    let called = services.call(request).await;
                    called.unwrap_or_else(|never| match never {})
                })
            }),
            max_json,
        }
    }

    /// Answers a request whose path begins with [`PREFIX`].
    ///
    /// Cancel safety: dropping the future abandons the call.
    pub(super) async fn serve(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if websocket::is_upgrade(&parts) {
            return websocket::accept(self.clone(), parts).await;
        }
        self.answer(&parts, body, Rest::Read).await
    }

    async fn answer<B>(&self, parts: &Parts, body: B, rest: Rest) -> Response
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        match self.begin(parts, body, rest).await {
            Ok(response) => response,
            Err(status) => reply::refuse(&status),
        }
    }

    /// The answer of a call, which may be its refusal.
    ///
    /// # Errors
    /// The call was not made.
    async fn begin<B>(&self, parts: &Parts, body: B, rest: Rest) -> Result<Response, Status>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Some(rpc) = routes::find(parts.uri.path()) else {
            return Err(Status::not_found("Not Found"));
        };
        let over = method_override(parts);
        if parts.method != Method::POST || over.as_ref().is_some_and(|over| over != Method::POST) {
            return Err(Status::unimplemented("Method Not Allowed"));
        }
        let headers = metadata::of(&parts.headers)?;
        let values = Values::new(body, self.max_json);
        let body = match rpc.kind {
            MethodType::BidiStream => requests::many(values, &rpc.request),
            _ => requests::one(values, &rpc.request, rest == Rest::Read).await?,
        };
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = rpc.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        let response = (self.call)(request).await;
        Ok(match rpc.kind {
            MethodType::Unary => reply::one(&rpc.response, response).await,
            _ => reply::lines(&rpc.response, response),
        })
    }
}

/// The method that a form may ask for instead of its own.
fn method_override(parts: &Parts) -> Option<Method> {
    let content_type = parts.headers.get(CONTENT_TYPE)?;
    if content_type != "application/x-www-form-urlencoded" {
        return None;
    }
    let over = parts.headers.get(METHOD_OVERRIDE)?.to_str().ok()?;
    Method::from_bytes(over.to_ascii_uppercase().as_bytes()).ok()
}
