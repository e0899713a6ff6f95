//! Proposals: everything for which raft-rs would drop one is checked before raft-rs sees it.

use bytes::Bytes;
use raft::Changer;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Driver;
use crate::conf::{Change, ConfChange};
use crate::error::{DropReason, ProposeError};
use crate::log::MAX_ENTRY_BYTES;

impl Driver {
    /// Proposes an entry. It enters the log, unless this fails; whether it is ever committed shows
    /// in [`Effects::committed`](crate::Effects::committed) only.
    ///
    /// # Errors
    /// In all cases nothing entered the log.
    pub fn propose(&mut self, data: Bytes) -> Result<(), ProposeError> {
        self.check_proposal(data.len())?;
        self.proposals_bytes += data.len();
        self.proposals.push(Entry {
            data,
            ..Entry::default()
        });
        Ok(())
    }

    /// Proposes a change of the configuration. It takes effect when its entry is applied, with
    /// [`Driver::apply_conf_change`].
    ///
    /// # Errors
    /// In all cases nothing entered the log.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), ProposeError> {
        self.flush();
        let data = change.encode();
        self.check_proposal(data.len())?;
        let raft = &self.node.raft;
        // Trap: raft-rs takes it all the same, as an empty entry, and the proposer waits for ever.
        if raft.has_pending_conf() {
            return Err(ProposeError::Dropped(DropReason::ConfChangePending));
        }
        let removes_self = change.changes.contains(&Change::Remove(self.config.id));
        if removes_self && self.transfer_target(|_| true).is_some() {
            return Err(ProposeError::Dropped(DropReason::RemovesLeader));
        }
        let raft_change = change.to_raft();
        let mut changer = Changer::new(raft.prs());
        let checked = match change.changes.len() {
            0 => changer.leave_joint(),
            1 => changer.simple(&raft_change.changes),
            _ => changer.enter_joint(true, &raft_change.changes),
        };
        checked.map_err(|error| ProposeError::InvalidChange(error.to_string()))?;

        let entry_type = EntryType::EntryConfChangeV2;
        let entry = Entry {
            entry_type,
            data,
            ..Entry::default()
        };
        self.step_proposals(vec![entry]);
        Ok(())
    }

    fn check_proposal(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.is_stopped() {
            return Err(ProposeError::Stopped);
        }
        let raft = &self.node.raft;
        if self.leading.is_none() {
            return Err(match raft.leader_id {
                0 => ProposeError::NoLeader,
                leader => ProposeError::NotLeader { leader },
            });
        }
        if bytes > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { bytes });
        }
        if raft.lead_transferee.is_some() {
            return Err(ProposeError::Dropped(DropReason::LeaderTransfer));
        }
        // raft-rs's own rule, which must never fail later: one entry of any size, otherwise as much
        // as the limit allows.
        let uncommitted = raft.uncommitted_size() + self.proposals_bytes;
        let allowed = usize::try_from(self.config.max_uncommitted_size).unwrap_or(usize::MAX);
        if uncommitted > 0 && uncommitted.saturating_add(bytes) > allowed {
            return Err(ProposeError::Dropped(DropReason::Uncommitted {
                bytes: uncommitted,
            }));
        }
        Ok(())
    }

    /// Gives raft the proposals that came since the last input of another kind, in one step: each
    /// step sends messages to all followers.
    pub(super) fn flush(&mut self) {
        if !self.proposals.is_empty() {
            self.proposals_bytes = 0;
            let entries = std::mem::take(&mut self.proposals);
            self.step_proposals(entries);
        }
    }

    fn step_proposals(&mut self, entries: Vec<Entry>) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id;
        message.set_entries(entries.into());
        let stepped = self.node.step(message);
        stepped.expect("all for which raft-rs drops proposals was checked, nothing happened since");
        self.after_input();
    }
}
