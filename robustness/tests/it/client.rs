//! What the client library builds upon the calls, against a whole server.

use std::path::Path;

use ferrite_client::concurrency::SessionOptions;
use ferrite_client::{
    Cache, CacheOptions, Client, DeleteOptions, GetOptions, Leasing, Mirror, PutOptions, Txn,
    TxnOp, WatchOptions,
};
use ferrite_server::Server;

use crate::serving;

/// More than a page of a client that reads in pages.
const PAIRS: usize = 2500;

async fn start(dir: &Path) -> (Server, Client) {
    let (server, client, _) = serving::start(dir).await;
    (server, client)
}

async fn filled(client: &Client) {
    for chunk in (0..PAIRS).collect::<Vec<_>>().chunks(100) {
        let puts = chunk
            .iter()
            .map(|index| TxnOp::put(format!("p/{index:05}"), "v", PutOptions::new()));
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
}

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned(), value.to_owned());
    let written = client.put(key, value, PutOptions::new()).await.unwrap();
    written.header.unwrap().revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_and_streams_are_what_a_read_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    filled(&client).await;
    put(&client, "q", "not ours").await;
    let read = client.get("p/", GetOptions::new().prefix()).await.unwrap();
    assert_eq!(read.kvs.len(), PAIRS);

    let mut mirror = Mirror::new(&client, "p/");
    let mut copied = Vec::new();
    while let Some(pairs) = mirror.next_base().await.unwrap() {
        put(&client, "p/00000", "changed").await;
        copied.extend(pairs);
    }
    assert!(copied == read.kvs);
    let mut updates = mirror.updates().await.unwrap();
    let update = updates.next().await.unwrap();
    assert_eq!(update.events[0].kv.as_ref().unwrap().value, "changed");

    let inside = client.with_namespace("p/").with_ordering();
    let whole = GetOptions::new().prefix().serializable();
    let stream = inside.range_stream("", whole).await.unwrap();
    let streamed = stream.collect().await.unwrap();
    assert_eq!(streamed.count, PAIRS as i64);
    assert_eq!(streamed.kvs[1].key, "00001");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_shows_what_was_written_just_now() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    filled(&client).await;
    let cache = Cache::start(&client, "p/", CacheOptions::new());
    // A watch from before the first list begins after it, and so perhaps after the first writes.
    cache.ready().await;
    let mut watcher = cache
        .watch("p/00007", WatchOptions::new().prev_kv())
        .unwrap();
    for round in 0..20 {
        put(&client, "p/00007", &round.to_string()).await;
        // Known by nothing but the progress of the watch.
        put(&client, "q", "not ours").await;
        let here = cache.get("p/00007", GetOptions::new()).await.unwrap();
        assert_eq!(here.kvs[0].value, round.to_string());
    }
    for round in 0..20 {
        let change = watcher.next().await.unwrap();
        assert_eq!(
            change.events[0].kv.as_ref().unwrap().value,
            round.to_string()
        );
    }
    let whole = GetOptions::new().prefix();
    let (here, there) = (
        cache.get("p/", whole.clone()).await.unwrap(),
        client.get("p/", whole).await.unwrap(),
    );
    assert!(here.kvs == there.kvs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_keys_see_every_write_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    let session = SessionOptions::new().ttl(10);
    let mine = Leasing::start(&client, "owners/", session);
    let theirs = Leasing::start(&client, "owners/", session);
    mine.ready().await;
    theirs.ready().await;
    for round in 0..20 {
        let (writer, reader) = if round % 3 == 0 {
            (&theirs, &mine)
        } else {
            (&mine, &theirs)
        };
        for leasing in [reader, writer, reader] {
            leasing.get("k", GetOptions::new()).await.unwrap();
        }
        let value = round.to_string();
        writer
            .put("k", value.clone(), PutOptions::new())
            .await
            .unwrap();
        for leasing in [reader, writer] {
            let found = leasing.get("k", GetOptions::new()).await.unwrap();
            assert_eq!(found.kvs[0].value, value);
        }
    }
    let range = DeleteOptions::new().range("z");
    let deleted = mine.delete("a", range).await.unwrap();
    assert_eq!(deleted.deleted, 1);
    let found = theirs.get("k", GetOptions::new()).await.unwrap();
    assert!(found.kvs.is_empty());
    mine.close().await.unwrap();
    theirs.close().await.unwrap();
    let left = client
        .get("owners/", GetOptions::new().prefix())
        .await
        .unwrap();
    assert_eq!(left.kvs, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_saved_with_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    filled(&client).await;
    let path = dir.path().join("backup.db");
    let snapshot = client.maintenance().snapshot().await.unwrap();
    let bytes = snapshot.save(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_are_synced_serve() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    // Whatever the member advertises: who was configured stays in reach.
    client.sync().await.unwrap();
    put(&client, "k", "v").await;
}
