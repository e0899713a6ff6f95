//! The client port: listeners, one accept loop each, and connections that speak gRPC and plain HTTP
//! on the same port (spec/wire.md section 2.1).
//!
//! HTTP/1 requests go to the HTTP router, which may take a connection over (WebSockets). HTTP/2 requests go to gRPC by their content type, the rest
//! to the router as well. hyper's connection builder is used without tonic's server around it,
//! because only it can bound the send buffer and raise the limit of resets.
//!
//! What a client may do is bounded per connection (windows, send buffer, header list); how many
//! connections there are is bounded by the file descriptors: when those run out, accepting pauses
//! instead of spinning. Client pings are answered and never punished, however frequent.

mod listener;
mod san;
mod secure;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{self, Builder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use crate::gather::Gathered;
use crate::grpc::{self, Begun, Body, Kv};
pub use listener::{Address, Listener, Serves};
pub(crate) use listener::{Stream, set_up};
use secure::Secured;
pub(crate) use secure::{Admitted, OverTls, Transport};
pub use secure::{Endpoint, Tls};

/// What a client may send ahead of what has been read, per stream, in bytes: most requests fit whole.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same per connection: two full streams.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// What is buffered for a stream whose client reads slowly, in bytes, beyond the piece in hand.
const SEND_BUFFER: usize = 64 * 1024;

/// Largest header block, in bytes: room for long tokens.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Streams that the client may open and reset before they were accepted. Clients that cancel short
/// streams reach the library's default of 20 and lose their connection.
const MAX_PENDING_RESETS: usize = 8192;

/// How long an HTTP/1 client may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of all connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--max-concurrent-streams`, per connection. Default: no limit.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-interval`: silence after which a client is pinged; none = never. Default 2 h.
    pub keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`: how long a ping may go unanswered. Default 20 s.
    pub keepalive_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: u32::MAX,
            keepalive_interval: Some(Duration::from_secs(2 * 60 * 60)),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// The running port. Dropping it does not stop it; [`Serving::shutdown`] does.
#[derive(Debug)]
pub struct Serving<K> {
    addresses: Vec<Address>,
    grpc: grpc::Server<K>,
    draining: CancellationToken,
    killing: CancellationToken,
    connections: TaskTracker,
    accepting: TaskTracker,
}

/// Serves `grpc` and `http` on the listeners, from now on, in tasks of the current runtime.
pub fn serve<K: Kv>(
    listeners: Vec<Listener>,
    grpc: grpc::Server<K>,
    http: axum::Router,
    options: &Options,
) -> Serving<K> {
    let serving = Serving {
        addresses: listeners
            .iter()
            .map(|listener| listener.address().clone())
            .collect(),
        grpc: grpc.clone(),
        draining: CancellationToken::new(),
        killing: CancellationToken::new(),
        connections: TaskTracker::new(),
        accepting: TaskTracker::new(),
    };
    for listener in listeners {
        let port = Arc::new(Port {
            builder: builder(options, listener.serves()),
            grpc: grpc.clone(),
            http: http.clone(),
            serves: listener.serves(),
            tls: listener.tls().cloned(),
            draining: serving.draining.clone(),
            killing: serving.killing.clone(),
            connections: serving.connections.clone(),
        });
        serving.accepting.spawn(port.accept_all(listener));
    }
    serving
}

impl<K: Kv> Serving<K> {
    /// Where it listens, in the order of the listeners.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Stops: no new connections, GOAWAY on those that are open, streams end, and calls in flight
    /// have `patience` to finish before their connections are closed. Returns whether all finished.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.draining.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        self.grpc.stop();
        self.connections.close();
        let finished = tokio::time::timeout(patience, self.connections.wait())
            .await
            .is_ok();
        self.killing.cancel();
        self.connections.wait().await;
        finished
    }
}

/// What the connections of one listener share.
struct Port<K> {
    builder: Builder<InlineFirst>,
    grpc: grpc::Server<K>,
    http: axum::Router,
    serves: Serves,
    tls: Option<Tls>,
    draining: CancellationToken,
    killing: CancellationToken,
    connections: TaskTracker,
}

impl<K: Kv> Port<K> {
    /// Accepts until draining begins. Closes the listener then.
    async fn accept_all(self: Arc<Self>, listener: Listener) {
        let spawn = |stream| match stream {
            Stream::Tcp(stream) => self.connections.spawn(self.clone().admit(stream)),
            Stream::Unix(stream) => self.connections.spawn(self.clone().admit(stream)),
        };
        listener.accept_all(&self.draining, spawn).await;
    }

    async fn admit<S: Transport>(self: Arc<Self>, stream: S) {
        let Some(tls) = &self.tls else {
            return self.serve(stream, None).await;
        };
        let admitted = tokio::select! {
            () = self.draining.cancelled() => None,
            admitted = tls.admit(stream, self.serves) => admitted,
        };
        match admitted {
            Some(Admitted::Secure(stream, secured)) => self.serve(stream, Some(secured)).await,
            Some(Admitted::Plain(stream)) => self.serve(stream, None).await,
            None => {}
        }
    }

    async fn serve<S>(&self, stream: S, secured: Option<Secured>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let common_name = secured
            .as_ref()
            .and_then(|secured| secured.common_name.clone());
        let grpc = self.grpc.for_connection().with_common_name(common_name);
        let socket = Gathered::new(stream);
        let driver = socket.share();
        let service = service_fn(|mut request| {
            if let Some(secured) = &secured {
                secured.tell(&mut request);
            }
            let begun = self.begin(&grpc, &driver, request);
            grpc.clone().finish(begun)
        });
        let socket = TokioIo::new(socket);
        match self.serves {
            // The builder takes HTTP/2 only where nothing can take the connection over.
            Serves::Grpc => {
                let connection = self.builder.serve_connection(socket, service);
                self.drive(&driver, pin!(connection)).await;
            }
            Serves::Both | Serves::Http => {
                let connection = self.builder.serve_connection_with_upgrades(socket, service);
                self.drive(&driver, pin!(connection)).await;
            }
        }
    }

    /// Drives a connection to its end, which is soon when the port is being closed.
    async fn drive<S, C>(&self, driver: &Gathered<S>, mut connection: Pin<&mut C>)
    where
        S: AsyncWrite + Unpin,
        C: Connection,
    {
        let ended = tokio::select! {
            biased;
            ended = driver.drive(connection.as_mut()) => ended,
            () = self.draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = driver.drive(connection.as_mut()) => ended,
                    () = self.killing.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a client connection broke");
        }
    }

    fn begin<S: AsyncWrite + Unpin>(
        &self,
        grpc: &grpc::Server<K>,
        socket: &Gathered<S>,
        mut request: Request<Incoming>,
    ) -> Begun<Incoming> {
        let to_grpc = match self.serves {
            Serves::Both => {
                request.version() == http::Version::HTTP_2 && grpc::Server::<K>::accepts(&request)
            }
            Serves::Grpc => true,
            Serves::Http => false,
        };
        if to_grpc {
            return grpc.begin(request);
        }
        if request.headers().contains_key(http::header::UPGRADE) {
            socket.write_through();
            request.extensions_mut().insert(Upgrading {
                draining: self.draining.clone(),
                killing: self.killing.clone(),
                counted: self.connections.token(),
            });
        }
        let page = self.http.clone().oneshot(request);
        Begun::Boxed(Box::pin(async move {
            page.await
                .unwrap_or_else(|never| match never {})
                .map(Body::from)
        }))
    }
}

/// With a request that may take its connection over: what the connection then still belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Upgrading {
    draining: CancellationToken,
    killing: CancellationToken,
    counted: TaskTrackerToken,
}

impl Upgrading {
    /// Cancelled when the port takes no further requests.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Serves the connection as one of the port: the port waits for it, and ends it in the end.
    pub(crate) async fn run(self, serving: impl Future<Output = ()>) {
        let Self {
            killing, counted, ..
        } = self;
        tokio::select! {
            () = serving => {}
            () = killing.cancelled() => {}
        }
        drop(counted);
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection of hyper's, whether or not it can be taken over.
trait Connection: Future<Output = Result<(), BoxError>> {
    /// Takes no further requests.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

macro_rules! connection {
    ($($name:ident),+) => {
        $(impl<I, S, B, E> Connection for auto::$name<'_, I, S, E>
        where
            S: hyper::service::Service<Request<Incoming>, Response = http::Response<B>>,
            S::Future: 'static,
            S::Error: Into<BoxError>,
            B: http_body::Body + 'static,
            B::Error: Into<BoxError>,
            I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
            E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
        {
            fn graceful_shutdown(self: Pin<&mut Self>) {
                self.graceful_shutdown();
            }
        })+
    };
}

connection!(Connection, UpgradeableConnection);

/// Begins every call in the task of its connection, and gives it a task of its own only if it has to
/// wait: what is answered at once costs no task and no wake-up of another thread, and a proposal is
/// on its way before its task exists. A tenth fewer instructions for the former, a twentieth for the
/// latter.
///
/// A handler must therefore not compute for long before its first await; long reads go to the
/// blocking pool anyway.
#[derive(Clone, Copy, Debug)]
struct InlineFirst;

impl<F> hyper::rt::Executor<F> for InlineFirst
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // Nobody needs to be woken: a new task polls again first thing, with its own waker.
        let mut cx = Context::from_waker(Waker::noop());
        if call.as_mut().poll(&mut cx).is_pending() {
            tokio::spawn(call);
        }
    }
}

fn builder(options: &Options, serves: Serves) -> Builder<InlineFirst> {
    let mut builder = Builder::new(InlineFirst);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        // Streams that this side resets because of a client's mistake: refusing is not an attack.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        // gRPC responses carry no date; nor is it worth its bytes.
        .auto_date_header(false);
    match serves {
        Serves::Grpc => builder.http2_only(),
        Serves::Both | Serves::Http => builder,
    }
}
