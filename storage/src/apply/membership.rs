//! Changes of the membership (spec cluster.md section 3): the last check, on every member alike.

use ferrite_api::Error as ApiError;

use super::Applied;
use super::outcome::Response;
use crate::members::Members;
use crate::membership::{MembershipAction, MembershipChange};
use crate::state::State;

impl State {
    /// Applies the change in the configuration entry at `index`, which must be the one after the
    /// last applied. `max_learners` is the member's setting, which therefore must be the same on
    /// all members, as in etcd.
    ///
    /// If the change is refused, Raft must not get it either. If it is not, the owner gives it to
    /// Raft and hands the new configuration to [`State::set_conf_state`] before anything else: one
    /// without the other must never be stored. ([`MembershipAction::Update`] does not concern Raft.)
    pub fn apply_membership(
        &mut self,
        index: u64,
        term: u64,
        change: &MembershipChange,
        max_learners: usize,
    ) -> Applied {
        self.expect_next(index, term);
        let result = check(self.members(), &change.action, max_learners);
        if result.is_ok() {
            self.change_members(&change.action);
        }
        self.advance(index, term);
        Applied {
            request: change.request,
            result: result.map(|()| Response::Done),
            cost: 0,
        }
    }
}

/// Whether the change is possible, in the order of etcd's checks.
fn check(
    members: &Members,
    action: &MembershipAction,
    max_learners: usize,
) -> Result<(), ApiError> {
    let id = action.id();
    if members.is_removed(id) {
        return Err(ApiError::MemberNotFound);
    }
    let known = members.get(id);
    match action {
        MembershipAction::Add { member } => {
            if known.is_some() {
                return Err(ApiError::MemberExist);
            }
            let raft = member.raft_attributes.clone().unwrap_or_default();
            if raft.peer_urls.iter().any(|url| members.contains_url(url)) {
                return Err(ApiError::PeerURLExist);
            }
            if raft.is_learner && members.learners().count() >= max_learners {
                return Err(ApiError::TooManyLearners);
            }
        }
        MembershipAction::Promote { .. } => {
            known.ok_or(ApiError::MemberNotFound)?;
            if members.voters().any(|voter| voter.id == id.get()) {
                return Err(ApiError::MemberNotLearner);
            }
        }
        MembershipAction::Remove { .. } => {
            known.ok_or(ApiError::MemberNotFound)?;
            // etcd lets it pass if it was told not to check at the API, and dies of it: Raft cannot
            // be without a voter.
            let mut voters = members.voters().map(|voter| voter.id);
            if voters.next() == Some(id.get()) && voters.next().is_none() {
                return Err(ApiError::MemberNotEnoughStarted);
            }
        }
        MembershipAction::Update { peer_urls, .. } => {
            known.ok_or(ApiError::MemberNotFound)?;
            let taken = |url: &String| members.url_owners(url).any(|owner| owner != id);
            if peer_urls.iter().any(taken) {
                return Err(ApiError::PeerURLExist);
            }
        }
    }
    Ok(())
}
