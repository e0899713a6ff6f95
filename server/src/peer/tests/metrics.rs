//! The metrics of peers.

use super::super::probe::Probe;
use super::super::{Transport, Via};
use super::{Node, id, numbered, pair, soon};

/// The value of a series.
pub(super) fn value(node: &Node, series: &str) -> String {
    let text = String::from_utf8(node.metrics.scrape().unwrap()).unwrap();
    let line = text.lines().find(|line| line.starts_with(series));
    line.and_then(|line| line.rsplit(' ').next())
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn bytes_and_connections_are_counted() {
    let (mut a, mut b) = pair().await;
    let pair = |name: &str| format!(r#"etcd_network_{name}{{Local="a",Remote="b"}}"#);
    assert_eq!(value(&a, &pair("known_peers")), "1");
    assert_eq!(value(&a, &pair("active_peers")), "1");
    assert_eq!(value(&a, &pair("disconnected_peers_total")), "0");
    a.send(b.id, numbered(1, 1000));
    b.delivered().await;
    let sent = value(&a, r#"etcd_network_peer_sent_bytes_total{To="b"}"#);
    assert!(sent.parse::<u64>().unwrap() > 1000, "{sent}");
    let received = value(&b, r#"etcd_network_peer_received_bytes_total{From="a"}"#);
    assert!(received.parse::<u64>().unwrap() > 1000, "{received}");

    a.meet(&[]);
    a.wait_reachable(b.id, false).await;
    assert_eq!(value(&a, &pair("known_peers")), "0");
    assert_eq!(value(&a, &pair("active_peers")), "0");
    assert_eq!(value(&a, &pair("disconnected_peers_total")), "1");
}

#[tokio::test]
async fn probes_measure_the_way_and_the_clock() {
    let (a, b) = pair().await;
    let link = a.peers.shared().link(b.id).unwrap();
    let mut probe = Probe::new(&Via::default());
    for _ in 0..3 {
        let found = soon(probe.probe(&link)).await.unwrap();
        // Both have the same clock, which has to be read between the question and the answer.
        assert!(found.drift.unwrap() <= found.round_trip);
    }
    soon(b.peers.shutdown(std::time::Duration::ZERO)).await;
    assert!(soon(probe.probe(&link)).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_sent_is_counted() {
    let mut a = Node::start(0xa).await;
    let nowhere = super::Peer {
        id: id(0xb),
        urls: vec![],
    };
    a.meet(&[nowhere]);
    a.wait_reachable(id(0xb), false).await;
    for number in 0..3 {
        a.sockets.send(id(0xb), numbered(number, 0));
    }
    let failures = r#"etcd_network_peer_sent_failures_total{To="b"}"#;
    assert_eq!(value(&a, failures), "3");
}
