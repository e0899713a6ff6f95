//! The JSON gateway: requests, answers and refusals (spec wire.md sections 3, 7.1 to 7.3, and http.md 4).
//! What the texts of JSON errors are is the decoder's affair; all others are written out.

use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_server::config::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::json_client::{Answer, b64, masked, open, post, send};
use crate::support::*;

const PATHS: &str = "kv/range kv/put kv/deleterange kv/txn kv/compaction watch lease/grant lease/revoke \
    lease/keepalive lease/timetolive lease/leases kv/lease/revoke kv/lease/timetolive kv/lease/leases \
    cluster/member/add cluster/member/remove cluster/member/update cluster/member/list \
    cluster/member/promote maintenance/alarm maintenance/status maintenance/defragment maintenance/hash \
    maintenance/hashkv maintenance/snapshot maintenance/transfer-leadership maintenance/downgrade \
    auth/enable auth/disable auth/status auth/authenticate auth/user/add auth/user/get auth/user/list \
    auth/user/delete auth/user/changepw auth/user/grant auth/user/revoke auth/role/add auth/role/get \
    auth/role/list auth/role/delete auth/role/grant auth/role/revoke lock/lock lock/unlock \
    election/campaign election/proclaim election/leader election/observe election/resign";

#[track_caller]
fn fails(answer: &Answer, status: u16, code: Code, text: &str) {
    let body = json!({"code": code as i32, "message": text});
    assert_eq!((answer.status, answer.json()), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("grpc-metadata-content-type"), None);
}

/// What came out well, without what differs from run to run.
#[track_caller]
fn answer(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.header("grpc-metadata-content-type"),
        Some("application/grpc")
    );
    masked(answer.json())
}

fn header(revision: &str) -> Value {
    json!({"cluster_id": "*", "member_id": "*", "revision": revision, "raft_term": "*"})
}

#[tokio::test]
async fn g7_every_path_is_there_and_posts_only() {
    let member = Member::start().await;
    let mut paths = 0;
    for path in PATHS.split_whitespace() {
        paths += 1;
        for method in ["GET", "PUT"] {
            let answer = send(&member, method, &format!("/v3/{path}"), &[], "").await;
            fails(&answer, 501, Code::Unimplemented, "Method Not Allowed");
        }
    }
    assert_eq!(paths, 51);
    for path in [
        "",
        "kv",
        "kv/rangestream",
        "kv/range/",
        "health",
        "KV/range",
    ] {
        let answer = post(&member, &format!("/v3/{path}"), "{}").await;
        fails(&answer, 404, Code::NotFound, "Not Found");
    }
    for path in ["/v3x/kv/range", "/v3beta", "/v3alpha/kv/range"] {
        let answer = post(&member, path, "{}").await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.text, "404 page not found\n");
    }
    let answer = post(&member, "/v3//kv/range", "{}").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("/v3/kv/range"))
    );
    let answer = post(&member, "/v3", "{}").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("/v3/"))
    );
    let answer = post(&member, "/v3beta/kv/range", r#"{"key":"YQ=="}"#).await;
    assert_eq!(answer.json()["header"]["revision"], "1");
}

#[tokio::test]
async fn g7_without_the_gateway_its_paths_are_not_there() {
    let member = Member::start_with(|config| config.enable_grpc_gateway = false).await;
    for path in ["/v3/kv/range", "/v3beta/kv/range", "/v3/"] {
        let answer = post(&member, path, "{}").await;
        assert_eq!(
            (answer.status, &answer.text[..]),
            (404, "404 page not found\n")
        );
    }
}

#[tokio::test]
async fn g7_listeners_for_http_have_the_gateway_and_those_for_grpc_have_not() {
    let any = Url::parse("http://127.0.0.1:0").unwrap();
    let member = Member::start_with(|config| config.listen_client_http_urls = vec![any]).await;
    assert_ne!(member.address(), member.http_address());
    member.put("a", "1").await;
    let found = post(&member, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    assert_eq!(answer(&found)["count"], "1");
    let mut grpc = TcpStream::connect(member.address()).await.unwrap();
    let request = "POST /v3/kv/range HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    grpc.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closed, or reset with what it has not read.
    let _ = grpc.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1"), "{answer:?}");
}

#[tokio::test]
async fn g7_1_a_request_is_the_first_value_of_the_body_whatever_its_type() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let types: &[&[_]] = &[
        &[],
        &[("content-type", "text/plain"), ("accept", "text/html")],
        &[("content-type", "application/x-www-form-urlencoded")],
    ];
    let bodies = [
        r#"{"key":"YQ=="}"#,
        "\n {\"key\" : \"YQ\", \"unknown\" : {}}\n",
        r#"{"key":"YQ=="} {"key":"Yg=="}"#,
        r#"{"key":"YQ=="} nonsense"#,
    ];
    for headers in types {
        for body in bodies {
            let found = send(&member, "POST", "/v3/kv/range", headers, body).await;
            assert_eq!(answer(&found)["count"], "1", "{body}");
        }
    }
    for nothing in ["", " \n", "{}", r#"{"key":null}"#] {
        let answer = post(&member, "/v3/kv/range", nothing).await;
        fails(&answer, 400, Code::InvalidArgument, EMPTY_KEY);
    }
    for wrong in [
        "{",
        "[]",
        "null",
        "x",
        r#"{"key":5}"#,
        r#"{"key":"YQ==","limit":1.5}"#,
    ] {
        let answer = post(&member, "/v3/kv/range", wrong).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!(3)),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn g7_1_headers_are_metadata() {
    let member = Member::start().await;
    let get = r#"{"key":"YQ=="}"#;
    for headers in [
        ("Grpc-Metadata-hasleader", "true"),
        ("Grpc-Metadata-client-api-version", "3.7"),
        ("Authorization", "nonsense"),
        // What gRPC keeps for itself.
        ("Grpc-Metadata-Content-Type", "x"),
        ("Grpc-Metadata-Grpc-Timeout", "1n"),
        ("Grpc-Metadata-Grpc-Encoding", "x"),
        ("Grpc-Timeout", "0S"),
        ("Grpc-Timeout", "123456789S"),
    ] {
        let found = send(&member, "POST", "/v3/kv/range", &[headers], get).await;
        assert_eq!(
            answer(&found),
            json!({"header": header("1")}),
            "{headers:?}"
        );
    }
    for bad in ["1x", "S", "1.5S"] {
        let answer = send(
            &member,
            "POST",
            "/v3/kv/range",
            &[("Grpc-Timeout", bad)],
            get,
        )
        .await;
        let text = format!("invalid grpc-timeout: {bad}");
        fails(&answer, 400, Code::InvalidArgument, &text);
    }
    let late = [("Grpc-Timeout", "-1S")];
    let answer = send(&member, "POST", "/v3/kv/range", &late, get).await;
    fails(
        &answer,
        504,
        Code::DeadlineExceeded,
        "context deadline exceeded",
    );
    let versions = member.metrics().await;
    let counted = |line: &String| line.contains(r#"client_api_version="3.7""#);
    assert!(versions.iter().any(counted), "{versions:?}");
}

#[tokio::test]
async fn g7_1_a_form_may_name_another_method() {
    let member = Member::start().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let over = ("x-http-method-override", "put");
    let get = r#"{"key":"YQ=="}"#;
    let answer = send(&member, "POST", "/v3/kv/range", &[form, over], get).await;
    fails(&answer, 501, Code::Unimplemented, "Method Not Allowed");
    let answer = send(&member, "POST", "/v3/kv/range", &[over], get).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn g7_2_answers() {
    let member = Member::start().await;
    let put = post(&member, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert_eq!(answer(&put), json!({"header": header("2")}));
    assert!(!put.text.ends_with('\n'));
    let got = post(&member, "/v3/kv/range", r#"{"key":"Zm9v"}"#).await;
    let pair = json!({
        "key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"
    });
    assert_eq!(
        answer(&got),
        json!({"header": header("2"), "kvs": [pair], "count": "1"})
    );
    let txn = r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"YmFy"}],
        "success":[{"requestPut":{"key":"Zm9v","value":"YmF6","prev_kv":true}},
                   {"request_range":{"key":"Zm9v","keysOnly":true}},
                   {"request_delete_range":{"key":"eA=="}}]}"#;
    let new = json!({"key": "Zm9v", "create_revision": "2", "mod_revision": "3", "version": "2"});
    assert_eq!(
        answer(&post(&member, "/v3/kv/txn", txn).await),
        json!({
            "header": header("3"),
            "succeeded": true,
            "responses": [
                {"response_put": {"header": {"revision": "3"}, "prev_kv": pair}},
                {"response_range": {"header": {"revision": "3"}, "kvs": [new], "count": "1"}},
                {"response_delete_range": {"header": {"revision": "3"}}},
            ],
        })
    );
    let list = answer(&post(&member, "/v3/cluster/member/list", "").await);
    assert_eq!(
        list["members"],
        json!([{
            "ID": "*", "name": "default",
            "peerURLs": ["http://localhost:2380"], "clientURLs": ["http://localhost:2379"],
        }])
    );
    let status = answer(&post(&member, "/v3/maintenance/status", "").await);
    assert_eq!(status["version"], "3.7.1");
    assert_eq!(status["dbSizeQuota"], "2147483648");
    let grant = answer(&post(&member, "/v3/lease/grant", r#"{"TTL":60,"ID":"7"}"#).await);
    assert_eq!(
        grant,
        json!({"header": header("3"), "ID": "*", "TTL": "60"})
    );
    let calls = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"LeaseGrant\",\
        grpc_service=\"etcdserverpb.Lease\",grpc_type=\"unary\"} 1";
    let metrics = member.metrics().await;
    assert!(metrics.iter().any(|line| line == calls), "{metrics:?}");
}

#[tokio::test]
async fn g7_2_a_long_list_is_the_same_as_over_grpc() {
    let member = Member::start().await;
    let value = "v".repeat(700_000);
    for key in ["a", "b", "c"] {
        member.put(key, &value).await;
    }
    let found = post(
        &member,
        "/v3/kv/range",
        r#"{"key":"YQ==","range_end":"eg=="}"#,
    )
    .await;
    let found = answer(&found);
    let expected = member
        .kv()
        .range(range("a", "z"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found["header"], header("4"));
    assert_eq!(found["count"], "3");
    let pair = |kv: &KeyValue| {
        json!({
            "key": b64(&kv.key), "value": b64(&kv.value), "version": "1",
            "create_revision": kv.create_revision.to_string(),
            "mod_revision": kv.mod_revision.to_string(),
        })
    };
    let expected: Vec<_> = expected.kvs.iter().map(pair).collect();
    assert!(found["kvs"] == Value::from(expected));
}

#[tokio::test]
async fn g7_3_refusals() {
    let member = Member::start().await;
    post(&member, "/v3/lease/grant", r#"{"TTL":60,"ID":7}"#).await;
    let lease = post(&member, "/v3/lease/grant", r#"{"TTL":60,"ID":7}"#).await;
    let exists = "etcdserver: lease already exists";
    fails(&lease, 400, Code::FailedPrecondition, exists);
    let lease = post(&member, "/v3/kv/lease/revoke", r#"{"ID":8}"#).await;
    fails(&lease, 404, Code::NotFound, LEASE_NOT_FOUND);
    let future = post(&member, "/v3/kv/compaction", r#"{"revision":9}"#).await;
    fails(&future, 400, Code::OutOfRange, FUTURE);
    let stranger = post(&member, "/v3/cluster/member/promote", r#"{"ID":5}"#).await;
    fails(
        &stranger,
        404,
        Code::NotFound,
        "etcdserver: member not found",
    );
    let value = |length| format!(r#"{{"key":"YQ==","value":"{}"}}"#, b64(vec![0; length]));
    let large = post(&member, "/v3/kv/put", &value(1_600_000)).await;
    fails(&large, 400, Code::InvalidArgument, TOO_LARGE);
    // As gRPC says, because it is gRPC that says it.
    let larger = post(&member, "/v3/kv/put", &value(2_100_000)).await;
    let text = "grpc: received message larger than max (2100008 vs. 2097152)";
    fails(&larger, 429, Code::ResourceExhausted, text);
    // Before there is a message: a value is not held beyond that.
    let blank = format!("{{{}}}", " ".repeat(17 << 20));
    let largest = post(&member, "/v3/kv/put", &blank).await;
    let text = "a JSON value in the request is longer than 16777216 bytes";
    fails(&largest, 429, Code::ResourceExhausted, text);
}

#[tokio::test]
async fn g7_4_the_authorization_header_says_who_calls() {
    let member = Member::start().await;
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"pw"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        assert_eq!(post(&member, path, body).await.status, 200, "{path}");
    }
    let put = r#"{"key":"YQ==","value":"MQ=="}"#;
    let nobody = post(&member, "/v3/kv/put", put).await;
    let text = "etcdserver: user name is empty";
    fails(&nobody, 400, Code::InvalidArgument, text);
    let login = r#"{"name":"root","password":"pw"}"#;
    let login = post(&member, "/v3/auth/authenticate", login).await;
    let login: serde_json::Value = login.json();
    let token = login["token"].as_str().unwrap();
    for header in [token.to_owned(), format!("Bearer {token}")] {
        let known = send(
            &member,
            "POST",
            "/v3/kv/put",
            &[("Authorization", &header)],
            put,
        )
        .await;
        assert_eq!(known.status, 200, "{}", known.text);
    }
    let unknown = send(
        &member,
        "POST",
        "/v3/kv/put",
        &[("Authorization", "x.1")],
        put,
    )
    .await;
    let text = "etcdserver: invalid auth token";
    fails(&unknown, 401, Code::Unauthenticated, text);
    let status = post(&member, "/v3/auth/status", "{}").await;
    let status: serde_json::Value = status.json();
    assert_eq!(
        (&status["enabled"], &status["authRevision"]),
        (&true.into(), &"3".into())
    );
}

#[tokio::test]
async fn g7_3_a_snapshot_is_a_line_for_each_piece() {
    let member = Member::start().await;
    let mut stream = open(&member, "/v3/maintenance/snapshot", &[], "{}").await;
    assert_eq!(stream.status, 200);
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await {
        text += &chunk;
    }
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [first, .., checksum] = &lines[..] else {
        panic!("{text}");
    };
    assert_eq!(first["result"]["version"], "3.7.0");
    assert!(first["result"]["remaining_bytes"].is_string());
    // 32 bytes in base64.
    assert_eq!(checksum["result"]["blob"].as_str().unwrap().len(), 44);
}

#[tokio::test]
async fn g7_origins_and_hosts_are_checked_before() {
    let member = Member::start_with(|config| {
        config.cors = vec!["http://page:1".to_owned()];
        config.host_whitelist = vec!["localhost".to_owned()];
    })
    .await;
    let get = r#"{"key":"YQ=="}"#;
    let ours = [("origin", "http://page:1")];
    let answer = send(&member, "POST", "/v3/kv/range", &ours, get).await;
    let allowed = "access-control-allow-origin";
    assert_eq!(
        (answer.status, answer.header(allowed)),
        (200, Some("http://page:1"))
    );
    // Not forbidden: the page may not read it, that is all.
    let theirs = [("origin", "http://other:1")];
    let answer = send(&member, "POST", "/v3/kv/range", &theirs, get).await;
    assert_eq!((answer.status, answer.header(allowed)), (200, None));
    let answer = send(&member, "OPTIONS", "/v3/kv/range", &ours, "").await;
    assert_eq!((answer.status, &answer.text[..]), (200, ""));
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("POST, GET, OPTIONS, PUT, DELETE")
    );
    let answer = send(&member, "POST", "/v3/kv/range", &[("host", "evil:1")], get).await;
    assert_eq!(answer.status, 421);
    assert!(
        answer.text.contains("etcd --host-whitelist \"evil\""),
        "{answer:?}"
    );
}
