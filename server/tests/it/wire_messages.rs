//! The same requests to a unary method on the hot path, to a unary method off it, and to a stream on
//! tonic: the same answers, but for the few that gRPC itself answers differently for streams.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::io::{Read, Write};

use bytes::{Buf, Bytes};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::health::{HealthCheckRequest, HealthCheckResponse};
use http::Method;
use prost::Message;

use crate::wire_support::{
    Answer, MAX_MESSAGE, Port, Raw, Send, framed, header, put, send, send_bytes, soon, status_of,
};

const PUT: &str = "/etcdserverpb.KV/Put";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A path of every kind of serving.
const ALL: [&str; 3] = [PUT, MEMBER_LIST, WATCH];

/// Sends the same to every path and expects the same refusal, headers only.
async fn refused(what: impl Fn(&str) -> Send, http: u16, code: u32, text: &str) {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in ALL {
        let answer = raw.answer(what(path)).await;
        check_refused(&answer, path, http, code, text);
    }
}

/// As [`refused`], with another status for the stream.
async fn refused_otherwise(what: impl Fn(&str) -> Send, unary: (u32, &str), stream: (u32, &str)) {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in ALL {
        let (code, text) = if path == WATCH { stream } else { unary };
        let answer = raw.answer(what(path)).await;
        check_refused(&answer, path, 200, code, text);
    }
}

fn check_refused(answer: &Answer, path: &str, http: u16, code: u32, text: &str) {
    assert_eq!(answer.status(), (code, text.to_owned()), "{path}");
    assert_eq!(answer.http, http, "{path}");
    assert_eq!(answer.trailers, None, "{path}: not headers only");
    assert_eq!(answer.headers["content-type"], "application/grpc", "{path}");
    assert_eq!(answer.headers.get("grpc-encoding"), None, "{path}");
}

/// Sends the same to every path and expects success.
async fn served(what: impl Fn(&str) -> Send) {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in ALL {
        serves(&raw, path, what(path)).await;
    }
}

async fn serves(raw: &Raw, path: &str, what: Send) {
    if path != WATCH {
        let answer = raw.answer(what).await;
        assert_eq!(answer.status(), (0, String::new()), "{path}");
        assert_eq!(answer.http, 200);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(answer.headers.get("content-length"), None);
        return;
    }
    let (response, _stream) = raw.begin(what).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers().get("grpc-status"), None, "{path}");
    let message = soon(response.into_body().data()).await.unwrap().unwrap();
    assert_eq!(
        message,
        framed(0, &HealthCheckResponse { status: 1 }.encode_to_vec())
    );
}

fn empty(path: &str) -> Send {
    send_bytes(path, framed(0, &[]))
}

fn gzip(payload: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_proper_call() {
    served(empty).await;
}

#[tokio::test]
async fn content_types_with_a_suffix_are_grpc() {
    served(|path| empty(path).header("content-type", "application/grpc+proto")).await;
    served(|path| empty(path).header("content-type", "application/grpc;charset=x")).await;
}

#[tokio::test]
async fn other_content_types_are_not() {
    let text = "invalid gRPC request content-type \"application/grpcx\"";
    refused(
        |p| empty(p).header("content-type", "application/grpcx"),
        415,
        3,
        text,
    )
    .await;
    let text = "invalid gRPC request content-type \"application/json\"";
    refused(
        |p| empty(p).header("content-type", "application/json"),
        415,
        3,
        text,
    )
    .await;
    let text = "invalid gRPC request content-type \"\"";
    refused(|p| empty(p).without_header("content-type"), 415, 3, text).await;
}

#[tokio::test]
async fn get_is_not_grpc() {
    let text = "Received a HEADERS frame with :method \"GET\" which should be POST";
    refused(|p| send_bytes(p, "").method(Method::GET), 405, 13, text).await;
}

#[tokio::test]
async fn malformed_timeouts() {
    let text = "malformed grpc-timeout: transport: timeout string is too short: \"1\"";
    refused(|p| empty(p).header("grpc-timeout", "1"), 400, 13, text).await;
    let text = "malformed grpc-timeout: transport: timeout unit is not recognized: \"5x\"";
    refused(|p| empty(p).header("grpc-timeout", "5x"), 400, 13, text).await;
}

#[tokio::test]
async fn a_timeout_of_zero_is_over_at_once() {
    refused(
        |p| empty(p).header("grpc-timeout", "0m"),
        200,
        4,
        "context deadline exceeded",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_never_comes_ends_with_the_deadline() {
    let what = |path: &str| {
        send_bytes(path, &[0_u8][..])
            .unended()
            .header("grpc-timeout", "40m")
    };
    refused(what, 200, 4, "context deadline exceeded").await;
}

#[tokio::test]
async fn other_compressions_are_refused() {
    let text = "grpc: Decompressor is not installed for grpc-encoding \"snappy\"";
    refused(
        |p| empty(p).header("grpc-encoding", "snappy"),
        200,
        12,
        text,
    )
    .await;
    served(|path| empty(path).header("grpc-encoding", "identity")).await;
}

#[tokio::test]
async fn no_message() {
    let none = "cardinality violation: received no request message from non-client-streaming RPC";
    refused_otherwise(|p| send_bytes(p, ""), (2, "EOF"), (13, none)).await;
    refused_otherwise(|p| send_bytes(p, &[0_u8, 0, 0][..]), (2, "EOF"), (13, none)).await;
}

#[tokio::test]
async fn a_message_cut_short() {
    let what = |path: &str| send_bytes(path, framed(0, b"hello")[..8].to_vec());
    let text = "unexpected EOF";
    refused_otherwise(what, (2, text), (13, text)).await;
}

#[tokio::test]
async fn two_messages() {
    let what = |path: &str| send_bytes(path, [framed(0, &[]), framed(0, &[])].concat());
    let text = "cardinality violation: received multiple request messages for \
                non-client-streaming RPC";
    let port = Port::start().await;
    let raw = port.raw().await;
    // Unary calls do not look behind the first message, streams do.
    serves(&raw, PUT, what(PUT)).await;
    serves(&raw, MEMBER_LIST, what(MEMBER_LIST)).await;
    check_refused(&raw.answer(what(WATCH)).await, WATCH, 200, 13, text);
    // Garbage behind it is not looked at either.
    serves(
        &raw,
        PUT,
        send_bytes(PUT, [framed(0, &[]), vec![9; 100]].concat()),
    )
    .await;
}

#[tokio::test]
async fn a_unary_call_is_answered_before_the_client_closes_its_side() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let answer = soon(raw.call(empty(PUT).unended())).await.unwrap();
    assert_eq!(answer.status().0, 0);
}

#[tokio::test]
async fn wrong_flags() {
    let text = "grpc: received unexpected payload format 2";
    refused(|p| send_bytes(p, framed(2, &[])), 200, 13, text).await;
    let text = "grpc: compressed flag set with identity or empty encoding";
    refused(|p| send_bytes(p, framed(1, &[])), 200, 13, text).await;
}

#[tokio::test]
async fn messages_too_large() {
    let text = format!(
        "grpc: received message larger than max ({} vs. {MAX_MESSAGE})",
        MAX_MESSAGE + 1
    );
    let whole = |path: &str| send_bytes(path, framed(0, &vec![0; MAX_MESSAGE + 1]));
    refused(whole, 200, 8, &text).await;
    // By the prefix alone.
    let prefix = |path: &str| send_bytes(path, framed(0, &vec![0; MAX_MESSAGE + 1])[..5].to_vec());
    refused(prefix, 200, 8, &text).await;
    let text = format!("grpc: received message after decompression larger than max {MAX_MESSAGE}");
    let bomb = |path: &str| {
        let bomb = gzip(&vec![0; MAX_MESSAGE + 1]);
        send_bytes(path, framed(1, &bomb)).header("grpc-encoding", "gzip")
    };
    refused(bomb, 200, 8, &text).await;
}

#[tokio::test]
async fn the_largest_message_is_served() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let value = |length| pb::PutRequest {
        value: vec![7; length].into(),
        ..put("k")
    };
    let around = value(MAX_MESSAGE).encoded_len() - MAX_MESSAGE;
    let request = value(MAX_MESSAGE - around);
    assert_eq!(request.encoded_len(), MAX_MESSAGE);
    let answer: pb::PutResponse = raw.answer(send(PUT, &request)).await.message();
    assert_eq!(answer.prev_kv.unwrap().value, request.value);
}

/// What a message that does not decode is refused with: etcd 3.7.1 has another text for streams.
fn undecodable(path: &str) -> &'static str {
    match path {
        WATCH => "grpc: failed to unmarshal the received message: ",
        _ => "grpc: error unmarshalling request: ",
    }
}

#[tokio::test]
async fn garbage_is_not_a_message() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in ALL {
        let answer = raw.answer(send_bytes(path, framed(0, &[0xff; 7]))).await;
        let (code, message) = answer.status();
        assert_eq!(code, 13, "{path}");
        assert!(message.starts_with(undecodable(path)), "{path}: {message}");
    }
}

#[tokio::test]
async fn strings_are_utf8() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in [CHECK, WATCH] {
        // Field 1, two bytes that are no UTF-8.
        let answer = raw
            .answer(send_bytes(path, framed(0, &[0x0a, 2, 0xff, 0xfe])))
            .await;
        let (code, message) = answer.status();
        assert_eq!(code, 13, "{path}");
        assert!(message.starts_with(undecodable(path)), "{path}: {message}");
        assert!(message.contains("UTF-8"), "{path}: {message}");
    }
    // Keys are bytes.
    let key = Bytes::from_static(&[0xff, 0xfe]);
    let request = pb::PutRequest {
        key: key.clone(),
        ..Default::default()
    };
    let answer: pb::PutResponse = raw.answer(send(PUT, &request)).await.message();
    assert_eq!(answer.prev_kv.unwrap().key, key);
}

#[tokio::test]
async fn frames_cut_anywhere() {
    served(|path| empty(path).in_frames_of(1)).await;
    let port = Port::start().await;
    let raw = port.raw().await;
    for size in [1, 4, 5, 6, 30] {
        let request = send(PUT, &put("a key cut in pieces")).in_frames_of(size);
        let answer: pb::PutResponse = raw.answer(request).await.message();
        assert_eq!(answer.prev_kv.unwrap().key, "a key cut in pieces");
    }
}

#[tokio::test]
async fn gzip_is_answered_in_gzip() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let compressed = |path: &str, message: Vec<u8>| {
        send_bytes(path, framed(1, &gzip(&message))).header("grpc-encoding", "gzip")
    };
    let plain = |mut data: Bytes| {
        assert_eq!(data.get_u8(), 1, "compressed flag");
        assert_eq!(data.get_u32() as usize, data.len());
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&data[..])
            .read_to_end(&mut plain)
            .unwrap();
        plain
    };
    let request = pb::PutRequest {
        value: vec![b'v'; 1000].into(),
        ..put("k")
    };
    let answer = raw.answer(compressed(PUT, request.encode_to_vec())).await;
    assert_eq!(answer.headers["grpc-encoding"], "gzip");
    assert!(answer.data.len() < 500);
    let response = pb::PutResponse::decode(&plain(answer.data)[..]).unwrap();
    assert_eq!(response.prev_kv.unwrap().value, request.value);

    let answer = raw.answer(compressed(MEMBER_LIST, vec![])).await;
    assert_eq!(answer.headers["grpc-encoding"], "gzip");
    assert_eq!(
        pb::MemberListResponse::decode(&plain(answer.data)[..])
            .unwrap()
            .members
            .len(),
        1
    );

    let (response, _stream) = raw.begin(compressed(WATCH, vec![])).await.unwrap();
    assert_eq!(response.headers()["grpc-encoding"], "gzip");
    let data = soon(response.into_body().data()).await.unwrap().unwrap();
    assert_eq!(
        plain(data),
        HealthCheckResponse { status: 1 }.encode_to_vec()
    );
}

#[tokio::test]
async fn a_client_that_only_accepts_gzip_gets_it_plain() {
    served(|path| empty(path).header("grpc-accept-encoding", "gzip")).await;
    // Announced, but this message is not compressed.
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in [PUT, MEMBER_LIST] {
        let answer = raw
            .answer(empty(path).header("grpc-encoding", "gzip"))
            .await;
        assert_eq!(answer.status().0, 0, "{path}");
        assert_eq!(answer.headers["grpc-encoding"], "gzip", "{path}");
    }
}

#[tokio::test]
async fn broken_gzip() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for path in ALL {
        let request = send_bytes(path, framed(1, b"not gzip")).header("grpc-encoding", "gzip");
        let (code, message) = raw.answer(request).await.status();
        assert_eq!(code, 13, "{path}");
        assert!(
            message.starts_with("grpc: failed to read decompressed data: "),
            "{path}: {message}"
        );
    }
}

#[tokio::test]
async fn a_learner_answers_status_and_serializable_ranges_only() {
    let port = Port::start().await;
    port.fake.become_learner();
    let raw = port.raw().await;
    let text = "etcdserver: rpc not supported for learner";
    for path in ALL.into_iter().chain([CHECK, "/etcdserverpb.KV/Range"]) {
        check_refused(&raw.answer(empty(path)).await, path, 200, 9, text);
    }
    let status = raw.answer(empty("/etcdserverpb.Maintenance/Status")).await;
    assert_eq!(status.message::<pb::StatusResponse>().version, "3.7.1");
    let local = pb::RangeRequest {
        serializable: true,
        ..Default::default()
    };
    assert_eq!(
        raw.answer(send("/etcdserverpb.KV/Range", &local))
            .await
            .status()
            .0,
        0
    );
    // What cannot be decoded is refused before anybody asks who may answer, but not for streams.
    let garbage = |path| send_bytes(path, framed(0, &[0xff; 7]));
    assert_eq!(raw.answer(garbage(PUT)).await.status().0, 13);
    assert_eq!(
        raw.answer(garbage(WATCH)).await.status(),
        (9, text.to_owned())
    );
    // First the learner, then the client's version.
    let both = raw
        .answer(empty(PUT).header("client-api-version", [0xff]))
        .await;
    assert_eq!(both.status(), (9, text.to_owned()));
}

#[tokio::test]
async fn the_version_of_a_client_is_utf8() {
    let text = "etcdserver: invalid client api version";
    refused(
        |p| empty(p).header("client-api-version", [0xff, 0xfe]),
        200,
        3,
        text,
    )
    .await;
    served(|path| empty(path).header("client-api-version", "3.ü")).await;
}

#[tokio::test]
async fn clients_that_insist_on_a_leader() {
    let port = Port::start().await;
    port.fake.lose_leader();
    let raw = port.raw().await;
    let insisting = |path| empty(path).header("hasleader", "true");
    for path in ALL {
        let answer = raw.answer(insisting(path)).await;
        check_refused(&answer, path, 200, 14, "etcdserver: no leader");
        serves(&raw, path, empty(path).header("hasleader", "TRUE")).await;
        serves(&raw, path, empty(path)).await;
        // First the version, then the leader.
        let both = raw
            .answer(insisting(path).header("client-api-version", [0xff]))
            .await;
        assert_eq!(both.status().0, 3, "{path}");
    }
}

#[tokio::test]
async fn errors_of_the_member_are_headers_only_and_percent_encoded() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let answer = raw.answer(send(PUT, &put("nospace"))).await;
    check_refused(
        &answer,
        PUT,
        200,
        8,
        "etcdserver: mvcc: database space exceeded",
    );
    let answer = raw.answer(send(PUT, &put("odd"))).await;
    check_refused(&answer, PUT, 200, 2, "100%25 %C3%BC");
    let unknown = HealthCheckRequest {
        service: "etcd".into(),
    };
    let answer = raw.answer(send(CHECK, &unknown)).await;
    check_refused(&answer, CHECK, 200, 5, "unknown service");
}

#[tokio::test]
async fn a_deadline_ends_the_handler() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let answer = raw
        .answer(send(PUT, &put("block")).header("grpc-timeout", "40m"))
        .await;
    check_refused(&answer, PUT, 200, 4, "context deadline exceeded");
    // A stream has sent something already: trailers.
    let answer = raw.answer(empty(WATCH).header("grpc-timeout", "40m")).await;
    assert_eq!(
        answer.data,
        framed(0, &HealthCheckResponse { status: 1 }.encode_to_vec())
    );
    assert_eq!(answer.status(), (4, "context deadline exceeded".to_owned()));
    assert!(answer.trailers.is_some());
}

#[tokio::test]
async fn a_panic_ends_its_call_only() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let answer = raw.answer(send(PUT, &put("panic"))).await;
    let text = "etcdserver: internal error, see the log of the server";
    check_refused(&answer, PUT, 200, 13, text);
    // The same connection.
    let answer: pb::PutResponse = raw.answer(send(PUT, &put("k"))).await.message();
    assert_eq!(answer.header, Some(header()));
}

#[tokio::test]
async fn unknown_methods() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for (path, text) in [
        (
            "/etcdserverpb.KV/Get",
            "unknown method Get for service etcdserverpb.KV",
        ),
        (
            "/grpc.reflection.v1.ServerReflection/X",
            "unknown service grpc.reflection.v1.ServerReflection",
        ),
        ("/Put", "malformed method name: \"/Put\""),
    ] {
        check_refused(&raw.answer(empty(path)).await, path, 200, 12, text);
    }
}

#[tokio::test]
async fn a_health_watch_of_an_unknown_name_stays_open() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let request = HealthCheckRequest {
        service: "etcd".into(),
    };
    let (response, _stream) = raw.begin(send(WATCH, &request)).await.unwrap();
    let mut body = response.into_body();
    let message = soon(body.data()).await.unwrap().unwrap();
    assert_eq!(
        message,
        framed(0, &HealthCheckResponse { status: 3 }.encode_to_vec())
    );
    port.grpc.stop();
    let trailers = soon(body.trailers()).await.unwrap().unwrap();
    assert_eq!(status_of(&trailers), (1, "Stream has ended.".to_owned()));
}
