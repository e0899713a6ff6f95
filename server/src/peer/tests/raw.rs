//! The other end of a stream by hand: what no well-behaved member would do.

use bytes::BytesMut;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::frame::Frame;
use super::{CLUSTER, Node, soon};

/// A request for a stream, header by header.
pub(super) struct Request {
    headers: Vec<(&'static str, String)>,
}

impl Request {
    /// That of member `from` to `to`.
    pub(super) fn stream(from: u64, to: &Node, session: u64) -> Self {
        let headers = vec![
            ("host", "x".to_owned()),
            ("connection", "upgrade".to_owned()),
            ("upgrade", "ferrite-peer/1".to_owned()),
            ("x-server-from", format!("{from:x}")),
            ("x-raft-to", to.id.to_string()),
            ("x-etcd-cluster-id", CLUSTER.to_string()),
            ("x-server-version", "3.7.1".to_owned()),
            ("x-min-cluster-version", "3.0.0".to_owned()),
            ("x-ferrite-session", session.to_string()),
        ];
        Self { headers }
    }

    /// With another header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Without a header.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    pub(super) async fn send(self, to: &Node) -> Answer {
        let mut request = "POST /ferrite/stream HTTP/1.1\r\n".to_owned();
        for (name, value) in self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        send(to, &(request + "\r\n")).await
    }
}

/// An answer, and the connection behind it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) socket: TcpStream,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request as it is given.
pub(super) async fn send(to: &Node, request: &str) -> Answer {
    let address = to.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = read_head(&mut socket).await;
    let body = text.split_off(text.find("\r\n\r\n").unwrap() + 4);
    assert_eq!(body, "");
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<Vec<(http::HeaderName, http::HeaderValue)>>()
        .into_iter()
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    soon(socket.read_exact(&mut body)).await.unwrap();
    Answer {
        status: status.parse().unwrap(),
        headers,
        body: String::from_utf8(body).unwrap(),
        socket,
    }
}

/// Reads up to the empty line, byte by byte, so that nothing behind it is taken.
async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Whether the other side has ended the connection, having read everything before or not.
pub(super) async fn is_ended(socket: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = soon(socket.read_to_end(&mut rest)).await;
    read.is_err() || rest.is_empty()
}

/// A listener that takes streams and does with them as the test says.
pub(super) struct Fake {
    listener: TcpListener,
    pub(super) url: String,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next stream; a request without an upgrade is none.
    pub(super) async fn stream(&self) -> TcpStream {
        loop {
            let (mut socket, _) = soon(self.listener.accept()).await.unwrap();
            let head = read_head(&mut socket).await;
            if head.starts_with("POST /ferrite/stream ") {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ferrite-peer/1\r\n\r\n";
                socket.write_all(answer.as_bytes()).await.unwrap();
                return socket;
            }
        }
    }
}

/// Reads frames until `last` says so of one.
pub(super) async fn read_frames(socket: &mut TcpStream, last: impl Fn(&Frame) -> bool) {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(frame) = Frame::next(&mut buffer).unwrap() {
            if last(&frame) {
                return;
            }
        }
        assert!(soon(socket.read_buf(&mut buffer)).await.unwrap() > 0);
    }
}
