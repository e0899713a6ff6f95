//! A client of the JSON gateway that hides nothing: requests and responses of HTTP/1.1 as they are.

use std::convert::Infallible;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::Member;

type Body = BoxBody<Bytes, Infallible>;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An answer that goes on, on a connection of its own.
pub(crate) struct Stream {
    pub(crate) status: u16,
    body: Incoming,
    connection: AbortHandle,
}

impl Stream {
    /// The next chunk of the body; none at its end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// The next line, which is a chunk.
    pub(crate) async fn line(&mut self) -> Value {
        let chunk = self.chunk().await.expect("a line");
        let line = chunk.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "more than a line in {chunk:?}");
        serde_json::from_str(line).unwrap()
    }

    /// Closes the connection without a word.
    pub(crate) fn leave(self) {
        self.connection.abort();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn connect(member: &Member) -> (SendRequest<Body>, AbortHandle) {
    let socket = TcpStream::connect(member.http_address()).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(async move {
        // The tests see what the server does to it.
        let _ = connection.await;
    });
    (sender, connection.abort_handle())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

/// Sends a request and reads all of the answer.
pub(crate) async fn send(
    member: &Member,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (mut sender, _) = connect(member).await;
    let body = Full::new(Bytes::from(body.to_owned())).boxed();
    let request = request(method, path, headers, body);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8(text.to_vec()).unwrap(),
    }
}

/// Posts a request to the gateway.
pub(crate) async fn post(member: &Member, path: &str, body: &str) -> Answer {
    send(member, "POST", path, &[], body).await
}

/// Posts a request and begins to read the answer.
pub(crate) async fn open(
    member: &Member,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Stream {
    let body = Full::new(Bytes::from(body.to_owned())).boxed();
    begin(member, path, headers, body).await
}

/// As [`open`], with a body that goes on: what is sent there is a chunk of it.
pub(crate) async fn open_both(
    member: &Member,
    path: &str,
    first: &'static str,
) -> (Stream, mpsc::Sender<&'static str>) {
    let (requests, chunks) = mpsc::channel(1);
    requests.send(first).await.unwrap();
    let chunks = ReceiverStream::new(chunks);
    let body = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk)))));
    (begin(member, path, &[], body.boxed()).await, requests)
}

async fn begin(member: &Member, path: &str, headers: &[(&str, &str)], body: Body) -> Stream {
    let (mut sender, connection) = connect(member).await;
    let response = sender
        .send_request(request("POST", path, headers, body))
        .await
        .unwrap();
    Stream {
        status: response.status().as_u16(),
        body: response.into_body(),
        connection,
    }
}

/// Posts a request, and closes the connection instead of reading its answer, once `until` is over.
pub(crate) async fn abandon(member: &Member, path: &str, body: &str, until: impl Future) {
    let (mut sender, connection) = connect(member).await;
    let body = Full::new(Bytes::from(body.to_owned())).boxed();
    let answer = sender.send_request(request("POST", path, &[], body));
    tokio::select! {
        answer = answer => panic!("an answer: {answer:?}"),
        _ = until => connection.abort(),
    }
}

/// Base64 of a text.
pub(crate) fn b64(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

/// Replaces what differs between two clusters, or two runs: ids, terms, sizes and the like, wherever they
/// are.
pub(crate) fn masked(mut value: Value) -> Value {
    mask(&mut value);
    value
}

fn mask(value: &mut Value) {
    const NAMES: &[&str] = &[
        "cluster_id",
        "member_id",
        "raft_term",
        "leader",
        "ID",
        "lease",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "dbSize",
        "dbSizeInUse",
    ];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(_) if NAMES.contains(&name.as_str()) => *value = "*".into(),
                    _ => mask(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
