//! Grants, revocations and checkpoints of leases (spec lease.md sections 3 and 7, validation.md
//! section 6).
//!
//! The time to live that an entry grants is the effective one: the member that proposes it raises
//! it to the minimum, which follows from its own configuration and so may play no part here.

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::{
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest,
};
use ferrite_api::types::LeaseId;

use super::Failure;
use super::outcome::Response;
use crate::auth::Identity;
use crate::leases::{MAX_TTL, NO_LEASE};
use crate::state::State;

impl State {
    pub(super) fn lease_grant(&mut self, request: &LeaseGrantRequest) -> Result<Response, Failure> {
        self.check_alarms(true)?;
        let (id, ttl) = (LeaseId::new(request.id), request.ttl);
        if id == NO_LEASE {
            return Err(ApiError::LeaseNotFound.into());
        }
        if ttl > MAX_TTL {
            return Err(ApiError::LeaseTTLTooLarge.into());
        }
        let leases = self.store_mut().leases_mut();
        if leases.get(id).is_some() {
            return Err(ApiError::LeaseExist.into());
        }
        leases.grant(id, ttl);
        Ok(Response::LeaseGrant { id, ttl })
    }

    /// Deletes the keys of a lease in byte order, under one revision, and the lease with them. The
    /// order makes the revisions, so it must be the same on every member.
    pub(super) fn lease_revoke(
        &mut self,
        identity: &Identity,
        request: &LeaseRevokeRequest,
    ) -> Result<Response, Failure> {
        self.check_alarms(false)?;
        let id = LeaseId::new(request.id);
        self.checks(identity).lease(id)?;
        let leases = self.store().leases();
        if leases.get(id).is_none() {
            return Err(ApiError::LeaseNotFound.into());
        }
        let keys: Vec<Bytes> = leases.keys(id).map(Bytes::copy_from_slice).collect();
        let mut txn = self.store_mut().begin(false);
        for key in &keys {
            txn.delete(key);
        }
        let revision = txn.commit();
        self.store_mut().leases_mut().revoke(id);
        self.tally.deletes += keys.len() as u64;
        Ok(Response::LeaseRevoke { id, revision })
    }

    /// Notes what is left of leases. Those that ended meanwhile are passed over.
    pub(super) fn lease_checkpoint(
        &mut self,
        request: LeaseCheckpointRequest,
    ) -> Result<Response, Failure> {
        let leases = self.store_mut().leases_mut();
        let mut noted = Vec::with_capacity(request.checkpoints.len());
        for checkpoint in request.checkpoints {
            let id = LeaseId::new(checkpoint.id);
            if leases.get(id).is_some() {
                leases.checkpoint(id, checkpoint.remaining_ttl);
                noted.push((id, checkpoint.remaining_ttl));
            }
        }
        Ok(Response::LeaseCheckpoint(noted))
    }
}
