//! The answer to Range as bytes of the wire: one message that never exists as a whole, unless it is
//! short. Its length is known when it begins, its pairs come encoded, piece by piece, while HTTP/2 flow
//! control takes them. If the rest cannot be read, the stream ends in the middle of the message, with
//! the error in its trailers.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Code;

use super::body::Body;
use super::call::{self, Account};
use super::message::PREFIX;
use super::reply::{self, Encoded, MAX_COMPRESSED, Reply, check_length, put_prefix};
use super::status;
use crate::error::Error;
use crate::handle::encoding::{MAX_HEADER, MAX_TAIL, header_len, put_header, put_tail, tail_len};
use crate::handle::{HEADROOM, List, TAILROOM};

const _: () = assert!(PREFIX + MAX_HEADER <= HEADROOM && MAX_TAIL <= TAILROOM);

/// The answer to Range goes past prost: its pairs are encoded already.
impl Reply for List {
    async fn encode(mut self, gzip: bool) -> Result<Encoded, Error> {
        let (header, more, count) = (self.header(), self.more(), self.count());
        let before = header_len(&header);
        let pairs = usize::try_from(self.bytes()).unwrap_or(usize::MAX);
        let length = pairs.saturating_add(before + tail_len(more, count));
        check_length(length)?;
        let body = if let Some(mut buffer) = self.take_whole() {
            let mut message = buffer.split_off(HEADROOM - PREFIX - before);
            let mut head = &mut message[..PREFIX + before];
            put_prefix(&mut head, 0, length);
            put_header(&header, &mut head);
            put_tail(more, count, &mut message);
            if gzip {
                reply::compressed(&message[PREFIX..])
            } else {
                Body::message(message.freeze())
            }
        } else if gzip && length <= MAX_COMPRESSED {
            let mut message = BytesMut::with_capacity(length);
            put_header(&header, &mut message);
            while let Some(piece) = self.next().await {
                message.extend_from_slice(&piece?);
            }
            put_tail(more, count, &mut message);
            reply::compressed(&message)
        } else {
            let mut head = BytesMut::with_capacity(PREFIX + before);
            put_prefix(&mut head, 0, length);
            put_header(&header, &mut head);
            let mut tail = BytesMut::with_capacity(TAILROOM);
            put_tail(more, count, &mut tail);
            Body::range(RangeBody {
                head: head.freeze(),
                list: self,
                tail: tail.freeze(),
                bounds: None,
                ended: false,
            })
        };
        Ok(Encoded { body, length })
    }
}

/// One long Range answer on its way out.
pub(super) struct RangeBody {
    /// Prefix and header, until they went out.
    head: Bytes,
    list: List,
    /// `more` and `count`, until they went out.
    tail: Bytes,
    bounds: Option<Bounds>,
    ended: bool,
}

/// What ends with the answer, and what ends it early.
struct Bounds {
    account: Account,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for RangeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeBody").finish_non_exhaustive()
    }
}

impl RangeBody {
    /// Counts the call until its end, and ends it at the deadline.
    pub(super) fn bound(&mut self, account: Account, deadline: Option<Instant>) {
        self.bounds = Some(Bounds {
            account,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        });
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let late = self
            .bounds
            .as_mut()
            .and_then(|bounds| bounds.deadline.as_mut());
        if let Some(deadline) = late
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(self.end(Some(call::deadline_exceeded()))));
        }
        if !self.head.is_empty() {
            return Poll::Ready(Some(Frame::data(std::mem::take(&mut self.head))));
        }
        let next = ready!(pin!(self.list.next()).poll(cx));
        Poll::Ready(Some(match next {
            Some(Ok(piece)) => Frame::data(piece),
            Some(Err(error)) => self.end(Some(error)),
            None if !self.tail.is_empty() => Frame::data(std::mem::take(&mut self.tail)),
            None => self.end(None),
        }))
    }

    fn end(&mut self, error: Option<Error>) -> Frame<Bytes> {
        self.ended = true;
        if let Some(bounds) = &mut self.bounds {
            let code = error.as_ref().map_or(Code::Ok, Error::code);
            bounds.account.end(code);
        }
        Frame::trailers(match error {
            None => status::ok_trailers(),
            Some(error) => status::error_trailers(&error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;

    use ferrite_api::pb::etcdserverpb as pb;
    use ferrite_api::pb::etcdserverpb::ResponseHeader;
    use ferrite_api::pb::mvccpb::KeyValue;
    use flate2::read::MultiGzDecoder;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use prost::Message;

    use super::*;
    use crate::handle::tests::{Store, everything, key, value};

    /// The frames of the answer; its trailers say OK.
    async fn wire(list: List, gzip: bool) -> Vec<Bytes> {
        let mut body = list.encode(gzip).await.unwrap().body;
        let mut frames = Vec::new();
        loop {
            let next =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx));
            let frame = next.await.expect("trailers end it").unwrap();
            match frame.into_data() {
                Ok(data) => frames.push(data),
                Err(trailers) => {
                    assert_eq!(trailers.into_trailers().unwrap(), status::ok_trailers());
                    return frames;
                }
            }
        }
    }

    /// The one message in these frames, decompressed, and whether it was compressed.
    fn message(frames: &[Bytes]) -> (Vec<u8>, bool) {
        let bytes = frames.concat();
        let (prefix, payload) = bytes.split_at(PREFIX);
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
        assert_eq!(length as usize, payload.len());
        match prefix[0] {
            0 => (payload.to_vec(), false),
            flag => {
                assert_eq!(flag, 1);
                let mut message = Vec::new();
                let mut decoder = MultiGzDecoder::new(payload);
                decoder.read_to_end(&mut message).unwrap();
                (message, true)
            }
        }
    }

    fn given(kvs: &[KeyValue], more: bool, count: i64) -> (List, Vec<u8>) {
        let header = ResponseHeader {
            cluster_id: 1,
            member_id: u64::MAX,
            revision: 9,
            raft_term: 2,
        };
        let pieces = kvs.iter().map(|kv| {
            let kvs = vec![kv.clone()];
            pb::RangeResponse {
                kvs,
                ..Default::default()
            }
            .encode_to_vec()
            .into()
        });
        let response = pb::RangeResponse {
            header: Some(header),
            kvs: kvs.to_vec(),
            more,
            count,
        };
        let list = List::given(header, more, count, pieces.collect());
        (list, response.encode_to_vec())
    }

    #[tokio::test]
    async fn odd_numbers() {
        for (more, count) in [(false, 0), (true, i64::MAX), (false, -1), (true, 1)] {
            let (list, expected) = given(&[KeyValue::default()], more, count);
            let frames = wire(list, false).await;
            assert_eq!(message(&frames), (expected, false), "{more} {count}");
        }
    }

    #[tokio::test]
    async fn a_short_answer_is_one_frame() {
        let mut store = Store::new();
        store.put(key(1), value(1, 300));
        for (key, gzip) in [(key(1), false), (key(1), true), (key(2), false)] {
            let request = pb::RangeRequest {
                key: key.into(),
                serializable: true,
                ..Default::default()
            };
            let list = store.handle.list(request).await.unwrap();
            assert_eq!(wire(list, gzip).await.len(), 1);
        }
    }

    #[tokio::test]
    async fn damage_behind_the_first_piece_is_in_the_trailers() {
        let store = Store::filled(1000, 1000);
        let list = store.handle.list(everything()).await.unwrap();
        let promised = list.bytes();
        let mut body = list.encode(false).await.unwrap().body;
        let mut sent = 0;
        let end = loop {
            let frame =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx));
            match frame.await.expect("trailers end it").unwrap().into_data() {
                Ok(data) => sent += data.len() as u64,
                Err(trailers) => break trailers.into_trailers().unwrap(),
            }
            // Nothing can be read any more, but for what was read ahead.
            store.disk.crash();
        };
        assert!(0 < sent && sent < promised, "{sent} of {promised} bytes");
        assert_eq!(end["grpc-status"], "15");
    }

    prop_compose! {
        fn request()(
            (first, last) in (0usize..60, 0usize..70),
            single in prop::bool::weighted(0.1),
            limit in prop_oneof![2 => Just(0i64), 1 => -2i64..60],
            revision in prop_oneof![3 => Just(0i64), 1 => 2i64..100],
            (sort_order, sort_target) in prop_oneof![1 => Just((0, 0)), 1 => (0i32..3, 0i32..5)],
            (keys_only, count_only) in (prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
            min_mod_revision in prop_oneof![4 => Just(0i64), 1 => 1i64..100],
            max_create_revision in prop_oneof![4 => Just(0i64), 1 => 1i64..100],
        ) -> pb::RangeRequest {
            pb::RangeRequest {
                key: key(first).into(),
                range_end: if single { Bytes::new() } else { key(last).into() },
                limit, revision, sort_order, sort_target, keys_only, count_only,
                min_mod_revision, max_create_revision,
                max_mod_revision: 0,
                min_create_revision: 0,
                serializable: true,
            }
        }
    }

    /// What is in the answer is held to the model by the tests of the storage; here: in which form.
    #[test]
    fn bytes_are_those_of_the_whole_message() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut store = Store::new();
        // Values short and long, so that all kinds of answers come up: read inline, read at once, in
        // pieces. Some rows are in the page file, some are not.
        for number in 0..50 {
            let length = [10, 300, 20_000, 60_000][number % 4];
            store.put(key(number), value(number, length));
        }
        store.checkpoint();
        for number in (0..60).step_by(3) {
            store.put(key(number), value(number, 100 * number));
        }
        let (long, compressed) = (Cell::new(0), Cell::new(0));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(300));
        let run = runner.run(&(request(), any::<bool>()), |(request, gzip)| {
            let view = store.published.view();
            let Ok(range) = view.range(&request) else {
                return Ok(());
            };
            let kvs = range
                .kvs
                .into_iter()
                .map(|kv| KeyValue::decode(kv).unwrap());
            let expected = pb::RangeResponse {
                header: Some(store.handle.header(view.revision)),
                kvs: kvs.collect(),
                more: range.more,
                count: range.count,
            };
            let expected = expected.encode_to_vec();
            let frames = runtime.block_on(async {
                let list = store.handle.list(request).await.unwrap();
                wire(list, gzip).await
            });
            let (got, gzipped) = message(&frames);
            prop_assert_eq!(gzipped, gzip && expected.len() <= MAX_COMPRESSED);
            prop_assert!(
                got == expected,
                "{} bytes, not these {}",
                got.len(),
                expected.len()
            );
            long.set(long.get() + usize::from(frames.len() > 3));
            compressed.set(compressed.get() + usize::from(gzipped));
            Ok(())
        });
        run.unwrap();
        assert!(long.get() > 5, "{} answers came in pieces", long.get());
        assert!(compressed.get() > 10);
    }
}
