//! Who waits for the result of a proposal.

use std::collections::{HashMap, VecDeque};

use ferrite_api::types::RequestId;

/// Waiters by request id, oldest first for their deadlines. `T` is whatever the shell uses to reach
/// the waiting client.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    by_id: HashMap<RequestId, T>,
    /// Deadlines in order of arrival, which is their order: all wait equally long.
    deadlines: VecDeque<(u64, RequestId)>,
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
        let twice = self.by_id.insert(id, waiter);
        assert!(twice.is_none(), "request {id} is proposed twice");
        self.deadlines.push_back((deadline, id));
    }

    /// Takes the waiter of a request, if it still waits here.
    pub(super) fn take(&mut self, id: RequestId) -> Option<T> {
        self.by_id.remove(&id)
    }

    /// Takes a waiter whose deadline is at or before `now`.
    pub(super) fn expired(&mut self, now: u64) -> Option<(RequestId, T)> {
        while self
            .deadlines
            .front()
            .is_some_and(|(deadline, id)| *deadline <= now || !self.by_id.contains_key(id))
        {
            let (_, id) = self.deadlines.pop_front()?;
            if let Some(waiter) = self.by_id.remove(&id) {
                return Some((id, waiter));
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
            .filter_map(|(_, id)| self.by_id.remove(&id))
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
        assert_eq!(waiters.expired(12), Some((RequestId::new(2), 2)));
        assert_eq!(waiters.expired(12), None);
        assert_eq!((waiters.len(), waiters.drain()), (1, vec![3]));
    }
}
