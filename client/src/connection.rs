//! One HTTP/2 connection to one endpoint, as a service that gRPC calls are made on.
//!
//! The client drives hyper itself instead of taking a ready-made channel for two reasons: it sees
//! exactly when a connection ends, so endpoints in rotation are connected ones; and it learns
//! whether a failed request was ever sent, which decides whether a write may be sent elsewhere.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tower::Service;

use crate::endpoint::{Address, Security, Target};
use crate::{Config, TlsOptions};

/// Flow-control windows that let one large answer use a fast network.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The future that carries a connection's bytes; ends when the connection does.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// A cheap handle on an open connection.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<tonic::body::Body>,
    origin: Uri,
}

impl Connection {
    /// Connects, says hello, and waits for the server's first word. The kernel accepts connections
    /// for a server that has bound its port and does not serve yet, or never will: calls that were
    /// sent there would wait with it.
    pub(crate) async fn open(
        target: &Target,
        config: &Config,
    ) -> Result<(Connection, Driver), String> {
        match &target.address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| error.to_string())?;
                // Requests are small and wait for answers: never hold one back for a fuller packet.
                stream
                    .set_nodelay(true)
                    .map_err(|error| error.to_string())?;
                Self::secure(stream, target, config).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| error.to_string())?;
                Self::secure(stream, target, config).await
            }
        }
    }

    /// With TLS, if the endpoint or the configuration asks for it.
    async fn secure<S>(
        stream: S,
        target: &Target,
        config: &Config,
    ) -> Result<(Connection, Driver), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let of_the_system;
        let tls = match (target.security, &config.tls) {
            (Security::None, _) | (Security::Open, None) => None,
            (_, Some(tls)) => Some(tls),
            (Security::Required, None) => {
                let default = TlsOptions::default().load();
                of_the_system = default.map_err(|error| error.to_string())?;
                Some(&of_the_system)
            }
        };
        match tls {
            Some(tls) => {
                let stream = tls.connect(target.host(), stream).await?;
                Self::handshake(stream, target, config).await
            }
            None => Self::handshake(stream, target, config).await,
        }
    }

    async fn handshake<S>(
        stream: S,
        target: &Target,
        config: &Config,
    ) -> Result<(Connection, Driver), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (first, heard) = oneshot::channel();
        let stream = Heard {
            stream,
            first: Some(first),
        };
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(config.ping_interval())
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(config.keepalive_while_idle)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        let connection = Connection {
            sender,
            origin: target.origin.clone(),
        };
        let mut driver: Driver = Box::pin(driver);
        tokio::select! {
            ended = &mut driver => Err(match ended {
                Ok(()) => "connection closed".to_owned(),
                Err(error) => chain(&error),
            }),
            // Cannot fail while the driver, which owns the sender, goes on.
            _ = heard => Ok((connection, driver)),
        }
    }

    /// Scheme and authority for requests on this connection.
    pub(crate) fn origin(&self) -> Uri {
        self.origin.clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.sender
            .poll_ready(context)
            .map_err(|error| not_processed(Status::unavailable(chain(&error))))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("ferrite-client/", env!("CARGO_PKG_VERSION"))),
        );
        let answer = self.sender.try_send_request(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.map(ResponseBody)),
                Err(failure) => {
                    // hyper hands the request back only if none of it left this process.
                    let unsent = failure.message().is_some();
                    let error = failure.into_error();
                    let status = status_of(&error);
                    Err(if unsent || refused_unseen(&error) {
                        not_processed(status)
                    } else {
                        status
                    })
                }
            }
        })
    }
}

/// A socket that tells when something has come from the server.
struct Heard<S> {
    stream: S,
    first: Option<oneshot::Sender<()>>,
}

impl<S: AsyncRead + Unpin> Heard<S> {
    /// Why nothing can be written. Over TLS, a server that refuses a certificate says so and leaves: what
    /// it has said is the reason.
    fn explain<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = written else {
            return written;
        };
        let mut byte = [0];
        let read = Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte));
        Poll::Ready(Err(match read {
            Poll::Ready(Err(said)) if self.first.is_some() => ferrite_tls::explain(said),
            _ => error,
        }))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        // Over TLS, a server may refuse a certificate only now.
        let result = result.map_err(ferrite_tls::explain);
        if buffer.filled().len() > before
            && let Some(first) = self.first.take()
        {
            // Whoever waited may have given up.
            let _gone = first.send(());
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.explain(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.explain(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.explain(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A response body whose transport errors are statuses with a meaning.
#[derive(Debug)]
pub(crate) struct ResponseBody(Incoming);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0)
            .poll_frame(context)
            .map_err(|error| status_of(&error))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Marks a status whose request was certainly not executed: any call may be sent again.
#[derive(Debug)]
struct NotProcessed;

impl fmt::Display for NotProcessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not processed")
    }
}

impl StdError for NotProcessed {}

fn not_processed(mut status: Status) -> Status {
    status.set_source(Arc::new(NotProcessed));
    status
}

/// Whether the request behind this status was certainly not executed.
pub(crate) fn is_not_processed(status: &Status) -> bool {
    status
        .source()
        .is_some_and(|source| source.is::<NotProcessed>())
}

/// The server's promise that it did not look at the request: the stream was refused (RFC 9113,
/// 8.7), or lies beyond the last one that a closing server still serves (the only streams that
/// fail with the peer's GOAWAY).
fn refused_unseen(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|h2| {
        h2.is_remote()
            && ((h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM))
                || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)))
    })
}

/// The status that gRPC prescribes for a failed stream; a lost connection is `Unavailable`.
fn status_of(error: &hyper::Error) -> Status {
    let code = match h2_error(error) {
        Some(h2) if h2.is_go_away() => Code::Unavailable,
        Some(h2) => match h2.reason() {
            Some(h2::Reason::CANCEL) => Code::Cancelled,
            Some(h2::Reason::REFUSED_STREAM) | None => Code::Unavailable,
            Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
            Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
            Some(_) => Code::Internal,
        },
        None => Code::Unavailable,
    };
    Status::new(code, chain(error))
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return Some(h2);
        }
        source = error.source();
    }
    None
}

/// An error with its causes: hyper's own texts leave them out.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
