//! Renewal in time: on tokio's own clock, which stands still while anything can be done.

use tokio::sync::mpsc;

use super::*;
use crate::EtcdError;

/// Seconds.
const TTL: i64 = 30;

/// The server's ends of a stream.
struct Ends {
    requests: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Error>>,
}

/// What opens streams in memory, and where their other ends come out.
fn streams() -> (
    impl Fn() -> Stream + Send + 'static,
    mpsc::UnboundedReceiver<Ends>,
) {
    let (sender, opened) = mpsc::unbounded_channel();
    let open = move || {
        let (stream, requests, answers) = TwoWay::in_memory();
        // A test that has seen enough does not listen any more.
        let _ = sender.send(Ends { requests, answers });
        stream
    };
    (open, opened)
}

fn renewal(id: i64) -> pb::LeaseKeepAliveResponse {
    pb::LeaseKeepAliveResponse {
        header: None,
        id,
        ttl: TTL,
    }
}

fn lease(id: i64) -> LeaseId {
    LeaseId::new(id)
}

/// Whole seconds since `start`.
fn since(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(1)).as_secs()
}

#[tokio::test(start_paused = true)]
async fn renewals_go_out_every_third_of_the_time() {
    let (open, mut opened) = streams();
    let keeper = Keeper::default();
    let start = Instant::now();
    let _listener = keeper.listen_on(open, lease(7), false);
    let mut ends = opened.recv().await.expect("a stream");
    for expected in [0, 10, 20, 30, 40] {
        let request = ends.requests.recv().await.expect("a renewal");
        assert_eq!((request.id, since(start)), (7, expected));
        ends.answers.send(Ok(renewal(7))).await.expect("it reads");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_replaced_and_only_what_is_due_goes_out() {
    let (open, mut opened) = streams();
    let keeper = Keeper::default();
    let start = Instant::now();
    let _listener = keeper.listen_on(open, lease(7), false);
    let mut ends = opened.recv().await.expect("a stream");
    ends.requests.recv().await.expect("a renewal");
    ends.answers.send(Ok(renewal(7))).await.expect("it reads");
    let error = Error::from(Status::unavailable("gone"));
    ends.answers.send(Err(error)).await.expect("it reads");
    let mut ends = opened.recv().await.expect("another stream");
    assert_eq!(start.elapsed(), REOPEN);
    ends.requests.recv().await.expect("a renewal");
    assert_eq!(since(start), 10);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_before_the_lease_is_lost() {
    let (open, mut opened) = streams();
    let keeper = Keeper::default();
    let start = Instant::now();
    let mut listener = keeper.listen_on(open, lease(7), false);
    let mut ends = opened.recv().await.expect("a stream");
    ends.requests.recv().await.expect("a renewal");
    ends.answers.send(Ok(renewal(7))).await.expect("it reads");
    listener.next().await.expect("renewed");
    // Sent after 10 s and not answered for another 10.
    ends.requests.recv().await.expect("a renewal");
    let mut second = opened.recv().await.expect("another stream");
    assert_eq!(since(start), 20);
    second.requests.recv().await.expect("the renewal again");
    // Nobody answers at all: lost a whole time to live after the last one that was answered.
    let error = listener.next().await.expect_err("lost");
    assert!(
        matches!(error, Error::KeepAliveLost { last: Some(_) }),
        "{error:?}"
    );
    assert_eq!(since(start), 30);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_never_renewed_is_given_up() {
    let (open, _opened) = streams();
    let keeper = Keeper::default();
    let start = Instant::now();
    let mut listener = keeper.listen_on(open, lease(7), false);
    let error = listener.next().await.expect_err("lost");
    assert!(matches!(error, Error::KeepAliveLost { .. }), "{error:?}");
    assert_eq!(since(start), 5);
}

#[tokio::test(start_paused = true)]
async fn the_stream_closes_with_its_last_listener_and_opens_for_the_next() {
    let keeper = Keeper::default();
    for _ in 0..2 {
        let (open, mut opened) = streams();
        let listener = keeper.listen_on(open, lease(7), false);
        let mut ends = opened.recv().await.expect("a stream");
        ends.requests.recv().await.expect("a renewal");
        drop(listener);
        assert!(ends.requests.recv().await.is_none(), "the stream is closed");
        assert!(opened.recv().await.is_none(), "the task has ended");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_lease_does_not_disturb_another() {
    let (open, mut opened) = streams();
    let keeper = Keeper::default();
    let mut gone = keeper.listen_on(open, lease(1), false);
    let mut ends = opened.recv().await.expect("a stream");
    let (unused, _) = streams();
    let mut lives = keeper.listen_on(unused, lease(2), false);
    for _ in 0..2 {
        let request = ends.requests.recv().await.expect("a renewal");
        let answer = match request.id {
            1 => pb::LeaseKeepAliveResponse {
                ttl: 0,
                ..renewal(1)
            },
            id => renewal(id),
        };
        ends.answers.send(Ok(answer)).await.expect("it reads");
    }
    let error = gone.next().await.expect_err("ended");
    assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    lives.next().await.expect("renewed");
}
