//! Endpoints that change while the client lives.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use ferrite_client::pb::etcdserverpb::Member;
use ferrite_client::{Client, Config, Error, GetOptions, PutOptions, WatchOptions};
use ferrite_fake::Fake;
use tonic::Status;

use crate::client_of;

/// Long enough that a test which needs it has failed.
const GIVE_UP: Duration = Duration::from_secs(60);

fn member(id: u64, name: &str, urls: &[String]) -> Member {
    Member {
        id,
        name: name.to_owned(),
        client_ur_ls: urls.iter().map(|url| format!("http://{url}")).collect(),
        ..Default::default()
    }
}

fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").to_string()
}

async fn answered_by(client: &Client) -> u64 {
    let response = client.get("k", GetOptions::new()).await.expect("get");
    response.header.expect("a header").member_id
}

/// Reads until all of `members` have answered, and nobody else does.
async fn wait_for_exactly(client: &Client, members: &[u64]) {
    let wanted: BTreeSet<u64> = members.iter().copied().collect();
    let client = client.with_deadline(Instant::now() + GIVE_UP);
    loop {
        let mut seen = BTreeSet::new();
        for _ in 0..wanted.len() * 3 {
            seen.insert(answered_by(&client).await);
        }
        if seen == wanted {
            return;
        }
    }
}

#[tokio::test]
async fn a_sync_finds_the_started_voters() {
    let first = Fake::start(1);
    let (second, learner) = (first.join(2), first.join(3));
    let client = client_of(&[&first]).await;
    let mut members = vec![
        member(1, "a", &[first.endpoint()]),
        member(2, "b", &[second.endpoint()]),
        member(4, "", &[dead_endpoint()]),
    ];
    members.push(Member {
        is_learner: true,
        ..member(3, "c", &[learner.endpoint()])
    });
    first.set_members(members);
    client.sync().await.expect("listed");
    let url = |fake: &Fake| format!("http://{}", fake.endpoint());
    assert_eq!(client.endpoints(), [url(&first), url(&second)]);
    wait_for_exactly(&client, &[1, 2]).await;
    assert!(learner.is_untouched());
}

#[tokio::test]
async fn urls_that_lead_nowhere_leave_the_configured_endpoints() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    fake.set_members([member(1, "a", &[dead_endpoint()])]);
    client.sync().await.expect("listed");
    let client = client.with_timeout(GIVE_UP);
    for _ in 0..10 {
        assert_eq!(answered_by(&client).await, 1);
    }
}

#[tokio::test]
async fn members_without_urls_change_nothing() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    fake.set_members([member(1, "a", &[])]);
    let error = client.sync().await.expect_err("nothing to use");
    assert!(matches!(error, Error::NoEndpoints), "{error}");
    fake.set_members([member(1, "a", &["/".to_owned()])]);
    let error = client.sync().await.expect_err("nothing to use");
    assert!(matches!(error, Error::InvalidEndpoint { .. }), "{error}");
    assert_eq!(client.endpoints(), [fake.endpoint()]);
}

#[tokio::test]
async fn endpoints_are_synced_by_themselves() {
    let first = Fake::start(1);
    let second = first.join(2);
    first.set_members([member(2, "b", &[second.endpoint()])]);
    second.set_members([member(2, "b", &[second.endpoint()])]);
    let config = Config::new([first.endpoint()]).auto_sync(Duration::from_millis(10));
    let client = Client::connect(config).await.expect("valid");
    wait_for_exactly(&client, &[2]).await;
}

#[tokio::test]
async fn a_replaced_endpoint_keeps_what_is_under_way() {
    let first = Fake::start(1);
    let second = first.join(2);
    let client = client_of(&[&first]).await;
    let mut watcher = client.watch("k", WatchOptions::new()).await.expect("open");
    client
        .set_endpoints([second.endpoint()])
        .expect("a valid endpoint");
    first.take_seen();
    client.put("k", "1", PutOptions::new()).await.expect("put");
    assert_eq!(watcher.next().await.expect("lives").events.len(), 1);
    assert!(first.is_untouched());
    // What comes next goes to the new one.
    first.break_streams(Status::unavailable("gone"));
    client.put("k", "2", PutOptions::new()).await.expect("put");
    assert_eq!(watcher.next().await.expect("lives").events.len(), 1);
    assert!(first.is_untouched());

    let none: [String; 0] = [];
    assert!(matches!(
        client.set_endpoints(none),
        Err(Error::NoEndpoints)
    ));
    assert!(client.set_endpoints(["a:b"]).is_err());
    assert_eq!(client.endpoints(), [second.endpoint()]);
}

#[tokio::test]
async fn a_call_that_waits_goes_to_an_endpoint_that_is_added() {
    let fake = Fake::start(1);
    let client = Client::connect(Config::new([dead_endpoint()]))
        .await
        .expect("valid");
    let waiting = tokio::spawn({
        let client = client.with_timeout(GIVE_UP);
        async move { answered_by(&client).await }
    });
    client
        .set_endpoints([fake.endpoint()])
        .expect("a valid endpoint");
    assert_eq!(waiting.await.expect("no panic"), 1);
}

#[tokio::test]
async fn old_clusters_are_refused_on_demand() {
    let (first, second) = (Fake::start(1), Fake::start(2));
    let config = || Config::new([first.endpoint(), second.endpoint()]).reject_old_cluster();
    for (version, is_accepted) in [
        ("3.5.21", false),
        ("2.9.0", false),
        ("?", false),
        ("3.6.0", true),
        ("4.0.0", true),
    ] {
        second.set_version(version);
        match Client::connect(config()).await {
            Ok(_) => assert!(is_accepted, "{version}"),
            Err(Error::OldCluster) => assert!(!is_accepted, "{version}"),
            Err(error) => panic!("{error}"),
        }
    }
    let late = Config::new([dead_endpoint()])
        .reject_old_cluster()
        .dial_timeout(Duration::from_millis(50));
    let error = Client::connect(late).await.expect_err("nobody to ask");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}

#[tokio::test]
async fn every_endpoint_tells_why_it_is_not_connected() {
    let dead = [dead_endpoint(), dead_endpoint()];
    let pause = Duration::from_millis(10);
    let config = Config::new(dead.clone()).reconnect_backoff(pause, pause);
    let client = Client::connect(config).await.expect("valid");
    // The first attempts to connect may still be under way.
    while client.connection_errors().len() < dead.len() {
        tokio::task::yield_now().await;
    }
    for (error, endpoint) in client.connection_errors().iter().zip(&dead) {
        assert_eq!(&error.endpoint, endpoint);
        assert!(error.reason.to_lowercase().contains("refused"), "{error}");
    }
    let brief = client.with_timeout(Duration::from_millis(50));
    let error = brief.get("k", GetOptions::new()).await;
    let Err(Error::DeadlineExceeded { last: Some(last) }) = error else {
        panic!("{error:?}");
    };
    for endpoint in &dead {
        assert!(last.to_string().contains(endpoint), "{last}");
    }
}
