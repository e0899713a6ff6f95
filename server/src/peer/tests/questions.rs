//! Questions and answers.

use std::future::Future;
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::super::AskError;
use super::raw::Request;
use super::{Event, id, numbered, pair, soon};

#[tokio::test]
async fn questions_are_answered() {
    let (a, b) = pair().await;
    // Both directions are there for both when a question has come through.
    for (from, to, expected) in [(&a, &b, "whoa"), (&b, &a, "whob")] {
        let answer = soon(from.peers.ask(to.id, "who".into())).await;
        assert_eq!(answer, Ok(Bytes::from(expected)));
    }
    let mut asked = JoinSet::new();
    for size in 0..100 {
        let (peers, to) = (a.peers.clone(), b.id);
        asked.spawn(async move {
            let question = vec![b'x'; size * 1000];
            let answer = peers.ask(to, question.clone().into()).await.unwrap();
            assert_eq!(answer, [&question[..], b"a"].concat());
        });
    }
    soon(asked.join_all()).await;
}

#[tokio::test]
async fn who_cannot_be_reached_is_not_asked() {
    let (a, b) = pair().await;
    let nobody = a.peers.ask(id(0xdead), "who".into());
    assert_eq!(soon(nobody).await, Err(AskError::Unreachable));
    soon(b.peers.shutdown(std::time::Duration::ZERO)).await;
    let gone = a.peers.ask(b.id, "never".into());
    assert_eq!(soon(gone).await, Err(AskError::Unreachable));
}

#[tokio::test]
async fn a_question_fails_with_the_stream_that_carried_it() {
    let (a, mut b) = pair().await;
    let (peers, to) = (a.peers.clone(), b.id);
    let asked = tokio::spawn(async move { peers.ask(to, "never".into()).await });
    // What is answered later has been asked before: the first is on its way.
    soon(a.peers.ask(b.id, "who".into())).await.unwrap();
    b.meet(&[]);
    assert_eq!(soon(asked).await.unwrap(), Err(AskError::Unreachable));
}

#[tokio::test]
async fn a_question_fails_when_its_answer_has_lost_its_way() {
    let (mut a, mut b) = pair().await;
    let (peers, to) = (a.peers.clone(), b.id);
    let asked = tokio::spawn(async move { peers.ask(to, "never".into()).await });
    soon(a.peers.ask(b.id, "who".into())).await.unwrap();
    // A newer stream from the same member takes the place of that which the answer would come by.
    let newer = Request::stream(0xb, &a, u64::MAX - 1).send(&a).await;
    assert_eq!(newer.status, 101);
    assert_eq!(soon(asked).await.unwrap(), Err(AskError::Unreachable));
    // The other direction has not noticed anything.
    a.send(b.id, numbered(1, 0));
    b.wait_for(&Event::Delivered(a.id, numbered(1, 0))).await;
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_forgotten() {
    let (a, b) = pair().await;
    let link = a.peers.shared().link(b.id).unwrap();
    let mut asked = Box::pin(a.peers.ask(b.id, "never".into()));
    assert!(
        asked
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(link.questions.waiting(), 1);
    drop(asked);
    assert_eq!(link.questions.waiting(), 0);
}

#[tokio::test]
async fn too_many_questions_are_refused() {
    let (a, b) = pair().await;
    let mut asked = JoinSet::new();
    for _ in 0..10_001 {
        let (peers, to) = (a.peers.clone(), b.id);
        asked.spawn(async move { peers.ask(to, "never".into()).await });
    }
    let first = soon(asked.join_next()).await.unwrap().unwrap();
    assert_eq!(first, Err(AskError::Overloaded));
}
