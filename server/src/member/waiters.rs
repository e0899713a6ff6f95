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
    /// What was sent to the leader, in case it says that it did not take it.
    forwarded: Option<Proposal>,
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
        let forwarded = None;
        let waiting = Waiting { waiter, forwarded };
        let twice = self.by_id.insert(id, waiting);
        assert!(twice.is_none(), "request {id} is proposed twice");
        self.deadlines.push_back((deadline, id));
    }

    /// Takes the waiter of a request, if it still waits here.
    pub(super) fn take(&mut self, id: RequestId) -> Option<T> {
        self.by_id.remove(&id).map(|waiting| waiting.waiter)
    }

    /// Keeps a proposal that goes to the leader, for as long as somebody waits for it.
    pub(super) fn forwarded(&mut self, proposal: Proposal) {
        if let Some(waiting) = self.by_id.get_mut(&proposal.id) {
            waiting.forwarded = Some(proposal);
        }
    }

    /// Takes a proposal back that the leader has refused.
    pub(super) fn refused(&mut self, id: RequestId) -> Option<Proposal> {
        self.by_id.get_mut(&id)?.forwarded.take()
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
    use super::*;

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
