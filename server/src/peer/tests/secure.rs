//! Members that meet over TLS.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_test_authority::{Authority, Subject};
use ferrite_tls::Info;

use super::super::{Peer, SnapshotSource, Transport, Via};
use super::{Event, Node, id, number, numbered, options, soon};
use crate::serve::{Endpoint, Listener, Serves, Tls};

/// The certificates of a member, in files of that name.
fn info(dir: &Path, ca: &Authority, subject: &Subject) -> Info {
    let (cert, key) = ca.issue(subject).write(dir, &subject.common_name);
    Info {
        cert_file: Some(cert),
        key_file: Some(key),
        trusted_ca_file: Some(ca.write(dir)),
        client_cert_auth: true,
        ..Info::default()
    }
}

fn tls(info: &Info) -> Tls {
    Tls {
        server: info.server(&[]).unwrap(),
        endpoint: Endpoint::Peer,
        plain_too: false,
        checks_address: true,
        identifies: false,
    }
}

async fn start(at: u64, info: &Info) -> Node {
    let listener = Listener::tcp("127.0.0.1:0", Serves::Http).await.unwrap();
    let url = format!("https://{}", listener.address());
    let mut options = options(at);
    options.via = Via::new(None, info.clone()).unwrap();
    Node::start_at(options, listener.secured(tls(info)), url)
}

async fn pair(dir: &Path) -> (Node, Node) {
    let ca = Authority::new("ca");
    let (mut a, mut b) = (
        start(0xa, &info(dir, &ca, &Subject::member("a"))).await,
        start(0xb, &info(dir, &ca, &Subject::member("b"))).await,
    );
    a.meet(&[b.peer()]);
    b.meet(&[a.peer()]);
    a.wait_reachable(b.id, true).await;
    b.wait_reachable(a.id, true).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_all_sizes_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let (mut a, mut b) = pair(dir.path()).await;
    // More than the sockets and the buffers of TLS hold.
    let lengths = [0, 1, 1000, 100_000, 20_000_000, 16_384, 5];
    let (to_a, to_b) = (a.id, b.id);
    for round in 0..3_u64 {
        for (at, length) in (0..).zip(lengths) {
            let message = numbered(round * 10 + at, length);
            a.send(to_b, message.clone());
            b.send(to_a, message);
        }
    }
    for node in [&mut a, &mut b] {
        for round in 0..3 {
            for at in 0..lengths.len() as u64 {
                assert_eq!(number(&node.delivered().await.1), round * 10 + at);
            }
        }
    }
    // Questions go over the stream of the other direction.
    let asked = a.peers.ask(b.id, Bytes::from_static(b"who? "));
    assert_eq!(soon(asked).await.unwrap(), "who? a");
    // What waits goes out before the end.
    a.send(to_b, numbered(99, 1_000_000));
    a.peers.shutdown(std::time::Duration::from_secs(60)).await;
    assert_eq!(number(&b.delivered().await.1), 99);
}

struct Pieces(u8);

impl SnapshotSource for Pieces {
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.0 += 1;
        Ok((self.0 <= 20).then(|| Bytes::from(vec![self.0; 300_000])))
    }

    fn size_hint(&self) -> u64 {
        6_000_000
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let (mut a, mut b) = pair(dir.path()).await;
    let message = Bytes::from_static(b"snapshot");
    a.sockets
        .send_snapshot(b.id, message.clone(), Box::new(Pieces(0)));
    a.wait_for(&Event::SnapshotSent(b.id, true)).await;
    b.wait_for(&Event::SnapshotBegun(a.id)).await;
    match b.event().await {
        Event::Snapshot(from, of, pieces, Ok(())) => {
            assert_eq!((from, of), (a.id, message));
            let bytes: Vec<u8> = pieces.concat();
            let expected: Vec<u8> = (1..=20).flat_map(|piece| vec![piece; 300_000]).collect();
            assert!(bytes == expected);
        }
        other => panic!("{other:?}"),
    }
}

/// The lines that the log has about connections, with their errors.
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>, Arc<tokio::sync::Notify>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        self.1.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    async fn wait_for(&self, texts: &[&str]) {
        let found = async {
            loop {
                let text = String::from_utf8_lossy(&self.0.lock()).into_owned();
                if texts.iter().all(|wanted| text.contains(wanted)) {
                    return;
                }
                self.1.notified().await;
            }
        };
        let patience = std::time::Duration::from_secs(60);
        if tokio::time::timeout(patience, found).await.is_err() {
            panic!("{texts:?} in {}", String::from_utf8_lossy(&self.0.lock()));
        }
    }
}

/// What both sides log when `b` does not let `a` in, and `a` not `b`.
async fn refused(a: &Info, b: &Info, texts: &[&str]) {
    let lines = Lines::default();
    let make = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_writer(make).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (mut a, b) = (start(0xa, a).await, start(0xb, b).await);
    a.meet(&[Peer {
        id: id(0xb),
        urls: vec![b.url.clone()],
    }]);
    lines.wait_for(texts).await;
}

#[tokio::test]
async fn names_and_addresses_that_may_not_connect() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = Authority::new("ca");
    let (a, b) = (
        info(dir, &ca, &Subject::member("a")),
        info(dir, &ca, &Subject::member("b")),
    );
    let strict = Info {
        allowed_cns: vec!["c".to_owned()],
        ..b.clone()
    };
    let rejected = "rejected connection on peer endpoint";
    let not_allowed = "client certificate authentication failed";
    let told = "remote error: tls: bad certificate";
    refused(&a, &strict, &[rejected, not_allowed, told]).await;
    // In the other direction, too.
    refused(
        &Info {
            allowed_hostnames: vec!["c.example".to_owned()],
            ..a.clone()
        },
        &b,
        &[rejected, not_allowed, told],
    )
    .await;
    let elsewhere = Subject {
        hosts: vec!["192.0.2.1".to_owned()],
        ..Subject::member("elsewhere")
    };
    let elsewhere = info(dir, &ca, &elsewhere);
    refused(
        &elsewhere,
        &b,
        &[
            rejected,
            "x509: certificate is valid for 192.0.2.1, not 127.0.0.1",
        ],
    )
    .await;
    let other = info(dir, &Authority::new("other"), &Subject::member("stranger"));
    let unknown =
        "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    refused(
        &other,
        &b,
        &[unknown, "remote error: tls: unknown certificate authority"],
    )
    .await;
}
