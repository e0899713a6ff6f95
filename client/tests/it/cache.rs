//! A prefix in memory: what reads and watches show, and what they cost the server.

use std::time::Duration;

use ferrite_client::pb::etcdserverpb::WatchResponse;
use ferrite_client::{
    Cache, CacheError, CacheOptions, Client, CompactOptions, DeleteOptions, Error, EtcdError,
    GetOptions, PutOptions, SortOrder, SortTarget, WatchOptions,
};
use ferrite_fake::Fake;
use tonic::Status;

use crate::client_of;

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned(), value.to_owned());
    let written = client.put(key, value, PutOptions::new()).await;
    written.expect("put").header.expect("a header").revision
}

async fn value(cache: &Cache, key: &'static str, options: GetOptions) -> Option<String> {
    let found = cache.get(key, options).await.expect("get");
    let kv = found.kvs.first()?;
    Some(String::from_utf8_lossy(&kv.value).into_owned())
}

fn keys(response: &WatchResponse) -> Vec<String> {
    let key = |event: &ferrite_client::pb::mvccpb::Event| {
        String::from_utf8_lossy(&event.kv.as_ref().expect("a pair").key).into_owned()
    };
    response.events.iter().map(key).collect()
}

async fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> CacheError {
    match result.expect_err("refused") {
        Error::Cache(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn reads_are_as_new_as_the_server_and_cost_it_a_count() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    put(&client, "c/a", "0").await;
    let cache = Cache::start(&client, "c/", CacheOptions::new());
    cache.ready().await;
    for round in 1..20 {
        put(&client, "c/a", &round.to_string()).await;
        // Not ours: only progress tells that there is nothing new.
        put(&client, "other", "x").await;
        let found = value(&cache, "c/a", GetOptions::new()).await;
        assert_eq!(found, Some(round.to_string()));
    }
    fake.take_seen();
    for _ in 0..10 {
        let options = GetOptions::new().serializable();
        assert_eq!(value(&cache, "c/a", options).await.as_deref(), Some("19"));
    }
    assert!(fake.is_untouched());
    assert_eq!(value(&cache, "c/none", GetOptions::new()).await, None);
    assert_eq!(fake.take_seen()[0].method, "Range");
}

#[tokio::test]
async fn a_read_of_the_past_goes_as_far_as_the_history() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let options = CacheOptions::new().history(3);
    let cache = Cache::start(&client, "c/", options);
    cache.ready().await;
    let mut revisions = Vec::new();
    for round in 0..6 {
        revisions.push(put(&client, "c/a", &round.to_string()).await);
    }
    let all = client.delete("c/a", DeleteOptions::new()).await;
    let deleted = all.expect("delete").header.expect("a header").revision;
    cache.wait_for_revision(deleted).await.expect("in time");
    let at = |revision| GetOptions::new().revision(revision);
    assert_eq!(value(&cache, "c/a", at(deleted)).await, None);
    assert_eq!(
        value(&cache, "c/a", at(revisions[5])).await.as_deref(),
        Some("5")
    );
    assert_eq!(
        value(&cache, "c/a", at(revisions[3])).await.as_deref(),
        Some("3")
    );
    let error = cache.get("c/a", at(revisions[2])).await;
    assert_eq!(
        error.expect_err("too old").etcd(),
        Some(EtcdError::Compacted)
    );
}

#[tokio::test]
async fn ranges_have_limits_counts_and_filters() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let mut revisions = Vec::new();
    for key in ["c/1", "c/2", "c/3", "d"] {
        revisions.push(put(&client, key, "v").await);
    }
    let cache = Cache::start(&client, "c/", CacheOptions::new());
    for options in [
        GetOptions::new().prefix(),
        GetOptions::new().prefix().limit(2),
        GetOptions::new().prefix().count_only(),
        GetOptions::new().prefix().keys_only(),
        GetOptions::new().prefix().min_mod_revision(revisions[1]),
        GetOptions::new().prefix().max_create_revision(revisions[1]),
        GetOptions::new().range("c/3"),
    ] {
        let here = cache.get("c/", options.clone()).await.expect("get");
        let there = client.get("c/", options).await.expect("get");
        assert_eq!(here.kvs, there.kvs);
        assert_eq!(here.more, there.more);
    }
    let sorted = GetOptions::new().sort(SortTarget::Mod, SortOrder::Descend);
    let error = refused(cache.get("c/1", sorted).await).await;
    assert_eq!(error, CacheError::Unsupported);
    for (key, options) in [
        ("d", GetOptions::new()),
        ("c", GetOptions::new()),
        ("", GetOptions::new().prefix()),
        ("c/1", GetOptions::new().from_key()),
        ("c/1", GetOptions::new().range("d")),
        ("c/2", GetOptions::new().range("c/1")),
    ] {
        let error = refused(cache.get(key, options).await).await;
        assert_eq!(error, CacheError::OutOfRange, "{key}");
    }
}

#[tokio::test]
async fn many_watches_are_one_on_the_server() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    put(&client, "c/a", "0").await;
    let cache = Cache::start(&client, "c/", CacheOptions::new());
    // Before there is anything to see.
    let mut early = cache
        .watch("c/", WatchOptions::new().prefix())
        .expect("open");
    cache.ready().await;
    let options = WatchOptions::new().prev_kv().without_deletes();
    let mut narrow = cache.watch("c/a", options).expect("open");
    let first = put(&client, "c/a", "1").await;
    client
        .delete("c/a", DeleteOptions::new())
        .await
        .expect("delete");
    put(&client, "c/b", "1").await;
    let last = put(&client, "c/a", "2").await;
    for expected in [["c/a"], ["c/a"], ["c/b"], ["c/a"]] {
        assert_eq!(keys(&early.next().await.expect("lives")), expected);
    }
    let response = narrow.next().await.expect("lives");
    let before = response.events[0].prev_kv.as_ref().expect("asked for");
    assert_eq!(before.value, "0");
    assert_eq!(response.header.expect("a header").revision, first);
    let response = narrow.next().await.expect("lives");
    assert_eq!(response.events[0].prev_kv, None);
    assert_eq!(response.header.expect("a header").revision, last);
    let options = WatchOptions::new().prefix().start_revision(last);
    let mut replayed = cache.watch("c/", options).expect("open");
    assert_eq!(keys(&replayed.next().await.expect("lives")), ["c/a"]);
    let streams = fake.take_seen();
    let streams = streams.iter().filter(|seen| seen.method == "Watch");
    assert_eq!(streams.count(), 1);

    let notes = cache.watch("c/a", WatchOptions::new().created_notify());
    assert_eq!(refused(notes).await, CacheError::Unsupported);
    let outside = cache.watch("d", WatchOptions::new());
    assert_eq!(refused(outside).await, CacheError::OutOfRange);
}

#[tokio::test]
async fn failures_and_compactions_are_survived() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    put(&client, "c/a", "0").await;
    fake.fail_with([Status::internal("?")]);
    let pause = Duration::from_millis(1);
    let options = CacheOptions::new().backoff(pause, pause);
    let cache = Cache::start(&client, "c/", options);
    cache.ready().await;
    assert!(cache.last_error().is_some());
    let mut watcher = cache.watch("c/a", WatchOptions::new()).expect("open");
    put(&client, "c/a", "1").await;
    fake.break_streams(Status::unavailable("gone"));
    let last = put(&client, "c/a", "2").await;
    for _ in 0..2 {
        assert_eq!(keys(&watcher.next().await.expect("lives")), ["c/a"]);
    }
    // A watch that cannot go on: everything is listed again.
    let compacted = client.compact(last, CompactOptions::new()).await;
    compacted.expect("compact");
    fake.break_streams(EtcdError::Compacted.into());
    let last = put(&client, "c/a", "3").await;
    cache.wait_for_revision(last).await.expect("in time");
    assert_eq!(
        value(&cache, "c/a", GetOptions::new()).await.as_deref(),
        Some("3")
    );
}

#[tokio::test]
async fn waiting_is_bounded() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let options = CacheOptions::new().wait_timeout(Duration::from_millis(50));
    let cache = Cache::start(&client, "c/", options);
    cache.ready().await;
    let error = refused(cache.wait_for_revision(1000).await).await;
    assert_eq!(error, CacheError::TimedOut);
    assert!(cache.is_ready() && cache.revision() < 1000);
}
