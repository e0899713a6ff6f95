//! The calls that are answered at once.

use ferrite_api::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::cluster_server::Cluster;
use pb::kv_server::Kv;
use pb::maintenance_server::Maintenance;
use pb::response_op::Response as OpResponse;
use tonic::{Request, Response, Status};

use crate::Service;

type Answers<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

/// Blobs of a snapshot are this long at most.
const BLOB_BYTES: usize = 1000;

impl Service {
    /// The headers inside a transaction carry the revision only.
    fn inner_headers(response: &mut pb::TxnResponse, revision: i64) {
        let header = Some(pb::ResponseHeader {
            revision,
            ..Default::default()
        });
        for op in &mut response.responses {
            match &mut op.response {
                Some(OpResponse::ResponseRange(response)) => response.header = header,
                Some(OpResponse::ResponsePut(response)) => response.header = header,
                Some(OpResponse::ResponseDeleteRange(response)) => response.header = header,
                Some(OpResponse::ResponseTxn(response)) => response.header = header,
                None => {}
            }
        }
    }
}

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream = Answers<pb::RangeStreamResponse>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.on("Range", &request)?;
        let mut request = request.into_inner();
        let stuck_at = self.script().stuck_at.filter(|_| request.serializable);
        let store = self.store();
        if let (Some(revision), 0) = (stuck_at, request.revision) {
            request.revision = revision;
        }
        let mut response = store.range(&request)?;
        response.header = self.header(stuck_at.unwrap_or(store.revision()));
        Ok(Response::new(response))
    }

    /// A piece for each pair; the last one has the rest.
    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.on("RangeStream", &request)?;
        if self.script().lacks_range_stream {
            return Err(Status::unimplemented("unknown method RangeStream"));
        }
        let store = self.store();
        let mut whole = store.range(request.get_ref())?;
        whole.header = self.header(store.revision());
        let mut pieces: Vec<pb::RangeResponse> = whole
            .kvs
            .drain(..)
            .map(|kv| pb::RangeResponse {
                kvs: vec![kv],
                ..Default::default()
            })
            .collect();
        pieces.push(whole);
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|piece| {
                Ok(pb::RangeStreamResponse {
                    range_response: Some(piece),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.on("Put", &request)?;
        self.change(|store| {
            let mut response = store.put(request.get_ref())?;
            response.header = self.header(store.revision());
            Ok(Response::new(response))
        })
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.on("DeleteRange", &request)?;
        self.change(|store| {
            let mut response = store.delete(request.get_ref());
            response.header = self.header(store.revision());
            Ok(Response::new(response))
        })
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.on("Txn", &request)?;
        self.change(|store| {
            let mut response = store.txn(request.get_ref())?;
            Service::inner_headers(&mut response, store.revision());
            response.header = self.header(store.revision());
            Ok(Response::new(response))
        })
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.on("Compact", &request)?;
        let mut store = self.store();
        store.compact(request.get_ref().revision)?;
        let header = self.header(store.revision());
        Ok(Response::new(pb::CompactionResponse { header }))
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
        self.on("MemberList", &request)?;
        let alone = || {
            vec![pb::Member {
                id: self.member_id,
                name: "default".into(),
                peer_ur_ls: vec!["http://peer:2380".into()],
                client_ur_ls: vec![format!("http://{}", self.address)],
                is_learner: false,
            }]
        };
        Ok(Response::new(pb::MemberListResponse {
            header: self.header(0),
            members: self.script().members.clone().unwrap_or_else(alone),
        }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.on("MemberAdd", &request)?;
        let request = request.into_inner();
        let member = pb::Member {
            id: 0x2b,
            peer_ur_ls: request.peer_ur_ls,
            is_learner: request.is_learner,
            ..Default::default()
        };
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header(0),
            members: vec![
                pb::Member {
                    id: self.member_id,
                    name: "default".into(),
                    peer_ur_ls: vec!["http://peer:2380".into()],
                    ..Default::default()
                },
                member.clone(),
            ],
            member: Some(member),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.on("MemberRemove", &request)?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.header(0),
            members: Vec::new(),
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.on("MemberUpdate", &request)?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.header(0),
            members: Vec::new(),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.on("MemberPromote", &request)?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.header(0),
            members: Vec::new(),
        }))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream = Answers<pb::SnapshotResponse>;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        self.on("Alarm", &request)?;
        let mut script = self.script();
        let alarms = match request.get_ref().action() {
            AlarmAction::Get | AlarmAction::Activate => script.alarms.clone(),
            AlarmAction::Deactivate => std::mem::take(&mut script.alarms),
        };
        Ok(Response::new(pb::AlarmResponse {
            header: self.header(self.store().revision()),
            alarms,
        }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.on("Status", &request)?;
        let version = self.script().version.clone();
        Ok(Response::new(pb::StatusResponse {
            header: self.header(self.store().revision()),
            version: version.unwrap_or_else(|| "3.7.1".into()),
            leader: self.member_id,
            ..Default::default()
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.on("HashKV", &request)?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.header(self.store().revision()),
            hash: 7,
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.on("Defragment", &request)?;
        let header = self.header(0);
        Ok(Response::new(pb::DefragmentResponse { header }))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        no()
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.on("Snapshot", &request)?;
        let script = self.script();
        let blobs: Vec<_> = script
            .snapshot
            .chunks(BLOB_BYTES)
            .map(|blob| {
                Ok(pb::SnapshotResponse {
                    blob: blob.to_vec().into(),
                    version: "3.7.0".into(),
                    ..Default::default()
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(blobs)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.on("MoveLeader", &request)?;
        let header = self.header(0);
        Ok(Response::new(pb::MoveLeaderResponse { header }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.on("Downgrade", &request)?;
        Ok(Response::new(pb::DowngradeResponse {
            header: self.header(0),
            version: "3.7".into(),
        }))
    }
}
