//! The client port over a member that does nothing, and a client that can send what no gRPC library
//! sends.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::routing::get;
use bytes::{Buf, BufMut, Bytes};
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_server::error::Error;
use ferrite_server::grpc::{self, Auths, Clusters, Kv, Leases};
use ferrite_server::handle::range_stream::{Messages, Piece};
use ferrite_server::handle::snapshot::Snapshot;
use ferrite_server::handle::{List, WatchStream};
use ferrite_server::metrics::{self, Metrics};
use ferrite_server::serve::{Address, Listener, Options, Serves, Serving, serve};
use http::{HeaderMap, Method, Request};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

/// `--max-request-bytes` of the tests; the longest message is 512 KiB longer.
pub(crate) const MAX_REQUEST: usize = 1000;

/// The longest message in bytes.
pub(crate) const MAX_MESSAGE: usize = MAX_REQUEST + 512 * 1024;

/// A member that answers by the key of the request.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<State>);

#[derive(Default)]
struct State {
    leaderless: AtomicBool,
    learner: AtomicBool,
    /// Reasons for the health service to say that it does not serve.
    paused: watch::Sender<usize>,
    /// Puts of `block` that have arrived.
    blocked: AtomicU64,
    arrived: Notify,
    release: Notify,
}

impl Fake {
    pub(crate) fn lose_leader(&self) {
        self.0.leaderless.store(true, Ordering::SeqCst);
    }

    pub(crate) fn pause(&self, reasons: usize) {
        self.0.paused.send_replace(reasons);
    }

    pub(crate) fn become_learner(&self) {
        self.0.learner.store(true, Ordering::SeqCst);
    }

    /// Waits until a put of `block` has arrived.
    pub(crate) async fn wait_blocked(&self) {
        while self.0.blocked.load(Ordering::SeqCst) == 0 {
            self.0.arrived.notified().await;
        }
    }

    /// Lets one blocked put finish.
    pub(crate) fn release(&self) {
        self.0.release.notify_one();
    }
}

pub(crate) fn header() -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: 1,
        member_id: 2,
        revision: 3,
        raft_term: 4,
    }
}

/// What `Range` answers for `limit` pairs of `revision` bytes.
pub(crate) fn pairs(limit: i64, size: i64) -> Vec<KeyValue> {
    (0..limit)
        .map(|i| KeyValue {
            key: format!("key{i}").into(),
            value: vec![b'v'; usize::try_from(size).unwrap()].into(),
            ..Default::default()
        })
        .collect()
}

/// Leases that answer by their id.
impl Auths for Fake {}

impl Leases for Fake {
    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, Error> {
        Ok(pb::LeaseGrantResponse {
            header: Some(header()),
            id: request.id,
            ttl: request.ttl,
            error: String::new(),
        })
    }

    async fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Error> {
        if request.id == 0 {
            return Err(ApiError::LeaseNotFound.into());
        }
        let header = Some(header());
        Ok(pb::LeaseRevokeResponse { header })
    }

    /// Lives as many seconds as its id says; a negative one fails.
    async fn lease_keep_alive(
        &self,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<pb::LeaseKeepAliveResponse, Error> {
        if request.id < 0 {
            return Err(Error::status(tonic::Code::Unknown, "not a primary lessor"));
        }
        Ok(pb::LeaseKeepAliveResponse {
            header: Some(header()),
            id: request.id,
            ttl: request.id,
        })
    }

    async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(header()),
            id: request.id,
            ttl: -1,
            ..Default::default()
        })
    }

    async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        Ok(pb::LeaseLeasesResponse {
            header: Some(header()),
            leases: vec![pb::LeaseStatus { id: 7 }],
        })
    }
}

/// A pair as an element of the field `kvs`.
fn piece(kv: &KeyValue) -> Bytes {
    let response = pb::RangeResponse {
        kvs: vec![kv.clone()],
        ..Default::default()
    };
    response.encode_to_vec().into()
}

impl Clusters for Fake {
    async fn member_add(&self, _: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no cluster"))
    }
    async fn member_remove(
        &self,
        _: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no cluster"))
    }
    async fn member_update(
        &self,
        _: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no cluster"))
    }
    async fn member_promote(
        &self,
        _: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no cluster"))
    }
    async fn move_leader(&self, _: pb::MoveLeaderRequest) -> Result<pb::MoveLeaderResponse, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no cluster"))
    }
}

impl Kv for Fake {
    /// `limit` pairs of `revision` bytes; key `many` repeats one large value beyond 2^31 bytes.
    async fn list(&self, request: pb::RangeRequest) -> Result<List, Error> {
        let pieces = if request.key == "many" {
            // The same bytes over and over: a long answer that takes no memory.
            vec![Bytes::from(vec![b'x'; 64 << 20]); 33]
        } else {
            let pairs = pairs(request.limit, request.revision);
            pairs.iter().map(piece).collect()
        };
        let count = i64::try_from(pieces.len()).unwrap();
        Ok(List::given(header(), true, count, pieces))
    }

    /// The same pairs, each in a message of its own.
    async fn range_stream(&self, request: pb::RangeRequest) -> Result<Messages, Error> {
        let pairs = pairs(request.limit, request.revision);
        let pieces = (1..).zip(&pairs).map(|(number, kv)| {
            let message = pb::RangeStreamResponse {
                range_response: Some(pb::RangeResponse {
                    kvs: vec![kv.clone()],
                    ..Default::default()
                }),
            };
            let bytes = Bytes::from(message.encode_to_vec());
            Piece {
                begins: Some(bytes.len()),
                last: number == pairs.len(),
                bytes,
            }
        });
        Ok(Messages::given(pieces.collect()))
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        match &request.key[..] {
            b"block" => {
                self.0.blocked.fetch_add(1, Ordering::SeqCst);
                self.0.arrived.notify_waiters();
                self.0.release.notified().await;
            }
            b"panic" => panic!("a handler panics on purpose"),
            b"nospace" => return Err(ApiError::NoSpace.into()),
            b"odd" => return Err(Error::status(tonic::Code::Unknown, "100% ü")),
            _ => {}
        }
        let prev_kv = KeyValue {
            key: request.key,
            value: request.value,
            ..Default::default()
        };
        Ok(pb::PutResponse {
            header: Some(header()),
            prev_kv: Some(prev_kv),
        })
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        let deleted = i64::try_from(request.key.len()).unwrap();
        Ok(pb::DeleteRangeResponse {
            header: Some(header()),
            deleted,
            prev_kvs: vec![],
        })
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let succeeded = request.compare.is_empty();
        Ok(pb::TxnResponse {
            header: Some(header()),
            succeeded,
            responses: vec![],
        })
    }

    async fn compact(&self, _: pb::CompactionRequest) -> Result<pb::CompactionResponse, Error> {
        Ok(pb::CompactionResponse {
            header: Some(header()),
        })
    }

    async fn alarm(&self, _: pb::AlarmRequest) -> Result<pb::AlarmResponse, Error> {
        Ok(pb::AlarmResponse::default())
    }

    async fn downgrade(&self, _: pb::DowngradeRequest) -> Result<pb::DowngradeResponse, Error> {
        Ok(pb::DowngradeResponse {
            version: "3.7".to_owned(),
            ..pb::DowngradeResponse::default()
        })
    }

    async fn hash(&self) -> Result<pb::HashResponse, Error> {
        Ok(pb::HashResponse::default())
    }

    async fn defragment(&self) -> Result<pb::DefragmentResponse, Error> {
        Ok(pb::DefragmentResponse::default())
    }

    async fn hash_kv(&self, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Error> {
        Ok(pb::HashKvResponse {
            hash_revision: request.revision,
            ..Default::default()
        })
    }

    async fn member_list(&self, _: pb::MemberListRequest) -> Result<pb::MemberListResponse, Error> {
        let members = vec![pb::Member {
            id: 2,
            name: "fake".into(),
            ..Default::default()
        }];
        Ok(pb::MemberListResponse {
            header: Some(header()),
            members,
        })
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Err(Error::status(tonic::Code::Unimplemented, "no snapshots"))
    }

    fn watch(&self) -> Result<WatchStream, Error> {
        Err(ApiError::Stopped.into())
    }

    async fn status(&self) -> Result<pb::StatusResponse, Error> {
        Ok(pb::StatusResponse {
            version: "3.7.1".into(),
            ..Default::default()
        })
    }

    fn leader(&self) -> u64 {
        if self.0.leaderless.load(Ordering::SeqCst) {
            0
        } else {
            2
        }
    }

    fn is_learner(&self) -> bool {
        self.0.learner.load(Ordering::SeqCst)
    }

    fn paused(&self) -> Option<watch::Receiver<usize>> {
        Some(self.0.paused.subscribe())
    }
}

/// A running port.
pub(crate) struct Port {
    pub(crate) fake: Fake,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) grpc: grpc::Server<Fake>,
    pub(crate) serving: Serving<Fake>,
}

impl Port {
    pub(crate) async fn start() -> Self {
        Self::start_with(&Options::default(), Serves::Both).await
    }

    pub(crate) async fn start_with(options: &Options, serves: Serves) -> Self {
        let listener = Listener::tcp("127.0.0.1:0", serves).await.unwrap();
        Self::start_on(listener, options)
    }

    pub(crate) fn start_on(listener: Listener, options: &Options) -> Self {
        let fake = Fake::default();
        let metrics = Metrics::new(metrics::Options::default());
        let grpc = grpc::Server::new(fake.clone(), metrics.clone(), MAX_REQUEST, Duration::MAX);
        let http = axum::Router::new().route("/health", get(async || "fine"));
        let serving = serve(vec![listener], grpc.clone(), http, options);
        Self {
            fake,
            metrics,
            grpc,
            serving,
        }
    }

    pub(crate) fn address(&self) -> String {
        match &self.serving.addresses()[0] {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => panic!("a unix socket: {path:?}"),
        }
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(TcpStream::connect(self.address()).await.unwrap()).await
    }

    /// The value of one line of the metrics.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(self.metrics.scrape().unwrap()).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no series {series} in:\n{text}"))
    }
}

/// An HTTP/2 connection without any gRPC on top.
#[derive(Clone)]
pub(crate) struct Raw {
    sender: h2::client::SendRequest<Bytes>,
}

/// A request to send: by default a proper gRPC call.
#[derive(Clone)]
pub(crate) struct Send {
    method: Method,
    path: String,
    headers: HeaderMap,
    /// DATA frames.
    frames: Vec<Bytes>,
    /// Whether the last frame closes the client's side.
    end: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) data: Bytes,
    /// `None`: the response was headers only.
    pub(crate) trailers: Option<HeaderMap>,
}

pub(crate) fn send(path: &str, message: &impl Message) -> Send {
    send_bytes(path, framed(0, &message.encode_to_vec()))
}

pub(crate) fn send_bytes(path: &str, body: impl Into<Bytes>) -> Send {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    let frames = vec![body.into()];
    Send {
        method: Method::POST,
        path: path.to_owned(),
        headers,
        frames,
        end: true,
    }
}

impl Send {
    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .insert(name, http::HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The same bytes in frames of this many.
    pub(crate) fn in_frames_of(mut self, size: usize) -> Self {
        self.frames = self
            .frames
            .concat()
            .chunks(size)
            .map(Bytes::copy_from_slice)
            .collect();
        self
    }

    /// Leaves the client's side open.
    pub(crate) fn unended(mut self) -> Self {
        self.end = false;
        self
    }
}

impl Raw {
    pub(crate) async fn connect<S>(stream: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + std::marker::Send + 'static,
    {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(async move {
            // Tests see the end of a connection by their calls.
            let _ = connection.await;
        });
        Self { sender }
    }

    /// Sends a request and returns the response once its headers are there, with the sending side.
    pub(crate) async fn begin(
        &self,
        what: Send,
    ) -> Result<(http::Response<h2::RecvStream>, h2::SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = what.method;
        *request.uri_mut() = format!("http://localhost{}", what.path).parse().unwrap();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = what.headers;
        let bodiless = what.end && what.frames.iter().all(Bytes::is_empty);
        let (response, mut stream) = sender.send_request(request, bodiless)?;
        if !bodiless {
            let last = what.frames.len() - 1;
            for (i, frame) in what.frames.into_iter().enumerate() {
                // The server may have answered already: then the rest is of no interest.
                if stream.send_data(frame, what.end && i == last).is_err() {
                    break;
                }
            }
        }
        Ok((response.await?, stream))
    }

    /// Sends a request and reads the response to its end.
    pub(crate) async fn call(&self, what: Send) -> Result<Answer, h2::Error> {
        let (response, _stream) = self.begin(what).await?;
        let (parts, mut body) = response.into_parts();
        let headers_only = body.is_end_stream();
        let mut data = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            data.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await?;
        assert_eq!(
            headers_only,
            trailers.is_none(),
            "a body without trailers: {data:?}"
        );
        let http = parts.status.as_u16();
        Ok(Answer {
            http,
            headers: parts.headers,
            data: data.into(),
            trailers,
        })
    }

    /// How many streams the server allows at a time.
    pub(crate) fn max_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// As [`Raw::call`], where the connection must hold.
    pub(crate) async fn answer(&self, what: Send) -> Answer {
        self.call(what).await.unwrap()
    }
}

impl Answer {
    /// `grpc-status` and `grpc-message`, wherever they came.
    pub(crate) fn status(&self) -> (u32, String) {
        let from = self.trailers.as_ref().unwrap_or(&self.headers);
        status_of(from)
    }

    /// The one message of a successful unary call.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status(), (0, String::new()));
        let mut data = self.data.clone();
        assert_eq!(data.get_u8(), 0, "compressed");
        assert_eq!(data.get_u32() as usize, data.len());
        M::decode(data).unwrap()
    }
}

pub(crate) fn status_of(headers: &HeaderMap) -> (u32, String) {
    let text = |name| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    };
    (
        text("grpc-status").parse().unwrap(),
        text("grpc-message").to_owned(),
    )
}

/// A message with its prefix.
pub(crate) fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
    let mut framed = vec![flag];
    framed.put_u32(u32::try_from(payload.len()).unwrap());
    framed.extend_from_slice(payload);
    framed
}

pub(crate) fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

/// Patience for what is bound to happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("happens soon")
}
