//! What the endpoints ask of a member.

use std::future::Future;

use ferrite_api::pb::etcdserverpb as pb;

use crate::error::Error;
use crate::handle::{Handle, Versions};

/// A member, as the endpoints see it. [`Handle`] is one; tests have another.
pub trait Source: Send + Sync + 'static {
    /// Active alarms of all members.
    fn alarms(&self) -> Vec<pb::AlarmMember>;
    /// The leader that this member knows; 0 = none.
    fn leader(&self) -> u64;
    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;
    /// The three versions.
    fn versions(&self) -> Versions;
    /// Whether users have to show who they are.
    fn auth_enabled(&self) -> bool;
    /// The state of raft, for `/debug/vars`.
    fn raft_status(&self) -> RaftStatus;
    /// Reads locally. Cancel safe: changes nothing.
    fn serializable_read(&self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Reads with the confirmation of a quorum. Cancel safe: changes nothing.
    fn linearizable_read(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The state of raft on this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// This member.
    pub id: u64,
    /// Current term.
    pub term: u64,
    /// Whom this member voted for in the term; 0 = nobody. `None` when it is not known here, and
    /// then left out.
    pub vote: Option<u64>,
    /// Commit index.
    pub commit: u64,
    /// The leader; 0 = none.
    pub lead: u64,
    /// `StateLeader` and so on.
    pub state: &'static str,
    /// Applied index.
    pub applied: u64,
    /// What the leader knows of each member; empty elsewhere.
    pub progress: Vec<RaftProgress>,
    /// The member that leadership is being handed to; 0 = none.
    pub transferee: u64,
}

/// What the leader knows of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftProgress {
    /// The member.
    pub id: u64,
    /// Last entry known to be there.
    pub matched: u64,
    /// Next entry to send.
    pub next: u64,
    /// `StateProbe`, `StateReplicate` or `StateSnapshot`.
    pub state: &'static str,
}

impl Source for Handle {
    fn alarms(&self) -> Vec<pb::AlarmMember> {
        Handle::alarms(self)
    }

    fn leader(&self) -> u64 {
        Handle::leader(self)
    }

    fn is_learner(&self) -> bool {
        Handle::is_learner(self)
    }

    fn versions(&self) -> Versions {
        Handle::versions(self)
    }

    fn auth_enabled(&self) -> bool {
        Handle::auth_enabled(self)
    }

    fn raft_status(&self) -> RaftStatus {
        let status = self.status();
        let id = status.header.map_or(0, |header| header.member_id);
        RaftStatus {
            id,
            term: status.raft_term,
            vote: None,
            commit: status.raft_index,
            lead: status.leader,
            state: if status.leader == id && id != 0 {
                "StateLeader"
            } else {
                "StateFollower"
            },
            applied: status.raft_applied_index,
            progress: Vec::new(),
            transferee: 0,
        }
    }

    async fn serializable_read(&self) -> Result<(), Error> {
        Handle::serializable_read(self).await
    }

    async fn linearizable_read(&self) -> Result<(), Error> {
        Handle::linearizable_read(self).await
    }
}
