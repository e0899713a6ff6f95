//! Who is not talked to.

use super::super::{Options, Transport};
use super::raw::{Request, send};
use super::{CLUSTER, Event, Node, id, numbered, options, pair};
use ferrite_api::types::ClusterId;

#[tokio::test]
async fn refusals_have_etcds_statuses_and_texts() {
    let (mut a, b) = pair().await;
    a.sockets.set_peers(vec![b.peer()], vec![id(0xdead)]);
    let stream = || Request::stream(0xb, &a, u64::MAX - 1);
    let removed = Request::stream(0xdead, &a, 1);
    for (request, status, text) in [
        (
            stream().with("x-etcd-cluster-id", "c2"),
            412,
            "cluster ID mismatch",
        ),
        (
            stream().without("x-etcd-cluster-id"),
            412,
            "cluster ID mismatch",
        ),
        (stream().with("x-raft-to", "b"), 412, "to field mismatch"),
        (stream().without("x-raft-to"), 412, "to field mismatch"),
        (
            stream().without("x-server-version"),
            412,
            "incompatible version",
        ),
        (
            stream().with("x-min-cluster-version", "4.0.0"),
            412,
            "incompatible version",
        ),
        (removed.with("x-raft-to", "b"), 410, "removed member"),
        (
            stream().with("x-server-from", "e"),
            404,
            "error sender not found",
        ),
        (stream().with("x-server-from", "?"), 404, "invalid from"),
        (
            stream().with("x-ferrite-session", "1"),
            409,
            "a newer session has been seen",
        ),
        (
            stream().without("x-ferrite-session"),
            400,
            "not a stream of this version",
        ),
        (
            stream().with("upgrade", "ferrite-peer/2"),
            400,
            "not a stream of this version",
        ),
    ] {
        let answer = request.send(&a).await;
        assert_eq!((answer.status, answer.body), (status, format!("{text}\n")));
        assert_eq!(answer.headers["x-etcd-cluster-id"], CLUSTER.to_string());
        assert_eq!(answer.headers["x-server-version"], "3.7.1");
    }
    let get = "GET /ferrite/stream HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = send(&a, get).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn a_stream_is_answered_by_who_this_is() {
    let mut a = Node::start(0xa).await;
    a.meet(&[super::Peer {
        id: id(0xb),
        urls: vec![],
    }]);
    let answer = Request::stream(0xb, &a, 1).send(&a).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("x-etcd-cluster-id"), CLUSTER.to_string());
    assert_eq!(answer.header("x-server-version"), "3.7.1");
    assert_eq!(answer.header("upgrade"), "ferrite-peer/1");
}

#[tokio::test]
async fn a_removed_member_is_told_once() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    b.sockets.set_peers(vec![], vec![a.id]);
    a.meet(&[b.peer()]);
    a.wait_for(&Event::Removed(b.id)).await;
    // It goes on trying; only for the test is it taken back.
    b.sockets.set_peers(vec![a.peer()], vec![]);
    let before = a.wait_for(&Event::Reachable(b.id, true)).await;
    assert!(!before.contains(&Event::Removed(b.id)), "{before:?}");
}

#[tokio::test]
async fn a_member_that_is_not_known_yet_tries_again() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    a.meet(&[b.peer()]);
    a.wait_reachable(b.id, false).await;
    b.meet(&[a.peer()]);
    a.wait_reachable(b.id, true).await;
    a.send(b.id, numbered(1, 0));
    b.delivered().await;
}

#[tokio::test]
async fn members_of_two_clusters_do_not_talk() {
    let mut a = Node::start(0xa).await;
    let mut b = Node::start_with(Options {
        cluster_id: ClusterId::new(0xc2),
        ..options(0xb)
    })
    .await;
    a.meet(&[b.peer()]);
    b.meet(&[a.peer()]);
    a.wait_reachable(b.id, false).await;
    b.wait_reachable(a.id, false).await;
    assert!(a.peers.connections().since(b.id).is_none());
}
