//! How one call is made: deadline, metadata, attempts.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::balancer::Picked;
use crate::connection::{Connection, is_not_processed};
use crate::rpc::Rpc;
use crate::{Client, Error, retry};

/// The API level this client speaks, sent with every call.
const API_VERSION: &str = "3.7";

/// Log target of failed attempts. The library only says them at debug level: a repeated attempt
/// is no event worth a warning, and tools that want to show it listen here.
const RETRY_LOG: &str = "ferrite_client::retry";

/// What a handle adds to each of its calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) limit: Limit,
    pub(crate) require_leader: bool,
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
    fn deadline(self) -> Option<Instant> {
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
        self.check_size(&request)?;
        let deadline = self.scope.limit.deadline();
        let mut last = None;
        self.until(deadline, &mut last, async |last| {
            let mut attempt = 0;
            loop {
                let sent = self
                    .send(deadline, &rpc, &request, async |grpc, request, path| {
                        grpc.unary(request, path, ProstCodec::<Req, Resp>::default())
                            .await
                    })
                    .await;
                let error = match sent {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => self.classify(status, deadline),
                };
                tracing::debug!(
                    target: RETRY_LOG,
                    method = rpc.path,
                    attempt,
                    error = %error,
                    "retrying of unary invoker failed"
                );
                attempt += 1;
                let endpoints = self.shared.balancer.len();
                if attempt >= self.shared.config.max_attempts
                    || !rpc.policy.retries(&error, endpoints)
                {
                    return Err(error);
                }
                *last = Some(error);
                let pause = retry::pause(attempt, endpoints, self.shared.config.retry_interval);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        })
        .await
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
        let stream = self
            .until(deadline, &mut None, async |_| {
                self.send(deadline, &rpc, &request, async |grpc, request, path| {
                    grpc.server_streaming(request, path, ProstCodec::<Req, Resp>::default())
                        .await
                })
                .await
                .map_err(|status| self.classify(status, deadline))
            })
            .await?
            .into_inner();
        Ok(Answers {
            stream,
            deadline,
            client: self.clone(),
        })
    }

    /// Runs `work` until the deadline; past it, says what went wrong last.
    async fn until<T>(
        &self,
        deadline: Option<Instant>,
        last: &mut Option<Error>,
        work: impl AsyncFnOnce(&mut Option<Error>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(deadline) = deadline else {
            return work(last).await;
        };
        match timeout_at(deadline, work(last)).await {
            Ok(result) => result,
            Err(_) => Err(self.late(last.take())),
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
        if self.scope.require_leader {
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

    fn late(&self, last: Option<Error>) -> Error {
        Error::DeadlineExceeded {
            last: last
                .or_else(|| self.shared.balancer.last_error())
                .map(Box::new),
        }
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
        let message = self.stream.message();
        let result = match self.deadline {
            None => message.await,
            Some(deadline) => match timeout_at(deadline, message).await {
                Ok(result) => result,
                Err(_) => return Err(self.client.late(None)),
            },
        };
        result.map_err(|status| self.client.classify(status, self.deadline))
    }
}
