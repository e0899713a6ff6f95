//! Locks and elections that the server runs: one call instead of a recipe in the client.

use bytes::Bytes;
use ferrite_api::pb::v3electionpb as electionpb;
use ferrite_api::pb::v3lockpb as lockpb;
use ferrite_api::types::LeaseId;

use crate::call::Incoming;
use crate::{Client, Error, rpc};

/// Locks by the server: see [`Client::lock_service`]. Errors and keys are those of
/// [`Mutex`](super::Mutex).
#[derive(Clone, Debug)]
pub struct LockService {
    client: Client,
}

impl LockService {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Waits for the lock of that name, for as long as the call may take. The answer's key is the
    /// place in the queue: what [`LockService::unlock`] takes.
    ///
    /// The lock belongs to `lease`, which the caller keeps alive. With lease 0 the server grants
    /// one of 60 seconds that nobody renews.
    ///
    /// # Errors
    ///
    /// When the outcome is unknown the lock may be ours, or may become so, until the lease ends.
    pub async fn lock(
        &self,
        name: impl Into<Bytes>,
        lease: LeaseId,
    ) -> Result<lockpb::LockResponse, Error> {
        let request = lockpb::LockRequest {
            name: name.into(),
            lease: lease.get(),
        };
        self.client.unary(rpc::LOCK, request).await
    }

    /// Releases a lock by its key. A key that is not there is no error.
    pub async fn unlock(&self, key: impl Into<Bytes>) -> Result<lockpb::UnlockResponse, Error> {
        let request = lockpb::UnlockRequest { key: key.into() };
        self.client.unary(rpc::UNLOCK, request).await
    }
}

/// Elections by the server: see [`Client::election_service`]. Errors and keys are those of
/// [`Election`](super::Election).
#[derive(Clone, Debug)]
pub struct ElectionService {
    client: Client,
}

impl ElectionService {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Stands with `value` and waits until elected, for as long as the call may take. The answer's
    /// leader is what the other calls take.
    ///
    /// The candidacy belongs to `lease`, which the caller keeps alive. With lease 0 the server
    /// grants one of 60 seconds that nobody renews.
    pub async fn campaign(
        &self,
        name: impl Into<Bytes>,
        lease: LeaseId,
        value: impl Into<Bytes>,
    ) -> Result<electionpb::CampaignResponse, Error> {
        let request = electionpb::CampaignRequest {
            name: name.into(),
            lease: lease.get(),
            value: value.into(),
        };
        self.client.unary(rpc::CAMPAIGN, request).await
    }

    /// Changes what the leader says.
    pub async fn proclaim(
        &self,
        leader: electionpb::LeaderKey,
        value: impl Into<Bytes>,
    ) -> Result<electionpb::ProclaimResponse, Error> {
        let request = electionpb::ProclaimRequest {
            leader: Some(leader),
            value: value.into(),
        };
        self.client.unary(rpc::PROCLAIM, request).await
    }

    /// Who leads, and what the leader says.
    pub async fn leader(
        &self,
        name: impl Into<Bytes>,
    ) -> Result<electionpb::LeaderResponse, Error> {
        let request = electionpb::LeaderRequest { name: name.into() };
        self.client.unary(rpc::LEADER, request).await
    }

    /// Gives up the leadership or the candidacy. One that has gone already is no error.
    pub async fn resign(
        &self,
        leader: electionpb::LeaderKey,
    ) -> Result<electionpb::ResignResponse, Error> {
        let request = electionpb::ResignRequest {
            leader: Some(leader),
        };
        self.client.unary(rpc::RESIGN, request).await
    }

    /// Follows who leads and what the leader says, once [`Leaders::next`] is awaited.
    pub fn observe(&self, name: impl Into<Bytes>) -> Leaders {
        let request = electionpb::LeaderRequest { name: name.into() };
        Leaders {
            answers: self.client.slow_server_stream(rpc::OBSERVE, request),
        }
    }
}

/// The leaders of an election, as the server sees them: see [`ElectionService::observe`].
#[derive(Debug)]
pub struct Leaders {
    answers: Incoming<electionpb::LeaderResponse>,
}

impl Leaders {
    /// The next leader or value, as soon as there is one; `None` when the server has stopped
    /// following, and after an error.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<electionpb::LeaderResponse>, Error> {
        self.answers.next().await
    }
}
