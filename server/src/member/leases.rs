//! What the member does for leases: it tells the lessor what was applied and who leads, and proposes
//! what the lessor wants (see [`Lessor`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest,
};
use ferrite_api::types::LeaseId;
use ferrite_storage::apply::outcome::Response;
use parking_lot::Mutex;

use super::{Member, Reply};
use crate::lessor::{Lessor, Turn};

/// What happened to leases, for the metrics.
#[derive(Debug, Default)]
pub struct LeaseCounts {
    /// The times to live of those that were granted, seconds.
    pub granted: Vec<i64>,
    /// How many were revoked because their time was up.
    pub expired: u64,
}

/// What an applied entry did to leases.
#[derive(Clone, Debug)]
pub(super) enum LeaseChange {
    Granted { id: LeaseId, ttl: i64 },
    Revoked(LeaseId),
    Checkpointed(Vec<(LeaseId, i64)>),
}

impl LeaseChange {
    pub(super) fn of(result: &Result<Response, ferrite_api::Error>) -> Option<Self> {
        match result {
            Ok(Response::LeaseGrant { id, ttl }) => Some(Self::Granted { id: *id, ttl: *ttl }),
            Ok(Response::LeaseRevoke { id, .. }) => Some(Self::Revoked(*id)),
            Ok(Response::LeaseCheckpoint(left)) => Some(Self::Checkpointed(left.clone())),
            _ => None,
        }
    }
}

impl<T> Member<T> {
    /// The lessor, for renewals and lookups by other threads.
    pub fn lessor(&self) -> Arc<Mutex<Lessor<T>>> {
        Arc::clone(&self.lessor)
    }

    /// Tells the time, from any origin; it never goes back. To be called after inputs are taken and
    /// before their effects: a lease that one of them grants is counted from here, and must not end
    /// before its time has passed for whoever asked for it. Proposes what is due for leases.
    pub fn advance(&mut self, now: Duration) {
        assert!(
            now >= self.time,
            "time went from {:?} to {now:?}",
            self.time
        );
        self.time = now;
        self.tokens.lock().sweep(now);
        // Without room in the log, or far behind, more entries help nobody.
        if let Some(term) = self.leading
            && !self.log_full
            && !self.backlogged(self.options.urgent_revocations)
        {
            let turn = self.lessor.lock().turn(now);
            self.propose_turn(term, turn);
        }
    }

    /// Takes what has been counted since the last time.
    pub fn take_lease_counts(&mut self) -> LeaseCounts {
        std::mem::take(&mut self.lease_counts)
    }

    /// Whether [`Member::advance`] has more to do, also if no time passes.
    pub(super) fn leases_behind(&self) -> bool {
        self.leading.is_some()
            && !self.log_full
            && !self.backlogged(self.options.urgent_revocations)
            && self.lessor.lock().is_behind()
    }

    fn propose_turn(&mut self, term: u64, turn: Turn) {
        for id in turn.revoke {
            let lease_revoke = Some(LeaseRevokeRequest { id: id.get() });
            let request = InternalRaftRequest {
                lease_revoke,
                ..InternalRaftRequest::default()
            };
            self.propose_as_leader(term, Some(id), request);
        }
        if !turn.checkpoint.is_empty() {
            let checkpoints = turn.checkpoint.into_iter();
            let checkpoints = checkpoints.map(|(id, remaining_ttl)| LeaseCheckpoint {
                id: id.get(),
                remaining_ttl,
            });
            let request = InternalRaftRequest {
                lease_checkpoint: Some(LeaseCheckpointRequest {
                    checkpoints: checkpoints.collect(),
                }),
                ..InternalRaftRequest::default()
            };
            self.propose_as_leader(term, None, request);
        }
    }

    /// Tells the lessor what was applied. The view that shows it is published: whoever waited for the
    /// end of a lease finds its keys gone.
    pub(super) fn note_leases(&mut self, changes: Vec<LeaseChange>) {
        if changes.is_empty() {
            return;
        }
        let mut decided = Vec::new();
        let mut lessor = self.lessor.lock();
        for change in changes {
            match change {
                LeaseChange::Granted { id, ttl } => {
                    lessor.granted(self.time, id, ttl);
                    self.lease_counts.granted.push(ttl);
                }
                LeaseChange::Revoked(id) => {
                    let revoked = lessor.revoked(id);
                    self.lease_counts.expired += u64::from(revoked.ended);
                    decided.extend(revoked.waiting);
                }
                LeaseChange::Checkpointed(left) => {
                    for (id, remaining) in left {
                        lessor.checkpointed(self.time, id, remaining);
                    }
                }
            }
        }
        // Waking somebody who then needs the lock makes no sense before it is free.
        drop(lessor);
        drop(decided);
    }

    pub(super) fn lease_keys(&mut self, id: LeaseId, waiter: T) {
        let leases = self.state.leases();
        let keys = leases.get(id).map(|_| {
            let keys = leases.keys(id).map(Bytes::copy_from_slice);
            keys.collect()
        });
        self.replies.push((waiter, Reply::LeaseKeys(keys)));
    }

    /// This member does not lead any more, or not in that term.
    pub(super) fn demote_lessor(&mut self) {
        let undecided = self.lessor.lock().demote();
        drop(undecided);
    }
}
