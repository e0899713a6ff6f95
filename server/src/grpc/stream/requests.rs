//! The requests of a stream as they arrive.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use prost::Message;
use tonic::Code;

use crate::error::Error;
use crate::grpc::message::{Fault, Messages};
use crate::metrics::{Method, Metrics};

/// The requests of a stream, in order.
pub(in crate::grpc) struct Requests<R> {
    messages: Messages<AnyBody>,
    /// The client has closed its side.
    ended: bool,
    metrics: Arc<Metrics>,
    method: Method,
    connection: u32,
    request: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Requests<R> {
    pub(super) fn new<B>(
        messages: Messages<B>,
        metrics: Arc<Metrics>,
        method: Method,
        connection: u32,
    ) -> Self
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        Self {
            messages: messages.map_body(AnyBody::new),
            ended: false,
            metrics,
            method,
            connection,
            request: PhantomData,
        }
    }

    /// The number of the connection that they come from.
    pub(in crate::grpc) fn connection(&self) -> u32 {
        self.connection
    }

    /// The next request; `None` once the client has closed its side, which by itself does not end
    /// the stream.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The status that the stream has to end with: the request is refused, or the client is gone.
    pub(in crate::grpc) async fn next(&mut self) -> Result<Option<R>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(message) = self.message().await? else {
            self.ended = true;
            return Ok(None);
        };
        self.decode(message).map(Some)
    }

    /// The request of a method that has one only. It is not looked at before the client has closed
    /// its side, as in etcd's gRPC library.
    ///
    /// # Errors
    /// As [`Requests::next`]; also when there is none, or more than one.
    pub(in crate::grpc) async fn only(mut self) -> Result<R, Error> {
        let violation = |what| {
            let text = format!("cardinality violation: received {what} non-client-streaming RPC");
            Error::status(Code::Internal, text)
        };
        let Some(message) = self.message().await? else {
            return Err(violation("no request message from"));
        };
        if self.message().await?.is_some() {
            return Err(violation("multiple request messages for"));
        }
        self.decode(message)
    }

    async fn message(&mut self) -> Result<Option<Bytes>, Error> {
        match self.messages.next().await {
            Ok(message) => Ok(message),
            Err(Fault::Truncated) => Err(Error::status(Code::Internal, "unexpected EOF")),
            Err(Fault::Gone) => Err(Error::status(Code::Cancelled, "context canceled")),
            Err(Fault::Refused(error)) => Err(error),
        }
    }

    fn decode(&self, message: Bytes) -> Result<R, Error> {
        self.metrics.grpc.method(self.method).received();
        let received = &self.metrics.network.client_grpc_received_bytes;
        received.inc_by(message.len() as u64);
        R::decode(message).map_err(|error| {
            let text = format!("grpc: failed to unmarshal the received message: {error}");
            Error::status(Code::Internal, text)
        })
    }
}

/// A request body whose type no longer matters: a stream has few requests.
pub(super) struct AnyBody(Pin<Box<dyn ErasedBody>>);

trait ErasedBody: Send {
    /// The next frame; `Err`: the stream broke.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>>;
}

impl<B: http_body::Body<Data = Bytes> + Send> ErasedBody for B {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        self.poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(|_| ())))
    }
}

impl AnyBody {
    fn new<B: http_body::Body<Data = Bytes> + Send + 'static>(body: B) -> Self {
        Self(Box::pin(body))
    }
}

impl http_body::Body for AnyBody {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        self.0.as_mut().poll(cx)
    }
}
