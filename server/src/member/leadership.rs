//! What follows from who leads: the member introduces itself, the leader takes over what is the leader's,
//! leadership is handed over.

use std::collections::BTreeSet;

use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use ferrite_api::types::{MemberId, RequestId};
use ferrite_raft::Leadership;

use tonic::Code;

use super::{Member, Reply};
use crate::error::Error;

/// A client that waits for a leader of its choice.
#[derive(Debug)]
pub(super) struct Transfer<T> {
    to: MemberId,
    deadline: u64,
    waiter: T,
}

/// How a leader gets rid of its leadership.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// Who was asked to take it, in this term.
    asked: BTreeSet<u64>,
    /// Nobody else is asked before this tick by a member that goes on: while a transfer is on its way
    /// nothing is proposed, and what waits has its turn before the next one.
    next: u64,
}

impl<T> Member<T> {
    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        let status = self.driver.status();
        status.leader == status.id
    }

    /// Who leads has changed, or the term.
    pub(super) fn leadership_changed(&mut self, now: Leadership) {
        self.leading = None;
        self.demote_lessor();
        self.links.leads(now.leader, self.now);
        self.queue.release();
        self.survey.give_up();
        self.hand_over = HandOver::default();
        let transfers = std::mem::take(&mut self.transfers).into_iter();
        let (done, waiting): (Vec<_>, Vec<_>) =
            transfers.partition(|transfer| transfer.to.get() == now.leader);
        self.transfers = waiting;
        let done = done.into_iter();
        self.replies
            .extend(done.map(|transfer| (transfer.waiter, Reply::Done)));
    }

    /// As leader of the term of the entry just applied: takes over the leases, and looks at the versions
    /// of the members.
    pub(super) fn lead(&mut self, term: u64) {
        let status = self.driver.status();
        if status.leader != status.id || status.term != term || self.leading == Some(term) {
            return;
        }
        self.leading = Some(term);
        self.lessor.lock().promote(self.time);
        self.begin_survey(true, false);
    }

    /// Publishes this member's name and client URLs, until they are in the replicated state and this
    /// member has caught up; then it may serve clients.
    pub(super) fn introduce(&mut self) {
        // What is older than the leader's term must be applied first: the name may be there, and it is
        // no news.
        let status = self.driver.status();
        let may = match status.leader {
            0 => false,
            _ if self.is_leader() => self.leading.is_some() && self.queue.is_empty(),
            _ => status.applied >= status.commit,
        };
        if !may {
            return;
        }
        // A member that does not lead hears from the log how far it is behind: what it proposes now is
        // applied here after everything that was acknowledged before.
        let ready = self.published.ready();
        if self.introduced() && (ready || self.is_leader() || self.caught_up) {
            if !ready && self.state.cluster_version().is_some() {
                self.published.set_ready();
            }
            return;
        }
        let own = self.state.member_id();
        if self.now < self.introduce_at || self.state.members().get(own).is_none() {
            return;
        }
        // Nobody waits for the proposal, and it may be lost.
        self.introduce_at = self.now + 2 * self.options.election_ticks;
        let introduction = self.propose_own(InternalRaftRequest {
            cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
                member_id: own.get(),
                member_attributes: Some(self.attributes()),
            }),
            ..InternalRaftRequest::default()
        });
        self.introductions.push(introduction);
    }

    /// Notes that a request was applied.
    pub(super) fn note_introduction(&mut self, request: RequestId) {
        if self.introductions.contains(&request) {
            self.introductions.clear();
            self.caught_up = true;
        }
    }

    fn introduced(&self) -> bool {
        let member = self.state.members().get(self.state.member_id());
        member.is_some_and(|member| member.member_attributes.as_ref() == Some(&self.attributes()))
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            name: self.options.name.clone(),
            client_urls: self.options.client_urls.clone(),
        }
    }

    /// A client wants another member to lead. Answered once it does.
    pub(super) fn move_leader(&mut self, to: MemberId, waiter: T) {
        if !self.is_leader() {
            return self.fail(waiter, ferrite_api::Error::NotLeader);
        }
        let member = self.state.members().get(to);
        let raft = member.and_then(|member| member.raft_attributes.as_ref());
        if raft.is_none_or(|raft| raft.is_learner) {
            return self.fail(waiter, ferrite_api::Error::BadLeaderTransferee);
        }
        if to == self.state.member_id() {
            self.replies.push((waiter, Reply::Done));
            return;
        }
        self.driver.transfer_leader(to.get());
        self.transfers.push(Transfer {
            to,
            deadline: self.now + self.options.request_ticks,
            waiter,
        });
    }

    pub(super) fn tick_transfers(&mut self) {
        let transfers = std::mem::take(&mut self.transfers).into_iter();
        let (over, waiting): (Vec<_>, Vec<_>) =
            transfers.partition(|transfer| transfer.deadline <= self.now);
        self.transfers = waiting;
        for transfer in over {
            let text = "etcdserver: request timed out, leader transfer took too long";
            let failed = Reply::Failed(Error::status(Code::Unknown, text));
            self.replies.push((transfer.waiter, failed));
        }
    }

    pub(super) fn drain_transfers(&mut self) -> impl Iterator<Item = T> + use<T> {
        let transfers = std::mem::take(&mut self.transfers).into_iter();
        transfers.map(|transfer| transfer.waiter)
    }

    /// Hands leadership to the voter that is fittest, because this member is about to stop or to be
    /// removed. Each call asks another one, if there is one. False if this member does not lead or
    /// nobody else can be reached: then there is nothing to wait for.
    pub fn hand_over(&mut self) -> bool {
        let reachable = |id| self.links.is_up(MemberId::new(id));
        let asked = &self.hand_over.asked;
        let other = self
            .driver
            .transfer_target(|id| reachable(id) && !asked.contains(&id));
        let Some(to) = other.or_else(|| self.driver.transfer_target(reachable)) else {
            return false;
        };
        self.hand_over.asked.insert(to);
        tracing::info!(to = %MemberId::new(to), "handing leadership over");
        self.driver.transfer_leader(to)
    }

    /// As [`Member::hand_over`] if it is time, because this member cannot lead: it is to be removed, or its
    /// log has no room, so that it applies nothing and the leases of the whole cluster stand still.
    pub(super) fn hand_over_when_due(&mut self) {
        if self.now >= self.hand_over.next {
            self.hand_over.next = self.now + 2 * self.options.election_ticks;
            self.hand_over();
        }
    }
}
