//! Snapshots: offered by a leader, installed by a follower. See the [module](super).

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, SnapshotStatus};

use super::Driver;
use crate::appends::{Pending, Restart};
use crate::effects::{Append, Effects, Outgoing};
use crate::error::StepError;
use crate::log::{HardState, RaftLog};
use crate::snapshot::Snapshot;
use crate::wire;

/// A snapshot that raft has accepted and the owner has not put in place yet.
#[derive(Debug)]
pub(super) struct Installing {
    snapshot: Snapshot,
    stage: Stage,
    /// Number of the last raft-rs `Ready` that is persisted. raft-rs is told at the end: then what
    /// was committed meanwhile is handed out, and not earlier.
    persisted: u64,
}

#[derive(Debug)]
enum Stage {
    /// The append that restarts the log is to be handed out.
    Write(Append),
    /// It was, and is not durable yet.
    Writing,
    /// It is durable, which the owner has not been told.
    Durable,
    /// The owner was told to put the snapshot in the place of its state.
    Swapping,
}

impl Driver {
    /// Gives the follower `to` a snapshot of the state, all of whose entries up to
    /// `snapshot.index` are applied here. True: it comes out in
    /// [`Effects::snapshots`](crate::Effects::snapshots). False: raft has no use for it now, be it
    /// that this member does not lead, that the follower is gone, or that the log has moved on
    /// beyond the snapshot; it can be offered again if the follower is named in
    /// [`Effects::snapshots_wanted`](crate::Effects::snapshots_wanted) again. The driver keeps no
    /// offer.
    ///
    /// # Panics
    /// If the snapshot is not one of this log: beyond what was applied, or of another term.
    pub fn offer_snapshot(&mut self, to: u64, snapshot: Snapshot) -> bool {
        if self.is_stopped() {
            return false;
        }
        self.flush();
        let raft = &self.node.raft;
        let log = self.node.store();
        if self.leading.is_none() || to == self.config.id || raft.prs().get(to).is_none() {
            return false;
        }
        // A follower ignores a snapshot in which it does not occur.
        if snapshot.index < log.mark().index || !snapshot.conf_state.contains(to) {
            return false;
        }
        let (applied, term) = (raft.raft_log.applied, log.term_of(snapshot.index));
        assert!(
            snapshot.index <= applied && term == Some(snapshot.term),
            "{snapshot:?} of a log that is applied up to {applied} and has term {term:?} there"
        );
        if snapshot.index == 0 {
            return false;
        }
        self.node.mut_store().offer(to, snapshot);
        // What raft does when the follower answers to a heartbeat: it asks for entries, and then
        // for a snapshot.
        self.node.raft.send_append(to);
        let taken = self.node.mut_store().end_offer();
        self.after_input();
        taken
    }

    /// What became of a snapshot that came out in
    /// [`Effects::snapshots`](crate::Effects::snapshots): whether the follower has taken it. Raft
    /// sends the follower nothing until it has acknowledged the snapshot or this is called; after a
    /// failure it wants a new one.
    pub fn report_snapshot(&mut self, to: u64, taken: bool) {
        if self.is_stopped() {
            return;
        }
        self.flush();
        let status = match taken {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.node.report_snapshot(to, status);
        self.after_input();
    }

    /// The least index of a snapshot that is on its way to a follower: entries after it are needed
    /// as soon as it arrives. [`Driver::compact`] drops none of them. It ends when the follower has
    /// acknowledged the snapshot, with [`Driver::report_snapshot`], when the follower is removed,
    /// and with the leadership.
    pub fn snapshot_floor(&self) -> Option<u64> {
        self.leading?;
        let progress = self.node.raft.prs().iter();
        let under_way = progress.filter(|(_, progress)| progress.state == ProgressState::Snapshot);
        under_way
            .map(|(_, progress)| progress.pending_snapshot)
            .min()
    }

    /// Looks at the message that came with a snapshot, before its content is received.
    ///
    /// # Errors
    /// The message cannot be taken, see [`StepError`].
    pub fn check_snapshot(&self, message: &Bytes) -> Result<Snapshot, StepError> {
        if self.is_stopped() {
            return Err(StepError::Stopped);
        }
        let message = wire::decode(message, self.config.id)?;
        self.snapshot_in(&message)
    }

    /// Whether the snapshot would bring this member forward. Otherwise its content need not be
    /// received; the message is for [`Driver::install_snapshot`] all the same, which tells the
    /// leader.
    pub fn needs_snapshot(&self, snapshot: &Snapshot) -> bool {
        let log = &self.node.raft.raft_log;
        snapshot.index > log.committed && !log.match_term(snapshot.index, snapshot.term)
    }

    /// Takes the message that came with a snapshot, whose content has been received, verified, and
    /// made durable beside the state. True: the log restarts at the snapshot, and the content is to
    /// take the place of the state when [`Effects::install`](crate::Effects::install) says so. A
    /// crash in between leaves a log that begins after the state ([`Error::LogBehindCheckpoint`]):
    /// whoever starts puts the content in place first. False: this member needs no snapshot, or
    /// the message is an old one; the content can be dropped.
    ///
    /// # Errors
    /// The message was not taken, see [`StepError`].
    ///
    /// # Panics
    /// If entries that were handed out have not been reported as applied.
    ///
    /// [`Error::LogBehindCheckpoint`]: crate::Error::LogBehindCheckpoint
    pub fn install_snapshot(&mut self, message: &Bytes) -> Result<bool, StepError> {
        if self.is_stopped() {
            return Err(StepError::Stopped);
        }
        self.flush();
        let mut message = wire::decode(message, self.config.id)?;
        let snapshot = self.snapshot_in(&message)?;
        if let Some(earlier) = &self.installing {
            let index = earlier.snapshot.index;
            return Err(StepError::SnapshotUnderWay { index });
        }
        // Trap: raft-rs changes its configuration at once; changes in older entries must not come
        // after that.
        let applied = self.node.raft.raft_log.applied;
        assert!(
            applied == self.handed_out,
            "snapshot taken when entries up to {} were handed out, {applied} applied",
            self.handed_out
        );
        // In its plain form: raft-rs compares it with what it makes of it.
        message.set_snapshot(snapshot.to_raft());
        self.step_checked(message)?;
        let accepted = self.node.snap().is_some();
        if accepted {
            self.begin_install(snapshot);
        }
        Ok(accepted)
    }

    /// The snapshot of [`Effects::install`](crate::Effects::install) has taken the place of the
    /// state, durably: everything up to `index` counts as applied, and its configuration is this
    /// member's.
    ///
    /// # Panics
    /// If no such snapshot is to be installed.
    pub fn installed(&mut self, index: u64) {
        let installing = self.installing.take().filter(|installing| {
            matches!(installing.stage, Stage::Swapping) && installing.snapshot.index == index
        });
        let installing = installing
            .unwrap_or_else(|| panic!("no snapshot at index {index} was to be installed"));
        self.handed_out = index;
        self.conf = installing.snapshot.conf_state;
        if !self.is_stopped() {
            self.flush();
            self.node.on_persist_ready(installing.persisted);
            self.node.advance_apply_to(index);
            self.after_input();
        }
    }

    /// The snapshot in a message, if it is one that can be taken.
    fn snapshot_in(&self, message: &Message) -> Result<Snapshot, StepError> {
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return Err(StepError::Kind(wire::kind(message)));
        }
        let snapshot = Snapshot::from_raft(message.get_snapshot());
        snapshot
            .check(self.config.id, message.term)
            .map_err(StepError::Malformed)?;
        // Trap: raft-rs would replace the committed entry.
        let log = &self.node.raft.raft_log;
        let (commit, commit_term) = log.commit_info();
        let conflict = match snapshot.index.cmp(&commit) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => snapshot.term != commit_term,
            std::cmp::Ordering::Greater => snapshot.term < commit_term,
        };
        if conflict {
            return Err(StepError::SnapshotConflict {
                from: message.from,
                index: snapshot.index,
                term: snapshot.term,
                commit,
                commit_term,
            });
        }
        Ok(snapshot)
    }

    /// Raft has accepted the snapshot. Its `Ready` is taken at once, so that nothing else is in it.
    fn begin_install(&mut self, snapshot: Snapshot) {
        let mut ready = self.node.ready();
        assert!(
            ready.must_sync() && ready.entries().is_empty() && ready.committed_entries().is_empty(),
            "a snapshot and something else in {ready:?}"
        );
        let messages = ready.take_persisted_messages();
        let append = self.restart_log(&snapshot, ready.number(), messages);
        self.node.advance_append_async(ready);
        self.installing = Some(Installing {
            snapshot,
            stage: Stage::Write(append),
            persisted: 0,
        });
    }

    /// Restarts the log at the snapshot, and makes the append that says so. The messages are sent
    /// when it is durable.
    fn restart_log(&mut self, snapshot: &Snapshot, ready: u64, messages: Vec<Message>) -> Append {
        let (head, state, mark) = (self.head, self.raft_state(), snapshot.mark());
        let commit = head.hard_state.commit;
        let promises = head.hard_state.promises_differ(&state);
        // The order is that of `log/record.rs`.
        let mut records = Vec::with_capacity(3);
        if promises {
            records.push(RaftLog::hard_state_record(&HardState { commit, ..state }));
        }
        let restart = Restart {
            record: records.len(),
            index: mark.index,
        };
        records.push(RaftLog::snapshot_record(&mark));
        records.push(RaftLog::hard_state_record(&state));
        (self.head.hard_state, self.head.mark) = (state, mark);
        // Entries that an older mark drops are gone as well.
        self.mark = None;
        self.node.mut_store().restart(mark);
        self.appends.restarted(self.handed_out);
        let ticket = self.appends.next_ticket();
        self.appends.push(Pending {
            has_entries: true,
            restart: Some(restart),
            promises,
            messages: messages.iter().map(Outgoing::of).collect(),
            ..Pending::new(ticket, records.len(), ready)
        });
        Append {
            ticket,
            records,
            must_sync: true,
            promise: promises.then_some((state.term, state.vote)),
            head,
        }
    }

    /// Whether a snapshot keeps everything else of raft back: its append comes alone.
    pub(super) fn restarts(&self) -> bool {
        self.installing
            .as_ref()
            .is_some_and(|installing| matches!(installing.stage, Stage::Write(_) | Stage::Writing))
    }

    /// Whether [`Driver::install_effects`] would give anything.
    pub(super) fn has_install_effects(&self) -> bool {
        self.installing
            .as_ref()
            .is_some_and(|installing| matches!(installing.stage, Stage::Write(_) | Stage::Durable))
    }

    /// The next step of the installation.
    pub(super) fn install_effects(&mut self, effects: &mut Effects) {
        let Some(installing) = &mut self.installing else {
            return;
        };
        installing.stage = match std::mem::replace(&mut installing.stage, Stage::Writing) {
            Stage::Write(append) => {
                effects.append = Some(append);
                Stage::Writing
            }
            Stage::Durable => {
                effects.install = Some(installing.snapshot.clone());
                Stage::Swapping
            }
            stage => stage,
        };
    }

    /// The restart of the log is durable.
    pub(super) fn restarted(&mut self) {
        if let Some(installing) = &mut self.installing {
            installing.stage = Stage::Durable;
        }
    }

    /// Tells raft-rs that what it had ready is persisted: now, or when the snapshot is in place.
    pub(super) fn ready_persisted(&mut self, number: u64) {
        match &mut self.installing {
            Some(installing) => installing.persisted = installing.persisted.max(number),
            None => self.node.on_persist_ready(number),
        }
    }
}
