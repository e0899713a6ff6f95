//! Connections: HTTP/1 and HTTP/2 on one port, shutdown, clients that reset or ping a lot.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::health::HealthCheckRequest;
use ferrite_server::serve::{Listener, Options, Serves};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::wire_support::{Port, Raw, framed, put, send, send_bytes, soon, status_of};

const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The answer to a GET in plain HTTP/1.1; empty when the server hangs up.
async fn http1_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end here.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    // Not text where the server speaks HTTP/2 only.
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn one_port_speaks_grpc_and_http() {
    let port = Port::start().await;
    let answer = http1_get(&port.address(), "/health").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("fine"),
        "{answer}"
    );
    assert!(
        http1_get(&port.address(), PUT)
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    let raw = port.raw().await;
    let page = send_bytes("/health", "")
        .method(Method::GET)
        .without_header("content-type");
    let (response, _) = raw.begin(page).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        soon(response.into_body().data()).await.unwrap().unwrap(),
        "fine"
    );
    assert_eq!(raw.answer(send(PUT, &put("k"))).await.status().0, 0);
}

#[tokio::test]
async fn a_listener_may_serve_one_of_them_only() {
    let port = Port::start_with(&Options::default(), Serves::Grpc).await;
    assert_eq!(
        port.raw()
            .await
            .answer(send(PUT, &put("k")))
            .await
            .status()
            .0,
        0
    );
    assert!(!http1_get(&port.address(), "/health").await.contains("fine"));
    let page = send_bytes("/health", "")
        .method(Method::GET)
        .without_header("content-type");
    let (response, _) = port.raw().await.begin(page).await.unwrap();
    assert_eq!(response.status(), 415);

    let port = Port::start_with(&Options::default(), Serves::Http).await;
    assert!(
        http1_get(&port.address(), "/health")
            .await
            .ends_with("fine")
    );
    let (response, _) = port.raw().await.begin(send(PUT, &put("k"))).await.unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.sock");
    let listener = Listener::unix(&path, Serves::Both).await.unwrap();
    let taken = Listener::unix(&path, Serves::Both).await;
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let port = Port::start_on(listener, &Options::default());
    let raw = Raw::connect(UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(raw.answer(send(PUT, &put("k"))).await.status().0, 0);
    drop(raw);
    assert!(port.serving.shutdown(Duration::from_secs(30)).await);
    assert!(!path.exists());
    // Left by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Listener::unix(&path, Serves::Both).await.unwrap();
}

#[tokio::test]
async fn shutdown_lets_calls_finish_and_ends_streams() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let blocked = tokio::spawn({
        let raw = raw.clone();
        async move {
            raw.answer(send(PUT, &put("block")))
                .await
                .message::<pb::PutResponse>()
        }
    });
    let (watch, _stream) = raw
        .begin(send(WATCH, &HealthCheckRequest::default()))
        .await
        .unwrap();
    let mut watch = watch.into_body();
    assert!(soon(watch.data()).await.unwrap().is_ok());
    port.fake.wait_blocked().await;
    let address = port.address();
    let shutdown = tokio::spawn(port.serving.shutdown(Duration::from_secs(30)));
    let trailers = soon(watch.trailers()).await.unwrap().unwrap();
    assert_eq!(status_of(&trailers), (1, "Stream has ended.".to_owned()));
    // The listener is closed while the call is still in flight.
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(!blocked.is_finished());
    port.fake.release();
    assert_eq!(soon(blocked).await.unwrap().prev_kv.unwrap().key, "block");
    assert!(soon(shutdown).await.unwrap(), "all finished");
    assert!(raw.call(send(PUT, &put("k"))).await.is_err());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let call = tokio::spawn(async move { raw.call(send(PUT, &put("block"))).await.is_err() });
    port.fake.wait_blocked().await;
    assert!(
        !soon(port.serving.shutdown(Duration::from_millis(20))).await,
        "one was cut off"
    );
    assert!(
        soon(call).await.unwrap(),
        "its client sees the connection end"
    );
}

#[tokio::test]
async fn streams_that_insist_on_a_leader_end_when_it_is_lost() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let watching = tokio::spawn({
        let grpc = port.grpc.clone();
        async move { grpc.watch_leader(Duration::from_millis(1)).await }
    });
    let request = send(WATCH, &HealthCheckRequest::default());
    let (insisting, _a) = raw
        .begin(request.clone().header("hasleader", "true"))
        .await
        .unwrap();
    let (other, _b) = raw.begin(request).await.unwrap();
    let (mut insisting, mut other) = (insisting.into_body(), other.into_body());
    assert!(soon(insisting.data()).await.unwrap().is_ok());
    assert!(soon(other.data()).await.unwrap().is_ok());
    port.fake.lose_leader();
    let trailers = soon(insisting.trailers()).await.unwrap().unwrap();
    assert_eq!(
        status_of(&trailers),
        (14, "etcdserver: no leader".to_owned())
    );
    assert!(!other.is_end_stream());
    port.grpc.stop();
    assert_eq!(
        status_of(&soon(other.trailers()).await.unwrap().unwrap()).0,
        1
    );
    soon(watching).await.unwrap();
}

#[tokio::test]
async fn clients_may_cancel_many_short_streams() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for _ in 0..2_000 {
        // Headers and part of a message, then RST_STREAM when both halves are dropped.
        let begun = raw.begin(send_bytes(PUT, framed(0, b"abc")[..6].to_vec()).unended());
        let cancelled = tokio::time::timeout(Duration::ZERO, begun).await;
        assert!(!matches!(cancelled, Ok(Ok(_))), "nothing to answer yet");
    }
    assert_eq!(soon(raw.answer(send(PUT, &put("k")))).await.status().0, 0);
}

#[tokio::test]
async fn clients_may_ping_often() {
    let port = Port::start().await;
    let stream = TcpStream::connect(port.address()).await.unwrap();
    let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..200 {
        soon(pings.ping(h2::Ping::opaque())).await.unwrap();
    }
    assert!(!connection.is_finished());
    drop(sender);
}

#[tokio::test]
async fn the_limit_of_streams_is_announced() {
    for limit in [7, u32::MAX] {
        let options = Options {
            max_concurrent_streams: limit,
            ..Options::default()
        };
        let port = Port::start_with(&options, Serves::Both).await;
        let raw = port.raw().await;
        // The server's settings are there at the latest with its first answer.
        assert_eq!(raw.answer(send(PUT, &put("k"))).await.status().0, 0);
        assert_eq!(raw.max_streams(), usize::try_from(limit).unwrap());
    }
}
