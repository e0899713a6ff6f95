//! The body of a gRPC call, out of the JSON of an HTTP request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};

use super::json;
use super::values::{Fault, Values};

/// The client went away while the call took its requests.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

/// The body of a call.
pub(super) type CallBody = UnsyncBoxBody<Bytes, Gone>;

/// The body of a call that has one request: the first value, or an empty message if there is none.
/// `drain`: whether to read what follows, so that the connection can go on.
///
/// # Errors
/// The request is not JSON, not this message, or too long.
pub(super) async fn one<B>(
    mut values: Values<B>,
    kind: &MessageDescriptor,
    drain: bool,
) -> Result<CallBody, Status>
where
    B: Body<Data = Bytes> + Unpin,
{
    let message = match values.next().await.map_err(refusal)? {
        Some(value) => json::to_message(kind, &value)
            .map_err(|error| Status::invalid_argument(error.to_string()))?,
        None => DynamicMessage::new(kind.clone()),
    };
    if drain {
        values.drain().await.map_err(refusal)?;
    }
    let framed = Full::new(json::framed(&message));
    Ok(framed.map_err(|never| match never {}).boxed_unsync())
}

fn refusal(fault: Fault) -> Status {
    match fault {
        Fault::Gone => Status::new(Code::Cancelled, "context canceled"),
        Fault::TooLong(limit) => Status::new(
            Code::ResourceExhausted,
            format!("a JSON value in the request is longer than {limit} bytes"),
        ),
    }
}

/// The body of a call that has many requests: each value as it comes.
pub(super) fn many<B>(values: Values<B>, kind: &MessageDescriptor) -> CallBody
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let requests = Requests {
        values,
        kind: kind.clone(),
        ended: false,
    };
    requests.boxed_unsync()
}

struct Requests<B> {
    values: Values<B>,
    kind: MessageDescriptor,
    ended: bool,
}

impl<B> Body for Requests<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Gone;

    /// As in etcd's gateway, a value that is refused ends the requests like the end of the body: what
    /// came before has been asked, and its answers go on.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let refused = match ready!(self.values.poll_next(cx)) {
            Ok(Some(value)) => match json::to_message(&self.kind, &value) {
                Ok(message) => {
                    let frame = Frame::data(json::framed(&message));
                    return Poll::Ready(Some(Ok(frame)));
                }
                Err(error) => Some(error.to_string()),
            },
            Ok(None) => None,
            Err(Fault::Gone) => return Poll::Ready(Some(Err(Gone))),
            Err(fault @ Fault::TooLong(_)) => Some(refusal(fault).message().to_owned()),
        };
        if let Some(reason) = refused {
            tracing::debug!(reason, "a request of a stream is refused");
        }
        self.ended = true;
        Poll::Ready(None)
    }
}
