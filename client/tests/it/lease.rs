//! Leases over real connections.

use std::time::Duration;

use ferrite_client::{Client, Config, Error, EtcdError, GetOptions, LeaseId, PutOptions};
use ferrite_fake::Fake;
use tonic::Status;

async fn client_of(fake: &Fake) -> Client {
    Client::connect(Config::new([fake.endpoint()]))
        .await
        .expect("a valid configuration")
}

async fn grant(client: &Client, ttl: i64) -> LeaseId {
    let granted = client.leases().grant(ttl).await.expect("granted");
    assert_eq!(granted.ttl, ttl);
    LeaseId::new(granted.id)
}

#[tokio::test]
async fn a_lease_from_grant_to_revocation() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let leases = client.leases();
    let lease = grant(&client, 60).await;
    let with_lease = PutOptions::new().lease(lease);
    client.put("k", "v", with_lease).await.expect("put");

    let lives = leases.time_to_live(lease).await.expect("an answer");
    assert_eq!((lives.ttl, lives.granted_ttl), (60, 60));
    assert!(lives.keys.is_empty());
    let lives = leases.time_to_live_with_keys(lease).await;
    assert_eq!(lives.expect("an answer").keys, ["k"]);
    let listed = leases.list().await.expect("an answer").leases;
    assert_eq!(listed[0].id, lease.get());
    let renewed = leases.keep_alive_once(lease).await.expect("renewed");
    assert_eq!((renewed.id, renewed.ttl), (lease.get(), 60));

    leases.revoke(lease).await.expect("revoked");
    let found = client.get("k", GetOptions::new()).await.expect("get");
    assert!(found.kvs.is_empty());
    let error = leases.revoke(lease).await.expect_err("gone");
    assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    let error = leases.keep_alive_once(lease).await.expect_err("gone");
    assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    assert_eq!(leases.time_to_live(lease).await.expect("an answer").ttl, -1);
}

#[tokio::test]
async fn ids_can_be_chosen() {
    let fake = Fake::start(1);
    let leases = client_of(&fake).await.leases();
    let id = LeaseId::new(-5);
    assert_eq!(leases.grant_as(id, 9).await.expect("granted").id, -5);
    let error = leases.grant_as(id, 9).await.expect_err("in use");
    assert_eq!(error.etcd(), Some(EtcdError::LeaseExist));
}

#[tokio::test]
async fn all_leases_are_renewed_over_one_stream() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let first = grant(&client, 60).await;
    let second = grant(&client, 60).await;
    fake.take_seen();
    let mut renewals = [
        client.leases().keep_alive(first),
        client.leases().keep_alive(second),
        client.leases().keep_alive(first),
    ];
    for renewals in &mut renewals {
        assert_eq!(renewals.next().await.expect("renewed").ttl, 60);
    }
    let seen = fake.take_seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].method, "LeaseKeepAlive");
    assert_eq!(seen[0].metadata.get("hasleader").expect("sent"), "true");
}

#[tokio::test]
async fn renewal_survives_a_broken_stream() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    // A third of it is shorter than a test may wait.
    let lease = grant(&client, 3).await;
    let mut renewals = client.leases().keep_alive(lease);
    renewals.next().await.expect("renewed");
    fake.break_streams(Status::unavailable("gone"));
    renewals.next().await.expect("renewed again");
}

#[tokio::test]
async fn a_lease_that_ends_ends_its_renewal() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let lease = grant(&client, 3).await;
    let mut renewals = client.leases().keep_alive(lease);
    renewals.next().await.expect("renewed");
    fake.expire(lease.get());
    for _ in 0..2 {
        let error = renewals.next().await.expect_err("expired");
        assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    }
}

#[tokio::test]
async fn without_a_leader_strict_renewals_end_and_others_go_on() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let lease = grant(&client, 3).await;
    let strict = client.with_require_leader();
    let mut strict = strict.leases().keep_alive(lease);
    let mut patient = client.leases().keep_alive(lease);
    strict.next().await.expect("renewed");
    patient.next().await.expect("renewed");
    fake.break_streams(EtcdError::NoLeader.into());
    let error = strict.next().await.expect_err("no leader");
    assert_eq!(error.etcd(), Some(EtcdError::NoLeader));
    patient.next().await.expect("renewed by another stream");
}

#[tokio::test]
async fn renewing_once_waits_as_long_as_the_client_may() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let lease = grant(&client, 60).await;
    fake.fail_with((0..3).map(|_| Status::unavailable("later")));
    let renewed = client.leases().keep_alive_once(lease).await;
    renewed.expect("the fourth time");
    // What a member has answered is an answer.
    fake.fail_with([EtcdError::NoLeader.into()]);
    let error = client.leases().keep_alive_once(lease).await;
    let error = error.expect_err("no leader");
    assert_eq!(error.etcd(), Some(EtcdError::NoLeader));
    drop(fake);
    let client = client.with_timeout(Duration::from_millis(50));
    let error = client.leases().keep_alive_once(lease).await;
    let error = error.expect_err("nobody there");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}
