//! Messages between members that are connected.

use std::time::Duration;

use ferrite_api::types::RequestId;
use tokio::io::AsyncWriteExt;

use super::super::frame::Frame;
use super::super::{Forwarded, Message, Options, ReadMessage, Transport};
use super::raw::{Fake, read_frames};
use super::{Event, Node, id, number, numbered, options, pair, soon};

#[tokio::test]
async fn every_kind_of_message_arrives() {
    let (mut a, mut b) = pair().await;
    let forwarded = Forwarded {
        id: RequestId::new(7),
        changes_members: true,
        payload: "put".into(),
    };
    let messages = [
        Message::Raft("vote".into()),
        Message::Propose {
            term: 7,
            proposals: vec![forwarded],
        },
        Message::Refused {
            term: 7,
            ids: vec![RequestId::new(8)],
        },
        Message::Read(ReadMessage::Index { number: 1 }),
        Message::Read(ReadMessage::IndexAnswer {
            number: 2,
            index: None,
        }),
    ];
    for message in &messages {
        a.send(b.id, message.clone());
        assert_eq!(b.delivered().await, (a.id, message.clone()));
        b.send(a.id, message.clone());
        assert_eq!(a.delivered().await, (b.id, message.clone()));
    }
}

#[tokio::test]
async fn messages_arrive_in_order_whatever_their_lengths() {
    let (mut a, mut b) = pair().await;
    let lengths = [0, 1, 100, 20_000, 70_000, 0, 300_000, 5, 3_000_000, 0];
    for (number, length) in (0..).zip(lengths.into_iter().cycle().take(40)) {
        a.sockets.send(b.id, numbered(number, length));
    }
    a.sockets.flush();
    for expected in 0..40 {
        assert_eq!(number(&b.delivered().await.1), expected);
    }
}

#[tokio::test]
async fn what_is_sent_before_there_is_a_connection_arrives() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    b.meet(&[a.peer()]);
    a.meet(&[b.peer()]);
    a.send(b.id, numbered(1, 0));
    assert_eq!(number(&b.delivered().await.1), 1);
}

#[tokio::test]
async fn unknown_members_get_nothing() {
    let (mut a, mut b) = pair().await;
    a.send(id(0xdead), numbered(1, 0));
    a.send(b.id, numbered(2, 0));
    assert_eq!(number(&b.delivered().await.1), 2);
}

#[tokio::test]
async fn a_slow_peer_is_bounded_and_delays_nobody() {
    const BOUND: usize = 1 << 20;
    const LENGTH: usize = 256 << 10;
    let slow = Fake::start().await;
    let mut a = Node::start_with(Options {
        queue_bytes: BOUND,
        ..options(0xa)
    })
    .await;
    let (mut b, c) = (Node::start(0xb).await, id(0xc));
    b.meet(&[a.peer()]);
    let stuck = super::Peer {
        id: c,
        urls: vec![slow.url.clone()],
    };
    a.meet(&[b.peer(), stuck]);
    let mut socket = slow.stream().await;
    a.wait_reachable(b.id, true).await;

    let link = a.peers.shared().link(c).unwrap();
    let mut sent = 0;
    loop {
        a.send(c, numbered(sent, LENGTH));
        a.send(b.id, numbered(sent, 0));
        assert_eq!(number(&b.delivered().await.1), sent);
        assert!(link.waiting() <= BOUND + LENGTH + 100);
        sent += 1;
        if link.metrics.sent_failures.get() > 0 {
            break;
        }
    }
    a.wait_reachable(c, false).await;
    // It is slow, not gone: when it reads again it is told of as reachable, and what is sent then
    // arrives.
    let reading = tokio::spawn(async move {
        read_frames(&mut socket, |frame| {
            *frame == Frame::Message(numbered(999, 0))
        })
        .await;
    });
    a.wait_reachable(c, true).await;
    a.send(c, numbered(999, 0));
    soon(reading).await.unwrap();
}

#[tokio::test]
async fn shutdown_writes_what_is_queued() {
    let (mut a, mut b) = pair().await;
    for number in 0..50 {
        a.sockets.send(b.id, numbered(number, 500_000));
    }
    soon(a.peers.shutdown(Duration::from_secs(60))).await;
    for expected in 0..50 {
        assert_eq!(number(&b.delivered().await.1), expected);
    }
    b.wait_reachable(a.id, false).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_peer_that_is_gone() {
    let stuck = Fake::start().await;
    let mut a = Node::start(0xa).await;
    a.meet(&[super::Peer {
        id: id(0xc),
        urls: vec![stuck.url.clone()],
    }]);
    let _socket = stuck.stream().await;
    a.wait_reachable(id(0xc), true).await;
    for number in 0..50 {
        a.sockets.send(id(0xc), numbered(number, 1 << 20));
    }
    soon(a.peers.shutdown(Duration::from_millis(10))).await;
}

#[tokio::test]
async fn dropping_the_transport_ends_everything() {
    let (a, mut b) = pair().await;
    let (peers, url) = (a.peers.clone(), a.url.clone());
    drop(a.sockets);
    b.wait_reachable(a.id, false).await;
    soon(peers.shutdown(Duration::ZERO)).await;
    let address = url.strip_prefix("http://").unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn malformed_frames_end_the_stream_and_what_came_before_them_counts() {
    let mut a = Node::start(0xa).await;
    a.meet(&[super::Peer {
        id: id(0xb),
        urls: vec![],
    }]);
    for (session, garbage) in [
        (1, &[0, 0, 0, 0][..]),
        (2, &[0xff, 0xff, 0xff, 0xff, 1]),
        (3, &[1, 0, 0, 0, 0x7f]),
        (4, &[3, 0, 0, 0, 4, 1, 1]),
    ] {
        let request = super::raw::Request::stream(0xb, &a, session);
        let mut answer = request.send(&a).await;
        assert_eq!(answer.status, 101);
        let good = [
            9,
            0,
            0,
            0,
            4,
            u8::try_from(session).unwrap(),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        answer.socket.write_all(&good).await.unwrap();
        answer.socket.write_all(garbage).await.unwrap();
        let message = Message::Read(ReadMessage::Index { number: session });
        a.wait_for(&Event::Delivered(id(0xb), message)).await;
        assert!(super::raw::is_ended(&mut answer.socket).await);
    }
}
