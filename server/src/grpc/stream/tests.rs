//! Streams without a network: a body of requests in, the frames of the response out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use ferrite_api::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use flate2::read::GzDecoder;
use http_body::Frame;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::grpc::message::PREFIX;
use crate::metrics::{self, Metrics};

const METHOD: Method = Method::LeaseKeepAlive;
const LIMIT: usize = 1000;

type In = Requests<LeaseKeepAliveRequest>;
type Out = Responses<LeaseKeepAliveResponse>;

/// A request body: frames, then its end if it is closed. Counts how many were taken.
#[derive(Default)]
struct Body {
    frames: VecDeque<Bytes>,
    open: bool,
    taken: Arc<AtomicUsize>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(data) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None if self.open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn keep_alives(ids: impl IntoIterator<Item = i64>) -> Body {
    let frame = |id| framed(&LeaseKeepAliveRequest { id }.encode_to_vec());
    Body {
        frames: ids.into_iter().map(frame).collect(),
        ..Body::default()
    }
}

fn renewed(id: i64) -> LeaseKeepAliveResponse {
    LeaseKeepAliveResponse {
        id,
        ttl: 7,
        ..LeaseKeepAliveResponse::default()
    }
}

/// One response per request, until the client closes its side.
async fn echo(mut requests: In, responses: Out) -> Result<(), Error> {
    while let Some(request) = requests.next().await? {
        responses.send(&renewed(request.id)).await?;
    }
    Ok(())
}

struct Stream {
    body: StreamBody,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What came out of a stream.
#[derive(Debug, PartialEq)]
enum Out1 {
    Data(Bytes),
    End(i32, String),
    Over,
}

fn start<F>(requests: Body, gzip: bool, serve: impl FnOnce(In, Out) -> F) -> Stream
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let metrics = Metrics::new(metrics::Options::default());
    let outbox = Arc::new(Outbox::new(metrics.clone(), METHOD, gzip));
    let messages = Messages::new(requests, LIMIT, gzip);
    let serving = serve(
        Requests::new(messages, metrics.clone(), METHOD, 0),
        Responses::new(outbox.clone()),
    );
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let ending = Box::pin(async move {
        stopped.await;
        ferrite_api::Error::Stopped.into()
    });
    let account = Account::begin(&metrics, METHOD, None, Duration::MAX);
    Stream {
        body: StreamBody::new(Box::pin(serving), outbox, ending, account),
        metrics,
        stop,
    }
}

impl Stream {
    fn poll(&mut self) -> Option<Out1> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.body.poll_frame(&mut cx) {
            Poll::Pending => None,
            Poll::Ready(None) => Some(Out1::Over),
            Poll::Ready(Some(frame)) => Some(match frame.into_data() {
                Ok(data) => Out1::Data(data),
                Err(frame) => {
                    let status = tonic::Status::from_header_map(frame.trailers_ref().unwrap());
                    let status = status.unwrap();
                    Out1::End(status.code() as i32, status.message().to_owned())
                }
            }),
        }
    }

    /// All messages and the end, of a stream that never waits.
    fn run(&mut self) -> (Vec<Bytes>, Out1) {
        let mut data = Vec::new();
        loop {
            match self.poll().expect("the stream does not wait") {
                Out1::Data(frame) => data.extend_from_slice(&frame),
                end => return (messages(&data), end),
            }
        }
    }

    fn count(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.scrape().unwrap()).unwrap();
        let line = text.lines().find(|line| {
            line.starts_with(name)
                && line.contains("grpc_method=\"LeaseKeepAlive\"")
                && !line.ends_with(" 0")
        });
        line.map_or(0.0, |line| {
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        })
    }
}

fn messages(mut data: &[u8]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while data.has_remaining() {
        let flag = data.get_u8();
        let length = data.get_u32() as usize;
        let payload = data.copy_to_bytes(length);
        messages.push(if flag == 0 {
            payload
        } else {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut GzDecoder::new(&payload[..]), &mut plain).unwrap();
            plain.into()
        });
    }
    messages
}

fn ids(messages: &[Bytes]) -> Vec<i64> {
    messages
        .iter()
        .map(|message| LeaseKeepAliveResponse::decode(&message[..]).unwrap().id)
        .collect()
}

fn ok() -> Out1 {
    Out1::End(0, String::new())
}

#[test]
fn requests_are_answered_in_order_and_counted() {
    let mut stream = start(keep_alives(1..=50), false, echo);
    let (messages, end) = stream.run();
    assert_eq!(ids(&messages), (1..=50).collect::<Vec<_>>());
    assert_eq!(end, ok());
    assert_eq!(stream.poll(), Some(Out1::Over));
    assert_eq!(stream.count("grpc_server_msg_received_total"), 50.0);
    assert_eq!(stream.count("grpc_server_msg_sent_total"), 50.0);
    assert_eq!(stream.count("grpc_server_handled_total"), 1.0);
}

#[test]
fn a_closed_client_side_does_not_end_the_stream() {
    let mut stream = start(
        keep_alives([]),
        false,
        async |mut requests: In, responses: Out| {
            assert!(requests.next().await?.is_none());
            assert!(requests.next().await?.is_none());
            responses.send(&renewed(9)).await
        },
    );
    let (messages, end) = stream.run();
    assert_eq!((ids(&messages), end), (vec![9], ok()));
}

/// Flow control: hyper asks the body for a frame when the client has room for it.
#[test]
fn a_stream_that_is_not_read_pulls_no_requests_and_holds_one_frame() {
    let requests = keep_alives(1..=100_000);
    let taken = requests.taken.clone();
    let mut stream = start(requests, false, echo);
    assert_eq!(taken.load(Ordering::Relaxed), 0);
    let mut before = 0;
    for _ in 0..5 {
        let Some(Out1::Data(frame)) = stream.poll() else {
            panic!("a frame");
        };
        assert!(
            (16 * 1024..17 * 1024).contains(&frame.len()),
            "{}",
            frame.len()
        );
        let now = taken.load(Ordering::Relaxed);
        // The frame's worth of answers, and one request whose answer found no room.
        assert!(
            now - before <= messages(&frame).len() + 1,
            "{before} to {now}"
        );
        before = now;
    }
}

#[test]
fn small_messages_share_a_frame_and_large_pieces_are_not_copied() {
    let piece = Bytes::from(vec![b'x'; 5000]);
    let shared = piece.clone();
    let mut stream = start(
        keep_alives([]),
        false,
        async move |_: In, responses: Out| {
            for _ in 0..2 {
                responses.room().await;
                responses.send_pieces(2 + 5000, |frames| {
                    frames.copy(b"ab");
                    frames.share(&shared);
                })?;
            }
            Ok(())
        },
    );
    let Some(Out1::Data(first)) = stream.poll() else {
        panic!("the first prefix")
    };
    assert_eq!(&first[..], b"\0\0\0\x13\x8aab");
    let Some(Out1::Data(second)) = stream.poll() else {
        panic!("the piece")
    };
    assert_eq!(second.as_ptr(), piece.as_ptr());
    let (rest, end) = stream.run();
    assert_eq!((rest.len(), rest[0].len(), end), (1, 5002, ok()));
}

#[test]
fn a_client_that_compresses_gets_every_message_compressed() {
    let mut stream = start(keep_alives([1, 2]), true, echo);
    let Some(Out1::Data(frame)) = stream.poll() else {
        panic!("a frame")
    };
    assert_eq!(frame[0], 1);
    assert_eq!(ids(&messages(&frame)), [1, 2]);
}

#[test]
fn a_panic_ends_its_stream() {
    let mut stream = start(keep_alives([]), false, async |_: In, responses: Out| {
        responses.send(&renewed(1)).await?;
        panic!("a method panics on purpose")
    });
    let (messages, end) = stream.run();
    let text = "etcdserver: internal error, see the log of the server";
    assert_eq!((ids(&messages), end), (vec![1], Out1::End(13, text.into())));
}

#[test]
fn the_server_ends_a_stream_that_waits() {
    let requests = Body {
        open: true,
        ..keep_alives([1])
    };
    let mut stream = start(requests, false, echo);
    assert!(matches!(stream.poll(), Some(Out1::Data(_))));
    assert_eq!(stream.poll(), None);
    stream.stop.cancel();
    let stopped = ferrite_api::Error::Stopped;
    let end = Out1::End(stopped.wire_code() as i32, stopped.message().to_owned());
    assert_eq!(stream.poll(), Some(end));
    assert_eq!(stream.poll(), Some(Out1::Over));
}

#[test]
fn a_stream_that_fails_before_its_first_message_is_refused() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut stream = start(keep_alives([]), false, async |_: In, _: Out| {
        Err(ferrite_api::Error::NoLeader.into())
    });
    match stream.body.poll_first(&mut cx) {
        Poll::Ready(Err(error)) => assert_eq!(error, ferrite_api::Error::NoLeader.into()),
        other => panic!("{other:?}"),
    }
    // Messages come first otherwise, and again when the body is read.
    let mut stream = start(keep_alives([1]), false, echo);
    assert!(matches!(
        stream.body.poll_first(&mut cx),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(ids(&stream.run().0), [1]);
    // Nothing at all is no failure.
    let mut stream = start(keep_alives([]), false, echo);
    assert!(matches!(
        stream.body.poll_first(&mut cx),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(stream.run(), (vec![], ok()));
}

#[test]
fn a_client_that_goes_away_drops_the_method() {
    struct Dropped(CancellationToken);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let dropped = CancellationToken::new();
    let guard = Dropped(dropped.clone());
    let mut stream = start(keep_alives([]), false, async move |_: In, _: Out| {
        let _guard = guard;
        std::future::pending().await
    });
    assert_eq!(stream.poll(), None);
    assert!(!dropped.is_cancelled());
    let metrics = stream.metrics.clone();
    drop(stream);
    assert!(dropped.is_cancelled());
    let text = String::from_utf8(metrics.scrape().unwrap()).unwrap();
    let cancelled = "grpc_server_handled_total{grpc_code=\"Canceled\",\
                     grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",\
                     grpc_type=\"bidi_stream\"} 1";
    assert!(text.contains(cancelled));
}

#[test]
fn requests_that_are_refused_have_the_texts_of_streams() {
    let body = |bytes: Bytes| Body {
        frames: [bytes].into(),
        ..Body::default()
    };
    let end = |body| start(body, false, echo).run();
    let too_long = "grpc: received message larger than max (1001 vs. 1000)";
    assert_eq!(
        end(body(framed(&[0; 1001]))),
        (vec![], Out1::End(8, too_long.into()))
    );
    assert_eq!(
        end(body(framed(b"x").slice(..PREFIX))),
        (vec![], Out1::End(13, "unexpected EOF".into()))
    );
    match end(body(framed(b"\xff"))) {
        (_, Out1::End(13, text)) => {
            assert!(
                text.starts_with("grpc: failed to unmarshal the received message: "),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    // What was answered before goes out.
    let mut requests = keep_alives([1]);
    requests.frames.push_back(framed(&[0; 1001]));
    let (messages, end) = start(requests, false, echo).run();
    assert_eq!(
        (ids(&messages), end),
        (vec![1], Out1::End(8, too_long.into()))
    );
}

#[test]
fn a_method_with_one_request_wants_exactly_one() {
    let only = async |requests: In, responses: Out| {
        let id = requests.only().await?.id;
        responses.send(&renewed(id)).await
    };
    let (messages, end) = start(keep_alives([3]), false, only).run();
    assert_eq!((ids(&messages), end), (vec![3], ok()));
    for (ids, what) in [
        (vec![], "no request message from"),
        (vec![1, 2], "multiple request messages for"),
    ] {
        let text = format!("cardinality violation: received {what} non-client-streaming RPC");
        let end = start(keep_alives(ids), false, only).run();
        assert_eq!(end, (vec![], Out1::End(13, text)));
    }
}
