//! Appends that were handed out and are not durable yet.

use std::collections::VecDeque;

use crate::effects::{Outgoing, Ticket};

/// An append under way, and what waits for it.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    /// How many records it has.
    pub(crate) records: usize,
    /// Which of them holds the entry `first`; the others follow.
    pub(crate) first_record: usize,
    pub(crate) first: u64,
    /// The last entry of this append that is still part of the log; below `first` if none is.
    pub(crate) last: u64,
    /// Whether it had entries when it was handed out, or restarts the log.
    pub(crate) has_entries: bool,
    /// The snapshot at which it restarts the log.
    pub(crate) restart: Option<Restart>,
    /// Whether it changes term or vote.
    pub(crate) promises: bool,
    /// From which segment on the log is needed once the truncation mark in this append is in the
    /// WAL; 0 without one.
    pub(crate) needed_from: u64,
    /// Number of the last raft-rs `Ready` that is persisted once this append is.
    pub(crate) ready: u64,
    /// To be sent then.
    pub(crate) messages: Vec<Outgoing>,
}

impl Pending {
    /// One without entries.
    pub(crate) fn new(ticket: Ticket, records: usize, ready: u64) -> Pending {
        Pending {
            ticket,
            records,
            first_record: 0,
            first: 1,
            last: 0,
            has_entries: false,
            restart: None,
            promises: false,
            needed_from: 0,
            ready,
            messages: Vec::new(),
        }
    }
}

/// The log begins anew after a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// Which record of the append says so.
    pub(crate) record: usize,
    /// Index of the snapshot.
    pub(crate) index: u64,
}

/// The appends under way, in the order in which they were handed out.
///
/// Invariant: entries up to `durable` are durable on this member and part of its log. raft-rs keeps
/// such a number too (`RaftLog::persisted`), and hands out nothing for applying above it; this one
/// is counted independently, so that the rule is asserted and not only believed.
#[derive(Debug)]
pub(crate) struct Appends {
    queue: VecDeque<Pending>,
    next_ticket: u64,
    durable: u64,
}

impl Appends {
    /// A recovered log is durable up to its last entry.
    pub(crate) fn new(durable: u64) -> Appends {
        Appends {
            queue: VecDeque::new(),
            next_ticket: 1,
            durable,
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn next_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Whether entries are on their way to the disk.
    pub(crate) fn has_entries(&self) -> bool {
        self.queue.iter().any(|pending| pending.has_entries)
    }

    /// Whether a term or a vote is on its way to the disk.
    pub(crate) fn has_promises(&self) -> bool {
        self.queue.iter().any(|pending| pending.promises)
    }

    /// Entries from `index` on are about to be replaced: what is under way for them will not count.
    pub(crate) fn replaced_from(&mut self, index: u64) {
        self.durable = self.durable.min(index - 1);
        for pending in &mut self.queue {
            pending.last = pending.last.min(index - 1);
        }
    }

    /// All entries are about to be dropped for a snapshot, which has the effect of those up to
    /// `applied`, among others: what is under way for any of them will not count.
    pub(crate) fn restarted(&mut self, applied: u64) {
        self.durable = self.durable.min(applied);
        for pending in &mut self.queue {
            pending.last = 0;
        }
    }

    pub(crate) fn push(&mut self, pending: Pending) {
        self.queue.push_back(pending);
    }

    /// The last one handed out.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Pending> {
        self.queue.back_mut()
    }

    /// The append of this ticket is durable, and so it is no longer under way.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Pending {
        let pending = self.queue.pop_front();
        let expected = pending.as_ref().map(|pending| pending.ticket);
        let pending = pending.filter(|pending| pending.ticket == ticket);
        let pending = pending.unwrap_or_else(|| {
            panic!("append {ticket:?} reported as durable, the oldest under way is {expected:?}")
        });
        if pending.first <= pending.last {
            self.durable = self.durable.max(pending.last);
        }
        if let Some(restart) = pending.restart {
            self.durable = restart.index;
        }
        pending
    }
}
