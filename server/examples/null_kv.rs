//! What a call costs the server before it does anything: the unary path of `ferrite_server::grpc`
//! against the same method served by tonic, alone (`tonic`) and behind the router that tonic's own
//! server puts before it (`router`), over a member that only answers. tonic's have no admission, no
//! counting and no keepalive here; Ferrite's have.
//!
//! `null_kv [calls]` starts itself once per server, drives puts of 256 bytes over a few connections,
//! and prints calls per second and server CPU per call, each server twice, in turns. The member
//! answers `at-once`, or from another thread (`hop`) as a real one does.

#![allow(
    clippy::print_stdout,
    reason = "a program for the terminal; its numbers are its output"
)]

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_server;
use ferrite_server::error::Error;
use ferrite_server::grpc::{self, Auths, Clusters, Kv, Leases};
use ferrite_server::handle::range_stream::Messages;
use ferrite_server::handle::snapshot::Snapshot;
use ferrite_server::handle::{List, WatchStream};
use ferrite_server::metrics::{self, Metrics};
use ferrite_server::serve::{Listener, Options, Serves, serve};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::{Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 8;
const CALLS_IN_FLIGHT: usize = 8; // per connection

/// Answers puts: at once, or from another thread as a member does.
#[derive(Clone)]
struct Null {
    member: Option<mpsc::Sender<(pb::PutRequest, oneshot::Sender<pb::PutResponse>)>>,
}

fn answer() -> pb::PutResponse {
    let header = pb::ResponseHeader {
        cluster_id: 0x1234_5678_9abc_def0,
        member_id: 0x0fed_cba9_8765_4321,
        revision: 123_456,
        raft_term: 2,
    };
    pb::PutResponse {
        header: Some(header),
        prev_kv: None,
    }
}

impl Null {
    fn new(hop: bool) -> Self {
        let member = hop.then(|| {
            let (sender, mut receiver) =
                mpsc::channel::<(pb::PutRequest, oneshot::Sender<pb::PutResponse>)>(1024);
            std::thread::spawn(move || {
                while let Some((_, reply)) = receiver.blocking_recv() {
                    // The caller may have gone.
                    let _ = reply.send(answer());
                }
            });
            sender
        });
        Self { member }
    }

    async fn answer(&self, request: pb::PutRequest) -> pb::PutResponse {
        let Some(member) = &self.member else {
            return answer();
        };
        let (sender, receiver) = oneshot::channel();
        member
            .send((request, sender))
            .await
            .expect("the thread lives as long as its senders");
        receiver.await.expect("every request is answered")
    }
}

fn unused() -> Error {
    Error::status(tonic::Code::Unimplemented, "only Put is measured")
}

impl Auths for Null {}

impl Leases for Null {
    async fn lease_grant(&self, _: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Error> {
        Err(unused())
    }
    async fn lease_revoke(
        &self,
        _: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Error> {
        Err(unused())
    }
    async fn lease_keep_alive(
        &self,
        _: pb::LeaseKeepAliveRequest,
    ) -> Result<pb::LeaseKeepAliveResponse, Error> {
        Err(unused())
    }
    async fn lease_time_to_live(
        &self,
        _: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        Err(unused())
    }
    async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        Err(unused())
    }
}

impl Clusters for Null {
    async fn member_add(&self, _: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Error> {
        Err(unused())
    }
    async fn member_remove(
        &self,
        _: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, Error> {
        Err(unused())
    }
    async fn member_update(
        &self,
        _: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, Error> {
        Err(unused())
    }
    async fn member_promote(
        &self,
        _: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, Error> {
        Err(unused())
    }
    async fn move_leader(&self, _: pb::MoveLeaderRequest) -> Result<pb::MoveLeaderResponse, Error> {
        Err(unused())
    }
}

impl Kv for Null {
    async fn list(&self, _: pb::RangeRequest) -> Result<List, Error> {
        Err(unused())
    }
    async fn range_stream(&self, _: pb::RangeRequest) -> Result<Messages, Error> {
        Err(unused())
    }
    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        Ok(self.answer(request).await)
    }
    async fn delete_range(
        &self,
        _: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        Err(unused())
    }
    async fn txn(&self, _: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        Err(unused())
    }
    async fn compact(&self, _: pb::CompactionRequest) -> Result<pb::CompactionResponse, Error> {
        Err(unused())
    }
    async fn alarm(&self, _: pb::AlarmRequest) -> Result<pb::AlarmResponse, Error> {
        Ok(pb::AlarmResponse::default())
    }

    async fn downgrade(&self, _: pb::DowngradeRequest) -> Result<pb::DowngradeResponse, Error> {
        Err(unused())
    }

    async fn hash(&self) -> Result<pb::HashResponse, Error> {
        Err(unused())
    }

    async fn defragment(&self) -> Result<pb::DefragmentResponse, Error> {
        Ok(pb::DefragmentResponse::default())
    }

    async fn hash_kv(&self, _: pb::HashKvRequest) -> Result<pb::HashKvResponse, Error> {
        Err(unused())
    }

    async fn member_list(&self, _: pb::MemberListRequest) -> Result<pb::MemberListResponse, Error> {
        Err(unused())
    }
    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Err(unused())
    }
    fn watch(&self) -> Result<WatchStream, Error> {
        Err(unused())
    }
    async fn status(&self) -> Result<pb::StatusResponse, Error> {
        Ok(pb::StatusResponse::default())
    }
    fn leader(&self) -> u64 {
        1
    }
    fn is_learner(&self) -> bool {
        false
    }
}

#[tonic::async_trait]
impl kv_server::Kv for Null {
    type RangeStreamStream = tokio_stream::Pending<Result<pb::RangeStreamResponse, Status>>;

    async fn put(
        &self,
        request: tonic::Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        Ok(Response::new(self.answer(request.into_inner()).await))
    }
    async fn range(
        &self,
        _: tonic::Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        Err(unused().into())
    }
    async fn range_stream(
        &self,
        _: tonic::Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(unused().into())
    }
    async fn delete_range(
        &self,
        _: tonic::Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(unused().into())
    }
    async fn txn(
        &self,
        _: tonic::Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        Err(unused().into())
    }
    async fn compact(
        &self,
        _: tonic::Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(unused().into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", "ferrite", hop] => serve_ferrite(hop == "hop").await,
        ["serve", "tonic", hop] => serve_tonic(hop == "hop", false).await,
        ["serve", "router", hop] => serve_tonic(hop == "hop", true).await,
        [] => compare(200_000).await,
        [calls] => compare(calls.parse()?).await,
        _ => anyhow::bail!("usage: null_kv [calls]"),
    }
}

async fn serve_ferrite(hop: bool) -> anyhow::Result<()> {
    let metrics = Metrics::new(metrics::Options::default());
    let grpc = grpc::Server::new(Null::new(hop), metrics, 1_572_864, Duration::MAX);
    let listener = Listener::tcp("127.0.0.1:0", Serves::Both).await?;
    let serving = serve(
        vec![listener],
        grpc,
        axum::Router::new(),
        &Options::default(),
    );
    println!("{}", serving.addresses()[0]);
    until_stdin_closes().await
}

async fn serve_tonic(hop: bool, router: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let kv = kv_server::KvServer::new(Null::new(hop));
    let routes = axum::Router::new().route_service("/etcdserverpb.KV/{*rest}", kv.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that is gone already shows when it is served.
            let _ = stream.set_nodelay(true);
            if router {
                tokio::spawn(serve_connection(stream, routes.clone()));
            } else {
                tokio::spawn(serve_connection(stream, kv.clone()));
            }
        }
    });
    until_stdin_closes().await
}

async fn serve_connection<S, B>(stream: TcpStream, service: S)
where
    S: tower::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(u32::MAX)
        .auto_date_header(false);
    let service = TowerToHyperService::new(service);
    // Connections break when the load ends.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The parent holds the other end: no server outlives it.
async fn until_stdin_closes() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

async fn compare(calls: u64) -> anyhow::Result<()> {
    println!("{calls} puts of 256 bytes, {CONNECTIONS} connections of {CALLS_IN_FLIGHT} calls");
    for round in 1..=2 {
        for hop in ["at-once", "hop"] {
            for kind in ["router", "tonic", "ferrite"] {
                let (rate, cpu) = measure(kind, hop, calls).await?;
                println!("{round}  {kind:8} {hop:8} {rate:8.0} calls/s  {cpu:6.2} us CPU/call");
            }
        }
    }
    Ok(())
}

/// Calls per second and microseconds of server CPU per call.
async fn measure(kind: &str, hop: &str, calls: u64) -> anyhow::Result<(f64, f64)> {
    let mut server = Command::new(std::env::current_exe()?)
        .args(["serve", kind, hop])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    let stdout = server
        .stdout
        .take()
        .ok_or_else(|| anyhow::anyhow!("no stdout"))?;
    BufReader::new(stdout).read_line(&mut address)?;
    drive(address.trim(), calls / 10).await?; // warm up
    let (cpu, begun) = (cpu_time(server.id())?, Instant::now());
    drive(address.trim(), calls).await?;
    let (took, cpu) = (begun.elapsed(), cpu_time(server.id())? - cpu);
    drop(server.stdin.take());
    server.wait()?;
    Ok((
        calls as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / calls as f64,
    ))
}

/// User and system time of a process, in clock ticks of 10 ms.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: fields 14 and 15 of all.
    let fields = stat
        .rsplit_once(')')
        .ok_or_else(|| anyhow::anyhow!("odd stat"))?
        .1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

async fn drive(address: &str, calls: u64) -> anyhow::Result<()> {
    let left = Arc::new(AtomicU64::new(calls));
    let put = pb::PutRequest {
        key: Bytes::from_static(b"0123456789abcdef"),
        value: vec![b'v'; 256].into(),
        ..Default::default()
    };
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(put.encoded_len())?);
    put.encode(&mut body)?;
    let body = body.freeze();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        for _ in 0..CALLS_IN_FLIGHT {
            let (sender, body, left) = (sender.clone(), body.clone(), left.clone());
            callers.spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    call(sender.clone(), body.clone()).await?;
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}

async fn call(sender: h2::client::SendRequest<Bytes>, body: Bytes) -> anyhow::Result<()> {
    let request = Request::post("http://localhost/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("user-agent", "grpc-go/1.82.1")
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = sender.ready().await?.send_request(request, false)?;
    stream.send_data(body, true)?;
    let mut answer = response.await?.into_body();
    while let Some(data) = answer.data().await {
        answer.flow_control().release_capacity(data?.len())?;
    }
    let trailers = answer.trailers().await?;
    anyhow::ensure!(trailers.is_some_and(|t| t["grpc-status"] == "0"));
    Ok(())
}
