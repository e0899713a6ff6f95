//! What consensus knows of a snapshot; its content is the owner's.

use raft::eraftpb;

use crate::conf::ConfState;
use crate::log::{MAX_NUMBER, Mark};

/// The state as of an entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry whose effect it holds.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The configuration as of that entry.
    pub conf_state: ConfState,
}

impl Snapshot {
    /// Where a log goes on that begins with it.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            index: self.index,
            term: self.term,
        }
    }

    pub(crate) fn to_raft(&self) -> eraftpb::Snapshot {
        let mut raft = eraftpb::Snapshot::default();
        let metadata = raft.mut_metadata();
        metadata.index = self.index;
        metadata.term = self.term;
        metadata.set_conf_state(self.conf_state.to_raft());
        raft
    }

    pub(crate) fn from_raft(raft: &eraftpb::Snapshot) -> Snapshot {
        let metadata = raft.get_metadata();
        Snapshot {
            index: metadata.index,
            term: metadata.term,
            conf_state: ConfState::from_raft(metadata.get_conf_state()),
        }
    }

    /// Checks what raft-rs would panic on or silently ignore, for the member `to` and a leader of
    /// `leader_term`.
    pub(crate) fn check(&self, to: u64, leader_term: u64) -> Result<(), String> {
        let Snapshot {
            index,
            term,
            conf_state,
        } = self;
        if *index == 0 || *index > MAX_NUMBER {
            return Err(format!("snapshot at index {index}"));
        }
        if *term == 0 || term > &leader_term {
            return Err(format!(
                "snapshot of term {term} from a leader of {leader_term}"
            ));
        }
        conf_state
            .check()
            .map_err(|why| format!("configuration of a snapshot: {why}"))?;
        if conf_state.voters.is_empty() {
            return Err("configuration of a snapshot: nobody votes".into());
        }
        if !conf_state.contains(to) {
            return Err(format!("configuration of a snapshot: without {to:x}"));
        }
        Ok(())
    }
}
