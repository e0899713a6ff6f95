//! How often each call is sent when its first attempt fails.

use ferrite_client::{
    Client, CompactOptions, Config, DeleteOptions, DowngradeAction, Error, EtcdError, GetOptions,
    LeaseId, MemberId, PutOptions, Txn,
};
use ferrite_fake::Fake;
use tonic::Status;

const CALLS: [&str; 21] = [
    "Range",
    "Put",
    "DeleteRange",
    "Txn",
    "Compact",
    "RangeStream",
    "MemberList",
    "Alarm",
    "Status",
    "HashKV",
    "MoveLeader",
    "Defragment",
    "Downgrade",
    "Snapshot",
    "MemberAdd",
    "MemberRemove",
    "MemberPromote",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseTimeToLive",
    "LeaseLeases",
];
const REPEATABLE: [&str; 11] = [
    "Range",
    "MemberList",
    "Alarm",
    "Status",
    "HashKV",
    "MoveLeader",
    "Snapshot",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseTimeToLive",
    "LeaseLeases",
];
/// The lease that is granted, asked about and revoked.
const LEASE: LeaseId = LeaseId::new(7);
const MEMBER: MemberId = MemberId::new(1);

async fn call(client: &Client, name: &str) -> Result<(), Error> {
    let endpoint = &client.endpoints()[0];
    match name {
        "Range" => client.get("k", GetOptions::new()).await.map(drop),
        "Put" => client.put("k", "v", PutOptions::new()).await.map(drop),
        "DeleteRange" => client.delete("k", DeleteOptions::new()).await.map(drop),
        "Txn" => client.txn(Txn::new()).await.map(drop),
        "Compact" => client.compact(1, CompactOptions::new()).await.map(drop),
        "RangeStream" => {
            let stream = client.range_stream("k", GetOptions::new()).await?;
            stream.collect().await.map(drop)
        }
        "MemberList" => client.cluster().member_list().await.map(drop),
        "Alarm" => client.maintenance().alarm_list().await.map(drop),
        "Status" => client.maintenance().status(endpoint).await.map(drop),
        "HashKV" => client.maintenance().hash_kv(endpoint, 0).await.map(drop),
        "MoveLeader" => client.maintenance().move_leader(MEMBER).await.map(drop),
        "Defragment" => client.maintenance().defragment(endpoint).await.map(drop),
        "Downgrade" => {
            let validate = DowngradeAction::Validate;
            let answer = client.maintenance().downgrade(validate, "3.6").await;
            answer.map(drop)
        }
        "Snapshot" => {
            let mut snapshot = client.maintenance().snapshot().await?;
            while snapshot.next().await?.is_some() {}
            Ok(())
        }
        "MemberAdd" => client.cluster().member_add(["http://a:1"]).await.map(drop),
        "MemberRemove" => client.cluster().member_remove(MEMBER).await.map(drop),
        "MemberPromote" => client.cluster().member_promote(MEMBER).await.map(drop),
        "LeaseGrant" => client.leases().grant_as(LEASE, 60).await.map(drop),
        "LeaseRevoke" => client.leases().revoke(LEASE).await.map(drop),
        "LeaseTimeToLive" => client.leases().time_to_live(LEASE).await.map(drop),
        "LeaseLeases" => client.leases().list().await.map(drop),
        other => panic!("no such call: {other}"),
    }
}

/// Makes every call once against a server whose first answer is `failure`; names those that were
/// repeated. A repeated call must succeed, any other must return the failure.
async fn repeated_after(failure: fn() -> Status) -> Vec<&'static str> {
    let fake = Fake::start(1);
    let client = Client::connect(Config::new([fake.endpoint()]))
        .await
        .expect("a valid configuration");
    let mut repeated = Vec::new();
    for name in CALLS {
        fake.fail_with([failure()]);
        let result = call(&client, name).await;
        match fake.take_seen().len() {
            1 => assert!(result.is_err(), "{name} failed and was not repeated"),
            2 => {
                result.unwrap_or_else(|error| panic!("{name}: {error}"));
                repeated.push(name);
            }
            attempts => panic!("{name}: {attempts} attempts"),
        }
    }
    repeated
}

#[tokio::test]
async fn only_repeatable_calls_are_repeated_when_unavailable() {
    assert_eq!(
        repeated_after(|| EtcdError::Timeout.into()).await,
        REPEATABLE
    );
    assert_eq!(
        repeated_after(|| EtcdError::LeaderChanged.into()).await,
        REPEATABLE
    );
    assert_eq!(
        repeated_after(|| EtcdError::Stopped.into()).await,
        REPEATABLE
    );
    assert_eq!(
        repeated_after(|| Status::unavailable("?")).await,
        REPEATABLE
    );
}

#[tokio::test]
async fn writes_are_not_repeated_when_cancelled_or_late_either() {
    assert_eq!(
        repeated_after(|| Status::cancelled("context canceled")).await,
        REPEATABLE
    );
    assert_eq!(
        repeated_after(|| Status::deadline_exceeded("context deadline exceeded")).await,
        REPEATABLE
    );
}

/// A client that is known by its certificate has no other token to try, and users and roles that change
/// right then are no reason to fail.
#[tokio::test]
async fn calls_refused_for_users_that_change_are_repeated() {
    let unary: Vec<&str> = CALLS
        .into_iter()
        .filter(|name| !["RangeStream", "Snapshot"].contains(name))
        .collect();
    let repeated = repeated_after(|| EtcdError::AuthOldRevision.into()).await;
    assert_eq!(repeated, unary);
    let none: [&str; 0] = [];
    assert_eq!(repeated_after(|| EtcdError::UserEmpty.into()).await, none);
}

#[tokio::test]
async fn refusals_are_final() {
    for failure in [
        || EtcdError::EmptyKey.into(),
        || EtcdError::NoSpace.into(),
        || EtcdError::NotSupportedForLearner.into(),
        || Status::internal("?"),
        || Status::out_of_range("?"),
        || Status::resource_exhausted("?"),
    ] {
        let none: [&str; 0] = [];
        assert_eq!(repeated_after(failure).await, none);
    }
}

#[tokio::test]
async fn a_learners_refusal_moves_on_to_the_next_endpoint() {
    let (learner, voter) = (Fake::start(1), Fake::start(2));
    let config = Config::new([learner.endpoint(), voter.endpoint()]);
    let client = Client::connect(config).await.expect("valid");
    // Both connections are up once both members have answered.
    loop {
        client.get("k", GetOptions::new()).await.expect("get");
        if !learner.is_untouched() && !voter.is_untouched() {
            break;
        }
    }
    for _ in 0..4 {
        learner.take_seen();
        learner.fail_with([EtcdError::NotSupportedForLearner.into()]);
        client
            .put("k", "v", PutOptions::new())
            .await
            .expect("a voter answers");
    }
    assert!(!voter.take_seen().is_empty());
}

#[tokio::test]
async fn a_steady_failure_ends_after_the_configured_attempts() {
    let fake = Fake::start(1);
    let config = Config::new([fake.endpoint()]).max_attempts(4);
    let client = Client::connect(config).await.expect("valid");
    fake.fail_with((0..10).map(|_| EtcdError::NoLeader.into()));
    let error = client
        .get("k", GetOptions::new())
        .await
        .expect_err("never available");
    assert_eq!(error.etcd(), Some(EtcdError::NoLeader));
    assert_eq!(fake.take_seen().len(), 4);
}
