//! What the peer port tells whoever asks.

use std::time::Duration;

use ferrite_api::types::{ClusterId, MemberId};
use ferrite_storage::mvcc::hash::KeyValueHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{
    CallError, Directory, NoHash, Options, RemoteHash, Via, fetch_downgrade_enabled, fetch_members,
    fetch_version,
};
use super::raw::send;
use super::{Book, CLUSTER, Node, pair};
use crate::config::Url;

const PATIENCE: Duration = Duration::from_secs(60);

async fn get(node: &Node, path: &str) -> super::raw::Answer {
    send(node, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
}

#[tokio::test]
async fn members_versions_and_downgrade() {
    let a = Node::start(0xa).await;
    let answer = get(&a, "/members").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-etcd-cluster-id"), "c1");
    assert_eq!(
        answer.body,
        concat!(
            r#"[{"id":1,"peerURLs":["http://1:2380"]},"#,
            r#"{"id":2,"peerURLs":["http://2:2380"],"isLearner":true,"name":"two","clientURLs":["http://2:2379"]},"#,
            r#"{"id":18446744073709551615,"peerURLs":["http://18446744073709551615:2380"],"#,
            r#""name":"\u003cb\u003e \u0026 \"c\"","clientURLs":["http://18446744073709551615:2379"]}]"#,
            "\n"
        )
    );
    let answer = get(&a, "/version").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.body,
        r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"3.7.0"}"#
    );
    let answer = get(&a, "/downgrade/enabled").await;
    assert_eq!((answer.status, &answer.body[..]), (200, "true"));
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(answer.header("x-etcd-cluster-id"), "c1");
    let answer = get(&a, "/raft/probing").await;
    let body = answer.body.strip_prefix(r#"{"OK":true,"Now":"20"#).unwrap();
    assert!(body.ends_with("Z\"}\n"), "{body}");
}

#[tokio::test]
async fn nothing_else_is_there() {
    let a = Node::start(0xa).await;
    for path in ["/", "/health", "/metrics", "/v3/kv/put", "/members/"] {
        let answer = get(&a, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.body, "404 page not found\n");
    }
    for path in [
        "/members",
        "/members/hashkv",
        "/version",
        "/downgrade/enabled",
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = send(&a, &request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
        assert_eq!(answer.body, "Method Not Allowed\n");
    }
    let request = "POST /raft/probing HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(send(&a, request).await.status, 200);
}

async fn hash_page(node: &Node, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "GET /members/hashkv HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    let answer = send(node, &request).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn hashes_as_etcd_writes_them() {
    let a = Node::start(0xa).await;
    let own = "x-etcd-cluster-id: c1\r\n";
    let at_6 =
        r#"{"header":{"revision":7},"hash":4294967280,"compact_revision":5,"hash_revision":6}"#;
    let at_5 = r#"{"header":{"revision":7},"hash":4294967280,"hash_revision":5}"#;
    let compacted = "mvcc: required revision has been compacted\n";
    for (headers, body, status, answer) in [
        (own, r#"{"revision":6}"#, 200, at_6),
        ("", r#"{"revision":5}"#, 200, at_5),
        (own, "{}", 400, compacted),
        (own, r#"{"revision":7}"#, 400, "row 7 is damaged\n"),
        (own, "6", 400, "error unmarshalling request\n"),
        (
            "x-etcd-cluster-id: c2\r\n",
            r#"{"revision":6}"#,
            412,
            "cluster ID mismatch\n",
        ),
    ] {
        let got = hash_page(&a, headers, body).await;
        assert_eq!(got, (status, answer.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn members_ask_each_other_for_hashes() {
    let a = Node::start(0xa).await;
    let b = Node::start(0xb).await;
    let other = Node::start_with(Options::new(ClusterId::new(1), MemberId::new(0xb))).await;
    let ask = async |urls: &[Url], revision| b.peers.fetch_hash(urls, revision, PATIENCE).await;
    // Nobody listens at the first.
    let urls = [url("http://127.0.0.1:1"), url(&a.url)];
    let answer = ask(&urls, 6).await.unwrap();
    let hash = KeyValueHash {
        hash: 0xffff_fff0,
        compact_revision: 5,
        revision: 6,
    };
    assert_eq!(answer, RemoteHash { hash, revision: 7 });
    let failures = [
        ask(&urls, 4).await,
        ask(&urls, 8).await,
        ask(&urls, 7).await,
        other.peers.fetch_hash(&urls, 6, PATIENCE).await,
        ask(&urls[..1], 6).await,
        ask(&[], 6).await,
    ];
    assert!(
        matches!(
            failures,
            [
                Err(NoHash::Compacted),
                Err(NoHash::Future),
                Err(NoHash::Call(CallError::Refused { .. })),
                Err(NoHash::OtherCluster),
                Err(NoHash::Call(CallError::Connect(_))),
                Err(NoHash::NoUrl)
            ]
        ),
        "{failures:?}"
    );
}

#[tokio::test]
async fn connections_come_from_the_address_that_is_given() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = url(&format!("http://{}", listener.local_addr().unwrap()));
    let local = "127.0.0.2".parse().unwrap();
    let options = |local| Options {
        via: Via::new(local, ferrite_tls::Info::default()).unwrap(),
        ..Options::new(CLUSTER, MemberId::new(0xa))
    };
    let from = Node::start_with(options(Some(local))).await;
    let urls = [target.clone()];
    let asking = from.peers.fetch_hash(&urls, 1, PATIENCE);
    let accepted = async {
        let (_hangs_up, caller) = listener.accept().await.unwrap();
        caller.ip()
    };
    let (answer, caller) = tokio::join!(asking, accepted);
    assert!(answer.is_err());
    assert_eq!(caller, local);
    // An address of the other family reaches nobody here.
    let six = Node::start_with(options(Some("::1".parse().unwrap()))).await;
    let answer = six.peers.fetch_hash(&urls, 1, PATIENCE).await;
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("can be reached from ::1"), "{error}");
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[tokio::test]
async fn who_is_no_member_yet_can_ask() {
    let (a, b) = pair().await;
    soon_stop(&a).await;
    let urls = [url(&a.url), url(&b.url)];
    let cluster = fetch_members(&Via::default(), &urls, PATIENCE)
        .await
        .unwrap();
    let mut members = Book.members();
    members.sort_unstable_by_key(|member| member.id);
    assert_eq!(cluster.cluster_id, CLUSTER);
    assert_eq!(cluster.members, members);
    let versions = fetch_version(&Via::default(), &urls, PATIENCE)
        .await
        .unwrap();
    assert_eq!(versions.server, "3.7.1");
    assert_eq!(versions.cluster, "not_decided");
    let downgrading = fetch_downgrade_enabled(&Via::default(), &urls, PATIENCE).await;
    assert!(downgrading.unwrap());

    soon_stop(&b).await;
    let nobody = fetch_members(&Via::default(), &urls, PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(nobody.0.len(), 2);
    let text = nobody.to_string();
    assert!(
        text.contains(&a.url) && text.contains("cannot connect"),
        "{text}"
    );
}

async fn soon_stop(node: &Node) {
    super::soon(node.peers.shutdown(Duration::ZERO)).await;
}

/// Asks for the members, and is given this.
async fn answered_by(answer: String) -> CallError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1000];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(answer.as_bytes()).await;
    });
    let mut error = fetch_members(&Via::default(), &[url], PATIENCE)
        .await
        .unwrap_err();
    error.0.pop().unwrap().1
}

#[tokio::test]
async fn answers_that_cannot_be_used() {
    let page = |headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{body}")
    };
    let id = "x-etcd-cluster-id: c1\r\n";
    let error = answered_by(page("", "[]")).await;
    assert!(matches!(error, CallError::Nonsense(_)), "{error}");
    let error = answered_by(page(id, "{}")).await;
    assert!(matches!(error, CallError::Nonsense(_)), "{error}");
    let error = answered_by(page(id, &" ".repeat(2 << 20))).await;
    assert!(matches!(error, CallError::TooLong(_)), "{error}");
    let error = answered_by("what?\r\n\r\n".to_owned()).await;
    assert!(matches!(error, CallError::Http(_)), "{error}");
    let refused = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nlater";
    let error = answered_by(refused.to_owned()).await;
    assert_eq!(error.to_string(), "503 Service Unavailable: later");
}
