//! A server with a few keys in memory, enough for the commands that are built.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::KeyValue;
use ferrite_client::{EtcdError, pb::etcdserverpb::request_op::Request as Op};
use pb::cluster_server::{Cluster, ClusterServer};
use pb::kv_server::{Kv, KvServer};
use pb::maintenance_server::{Maintenance, MaintenanceServer};
use pb::response_op::Response as OpResponse;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Reads beyond this are refused; the fake keeps no history.
const LATEST: i64 = 99;

#[derive(Debug, Default)]
struct State {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    alarm: bool,
}

#[derive(Clone, Debug)]
struct Service {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A running server; stopped when dropped.
pub(crate) struct Fake {
    service: Service,
    runtime: Option<Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Fake {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let service = Service {
            address: listener.local_addr().expect("a bound socket"),
            state: Arc::default(),
        };
        let router = tonic::transport::Server::builder()
            .add_service(KvServer::new(service.clone()))
            .add_service(ClusterServer::new(service.clone()))
            .add_service(MaintenanceServer::new(service.clone()));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let incoming = TcpListenerStream::new(listener);
            router
                .serve_with_incoming(incoming)
                .await
                .expect("a working listener");
        });
        Fake {
            service,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.service.address.to_string()
    }

    pub(crate) fn raise_alarm(&self) {
        self.service.state().alarm = true;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 1,
        member_id: 0x2a,
        revision: LATEST,
        raft_term: 2,
    })
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }
}

impl State {
    fn pairs(&self, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
        self.pairs
            .iter()
            .filter(|(found, _)| match end {
                [] => found.as_slice() == key,
                [0] => found.as_slice() >= key,
                end => found.as_slice() >= key && found.as_slice() < end,
            })
            .map(|(key, value)| KeyValue {
                key: key.clone().into(),
                value: value.clone().into(),
                create_revision: 2,
                mod_revision: 2,
                version: 1,
                lease: 0,
            })
            .collect()
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        if request.revision > LATEST {
            return Err(EtcdError::FutureRev.into());
        }
        let kvs = self.pairs(&request.key, &request.range_end);
        Ok(pb::RangeResponse {
            header: header(),
            count: i64::try_from(kvs.len()).expect("few keys"),
            kvs,
            more: false,
        })
    }

    fn put(&mut self, request: &pb::PutRequest) -> pb::PutResponse {
        self.pairs
            .insert(request.key.to_vec(), request.value.to_vec());
        pb::PutResponse {
            header: header(),
            prev_kv: None,
        }
    }

    fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone = self.pairs(&request.key, &request.range_end);
        for kv in &gone {
            self.pairs.remove(kv.key.as_ref());
        }
        pb::DeleteRangeResponse {
            header: header(),
            deleted: i64::try_from(gone.len()).expect("few keys"),
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    fn run(&mut self, op: &pb::RequestOp) -> Result<pb::ResponseOp, Status> {
        let response = match &op.request {
            Some(Op::RequestRange(request)) => OpResponse::ResponseRange(self.range(request)?),
            Some(Op::RequestPut(request)) => OpResponse::ResponsePut(self.put(request)),
            Some(Op::RequestDeleteRange(request)) => {
                OpResponse::ResponseDeleteRange(self.delete(request))
            }
            Some(Op::RequestTxn(_)) | None => return Err(Status::unimplemented("nested")),
        };
        Ok(pb::ResponseOp {
            response: Some(response),
        })
    }
}

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<pb::RangeStreamResponse, Status>>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.state().range(request.get_ref()).map(Response::new)
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let response = self.state().range(request.get_ref())?;
        let piece = pb::RangeStreamResponse {
            range_response: Some(response),
        };
        Ok(Response::new(tokio_stream::iter(vec![Ok(piece)])))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        Ok(Response::new(self.state().put(request.get_ref())))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Ok(Response::new(self.state().delete(request.get_ref())))
    }

    /// All compares hold.
    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let mut state = self.state();
        let ops = request.get_ref().success.iter();
        Ok(Response::new(pb::TxnResponse {
            header: header(),
            succeeded: true,
            responses: ops.map(|op| state.run(op)).collect::<Result<_, _>>()?,
        }))
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Ok(Response::new(pb::CompactionResponse { header: header() }))
    }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of the fake"))
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        Ok(Response::new(pb::MemberListResponse {
            header: header(),
            members: vec![pb::Member {
                id: 0x2a,
                name: "default".into(),
                peer_ur_ls: vec!["http://peer:2380".into()],
                client_ur_ls: vec![format!("http://{}", self.address)],
                is_learner: false,
            }],
        }))
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
        _: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let alarm = pb::AlarmMember {
            member_id: 0x2a,
            alarm: pb::AlarmType::Nospace.into(),
        };
        let alarms = if self.state().alarm {
            vec![alarm]
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::AlarmResponse {
            header: header(),
            alarms,
        }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(pb::StatusResponse {
            header: header(),
            version: "3.7.1".into(),
            ..Default::default()
        }))
    }

    async fn hash_kv(
        &self,
        _: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        no()
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
