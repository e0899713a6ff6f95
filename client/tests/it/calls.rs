//! What a call sends and what comes back.

use std::time::Duration;

use ferrite_client::{
    Client, CompactOptions, Config, DeleteOptions, Error, EtcdError, GetOptions, PutOptions, Txn,
};
use ferrite_fake::Fake;
use tonic::Status;

async fn client_of(fake: &Fake) -> Client {
    Client::connect(Config::new([fake.endpoint()]))
        .await
        .expect("a valid configuration")
}

#[tokio::test]
async fn every_call_says_its_api_version() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let endpoint = fake.endpoint();
    client.get("k", GetOptions::new()).await.expect("get");
    client.put("k", "v", PutOptions::new()).await.expect("put");
    client
        .delete("k", DeleteOptions::new())
        .await
        .expect("delete");
    client.txn(Txn::new()).await.expect("txn");
    client
        .compact(1, CompactOptions::new())
        .await
        .expect("compact");
    client
        .range_stream("k", GetOptions::new())
        .await
        .expect("stream");
    client.cluster().member_list().await.expect("members");
    client.maintenance().alarm_list().await.expect("alarms");
    client
        .maintenance()
        .status(&endpoint)
        .await
        .expect("status");
    client
        .maintenance()
        .hash_kv(&endpoint, 0)
        .await
        .expect("hash");

    let seen = fake.take_seen();
    let methods: Vec<_> = seen.iter().map(|seen| seen.method).collect();
    assert_eq!(
        methods,
        [
            "Range",
            "Put",
            "DeleteRange",
            "Txn",
            "Compact",
            "RangeStream",
            "MemberList",
            "Alarm",
            "Status",
            "HashKV"
        ]
    );
    for seen in seen {
        assert_eq!(
            seen.metadata.get("client-api-version").expect("sent"),
            "3.7"
        );
        assert!(seen.metadata.get("hasleader").is_none());
        assert!(seen.metadata.get("grpc-timeout").is_none());
    }
}

#[tokio::test]
async fn leader_and_deadline_are_asked_for_on_demand() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let strict = client
        .with_require_leader()
        .with_timeout(Duration::from_secs(60));
    strict.get("k", GetOptions::new()).await.expect("get");
    client.get("k", GetOptions::new()).await.expect("get");

    let seen = fake.take_seen();
    assert_eq!(seen[0].metadata.get("hasleader").expect("sent"), "true");
    assert!(seen[0].metadata.get("grpc-timeout").is_some());
    assert!(seen[1].metadata.get("hasleader").is_none());
    assert!(seen[1].metadata.get("grpc-timeout").is_none());
}

#[tokio::test]
async fn a_streamed_range_collects_to_the_unary_answer() {
    let fake = Fake::start(7);
    let client = client_of(&fake).await;
    for key in ["a", "b", "c"] {
        client.put(key, "v", PutOptions::new()).await.expect("put");
    }
    let unary = client.get("", GetOptions::new().prefix()).await;
    let stream = client
        .range_stream("", GetOptions::new().prefix())
        .await
        .expect("stream");
    // The stream keeps the connection up by itself.
    drop(client);
    let whole = stream.collect().await.expect("all pieces");
    assert_eq!(whole, unary.expect("get"));
    assert_eq!((whole.kvs.len(), whole.count), (3, 3));
}

#[tokio::test]
async fn etcd_errors_are_typed_and_others_keep_their_status() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    fake.fail_with([
        EtcdError::Compacted.into(),
        Status::unknown("etcdserver: too many requests"),
        Status::internal("disk on fire"),
    ]);
    let next = async || {
        client
            .put("k", "v", PutOptions::new())
            .await
            .expect_err("scripted")
    };
    assert!(matches!(next().await, Error::Etcd(EtcdError::Compacted)));
    assert!(matches!(
        next().await,
        Error::Etcd(EtcdError::RequestTooManyRequests)
    ));
    let error = next().await;
    assert!(matches!(error, Error::Status(_)));
    assert_eq!(
        error.to_string(),
        "rpc error: code = Internal desc = disk on fire"
    );
}

#[tokio::test]
async fn size_limits_hold_in_both_directions() {
    let fake = Fake::start(1);
    let config = Config::new([fake.endpoint()])
        .max_send_bytes(32)
        .max_receive_bytes(32);
    let client = Client::connect(config).await.expect("valid");
    let error = client
        .put("k", vec![0u8; 100], PutOptions::new())
        .await
        .expect_err("too large to send");
    assert_eq!(
        error.to_string(),
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max (105 vs. 32)"
    );
    assert!(fake.take_seen().is_empty());

    let writer = client_of(&fake).await;
    let key = vec![b'k'; 20];
    writer
        .put(key.clone(), "v", PutOptions::new())
        .await
        .expect("put");
    let error = client
        .get(key, GetOptions::new())
        .await
        .expect_err("too large to receive");
    assert!(
        error.to_string().starts_with(
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ("
        ),
        "{error}"
    );
}

#[tokio::test]
async fn futures_can_be_spawned() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.put("k", "v", PutOptions::new()).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("put");
    }
    assert_eq!(fake.take_seen().len(), 20);
}
