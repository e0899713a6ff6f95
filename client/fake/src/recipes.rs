//! The server's own locks and elections, for one taker at a time: who comes second is refused.

use std::pin::Pin;

use bytes::Bytes;
use electionpb::election_server::Election;
use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::pb::v3electionpb as electionpb;
use ferrite_api::pb::v3lockpb as lockpb;
use lockpb::lock_server::Lock;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::Service;

/// The refusal that the real server does not have.
const TAKEN: &str = "the fake has no queue";

impl Service {
    /// The first key below a name.
    fn first(&self, name: &[u8]) -> Option<KeyValue> {
        let mut end = name.to_vec();
        end.push(b'/' + 1);
        let range = pb::RangeRequest {
            key: name.to_vec().into(),
            range_end: end.into(),
            ..Default::default()
        };
        let found = self.store().range(&range).ok()?;
        found.kvs.into_iter().next()
    }

    /// Takes a name for a lease: the key.
    fn take(&self, name: &Bytes, lease: i64, value: Bytes) -> Result<Bytes, Status> {
        if self.first(name).is_some() {
            return Err(Status::unknown(TAKEN));
        }
        let key = Bytes::from([&name[..], format!("/{lease:x}").as_bytes()].concat());
        let put = pb::PutRequest {
            key: key.clone(),
            value,
            lease,
            ..Default::default()
        };
        // Recipes lose the codes of errors.
        let lost = |status: Status| Status::unknown(status.message());
        self.change(|store| store.put(&put)).map_err(lost)?;
        Ok(key)
    }

    fn delete(&self, key: Bytes) -> Result<(), Status> {
        if key.is_empty() {
            return Err(Status::unknown(Error::EmptyKey.message()));
        }
        let delete = pb::DeleteRangeRequest {
            key,
            ..Default::default()
        };
        self.change(|store| {
            store.delete(&delete);
            Ok(())
        })
    }

    fn now(&self) -> Option<pb::ResponseHeader> {
        let revision = self.store().revision();
        self.header(revision)
    }
}

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(
        &self,
        request: Request<lockpb::LockRequest>,
    ) -> Result<Response<lockpb::LockResponse>, Status> {
        self.on("Lock", &request)?;
        let lockpb::LockRequest { name, lease } = request.into_inner();
        let key = self.take(&name, lease, Bytes::new())?;
        let header = self.now();
        Ok(Response::new(lockpb::LockResponse { header, key }))
    }

    async fn unlock(
        &self,
        request: Request<lockpb::UnlockRequest>,
    ) -> Result<Response<lockpb::UnlockResponse>, Status> {
        self.on("Unlock", &request)?;
        self.delete(request.into_inner().key)?;
        let header = self.now();
        Ok(Response::new(lockpb::UnlockResponse { header }))
    }
}

#[tonic::async_trait]
impl Election for Service {
    type ObserveStream =
        Pin<Box<dyn Stream<Item = Result<electionpb::LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<electionpb::CampaignRequest>,
    ) -> Result<Response<electionpb::CampaignResponse>, Status> {
        self.on("Campaign", &request)?;
        let electionpb::CampaignRequest { name, lease, value } = request.into_inner();
        let key = self.take(&name, lease, value)?;
        let header = self.now();
        let rev = header.unwrap_or_default().revision;
        let leader = electionpb::LeaderKey {
            name,
            key,
            rev,
            lease,
        };
        Ok(Response::new(electionpb::CampaignResponse {
            header,
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<electionpb::ProclaimRequest>,
    ) -> Result<Response<electionpb::ProclaimResponse>, Status> {
        self.on("Proclaim", &request)?;
        let electionpb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.unwrap_or_default();
        match self.first(&leader.name) {
            Some(kv) if kv.create_revision == leader.rev => {}
            _ => return Err(Status::unknown("election: not leader")),
        }
        let put = pb::PutRequest {
            key: leader.key,
            value,
            lease: leader.lease,
            ..Default::default()
        };
        self.change(|store| store.put(&put))?;
        let header = self.now();
        Ok(Response::new(electionpb::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<electionpb::LeaderRequest>,
    ) -> Result<Response<electionpb::LeaderResponse>, Status> {
        self.on("Leader", &request)?;
        match self.first(&request.get_ref().name) {
            None => Err(Status::unknown("election: no leader")),
            kv => Ok(Response::new(electionpb::LeaderResponse {
                header: self.now(),
                kv,
            })),
        }
    }

    /// One answer, and not even its head before there is a leader.
    async fn observe(
        &self,
        request: Request<electionpb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        self.on("Observe", &request)?;
        let mut changes = self.revision.subscribe();
        let kv = loop {
            if let Some(kv) = self.first(&request.get_ref().name) {
                break kv;
            }
            let changed = changes.changed().await;
            changed.map_err(|error| Status::unavailable(error.to_string()))?;
        };
        let answer = electionpb::LeaderResponse {
            header: self.now(),
            kv: Some(kv),
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(answer)]))))
    }

    async fn resign(
        &self,
        request: Request<electionpb::ResignRequest>,
    ) -> Result<Response<electionpb::ResignResponse>, Status> {
        self.on("Resign", &request)?;
        let leader = request.into_inner().leader.unwrap_or_default();
        self.delete(leader.key)?;
        let header = self.now();
        Ok(Response::new(electionpb::ResignResponse { header }))
    }
}
