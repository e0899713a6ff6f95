//! The response body of every answer that leaves the port: prepared unary replies, streams,
//! pages of the HTTP router.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::range_reply::RangeBody;
use super::status;
use super::stream::StreamBody;

/// A response body.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// Nothing: the headers were all.
    Empty,
    /// One message, length prefix included, then trailers that say OK.
    Message(Bytes),
    /// One message in pieces, then trailers.
    Range(Box<RangeBody>),
    /// Trailers that say OK.
    Trailers,
    Stream(Box<StreamBody>),
    Http(axum::body::Body),
}

impl Body {
    /// No body: a response of headers only.
    pub(crate) fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// One message with its prefix, and OK.
    pub(super) fn message(framed: Bytes) -> Self {
        Self(Kind::Message(framed))
    }

    /// One Range message in pieces.
    pub(super) fn range(range: RangeBody) -> Self {
        Self(Kind::Range(Box::new(range)))
    }

    /// The Range message that is still to be read, if it is one.
    pub(super) fn range_mut(&mut self) -> Option<&mut RangeBody> {
        match &mut self.0 {
            Kind::Range(range) => Some(range),
            _ => None,
        }
    }

    pub(super) fn stream(stream: StreamBody) -> Self {
        Self(Kind::Stream(Box::new(stream)))
    }
}

impl From<axum::body::Body> for Body {
    fn from(body: axum::body::Body) -> Self {
        Self(Kind::Http(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = match &mut self.0 {
            Kind::Empty => return Poll::Ready(None),
            Kind::Message(framed) => {
                let framed = mem::take(framed);
                self.0 = Kind::Trailers;
                Frame::data(framed)
            }
            Kind::Range(range) => match ready!(range.poll_frame(cx)) {
                Some(frame) => frame,
                None => return Poll::Ready(None),
            },
            Kind::Trailers => self.end(status::ok_trailers()),
            Kind::Stream(stream) => match ready!(stream.poll_frame(cx)) {
                Some(frame) => frame,
                None => return Poll::Ready(None),
            },
            Kind::Http(body) => return Pin::new(body).poll_frame(cx),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Http(body) => body.is_end_stream(),
            _ => false,
        }
    }

    /// Exact only for HTTP pages: a gRPC response carries no `content-length`.
    fn size_hint(&self) -> http_body::SizeHint {
        match &self.0 {
            Kind::Http(body) => body.size_hint(),
            _ => http_body::SizeHint::default(),
        }
    }
}

impl Body {
    fn end(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        self.0 = Kind::Empty;
        Frame::trailers(trailers)
    }
}
