//! A scripted server: answers every call at once, after as many scripted failures as there are,
//! and keeps what it saw.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrite_client::pb::etcdserverpb as pb;
use pb::cluster_server::{Cluster, ClusterServer};
use pb::kv_server::{Kv, KvServer};
use pb::maintenance_server::{Maintenance, MaintenanceServer};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: &'static str,
    pub(crate) metadata: MetadataMap,
}

#[derive(Debug, Default)]
struct Script {
    failures: VecDeque<Status>,
    seen: Vec<Seen>,
}

/// What the services share.
#[derive(Clone, Debug)]
struct Service {
    member_id: u64,
    script: Arc<Mutex<Script>>,
}

impl Service {
    fn on<T>(&self, method: &'static str, request: &Request<T>) -> Result<(), Status> {
        let mut script = self.script.lock().expect("no test panics while holding it");
        script.seen.push(Seen {
            method,
            metadata: request.metadata().clone(),
        });
        match script.failures.pop_front() {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: 1,
            member_id: self.member_id,
            revision: 2,
            raft_term: 3,
        })
    }
}

/// A running server; stopped, connections included, when dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    service: Service,
    runtime: Option<Runtime>,
}

impl Fake {
    /// A server on a free port.
    pub(crate) fn start(member_id: u64) -> Fake {
        Fake::start_at(member_id, "127.0.0.1:0".parse().expect("an address"))
    }

    pub(crate) fn start_at(member_id: u64, address: SocketAddr) -> Fake {
        let service = Service::new(member_id);
        let runtime = runtime();
        let listener = std::net::TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("a bound socket");
        let router = service.router();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let incoming = TcpListenerStream::new(listener);
            router
                .serve_with_incoming(incoming)
                .await
                .expect("a working listener");
        });
        Fake {
            address,
            service,
            runtime: Some(runtime),
        }
    }

    /// A server on a socket file; its `address` means nothing.
    pub(crate) fn start_unix(member_id: u64, path: &Path) -> Fake {
        let service = Service::new(member_id);
        let runtime = runtime();
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a new socket file");
        listener.set_nonblocking(true).expect("a socket option");
        let router = service.router();
        runtime.spawn(async move {
            let listener = UnixListener::from_std(listener).expect("a listener");
            let incoming = UnixListenerStream::new(listener);
            router
                .serve_with_incoming(incoming)
                .await
                .expect("a working listener");
        });
        Fake {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            service,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The next calls fail with these, one each.
    pub(crate) fn fail_with(&self, failures: impl IntoIterator<Item = Status>) {
        self.script().failures.extend(failures);
    }

    /// Forgets the scripted failures that were not used, and returns and forgets what was seen.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        let mut script = self.script();
        script.failures.clear();
        std::mem::take(&mut script.seen)
    }

    /// Whether no call has arrived since the last [`Fake::take_seen`].
    pub(crate) fn is_untouched(&self) -> bool {
        self.script().seen.is_empty()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.service
            .script
            .lock()
            .expect("no test panics while holding it")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime of its own for each server, so that stopping it also cuts the open connections.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl Service {
    fn new(member_id: u64) -> Service {
        Service {
            member_id,
            script: Arc::default(),
        }
    }

    fn router(&self) -> tonic::transport::server::Router {
        tonic::transport::Server::builder()
            .add_service(KvServer::new(self.clone()))
            .add_service(ClusterServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self.clone()))
    }
}

/// The reply to a call that does nothing but note itself.
macro_rules! answer {
    ($self:ident, $request:ident, $name:literal, $response:ident) => {{
        $self.on($name, &$request)?;
        Ok(Response::new(pb::$response {
            header: $self.header(),
            ..Default::default()
        }))
    }};
}

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<pb::RangeStreamResponse, Status>>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.on("Range", &request)?;
        let key = request.into_inner().key;
        Ok(Response::new(pb::RangeResponse {
            header: self.header(),
            kvs: vec![pair(&key)],
            more: false,
            count: 1,
        }))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.on("RangeStream", &request)?;
        let piece = |response| {
            Ok(pb::RangeStreamResponse {
                range_response: Some(response),
            })
        };
        let pieces = vec![
            piece(pb::RangeResponse {
                kvs: vec![pair(b"a"), pair(b"b")],
                ..Default::default()
            }),
            piece(pb::RangeResponse {
                header: self.header(),
                kvs: vec![pair(b"c")],
                more: true,
                count: 9,
            }),
        ];
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        answer!(self, request, "Put", PutResponse)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        answer!(self, request, "DeleteRange", DeleteRangeResponse)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        answer!(self, request, "Txn", TxnResponse)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.on("Compact", &request)?;
        let header = self.header();
        Ok(Response::new(pb::CompactionResponse { header }))
    }
}

fn pair(key: &[u8]) -> ferrite_client::pb::mvccpb::KeyValue {
    ferrite_client::pb::mvccpb::KeyValue {
        key: key.to_vec().into(),
        value: "v".into(),
        ..Default::default()
    }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of the fake"))
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        answer!(self, request, "MemberList", MemberListResponse)
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        no()
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        no()
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        no()
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        no()
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<pb::SnapshotResponse, Status>>>;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        answer!(self, request, "Alarm", AlarmResponse)
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        answer!(self, request, "Status", StatusResponse)
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        answer!(self, request, "HashKV", HashKvResponse)
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        no()
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        no()
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        no()
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        no()
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        no()
    }
}
