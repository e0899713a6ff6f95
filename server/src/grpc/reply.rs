//! A unary answer on its way out: encoded once, into one allocation with its length prefix, and
//! gzipped when the request was. Streams share the rules.

use std::future::Future;
use std::io::Write;

use bytes::{BufMut, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response};
use prost::Message;
use tonic::Code;

use super::body::Body;
use super::message::PREFIX;
use super::status::CONTENT_TYPE_GRPC;
use crate::error::Error;

pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Longest message that is sent, in bytes: what etcd allows and what Go clients can receive.
pub(super) const MAX_SENT: usize = 0x7fff_ffff;

/// Answers longer than this are not compressed even to a client that compresses: the compressed
/// flag may differ per message, and a long answer is not held in memory as a whole.
pub(super) const MAX_COMPRESSED: usize = 1024 * 1024;

/// The answer of a unary call.
pub(super) trait Reply: Send {
    /// Encodes the answer. `gzip`: whether to compress.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the message is longer than [`MAX_SENT`]; those of reading an answer
    /// that is still to be read.
    fn encode(self, gzip: bool) -> impl Future<Output = Result<Encoded, Error>> + Send;
}

/// An encoded answer.
pub(super) struct Encoded {
    pub(super) body: Body,
    /// Length of the message without prefix and before compression, in bytes.
    pub(super) length: usize,
}

impl<M: Message> Reply for M {
    async fn encode(self, gzip: bool) -> Result<Encoded, Error> {
        let length = self.encoded_len();
        check_length(length)?;
        if gzip && length <= MAX_COMPRESSED {
            return Ok(Encoded {
                body: compressed(&self.encode_to_vec()),
                length,
            });
        }
        let mut framed = BytesMut::with_capacity(PREFIX + length);
        put_prefix(&mut framed, 0, length);
        self.encode_raw(&mut framed);
        Ok(Encoded {
            body: Body::message(framed.freeze()),
            length,
        })
    }
}

impl Encoded {
    /// The response that carries it.
    pub(super) fn into_response(self, gzip: bool) -> Response<Body> {
        let mut response = Response::new(self.body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        if gzip {
            headers.insert(GRPC_ENCODING, GZIP);
        }
        response
    }
}

/// Refuses a message of this length, if it is too long.
pub(super) fn check_length(length: usize) -> Result<(), Error> {
    if length > MAX_SENT {
        return Err(Error::status(
            Code::ResourceExhausted,
            format!("grpc: trying to send message larger than max ({length} vs. {MAX_SENT})"),
        ));
    }
    Ok(())
}

/// Writes the prefix of a message of `length` bytes, at most [`MAX_SENT`].
pub(super) fn put_prefix(buf: &mut impl BufMut, flag: u8, length: usize) {
    buf.put_u8(flag);
    buf.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

pub(super) fn compressed(message: &[u8]) -> Body {
    // As etcd's gRPC library: an empty message has nothing to compress.
    let (flag, payload) = match message {
        [] => (0, Vec::new()),
        message => (1, gzip(message)),
    };
    let mut framed = BytesMut::with_capacity(PREFIX + payload.len());
    put_prefix(&mut framed, flag, payload.len());
    framed.extend_from_slice(&payload);
    Body::message(framed.freeze())
}

/// Compresses, fast rather than well.
pub(crate) fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(message)
        .and_then(|()| encoder.finish())
        .expect("writing to a Vec does not fail")
}
