//! What goes back: statuses in HTTP's terms, one message, or lines of them (spec/wire.md sections 7.2
//! to 7.4).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use prost_reflect::MessageDescriptor;
use serde::Serialize;
use tonic::{Code, Status};

use super::json;
use super::large::Large;
use crate::grpc;
use crate::grpc::message::{Messages, PREFIX};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers up to this length (bytes, in gRPC) are read as a whole, so that a failure on the way has its
/// status. Longer ones are sent while they are read.
const WHOLE: usize = 1024 * 1024;

/// A status as clients see it.
#[derive(Serialize)]
struct StatusBody<'a> {
    code: i32,
    message: &'a str,
}

impl<'a> From<&'a Status> for StatusBody<'a> {
    fn from(status: &'a Status) -> Self {
        Self {
            code: status.code().into(),
            message: status.message(),
        }
    }
}

/// The line of a stream that ends with this status.
fn error_line(status: &Status) -> Bytes {
    #[derive(Serialize)]
    struct Line<'a> {
        error: StatusBody<'a>,
    }
    let line = Line {
        error: status.into(),
    };
    let mut line = serde_json::to_vec(&line).expect("a number and a text");
    line.push(b'\n');
    line.into()
}

/// The refusal of a call that answers with one message, or that was not made.
pub(super) fn refuse(status: &Status) -> Response {
    let body = serde_json::to_vec(&StatusBody::from(status)).expect("a number and a text");
    with_status(status, body.into())
}

fn with_status(status: &Status, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = http_status(status.code());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if status.code() == Code::Unauthenticated
        && let Ok(text) = HeaderValue::from_str(status.message())
    {
        headers.insert(WWW_AUTHENTICATE, text);
    }
    response
}

/// The HTTP status of a gRPC code.
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).expect("a number between 100 and 999")
}

/// The end of a call as its trailers say it.
pub(super) fn status_of(trailers: Option<&HeaderMap>) -> Status {
    trailers
        .and_then(Status::from_header_map)
        .unwrap_or_else(|| Status::internal("server closed the stream without sending trailers"))
}

/// A response that begins as the call's does.
fn response(call: &HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    for (name, value) in call {
        let name = format!("grpc-metadata-{name}");
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.append(name, value.clone());
        }
    }
    response
}

/// The answer of a unary call.
pub(super) async fn one(kind: &MessageDescriptor, call: http::Response<grpc::Body>) -> Response {
    match read_one(kind, call).await {
        Ok(response) => response,
        Err(status) => refuse(&status),
    }
}

async fn read_one(
    kind: &MessageDescriptor,
    call: http::Response<grpc::Body>,
) -> Result<Response, Status> {
    let (head, mut body) = call.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Err(status);
    }
    let mut message = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::internal(error.to_string()))?;
        match frame.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if length(&message).is_some_and(|length| length > WHOLE) {
            let arrived = message.split_off(PREFIX);
            let body = Body::new(Large::new(kind.clone(), arrived, body));
            return Ok(response(&head.headers, body));
        }
    }
    let status = status_of(trailers.as_ref());
    if status.code() != Code::Ok {
        return Err(status);
    }
    if message.len() < PREFIX {
        return Err(Status::internal("the server sent no answer"));
    }
    let json = json::from_message(kind, &message[PREFIX..])
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(response(&head.headers, Body::from(json)))
}

/// The length of a message of which this has arrived.
fn length(arrived: &[u8]) -> Option<usize> {
    let [_flag, length @ ..] = *arrived.first_chunk::<PREFIX>()?;
    Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX))
}

/// The answer of a call with many responses: a line for each, in a chunk of its own.
pub(super) fn lines(kind: &MessageDescriptor, call: http::Response<grpc::Body>) -> Response {
    let (head, body) = call.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) if status.code() == Code::Ok => response(&HeaderMap::new(), Body::empty()),
        Some(status) => with_status(&status, error_line(&status)),
        None => {
            let body = KeepTrailers {
                body,
                trailers: None,
            };
            let lines = Lines {
                messages: Messages::new(body, usize::MAX, false),
                kind: kind.clone(),
                ended: false,
            };
            response(&head.headers, Body::new(lines))
        }
    }
}

/// The body of a stream's answer.
struct Lines {
    messages: Messages<KeepTrailers>,
    kind: MessageDescriptor,
    ended: bool,
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.messages.poll_next(cx)) {
            Ok(Some(message)) => match json::from_message(&self.kind, message) {
                Ok(message) => {
                    let line = [b"{\"result\":", &message[..], b"}\n"].concat();
                    return Poll::Ready(Some(Ok(Frame::data(line.into()))));
                }
                Err(error) => Status::internal(error.to_string()),
            },
            Ok(None) => status_of(self.messages.body().trailers.as_ref()),
            Err(fault) => Status::internal(format!("the answer broke off: {fault:?}")),
        };
        self.ended = true;
        Poll::Ready((status.code() != Code::Ok).then(|| Ok(Frame::data(error_line(&status)))))
    }
}

/// A body that keeps its trailers for who reads the messages.
struct KeepTrailers {
    body: grpc::Body,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for KeepTrailers {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.trailers = frame.trailers_ref().cloned();
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_3_codes() {
        let statuses = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
        ];
        for (code, status) in statuses.into_iter().enumerate() {
            let code = Code::from_i32(i32::try_from(code).unwrap());
            assert_eq!(http_status(code).as_u16(), status, "{code:?}");
        }
    }

    #[tokio::test]
    async fn g7_3_a_refusal() {
        let status = Status::unauthenticated("etcdserver: invalid auth token \"x\"");
        let response = refuse(&status);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], status.message());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"code":16,"message":"etcdserver: invalid auth token \"x\""}"#
        );
        assert_eq!(
            error_line(&Status::not_found("x")),
            "{\"error\":{\"code\":5,\"message\":\"x\"}}\n"
        );
    }
}
