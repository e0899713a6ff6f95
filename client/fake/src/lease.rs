//! Leases, without a clock.

use ferrite_api::pb::etcdserverpb as pb;
use pb::lease_server::Lease;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Service;

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.on("LeaseGrant", &request)?;
        let pb::LeaseGrantRequest { id, ttl } = request.into_inner();
        let mut store = self.store();
        let id = store.grant(id, ttl)?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: self.header(store.revision()),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.on("LeaseRevoke", &request)?;
        self.change(|store| {
            store.revoke(request.get_ref().id)?;
            let header = self.header(store.revision());
            Ok(Response::new(pb::LeaseRevokeResponse { header }))
        })
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.on("LeaseKeepAlive", &request)?;
        let (sender, answers) = mpsc::channel(16);
        let service = self.clone();
        let mut breaks = self.breaks.subscribe();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    Ok(status) = breaks.recv() => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                };
                let Ok(Some(pb::LeaseKeepAliveRequest { id })) = request else {
                    return;
                };
                let answer = {
                    let store = service.store();
                    pb::LeaseKeepAliveResponse {
                        header: service.header(store.revision()),
                        id,
                        ttl: store.time_to_live(id).unwrap_or(0),
                    }
                };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        self.on("LeaseTimeToLive", &request)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let store = self.store();
        let ttl = store.time_to_live(id);
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: self.header(store.revision()),
            id,
            ttl: ttl.unwrap_or(-1),
            granted_ttl: ttl.unwrap_or(0),
            keys: if keys { store.keys_of(id) } else { Vec::new() },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.on("LeaseLeases", &request)?;
        let store = self.store();
        let leases = store.leases().into_iter();
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: self.header(store.revision()),
            leases: leases.map(|id| pb::LeaseStatus { id }).collect(),
        }))
    }
}
