//! `grpc.health.v1.Health`: etcd knows the service name `""` only, and it is `SERVING` as long as the
//! port is (spec/wire.md section 2.4).

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

/// Health.Check.
pub(super) struct Check;

impl Unary for Check {
    const METHOD: Method = Method::HealthCheck;
    type Request = HealthCheckRequest;
    type Reply = HealthCheckResponse;

    async fn call<K: Kv>(_: &K, request: HealthCheckRequest) -> Result<HealthCheckResponse, Error> {
        if request.service.is_empty() {
            Ok(response(ServingStatus::Serving))
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

    async fn call<K: Kv>(_: &K, _: HealthListRequest) -> Result<HealthListResponse, Error> {
        let statuses = [(String::new(), response(ServingStatus::Serving))];
        Ok(HealthListResponse {
            statuses: statuses.into(),
        })
    }
}

/// Health.Watch: the status now; it never changes, so the stream then waits for its end.
pub(super) struct Watch;

impl Streaming for Watch {
    const METHOD: Method = Method::HealthWatch;
    type Request = HealthCheckRequest;
    type Response = HealthCheckResponse;

    fn stopped() -> Error {
        Error::status(Code::Cancelled, "Stream has ended.")
    }

    async fn serve<K: Kv>(
        _: K,
        requests: Requests<HealthCheckRequest>,
        responses: Responses<HealthCheckResponse>,
    ) -> Result<(), Error> {
        let status = if requests.only().await?.service.is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        responses.send(&response(status)).await?;
        std::future::pending().await
    }
}
