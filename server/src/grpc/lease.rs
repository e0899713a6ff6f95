//! The Lease service.

use std::future::Future;

use ferrite_api::pb::etcdserverpb as pb;

use super::Kv;
use super::stream::{Requests, Responses, Streaming};
use super::unary::Unary;
use crate::error::Error;
use crate::handle::Handle;
use crate::metrics::Method;

/// What the Lease service asks of a member; [`Handle`] in production.
pub trait Leases {
    /// Lease.LeaseGrant.
    fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> impl Future<Output = Result<pb::LeaseGrantResponse, Error>> + Send;
    /// Lease.LeaseRevoke.
    fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> impl Future<Output = Result<pb::LeaseRevokeResponse, Error>> + Send;
    /// One request of Lease.LeaseKeepAlive.
    fn lease_keep_alive(
        &self,
        request: pb::LeaseKeepAliveRequest,
    ) -> impl Future<Output = Result<pb::LeaseKeepAliveResponse, Error>> + Send;
    /// Lease.LeaseTimeToLive.
    fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> impl Future<Output = Result<pb::LeaseTimeToLiveResponse, Error>> + Send;
    /// Lease.LeaseLeases.
    fn lease_leases(&self) -> impl Future<Output = Result<pb::LeaseLeasesResponse, Error>> + Send;
}

impl Leases for Handle {
    fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> impl Future<Output = Result<pb::LeaseGrantResponse, Error>> + Send {
        Handle::lease_grant(self, request)
    }
    fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> impl Future<Output = Result<pb::LeaseRevokeResponse, Error>> + Send {
        Handle::lease_revoke(self, request)
    }
    fn lease_keep_alive(
        &self,
        request: pb::LeaseKeepAliveRequest,
    ) -> impl Future<Output = Result<pb::LeaseKeepAliveResponse, Error>> + Send {
        Handle::lease_keep_alive(self, request)
    }
    fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> impl Future<Output = Result<pb::LeaseTimeToLiveResponse, Error>> + Send {
        Handle::lease_time_to_live(self, request)
    }
    fn lease_leases(&self) -> impl Future<Output = Result<pb::LeaseLeasesResponse, Error>> + Send {
        Handle::lease_leases(self)
    }
}

/// Lease.LeaseGrant.
pub(super) struct Grant;

impl Unary for Grant {
    const METHOD: Method = Method::LeaseGrant;
    type Request = pb::LeaseGrantRequest;
    type Reply = pb::LeaseGrantResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::LeaseGrantRequest,
    ) -> impl Future<Output = Result<pb::LeaseGrantResponse, Error>> + Send {
        kv.lease_grant(request)
    }
}

/// Lease.LeaseRevoke.
pub(super) struct Revoke;

impl Unary for Revoke {
    const METHOD: Method = Method::LeaseRevoke;
    type Request = pb::LeaseRevokeRequest;
    type Reply = pb::LeaseRevokeResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::LeaseRevokeRequest,
    ) -> impl Future<Output = Result<pb::LeaseRevokeResponse, Error>> + Send {
        kv.lease_revoke(request)
    }
}

/// Lease.LeaseTimeToLive.
pub(super) struct TimeToLive;

impl Unary for TimeToLive {
    const METHOD: Method = Method::LeaseTimeToLive;
    type Request = pb::LeaseTimeToLiveRequest;
    type Reply = pb::LeaseTimeToLiveResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::LeaseTimeToLiveRequest,
    ) -> impl Future<Output = Result<pb::LeaseTimeToLiveResponse, Error>> + Send {
        kv.lease_time_to_live(request)
    }
}

/// Lease.LeaseLeases.
pub(super) struct List;

impl Unary for List {
    const METHOD: Method = Method::LeaseLeases;
    type Request = pb::LeaseLeasesRequest;
    type Reply = pb::LeaseLeasesResponse;

    fn call<K: Kv>(
        kv: &K,
        _: pb::LeaseLeasesRequest,
    ) -> impl Future<Output = Result<pb::LeaseLeasesResponse, Error>> + Send {
        kv.lease_leases()
    }
}

/// Lease.LeaseKeepAlive: one answer for each request, in order, until the client closes its side.
pub(super) struct KeepAlive;

impl Streaming for KeepAlive {
    const METHOD: Method = Method::LeaseKeepAlive;
    type Request = pb::LeaseKeepAliveRequest;
    type Response = pb::LeaseKeepAliveResponse;

    async fn serve<K: Kv>(
        kv: K,
        mut requests: Requests<pb::LeaseKeepAliveRequest>,
        responses: Responses<pb::LeaseKeepAliveResponse>,
    ) -> Result<(), Error> {
        while let Some(request) = requests.next().await? {
            let response = kv.lease_keep_alive(request).await?;
            responses.send(&response).await?;
        }
        Ok(())
    }
}
