//! Copies of keys: base and updates meet without a gap.

use std::collections::BTreeMap;

use ferrite_client::{
    Client, CompactOptions, DeleteOptions, EtcdError, GetOptions, Mirror, PutOptions,
};
use ferrite_fake::Fake;

use crate::client_of;

type Copied = BTreeMap<Vec<u8>, Vec<u8>>;

async fn put(client: &Client, key: &str, value: &str) {
    let (key, value) = (key.to_owned(), value.to_owned());
    client
        .put(key, value, PutOptions::new())
        .await
        .expect("put");
}

async fn original(client: &Client) -> Copied {
    let found = client.get("m/", GetOptions::new().prefix()).await;
    let pairs = found.expect("get").kvs.into_iter();
    pairs.map(|kv| (kv.key.into(), kv.value.into())).collect()
}

#[tokio::test]
async fn what_changes_while_the_base_is_read_comes_as_an_update() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    for key in ["m/a", "m/b", "m/c", "n"] {
        put(&client, key, "1").await;
    }
    let mut mirror = Mirror::new(&client, "m/");
    let mut copied = Copied::new();
    let mut rounds = 0;
    while let Some(pairs) = mirror.next_base().await.expect("the base") {
        rounds += 1;
        put(&client, "m/a", &format!("round {rounds}")).await;
        put(&client, &format!("m/new{rounds}"), "1").await;
        let pairs = pairs.into_iter();
        copied.extend(pairs.map(|kv| (kv.key.into(), kv.value.into())));
    }
    let all = client.delete("m/b", DeleteOptions::new()).await;
    let last = all.expect("delete").header.expect("a header").revision;
    put(&client, "n", "not ours").await;
    assert_eq!(copied.len(), 3);
    let mut updates = mirror.updates().await.expect("open");
    let mut at = 0;
    while at < last {
        for event in updates.next().await.expect("lives").events {
            let kv = event.kv.expect("a pair");
            at = kv.mod_revision;
            match event.r#type {
                0 => copied.insert(kv.key.into(), kv.value.into()),
                _ => copied.remove(kv.key.as_ref()),
            };
        }
    }
    assert_eq!(copied, original(&client).await);
}

#[tokio::test]
async fn a_base_that_is_compacted_says_so() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    for value in ["1", "2", "3"] {
        put(&client, "m/a", value).await;
    }
    let compacted = client.compact(4, CompactOptions::new()).await;
    compacted.expect("compact");
    let mut mirror = Mirror::at(&client, "m/", 2);
    let error = mirror.next_base().await.expect_err("too old");
    assert_eq!(error.etcd(), Some(EtcdError::Compacted));
    let mut mirror = Mirror::at(&client, "m/", 4);
    let base = mirror.next_base().await.expect("the base");
    assert_eq!(base.expect("a pair")[0].value, "3");
    assert_eq!(mirror.revision(), 4);
}
