//! The client library as a user, against a whole server.

use std::path::Path;

use ferrite_client::{
    Client, Config, EtcdError, GetOptions, LeaseId, PermissionType, PutOptions, WatchOptions,
};
use ferrite_server::Server;

use crate::serving;

/// A server on which `root` and `u` have their names as passwords, and `u` may have keys under `u/`.
async fn guarded(dir: &Path) -> (Server, String) {
    let (server, client, endpoint) = serving::start(dir).await;
    let auth = client.auth();
    auth.user_add("root", "root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.user_add("u", "u").await.unwrap();
    auth.role_add("r").await.unwrap();
    let kind = PermissionType::ReadWrite;
    auth.role_grant_permission("r", kind, "u/", "u0")
        .await
        .unwrap();
    auth.user_grant_role("u", "r").await.unwrap();
    auth.enable().await.unwrap();
    (server, endpoint)
}

fn config(endpoint: &str) -> Config {
    Config::new([endpoint])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_logs_in_and_again_when_its_token_is_not_known_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, endpoint) = guarded(dir.path()).await;
    let root = Client::connect(config(&endpoint).user("root", "root"))
        .await
        .unwrap();
    let user = Client::connect(config(&endpoint).user("u", "u"))
        .await
        .unwrap();
    user.put("u/a", "1", PutOptions::new()).await.unwrap();
    let denied = user.put("a", "1", PutOptions::new()).await.unwrap_err();
    assert_eq!(denied.etcd(), Some(EtcdError::PermissionDenied));
    assert!(!denied.may_have_been_applied());
    // All tokens of the user end; calls go on, the writing ones too, and many at once.
    for round in 0..3 {
        root.auth().user_change_password("u", "u").await.unwrap();
        let calls = (0..20).map(|at| {
            let user = user.clone();
            tokio::spawn(async move {
                let key = format!("u/{round}/{at}");
                user.put(key, "1", PutOptions::new()).await.unwrap();
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
    }
    let found = user.get("u/", GetOptions::new().prefix()).await.unwrap();
    assert!(
        found.kvs.iter().all(|pair| pair.version == 1),
        "written once"
    );
    assert_eq!(found.count, 61);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_begin_with_a_token_that_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, endpoint) = guarded(dir.path()).await;
    let root = Client::connect(config(&endpoint).user("root", "root"))
        .await
        .unwrap();
    let user = Client::connect(config(&endpoint).user("u", "u"))
        .await
        .unwrap();
    let lease = user.leases().grant(600).await.unwrap();
    let lease = LeaseId::new(lease.id);
    root.auth().user_change_password("u", "u").await.unwrap();
    let mut watcher = user
        .watch("u/", WatchOptions::new().prefix())
        .await
        .unwrap();
    root.auth().user_change_password("u", "u").await.unwrap();
    assert_eq!(user.leases().keep_alive_once(lease).await.unwrap().ttl, 600);
    user.put("u/a", "1", PutOptions::new()).await.unwrap();
    let response = watcher.next().await.unwrap();
    assert_eq!(response.events[0].kv.as_ref().unwrap().key, "u/a");
    // Watches of a client share a stream, which keeps its token: another one asks.
    let user = Client::connect(config(&endpoint).user("u", "u"))
        .await
        .unwrap();
    let refused = user.watch("a", WatchOptions::new()).await;
    let refused = match refused {
        Ok(mut watcher) => watcher.next().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_log_in_learns_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, endpoint) = guarded(dir.path()).await;
    let refused = Client::connect(config(&endpoint).user("u", "wrong")).await;
    assert_eq!(refused.unwrap_err().etcd(), Some(EtcdError::AuthFailed));
    let both = config(&endpoint).user("u", "u").token("t");
    let both = Client::connect(both).await.unwrap_err().to_string();
    let text = "Username/Password and Token configurations are mutually exclusive";
    assert_eq!(both, text);
    // A token is sent as it is, and nothing is done if it is not known.
    let root = Client::connect(config(&endpoint).user("root", "root"))
        .await
        .unwrap();
    let token = root.auth().authenticate("u", "u").await.unwrap().token;
    let user = Client::connect(config(&endpoint).token(token))
        .await
        .unwrap();
    user.put("u/a", "1", PutOptions::new()).await.unwrap();
    root.auth().user_change_password("u", "u").await.unwrap();
    let unknown = user.put("u/a", "2", PutOptions::new()).await.unwrap_err();
    assert_eq!(unknown.etcd(), Some(EtcdError::InvalidAuthToken));
    // Nobody is asked who he is while authentication is off.
    root.auth().disable().await.unwrap();
    let user = Client::connect(config(&endpoint).user("x", "x"))
        .await
        .unwrap();
    user.put("a", "1", PutOptions::new()).await.unwrap();
    let shown = format!(
        "{:?}",
        config(&endpoint).user("u", "secret").token("hidden")
    );
    assert!(
        !shown.contains("secret") && !shown.contains("hidden"),
        "{shown}"
    );
}
