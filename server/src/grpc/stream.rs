//! Streaming calls: tonic moves the messages, this layer gives them what etcd gives every stream:
//! the same refusals as unary calls ([`Messages`]), counting, the deadline, and an early end when
//! the server stops or a client that insists on a leader loses it.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use prost::Message;
use tokio_stream::Stream;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Code, Status};

use super::body::Body;
use super::call::{self, Account, Bounded, Call};
use super::message::{Fault, Messages};
use super::reply::{GRPC_ENCODING, GZIP, MAX_SENT, put_prefix};
use super::{Kv, Server, status, unary};
use crate::error::Error;
use crate::metrics::server::CallKind;
use crate::metrics::{Method, Metrics};

/// The responses of a stream.
pub(super) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A method with one request and many responses.
pub(super) trait ServerStream: Send + Sync + 'static {
    const METHOD: Method;
    type Request: Message + Default + 'static;
    type Response: Message + 'static;

    /// Whether a learner serves this stream.
    const SERVES_LEARNER: bool = false;

    /// How the stream ends when the server stops.
    fn stopped() -> Error {
        ferrite_api::Error::Stopped.into()
    }

    fn call<K: Kv>(
        kv: &K,
        request: Self::Request,
    ) -> impl Future<Output = Result<Responses<Self::Response>, Error>> + Send;
}

impl<K: Kv> Server<K> {
    /// Serves a stream until its headers; the rest is the body of the response.
    pub(super) async fn server_stream<M: ServerStream, B>(
        &self,
        call: Call,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let mut account = Account::begin(self.metrics(), M::METHOD, call.deadline, Duration::MAX);
        let (kv, metrics) = (self.kv(), self.metrics());
        if let Err(error) = call.admit(kv, metrics, CallKind::Stream, M::SERVES_LEARNER) {
            account.end(error.wire_code());
            return status::refuse(&error.into());
        }
        let mut ending = self.ending(&call, M::stopped());
        let request = self.checked(&call, request);
        let codec = Counted::<M> {
            metrics: self.metrics().clone(),
            method: PhantomData,
        };
        let mut grpc = Grpc::new(codec)
            .max_decoding_message_size(usize::MAX) // the limit is in `Messages`
            .max_encoding_message_size(MAX_SENT)
            .send_compressed(CompressionEncoding::Gzip);
        let handler = Handler::<M, K> {
            kv: self.kv().clone(),
            method: PhantomData,
        };
        let serving = async { Ok(grpc.server_streaming(handler, request).await) };
        let response = tokio::select! {
            biased;
            response = Bounded::new(serving, None) => response,
            error = &mut ending => Err(error),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                account.end(error.code());
                return status::refuse(&error);
            }
        };
        if let Some(error) = status::read(response.headers()) {
            // Refused before the first message: headers only, without tonic's empty body behind.
            account.end(error.code());
            return status::refuse(&error);
        }
        response.map(|inner| {
            Body::stream(StreamBody {
                inner: Some(inner),
                ending,
                account,
            })
        })
    }

    /// Resolves when something other than its handler ends the stream, with the status.
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

    /// The request as tonic shall see it: only whole, plain messages of allowed length, and a wish
    /// for gzip exactly if the client itself compresses (etcd's rule; tonic's is another).
    fn checked<B>(&self, call: &Call, request: Request<B>) -> Request<OneMessage<B>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut request = request.map(|body| OneMessage {
            messages: Messages::new(body, self.max_message_bytes(), call.gzip),
            first: None,
            done: false,
        });
        let headers = request.headers_mut();
        headers.remove(GRPC_ENCODING);
        if call.gzip {
            headers.insert("grpc-accept-encoding", GZIP);
        } else {
            headers.remove("grpc-accept-encoding");
        }
        request
    }
}

type Ending = Pin<Box<dyn Future<Output = Error> + Send>>;

/// A request body of exactly one message, or the refusal of anything else. The message comes out
/// when the client has closed its side, as in etcd's gRPC library.
struct OneMessage<B> {
    messages: Messages<B>,
    first: Option<Bytes>,
    done: bool,
}

impl<B> http_body::Body for OneMessage<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        const TWO: &str = "cardinality violation: received multiple request messages for \
                           non-client-streaming RPC";
        const NONE: &str = "cardinality violation: received no request message from \
                            non-client-streaming RPC";
        while !self.done {
            let refusal = match ready!(self.messages.poll_next(cx)) {
                Ok(Some(message)) if self.first.is_none() => {
                    self.first = Some(message);
                    continue;
                }
                Ok(Some(_)) => Status::internal(TWO),
                Ok(None) => {
                    self.done = true;
                    let Some(message) = self.first.take() else {
                        return Poll::Ready(Some(Err(Status::internal(NONE))));
                    };
                    let mut framed = BytesMut::with_capacity(message.len() + 5);
                    put_prefix(&mut framed, 0, message.len());
                    framed.extend_from_slice(&message);
                    return Poll::Ready(Some(Ok(Frame::data(framed.freeze()))));
                }
                Err(Fault::Truncated) => Status::internal("unexpected EOF"),
                Err(Fault::Gone) => Status::cancelled("context canceled"),
                Err(Fault::Refused(error)) => error.into(),
            };
            self.done = true;
            return Poll::Ready(Some(Err(refusal)));
        }
        Poll::Ready(None)
    }
}

/// The handler in tonic's terms.
struct Handler<M, K> {
    kv: K,
    method: PhantomData<M>,
}

impl<M: ServerStream, K: Kv> ServerStreamingService<M::Request> for Handler<M, K> {
    type Response = M::Response;
    type ResponseStream = Responses<M::Response>;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<M::Request>) -> Self::Future {
        let kv = self.kv.clone();
        Box::pin(async move {
            let responses = M::call(&kv, request.into_inner()).await?;
            Ok(tonic::Response::new(responses))
        })
    }
}

/// prost, with etcd's text for what cannot be decoded, counting messages and bytes.
struct Counted<M> {
    metrics: Arc<Metrics>,
    method: PhantomData<fn() -> M>,
}

impl<M: ServerStream> Codec for Counted<M> {
    type Encode = M::Response;
    type Decode = M::Request;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self {
            metrics: self.metrics.clone(),
            method: PhantomData,
        }
    }

    fn decoder(&mut self) -> Self {
        self.encoder()
    }
}

impl<M: ServerStream> Encoder for Counted<M> {
    type Item = M::Response;
    type Error = Status;

    fn encode(&mut self, item: M::Response, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.metrics.grpc.method(M::METHOD).sent();
        self.metrics
            .network
            .client_grpc_sent_bytes
            .inc_by(item.encoded_len() as u64);
        item.encode_raw(buf);
        Ok(())
    }
}

impl<M: ServerStream> Decoder for Counted<M> {
    type Item = M::Request;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<M::Request>, Status> {
        let message = buf.copy_to_bytes(buf.remaining());
        self.metrics.grpc.method(M::METHOD).received();
        self.metrics
            .network
            .client_grpc_received_bytes
            .inc_by(message.len() as u64);
        Ok(Some(unary::decode(message)?))
    }
}

/// The responses of a stream on their way out.
pub(super) struct StreamBody {
    /// tonic's body; gone once the end went out.
    inner: Option<tonic::body::Body>,
    ending: Ending,
    account: Account,
}

impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl StreamBody {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(error) = self.ending.as_mut().poll(cx) {
            return Poll::Ready(Some(self.end(&error)));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let end = status::read(trailers).unwrap_or_else(call::panicked);
                    return Poll::Ready(Some(self.end(&end)));
                }
                Poll::Ready(Some(frame))
            }
            Ok(Poll::Ready(Some(Err(status)))) => {
                let error = Error::status(status.code(), status.message().to_owned());
                Poll::Ready(Some(self.end(&error)))
            }
            Ok(Poll::Ready(None)) => {
                self.inner = None;
                Poll::Ready(None)
            }
            Err(_) => {
                tracing::error!("the stream of an RPC panicked");
                Poll::Ready(Some(self.end(&call::panicked())))
            }
        }
    }

    /// Ends the stream with this status, which may be OK.
    fn end(&mut self, status: &Error) -> Frame<Bytes> {
        self.inner = None;
        self.account.end(status.code());
        Frame::trailers(match status.code() {
            Code::Ok => status::ok_trailers(),
            _ => status::error_trailers(status),
        })
    }
}
