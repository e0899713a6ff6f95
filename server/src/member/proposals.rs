//! Proposals on their way to raft.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use ferrite_api::types::{LeaseId, RequestId};
use ferrite_raft::ProposeError;
use prost::Message;

use super::{Member, Reply};

/// Entries that may be committed and not yet applied before new proposals are refused.
const MAX_BACKLOG: u64 = 5000;

/// A proposal that raft has not taken yet.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) id: RequestId,
    payload: Bytes,
    leaders: Option<Leaders>,
}

/// What only the leader of a term may propose, and in no other term: what it saw may not be true any
/// more (etcd #15247). Raft takes it as this leader's or not at all.
#[derive(Debug)]
struct Leaders {
    term: u64,
    /// The lease that it revokes.
    revokes: Option<LeaseId>,
}

impl<T> Member<T> {
    pub(super) fn propose(&mut self, id: RequestId, payload: Bytes, waiter: T) {
        if self.backlogged() {
            let error = ferrite_api::Error::RequestTooManyRequests.into();
            self.replies.push((waiter, Reply::Failed(error)));
            return;
        }
        if self.log_full {
            self.replies
                .push((waiter, Reply::Failed(ferrite_api::Error::NoSpace.into())));
            return;
        }
        self.waiters
            .add(id, self.now + self.options.request_ticks, waiter);
        self.enqueue(id, payload, None);
    }

    pub(super) fn propose_queued(&mut self) {
        while let Some(proposal) = self.queue.front() {
            if let Some(leaders) = &proposal.leaders
                && !self.leads(leaders.term)
            {
                self.drop_first();
                continue;
            }
            match self.driver.propose(proposal.payload.clone()) {
                Ok(()) => {
                    self.queue.pop_front();
                }
                // Nothing entered the log: the proposal waits for a leader, or for room.
                Err(
                    ProposeError::NoLeader
                    | ProposeError::NotLeader { .. }
                    | ProposeError::Dropped(_),
                ) => return,
                Err(
                    error @ (ProposeError::TooLarge { .. }
                    | ProposeError::InvalidChange(_)
                    | ProposeError::Stopped),
                ) => {
                    let id = proposal.id;
                    self.drop_first();
                    if let Some(waiter) = self.waiters.take(id) {
                        let error = match error {
                            ProposeError::TooLarge { .. } => ferrite_api::Error::RequestTooLarge,
                            _ => ferrite_api::Error::Stopped,
                        };
                        self.replies.push((waiter, Reply::Failed(error.into())));
                    }
                }
            }
        }
    }

    /// Proposes a request of the member's own, for which nobody waits.
    pub(super) fn propose_own(&mut self, request: InternalRaftRequest) {
        let (id, payload) = self.own(request);
        self.enqueue(id, payload, None);
    }

    /// As [`Member::propose_own`], as leader of `term` only. `revokes`: the lease that the request
    /// revokes, which the lessor gets back if it does not reach the log.
    pub(super) fn propose_as_leader(
        &mut self,
        term: u64,
        revokes: Option<LeaseId>,
        request: InternalRaftRequest,
    ) {
        let (id, payload) = self.own(request);
        self.enqueue(id, payload, Some(Leaders { term, revokes }));
    }

    /// Whether so much is committed and not applied that nothing more is to be proposed.
    pub(super) fn backlogged(&self) -> bool {
        let status = self.driver.status();
        status.commit > status.applied + MAX_BACKLOG
    }

    fn own(&self, mut request: InternalRaftRequest) -> (RequestId, Bytes) {
        let id = self.ids.next();
        request.header = Some(RequestHeader {
            id: id.get(),
            ..RequestHeader::default()
        });
        (id, Bytes::from(request.encode_to_vec()))
    }

    fn enqueue(&mut self, id: RequestId, payload: Bytes, leaders: Option<Leaders>) {
        self.queue.push_back(Proposal {
            id,
            payload,
            leaders,
        });
    }

    fn leads(&self, term: u64) -> bool {
        let status = self.driver.status();
        status.leader == status.id && status.term == term
    }

    /// Gives up the first proposal; whoever waits for it is the caller's business.
    fn drop_first(&mut self) {
        let leaders = self.queue.pop_front().and_then(|dropped| dropped.leaders);
        if let Some(lease) = leaders.and_then(|leaders| leaders.revokes) {
            self.lessor.lock().put_off(self.time, lease);
        }
    }
}
