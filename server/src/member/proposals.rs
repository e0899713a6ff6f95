//! Proposals on their way to the log: into it on the leader, to the leader on others.
//!
//! A proposal enters the log at most once. It is in a queue, or it left for the log of one term: given
//! to raft by the leader of that term, or sent to it. There it is refused ([`Message::Refused`]), or
//! enters the log, or is lost. As soon as an entry of a later term is applied here, it is known which:
//! terms in a log never go back, so what has no result by then is in no log, and is proposed again.
//! (etcd lets such requests run into their timeout.) After a snapshot nothing is known; then only the
//! timeout ends them.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use ferrite_api::types::{LeaseId, MemberId, RequestId};
use ferrite_raft::ProposeError;
use ferrite_storage::auth::ROOT;
use prost::Message as _;

use super::Member;
use crate::peer::{Forwarded, Message};

/// Entries that may be committed and not yet applied before new proposals are refused.
const MAX_BACKLOG: u64 = 5000;

/// The same for urgent ones.
const MAX_URGENT_BACKLOG: u64 = 2 * MAX_BACKLOG;

/// Payload in one message to the leader, bytes; a proposal that is larger goes alone.
const FORWARD_BYTES: usize = 1 << 20;

/// A proposal that raft has not taken yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) id: RequestId,
    /// Whether the payload is a change of the membership; else it is a request.
    pub(super) changes_members: bool,
    pub(super) payload: Bytes,
    pub(super) origin: Origin,
}

impl Proposal {
    /// Whether it is for the log of another term only.
    pub(super) fn is_stale(&self, term: u64) -> bool {
        match self.origin {
            Origin::Here => false,
            Origin::Peer { term: of, .. } | Origin::Leader { term: of, .. } => of != term,
        }
    }

    /// Whether its client was told that it has timed out. (A client of this member is told here, and its
    /// proposal goes with it.) It shall not happen long after, to everybody's surprise.
    pub(super) fn is_late(&self, now: u64) -> bool {
        matches!(self.origin, Origin::Peer { until, .. } if now >= until)
    }
}

/// Where a proposal comes from, and so what becomes of it when this member does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this member, or the member itself: it goes to the leader.
    Here,
    /// Another member, for the log of this term: in another one it goes back there.
    Peer {
        /// The member.
        from: MemberId,
        /// The term.
        term: u64,
        /// The tick from which on nobody waits for it any more.
        until: u64,
    },
    /// This member as the leader of a term: it is dropped. Such a proposal is good for that term
    /// only: what the leader saw may not be true any more (etcd #15247).
    Leader {
        /// The term.
        term: u64,
        /// The lease that it revokes, which the lessor gets back if it does not reach the log.
        revokes: Option<LeaseId>,
    },
}

/// Proposals that wait for raft, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Requests.
    entries: VecDeque<Proposal>,
    /// Changes of the membership: raft takes one at a time, and the rest must not wait for that.
    changes: VecDeque<Proposal>,
    /// Nothing is tried again before the next tick or the next leader: the leader has refused.
    held: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.changes.is_empty()
    }

    pub(super) fn push(&mut self, proposal: Proposal) {
        self.of(&proposal).push_back(proposal);
    }

    /// Puts a proposal back that the leader has refused.
    fn push_back_refused(&mut self, proposal: Proposal) {
        self.of(&proposal).push_front(proposal);
        self.held = true;
    }

    fn of(&mut self, proposal: &Proposal) -> &mut VecDeque<Proposal> {
        match proposal.changes_members {
            true => &mut self.changes,
            false => &mut self.entries,
        }
    }

    /// To be called with each tick and each change of leadership.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Takes out a proposal that is given up. Whether it was here.
    pub(super) fn remove(&mut self, id: RequestId) -> bool {
        let before = self.entries.len() + self.changes.len();
        self.entries.retain(|proposal| proposal.id != id);
        self.changes.retain(|proposal| proposal.id != id);
        before > self.entries.len() + self.changes.len()
    }

    /// The changes of the membership.
    pub(super) fn changes(&mut self) -> &mut VecDeque<Proposal> {
        &mut self.changes
    }

    fn take_all(&mut self) -> impl Iterator<Item = Proposal> + use<> {
        let (changes, entries) = (
            std::mem::take(&mut self.changes),
            std::mem::take(&mut self.entries),
        );
        changes.into_iter().chain(entries)
    }
}

impl<T> Member<T> {
    pub(super) fn propose(&mut self, proposal: Proposal, urgent: bool, waiter: T) {
        if self.backlogged(urgent) {
            self.fail(waiter, ferrite_api::Error::RequestTooManyRequests);
        } else if self.log_full {
            self.fail(waiter, ferrite_api::Error::NoSpace);
        } else {
            let deadline = self.now + self.options.request_ticks;
            self.waiters.add(proposal.id, deadline, waiter);
            self.queue.push(proposal);
        }
    }

    /// Proposals that another member has sent to its leader.
    pub(super) fn take_forwarded(&mut self, from: MemberId, term: u64, proposals: Vec<Forwarded>) {
        if !self.is_leader() || self.driver.status().term != term {
            let ids = proposals.iter().map(|proposal| proposal.id).collect();
            self.say(from, Message::Refused { term, ids });
            return;
        }
        let until = self.now + self.options.request_ticks;
        for proposal in proposals {
            self.queue.push(Proposal {
                id: proposal.id,
                changes_members: proposal.changes_members,
                payload: proposal.payload,
                origin: Origin::Peer { from, term, until },
            });
        }
    }

    /// The leader has not taken these. They wait for a better moment.
    pub(super) fn take_back(&mut self, term: u64, ids: &[RequestId]) {
        // From the last one on, so that the order stays.
        for id in ids.iter().rev() {
            if let Some(proposal) = self.waiters.refused(*id, term) {
                self.queue.push_back_refused(proposal);
            }
        }
    }

    /// Gives raft, or the leader, whatever it takes now.
    pub(super) fn propose_queued(&mut self) {
        if self.queue.held || self.queue.is_empty() {
            return;
        }
        match self.driver.status().leader {
            0 => self.keep_own(),
            _ if self.is_leader() => {
                self.propose_changes();
                self.propose_entries();
            }
            leader => self.forward(MemberId::new(leader)),
        }
    }

    fn propose_entries(&mut self) {
        let term = self.driver.status().term;
        while let Some(proposal) = self.queue.entries.front() {
            let id = proposal.id;
            if proposal.is_stale(term) || proposal.is_late(self.now) {
                self.give_up_first();
                continue;
            }
            match self.driver.propose(proposal.payload.clone()) {
                Ok(()) => {
                    if let Some(proposal) = self.queue.entries.pop_front() {
                        self.left(term, proposal);
                    }
                }
                Err(error @ (ProposeError::TooLarge { .. } | ProposeError::Stopped)) => {
                    self.give_up_first();
                    let error = match error {
                        ProposeError::TooLarge { .. } => ferrite_api::Error::RequestTooLarge,
                        _ => ferrite_api::Error::Stopped,
                    };
                    if let Some(waiter) = self.waiters.take(id) {
                        self.fail(waiter, error);
                    }
                }
                // Nothing entered the log: the proposal waits for room, or for the next leader.
                Err(_) => return,
            }
        }
    }

    /// Nobody leads: what this member's clients want waits, the rest is given up.
    fn keep_own(&mut self) {
        for proposal in self.queue.take_all() {
            match proposal.origin {
                Origin::Here => self.queue.push(proposal),
                _ => self.give_up(&proposal),
            }
        }
    }

    /// Another member leads: what this member's clients want goes there, the rest is given up.
    fn forward(&mut self, leader: MemberId) {
        if !self.links.is_up(leader) {
            // It would be lost. The link comes back, or another leader.
            self.keep_own();
            return;
        }
        let term = self.driver.status().term;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for proposal in self.queue.take_all() {
            if proposal.origin != Origin::Here {
                self.give_up(&proposal);
                continue;
            }
            if bytes > 0 && bytes + proposal.payload.len() > FORWARD_BYTES {
                let proposals = std::mem::take(&mut batch);
                self.say(leader, Message::Propose { term, proposals });
                bytes = 0;
            }
            bytes += proposal.payload.len();
            batch.push(Forwarded {
                id: proposal.id,
                changes_members: proposal.changes_members,
                payload: proposal.payload.clone(),
            });
            self.left(term, proposal);
        }
        if !batch.is_empty() {
            let proposals = batch;
            self.say(leader, Message::Propose { term, proposals });
        }
    }

    /// A proposal has left for the log of a term.
    pub(super) fn left(&mut self, term: u64, proposal: Proposal) {
        if proposal.origin == Origin::Here {
            self.waiters.sent(term, proposal);
        }
    }

    /// The first entry of a term has been applied: what was proposed in earlier ones, and has no
    /// result, is in no log. It is proposed again.
    pub(super) fn propose_lost(&mut self, term: u64) {
        for proposal in self.waiters.lost(term) {
            self.queue.push(proposal);
        }
    }

    /// Proposes a request of the member's own, for which nobody waits. Returns its id.
    pub(super) fn propose_own(&mut self, request: InternalRaftRequest) -> RequestId {
        let (id, payload) = self.own(request);
        self.enqueue(id, payload, Origin::Here);
        id
    }

    /// As [`Member::propose_own`], as leader of `term` only. `revokes`: the lease that the request
    /// revokes, which the lessor gets back if it does not reach the log.
    pub(super) fn propose_as_leader(
        &mut self,
        term: u64,
        revokes: Option<LeaseId>,
        request: InternalRaftRequest,
    ) -> RequestId {
        let (id, payload) = self.own(request);
        self.enqueue(id, payload, Origin::Leader { term, revokes });
        id
    }

    /// Whether so much is committed and not applied that nothing more is to be proposed.
    pub(super) fn backlogged(&self, urgent: bool) -> bool {
        let status = self.driver.status();
        is_backlog(status.commit, status.applied, urgent)
    }

    fn own(&self, mut request: InternalRaftRequest) -> (RequestId, Bytes) {
        let id = self.ids.next();
        // What a member proposes by itself, no user has to be asked for.
        request.header = Some(RequestHeader {
            id: id.get(),
            username: ROOT.to_owned(),
            auth_revision: self.state.auth().revision(),
        });
        (id, Bytes::from(request.encode_to_vec()))
    }

    fn enqueue(&mut self, id: RequestId, payload: Bytes, origin: Origin) {
        self.queue.push(Proposal {
            id,
            changes_members: false,
            payload,
            origin,
        });
    }

    /// Gives up the first proposal; whoever waits for it here is the caller's business.
    fn give_up_first(&mut self) {
        if let Some(proposal) = self.queue.entries.pop_front() {
            self.give_up(&proposal);
        }
    }

    /// A proposal that did not reach the log, and will not from here: its origin learns it.
    pub(super) fn give_up(&mut self, proposal: &Proposal) {
        match proposal.origin {
            Origin::Peer { from, term, .. } => {
                let ids = vec![proposal.id];
                self.say(from, Message::Refused { term, ids });
            }
            Origin::Leader {
                revokes: Some(lease),
                ..
            } => self.lessor.lock().put_off(self.time, lease),
            Origin::Here | Origin::Leader { .. } => {}
        }
    }
}

fn is_backlog(committed: u64, applied: u64, urgent: bool) -> bool {
    let most = if urgent {
        MAX_URGENT_BACKLOG
    } else {
        MAX_BACKLOG
    };
    committed > applied.saturating_add(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_proposals_are_taken_twice_as_long() {
        for (gap, refused) in [
            (0, [false, false]),
            (5000, [false, false]),
            (5001, [true, false]),
            (10_000, [true, false]),
            (10_001, [true, true]),
        ] {
            let found = [false, true].map(|urgent| is_backlog(7 + gap, 7, urgent));
            assert_eq!(found, refused, "{gap}");
        }
    }
}
