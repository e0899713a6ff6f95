//! Changes of the membership: checked by the member that is asked, proposed one at a time by the
//! leader, applied by all (spec cluster.md section 3).
//!
//! What a change means for raft's configuration is decided by the leader when it proposes: it has then
//! applied every earlier change, because raft takes the next one only after that.

use ferrite_api::pb::membershippb::Member as Info;
use ferrite_api::types::MemberId;
use ferrite_raft::{Change, Committed, ConfChange, DropReason, ProposeError};
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use ferrite_storage::page;

use super::proposals::{Origin, Proposal};
use super::{Fatal, Member};

impl<T> Member<T> {
    /// A client wants a change.
    pub(super) fn change_members(&mut self, change: &MembershipChange, waiter: T) {
        if let Err(error) = self.admits(&change.action) {
            return self.fail(waiter, error);
        }
        let proposal = Proposal {
            id: change.request,
            changes_members: true,
            payload: change.encode(),
            origin: Origin::Here,
        };
        self.propose(proposal, false, waiter);
    }

    /// The checks before the log: of a promotion, that the learner has nearly all entries; with
    /// `--strict-reconfig-check`, that the cluster keeps its quorum. What can be decided from the
    /// replicated state alone is decided when the change is applied.
    fn admits(&self, action: &MembershipAction) -> Result<(), ferrite_api::Error> {
        if let MembershipAction::Promote { id } = action {
            self.caught_up(*id)?;
        }
        let members = self.state.members();
        let voters = members.voters().count();
        // etcd panics without the strict check: nobody would be left.
        let removes_last = matches!(action, MembershipAction::Remove { id }
            if voters == 1 && members.voters().any(|member| member.id == id.get()));
        if removes_last {
            return Err(ferrite_api::Error::MemberNotEnoughStarted);
        }
        if !self.options.strict_reconfig_check {
            return Ok(());
        }
        let started = members.voters().filter(|member| is_started(member));
        match action {
            MembershipAction::Add { member } => {
                let learner = member
                    .raft_attributes
                    .as_ref()
                    .is_some_and(|raft| raft.is_learner);
                let started = started.count();
                if !learner && started < quorum(voters + 1) && (voters, started) != (1, 1) {
                    return Err(ferrite_api::Error::MemberNotEnoughStarted);
                }
                if voters > 1 && self.healthy_voters() < quorum(voters + 1) {
                    return Err(ferrite_api::Error::Unhealthy);
                }
            }
            MembershipAction::Promote { .. } => {
                if started.count() + 1 < quorum(voters + 1) {
                    return Err(ferrite_api::Error::MemberNotEnoughStarted);
                }
            }
            MembershipAction::Remove { id } => {
                let known = members.get(*id);
                let is_voter = members.voters().any(|member| member.id == id.get());
                if known.is_some() && !is_voter {
                    return Ok(());
                }
                // Of somebody unknown, too, as etcd: the answer does not wait for a leader.
                let rest = started.filter(|member| member.id != id.get()).count();
                if rest < quorum(voters - usize::from(is_voter)) {
                    return Err(ferrite_api::Error::MemberNotEnoughStarted);
                }
                let here = *id == self.state.member_id();
                if !here && !self.links.held_since(*id, self.now) {
                    return Ok(());
                }
                if self.healthy_voters() < 1 + quorum(voters - 1) {
                    return Err(ferrite_api::Error::Unhealthy);
                }
            }
            MembershipAction::Update { .. } => {}
        }
        Ok(())
    }

    /// Voters that have been connected for the 5 s that etcd demands, this member included.
    fn healthy_voters(&self) -> usize {
        let ticks = self.options.request_ticks - 2 * self.options.election_ticks;
        let Some(since) = self.now.checked_sub(ticks) else {
            // Nobody can have been connected for longer than this member runs.
            return 1;
        };
        let members = self.state.members();
        self.connected_since(since)
            .filter(|id| members.voters().any(|member| member.id == id.get()))
            .count()
    }

    /// Whether a learner has nine tenths of what the leader has, which only the leader knows. (A voter
    /// has: that it is none is found when the change is applied.)
    fn caught_up(&self, id: MemberId) -> Result<(), ferrite_api::Error> {
        if !self.is_leader() {
            return Err(ferrite_api::Error::NotLeader);
        }
        let progress = self.driver.progress();
        let matched = |id: MemberId| {
            let of = progress.iter().find(|progress| progress.id == id.get());
            of.map(|progress| progress.matched)
        };
        let learner = matched(id).ok_or(ferrite_api::Error::MemberNotFound)?;
        let leader = matched(self.state.member_id()).unwrap_or(0);
        match learner.saturating_mul(10) < leader.saturating_mul(9) {
            true => Err(ferrite_api::Error::LearnerNotReady),
            false => Ok(()),
        }
    }

    /// Gives raft the changes that wait, as this member leads.
    pub(super) fn propose_changes(&mut self) {
        let term = self.driver.status().term;
        while let Some(proposal) = self.queue.changes().front() {
            if proposal.is_stale(term) || proposal.is_late(self.now) {
                if let Some(proposal) = self.queue.changes().pop_front() {
                    self.give_up(&proposal);
                }
                continue;
            }
            let change = MembershipChange::decode(&proposal.payload);
            let context = proposal.payload.clone();
            let proposed = match change {
                Ok(change) => {
                    let raft = self.raft_change(&change.action);
                    self.driver
                        .propose_conf_change(&ConfChange::new(raft, context))
                }
                Err(error) => Err(ProposeError::InvalidChange(error.to_string())),
            };
            match proposed {
                Ok(()) => {
                    if let Some(proposal) = self.queue.changes().pop_front() {
                        self.left(term, proposal);
                    }
                    continue;
                }
                // This member is to be removed: somebody else leads first, and proposes it.
                Err(ProposeError::Dropped(DropReason::RemovesLeader)) => {
                    self.hand_over_when_due();
                    return;
                }
                Err(
                    ProposeError::Dropped(_)
                    | ProposeError::NoLeader
                    | ProposeError::NotLeader { .. },
                ) => return,
                Err(error) => {
                    // Nobody is told: another member's client is only reached through the log.
                    tracing::warn!(%error, "a change of the membership cannot be proposed");
                }
            }
            self.queue.changes().pop_front();
        }
    }

    /// What the change is for raft. An update is none, but travels as one; nor is what the state will
    /// refuse, because it is about nobody. Raft must not, for then it would not be in the log, and its
    /// proposer would wait.
    fn raft_change(&self, action: &MembershipAction) -> Change {
        let is_learner = |member: &Info| {
            let raft = member.raft_attributes.as_ref();
            raft.is_some_and(|raft| raft.is_learner)
        };
        let none = Change::AddVoter(self.state.member_id().get());
        let is_member = |id: MemberId| self.state.members().get(id).is_some();
        match action {
            MembershipAction::Add { member } if is_learner(member) => Change::AddLearner(member.id),
            MembershipAction::Add { member } => Change::AddVoter(member.id),
            MembershipAction::Promote { id } if is_member(*id) => Change::AddVoter(id.get()),
            MembershipAction::Remove { id } if is_member(*id) => Change::Remove(id.get()),
            MembershipAction::Promote { .. }
            | MembershipAction::Remove { .. }
            | MembershipAction::Update { .. } => none,
        }
    }

    /// Applies a configuration entry. Raft gets it only if the replicated state takes it.
    pub(super) fn apply_change(
        &mut self,
        entry: &Committed,
        raft: &ConfChange,
    ) -> Result<ferrite_storage::apply::Applied, Fatal> {
        let change = MembershipChange::decode(&raft.context).map_err(|error| Fatal::Entry {
            index: entry.index,
            why: error.to_string(),
        })?;
        let applied = self.state.apply_membership(
            entry.index,
            entry.term,
            &change,
            self.options.max_learners,
        );
        if applied.result.is_ok() {
            tracing::info!(change = ?change.action, "applied a change of the membership");
            self.peers_changed = true;
            self.farewell |= matches!(change.action, MembershipAction::Remove { .. });
            if !matches!(change.action, MembershipAction::Update { .. }) {
                let conf = self.driver.apply_conf_change(raft)?;
                self.state.set_conf_state(page::ConfState {
                    voters: conf.voters,
                    learners: conf.learners,
                    voters_outgoing: conf.voters_outgoing,
                    learners_next: conf.learners_next,
                    auto_leave: conf.auto_leave,
                });
            }
        }
        Ok(applied)
    }

    /// Whether this member was removed from the cluster: it takes part no more. As long as somebody waits
    /// here, perhaps for that, a member that was told so has an election timeout to hear it from the log.
    pub fn is_removed(&self) -> bool {
        let told = self.told_removed.is_some_and(|told| {
            self.waiters.len() == 0 || self.now >= told + self.options.election_ticks
        });
        told || self.driver.status().removed
    }
}

fn is_started(member: &Info) -> bool {
    let own = member.member_attributes.as_ref();
    own.is_some_and(|own| !own.name.is_empty())
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}
