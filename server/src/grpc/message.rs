//! gRPC messages out of a body: the length prefix, the size limit, gzip. One reader for
//! unary calls and streams, so both refuse the same bodies with the same texts (those of etcd's
//! gRPC library, spec/errors.md section 5).

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body::Body;
use tonic::Code;

use crate::error::Error;

/// Bytes before each message: compressed flag, length.
pub(crate) const PREFIX: usize = 5;

/// Memory taken for a message that has only begun to arrive; grows with what arrives, so that a
/// prefix alone cannot reserve megabytes on every stream.
const FIRST_RESERVATION: usize = 64 * 1024;

/// Why no further message comes out of a body.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The body ends inside a message.
    Truncated,
    /// The connection or the stream broke: nobody waits for an answer.
    Gone,
    /// The message is refused with this status.
    Refused(Error),
}

fn refused(code: Code, text: String) -> Fault {
    Fault::Refused(Error::status(code, text))
}

/// Reads messages from a request body. A message that arrived whole in one HTTP/2 frame is a slice
/// of that frame, not a copy.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    /// What follows the messages taken so far; nothing while `partial` holds something.
    frame: Bytes,
    /// A message that is longer than the frame it began in.
    partial: BytesMut,
    /// Longest message accepted, compressed or not, in bytes.
    limit: usize,
    /// Whether the client announced gzip.
    gzip: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(crate) fn new(body: B, limit: usize, gzip: bool) -> Self {
        Self {
            body,
            frame: Bytes::new(),
            partial: BytesMut::new(),
            limit,
            gzip,
        }
    }

    /// The same messages from the body in another form.
    pub(super) fn map_body<C>(self, map: impl FnOnce(B) -> C) -> Messages<C> {
        Messages {
            body: map(self.body),
            frame: self.frame,
            partial: self.partial,
            limit: self.limit,
            gzip: self.gzip,
        }
    }

    /// The next message, decompressed. `None` at the end of the body. A body that ends inside a
    /// length prefix counts as ended, as in etcd's gRPC library.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The body that they come from.
    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                None if self.frame.len().max(self.partial.len()) < PREFIX => {
                    return Poll::Ready(Ok(None));
                }
                None => return Poll::Ready(Err(Fault::Truncated)),
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.partial.is_empty() && self.frame.is_empty() {
            self.frame = data;
            return;
        }
        // `frame` is empty here or moves first: order is kept.
        self.partial.extend_from_slice(&self.frame);
        self.frame = Bytes::new();
        self.partial.extend_from_slice(&data);
    }

    /// Takes a message out of what has arrived, if it is all there.
    fn take(&mut self) -> Result<Option<Bytes>, Fault> {
        let arrived: &[u8] = if self.partial.is_empty() {
            &self.frame
        } else {
            &self.partial
        };
        let Some((prefix, rest)) = arrived.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            let limit = self.limit;
            let text = format!("grpc: received message larger than max ({length} vs. {limit})");
            return Err(refused(Code::ResourceExhausted, text));
        }
        if rest.len() < length {
            if self.partial.is_empty() {
                self.partial
                    .reserve((PREFIX + length).min(FIRST_RESERVATION));
                self.partial.extend_from_slice(&self.frame);
                self.frame = Bytes::new();
            }
            return Ok(None);
        }
        let mut message = if self.partial.is_empty() {
            self.frame.split_to(PREFIX + length)
        } else {
            let message = self.partial.split_to(PREFIX + length).freeze();
            self.frame = self.partial.split().freeze();
            message
        };
        message.advance(PREFIX);
        match flag {
            0 => Ok(Some(message)),
            1 if self.gzip => gunzip(&message, self.limit).map(Some),
            1 => Err(refused(
                Code::Internal,
                "grpc: compressed flag set with identity or empty encoding".into(),
            )),
            other => Err(refused(
                Code::Internal,
                format!("grpc: received unexpected payload format {other}"),
            )),
        }
    }
}

/// Decompresses at most `limit` bytes.
fn gunzip(compressed: &[u8], limit: usize) -> Result<Bytes, Fault> {
    let broken = |error: io::Error| {
        refused(
            Code::Internal,
            format!("grpc: failed to read decompressed data: {error}"),
        )
    };
    // One byte more than allowed tells a message that is too long from one that just fits.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut message = Vec::new();
    MultiGzDecoder::new(compressed)
        .take(most)
        .read_to_end(&mut message)
        .map_err(broken)?;
    if message.len() > limit {
        let text = format!("grpc: received message after decompression larger than max {limit}");
        return Err(refused(Code::ResourceExhausted, text));
    }
    Ok(message.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use bytes::BufMut;
    use http_body::Frame;
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::reply::gzip;

    /// A body of these frames.
    pub(crate) struct Frames(pub(crate) VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
        let mut buf = vec![flag];
        buf.put_u32(u32::try_from(payload.len()).unwrap());
        buf.extend_from_slice(payload);
        buf
    }

    fn read(frames: Vec<Vec<u8>>, limit: usize, gzip: bool) -> (Vec<Bytes>, Option<String>) {
        let frames = Frames(frames.into_iter().map(Bytes::from).collect());
        let mut messages = Messages::new(frames, limit, gzip);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut got = Vec::new();
        loop {
            match messages.poll_next(&mut cx) {
                Poll::Ready(Ok(Some(message))) => got.push(message),
                Poll::Ready(Ok(None)) => return (got, None),
                Poll::Ready(Err(Fault::Refused(error))) => {
                    return (
                        got,
                        Some(format!("{:?}: {}", error.code(), error.message())),
                    );
                }
                Poll::Ready(Err(fault)) => return (got, Some(format!("{fault:?}"))),
                Poll::Pending => unreachable!("the body is always ready"),
            }
        }
    }

    fn fault(frame: Vec<u8>, limit: usize, gzip: bool) -> String {
        read(vec![frame], limit, gzip).1.expect("a fault")
    }

    #[test]
    fn a_message_in_one_frame_is_not_copied() {
        let frame = Bytes::from(framed(0, b"hello"));
        let inside = frame.as_ptr_range();
        let mut messages = Messages::new(Frames([frame.clone()].into()), 100, false);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match messages.poll_next(&mut cx) {
            Poll::Ready(Ok(Some(message))) => assert!(inside.contains(&message.as_ptr())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn faults_have_grpc_texts() {
        assert_eq!(
            fault(framed(0, &[0; 11]), 10, false),
            "ResourceExhausted: grpc: received message larger than max (11 vs. 10)"
        );
        assert_eq!(
            fault(framed(1, b"x"), 10, false),
            "Internal: grpc: compressed flag set with identity or empty encoding"
        );
        assert_eq!(
            fault(framed(7, b"x"), 10, true),
            "Internal: grpc: received unexpected payload format 7"
        );
        assert!(
            fault(framed(1, b"not gzip at all"), 100, true)
                .starts_with("Internal: grpc: failed to read decompressed data: ")
        );
        assert_eq!(
            fault(framed(0, b"hello")[..7].to_vec(), 100, false),
            "Truncated"
        );
        assert_eq!(read(vec![vec![0, 0, 0]], 100, false), (vec![], None));
        // The length alone decides, before the message has arrived.
        assert_eq!(
            fault(vec![0, 0xff, 0xff, 0xff, 0xff], 10, false),
            "ResourceExhausted: grpc: received message larger than max (4294967295 vs. 10)"
        );
    }

    #[test]
    fn gzip_is_limited_by_what_comes_out() {
        let ten = gzip(&[7; 10]);
        assert_eq!(
            read(vec![framed(1, &ten)], 40, true),
            (vec![vec![7; 10].into()], None)
        );
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 10_000);
        assert_eq!(
            fault(framed(1, &bomb), 10_000, true),
            "ResourceExhausted: grpc: received message after decompression larger than max 10000"
        );
    }

    proptest! {
        #[test]
        fn messages_come_out_whatever_the_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(1_usize..20, 0..40),
        ) {
            let mut rest: &[u8] = &payloads.iter().flat_map(|p| framed(0, p)).collect::<Vec<_>>();
            let mut frames = Vec::new();
            for cut in cuts {
                let (frame, after) = rest.split_at(cut.min(rest.len()));
                frames.push(frame.to_vec());
                rest = after;
            }
            frames.push(rest.to_vec());
            let (got, fault) = read(frames, 100, false);
            prop_assert_eq!(fault, None);
            prop_assert_eq!(got, payloads.into_iter().map(Bytes::from).collect::<Vec<_>>());
        }
    }
}
