//! KV.RangeStream: messages that come encoded, in pieces, and are passed on.

use bytes::BytesMut;
use ferrite_api::pb::etcdserverpb as pb;
use tonic::Code;

use super::Kv;
use super::reply::MAX_SENT;
use super::stream::{Requests, Responses, Streaming};
use crate::error::Error;
use crate::metrics::Method;

/// KV.RangeStream.
pub(super) struct RangeStream;

impl Streaming for RangeStream {
    const METHOD: Method = Method::KvRangeStream;
    type Request = pb::RangeRequest;
    type Response = pb::RangeStreamResponse;

    async fn serve<K: Kv>(
        kv: K,
        requests: Requests<pb::RangeRequest>,
        responses: Responses<pb::RangeStreamResponse>,
    ) -> Result<(), Error> {
        let mut messages = kv.range_stream(requests.only().await?).await?;
        while let Some(piece) = messages.next().await {
            let piece = piece?;
            responses.room().await;
            let Some(length) = piece.begins else {
                responses.piece(&piece.bytes);
                continue;
            };
            if length > MAX_SENT {
                return Err(too_long(length));
            }
            if !responses.compresses(length) {
                responses.begin(length)?;
                responses.piece(&piece.bytes);
                continue;
            }
            let mut message = BytesMut::from(piece.bytes);
            while message.len() < length
                && let Some(piece) = messages.next().await
            {
                message.extend_from_slice(&piece?.bytes);
            }
            responses.send_pieces(message.len(), |frames| frames.share(&message.freeze()))?;
        }
        Ok(())
    }
}

/// What etcd makes of its gRPC library's refusal: a message can be that long only when the client asked
/// for everything in one.
fn too_long(length: usize) -> Error {
    let text = format!(
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max \
         ({length} vs. {MAX_SENT})"
    );
    Error::status(Code::Unknown, text)
}
