//! Keys that are owned and read from memory, by several clients that get in each other's way.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrite_client::concurrency::SessionOptions;
use ferrite_client::{
    Client, Compare, DeleteOptions, GetOptions, LeaseId, Leasing, PutOptions, Txn, TxnOp,
};
use ferrite_fake::Fake;

use crate::client_of;

const OWNERS: &str = "owners/";

async fn leasing_of(client: &Client) -> Leasing {
    let leasing = Leasing::start(client, OWNERS, SessionOptions::new());
    leasing.ready().await;
    leasing
}

async fn read(leasing: &Leasing, key: &str) -> Option<String> {
    let found = leasing.get(key.to_owned(), GetOptions::new()).await;
    let kv = found.expect("get").kvs.into_iter().next()?;
    Some(String::from_utf8_lossy(&kv.value).into_owned())
}

async fn write(leasing: &Leasing, key: &str, value: &str) {
    let (key, value) = (key.to_owned(), value.to_owned());
    let written = leasing.put(key, value, PutOptions::new()).await;
    written.expect("put");
}

/// Reads until an answer comes from memory: there is a lease that was renewed, and the key is ours.
async fn own(fake: &Fake, leasing: &Leasing, key: &str) {
    loop {
        fake.take_seen();
        read(leasing, key).await;
        let seen = fake.take_seen();
        if !seen
            .iter()
            .any(|seen| matches!(seen.method, "Txn" | "Range"))
        {
            return;
        }
    }
}

/// The keys of owners.
async fn owners(client: &Client) -> Vec<String> {
    let found = client.get(OWNERS, GetOptions::new().prefix()).await;
    let kvs = found.expect("get").kvs.into_iter();
    kvs.map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

#[tokio::test]
async fn what_is_owned_is_read_from_memory_and_written_at_once() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let leasing = leasing_of(&client).await;
    for key in ["k", "none"] {
        own(&fake, &leasing, key).await;
    }
    assert_eq!(owners(&client).await, ["owners/k", "owners/none"]);
    assert_eq!(read(&leasing, "none").await, None);
    fake.take_seen();
    for round in 0..5 {
        write(&leasing, "k", &round.to_string()).await;
        assert_eq!(read(&leasing, "k").await, Some(round.to_string()));
    }
    let methods = fake.take_seen();
    let calls = methods
        .iter()
        .filter(|seen| seen.method != "LeaseKeepAlive");
    assert!(calls.clone().all(|seen| seen.method == "Txn"));
    assert_eq!(calls.count(), 5);

    let here = leasing.get("k", GetOptions::new()).await.expect("get");
    let there = client.get("k", GetOptions::new()).await.expect("get");
    assert_eq!((here.kvs, here.count), (there.kvs, there.count));
    let count = GetOptions::new().count_only();
    let counted = leasing.get("k", count).await.expect("get");
    assert_eq!((counted.kvs.len(), counted.count), (0, 1));
    leasing
        .delete("k", DeleteOptions::new())
        .await
        .expect("delete");
    assert_eq!(read(&leasing, "k").await, None);
}

#[tokio::test]
async fn a_writer_makes_the_owner_give_up() {
    let fake = Fake::start(1);
    let (mine, theirs) = (client_of(&[&fake]).await, client_of(&[&fake]).await);
    let (mine, theirs) = (leasing_of(&mine).await, leasing_of(&theirs).await);
    own(&fake, &mine, "k").await;
    write(&theirs, "k", "theirs").await;
    assert_eq!(read(&mine, "k").await.as_deref(), Some("theirs"));
    own(&fake, &theirs, "k").await;
    write(&mine, "k", "mine").await;
    assert_eq!(read(&theirs, "k").await.as_deref(), Some("mine"));
    own(&fake, &theirs, "other").await;
    mine.delete("other", DeleteOptions::new())
        .await
        .expect("delete");
    let range = Txn::new().when([Compare::key_exists("k")]).and_then([
        TxnOp::put("other", "1", PutOptions::new()),
        TxnOp::delete("k", DeleteOptions::new()),
    ]);
    assert!(theirs.txn(range).await.expect("txn").succeeded);
    assert_eq!(read(&mine, "k").await, None);
    assert_eq!(read(&mine, "other").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn ranges_are_deleted_whoever_owns_what() {
    let fake = Fake::start(1);
    let mine = leasing_of(&client_of(&[&fake]).await).await;
    let theirs = leasing_of(&client_of(&[&fake]).await).await;
    for key in ["a", "b", "c"] {
        write(&mine, key, "1").await;
    }
    own(&fake, &mine, "a").await;
    own(&fake, &theirs, "b").await;
    own(&fake, &theirs, "c").await;
    let deleted = mine.delete("a", DeleteOptions::new().range("c")).await;
    assert_eq!(deleted.expect("delete").deleted, 2);
    for leasing in [&mine, &theirs] {
        assert_eq!(read(leasing, "a").await, None);
        assert_eq!(read(leasing, "b").await, None);
        assert_eq!(read(leasing, "c").await.as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn keys_with_a_lease_are_not_owned() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let leasing = leasing_of(&client).await;
    let lease = LeaseId::new(client.leases().grant(60).await.expect("granted").id);
    own(&fake, &leasing, "k").await;
    let with_lease = PutOptions::new().lease(lease);
    leasing.put("k", "v", with_lease).await.expect("put");
    assert_eq!(read(&leasing, "k").await.as_deref(), Some("v"));
    fake.expire(lease.get());
    assert_eq!(read(&leasing, "k").await, None);
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_its_keys_are_forgotten() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    // The loss is noticed with the next renewal.
    let options = SessionOptions::new().ttl(3);
    let leasing = Leasing::start(&client, OWNERS, options);
    own(&fake, &leasing, "k").await;
    let lease = fake.leases()[0];
    fake.expire(lease);
    while fake.leases().is_empty() {
        tokio::task::yield_now().await;
    }
    client.put("k", "1", PutOptions::new()).await.expect("put");
    own(&fake, &leasing, "k").await;
    assert_eq!(read(&leasing, "k").await.as_deref(), Some("1"));
    assert_eq!(owners(&client).await, ["owners/k"]);
    leasing.close().await.expect("revoked");
    assert_eq!(owners(&client).await, [""; 0]);
    assert_eq!(fake.leases(), [0; 0]);
}

#[tokio::test]
async fn a_lost_answer_to_an_acquisition_blocks_nobody() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let mine = leasing_of(&client).await;
    own(&fake, &mine, "warm").await;
    // As if the acquisition had happened, and its answer got lost.
    let lease = LeaseId::new(fake.leases()[0]);
    let acquired = PutOptions::new().lease(lease);
    client.put("owners/k", "", acquired).await.expect("put");
    fake.fail_with([tonic::Status::unavailable("lost")]);
    assert_eq!(read(&mine, "k").await, None);
    let theirs = leasing_of(&client_of(&[&fake]).await).await;
    write(&theirs, "k", "1").await;
    assert_eq!(read(&mine, "k").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn reads_are_linearizable_in_a_crowd() {
    const CLIENTS: usize = 3;
    const ROUNDS: usize = 15;
    let fake = Arc::new(Fake::start(1));
    let mut tasks = Vec::new();
    for index in 0..CLIENTS {
        let leasing = leasing_of(&client_of(&[&fake]).await).await;
        tasks.push(tokio::spawn(async move {
            let mut seen: BTreeMap<&str, i64> = BTreeMap::new();
            for round in 0..ROUNDS {
                for key in ["x", "y"] {
                    let written = leasing
                        .put(key, format!("{index}:{round}"), PutOptions::new())
                        .await
                        .expect("put");
                    let written = written.header.expect("a header").revision;
                    let found = leasing.get(key, GetOptions::new()).await.expect("get");
                    let revision = found.kvs[0].mod_revision;
                    // Never older than what this client has written or read.
                    let newest = seen.entry(key).or_default();
                    assert!(revision >= written && revision >= *newest);
                    *newest = revision;
                }
            }
            // Dropped it would keep its keys until its lease expires, which here is never.
            leasing.close().await.expect("revoked");
        }));
    }
    for task in tasks {
        task.await.expect("no stale read");
    }
}
