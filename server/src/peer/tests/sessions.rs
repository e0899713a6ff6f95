//! One connection of a sender counts: the newest.

use tokio::io::AsyncWriteExt;

use super::super::{Message, ReadMessage};
use super::raw::{Request, is_ended};
use super::{Node, id, number, numbered};

fn read_index(number: u8) -> ([u8; 13], Message) {
    let frame = [9, 0, 0, 0, 4, number, 0, 0, 0, 0, 0, 0, 0];
    let number = number.into();
    (frame, Message::Read(ReadMessage::Index { number }))
}

#[tokio::test]
async fn a_newer_session_ends_the_older_at_once() {
    let mut a = Node::start(0xa).await;
    a.meet(&[super::Peer {
        id: id(0xb),
        urls: vec![],
    }]);
    let mut old = Request::stream(0xb, &a, 5).send(&a).await;
    let (frame, message) = read_index(1);
    old.socket.write_all(&frame).await.unwrap();
    assert_eq!(a.delivered().await, (id(0xb), message));

    let mut new = Request::stream(0xb, &a, 6).send(&a).await;
    assert_eq!(new.status, 101);
    // It may be closed already.
    let _ = old.socket.write_all(&read_index(2).0).await;
    assert!(is_ended(&mut old.socket).await);
    let (frame, message) = read_index(3);
    new.socket.write_all(&frame).await.unwrap();
    assert_eq!(a.delivered().await, (id(0xb), message));

    for session in [4, 5, 6] {
        let late = Request::stream(0xb, &a, session).send(&a).await;
        assert_eq!((late.status, late.header("x-ferrite-session")), (409, "6"));
    }
}

#[tokio::test]
async fn sessions_of_different_members_have_nothing_to_do_with_each_other() {
    let mut a = Node::start(0xa).await;
    let peer = |number| super::Peer {
        id: id(number),
        urls: vec![],
    };
    a.meet(&[peer(0xb), peer(0xc)]);
    let mut b = Request::stream(0xb, &a, 9).send(&a).await;
    let c = Request::stream(0xc, &a, 3).send(&a).await;
    assert_eq!((b.status, c.status), (101, 101));
    let (frame, message) = read_index(1);
    b.socket.write_all(&frame).await.unwrap();
    assert_eq!(a.delivered().await, (id(0xb), message));
}

/// A clock that was set back numbers sessions too low.
#[tokio::test]
async fn a_sender_whose_sessions_are_too_low_raises_them() {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    a.meet(&[b.peer()]);
    let old = Request::stream(0xb, &a, 1 << 40).send(&a).await;
    assert_eq!(old.status, 101);
    b.meet(&[a.peer()]);
    b.wait_reachable(a.id, true).await;
    b.send(a.id, numbered(1, 0));
    assert_eq!(number(&a.delivered().await.1), 1);
}
