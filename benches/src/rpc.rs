//! gRPC calls straight over HTTP/2.
//!
//! The load generator shares its cores with the server it measures, so each microsecond it saves
//! is one less of noise in the result. A full gRPC client passes a request through a buffer task, a
//! connection task and several layers of boxed bodies; here a call is one HTTP/2 stream opened
//! by the caller itself. Messages are the generated ones of `ferrite-api`. Everything runs on one
//! thread (`tokio::task::LocalSet`): the connection driver is a local task.
//!
//! What a call understands: uncompressed answers, trailers, trailers-only answers. What it
//! leaves out: TLS, compression, deadlines, metadata.

use std::fmt;

use anyhow::Context as _;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;
use tokio::net::TcpStream;

/// Length of a gRPC message's prefix: the compressed flag and the length.
pub(crate) const PREFIX_BYTES: usize = 5;
/// Receive windows: large, so that a page of keys never waits for a window update.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The server answered with a gRPC status other than OK.
    Status { code: u32, message: String },
    /// The connection or the stream broke, or the answer was not gRPC.
    Transport(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Status { code, message } => write!(f, "code {code}: {message}"),
            CallError::Transport(what) => write!(f, "transport: {what}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        CallError::Transport(error.to_string())
    }
}

/// A unary method: its path and messages.
pub trait Unary {
    /// The request message.
    type Request: Message;
    /// The response message.
    type Response: Message + Default;
    /// Place of the method's address in [`Connection`].
    const METHOD: usize;
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $place:literal, $path:literal, $request:ty, $response:ty;)*) => {
        const PATHS: &[&str] = &[$($path),*];
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name;
            impl Unary for $name {
                type Request = $request;
                type Response = $response;
                const METHOD: usize = $place;
            }
        )*
    };
}

methods! {
    /// `KV.Range`.
    Range = 0, "/etcdserverpb.KV/Range", RangeRequest, RangeResponse;
    /// `KV.Put`.
    Put = 1, "/etcdserverpb.KV/Put", PutRequest, PutResponse;
    /// `KV.Compact`.
    Compact = 2, "/etcdserverpb.KV/Compact", CompactionRequest, CompactionResponse;
    /// `Lease.LeaseGrant`.
    LeaseGrant = 3, "/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest, LeaseGrantResponse;
    /// `Lease.LeaseKeepAlive`, with one request; see [`Connection::keep_alive`] for more.
    LeaseKeepAlive = 4, "/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveRequest, LeaseKeepAliveResponse;
    /// `Watch.Watch`, by [`Connection::watch`].
    Watch = 5, "/etcdserverpb.Watch/Watch", WatchRequest, WatchResponse;
    /// `Maintenance.Defragment`.
    Defragment = 6, "/etcdserverpb.Maintenance/Defragment", DefragmentRequest, DefragmentResponse;
    /// `Maintenance.Status`.
    Status = 7, "/etcdserverpb.Maintenance/Status", StatusRequest, StatusResponse;
}

/// One HTTP/2 connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    streams: SendRequest<Bytes>,
    addresses: Vec<Uri>,
    headers: HeaderMap,
}

impl Connection {
    /// Connects to `endpoint` (`host:port`, with or without `http://`). Must be called inside a
    /// [`tokio::task::LocalSet`], where the connection is then driven.
    ///
    /// # Errors
    /// The address is not one, nobody listens there, or it does not speak HTTP/2.
    pub async fn open(endpoint: &str) -> anyhow::Result<Connection> {
        Self::open_with(endpoint, STREAM_WINDOW, CONNECTION_WINDOW).await
    }

    /// As [`Connection::open`], with receive windows of these many bytes per stream and together.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_with(endpoint: &str, stream: u32, all: u32) -> anyhow::Result<Connection> {
        let authority = endpoint
            .strip_prefix("http://")
            .unwrap_or(endpoint)
            .trim_end_matches('/');
        let addresses = PATHS
            .iter()
            .map(|path| format!("http://{authority}{path}").parse())
            .collect::<Result<Vec<Uri>, _>>()
            .with_context(|| format!("`{endpoint}` is not host:port"))?;
        let socket = TcpStream::connect(authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"))?;
        socket.set_nodelay(true)?;
        let (streams, connection) = h2::client::Builder::new()
            .initial_window_size(stream)
            .initial_connection_window_size(all)
            .enable_push(false)
            .handshake(socket)
            .await
            .with_context(|| format!("{authority} does not speak HTTP/2"))?;
        // A broken connection shows in the calls that use it.
        tokio::task::spawn_local(connection);
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        Ok(Connection {
            streams,
            addresses,
            headers,
        })
    }

    /// One call: sends the request, waits for the whole answer.
    ///
    /// # Errors
    /// What the server answered, or what broke.
    pub async fn call<M: Unary>(
        &mut self,
        _: M,
        message: &M::Request,
    ) -> Result<M::Response, CallError> {
        let mut incoming = self.answer(M::METHOD, message).await?;
        let mut received = BytesMut::new();
        let mut first = Bytes::new();
        while let Some(chunk) = incoming.data().await {
            let chunk = chunk?;
            incoming.flow_control().release_capacity(chunk.len())?;
            // Most answers are one chunk, which is decoded where it lies.
            if first.is_empty() && received.is_empty() {
                first = chunk;
            } else {
                if received.is_empty() {
                    received.extend_from_slice(&std::mem::take(&mut first));
                }
                received.extend_from_slice(&chunk);
            }
        }
        match incoming.trailers().await? {
            Some(trailers) => check_status(&trailers)?,
            None => return Err(broken("answer without trailers")),
        }
        decode(if received.is_empty() {
            first
        } else {
            received.freeze()
        })
    }
}

impl Connection {
    /// Sends a request; the body of the answer.
    async fn answer(
        &mut self,
        method: usize,
        message: &impl Message,
    ) -> Result<RecvStream, CallError> {
        let body = encode(message)?;
        let (response, mut stream) = self.open_stream(method).await?;
        stream.send_data(body, true)?;
        let response = response.await?;
        if response.headers().contains_key("grpc-status") {
            // Headers that are also the trailers: an error without a message.
            check_status(response.headers())?;
            return Err(broken("status OK without a message"));
        }
        if response.status() != http::StatusCode::OK {
            return Err(broken(&format!("HTTP status {}", response.status())));
        }
        Ok(response.into_body())
    }

    async fn open_stream(
        &mut self,
        method: usize,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.addresses[method].clone();
        *request.headers_mut() = self.headers.clone();
        std::future::poll_fn(|context| self.streams.poll_ready(context)).await?;
        Ok(self.streams.send_request(request, false)?)
    }

    /// Opens a stream of keep-alives.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn keep_alive(&mut self) -> Result<Stream, CallError> {
        let (response, requests) = self.open_stream(LeaseKeepAlive::METHOD).await?;
        Ok(Stream {
            requests,
            response: Some(response),
            answers: None,
            received: BytesMut::new(),
        })
    }
}

impl Connection {
    /// Opens a watch stream with its first request. Servers send no headers before the first
    /// response, so this waits for it, but leaves it to be taken.
    ///
    /// # Errors
    /// What the server answered, or what broke.
    pub async fn watch(&mut self, first: WatchCreateRequest) -> Result<WatchCall, CallError> {
        let (response, mut requests) = self.open_stream(Watch::METHOD).await?;
        requests.send_data(create(first)?, false)?;
        let response = response.await?;
        if response.headers().contains_key("grpc-status") {
            check_status(response.headers())?;
            return Err(broken("a watch that ended at once"));
        }
        Ok(WatchCall {
            requests,
            responses: response.into_body(),
            partial: BytesMut::new(),
        })
    }
}

/// An open watch stream. Its messages are not decoded: with many watchers that would be what is
/// measured.
#[derive(Debug)]
pub struct WatchCall {
    requests: SendStream<Bytes>,
    responses: RecvStream,
    /// What has arrived of messages that are not complete.
    partial: BytesMut,
}

impl WatchCall {
    /// Creates one more watcher.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn create(&mut self, request: WatchCreateRequest) -> Result<(), CallError> {
        self.requests.send_data(create(request)?, false)?;
        Ok(())
    }

    /// Waits for the next messages, complete ones, without their prefixes.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, CallError> {
        loop {
            let Some(chunk) = self.responses.data().await else {
                let trailers = self.responses.trailers().await?;
                check_status(&trailers.unwrap_or_default())?;
                return Err(broken("the watch stream has ended"));
            };
            let chunk = chunk?;
            self.responses
                .flow_control()
                .release_capacity(chunk.len())?;
            self.partial.extend_from_slice(&chunk);
            let mut messages = Vec::new();
            while let [_, a, b, c, d, rest @ ..] = &self.partial[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() < length {
                    break;
                }
                self.partial.advance(PREFIX_BYTES);
                messages.push(self.partial.split_to(length).freeze());
            }
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }
}

fn create(request: WatchCreateRequest) -> Result<Bytes, CallError> {
    encode(&WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    })
}

/// A stream in both directions.
#[derive(Debug)]
pub struct Stream {
    requests: SendStream<Bytes>,
    /// The headers, until they have come: with the first answer.
    response: Option<ResponseFuture>,
    answers: Option<RecvStream>,
    received: BytesMut,
}

impl Stream {
    /// Sends a request.
    ///
    /// # Errors
    /// The stream broke.
    pub fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        self.requests.send_data(encode(message)?, false)?;
        Ok(())
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// The server ended the stream, or it broke.
    pub async fn next<T: Message + Default>(&mut self) -> Result<T, CallError> {
        if let Some(response) = self.response.take() {
            let response = response.await?;
            if response.headers().contains_key("grpc-status") {
                check_status(response.headers())?;
            }
            self.answers = Some(response.into_body());
        }
        let answers = self
            .answers
            .as_mut()
            .ok_or_else(|| broken("the stream has failed before"))?;
        loop {
            if let [_, a, b, c, d, ..] = self.received[..] {
                let length = PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize;
                if self.received.len() >= length {
                    return decode(self.received.split_to(length).freeze());
                }
            }
            let Some(chunk) = answers.data().await else {
                if let Some(trailers) = answers.trailers().await? {
                    check_status(&trailers)?;
                }
                return Err(broken("the server ended the stream"));
            };
            let chunk = chunk?;
            answers.flow_control().release_capacity(chunk.len())?;
            self.received.extend_from_slice(&chunk);
        }
    }
}

fn encode(message: &impl Message) -> Result<Bytes, CallError> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).map_err(|_| broken("request over 4 GiB"))?);
    message
        .encode(&mut body)
        .map_err(|error| broken(&error.to_string()))?;
    Ok(body.freeze())
}

fn broken(what: &str) -> CallError {
    CallError::Transport(what.to_owned())
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let code = headers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .ok_or_else(|| broken("no readable grpc-status"))?;
    if code == 0 {
        return Ok(());
    }
    let message = headers
        .get("grpc-message")
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    Err(CallError::Status {
        code,
        message: percent_decode(message),
    })
}

/// gRPC sends every byte of a message outside printable ASCII, and `%` itself, as `%XX`.
fn percent_decode(encoded: &[u8]) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if let (b'%', Some(high), Some(low)) = (byte, hex(tail.first()), hex(tail.get(1))) {
            decoded.push((high * 16 + low) as u8);
            rest = &tail[2..];
        } else {
            decoded.push(*byte);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn decode<T: Message + Default>(mut body: Bytes) -> Result<T, CallError> {
    if body.len() < PREFIX_BYTES {
        return Err(broken("answer without a message"));
    }
    let compressed = body.get_u8();
    let length = body.get_u32() as usize;
    if compressed != 0 {
        return Err(broken("compressed answer"));
    }
    if length != body.len() {
        return Err(broken(&format!(
            "message of {length} bytes in a body of {}",
            body.len()
        )));
    }
    T::decode(body).map_err(|error| broken(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_decoded() {
        for (encoded, text) in [
            (
                "etcdserver: too many requests",
                "etcdserver: too many requests",
            ),
            ("100%25 of caf%C3%A9", "100% of café"),
            ("ends in %4", "ends in %4"),
            ("%zz", "%zz"),
            ("", ""),
        ] {
            assert_eq!(percent_decode(encoded.as_bytes()), text);
        }
    }

    #[test]
    fn statuses_are_read_from_trailers() {
        let mut headers = HeaderMap::new();
        assert!(matches!(
            check_status(&headers),
            Err(CallError::Transport(_))
        ));
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(check_status(&headers), Ok(()));
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert("grpc-message", HeaderValue::from_static("no%20space"));
        let error = check_status(&headers).unwrap_err();
        assert_eq!(
            error,
            CallError::Status {
                code: 8,
                message: "no space".into()
            }
        );
        assert_eq!(error.to_string(), "code 8: no space");
    }

    #[test]
    fn damaged_answers_are_errors() {
        let whole = |body: &[u8]| decode::<PutResponse>(Bytes::copy_from_slice(body));
        assert_eq!(whole(&[0, 0, 0, 0, 0]), Ok(PutResponse::default()));
        for body in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 1, 0xff],
        ] {
            assert!(
                matches!(whole(body), Err(CallError::Transport(_))),
                "{body:?}"
            );
        }
    }
}
