//! Watches over real connections: what arrives, and what a lost connection changes (nothing).

use std::time::Duration;

use ferrite_client::pb::etcdserverpb::WatchResponse;
use ferrite_client::{
    Client, CompactOptions, Config, DeleteOptions, Error, EtcdError, PutOptions, WatchOptions,
    Watcher,
};
use ferrite_fake::Fake;
use tonic::Status;

use crate::client_of;

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let response = client.put(key.to_owned(), value.to_owned(), PutOptions::new());
    let header = response.await.expect("put").header;
    header.expect("a header").revision
}

/// The events of a response in short: `key=value` or `-key`.
fn events(response: &WatchResponse) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    response
        .events
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().expect("a pair");
            match event.r#type {
                0 => format!("{}={}", text(&kv.key), text(&kv.value)),
                _ => format!("-{}", text(&kv.key)),
            }
        })
        .collect()
}

async fn next(watcher: &mut Watcher) -> Vec<String> {
    events(&watcher.next().await.expect("the watch lives"))
}

#[tokio::test]
async fn changes_arrive_in_order() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let all = WatchOptions::new().prefix();
    let mut watcher = client.watch("a/", all).await.expect("accepted");
    put(&client, "a/1", "x").await;
    put(&client, "b", "not ours").await;
    client
        .delete("a/1", DeleteOptions::new())
        .await
        .expect("delete");
    assert_eq!(next(&mut watcher).await, ["a/1=x"]);
    assert_eq!(next(&mut watcher).await, ["-a/1"]);
}

#[tokio::test]
async fn options_shape_what_arrives() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    put(&client, "k", "1").await;
    let options = WatchOptions::new()
        .start_revision(2)
        .prev_kv()
        .created_notify();
    let mut watcher = client.watch("k", options).await.expect("accepted");
    let created = watcher.next().await.expect("created");
    assert!(created.created && created.events.is_empty());
    assert_eq!(next(&mut watcher).await, ["k=1"]);
    put(&client, "k", "2").await;
    let response = watcher.next().await.expect("a change");
    let before = response.events[0].prev_kv.as_ref().expect("asked for");
    assert_eq!(before.value, "1");

    let options = WatchOptions::new().without_puts();
    let mut deletions = client.watch("k", options).await.expect("accepted");
    put(&client, "k", "3").await;
    client
        .delete("k", DeleteOptions::new())
        .await
        .expect("delete");
    assert_eq!(next(&mut deletions).await, ["-k"]);
}

#[tokio::test]
async fn watches_share_one_stream_for_each_wish_for_a_leader() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let handles = [
        client.clone(),
        client.with_require_leader(),
        client.without_require_leader(),
    ];
    let mut watchers = Vec::new();
    for index in 0..6 {
        let client = &handles[index % 3];
        let watcher = client.watch("k", WatchOptions::new()).await;
        watchers.push(watcher.expect("accepted"));
    }
    put(&client, "k", "1").await;
    for watcher in &mut watchers {
        assert_eq!(next(watcher).await, ["k=1"]);
    }
    let seen = fake.take_seen();
    let streams: Vec<_> = seen.iter().filter(|seen| seen.method == "Watch").collect();
    let strict = |metadata: &tonic::metadata::MetadataMap| metadata.get("hasleader").is_some();
    let wishes: Vec<bool> = streams.iter().map(|seen| strict(&seen.metadata)).collect();
    assert_eq!(wishes, [true, true, false]);
}

#[tokio::test]
async fn a_broken_stream_is_not_seen() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let all = WatchOptions::new().prefix();
    let mut quiet = client.watch("q", WatchOptions::new()).await.expect("open");
    let mut watcher = client.watch("k", all).await.expect("accepted");
    let mut expected = Vec::new();
    for round in 0..20 {
        let key = format!("k{round}");
        put(&client, &key, "v").await;
        expected.push(format!("{key}=v"));
        if round % 3 == 0 {
            fake.break_streams(Status::unavailable("gone"));
        }
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(next(&mut watcher).await);
    }
    assert_eq!(seen, expected);
    put(&client, "q", "1").await;
    assert_eq!(next(&mut quiet).await, ["q=1"]);
}

#[tokio::test]
async fn another_member_goes_on_when_one_is_lost() {
    let first = Fake::start(1);
    let second = first.join(2);
    let client = client_of(&[&first, &second]).await;
    let mut watchers = Vec::new();
    for _ in 0..2 {
        let watcher = client.watch("k", WatchOptions::new()).await;
        watchers.push(watcher.expect("accepted"));
    }
    put(&client, "k", "1").await;
    drop(first);
    for watcher in &mut watchers {
        assert_eq!(next(watcher).await, ["k=1"]);
    }
    put(&client_of(&[&second]).await, "k", "2").await;
    for watcher in &mut watchers {
        assert_eq!(next(watcher).await, ["k=2"]);
    }
}

#[tokio::test]
async fn a_member_that_loses_its_leader_is_left_for_another_one() {
    let first = Fake::start(1);
    let second = first.join(2);
    let client = client_of(&[&first]).await;
    let mut watcher = client.watch("k", WatchOptions::new()).await.expect("open");
    client.set_endpoints([second.endpoint()]).expect("valid");
    first.break_streams(EtcdError::NoLeader.into());
    put(&client, "k", "1").await;
    assert_eq!(next(&mut watcher).await, ["k=1"]);
    second.wait_for("Watch", 1);
}

#[tokio::test]
async fn fragments_come_as_one_response() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    for key in ["k1", "k2", "k3"] {
        put(&client, key, "v").await;
    }
    let options = WatchOptions::new().prefix().fragment();
    let mut watcher = client.watch("k", options).await.expect("accepted");
    client
        .delete("k", DeleteOptions::new().prefix())
        .await
        .expect("delete");
    assert_eq!(next(&mut watcher).await, ["-k1", "-k2", "-k3"]);
}

#[tokio::test]
async fn a_compacted_start_says_from_where_on_there_is_history() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let mut last = 0;
    for value in ["1", "2", "3"] {
        last = put(&client, "k", value).await;
    }
    client
        .compact(last, CompactOptions::new())
        .await
        .expect("compact");
    let options = WatchOptions::new().start_revision(2);
    let mut watcher = client.watch("k", options).await.expect("accepted");
    for _ in 0..2 {
        let error = watcher.next().await.expect_err("too late");
        assert_eq!(error.etcd(), Some(EtcdError::Compacted));
    }
    let by = watcher.ended_by().expect("an answer");
    assert_eq!(by.compact_revision, last);
    let options = WatchOptions::new().start_revision(last);
    let mut watcher = client.watch("k", options).await.expect("accepted");
    assert_eq!(next(&mut watcher).await, ["k=3"]);
}

#[tokio::test]
async fn refusals_and_final_errors_end_the_watch() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let empty = WatchOptions::new().range("a");
    let error = client.watch("b", empty).await.expect_err("refused");
    assert_eq!(error.to_string(), "mvcc: watcher range is empty");

    let strict = client.with_require_leader();
    let mut watcher = strict.watch("k", WatchOptions::new()).await.expect("open");
    fake.break_streams(EtcdError::NoLeader.into());
    let error = watcher.next().await.expect_err("no leader");
    assert_eq!(error.etcd(), Some(EtcdError::NoLeader));

    fake.fail_with([Status::unimplemented("not built")]);
    let error = client.watch("k", WatchOptions::new()).await;
    let error = error.expect_err("not there");
    assert_eq!(error.code(), Some(tonic::Code::Unimplemented));
    // The next one starts anew.
    client.watch("k", WatchOptions::new()).await.expect("open");
}

#[tokio::test]
async fn progress_comes_on_demand_after_all_changes() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    client.request_watch_progress();
    let mut watcher = client.watch("k", WatchOptions::new()).await.expect("open");
    put(&client, "k", "1").await;
    let last = put(&client, "other", "1").await;
    client.request_watch_progress();
    assert_eq!(next(&mut watcher).await, ["k=1"]);
    let progress = watcher.next().await.expect("progress");
    assert!(progress.events.is_empty());
    assert_eq!(progress.header.expect("a header").revision, last);
}

#[tokio::test]
async fn waiting_for_a_server_is_bounded_by_the_time_limit_of_the_client() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let client = Client::connect(Config::new([nobody])).await.expect("valid");
    let client = client.with_timeout(Duration::from_millis(50));
    let error = client.watch("k", WatchOptions::new()).await;
    let error = error.expect_err("nobody there");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}

#[tokio::test]
async fn readers_may_move_between_tasks() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let mut watcher = client.watch("k", WatchOptions::new()).await.expect("open");
    let reader = tokio::spawn(async move { next(&mut watcher).await });
    put(&client, "k", "1").await;
    assert_eq!(reader.await.expect("no panic"), ["k=1"]);
}
