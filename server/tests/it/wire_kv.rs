//! The KV methods through a stock gRPC client, long answers, and how calls are counted.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use bytes::Buf;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::cluster_client::ClusterClient;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_api::pb::health::HealthCheckRequest;
use ferrite_api::pb::health::HealthListRequest;
use ferrite_api::pb::health::health_client::HealthClient;
use ferrite_server::grpc::MAX_NESTED_TXNS;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;

use crate::wire_support::{Port, framed, header, pairs, put, send, send_bytes, soon};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

pub(crate) async fn channel(port: &Port) -> Channel {
    let uri = format!("http://{}", port.address());
    Channel::from_shared(uri).unwrap().connect().await.unwrap()
}

fn range(limit: i64, size: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: "k".into(),
        limit,
        revision: size,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_stock_client_talks_to_every_method_that_is_built() {
    let port = Port::start().await;
    let channel = channel(&port).await;
    let mut kv = KvClient::new(channel.clone());
    let response = kv.put(put("a")).await.unwrap().into_inner();
    assert_eq!(response.prev_kv.unwrap().key, "a");
    let response = kv.range(range(3, 10)).await.unwrap().into_inner();
    assert_eq!(response.kvs, pairs(3, 10));
    assert_eq!(
        (response.more, response.count, response.header),
        (true, 3, Some(header()))
    );
    let mut stream = kv.range_stream(range(3, 10)).await.unwrap().into_inner();
    for pair in pairs(3, 10) {
        let message = stream.message().await.unwrap().unwrap();
        assert_eq!(message.range_response.unwrap().kvs, [pair]);
    }
    assert_eq!(stream.message().await.unwrap(), None);
    let delete = pb::DeleteRangeRequest {
        key: "four".into(),
        ..Default::default()
    };
    assert_eq!(
        kv.delete_range(delete).await.unwrap().into_inner().deleted,
        4
    );
    assert!(
        kv.txn(pb::TxnRequest::default())
            .await
            .unwrap()
            .into_inner()
            .succeeded
    );
    let compacted = kv
        .compact(pb::CompactionRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(compacted.header, Some(header()));
    let status = kv.put(put("nospace")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "etcdserver: mvcc: database space exceeded"
    );
    let status = kv.put(put("odd")).await.unwrap_err();
    assert_eq!(status.message(), "100% ü");

    let mut cluster = ClusterClient::new(channel.clone());
    let members = cluster
        .member_list(pb::MemberListRequest::default())
        .await
        .unwrap();
    assert_eq!(members.into_inner().members[0].name, "fake");
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let status = maintenance
        .status(pb::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.version, "3.7.1");
    let defragmented = maintenance.defragment(pb::DefragmentRequest {}).await;
    assert_eq!(defragmented.unwrap().into_inner().header, None);
    let downgrade = maintenance.downgrade(pb::DowngradeRequest::default()).await;
    assert_eq!(downgrade.unwrap().into_inner().version, "3.7");

    let mut health = HealthClient::new(channel);
    let checked = health
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(checked.status, 1);
    let listed = health
        .list(HealthListRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.statuses[""].status, 1);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    port.fake.pause(1);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    let checked = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(checked.into_inner().status, 2);
    let listed = health.list(HealthListRequest {}).await.unwrap();
    assert_eq!(listed.into_inner().statuses[""].status, 2);
    // Another reason is no news.
    port.fake.pause(2);
    port.fake.pause(0);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
}

#[tokio::test]
async fn a_stock_client_talks_to_the_lease_service() {
    let port = Port::start().await;
    let mut lease = LeaseClient::new(channel(&port).await);
    let grant = pb::LeaseGrantRequest { id: -7, ttl: 60 };
    let granted = lease.lease_grant(grant).await.unwrap().into_inner();
    assert_eq!((granted.id, granted.ttl), (-7, 60));
    let revoke = pb::LeaseRevokeRequest { id: 0 };
    let status = lease.lease_revoke(revoke).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let lookup = pb::LeaseTimeToLiveRequest::default();
    let left = lease.lease_time_to_live(lookup).await.unwrap();
    assert_eq!(left.into_inner().ttl, -1);
    let list = lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(list.into_inner().leases, [pb::LeaseStatus { id: 7 }]);

    // Answers in order; an error ends the stream, and what comes after it is not answered.
    let requests = [1, 0, 5, -1, 6].map(|id| pb::LeaseKeepAliveRequest { id });
    let answers = lease.lease_keep_alive(tokio_stream::iter(requests)).await;
    let mut answers = answers.unwrap().into_inner();
    for id in [1, 0, 5] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (id, id));
    }
    let status = answers.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "not a primary lessor")
    );
}

#[tokio::test]
async fn long_answers_arrive_whole() {
    let port = Port::start().await;
    let mut kv = KvClient::new(channel(&port).await).max_decoding_message_size(usize::MAX);
    for (limit, size) in [
        (0, 0),
        (1, 5_000),
        (200, 300),
        (10_000, 300),
        (40, 100_000),
        (3, 3_000_000),
    ] {
        let response = kv.range(range(limit, size)).await.unwrap().into_inner();
        assert_eq!(response.kvs, pairs(limit, size), "{limit} of {size}");
        assert_eq!(response.count, limit);
    }
}

#[tokio::test]
async fn an_answer_beyond_two_gigabytes_is_refused_before_its_first_byte() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let many = pb::RangeRequest {
        key: "many".into(),
        ..Default::default()
    };
    let answer = raw.answer(send(RANGE, &many)).await;
    let (code, text) = answer.status();
    assert_eq!(code, 8);
    assert!(
        text.starts_with("grpc: trying to send message larger than max (2214"),
        "{text}"
    );
    assert_eq!(answer.trailers, None);
}

#[tokio::test]
async fn a_long_answer_to_a_gzip_request_is_not_compressed() {
    let port = Port::start().await;
    let raw = port.raw().await;
    for (limit, flag) in [(5, 1), (4_000, 0)] {
        let request = send(RANGE, &range(limit, 1_000)).header("grpc-encoding", "gzip");
        let mut answer = raw.answer(request).await;
        assert_eq!(answer.status().0, 0);
        assert_eq!(answer.headers["grpc-encoding"], "gzip");
        assert_eq!(answer.data.get_u8(), flag, "{limit}");
    }
}

#[tokio::test]
async fn a_streamed_range_to_a_client_that_compresses() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let path = "/etcdserverpb.KV/RangeStream";
    for (size, flag) in [(1_000, 1), (2_000_000, 0)] {
        let request = send(path, &range(2, size)).header("grpc-encoding", "gzip");
        let mut answer = raw.answer(request).await;
        assert_eq!(answer.status().0, 0);
        let mut messages = 0;
        while answer.data.has_remaining() {
            assert_eq!(answer.data.get_u8(), flag, "{size}");
            let length = answer.data.get_u32() as usize;
            answer.data.advance(length);
            messages += 1;
        }
        assert_eq!(messages, 2, "{size}");
    }
    let sent = r#"grpc_server_msg_sent_total{grpc_method="RangeStream",grpc_service="etcdserverpb.KV",grpc_type="server_stream"}"#;
    assert_eq!(port.metric(sent), 4.0);
}

#[tokio::test]
async fn txns_nested_as_deep_as_the_decoder_goes() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let nested = |levels| {
        let mut op = pb::request_op::Request::RequestPut(put("k"));
        let mut request = pb::TxnRequest::default();
        for _ in 0..=levels {
            let success = vec![pb::RequestOp { request: Some(op) }];
            request = pb::TxnRequest {
                success,
                ..Default::default()
            };
            op = pb::request_op::Request::RequestTxn(request.clone());
        }
        send("/etcdserverpb.KV/Txn", &request)
    };
    assert_eq!(raw.answer(nested(MAX_NESTED_TXNS)).await.status().0, 0);
    let (code, text) = raw.answer(nested(MAX_NESTED_TXNS + 1)).await.status();
    assert_eq!(code, 13);
    assert!(
        text.starts_with("grpc: error unmarshalling request: "),
        "{text}"
    );
    // Far deeper than any stack would bear.
    let mut bomb = Vec::new();
    for _ in 0..5_000 {
        // request_txn in an op, success in a Txn: from the inside out.
        for tag in [0x22_u8, 0x12] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bomb.len() as u64, &mut outer);
            outer.append(&mut bomb);
            bomb = outer;
        }
    }
    let (code, text) = raw
        .answer(send_bytes("/etcdserverpb.KV/Txn", framed(0, &bomb)))
        .await
        .status();
    assert_eq!(code, 13, "{text}");
}

#[tokio::test]
async fn unary_calls_are_counted() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    let handled = |code: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    let ok = raw
        .answer(send(PUT, &put("k")).header("client-api-version", "3.7"))
        .await;
    raw.answer(send(PUT, &put("nospace"))).await;
    raw.answer(send(PUT, &put("panic"))).await;
    raw.answer(send(PUT, &put("block")).header("grpc-timeout", "20m"))
        .await;
    // Not decodable: not a call for the counters, but bytes received.
    raw.answer(send_bytes(PUT, framed(0, &[0xff; 7]))).await;

    assert_eq!(
        port.metric(&format!("grpc_server_started_total{{{labels}}}")),
        4.0
    );
    assert_eq!(
        port.metric(&format!("grpc_server_msg_received_total{{{labels}}}")),
        4.0
    );
    for code in ["OK", "ResourceExhausted", "Internal", "DeadlineExceeded"] {
        assert_eq!(port.metric(&handled(code)), 1.0, "{code}");
    }
    let requests = |version: &str| {
        format!(
            "etcd_server_client_requests_total{{client_api_version=\"{version}\",type=\"unary\"}}"
        )
    };
    assert_eq!(port.metric(&requests("3.7")), 1.0);
    assert_eq!(port.metric(&requests("unknown")), 3.0);
    let lengths = ["k", "nospace", "panic", "block"].map(|key| put(key).encoded_len());
    let received = lengths.iter().sum::<usize>() + 7;
    assert_eq!(
        port.metric("etcd_network_client_grpc_received_bytes_total"),
        received as f64
    );
    let sent = ok.data.len() - 5;
    assert_eq!(
        port.metric("etcd_network_client_grpc_sent_bytes_total"),
        sent as f64
    );
}

#[tokio::test]
async fn streams_are_counted_until_they_end() {
    let port = Port::start().await;
    let raw = port.raw().await;
    let labels =
        "grpc_method=\"Watch\",grpc_service=\"grpc.health.v1.Health\",grpc_type=\"server_stream\"";
    let handled =
        |code: &str| format!("grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}}");
    let watch = send(
        "/grpc.health.v1.Health/Watch",
        &HealthCheckRequest::default(),
    );
    let (response, stream) = raw.begin(watch.clone()).await.unwrap();
    let mut body = response.into_body();
    assert!(!soon(body.data()).await.unwrap().unwrap().is_empty());
    assert_eq!(
        port.metric(&format!("grpc_server_started_total{{{labels}}}")),
        1.0
    );
    assert_eq!(
        port.metric(&format!("grpc_server_msg_sent_total{{{labels}}}")),
        1.0
    );
    assert_eq!(
        port.metric(&format!("grpc_server_msg_received_total{{{labels}}}")),
        1.0
    );
    assert_eq!(
        port.metric(
            "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"}"
        ),
        1.0
    );
    assert_eq!(port.metric(&handled("Canceled")), 0.0);
    drop((body, stream));
    soon(async {
        while port.metric(&handled("Canceled")) < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    raw.answer(watch.header("grpc-timeout", "20m")).await;
    assert_eq!(port.metric(&handled("DeadlineExceeded")), 1.0);
}
