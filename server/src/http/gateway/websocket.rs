//! The gateway over a WebSocket: a text message is a request, an answer or a line of one is a text
//! message (spec/wire.md section 7.4).
//!
//! Pages of any origin may connect, as with etcd. A deployment that gives browsers the token in a cookie
//! has to see to it that the cookie is not sent from other sites (`SameSite`).
//!
//! A unary call is answered when its request is there; etcd waits for the client to close its side, and
//! then has nobody to answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Gateway, Rest};
use crate::serve::Upgrading;

/// The sub-protocol that carries a token.
const BEARER: &str = "Bearer";

/// The cookie that carries a token.
const TOKEN_COOKIE: &str = "token";

/// Messages that wait between the socket and the call, in each direction.
const QUEUE: usize = 1;

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(parts: &Parts) -> bool {
    let has = |name, token: &str| {
        parts.headers.get_all(name).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// Answers the handshake. Whether there is such a path, and everything else, the client hears inside.
pub(super) async fn accept(gateway: Gateway, mut parts: Parts) -> Response {
    let upgrading = parts.extensions.remove::<Upgrading>();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(upgrading) = upgrading else {
        return super::reply::refuse(&tonic::Status::internal("this listener has no WebSockets"));
    };
    let token = token(&parts.headers);
    parts.method = Method::POST;
    parts.headers = HeaderMap::new();
    if let Some(token) = token {
        parts.headers.insert(AUTHORIZATION, token);
    }
    upgrade
        .protocols([BEARER])
        .max_message_size(gateway.max_json)
        .max_frame_size(gateway.max_json)
        .on_upgrade(|socket| {
            let draining = upgrading.draining();
            upgrading.run(serve(gateway, parts, socket, draining))
        })
}

/// The token that a page sends in place of the header that browsers do not let it set: in a cookie, or
/// behind the name of the sub-protocol.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(COOKIE).iter();
    let cookie = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == TOKEN_COOKIE)
        .map(|(_, value)| value.trim_matches('"'));
    let protocol = || {
        let protocols = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
        let (_, token) = protocols.split_once("Bearer,")?;
        Some(token.trim())
    };
    let token = cookie.or_else(protocol)?;
    HeaderValue::try_from(format!("{BEARER} {token}")).ok()
}

/// Carries messages between a socket and its call until one of them ends.
async fn serve(gateway: Gateway, parts: Parts, mut socket: WebSocket, draining: CancellationToken) {
    let (requests, body) = mpsc::channel(QUEUE);
    let (lines, mut answer) = mpsc::channel(QUEUE);
    let call = async move {
        let body = Requests(body);
        let response = gateway.answer(&parts, body, Rest::Leave).await;
        send_lines(response.into_body(), &lines).await;
    };
    tokio::pin!(call);
    let mut ended = false;
    let mut asked = false;
    loop {
        tokio::select! {
            () = &mut call, if !ended => ended = true,
            // Who has asked for nothing yet is not waited for.
            () = draining.cancelled(), if !asked => break,
            line = answer.recv() => {
                let Some(line) = line else { break };
                if socket.send(Message::Text(line)).await.is_err() {
                    return;
                }
            }
            message = receive(&mut socket, &requests) => match message {
                Some(()) => asked = true,
                None => return,
            },
        }
    }
    // The client may be gone: then nobody misses it.
    let _ = socket.send(Message::Close(None)).await;
}

/// Hands a message on, once the call has room for it. `None` when the client has closed its side.
///
/// Cancel safety: no message is lost.
async fn receive(socket: &mut WebSocket, requests: &mpsc::Sender<Bytes>) -> Option<()> {
    let permit = match requests.reserve().await {
        Ok(permit) => permit,
        // The call wants no more. What comes is dropped, but for the end.
        Err(_) => {
            return match socket.recv().await? {
                Ok(Message::Close(_)) | Err(_) => None,
                Ok(_) => Some(()),
            };
        }
    };
    match socket.recv().await?.ok()? {
        Message::Text(text) => permit.send(with_end(text.as_bytes())),
        Message::Binary(bytes) => permit.send(with_end(&bytes)),
        Message::Close(_) => return None,
        Message::Ping(_) | Message::Pong(_) => {}
    }
    Some(())
}

/// A message with what ends a value that has no end of its own.
fn with_end(message: &[u8]) -> Bytes {
    [message, b"\n"].concat().into()
}

/// Sends a body line by line.
async fn send_lines(mut body: Body, lines: &mpsc::Sender<Utf8Bytes>) {
    let mut arrived = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let mut from = arrived.len();
        arrived.extend_from_slice(&data);
        while let Some(at) = arrived[from..].iter().position(|byte| *byte == b'\n') {
            let line = arrived.split_to(from + at + 1).freeze();
            if !send_line(line.slice(..line.len() - 1), lines).await {
                return;
            }
            from = 0;
        }
    }
    send_line(arrived.freeze(), lines).await;
}

async fn send_line(line: Bytes, lines: &mpsc::Sender<Utf8Bytes>) -> bool {
    match Utf8Bytes::try_from(line) {
        Ok(line) if line.is_empty() => true,
        Ok(line) => lines.send(line).await.is_ok(),
        // JSON is UTF-8.
        Err(_) => false,
    }
}

/// The messages of a socket as the body of a request.
struct Requests(mpsc::Receiver<Bytes>);

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = ready!(self.0.poll_recv(cx));
        Poll::Ready(message.map(|message| Ok(Frame::data(message))))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let headers = given.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        headers.collect()
    }

    #[test]
    fn g7_4_tokens() {
        let of = |given: &[_]| token(&headers(given)).map(|t| t.to_str().unwrap().to_owned());
        let protocol = "sec-websocket-protocol";
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(protocol, "Bearer, a.b")]).unwrap(), "Bearer a.b");
        assert_eq!(of(&[(protocol, "Bearer,a.b")]).unwrap(), "Bearer a.b");
        assert_eq!(of(&[(protocol, "other")]), None);
        assert_eq!(of(&[("cookie", "x=1; token=abc")]).unwrap(), "Bearer abc");
        assert_eq!(
            of(&[("cookie", "token=abc"), (protocol, "Bearer, x")]).unwrap(),
            "Bearer abc"
        );
        // A header of its own is not for pages to set, so it is not looked at.
        assert_eq!(of(&[("authorization", "Bearer x")]), None);
    }

    #[test]
    fn what_asks_for_a_websocket() {
        let asks = |given: &[_]| {
            let mut request = http::Request::new(());
            *request.headers_mut() = headers(given);
            is_upgrade(&request.into_parts().0)
        };
        assert!(asks(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ]));
        assert!(!asks(&[
            ("connection", "keep-alive"),
            ("upgrade", "websocket")
        ]));
        assert!(!asks(&[("connection", "Upgrade"), ("upgrade", "h2c")]));
        assert!(!asks(&[]));
    }
}
