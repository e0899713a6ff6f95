//! Leases: grants and revocations through the log, the rest from the lessor's memory (spec lease.md
//! section 3).
//!
//! Who may answer from the lessor is the leader, and only while it knows that it still is one. A sole
//! voter always knows ([`Published::reads_locally`](crate::member::Published::reads_locally));
//! others ask a quorum, with the same round that reads share. That round also waits until everything
//! committed is applied, so that a lease which another member has just granted is not called unknown.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use ferrite_storage::apply::cost;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::auth::Access;
use ferrite_storage::leases::NO_LEASE;
use tokio::sync::oneshot;
use tonic::Code;

use super::auth::Known;
use super::questions::{Answer, Question};
use super::{Handle, mixed_up};
use crate::config::Feature;
use crate::error::Error;
use crate::lessor::{Lookup, Renewal};
use crate::member::{Input, Reply};
use crate::metrics::RequestKind;

/// How long a lookup waits for this member to apply what is committed.
const APPLY_PATIENCE: Duration = Duration::from_secs(1);

/// Pause before the lessor is asked again whether this member leads by now.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

impl Handle {
    /// Lease.LeaseGrant.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn lease_grant(
        &self,
        mut request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, Error> {
        self.has_room(cost::LEASE_GRANT).await?;
        self.check_login().await?;
        // Chosen, and raised to the minimum, before it enters the log, where it is the same for all.
        while request.id == NO_LEASE.get() {
            let id = self.inner.ids.next().get() & (u64::MAX >> 1);
            request.id = id.cast_signed();
        }
        request.ttl = request.ttl.max(self.inner.lessor.lock().min_ttl());
        let request = pb::InternalRaftRequest {
            lease_grant: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::LeaseGrant, request).await?;
        let Response::LeaseGrant { id, ttl } = applied.result? else {
            return Err(mixed_up());
        };
        Ok(pb::LeaseGrantResponse {
            header: Some(self.header(applied.view.revision)),
            id: id.get(),
            ttl,
            error: String::new(),
        })
    }

    /// Lease.LeaseRevoke.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Error> {
        self.check_login().await?;
        let request = pb::InternalRaftRequest {
            lease_revoke: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::LeaseRevoke, request).await?;
        let Response::LeaseRevoke { revision, .. } = applied.result? else {
            return Err(mixed_up());
        };
        let header = Some(self.header(revision));
        Ok(pb::LeaseRevokeResponse { header })
    }

    /// One request of Lease.LeaseKeepAlive. A lease that does not exist, or has ended, is answered
    /// with a time to live of 0.
    ///
    /// Cancel safety: the lease may be renewed or not.
    ///
    /// # Errors
    /// As etcd's; they end a stream.
    pub async fn lease_keep_alive(
        &self,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<pb::LeaseKeepAliveResponse, Error> {
        // Before the renewal: a lease that is revoked at a revision was never alive after it.
        let header = self.header(self.inner.published.view().revision);
        let ttl = self.renew(LeaseId::new(request.id)).await?;
        Ok(pb::LeaseKeepAliveResponse {
            header: Some(header),
            id: request.id,
            ttl,
        })
    }

    /// Lease.LeaseTimeToLive. A lease that does not exist is answered with a time to live of -1.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let known = match request.keys {
            true => {
                let lease = Some(LeaseId::new(request.id));
                self.check_lease(Access::Read, lease).await?;
                self.known().await?
            }
            false => {
                self.check_login().await?;
                None
            }
        };
        let response = self.time_to_live(request).await?;
        // The keys may be others now, and so may be what it takes to see them.
        if let Some(Known { auth, .. }) = known
            && auth.revision() != self.inner.published.auth().revision()
        {
            return Err(ApiError::AuthOldRevision.into());
        }
        Ok(response)
    }

    async fn time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let give_up = Instant::now() + self.inner.limits.request_timeout;
        loop {
            let leader = self.leader();
            if self.leads() {
                return self.time_to_live_here(request).await;
            }
            if leader != 0 {
                let left = give_up.saturating_duration_since(Instant::now());
                let question = Question::TimeToLive(request);
                match self.ask_leader(leader, question, left).await? {
                    Some(Answer::TimeToLive(mut response)) => {
                        response.header = Some(self.header(self.inner.published.view().revision));
                        return Ok(response);
                    }
                    Some(_) => return Err(mixed_up()),
                    None => {}
                }
            }
            self.look_again(give_up).await?;
        }
    }

    /// Pauses before it is looked again who leads: nobody does, or the one that did has not answered.
    ///
    /// # Errors
    /// `NoLeader` or `Timeout` when it is time to give up; `Stopped`.
    pub(super) async fn look_again(&self, give_up: Instant) -> Result<(), Error> {
        if self.inner.inbox.is_closed() {
            return Err(ApiError::Stopped.into());
        }
        if Instant::now() >= give_up {
            let error = match self.leader() {
                0 => ApiError::NoLeader,
                _ => ApiError::Timeout,
            };
            return Err(error.into());
        }
        tokio::time::sleep(LEADER_PAUSE).await;
        Ok(())
    }

    /// As [`Handle::lease_time_to_live`], on the leader.
    pub(super) async fn time_to_live_here(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.await_applied().await?;
        let id = LeaseId::new(request.id);
        let keys = if request.keys {
            self.lease_keys(id).await?
        } else {
            Some(Vec::new())
        };
        let found = {
            let lessor = self.inner.lessor.lock();
            lessor.lookup(self.inner.clock.now(), id)
        };
        let (ttl, granted_ttl, keys) = match (found, keys) {
            (Lookup::NotPrimary, _) => return Err(ApiError::LeaderChanged.into()),
            (Lookup::Found { granted, left }, Some(keys)) => (left, granted, keys),
            (Lookup::Unknown, _) | (_, None) => (-1, 0, Vec::new()),
        };
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(self.header(self.inner.published.view().revision)),
            id: request.id,
            ttl,
            granted_ttl,
            keys,
        })
    }

    /// Lease.LeaseLeases: what this member knows, those that end first in front.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        self.check_lease(Access::Read, None).await?;
        let mut leases = self.inner.lessor.lock().list();
        leases.sort_unstable();
        let leases = leases.into_iter();
        Ok(pb::LeaseLeasesResponse {
            header: Some(self.header(self.inner.published.view().revision)),
            leases: leases
                .map(|(_, id)| pb::LeaseStatus { id: id.get() })
                .collect(),
        })
    }

    /// Renews a lease, at whoever leads: its time to live, 0 if there is none.
    async fn renew(&self, id: LeaseId) -> Result<i64, Error> {
        let give_up = Instant::now() + self.inner.limits.request_timeout;
        loop {
            let leader = self.leader();
            if leader == self.inner.member_id.get() {
                if self.inner.published.auth_enabled() {
                    // Before the check: a lease that was just granted shall be known.
                    self.confirm_leadership().await?;
                    self.check_lease(Access::Write, Some(id)).await?;
                }
                if let Some(ttl) = self.renew_here(id).await? {
                    return Ok(ttl);
                }
            } else if leader != 0 {
                self.check_lease(Access::Write, Some(id)).await?;
                let left = give_up.saturating_duration_since(Instant::now());
                let question = Question::Renew(id.get());
                if let Some(answer) = self.ask_leader(leader, question, left).await? {
                    return match answer {
                        Answer::Renewed(ttl) => Ok(ttl),
                        _ => Err(mixed_up()),
                    };
                }
            }
            // Or this member leads, and is not done with earlier terms.
            self.look_again(give_up).await?;
        }
    }

    /// Renews a lease, as the leader: its time to live, 0 if there is none; `None` if this member's
    /// lessor is not primary.
    pub(super) async fn renew_here(&self, id: LeaseId) -> Result<Option<i64>, Error> {
        loop {
            self.confirm_leadership().await?;
            let mut fate = None;
            let renewal = {
                let mut lessor = self.inner.lessor.lock();
                lessor.renew(self.inner.clock.now(), id, || {
                    let (waiter, decided) = oneshot::channel();
                    fate = Some(decided);
                    waiter
                })
            };
            match renewal {
                Renewal::Renewed { ttl } => {
                    self.inner.metrics.lease.renewed.inc();
                    return Ok(Some(ttl));
                }
                Renewal::Unknown => return Ok(Some(0)),
                Renewal::NotPrimary => return Ok(None),
                Renewal::Checkpointed => self.take_back_checkpoint(id).await?,
                Renewal::Ended => {
                    // Dropped when the lease is revoked, or decided elsewhere.
                    if let Some(fate) = fate
                        && let Ok(Reply::Failed(error)) = fate.await
                    {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Makes sure that nobody else leads, and that everything committed is applied here.
    ///
    /// A sole voter knows both without asking. Without [`Feature::FastLeaseKeepAlive`] it asks
    /// nevertheless, and is answered when what is committed is applied.
    async fn confirm_leadership(&self) -> Result<(), Error> {
        let confirmed = if self.is_on(Feature::FastLeaseKeepAlive) {
            self.view(false).await
        } else {
            self.confirmed_view().await
        };
        match confirmed {
            Ok(_) => Ok(()),
            Err(Error::Api(ApiError::Stopped)) => Err(ApiError::Stopped.into()),
            Err(_) => Err(Error::status(Code::Unknown, "not a primary lessor")),
        }
    }

    /// Waits until everything that was committed before is applied here.
    pub(super) async fn await_applied(&self) -> Result<(), Error> {
        match tokio::time::timeout(APPLY_PATIENCE, self.view(false)).await {
            Ok(view) => view.map(drop),
            Err(_) => Err(ApiError::TimeoutWaitAppliedIndex.into()),
        }
    }

    /// Makes a later leader resume a lease with its whole time. One entry for each checkpoint that is
    /// taken back, so at most two for a lease and a checkpoint interval.
    async fn take_back_checkpoint(&self, id: LeaseId) -> Result<(), Error> {
        let checkpoint = pb::LeaseCheckpoint {
            id: id.get(),
            remaining_ttl: 0,
        };
        let request = pb::InternalRaftRequest {
            lease_checkpoint: Some(pb::LeaseCheckpointRequest {
                checkpoints: vec![checkpoint],
            }),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::LeaseCheckpoint, request).await?;
        applied.result?;
        Ok(())
    }

    async fn lease_keys(&self, id: LeaseId) -> Result<Option<Vec<Bytes>>, Error> {
        match self.ask(|waiter| Input::LeaseKeys { id, waiter }).await? {
            Reply::LeaseKeys(keys) => Ok(keys),
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }
}

#[cfg(test)]
mod tests;
