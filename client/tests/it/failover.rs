//! Several endpoints, some of them down.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use ferrite_client::{Client, Config, Error, GetOptions, PutOptions};
use ferrite_fake::Fake;

/// Long enough that a test which needs it has failed.
const GIVE_UP: Duration = Duration::from_secs(60);

/// An address nobody listens on.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").to_string()
}

fn quick(endpoints: impl IntoIterator<Item = String>) -> Config {
    let pause = Duration::from_millis(10);
    Config::new(endpoints).reconnect_backoff(pause, pause)
}

async fn member_that_answers(client: &Client) -> u64 {
    let response = client.get("k", GetOptions::new()).await.expect("get");
    response.header.expect("a header").member_id
}

/// Reads until all of `members` have answered.
async fn wait_for(client: &Client, members: &[u64]) {
    let mut missing: BTreeSet<u64> = members.iter().copied().collect();
    let deadline = std::time::Instant::now() + GIVE_UP;
    let client = client.with_deadline(deadline);
    while !missing.is_empty() {
        missing.remove(&member_that_answers(&client).await);
    }
}

#[tokio::test]
async fn calls_go_round_the_connected_endpoints() {
    let fakes = [Fake::start(1), Fake::start(2), Fake::start(3)];
    let client = Client::connect(quick(fakes.iter().map(Fake::endpoint)))
        .await
        .expect("valid");
    wait_for(&client, &[1, 2, 3]).await;
    for fake in &fakes {
        fake.take_seen();
    }
    for _ in 0..30 {
        client.put("k", "v", PutOptions::new()).await.expect("put");
    }
    let shares: Vec<_> = fakes.iter().map(|fake| fake.take_seen().len()).collect();
    assert_eq!(shares, [10, 10, 10]);
}

#[tokio::test]
async fn dead_endpoints_are_left_out_for_writes_too() {
    let fake = Fake::start(5);
    let client = Client::connect(quick([dead_endpoint(), fake.endpoint(), dead_endpoint()]))
        .await
        .expect("valid");
    for _ in 0..20 {
        client.put("k", "v", PutOptions::new()).await.expect("put");
    }
    assert_eq!(fake.take_seen().len(), 20);
}

#[tokio::test]
async fn endpoints_that_accept_and_say_nothing_are_left_out() {
    let fake = Fake::start(5);
    // As a server does that has bound its port and is not ready.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = mute.local_addr().expect("a bound socket").to_string();
    let client = Client::connect(quick([endpoint, fake.endpoint()]))
        .await
        .expect("valid")
        .with_timeout(GIVE_UP);
    let (socket, _) = mute.accept().await.expect("a connection");
    socket.readable().await.expect("the hello of the client");
    for _ in 0..20 {
        client.put("k", "v", PutOptions::new()).await.expect("put");
    }
    assert_eq!(fake.take_seen().len(), 20);
}

#[tokio::test]
async fn reads_survive_the_loss_of_a_member_and_use_it_again_when_it_returns() {
    let (first, second) = (Fake::start(1), Fake::start(2));
    let client = Client::connect(quick([first.endpoint(), second.endpoint()]))
        .await
        .expect("valid");
    wait_for(&client, &[1, 2]).await;

    let address = first.address;
    drop(first);
    for _ in 0..20 {
        client
            .get("k", GetOptions::new())
            .await
            .expect("the other answers");
    }

    let _first = Fake::start_at(3, address);
    wait_for(&client, &[2, 3]).await;
}

#[tokio::test]
async fn a_call_waits_for_a_server_that_comes_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("etcd.sock");
    let client = Client::connect(quick([format!("unix://{}", path.display())]))
        .await
        .expect("valid");
    let call = tokio::spawn({
        let client = client.with_timeout(GIVE_UP);
        async move { client.put("k", "v", PutOptions::new()).await }
    });
    let late = client
        .with_timeout(Duration::from_millis(50))
        .put("k", "v", PutOptions::new())
        .await
        .expect_err("nobody listens yet");
    assert!(matches!(late, Error::DeadlineExceeded { .. }), "{late}");

    let _fake = Fake::start_unix(1, &path);
    call.await.expect("no panic").expect("answered at last");
}

#[tokio::test]
async fn a_deadline_without_a_server_tells_why() {
    let endpoint = dead_endpoint();
    let client = Client::connect(quick([endpoint.clone()]))
        .await
        .expect("valid");
    let error = client
        .with_timeout(Duration::from_millis(200))
        .get("k", GetOptions::new())
        .await
        .expect_err("nobody listens");
    assert_eq!(error.to_string(), "context deadline exceeded");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains(&endpoint), "{cause}");
    assert!(cause.to_lowercase().contains("refused"), "{cause}");
}

#[tokio::test]
async fn maintenance_calls_reach_the_named_member_only() {
    let (first, second) = (Fake::start(1), Fake::start(2));
    let client = Client::connect(quick([first.endpoint()]))
        .await
        .expect("valid");
    let status = client
        .maintenance()
        .status(&second.endpoint())
        .await
        .expect("status");
    assert_eq!(status.header.expect("a header").member_id, 2);
    assert!(first.is_untouched());
}
