//! Reads that never go back.

use ferrite_client::{Client, Error, GetOptions, PutOptions, Txn, TxnOp};
use ferrite_fake::Fake;

use crate::client_of;

async fn put(client: &Client, value: &'static str) {
    client
        .put("k", value, PutOptions::new())
        .await
        .expect("put");
}

async fn read(client: &Client) -> Result<Vec<u8>, Error> {
    let found = client.get("k", GetOptions::new().serializable()).await?;
    Ok(found
        .kvs
        .first()
        .map(|kv| kv.value.to_vec())
        .unwrap_or_default())
}

/// Reads until both have answered.
async fn connected(client: &Client) {
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let found = client.get("k", GetOptions::new()).await.expect("get");
        seen.insert(found.header.expect("a header").member_id);
    }
}

#[tokio::test]
async fn a_member_that_is_behind_is_not_believed() {
    let current = Fake::start(1);
    let stale = current.join(2);
    let client = client_of(&[&current, &stale]).await;
    put(&client, "old").await;
    connected(&client).await;
    stale.fall_behind(true);
    let ordered = client.with_ordering();
    // A write counts as seen.
    put(&ordered, "new").await;
    let mut plain = Vec::new();
    for _ in 0..10 {
        assert_eq!(read(&ordered).await.expect("current"), b"new");
        plain.push(read(&client).await.expect("any"));
    }
    assert!(plain.contains(&b"old".to_vec()), "the fake was never stale");
}

#[tokio::test]
async fn nobody_new_enough_is_an_error() {
    let fake = Fake::start(1);
    let ordered = client_of(&[&fake]).await.with_ordering();
    put(&ordered, "1").await;
    fake.fall_behind(true);
    put(&ordered, "2").await;
    fake.take_seen();
    let error = read(&ordered).await.expect_err("stale");
    assert!(matches!(error, Error::NoGreaterRevision), "{error}");
    assert_eq!(fake.take_seen().len(), 5);
    // Handles made apart have seen nothing.
    assert_eq!(read(&ordered.with_ordering()).await.expect("any"), b"1");
    fake.fall_behind(false);
    assert_eq!(read(&ordered).await.expect("current"), b"2");
}

#[tokio::test]
async fn transactions_count_as_seen() {
    let fake = Fake::start(1);
    let ordered = client_of(&[&fake]).await.with_ordering();
    fake.fall_behind(true);
    let write = Txn::new().and_then([TxnOp::put("k", "1", PutOptions::new())]);
    ordered.txn(write).await.expect("txn");
    let error = read(&ordered).await.expect_err("stale");
    assert!(matches!(error, Error::NoGreaterRevision), "{error}");
    let look = Txn::new().and_then([TxnOp::get("k", GetOptions::new())]);
    ordered.txn(look).await.expect("a linearizable read");
}
