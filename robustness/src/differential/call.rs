//! Asking a server: over gRPC with messages that are only known by their descriptors, and over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::accounts;
use super::generate::{WATCH, method};
use super::step::{Answer, Step, Watched};

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of watches on which nothing has come for so long has given everything; etcd looks after
/// watchers that are behind ten times a second.
pub(super) const QUIET: Duration = Duration::from_millis(150);

/// Largest answer.
const LIMIT: usize = 64 << 20;

/// A server.
pub struct Caller {
    channel: Channel,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    endpoint: String,
    /// The tokens of users who have logged in. Held for one look.
    tokens: Mutex<BTreeMap<&'static str, String>>,
}

impl Caller {
    /// The server at `endpoint`, host and port.
    ///
    /// # Errors
    /// That is no endpoint.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let uri = format!("http://{endpoint}");
        Ok(Self {
            channel: Endpoint::from_shared(uri)?.connect_lazy(),
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            endpoint: endpoint.to_owned(),
            tokens: Mutex::default(),
        })
    }

    /// Does a step.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn ask(&self, step: &Step) -> anyhow::Result<Answer> {
        let (user, step) = step.by();
        let token = self.token(user).await?;
        let token = token.as_deref();
        let answer = match step {
            Step::Call { path, request } => self.call(path, request, token).await?,
            Step::Watch { .. } | Step::As { .. } => bail!("{step} is not one question"),
            Step::Json { path, body } => {
                let body = Bytes::from(body.clone());
                self.http("POST", path, body, token).await?
            }
            Step::Get { path } => self.http("GET", path, Bytes::new(), token).await?,
        };
        let unknown = match &answer {
            Answer::Call { code, .. } => *code == tonic::Code::Unauthenticated as i32,
            Answer::Http { status, .. } => *status == 401,
            Answer::Watch(_) => false,
        };
        if let Some(user) = user
            && unknown
        {
            self.tokens.lock().remove(user);
        }
        Ok(answer)
    }

    /// The token of a user; none if there is no user, or if it cannot log in.
    async fn token(&self, user: Option<&'static str>) -> anyhow::Result<Option<String>> {
        let Some(user) = user else {
            return Ok(None);
        };
        let known = self.tokens.lock().get(user).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let request = accounts::login(user);
        let answer = self.call(accounts::AUTHENTICATE, &request, None).await?;
        let Answer::Call { messages, .. } = answer else {
            return Ok(None);
        };
        let token = messages.first().and_then(|message| {
            let token = message.get_field_by_name("token")?;
            token.as_str().map(str::to_owned)
        });
        if let Some(token) = &token {
            self.tokens.lock().insert(user, token.clone());
        }
        Ok(token)
    }

    async fn grpc(&self) -> anyhow::Result<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.channel.clone())
            .max_decoding_message_size(LIMIT)
            .max_encoding_message_size(LIMIT);
        grpc.ready().await.context("no connection")?;
        Ok(grpc)
    }

    async fn call(
        &self,
        path: &str,
        request: &DynamicMessage,
        token: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let method = method(path);
        let mut messages = Vec::new();
        let mut grpc = self.grpc().await?;
        let whole = async {
            let (once, path) = (request.encode_to_vec(), path.parse()?);
            // One request on a stream that stays open is what a keep-alive is; it ends with its answer.
            let request = with(token, tokio_stream::once(Bytes::from(once)))?;
            let answer = grpc.streaming(request, path, Raw).await;
            let mut answers: Streaming<Bytes> = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => return Ok(status),
            };
            loop {
                match answers.message().await {
                    Ok(Some(message)) => {
                        messages.push(DynamicMessage::decode(method.output(), message)?);
                    }
                    Ok(None) => return Ok(Status::new(tonic::Code::Ok, "")),
                    Err(status) => return Ok(status),
                }
            }
        };
        let status: anyhow::Result<Status> = timeout(PATIENCE, whole).await?;
        let status = status?;
        let refused = status.code() != tonic::Code::Unavailable;
        ensure!(
            refused || status.message().starts_with("etcdserver: "),
            "the server is not there: {status}"
        );
        Ok(Answer::Call {
            messages,
            code: status.code() as i32,
            text: status.message().to_owned(),
        })
    }

    /// Opens a stream of watches.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn watch(
        &self,
        user: Option<&'static str>,
        requests: &[DynamicMessage],
    ) -> anyhow::Result<Watching> {
        let token = self.token(user).await?;
        let (send, requested) = mpsc::channel::<Bytes>(requests.len().max(1));
        let stream = tokio_stream::wrappers::ReceiverStream::new(requested);
        let stream = with(token.as_deref(), stream)?;
        let mut grpc = self.grpc().await?;
        let mut expected = 0_usize;
        for request in requests {
            send.send(request.encode_to_vec().into()).await?;
            expected += usize::from(request.has_field_by_name("create_request"));
        }
        let opened = grpc.streaming(stream, WATCH.parse()?, Raw);
        Ok(Watching {
            answers: timeout(PATIENCE, opened).await??.into_inner(),
            _send: send,
            expected,
            watched: BTreeMap::new(),
        })
    }

    async fn http(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
        token: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.endpoint));
        if let Some(token) = token {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body))?;
        let answer = timeout(PATIENCE, self.http.request(request)).await??;
        let status = answer.status().as_u16();
        let body = timeout(PATIENCE, answer.into_body().collect()).await??;
        Ok(Answer::Http {
            status,
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    }
}

/// A request with a token.
fn with<T>(token: Option<&str>, message: T) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let token = MetadataValue::try_from(token)?;
        request.metadata_mut().insert("token", token);
    }
    Ok(request)
}

/// A stream of watches.
pub(super) struct Watching {
    answers: Streaming<Bytes>,
    /// The stream stays open as long as this.
    _send: mpsc::Sender<Bytes>,
    /// Watchers that have not been created.
    expected: usize,
    watched: BTreeMap<i64, Watched>,
}

impl Watching {
    /// Waits until all watchers are created.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn created(&mut self) -> anyhow::Result<()> {
        while self.expected > 0 {
            let next = self.answers.message();
            let message = timeout(PATIENCE, next).await;
            let message = message.context("not all watchers are created")?;
            self.take(message?)?;
        }
        Ok(())
    }

    /// Takes what comes, until nothing has come for `quiet`.
    ///
    /// # Errors
    /// The stream has ended.
    pub(super) async fn gather(&mut self, quiet: Duration) -> anyhow::Result<Answer> {
        while let Ok(message) = timeout(quiet, self.answers.message()).await {
            self.take(message?)?;
        }
        Ok(Answer::Watch(self.watched.values().cloned().collect()))
    }

    fn take(&mut self, message: Option<Bytes>) -> anyhow::Result<()> {
        let message = message.context("the stream has ended")?;
        let mut message = DynamicMessage::decode(method(WATCH).output(), message)?;
        let id = number(&message, "watch_id");
        let events = take_events(&mut message);
        let created = flag(&message, "created");
        self.expected = self.expected.saturating_sub(created.into());
        let watched = self.watched.entry(id).or_default();
        watched.id = id;
        if events.is_empty() {
            watched.notes.push(message);
        }
        watched.events.extend(events);
        Ok(())
    }
}

fn number(message: &DynamicMessage, field: &str) -> i64 {
    let value = message.get_field_by_name(field);
    value.and_then(|value| value.as_i64()).unwrap_or_default()
}

fn flag(message: &DynamicMessage, field: &str) -> bool {
    let value = message.get_field_by_name(field);
    value.and_then(|value| value.as_bool()).unwrap_or_default()
}

fn take_events(message: &mut DynamicMessage) -> Vec<DynamicMessage> {
    let events = message
        .get_field_by_name("events")
        .map(|it| it.into_owned());
    message.clear_field_by_name("events");
    let Some(Value::List(events)) = events else {
        return Vec::new();
    };
    let events = events.into_iter();
    events
        .filter_map(|event| event.as_message().cloned())
        .collect()
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
