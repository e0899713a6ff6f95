//! Streaming calls, in one direction or both.
//!
//! A method is one `impl` of [`Streaming`] and one line in `Server::begin`: an async function that
//! takes [`Requests`] and fills [`Responses`]. It runs **inside the body of its response**: hyper
//! polls the body while the client has room for more, so a client that does not read stops the
//! method at its next `send`, in the memory of one frame, and a client that goes away drops the
//! method where it stands. No task, no channel, no queue in between.
//!
//! What every stream gets here: the refusals, texts and counting of unary calls, the deadline, an
//! early end when the server stops or a client that insists on a leader loses it, and a panic that
//! ends the stream only. Like etcd's gRPC library it sends no headers before the first message, so a
//! stream that fails before is refused with headers only.

mod body;
mod outbox;
mod requests;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use prost::Message;

use super::body::Body;
use super::call::{self, Account, Call};
use super::message::Messages;
use super::reply::{GRPC_ENCODING, GZIP};
use super::status::CONTENT_TYPE_GRPC;
use super::{Kv, Server, status};
use crate::error::Error;
use crate::metrics::Method;
use crate::metrics::server::CallKind;

pub(super) use body::StreamBody;
pub(super) use outbox::{Frames, Responses};
pub(super) use requests::Requests;

use outbox::Outbox;

/// A method with many responses, and one request or many.
pub(super) trait Streaming: 'static {
    const METHOD: Method;
    type Request: Message + Default;
    type Response: Message;

    /// Whether a learner serves this stream.
    const SERVES_LEARNER: bool = false;

    /// How the stream ends when the server stops.
    fn stopped() -> Error {
        ferrite_api::Error::Stopped.into()
    }

    /// Serves the stream to its end. A method with one request begins with [`Requests::only`].
    ///
    /// Cancel safety: dropped at any await, when the client, the deadline or the server ends the
    /// stream.
    fn serve<K: Kv>(
        kv: K,
        requests: Requests<Self::Request>,
        responses: Responses<Self::Response>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

impl<K: Kv> Server<K> {
    /// Serves a stream until its headers; the rest is the body of the response.
    pub(super) async fn stream<M: Streaming, B>(self, call: Call, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let metrics = self.metrics();
        let mut account = Account::begin(metrics, M::METHOD, call.deadline, Duration::MAX)
            .traced(self.inner.spans.as_ref(), &call);
        if let Err(error) = call.admit(self.kv(), metrics, CallKind::Stream, M::SERVES_LEARNER) {
            account.end(error.wire_code());
            return status::refuse(&error.into());
        }
        let outbox = Arc::new(Outbox::new(Arc::clone(metrics), M::METHOD, call.gzip));
        let messages = Messages::new(body, self.max_message_bytes(), call.gzip);
        let kv = match self.credentials(&call) {
            None => self.kv().clone(),
            Some(credentials) => self.kv().with_credentials(credentials),
        };
        let serving = M::serve(
            kv,
            Requests::new(messages, Arc::clone(metrics), M::METHOD, self.connection),
            Responses::new(Arc::clone(&outbox)),
        );
        let ending = self.ending(&call, M::stopped());
        let mut stream = StreamBody::new(Box::pin(serving), outbox, ending, account);
        if let Err(error) = poll_fn(|cx| stream.poll_first(cx)).await {
            return status::refuse(&error);
        }
        let mut response = Response::new(Body::stream(stream));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        if call.gzip {
            headers.insert(GRPC_ENCODING, GZIP);
        }
        response
    }

    /// Resolves when something other than its method ends the stream, with the status.
    fn ending(&self, call: &Call, stopped: Error) -> Ending {
        let deadline = call.deadline;
        let stopping = self.stopping().clone();
        let leaderless = call.wants_leader.then(|| self.leaderless());
        Box::pin(async move {
            let deadline = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let leaderless = async {
                match leaderless {
                    Some(leaderless) => leaderless.cancelled_owned().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = deadline => call::deadline_exceeded(),
                () = leaderless => ferrite_api::Error::NoLeader.into(),
                () = stopping.cancelled() => stopped,
            }
        })
    }
}

type Ending = Pin<Box<dyn Future<Output = Error> + Send>>;

/// A method at work.
type Serving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
