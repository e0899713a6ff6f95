//! Snapshots from member to member.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::{SnapshotSource, Transport};
use super::metrics::value;
use super::{CLUSTER, Event, Node, Snapshots, id, numbered, pair, soon};

/// Pieces, then the end or a failure.
struct Source {
    pieces: std::vec::IntoIter<Bytes>,
    failure: Option<&'static str>,
}

impl SnapshotSource for Source {
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        match (self.pieces.next(), self.failure) {
            (None, Some(failure)) => Err(failure.to_owned()),
            (piece, _) => Ok(piece),
        }
    }

    fn size_hint(&self) -> u64 {
        self.pieces
            .as_slice()
            .iter()
            .map(|piece| piece.len() as u64)
            .sum()
    }
}

fn pieces() -> Vec<Bytes> {
    [1, 100_000, 3_000_000, 7, 65_536]
        .into_iter()
        .map(|length| Bytes::from(vec![u8::try_from(length % 251).unwrap(); length]))
        .collect()
}

fn source(pieces: Vec<Bytes>, failure: Option<&'static str>) -> Box<Source> {
    let pieces = pieces.into_iter();
    Box::new(Source { pieces, failure })
}

/// The end of the next snapshot that comes.
async fn received(node: &mut Node) -> (Bytes, Vec<Bytes>, Result<(), String>) {
    loop {
        if let Event::Snapshot(_, message, pieces, result) = node.event().await {
            return (message, pieces, result);
        }
    }
}

#[tokio::test]
async fn a_snapshot_arrives_as_it_is() {
    let (mut a, mut b) = pair().await;
    for message in [Bytes::from("term 3, index 7"), Bytes::new()] {
        a.sockets
            .send_snapshot(b.id, message.clone(), source(pieces(), None));
        let taken = Event::Snapshot(a.id, message, pieces(), Ok(()));
        b.wait_for(&taken).await;
        a.wait_for(&Event::SnapshotSent(b.id, true)).await;
    }
    // An empty piece says nothing, and is not the end.
    let mut with_empty = pieces();
    with_empty.insert(1, Bytes::new());
    with_empty.push(Bytes::new());
    a.sockets
        .send_snapshot(b.id, "m".into(), source(with_empty, None));
    assert_eq!(received(&mut b).await.1, pieces());
    a.wait_for(&Event::SnapshotSent(b.id, true)).await;

    for (node, series) in [
        (&a, r#"etcd_network_snapshot_send_success{To="b"}"#),
        (
            &a,
            r#"etcd_network_snapshot_send_total_duration_seconds_count{To="b"}"#,
        ),
        (&b, r#"etcd_network_snapshot_receive_success{From="a"}"#),
        (
            &b,
            r#"etcd_network_snapshot_receive_total_duration_seconds_count{From="a"}"#,
        ),
    ] {
        assert_eq!(value(node, series), "3", "{series}");
    }
    for (node, series) in [
        (&a, r#"etcd_network_snapshot_send_inflights_total{To="b"}"#),
        (
            &b,
            r#"etcd_network_snapshot_receive_inflights_total{From="a"}"#,
        ),
        (&a, r#"etcd_network_snapshot_send_failures{To="b"}"#),
    ] {
        assert_eq!(value(node, series), "0", "{series}");
    }
}

#[tokio::test]
async fn a_source_that_fails_is_no_end() {
    let (mut a, mut b) = pair().await;
    let failing = source(pieces(), Some("bad disk"));
    a.sockets.send_snapshot(b.id, "m".into(), failing);
    let (.., result) = received(&mut b).await;
    assert!(result.is_err());
    a.wait_for(&Event::SnapshotSent(b.id, false)).await;
    // It may fail before anything has left.
    let failing = source(Vec::new(), Some("bad disk"));
    a.sockets.send_snapshot(b.id, "m".into(), failing);
    a.wait_for(&Event::SnapshotSent(b.id, false)).await;
    let failures = value(&a, r#"etcd_network_snapshot_send_failures{To="b"}"#);
    assert_eq!(failures, "2");
}

/// The reason for which a snapshot was not sent.
async fn failure(a: &Node, to: &Node, source: Box<Source>) -> String {
    let shared = a.peers.shared();
    let link = shared.link(to.id).unwrap();
    let progress = super::super::snapshot::Progress::default();
    let sent = super::super::snapshot::transfer(shared, &link, "m".into(), source, &progress);
    soon(sent).await.unwrap_err().to_string()
}

#[tokio::test]
async fn both_sides_know_why_it_failed() {
    let (a, b) = pair().await;
    let why = failure(&a, &b, source(pieces(), Some("bad disk"))).await;
    assert_eq!(why, "it cannot be read: bad disk");
    for after in [0, 1, 4] {
        *b.snapshots.lock() = Snapshots::Refuse(after);
        let why = failure(&a, &b, source(pieces(), None)).await;
        assert_eq!(why, "500 Internal Server Error: no room here");
        // Much more than fits into the sockets between them: nobody sends it to the end.
        let endless = vec![Bytes::from(vec![1; 1 << 20]); 200];
        let why = failure(&a, &b, source(endless, None)).await;
        assert_eq!(why, "500 Internal Server Error: no room here");
    }
}

#[tokio::test]
async fn a_refused_snapshot_is_told() {
    let (mut a, mut b) = pair().await;
    *b.snapshots.lock() = Snapshots::Refuse(2);
    a.sockets
        .send_snapshot(b.id, "m".into(), source(pieces(), None));
    let (_, taken, _) = received(&mut b).await;
    assert_eq!(taken, pieces()[..2]);
    a.wait_for(&Event::SnapshotSent(b.id, false)).await;
    // Messages go on.
    a.send(b.id, numbered(1, 0));
    b.delivered().await;
    a.sockets
        .send_snapshot(id(0xdead), "m".into(), source(pieces(), None));
    a.wait_for(&Event::SnapshotSent(id(0xdead), false)).await;
}

/// Pieces as the test hands them in.
struct Slow(std::sync::mpsc::Receiver<Bytes>);

impl SnapshotSource for Slow {
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.recv().ok())
    }

    fn size_hint(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn one_snapshot_at_a_time() {
    let (mut a, mut b) = pair().await;
    let (next, slow) = std::sync::mpsc::channel();
    a.sockets
        .send_snapshot(b.id, "first".into(), Box::new(Slow(slow)));
    a.sockets
        .send_snapshot(b.id, "second".into(), source(pieces(), None));
    a.wait_for(&Event::SnapshotSent(b.id, false)).await;
    next.send(Bytes::from("piece")).unwrap();
    drop(next);
    let (message, taken, result) = received(&mut b).await;
    assert_eq!(
        (&message[..], taken),
        (&b"first"[..], vec![Bytes::from("piece")])
    );
    assert_eq!(result, Ok(()));
    a.wait_for(&Event::SnapshotSent(b.id, true)).await;
}

#[tokio::test]
async fn a_snapshot_to_a_peer_that_is_dropped_ends() {
    let (mut a, mut b) = pair().await;
    let (next, slow) = std::sync::mpsc::channel();
    a.sockets
        .send_snapshot(b.id, "m".into(), Box::new(Slow(slow)));
    next.send(Bytes::from("piece")).unwrap();
    b.wait_for(&Event::SnapshotBegun(a.id)).await;
    a.meet(&[]);
    a.wait_for(&Event::SnapshotSent(b.id, false)).await;
    drop(next);
    assert!(received(&mut b).await.2.is_err());
}

/// Carries connections to a member and cuts those with snapshots after some bytes.
async fn cut_snapshots(target: &Node, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = target.url.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move {
                let mut first = vec![0; 20];
                from.read_exact(&mut first).await.unwrap();
                to.write_all(&first).await.unwrap();
                if first.starts_with(b"POST /ferrite/stream") {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                } else {
                    let mut some = from.take(after as u64);
                    let _ = tokio::io::copy(&mut some, &mut to).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_connection_that_is_cut_is_no_end() {
    for after in [0, 400, 50_000, 3_000_000] {
        let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
        let url = cut_snapshots(&b, after).await;
        b.meet(&[a.peer()]);
        a.meet(&[b.at(&url)]);
        a.wait_reachable(b.id, true).await;
        a.sockets
            .send_snapshot(b.id, "m".into(), source(pieces(), None));
        a.wait_for(&Event::SnapshotSent(b.id, false)).await;
        if after > 1000 {
            assert!(received(&mut b).await.2.is_err());
        }
    }
}

/// Sends a snapshot by hand: the headers as of a member, then this.
async fn by_hand(to: &Node, from: u64, body: &[u8]) -> String {
    let address = to.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /ferrite/snapshot HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         x-server-from: {from:x}\r\nx-raft-to: {}\r\nx-etcd-cluster-id: {CLUSTER}\r\n\
         x-server-version: 3.7.1\r\ncontent-length: {}\r\n\r\n",
        to.id,
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn what_is_no_snapshot_is_refused() {
    let (a, b) = pair().await;
    for (body, text) in [
        (&[][..], "the snapshot ends early"),
        (&[1, 0, 0], "the snapshot ends early"),
        (&[1, 0, 0, 0, b'm'], "the snapshot ends early"),
        (
            &[1, 0, 0, 0, b'm', 2, 0, 0, 0, 1],
            "the snapshot ends early",
        ),
        (
            &[0xff; 4],
            "4294967295 bytes at once are more than 67108864",
        ),
        (
            &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "4294967295 bytes at once are more than 67108864",
        ),
    ] {
        let answer = by_hand(&b, 0xa, body).await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{text}\n")), "{answer}");
    }
    let answer = by_hand(&b, 0xa, &[1, 0, 0, 0, b'm', 0, 0, 0, 0]).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let answer = by_hand(&b, 0xdead, &[0, 0, 0, 0, 0, 0, 0, 0]).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("error sender not found\n"), "{answer}");
    let unknown = r#"etcd_network_snapshot_receive_failures{From="UNKNOWN_SNAPSHOT_SENDER"}"#;
    assert_eq!(value(&b, unknown), "1");
    drop(a);
}
