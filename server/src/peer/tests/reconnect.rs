//! Connections that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Message, Peer, Transport};
use crate::serve::{Listener, Serves};

use super::{Event, Node, number, numbered, pair, soon};

/// Carries connections to a member, and cuts each after some bytes, until it is told to be good.
struct Cutter {
    url: String,
    good: Arc<AtomicBool>,
}

impl Cutter {
    async fn start(target: &Node, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let good = Arc::new(AtomicBool::new(false));
        let target = target.url.strip_prefix("http://").unwrap().to_owned();
        let (cuts, mut chance) = (Arc::clone(&good), StdRng::seed_from_u64(seed));
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let to = TcpStream::connect(&target).await.unwrap();
                // A few hundred bytes are gone before the stream begins.
                let budget = match (cuts.load(Ordering::SeqCst), chance.random_range(0..4)) {
                    (true, _) => usize::MAX,
                    (false, 0) => chance.random_range(0..600),
                    (false, _) => chance.random_range(300..200_000),
                };
                tokio::spawn(carry(from, to, budget));
            }
        });
        Self { url, good }
    }
}

/// Carries at most `budget` bytes forth, and everything back meanwhile.
async fn carry(from: TcpStream, to: TcpStream, mut budget: usize) {
    let (mut from_read, mut from_write) = from.into_split();
    let (mut to_read, mut to_write) = to.into_split();
    let back = tokio::io::copy(&mut to_read, &mut from_write);
    let forth = async {
        let mut bytes = vec![0; 10_000];
        while let Ok(count @ 1..) = from_read.read(&mut bytes).await {
            let count = count.min(budget);
            if to_write.write_all(&bytes[..count]).await.is_err() {
                return;
            }
            budget -= count;
            if budget == 0 {
                return;
            }
        }
    };
    tokio::select! {
        _ = back => {}
        () = forth => {}
    }
}

/// Messages through connections that are cut at random bytes: each arrives once at most, and never
/// after one that was sent later.
async fn cut(seed: u64) {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    let cutter = Cutter::start(&b, seed).await;
    // Who could reach `a` would offer it a stream that is not cut.
    b.meet(&[a.at(&nowhere().await)]);
    a.meet(&[b.at(&cutter.url)]);
    let mut chance = StdRng::seed_from_u64(!seed);
    let (mut next, mut newest, mut reconnects) = (1, 0, 0);
    let mut arrived = |message: &Message| {
        let number = number(message);
        assert!(number > newest, "seed {seed}: {number} after {newest}");
        newest = number;
        number
    };
    while reconnects < 10 {
        for _ in 0..chance.random_range(1..20) {
            let length = [0, 50, 3_000, 40_000][chance.random_range(0..4)];
            a.sockets.send(b.id, numbered(next, length));
            next += 1;
        }
        a.sockets.flush();
        // Until the last has arrived, or cannot any more.
        loop {
            tokio::select! {
                event = a.event() => {
                    if event == Event::Reachable(b.id, false) {
                        reconnects += 1;
                        // What is sent before is dropped, and nobody is told.
                        a.wait_reachable(b.id, true).await;
                        break;
                    }
                }
                event = b.event() => {
                    if let Event::Delivered(_, message) = event
                        && arrived(&message) == next - 1
                    {
                        break;
                    }
                }
            }
        }
    }
    cutter.good.store(true, Ordering::SeqCst);
    // Until one has made it, over a connection that lasts.
    'send: loop {
        a.send(b.id, numbered(next, 0));
        next += 1;
        loop {
            tokio::select! {
                // It may have been lost with the connection before.
                _ = a.event() => continue 'send,
                event = b.event() => {
                    if let Event::Delivered(_, message) = event
                        && arrived(&message) == next - 1
                    {
                        return;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn nothing_arrives_twice_however_connections_are_cut() {
    let runs: Vec<_> = (0..8).map(|seed| tokio::spawn(cut(seed))).collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_restarted_member_is_found_again() {
    let (mut a, b) = pair().await;
    let url = b.url.clone();
    soon(b.peers.shutdown(std::time::Duration::ZERO)).await;
    a.wait_reachable(b.id, false).await;
    assert!(a.peers.connections().since(b.id).is_none());

    let options = super::Options {
        session: 1 << 32,
        ..super::options(0xb)
    };
    let mut b = Node::start_with(options).await;
    assert_ne!(b.url, url);
    b.meet(&[a.peer()]);
    a.meet(&[b.peer()]);
    a.wait_reachable(b.id, true).await;
    assert!(a.peers.connections().since(b.id).is_some());
    a.send(b.id, numbered(1, 0));
    assert_eq!(number(&b.delivered().await.1), 1);
    b.send(a.id, numbered(2, 0));
    assert_eq!(number(&a.delivered().await.1), 2);
}

#[tokio::test]
async fn all_urls_of_a_peer_are_tried() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    b.meet(&[a.peer()]);
    let dead = nowhere().await;
    let urls = vec![
        "https://localhost:1".to_owned(),
        "not a URL".to_owned(),
        dead,
        b.url.clone(),
    ];
    a.meet(&[Peer { id: b.id, urls }]);
    a.wait_reachable(b.id, true).await;
}

/// A URL at which nobody listens: on a port that was just given back.
async fn nowhere() -> String {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", unused.local_addr().unwrap())
}

#[tokio::test]
async fn who_cannot_be_dialled_is_written_to_over_a_stream_of_its_own() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    b.meet(&[a.at(&nowhere().await)]);
    a.meet(&[b.peer()]);
    b.wait_reachable(a.id, true).await;
    b.send(a.id, numbered(1, 100_000));
    assert_eq!(number(&a.delivered().await.1), 1);
    a.send(b.id, numbered(2, 100_000));
    assert_eq!(number(&b.delivered().await.1), 2);
    let asked = soon(a.peers.ask(b.id, "who am I? ".into())).await;
    assert_eq!(asked.unwrap(), "who am I? a");
    let asked = soon(b.peers.ask(a.id, "who am I? ".into())).await;
    assert_eq!(asked.unwrap(), "who am I? b");

    // One that breaks is followed by another.
    a.meet(&[]);
    b.wait_reachable(a.id, false).await;
    a.meet(&[b.peer()]);
    b.wait_reachable(a.id, true).await;
    b.send(a.id, numbered(3, 0));
    assert_eq!(number(&a.delivered().await.1), 3);

    // Nor is one lost that goes on when there is another way.
    b.meet(&[a.peer()]);
    b.send(a.id, numbered(4, 0));
    assert_eq!(number(&a.delivered().await.1), 4);
}

#[tokio::test]
async fn members_may_meet_at_unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let listen = async |name: &str| {
        let path = dir.path().join(name);
        let listener = Listener::unix(&path, Serves::Http).await.unwrap();
        (listener, format!("unix://{}", path.display()))
    };
    let ((a_listener, a_url), (b_listener, b_url)) = (listen("a").await, listen("b").await);
    let mut a = Node::start_at(super::options(0xa), a_listener, a_url);
    let mut b = Node::start_at(super::options(0xb), b_listener, b_url);
    a.meet(&[b.peer()]);
    b.meet(&[a.peer()]);
    a.wait_reachable(b.id, true).await;
    a.send(b.id, numbered(1, 100_000));
    assert_eq!(number(&b.delivered().await.1), 1);
}

#[tokio::test]
async fn a_peer_that_is_dropped_is_left_alone_and_may_come_back() {
    let (mut a, mut b) = pair().await;
    a.meet(&[]);
    b.wait_reachable(a.id, false).await;
    a.send(b.id, numbered(1, 0));
    a.meet(&[b.peer()]);
    b.wait_reachable(a.id, true).await;
    a.send(b.id, numbered(2, 0));
    assert_eq!(number(&b.delivered().await.1), 2);
}
