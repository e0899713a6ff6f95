//! What a running member cannot be made to answer from outside.

use super::*;
use crate::config::{Config, Url};
use crate::server::Server;

async fn start(dir: &std::path::Path) -> Server {
    let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
    let config = Config {
        data_dir: dir.join("default.etcd"),
        listen_client_urls: any.clone(),
        listen_peer_urls: any,
        ..Config::default()
    };
    Server::start(config).await.unwrap()
}

fn lookup(keys: bool) -> pb::LeaseTimeToLiveRequest {
    pb::LeaseTimeToLiveRequest { id: 1, keys }
}

async fn grant(handle: &Handle) {
    let request = pb::LeaseGrantRequest { id: 1, ttl: 60 };
    handle.lease_grant(request).await.unwrap();
}

#[tokio::test]
async fn a_lookup_on_a_member_that_was_demoted_meanwhile_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let handle = server.handle();
    grant(handle).await;
    assert_eq!(
        handle
            .lease_time_to_live(lookup(true))
            .await
            .unwrap()
            .granted_ttl,
        60
    );
    assert!(handle.inner.lessor.lock().demote().is_empty());
    for keys in [false, true] {
        let answer = handle.lease_time_to_live(lookup(keys)).await;
        assert_eq!(answer, Err(ApiError::LeaderChanged.into()));
    }
    // Only its own memory is asked for the list.
    assert_eq!(
        handle.lease_leases().await.unwrap().leases,
        [pb::LeaseStatus { id: 1 }]
    );
}

#[tokio::test]
async fn a_member_that_has_stopped_neither_renews_nor_looks_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let handle = server.handle().clone();
    grant(&handle).await;
    server.stop().await.unwrap();
    assert!(!handle.inner.lessor.lock().is_primary());
    let answer = handle.lease_time_to_live(lookup(true)).await;
    assert_eq!(answer, Err(ApiError::Stopped.into()));
    let renewal = handle.lease_keep_alive(pb::LeaseKeepAliveRequest { id: 1 });
    assert_eq!(renewal.await, Err(ApiError::Stopped.into()));
    let revoke = pb::LeaseRevokeRequest { id: 1 };
    assert_eq!(
        handle.lease_revoke(revoke).await,
        Err(ApiError::Stopped.into())
    );
}
