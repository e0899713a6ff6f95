//! Carrying out what raft-rs has ready, and keeping the order of things. See the [module](super).

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Ready, StateRole};

use super::Driver;
use crate::appends::Pending;
use crate::conf::ConfChange;
use crate::effects::{Append, Committed, Effects, EntryKind, Outgoing};
use crate::log::{HardState, RaftLog};

impl Driver {
    /// Carries a `Ready` of raft-rs out, as far as the driver can, and acknowledges it.
    pub(super) fn carry_out(&mut self, mut ready: Ready, effects: &mut Effects) {
        assert!(
            ready.snapshot().is_empty(),
            "a snapshot's is taken when raft accepts it"
        );
        let leads = self.node.raft.state == StateRole::Leader;
        let messages = match leads {
            true => ready.take_messages(),
            false => ready.take_persisted_messages(),
        };
        let entries = ready.take_entries();
        let promises = self.head.hard_state.promises_differ(&self.raft_state());
        let must_sync = promises || !entries.is_empty();
        assert!(must_sync == ready.must_sync(), "must_sync of {ready:?}");
        self.hand_out(ready.take_committed_entries(), effects);
        let number = ready.number();
        if must_sync || self.mark.is_some() || self.commits_change() {
            effects.append = self.append(entries, self.raft_state(), number);
        } else if let Some(last) = self.appends.last_mut() {
            last.ready = number;
        }
        self.node.advance_append_async(ready);
        if self.appends.is_empty() {
            self.ready_persisted(number);
        }
        self.post(messages, leads, effects);
    }

    /// Whether this member, as leader, knows that a change of the configuration is committed, and the
    /// WAL does not: see rule 7. (Also when raft cannot tell whether there is one among the entries
    /// of earlier terms.)
    fn commits_change(&self) -> bool {
        let raft = &self.node.raft;
        let noted = self.head.hard_state.commit;
        let change = raft.pending_conf_index;
        raft.state == StateRole::Leader && noted < change && change <= raft.raft_log.committed
    }

    /// Sends the messages, or keeps them until what they promise is durable.
    fn post(&mut self, messages: Vec<Message>, leads: bool, effects: &mut Effects) {
        let promises = self.appends.has_promises();
        for mut message in messages {
            self.stamp(&mut message);
            let early = leads && !promises && is_leaders(&message);
            let outgoing = Outgoing::of(&message);
            match self.appends.last_mut() {
                Some(pending) if !early => pending.messages.push(outgoing),
                _ => outgoing.hand_out(effects),
            }
        }
    }

    /// Makes the next append, of these entries and of all else that is not in the WAL yet.
    pub(super) fn append(
        &mut self,
        entries: Vec<Entry>,
        state: HardState,
        ready: u64,
    ) -> Option<Append> {
        let head = self.head;
        let commits_change = self.commits_change();
        let promises = head.hard_state.promises_differ(&state);
        let mut records = Vec::with_capacity(entries.len() + 3);
        if promises && !entries.is_empty() {
            // The order is that of `log/record.rs`: every prefix of it is a log that raft can start
            // from.
            let first = HardState {
                commit: head.hard_state.commit,
                ..state
            };
            records.push(RaftLog::hard_state_record(&first));
        }
        let first_record = records.len();
        RaftLog::entry_records(&entries, &mut records);
        if state.commit != head.hard_state.commit || (promises && entries.is_empty()) {
            records.push(RaftLog::hard_state_record(&state));
        }
        self.head.hard_state = state;
        let mut needed_from = 0;
        if let Some((mark, segment)) = self.mark.take() {
            records.push(RaftLog::truncated_record(&mark));
            self.head.mark = mark;
            needed_from = segment;
        }
        let range = entries
            .first()
            .zip(entries.last())
            .map(|(first, last)| (first.index, last.index));
        let (first, last) = range.unwrap_or((1, 0));
        if range.is_some() {
            self.appends.replaced_from(first);
        }
        let ticket = self.appends.next_ticket();
        self.appends.push(Pending {
            first_record,
            first,
            last,
            has_entries: range.is_some(),
            promises: promises || commits_change,
            needed_from,
            ..Pending::new(ticket, records.len(), ready)
        });
        let must_sync = promises || commits_change || range.is_some();
        self.node.mut_store().append(entries);
        Some(Append {
            ticket,
            records,
            must_sync,
            promise: promises.then_some((state.term, state.vote)),
            head,
        })
    }

    /// Hands committed entries out for applying.
    fn hand_out(&mut self, entries: Vec<Entry>, effects: &mut Effects) {
        effects.committed.reserve(entries.len());
        for entry in entries {
            assert!(
                entry.index == self.handed_out + 1 && entry.index <= self.appends.durable(),
                "entry {} handed out after {}, durable {}",
                entry.index,
                self.handed_out,
                self.appends.durable()
            );
            self.handed_out = entry.index;
            let (kind, data) = match entry.entry_type {
                EntryType::EntryNormal => (EntryKind::Normal, entry.data),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let change = ConfChange::decode(&entry);
                    let change =
                        change.expect("decoded when it was proposed, received or recovered");
                    (EntryKind::ConfChange(change), Bytes::new())
                }
            };
            effects.committed.push(Committed {
                index: entry.index,
                term: entry.term,
                kind,
                data,
            });
        }
    }
}

/// Whether only a leader sends it, and it promises nothing but the term.
fn is_leaders(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgTimeoutNow
    )
}
