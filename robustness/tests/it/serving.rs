//! A whole server in this process, over real sockets, through the client library.

use std::path::Path;

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::response_op::Response;
use ferrite_client::{
    Client, CompactOptions, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp,
};
use ferrite_server::Server;
use ferrite_server::config::{Config, Url};

/// A server, a client of it, and its endpoint.
pub(crate) async fn start(dir: &Path) -> (Server, Client, String) {
    let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
    let config = Config {
        data_dir: dir.join("default.etcd"),
        listen_client_urls: any.clone(),
        listen_peer_urls: any,
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let endpoint = server.client_addresses()[0].to_string();
    let client = Client::connect(ferrite_client::Config::new([endpoint.clone()]))
        .await
        .unwrap();
    (server, client, endpoint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_value_calls_work_end_to_end_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client, endpoint) = start(dir.path()).await;

    let put = client.put("a", "1", PutOptions::new()).await.unwrap();
    let header = put.header.unwrap();
    assert_eq!(header.revision, 2);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
    let put = client
        .put("a", "2", PutOptions::new().prev_kv())
        .await
        .unwrap();
    assert_eq!(put.prev_kv.unwrap().value, "1");

    let txn = Txn::new()
        .when([Compare::mod_revision("a", CompareOp::Equal, 3)])
        .and_then([
            TxnOp::put("b", "3", PutOptions::new()),
            TxnOp::get("a", GetOptions::new()),
            TxnOp::delete("a", DeleteOptions::new().prev_kv()),
        ])
        .or_else([TxnOp::get("a", GetOptions::new())]);
    let response = client.txn(txn).await.unwrap();
    assert!(response.succeeded);
    assert_eq!(response.header.unwrap().revision, 4);
    match response.responses[1].response.as_ref().unwrap() {
        Response::ResponseRange(range) => assert_eq!(range.kvs[0].value, "2"),
        other => panic!("{other:?} answers a range"),
    }
    match response.responses[2].response.as_ref().unwrap() {
        Response::ResponseDeleteRange(delete) => assert_eq!(delete.prev_kvs[0].value, "2"),
        other => panic!("{other:?} answers a delete"),
    }

    let old = client
        .get("a", GetOptions::new().revision(2))
        .await
        .unwrap();
    assert_eq!((old.kvs[0].value.clone(), old.count), (Bytes::from("1"), 1));
    client
        .compact(3, CompactOptions::new().physical())
        .await
        .unwrap();
    let error = client
        .get("a", GetOptions::new().revision(2))
        .await
        .unwrap_err();
    assert_eq!(error.etcd(), Some(ApiError::Compacted));
    assert_eq!(
        client
            .get("a", GetOptions::new().revision(3))
            .await
            .unwrap()
            .count,
        1
    );
    let error = client
        .get("a", GetOptions::new().revision(99))
        .await
        .unwrap_err();
    assert_eq!(error.etcd(), Some(ApiError::FutureRev));
    let error = client.compact(3, CompactOptions::new()).await.unwrap_err();
    assert_eq!(error.etcd(), Some(ApiError::Compacted));

    let status = client.maintenance().status(&endpoint).await.unwrap();
    assert_eq!(
        (status.version.as_str(), status.leader),
        ("3.7.1", header.member_id)
    );
    assert!(status.db_size > 0 && status.db_size >= status.db_size_in_use);
    let members = client.cluster().member_list().await.unwrap().members;
    assert_eq!((members.len(), members[0].name.as_str()), (1, "default"));

    server.stop().await.unwrap();
    let (server, client, _) = start(dir.path()).await;
    let all = client.get("", GetOptions::new().prefix()).await.unwrap();
    assert_eq!(
        all.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(),
        [b"b"]
    );
    assert_eq!(all.header.unwrap().revision, 4);
    let error = client
        .get("a", GetOptions::new().revision(2))
        .await
        .unwrap_err();
    assert_eq!(
        error.etcd(),
        Some(ApiError::Compacted),
        "a compaction survives a restart"
    );
    server.stop().await.unwrap();
}

/// Pages at a pinned revision while writes go on: every page has the exact count, and together they
/// are the key space of that revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_pinned_revision_are_exact_under_writes() {
    const KEYS: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let (server, client, _) = start(dir.path()).await;
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(100) {
        let puts = chunk.iter().map(|n| {
            TxnOp::put(
                format!("/registry/{n:05}"),
                format!("{n}"),
                PutOptions::new(),
            )
        });
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let pinned = client
        .get("/registry/", GetOptions::new().prefix().count_only())
        .await
        .unwrap();
    let revision = pinned.header.unwrap().revision;

    let (mut from, mut seen) = (Bytes::from("/registry/"), 0);
    loop {
        // Deletes what was listed, overwrites what comes next, adds new keys.
        client
            .put(
                format!("/registry/{:05}", seen + 3),
                "new",
                PutOptions::new(),
            )
            .await
            .unwrap();
        client
            .put(format!("/registry/x{seen}"), "new", PutOptions::new())
            .await
            .unwrap();
        client
            .delete(format!("/registry/{seen:05}"), DeleteOptions::new())
            .await
            .unwrap();
        let options = GetOptions::new()
            .range("/registry0")
            .limit(130)
            .revision(revision);
        let page = client.get(from.clone(), options).await.unwrap();
        assert_eq!(page.count as usize, KEYS - seen);
        for kv in &page.kvs {
            assert_eq!(kv.key, format!("/registry/{seen:05}"));
            assert_eq!(kv.value, format!("{seen}"));
            seen += 1;
        }
        if !page.more {
            break;
        }
        from = Bytes::from([&page.kvs.last().unwrap().key[..], b"\0"].concat());
    }
    assert_eq!(seen, KEYS);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_refuses_puts_raises_the_alarm_and_lets_deletes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
    let config = Config {
        data_dir: dir.path().join("default.etcd"),
        listen_client_urls: any.clone(),
        listen_peer_urls: any,
        // Less than an empty store takes.
        quota_backend_bytes: 1_000,
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let endpoint = server.client_addresses()[0].to_string();
    let client = Client::connect(ferrite_client::Config::new([endpoint]))
        .await
        .unwrap();
    let error = client.put("a", "1", PutOptions::new()).await.unwrap_err();
    assert_eq!(error.etcd(), Some(ApiError::NoSpace));
    let puts = Txn::new().or_else([TxnOp::put("a", "1", PutOptions::new())]);
    let error = client.txn(puts).await.unwrap_err();
    assert_eq!(error.etcd(), Some(ApiError::NoSpace));
    assert_eq!(
        client
            .delete("a", DeleteOptions::new())
            .await
            .unwrap()
            .deleted,
        0
    );
    assert_eq!(client.get("a", GetOptions::new()).await.unwrap().count, 0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_live_in_one_process() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, client_one, _) = start(dirs[0].path()).await;
    let (two, client_two, _) = start(dirs[1].path()).await;
    client_one.put("k", "one", PutOptions::new()).await.unwrap();
    client_two.put("k", "two", PutOptions::new()).await.unwrap();
    assert_eq!(
        client_one.get("k", GetOptions::new()).await.unwrap().kvs[0].value,
        "one"
    );
    assert_eq!(
        client_two.get("k", GetOptions::new()).await.unwrap().kvs[0].value,
        "two"
    );
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}
