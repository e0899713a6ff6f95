//! How one call is made: deadline, metadata, attempts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::balancer::Picked;
use crate::connection::{Connection, is_not_processed};
use crate::login;
use crate::namespace::Namespace;
use crate::ordering::Order;
use crate::rpc::{self, Rpc};
use crate::{Client, Error, retry};

/// The API level this client speaks, sent with every call.
const API_VERSION: &str = "3.7";

/// Log target of failed attempts. The library only says them at debug level: a repeated attempt
/// is no event worth a warning, and tools that want to show it listen here.
const RETRY_LOG: &str = "ferrite_client::retry";

/// Why a two-way stream is over when the server ended it without an error.
const STREAM_ENDED: &str = "the server ended the stream";

/// Requests that wait for the connection of a two-way stream. Few: what is not sent yet can still
/// be decided otherwise.
const REQUESTS_AHEAD: usize = 1;

/// What a handle adds to each of its calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) limit: Limit,
    pub(crate) leader: Leader,
    pub(crate) namespace: Namespace,
    pub(crate) order: Option<Arc<Order>>,
}

/// What calls want of the member that answers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Leader {
    /// Streams look for a member that knows a leader; other calls do not ask.
    #[default]
    Sought,
    /// No leader is an error.
    Required,
    /// Nothing.
    Indifferent,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Limit {
    #[default]
    None,
    PerCall(Duration),
    At(Instant),
}

impl Limit {
    /// The deadline of a call that starts now. A timeout beyond the clock's range is none.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Limit::None => None,
            Limit::PerCall(timeout) => Instant::now().checked_add(timeout),
            Limit::At(deadline) => Some(deadline),
        }
    }
}

impl Client {
    /// Makes a unary call, repeating it as its policy allows.
    pub(crate) async fn unary<Req, Resp>(
        &self,
        rpc: Rpc<Req, Resp>,
        request: Req,
    ) -> Result<Resp, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let deadline = self.scope.limit.deadline();
        let mut failed = Failed::default();
        let result = match self.check_size(&request) {
            Ok(()) => {
                let attempts = self.attempts(&rpc, &request, deadline, &mut failed);
                until(deadline, attempts).await
            }
            Err(error) => Some(Err(error)),
        };
        let error = match result {
            Some(Ok(response)) => return Ok(response),
            Some(Err(error)) => error,
            None => self.late(failed.last.take()),
        };
        failed.report(rpc.path, &error);
        Err(error)
    }

    /// Sends until an answer is final.
    async fn attempts<Req, Resp>(
        &self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        deadline: Option<Instant>,
        failed: &mut Failed,
    ) -> Result<Resp, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        loop {
            let used = self.shared.login.token();
            let sent = self
                .send(deadline, rpc, request, async |grpc, request, path| {
                    grpc.unary(request, path, ProstCodec::<Req, Resp>::default())
                        .await
                })
                .await;
            let error = match sent {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => self.classify(status, deadline),
            };
            let endpoints = self.shared.balancer.len();
            let config = &self.shared.config;
            // A call that was refused for its token has done nothing, whatever it is.
            let relogs = rpc.path != rpc::AUTHENTICATE.path && login::may_pass(config, &error);
            if failed.attempts + 1 >= config.max_attempts
                || !(relogs || rpc.policy.retries(&error, endpoints))
            {
                return Err(error);
            }
            if relogs {
                self.renew_token(used).await?;
            }
            failed.report(rpc.path, &error);
            failed.attempts += 1;
            failed.last = Some(error);
            let interval = self.shared.config.retry_interval;
            let pause = retry::pause(failed.attempts, endpoints, interval);
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// Opens a stream of answers. Never repeated once the request was sent.
    pub(crate) async fn server_stream<Req, Resp>(
        &self,
        rpc: Rpc<Req, Resp>,
        request: Req,
    ) -> Result<Answers<Resp>, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        self.check_size(&request)?;
        let deadline = self.scope.limit.deadline();
        let open = async {
            self.token_for_stream().await?;
            let opened = self.send(deadline, &rpc, &request, async |grpc, request, path| {
                grpc.server_streaming(request, path, ProstCodec::<Req, Resp>::default())
                    .await
            });
            let opened = opened.await;
            opened.map_err(|status| self.classify(status, deadline))
        };
        let stream = match until(deadline, open).await {
            Some(opened) => opened?.into_inner(),
            None => return Err(self.late(None)),
        };
        Ok(Answers {
            stream,
            deadline,
            client: self.clone(),
        })
    }

    /// Opens a stream of answers, the first of which may be long in coming.
    pub(crate) fn slow_server_stream<Req, Resp>(
        &self,
        rpc: Rpc<Req, Resp>,
        request: Req,
    ) -> Incoming<Resp>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let client = self.clone();
        Incoming::new(async move { client.server_stream(rpc, request).await })
    }

    /// Opens a stream in both directions, which no deadline ends. Never repeated.
    pub(crate) fn two_way_stream<Req, Resp>(&self, rpc: Rpc<Req, Resp>) -> TwoWay<Req, Resp>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        let (requests, outgoing) = mpsc::channel(REQUESTS_AHEAD);
        let client = self.clone();
        let opening = async move {
            client.token_for_stream().await?;
            let picked = client.shared.balancer.pick().await;
            let mut grpc = client.grpc(&picked);
            let request = client.request(ReceiverStream::new(outgoing), None);
            let path = PathAndQuery::from_static(rpc.path);
            let codec = ProstCodec::<Req, Resp>::default();
            let result = match grpc.ready().await {
                Ok(()) => grpc.streaming(request, path, codec).await,
                Err(status) => Err(status),
            };
            match result {
                Ok(response) => Ok(Answers {
                    stream: response.into_inner(),
                    deadline: None,
                    client,
                }),
                Err(status) => {
                    if is_not_processed(&status) {
                        picked.discard();
                    }
                    Err(Error::from(status))
                }
            }
        };
        TwoWay {
            requests,
            incoming: Incoming::new(opening),
        }
    }

    /// Puts one request on the next connection, and on another one for as long as it is certain
    /// that no server has seen it.
    async fn send<Req, Resp, T>(
        &self,
        deadline: Option<Instant>,
        rpc: &Rpc<Req, Resp>,
        message: &Req,
        transmit: impl AsyncFn(&mut Grpc<Connection>, Request<Req>, PathAndQuery) -> Result<T, Status>,
    ) -> Result<T, Status>
    where
        Req: Message + Clone,
    {
        loop {
            let picked = self.shared.balancer.pick().await;
            let mut grpc = self.grpc(&picked);
            let request = self.request(message.clone(), deadline);
            let path = PathAndQuery::from_static(rpc.path);
            let result = match grpc.ready().await {
                Ok(()) => transmit(&mut grpc, request, path).await,
                Err(status) => Err(status),
            };
            match result {
                Err(status) if is_not_processed(&status) => {
                    tracing::debug!(endpoint = picked.endpoint(), %status, "not sent, next endpoint");
                    picked.discard();
                }
                result => return result,
            }
        }
    }

    fn grpc(&self, picked: &Picked) -> Grpc<Connection> {
        let connection = picked.connection.clone();
        let origin = connection.origin();
        Grpc::with_origin(connection, origin)
            .max_decoding_message_size(self.shared.config.receive_limit())
    }

    fn request<Req>(&self, message: Req, deadline: Option<Instant>) -> Request<Req> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(
            "client-api-version",
            MetadataValue::from_static(API_VERSION),
        );
        if let Some(token) = self.shared.login.token() {
            metadata.insert("token", token);
        }
        if self.scope.leader == Leader::Required {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }

    /// Refuses a request over the send limit, in the words of other etcd clients.
    fn check_size(&self, message: &impl Message) -> Result<(), Error> {
        let (size, limit) = (message.encoded_len(), self.shared.config.send_limit());
        if size <= limit {
            return Ok(());
        }
        Err(Error::Status(Status::resource_exhausted(format!(
            "trying to send message larger than max ({size} vs. {limit})"
        ))))
    }

    /// The error of a status. A server that gave up because of the deadline that was sent along
    /// may be a moment ahead of our own timer: it is the caller's time that was up.
    fn classify(&self, status: Status, deadline: Option<Instant>) -> Error {
        if deadline.is_some() && status.code() == Code::DeadlineExceeded {
            return self.late(None);
        }
        Error::from(status)
    }

    /// The same client, whose time for all of its calls together begins now.
    pub(crate) fn with_one_deadline(&self) -> Client {
        let mut client = self.clone();
        if let Some(deadline) = self.scope.limit.deadline() {
            client.scope.limit = Limit::At(deadline);
        }
        client
    }

    pub(crate) fn late(&self, last: Option<Error>) -> Error {
        Error::DeadlineExceeded {
            last: last
                .or_else(|| self.shared.balancer.last_error())
                .map(Box::new),
        }
    }
}

/// The failed attempts of one call so far.
#[derive(Debug, Default)]
struct Failed {
    attempts: u32,
    last: Option<Error>,
}

impl Failed {
    /// Tells whoever listens that the attempt in progress failed.
    fn report(&self, method: &'static str, error: &Error) {
        let cause = std::error::Error::source(error);
        tracing::debug!(
            target: RETRY_LOG,
            method,
            attempt = self.attempts,
            error = %error,
            cause = cause.map(tracing::field::display),
            "attempt failed"
        );
    }
}

/// The result of `work`, or `None` if the deadline comes first.
pub(crate) async fn until<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// The answers of a server stream, in order.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    stream: Streaming<T>,
    deadline: Option<Instant>,
    /// Keeps the connections up for as long as the stream is read.
    client: Client,
}

impl<T> Answers<T> {
    /// The next answer; `None` when the server is done.
    ///
    /// Cancel safety: no answer is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        match until(self.deadline, self.stream.message()).await {
            Some(result) => result.map_err(|status| self.client.classify(status, self.deadline)),
            None => Err(self.client.late(None)),
        }
    }
}

/// A stream in both directions. Dropping it ends the call on the server, too.
pub(crate) struct TwoWay<Req, Resp> {
    /// Full while the connection takes nothing.
    pub(crate) requests: mpsc::Sender<Req>,
    incoming: Incoming<Resp>,
}

impl<Req, Resp> TwoWay<Req, Resp> {
    /// A stream without a connection, and the server's ends of it.
    #[cfg(test)]
    pub(crate) fn in_memory() -> (Self, mpsc::Receiver<Req>, mpsc::Sender<Result<Resp, Error>>) {
        let (requests, outgoing) = mpsc::channel(REQUESTS_AHEAD);
        let (sender, answers) = mpsc::channel(REQUESTS_AHEAD);
        let incoming = Incoming {
            stage: Stage::InMemory(answers),
        };
        (TwoWay { requests, incoming }, outgoing, sender)
    }

    /// The next answer. That the server is done counts as a lost connection: neither side ends
    /// these streams.
    ///
    /// Cancel safety: no answer is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Resp, Error> {
        let answer = self.incoming.next().await?;
        answer.ok_or_else(|| Error::from(Status::unavailable(STREAM_ENDED)))
    }
}

/// The answers of a stream that may not be open yet: a server begins to answer when it has
/// something to say, which may be long after it has begun to work.
pub(crate) struct Incoming<T> {
    stage: Stage<T>,
}

enum Stage<T> {
    Opening(Opening<T>),
    Open(Box<Answers<T>>),
    #[cfg(test)]
    InMemory(mpsc::Receiver<Result<T, Error>>),
    Ended,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Answers<T>, Error>> + Send>>;

impl<T> Incoming<T> {
    fn new(opening: impl Future<Output = Result<Answers<T>, Error>> + Send + 'static) -> Self {
        Incoming {
            stage: Stage::Opening(Box::pin(opening)),
        }
    }

    /// The next answer; `None` when the server is done, and after an error.
    ///
    /// Cancel safety: no answer is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        let result = loop {
            match &mut self.stage {
                Stage::Opening(opening) => match opening.await {
                    Ok(answers) => self.stage = Stage::Open(Box::new(answers)),
                    Err(error) => break Err(error),
                },
                Stage::Open(answers) => break answers.next().await,
                #[cfg(test)]
                Stage::InMemory(answers) => break answers.recv().await.transpose(),
                Stage::Ended => return Ok(None),
            }
        };
        if !matches!(result, Ok(Some(_))) {
            self.stage = Stage::Ended;
        }
        result
    }
}

impl<T> std::fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.stage {
            Stage::Opening(_) => "Incoming(opening)",
            Stage::Open(_) => "Incoming(open)",
            #[cfg(test)]
            Stage::InMemory(_) => "Incoming(in memory)",
            Stage::Ended => "Incoming(ended)",
        })
    }
}
