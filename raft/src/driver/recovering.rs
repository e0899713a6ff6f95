//! Members whose log has lost entries, and leaders that still count on them. See the
//! [module](super).

use raft::ProgressState;
use raft::eraftpb::{Message, MessageType};

use super::Driver;
use crate::log::MAX_NUMBER;

/// What a member does not know as long as it is recovering.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Names this start to leaders, which give it back. Never 0.
    number: u64,
    /// A leader that no longer counts on what was lost: its term, and its commit index since.
    leader: Option<(u64, u64)>,
}

impl Recovery {
    pub(super) fn new(seed: u64) -> Recovery {
        Recovery {
            number: (seed & MAX_NUMBER).max(1),
            leader: None,
        }
    }
}

impl Driver {
    /// What a recovering member makes of a message. False: it is ignored.
    pub(super) fn filter_recovering(&mut self, message: &mut Message) -> bool {
        let Some(recovery) = &mut self.recovery else {
            return true;
        };
        let raft = &self.node.raft;
        match message.get_msg_type() {
            MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
            | MessageType::MsgTimeoutNow => return false,
            MessageType::MsgHeartbeat => {
                let stamped = message.request_snapshot == recovery.number;
                let known = recovery
                    .leader
                    .is_some_and(|(term, _)| term == message.term);
                if stamped && !known && message.term >= raft.term {
                    recovery.leader = Some((message.term, message.index));
                }
                // What the leader takes for acknowledged may be what was lost. Not even the entries
                // below the end of the log need be the acknowledged ones.
                if !stamped || message.commit > raft.raft_log.last_index() {
                    message.commit = 0;
                }
            }
            _ => {}
        }
        true
    }

    /// Whether the sender of this message has to be told that entries were lost.
    pub(super) fn must_report_loss(&self, message: &Message) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.is_some_and(|recovery| {
            is_heartbeat(message)
                && message.term >= self.node.raft.term
                && message.request_snapshot != recovery.number
        })
    }

    /// Tells the leader where the log ends, and that it has been longer.
    pub(super) fn report_loss(&mut self, leader: u64) {
        let Some(Recovery { number, .. }) = self.recovery else {
            return;
        };
        let raft = &mut self.node.raft;
        let last = raft.raft_log.last_index();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppendResponse);
        (message.from, message.to, message.term) = (raft.id, leader, raft.term);
        (message.reject, message.index) = (true, last);
        (message.reject_hint, message.log_term) = (last, raft.raft_log.last_term());
        message.commit = raft.raft_log.committed;
        message.request_snapshot = number;
        raft.msgs.push(message);
    }

    /// What a leader makes of a member that has lost entries: it forgets what that member has ever
    /// acknowledged, and finds out anew. False: it has done so before.
    pub(super) fn handle_loss(&mut self, message: &mut Message) -> bool {
        if message.get_msg_type() != MessageType::MsgAppendResponse {
            return true;
        }
        let number = std::mem::take(&mut message.request_snapshot);
        let raft = &mut self.node.raft;
        let to_me = self.leading == Some(message.term) && message.reject && number != 0;
        let last = raft.raft_log.last_index();
        let Some(progress) = raft.mut_prs().get_mut(message.from).filter(|_| to_me) else {
            return true;
        };
        if self.lost_entries.insert(message.from, number) == Some(number) {
            return false;
        }
        progress.matched = 0;
        if progress.state != ProgressState::Snapshot {
            // As if it had just rejected a probe at its end.
            progress.become_probe();
            message.index = last.min(message.reject_hint + 1);
            progress.next_idx = message.index + 1;
        }
        // Heartbeats that were made before commit what was lost.
        let from = message.from;
        raft.msgs
            .retain(|queued| queued.to != from || !is_heartbeat(queued));
        true
    }

    /// In a heartbeat for a member that has lost entries: that the leader knows it, and how far it
    /// has committed, which may be more than that member has.
    pub(super) fn stamp(&self, message: &mut Message) {
        let number = self.lost_entries.get(&message.to);
        if let Some(number) = number.filter(|_| is_heartbeat(message)) {
            message.request_snapshot = *number;
            message.index = self.node.raft.raft_log.committed;
        }
    }

    /// Ends the recovery when nothing that anybody counted on is missing.
    pub(super) fn check_recovered(&mut self) {
        let Some(Recovery {
            leader: Some((term, commit)),
            ..
        }) = self.recovery
        else {
            return;
        };
        let raft = &self.node.raft;
        let caught_up = raft.term == term && raft.raft_log.applied >= commit;
        // What earlier leaders committed lies before the first entry of this one.
        if caught_up && self.installing.is_none() && raft.apply_to_current_term() {
            self.recovery = None;
            self.recovered = true;
        }
    }
}

fn is_heartbeat(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeat
}
