//! A client that sees a part of the keys.

use ferrite_client::concurrency::{Isolation, Mutex, Session, SessionOptions};
use ferrite_client::pb::etcdserverpb::RangeResponse;
use ferrite_client::pb::etcdserverpb::response_op::Response;
use ferrite_client::{
    Client, Compare, DeleteOptions, Error, EtcdError, GetOptions, LeaseId, PutOptions, Txn, TxnOp,
    WatchOptions,
};
use ferrite_fake::Fake;

use crate::client_of;

fn keys(response: &RangeResponse) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    response.kvs.iter().map(|kv| text(&kv.key)).collect()
}

async fn all(client: &Client) -> Vec<String> {
    let found = client.get("", GetOptions::new().prefix()).await;
    keys(&found.expect("get"))
}

/// Keys on both sides of the namespace, and one in it.
async fn with_neighbours(client: &Client) -> Client {
    for key in ["ns", "ns.", "ns/a", "ns0", "z"] {
        client.put(key, "v", PutOptions::new()).await.expect("put");
    }
    client.with_namespace("ns/")
}

#[tokio::test]
async fn keys_are_read_written_and_deleted_inside_only() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let inside = with_neighbours(&client).await;
    inside.put("b", "v", PutOptions::new()).await.expect("put");
    assert_eq!(all(&inside).await, ["a", "b"]);
    let from = inside.get("b", GetOptions::new().from_key()).await;
    assert_eq!(keys(&from.expect("get")), ["b"]);
    let until = inside.get("a", GetOptions::new().range("b")).await;
    assert_eq!(keys(&until.expect("get")), ["a"]);
    let streamed = inside.range_stream("", GetOptions::new().prefix()).await;
    let streamed = streamed.expect("a stream").collect().await;
    assert_eq!(keys(&streamed.expect("whole")), ["a", "b"]);

    let old = inside.put("b", "w", PutOptions::new().prev_kv()).await;
    assert_eq!(old.expect("put").prev_kv.expect("asked for").key, "b");
    let everything = DeleteOptions::new().prefix().prev_kv();
    let gone = inside.delete("", everything).await.expect("delete");
    let gone: Vec<_> = gone.prev_kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(gone, ["a", "b"]);
    assert_eq!(all(&client).await, ["ns", "ns.", "ns0", "z"]);

    let error = inside.get("", GetOptions::new()).await.expect_err("no key");
    assert_eq!(error.etcd(), Some(EtcdError::EmptyKey));
    let error = inside.put("", "v", PutOptions::new()).await;
    assert_eq!(error.expect_err("no key").etcd(), Some(EtcdError::EmptyKey));
}

#[tokio::test]
async fn transactions_stay_inside_to_the_last_level() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let inside = with_neighbours(&client).await;
    let inner = Txn::new()
        .when([Compare::key_missing("z")])
        .and_then([TxnOp::put("z", "1", PutOptions::new())]);
    let outer = Txn::new()
        .when([Compare::key_exists("a")])
        .and_then([
            TxnOp::txn(inner),
            TxnOp::get("", GetOptions::new().prefix()),
            TxnOp::delete("a", DeleteOptions::new().prev_kv()),
        ])
        .or_else([TxnOp::put("never", "1", PutOptions::new())]);
    let answer = inside.txn(outer).await.expect("txn");
    assert!(answer.succeeded);
    let mut responses = answer.responses.into_iter().map(|op| op.response);
    let Some(Some(Response::ResponseTxn(inner))) = responses.next() else {
        panic!("a transaction");
    };
    assert!(inner.succeeded);
    let Some(Some(Response::ResponseRange(range))) = responses.next() else {
        panic!("a range");
    };
    assert_eq!(keys(&range), ["a", "z"]);
    let Some(Some(Response::ResponseDeleteRange(deleted))) = responses.next() else {
        panic!("a deletion");
    };
    assert_eq!(deleted.prev_kvs[0].key, "a");
    assert_eq!(all(&client).await, ["ns", "ns.", "ns/z", "ns0", "z"]);
}

#[tokio::test]
async fn watches_see_what_is_inside_and_share_the_stream() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let inside = with_neighbours(&client).await;
    let options = WatchOptions::new().prefix().prev_kv();
    let mut narrow = inside.watch("", options.clone()).await.expect("open");
    let mut wide = client.watch("", options).await.expect("open");
    for key in ["ns", "ns/a", "ns0"] {
        client.put(key, "2", PutOptions::new()).await.expect("put");
    }
    inside.put("b", "2", PutOptions::new()).await.expect("put");
    for key in ["a", "b"] {
        let response = narrow.next().await.expect("lives");
        let event = &response.events[0];
        assert_eq!(event.kv.as_ref().expect("a pair").key, key);
        let before = event.prev_kv.as_ref().map(|kv| kv.key.as_ref());
        assert_eq!(before, (key == "a").then_some(key.as_bytes()));
    }
    let first = wide.next().await.expect("lives");
    assert_eq!(first.events[0].kv.as_ref().expect("a pair").key, "ns");
    let streams = fake.take_seen();
    let streams = streams.iter().filter(|seen| seen.method == "Watch");
    assert_eq!(streams.count(), 1);
}

#[tokio::test]
async fn a_lease_shows_its_keys_inside() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let inside = client.with_namespace("ns/");
    let lease = LeaseId::new(client.leases().grant(60).await.expect("granted").id);
    let with_lease = PutOptions::new().lease(lease);
    client.put("x", "", with_lease.clone()).await.expect("put");
    inside.put("k", "", with_lease).await.expect("put");
    let lives = inside.leases().time_to_live_with_keys(lease).await;
    assert_eq!(lives.expect("an answer").keys, ["k"]);
}

#[tokio::test]
async fn recipes_work_inside_and_namespaces_nest() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let inside = client.with_namespace("ns/").with_namespace("deep/");
    let session = Session::open(&inside, SessionOptions::new()).await;
    let session = session.expect("a session");
    let mut mutex = Mutex::new(&session, "lock");
    mutex.lock().await.expect("free");
    let counted = inside.stm(Isolation::default(), async |stm| {
        stm.put("count", "1");
        Ok::<_, Error>(())
    });
    counted.await.expect("committed");
    let keys = all(&client).await;
    let lock = format!("ns/deep/lock/{:x}", session.lease().get());
    assert_eq!(keys, ["ns/deep/count".to_owned(), lock]);
    mutex.unlock().await.expect("ours");
    assert_eq!(all(&inside).await, ["count"]);
}
