//! The JSON gateway: streams as lines, and WebSockets (spec wire.md sections 7.1, 7.3 and 7.4).

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::json_client::{abandon, b64, masked, open, open_both, post, send};
use crate::support::*;

const WATCH_A: &str = r#"{"create_request":{"key":"YQ=="}}"#;

impl Member {
    /// Waits until a metric has a value.
    async fn until_metric(&self, line: &str) {
        let seen = async {
            while !self.metrics().await.iter().any(|found| found == line) {
                tokio::task::yield_now().await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
        seen.unwrap_or_else(|_| panic!("never {line}"));
    }

    /// Waits until nobody watches.
    async fn until_unwatched(&self) {
        self.until_metric("etcd_debugging_mvcc_watch_stream_total 0")
            .await;
    }

    async fn websocket(&self, path: &str, headers: &[(&'static str, &str)]) -> Socket {
        let uri = format!("ws://{}{path}", self.address());
        let mut request = uri.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let socket = TcpStream::connect(self.address()).await.unwrap();
        let connected = tokio_tungstenite::client_async(request, socket).await;
        let (socket, response) = connected.unwrap();
        let protocol = response.headers().get("sec-websocket-protocol");
        Socket {
            socket,
            protocol: protocol.map(|value| value.to_str().unwrap().to_owned()),
        }
    }
}

struct Socket {
    socket: WebSocketStream<TcpStream>,
    /// The sub-protocol that the server has chosen.
    protocol: Option<String>,
}

impl Socket {
    async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message; none when the server has closed its side.
    async fn next(&mut self) -> Option<Value> {
        match self.socket.next().await?.unwrap() {
            Message::Text(text) => Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => None,
            other => panic!("{other:?}"),
        }
    }
}

fn header(revision: &str) -> Value {
    json!({"cluster_id": "*", "member_id": "*", "revision": revision, "raft_term": "*"})
}

#[tokio::test]
async fn g7_4_a_watch_is_a_line_and_a_chunk_for_each_response() {
    let member = Member::start().await;
    // The body has ended: that closes one side only.
    let mut watch = open(&member, "/v3/watch", &[], WATCH_A).await;
    assert_eq!(watch.status, 200);
    let created = json!({"result": {"header": header("1"), "created": true}});
    assert_eq!(masked(watch.line().await), created);
    for value in ["1", "2"] {
        member.put("a", value).await;
        let line = watch.line().await;
        assert_eq!(line["result"]["events"][0]["kv"]["value"], b64(value));
        // PUT is 0.
        assert_eq!(line["result"]["events"][0].get("type"), None);
    }
    member.delete("a", "").await;
    let deleted = json!([{"type": "DELETE", "kv": {"key": "YQ==", "mod_revision": "4"}}]);
    assert_eq!(watch.line().await["result"]["events"], deleted);
    watch.leave();
    member.until_unwatched().await;
}

#[tokio::test]
async fn g7_4_watch_requests_follow_one_another_in_the_body_and_while_it_is_open() {
    let member = Member::start().await;
    let first = r#"{"createRequest":{"key":"YQ==","startRevision":"-4"}}
        {"create_request":{"key":"YQ==","watch_id":"7"}}"#;
    let (mut watch, requests) = open_both(&member, "/v3/watch", first).await;
    let refused = watch.line().await;
    assert_eq!(refused["result"]["cancel_reason"], COMPACTED);
    assert_eq!(refused["result"]["canceled"], true);
    assert_eq!(watch.line().await["result"]["watch_id"], "7");
    // A request may come in parts.
    requests.send(r#"{"cancel_request":{"#).await.unwrap();
    requests
        .send(r#""watch_id":7}}{"create_request":{"key":"Yg=="}}"#)
        .await
        .unwrap();
    let cancelled = watch.line().await;
    assert_eq!(cancelled["result"]["watch_id"], "7");
    assert_eq!(cancelled["result"]["canceled"], true);
    assert_eq!(watch.line().await["result"]["created"], true);
    // What is no request ends the requests, not the stream.
    requests.send("nonsense {}").await.unwrap();
    member.put("b", "1").await;
    assert_eq!(
        watch.line().await["result"]["events"][0]["kv"]["key"],
        "Yg=="
    );
}

#[tokio::test]
async fn g7_4_keep_alives_are_a_line_for_each_request_and_end_with_them() {
    let member = Member::start().await;
    post(&member, "/v3/lease/grant", r#"{"TTL":60,"ID":7}"#).await;
    let alive = post(
        &member,
        "/v3/lease/keepalive",
        r#"{"ID":7}{"ID":"8"}{"ID":7}"#,
    )
    .await;
    let lines: Vec<Value> = alive
        .text
        .lines()
        .map(|line| masked(serde_json::from_str(line).unwrap()))
        .collect();
    let known = json!({"result": {"header": header("1"), "ID": "*", "TTL": "60"}});
    // No TTL: there is no such lease.
    let unknown = json!({"result": {"header": header("1"), "ID": "*"}});
    assert_eq!(lines, [known.clone(), unknown, known]);
    for nothing in ["", "nonsense"] {
        let answer = post(&member, "/v3/lease/keepalive", nothing).await;
        assert_eq!((answer.status, &answer.text[..]), (200, ""));
    }
    let (mut alive, requests) = open_both(&member, "/v3/lease/keepalive", r#"{"ID":7}"#).await;
    assert_eq!(alive.line().await["result"]["TTL"], "60");
    requests.send(r#"{"ID":7}"#).await.unwrap();
    assert_eq!(alive.line().await["result"]["TTL"], "60");
    drop(requests);
    assert_eq!(alive.chunk().await, None);
}

#[tokio::test]
async fn g7_3_a_stream_that_fails_says_so_in_its_last_line() {
    let member = Member::start().await;
    let soon = [("Grpc-Timeout", "50m")];
    let error = json!({"error": {"code": 4, "message": "context deadline exceeded"}});
    // Before the first message the status is the answer's, too.
    let mut observed = open(&member, "/v3/election/observe", &soon, r#"{"name":"eA=="}"#).await;
    assert_eq!(observed.status, 504);
    assert_eq!(observed.line().await, error);
    assert_eq!(observed.chunk().await, None);
    // A request that is no JSON never becomes a stream, where there is only one.
    for path in ["/v3/election/observe", "/v3/maintenance/snapshot"] {
        let answer = post(&member, path, "x").await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(3)));
    }
    let late = [("Grpc-Timeout", "x")];
    let answer = send(&member, "POST", "/v3/watch", &late, WATCH_A).await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            400,
            json!({"code": 3, "message": "invalid grpc-timeout: x"})
        )
    );
}

#[tokio::test]
async fn g7_4_streams_end_when_the_server_stops() {
    let member = Member::start().await;
    let mut watch = open(&member, "/v3/watch", &[], WATCH_A).await;
    assert_eq!(watch.line().await["result"]["created"], true);
    let mut socket = member.websocket("/v3/watch", &[]).await;
    socket.send(WATCH_A).await;
    assert_eq!(socket.next().await.unwrap()["result"]["created"], true);
    // Asks for nothing, and nobody waits for that.
    let mut idle = member.websocket("/v3/kv/put", &[]).await;
    let stopped = json!({"error": {"code": 14, "message": "etcdserver: server stopped"}});
    let seen = async {
        assert_eq!(watch.line().await, stopped);
        assert_eq!(watch.chunk().await, None);
        assert_eq!(socket.next().await.unwrap(), stopped);
        assert_eq!(socket.next().await, None);
        assert_eq!(idle.next().await, None);
    };
    let (_, _) = tokio::join!(member.stop(), seen);
}

#[tokio::test]
async fn g7_a_client_that_leaves_drops_its_call() {
    let member = Member::start().await;
    let held = post(&member, "/v3/lock/lock", r#"{"name":"bA=="}"#).await;
    assert_eq!(held.status, 200);
    let waiters = || async {
        let keys = member.kv().range(range("l/", "l0")).await.unwrap();
        keys.into_inner().count
    };
    let queued = async {
        while waiters().await < 2 {
            tokio::task::yield_now().await;
        }
    };
    abandon(&member, "/v3/lock/lock", r#"{"name":"bA=="}"#, queued).await;
    // The key of who waits no longer goes.
    let left = async {
        while waiters().await > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), left)
        .await
        .unwrap();
}

#[tokio::test]
async fn g7_4_a_watch_over_a_websocket() {
    let member = Member::start().await;
    let foreign = [("origin", "http://any.where")];
    let mut socket = member.websocket("/v3/watch", &foreign).await;
    assert_eq!(socket.protocol, None);
    socket.send(WATCH_A).await;
    let created = json!({"result": {"header": header("1"), "created": true}});
    assert_eq!(masked(socket.next().await.unwrap()), created);
    socket.send(r#"{"create_request":"#).await;
    socket.send(r#"{"key":"Yg=="}}"#).await;
    assert_eq!(socket.next().await.unwrap()["result"]["watch_id"], "1");
    member.put("b", "1").await;
    let event = socket.next().await.unwrap();
    assert_eq!(event["result"]["events"][0]["kv"]["value"], "MQ==");
    // Asked and answered below the gateway.
    socket.socket.send(Message::Ping("x".into())).await.unwrap();
    let pong = socket.socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("x".into()));
    socket.socket.close(None).await.unwrap();
    member.until_unwatched().await;
    // Nor does it matter how it ends.
    let mut socket = member.websocket("/v3/watch", &[]).await;
    socket.send(WATCH_A).await;
    socket.next().await.unwrap();
    drop(socket);
    member.until_unwatched().await;
}

#[tokio::test]
async fn g7_4_other_calls_over_a_websocket() {
    let member = Member::start().await;
    let mut socket = member.websocket("/v3/kv/put", &[]).await;
    socket.send(r#"{"key":"YQ==","value":"MQ=="}"#).await;
    let answer = masked(socket.next().await.unwrap());
    assert_eq!(answer, json!({"header": header("2")}));
    assert_eq!(socket.next().await, None);
    let mut socket = member.websocket("/v3/lease/keepalive", &[]).await;
    for _ in 0..2 {
        socket.send(r#"{"ID":"8"}"#).await;
        assert_eq!(socket.next().await.unwrap()["result"]["ID"], "8");
    }
    let mut socket = member.websocket("/v3/kv/range", &[]).await;
    socket.send("x").await;
    assert_eq!(socket.next().await.unwrap()["code"], 3);
    assert_eq!(socket.next().await, None);
    let mut socket = member.websocket("/v3/nothing", &[]).await;
    let missing = json!({"code": 5, "message": "Not Found"});
    assert_eq!(socket.next().await.unwrap(), missing);
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn g7_4_a_websocket_may_bring_a_token() {
    let member = Member::start().await;
    for (headers, protocol) in [
        (("sec-websocket-protocol", "Bearer, a.b"), Some("Bearer")),
        (("cookie", "token=a.b"), None),
    ] {
        let mut socket = member.websocket("/v3/kv/range", &[headers]).await;
        assert_eq!(socket.protocol.as_deref(), protocol);
        socket.send(r#"{"key":"YQ=="}"#).await;
        assert_eq!(socket.next().await.unwrap()["header"]["revision"], "1");
    }
    // Only the gateway has WebSockets.
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let answer = send(&member, "GET", "/version", &upgrade, "").await;
    assert_eq!(answer.status, 200);
}
