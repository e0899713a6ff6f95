//! Who waits for the result of a proposal.

use std::collections::{HashMap, VecDeque};

use ferrite_api::types::RequestId;

use super::proposals::Proposal;

/// Waiters by request id, oldest first for their deadlines. `T` is whatever the shell uses to reach
/// the waiting client.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    by_id: HashMap<RequestId, Waiting<T>>,
    /// Deadlines in order of arrival, which is their order: all wait equally long.
    deadlines: VecDeque<(u64, RequestId)>,
}

#[derive(Debug)]
struct Waiting<T> {
    waiter: T,
    /// The proposal, once it left for the log of a term.
    sent: Option<Sent>,
}

/// A proposal that entered the log in this term, or never does.
#[derive(Debug)]
struct Sent {
    term: u64,
    proposal: Proposal,
}

/// A waiter whose time is up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired<T> {
    pub(super) id: RequestId,
    /// The tick at which its time was up.
    pub(super) deadline: u64,
    pub(super) waiter: T,
}

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        Self {
            by_id: HashMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Registers a waiter until `deadline` (a tick).
    pub(super) fn add(&mut self, id: RequestId, deadline: u64, waiter: T) {
        debug_assert!(
            self.deadlines
                .back()
                .is_none_or(|(last, _)| *last <= deadline)
        );
        let waiting = Waiting { waiter, sent: None };
        let twice = self.by_id.insert(id, waiting);
        assert!(twice.is_none(), "request {id} is proposed twice");
        self.deadlines.push_back((deadline, id));
    }

    /// Takes the waiter of a request, if it still waits here.
    pub(super) fn take(&mut self, id: RequestId) -> Option<T> {
        self.by_id.remove(&id).map(|waiting| waiting.waiter)
    }

    /// Keeps a proposal that goes to the log of a term, for as long as somebody waits for it.
    pub(super) fn sent(&mut self, term: u64, proposal: Proposal) {
        if let Some(waiting) = self.by_id.get_mut(&proposal.id) {
            waiting.sent = Some(Sent { term, proposal });
        }
    }

    /// Takes a proposal back that the leader of this term has refused. It may be on its way to another
    /// one by now: then the refusal means nothing.
    pub(super) fn refused(&mut self, id: RequestId, term: u64) -> Option<Proposal> {
        let waiting = self.by_id.get_mut(&id)?;
        let sent = waiting.sent.take_if(|sent| sent.term == term);
        sent.map(|sent| sent.proposal)
    }

    /// Takes back the proposals of terms before this one, oldest first. An entry of `term` has been
    /// applied, so no older one can be: what was proposed earlier and has no result is not in the log.
    pub(super) fn lost(&mut self, term: u64) -> Vec<Proposal> {
        let mut lost = Vec::new();
        for (_, id) in &self.deadlines {
            if let Some(waiting) = self.by_id.get_mut(id)
                && let Some(sent) = waiting.sent.take_if(|sent| sent.term < term)
            {
                lost.push(sent.proposal);
            }
        }
        lost
    }

    /// Forgets all proposals: a snapshot may hold their effects, so their outcome is not known.
    pub(super) fn forget(&mut self) {
        for (_, id) in &self.deadlines {
            if let Some(waiting) = self.by_id.get_mut(id) {
                waiting.sent = None;
            }
        }
    }

    /// Takes a waiter whose deadline is at or before `now`.
    pub(super) fn expired(&mut self, now: u64) -> Option<Expired<T>> {
        while self
            .deadlines
            .front()
            .is_some_and(|(deadline, id)| *deadline <= now || !self.by_id.contains_key(id))
        {
            let (deadline, id) = self.deadlines.pop_front()?;
            if let Some(waiter) = self.take(id) {
                return Some(Expired {
                    id,
                    deadline,
                    waiter,
                });
            }
        }
        None
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Takes all waiters, oldest first.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let ids: Vec<_> = self.deadlines.drain(..).collect();
        ids.into_iter()
            .filter_map(|(_, id)| self.take(id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::proposals::Origin;
    use super::*;

    #[test]
    fn proposals_of_older_terms_come_back_once_and_in_order() {
        let mut waiters = Waiters::new();
        for id in 1..=4 {
            waiters.add(RequestId::new(id), 10, id);
        }
        for (id, term) in [(3, 5), (1, 5), (2, 6)] {
            let proposal = Proposal {
                id: RequestId::new(id),
                changes_members: false,
                payload: Bytes::new(),
                origin: Origin::Here,
            };
            waiters.sent(term, proposal);
        }
        let ids = |lost: Vec<Proposal>| -> Vec<u64> {
            lost.iter().map(|proposal| proposal.id.get()).collect()
        };
        assert_eq!(waiters.refused(RequestId::new(2), 5), None);
        assert_eq!(ids(waiters.lost(5)), [0; 0]);
        assert_eq!(ids(waiters.lost(6)), [1, 3]);
        assert_eq!(ids(waiters.lost(6)), [0; 0]);
        waiters.forget();
        assert_eq!((ids(waiters.lost(9)), waiters.len()), (vec![], 4));
    }

    #[test]
    fn waiters_expire_in_order_and_only_once() {
        let mut waiters = Waiters::new();
        for id in 1..=3 {
            waiters.add(RequestId::new(id), 10 + id, id);
        }
        assert_eq!(waiters.take(RequestId::new(1)), Some(1));
        assert_eq!(waiters.take(RequestId::new(1)), None);
        assert_eq!(waiters.expired(11), None);
        let expired = waiters.expired(12).unwrap();
        assert_eq!(
            (expired.id.get(), expired.deadline, expired.waiter),
            (2, 12, 2)
        );
        assert_eq!(waiters.expired(12), None);
        assert_eq!((waiters.len(), waiters.drain()), (1, vec![3]));
    }
}
