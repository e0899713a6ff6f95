//! A long message as JSON while it arrives: a list of any size costs the memory of one pair and one
//! piece of it.
//!
//! An encoded message is its fields one after another, and each of them alone is an encoded message,
//! too. So each is turned into JSON by itself, as soon as it is complete, and the texts are put together;
//! the elements of a list follow one another in the encoding.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::DecodeError;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::MessageDescriptor;
use tonic::{Code, Status};

use super::{json, reply};
use crate::grpc;

/// Longest varint, in bytes.
const MAX_VARINT: usize = 10;

/// The answer of a unary call, while the call sends it. A failure on the way breaks the body off: the
/// status of the response has left.
pub(super) struct Large {
    body: grpc::Body,
    /// What is not turned into JSON yet: less than a field.
    arrived: BytesMut,
    text: Text,
    ended: bool,
}

impl Large {
    /// `arrived` is the beginning of the message, `body` has the rest.
    pub(super) fn new(kind: MessageDescriptor, arrived: BytesMut, body: grpc::Body) -> Self {
        Self {
            body,
            arrived,
            text: Text::new(kind),
            ended: false,
        }
    }

    /// What comes out of what has arrived, if anything does.
    fn take(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let mut out = Vec::new();
        while let Some(length) = field_length(&self.arrived)? {
            let field = self.arrived.split_to(length);
            self.text.add(&field, &mut out)?;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

impl Body for Large {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match self.take() {
                Ok(Some(text)) => return Poll::Ready(Some(Ok(Frame::data(text)))),
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
            }
            let trailers = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.arrived.extend_from_slice(&data);
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            self.ended = true;
            let status = reply::status_of(trailers.as_ref());
            let end = match status.code() {
                Code::Ok if self.arrived.is_empty() => Ok(Frame::data(self.text.end())),
                Code::Ok => Err(Status::internal("the answer ends inside a field")),
                _ => Err(status),
            };
            return Poll::Ready(Some(end.map_err(axum::Error::new)));
        }
    }
}

/// The length of the first field with its key, once all of it is there.
fn field_length(encoded: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut rest = encoded;
    // A varint that ends with what has arrived may go on.
    let incomplete = |rest: &[u8], error| {
        if rest.len() < MAX_VARINT {
            Ok(None)
        } else {
            Err(error)
        }
    };
    let before = rest;
    let wire_type = match decode_key(&mut rest) {
        Ok((_, wire_type)) => wire_type,
        Err(error) => return incomplete(before, error),
    };
    let before = rest;
    let value = match wire_type {
        WireType::Varint | WireType::LengthDelimited => match decode_varint(&mut rest) {
            Ok(length) if wire_type == WireType::LengthDelimited => length,
            Ok(_) => 0,
            Err(error) => return incomplete(before, error),
        },
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        // The messages here have no groups: decoding says what it is.
        WireType::StartGroup | WireType::EndGroup => 0,
    };
    let value = usize::try_from(value).unwrap_or(usize::MAX);
    let length = (encoded.len() - rest.len()).saturating_add(value);
    Ok((length <= encoded.len()).then_some(length))
}

/// A JSON object that grows by fields.
struct Text {
    kind: MessageDescriptor,
    /// Whether a field has been written.
    begun: bool,
    /// The number of the list that is being written.
    list: Option<u32>,
}

impl Text {
    fn new(kind: MessageDescriptor) -> Self {
        Self {
            kind,
            begun: false,
            list: None,
        }
    }

    /// Adds an encoded field.
    fn add(&mut self, field: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let (number, _) = decode_key(&mut &field[..])?;
        let object = json::from_message(&self.kind, field)?;
        let (Some(described), [b'{', inner @ .., b'}']) =
            (self.kind.get_field(number), &object[..])
        else {
            return Ok(());
        };
        // Not known, or zero.
        if inner.is_empty() {
            return Ok(());
        }
        let is_list = described.is_list();
        if is_list && self.list == Some(number) {
            let before = "\"\":[".len() + described.name().len();
            out.push(b',');
            out.extend_from_slice(&inner[before..inner.len() - 1]);
            return Ok(());
        }
        if self.list.take().is_some() {
            out.push(b']');
        }
        out.push(if self.begun { b',' } else { b'{' });
        self.begun = true;
        if is_list {
            self.list = Some(number);
            out.extend_from_slice(&inner[..inner.len() - 1]);
        } else {
            out.extend_from_slice(inner);
        }
        Ok(())
    }

    /// What comes after the last field.
    fn end(&mut self) -> Bytes {
        Bytes::from_static(match (self.begun, self.list.take()) {
            (false, _) => b"{}",
            (true, None) => b"}",
            (true, Some(_)) => b"]}",
        })
    }
}

#[cfg(test)]
mod tests {
    use ferrite_api::pb::etcdserverpb as pb;
    use ferrite_api::pb::mvccpb::KeyValue;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::http::gateway::routes;

    /// The JSON of a message that arrives in pieces.
    fn in_pieces(name: &str, encoded: &[u8], pieces: &[usize]) -> String {
        let mut large = Large::new(routes::message(name), BytesMut::new(), grpc::Body::empty());
        let mut out = Vec::new();
        let mut rest = encoded;
        for piece in pieces.iter().chain([&encoded.len()]) {
            let (piece, after) = rest.split_at((*piece).min(rest.len()));
            rest = after;
            large.arrived.extend_from_slice(piece);
            out.extend(large.take().unwrap().unwrap_or_default());
        }
        assert!(large.arrived.is_empty());
        out.extend(large.text.end());
        String::from_utf8(out).unwrap()
    }

    fn whole(name: &str, encoded: &[u8]) -> String {
        String::from_utf8(json::from_message(&routes::message(name), encoded).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_of_field() {
        let empty = pb::RangeResponse::default().encode_to_vec();
        assert_eq!(in_pieces("etcdserverpb.RangeResponse", &empty, &[]), "{}");
        let status = pb::StatusResponse {
            version: "3.7.1".into(),
            is_learner: true,
            errors: vec!["a".into(), "b".into()],
            db_size: 7,
            downgrade_info: Some(pb::DowngradeInfo::default()),
            ..Default::default()
        };
        let encoded = status.encode_to_vec();
        let name = "etcdserverpb.StatusResponse";
        assert_eq!(in_pieces(name, &encoded, &[3, 1]), whole(name, &encoded));
    }

    /// A call that answers with these frames.
    fn call(frames: Vec<Frame<Bytes>>) -> http::Response<grpc::Body> {
        let frames = frames.into_iter().map(Ok::<_, axum::Error>);
        let body = StreamBody::new(tokio_stream::iter(frames));
        http::Response::new(axum::body::Body::new(body).into())
    }

    fn with_end(mut frames: Vec<Frame<Bytes>>, status: &Status) -> Vec<Frame<Bytes>> {
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        frames.push(Frame::trailers(trailers));
        frames
    }

    /// A message of this many pairs, as two frames.
    fn frames(pairs: usize) -> Vec<Frame<Bytes>> {
        let kv = KeyValue {
            value: vec![7; 1000].into(),
            ..Default::default()
        };
        let message = pb::RangeResponse {
            kvs: vec![kv; pairs],
            ..Default::default()
        };
        let message = message.encode_to_vec();
        let mut framed = BytesMut::from(&[0][..]);
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&message);
        let begin = framed.split_to(framed.len() / 2);
        [begin, framed]
            .map(|part| Frame::data(part.freeze()))
            .into()
    }

    #[tokio::test]
    async fn a_failure_on_the_way_has_a_status_or_breaks_the_answer_off() {
        let kind = routes::message("etcdserverpb.RangeResponse");
        let error = Status::data_loss("a row is damaged");
        for (pairs, large) in [(10, false), (2000, true)] {
            let whole = with_end(frames(pairs), &Status::new(Code::Ok, ""));
            let response = reply::one(&kind, call(whole)).await;
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["kvs"].as_array().unwrap().len(), pairs);

            let broken = with_end(frames(pairs), &error);
            let response = reply::one(&kind, call(broken)).await;
            assert_eq!(response.status(), if large { 200 } else { 500 });
            let body = response.into_body().collect().await;
            assert_eq!(body.is_err(), large);
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        assert_eq!(field_length(&[0x80]), Ok(None));
        assert!(field_length(&[0xff; 11]).is_err());
        assert_eq!(field_length(&[0x0a, 3, 1, 2]), Ok(None));
        assert_eq!(field_length(&[0x0a, 3, 1, 2, 3, 4]), Ok(Some(5)));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            kvs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), 0_i64..3), 0..9),
            more: bool,
            count in 0_i64..3,
            pieces in prop::collection::vec(1_usize..20, 0..20),
        ) {
            let response = pb::RangeResponse {
                header: Some(pb::ResponseHeader { revision: count, ..Default::default() }),
                kvs: kvs
                    .into_iter()
                    .map(|(key, version)| KeyValue { key: key.into(), version, ..Default::default() })
                    .collect(),
                more,
                count,
            };
            let encoded = response.encode_to_vec();
            let name = "etcdserverpb.RangeResponse";
            prop_assert_eq!(in_pieces(name, &encoded, &pieces), whole(name, &encoded));
        }
    }
}
