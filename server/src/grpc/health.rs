//! `grpc.health.v1.Health`: etcd knows the service name `""` only, and it is `SERVING` as long as the
//! port is (spec/wire.md section 2.4), but during a defragmentation with the feature gate
//! `StopGRPCServiceOnDefrag`.

use ferrite_api::pb::health::health_check_response::ServingStatus;
use ferrite_api::pb::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tonic::Code;

use super::Kv;
use super::stream::{Requests, Responses, Streaming};
use super::unary::Unary;
use crate::error::Error;
use crate::metrics::Method;

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn status(paused: usize) -> ServingStatus {
    match paused {
        0 => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

/// The status of the one service there is.
fn own_status<K: Kv>(member: &K) -> ServingStatus {
    status(member.paused().map_or(0, |paused| *paused.borrow()))
}

/// Health.Check.
pub(super) struct Check;

impl Unary for Check {
    const METHOD: Method = Method::HealthCheck;
    type Request = HealthCheckRequest;
    type Reply = HealthCheckResponse;

    async fn call<K: Kv>(
        member: &K,
        request: HealthCheckRequest,
    ) -> Result<HealthCheckResponse, Error> {
        if request.service.is_empty() {
            Ok(response(own_status(member)))
        } else {
            Err(Error::status(Code::NotFound, "unknown service"))
        }
    }
}

/// Health.List.
pub(super) struct List;

impl Unary for List {
    const METHOD: Method = Method::HealthList;
    type Request = HealthListRequest;
    type Reply = HealthListResponse;

    async fn call<K: Kv>(member: &K, _: HealthListRequest) -> Result<HealthListResponse, Error> {
        let statuses = [(String::new(), response(own_status(member)))];
        Ok(HealthListResponse {
            statuses: statuses.into(),
        })
    }
}

/// Health.Watch: the status now, and whenever it is another one.
pub(super) struct Watch;

impl Streaming for Watch {
    const METHOD: Method = Method::HealthWatch;
    type Request = HealthCheckRequest;
    type Response = HealthCheckResponse;

    fn stopped() -> Error {
        Error::status(Code::Cancelled, "Stream has ended.")
    }

    async fn serve<K: Kv>(
        member: K,
        requests: Requests<HealthCheckRequest>,
        responses: Responses<HealthCheckResponse>,
    ) -> Result<(), Error> {
        if !requests.only().await?.service.is_empty() {
            let unknown = response(ServingStatus::ServiceUnknown);
            responses.send(&unknown).await?;
            return std::future::pending().await;
        }
        let mut paused = member.paused();
        let mut told = None;
        // The member may end; its streams end by themselves then.
        drop(member);
        loop {
            let now = status(paused.as_mut().map_or(0, |it| *it.borrow_and_update()));
            if told != Some(now) {
                responses.send(&response(now)).await?;
                told = Some(now);
            }
            let changed = match &mut paused {
                Some(paused) => paused.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                return std::future::pending().await;
            }
        }
    }
}
