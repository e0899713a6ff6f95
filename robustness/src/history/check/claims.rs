//! Who has made a change: a client that was told so, or one that never got an answer.

use std::collections::BTreeMap;

use anyhow::bail;
use bytes::Bytes;

use crate::history::{Action, Change, Event, Operation, Pair};

/// The writes of a history, by the places in the log that they may have.
#[derive(Default)]
pub(super) struct Claims<'a> {
    /// By the revision that the client was told.
    acknowledged: BTreeMap<i64, &'a Operation>,
    /// Writes without an answer; taken out when they are found in the log.
    supposed: Vec<Option<&'a Operation>>,
    /// Which of these would make a change.
    by_change: BTreeMap<(&'a Bytes, Change), Vec<usize>>,
}

impl<'a> Claims<'a> {
    /// A write whose client was told its revision.
    pub(super) fn acknowledge(
        &mut self,
        revision: i64,
        operation: &'a Operation,
    ) -> anyhow::Result<()> {
        if let Some(other) = self.acknowledged.insert(revision, operation) {
            bail!("two writes at revision {revision}: {other:?} and {operation:?}");
        }
        Ok(())
    }

    /// A write without an answer. Anything else without one says nothing.
    pub(super) fn suppose(&mut self, operation: &'a Operation) {
        let at = self.supposed.len();
        let mut add = |key, change| self.by_change.entry((key, change)).or_default().push(at);
        match &operation.action {
            Action::Swap { key, change, .. } => add(key, *change),
            Action::Write { changes } => {
                changes.iter().for_each(|(key, change)| add(key, *change));
            }
            _ => return,
        }
        self.supposed.push(Some(operation));
    }

    /// Takes the write whose client was told this revision.
    pub(super) fn acknowledged(&mut self, revision: i64) -> Option<&'a Operation> {
        self.acknowledged.remove(&revision)
    }

    /// Takes a write without an answer that makes exactly these changes of `state`.
    pub(super) fn supposed(
        &mut self,
        events: &'a [Event],
        state: &BTreeMap<Bytes, Pair>,
    ) -> Option<&'a Operation> {
        let first = &events[0];
        let candidates = self.by_change.get(&(&first.key, change_of(first)))?;
        let found = candidates.iter().find(|at| {
            self.supposed[**at].is_some_and(|operation| {
                operation.called <= first.received && made(operation, events, state)
            })
        })?;
        self.supposed[*found].take()
    }

    /// A write that was acknowledged and not taken.
    pub(super) fn first_acknowledged(&self) -> Option<(i64, &'a Operation)> {
        let first = self.acknowledged.iter().next();
        first.map(|(revision, operation)| (*revision, *operation))
    }

    /// Writes without an answer that were not taken.
    pub(super) fn lost(&self) -> usize {
        self.supposed.iter().flatten().count()
    }
}

/// Whether `operation` makes exactly these changes of `state`.
pub(super) fn made(operation: &Operation, events: &[Event], state: &BTreeMap<Bytes, Pair>) -> bool {
    match (&operation.action, events) {
        (
            Action::Swap {
                key,
                expected,
                change,
            },
            [event],
        ) => {
            let before = state.get(key).map_or(0, |pair| pair.modified);
            *key == event.key && *expected == before && *change == change_of(event)
        }
        (Action::Write { changes }, events) => {
            let effective = changes
                .iter()
                .filter(|(key, change)| *change != Change::Delete || state.contains_key(key));
            effective
                .map(|(key, change)| (key, *change))
                .eq(events.iter().map(|event| (&event.key, change_of(event))))
        }
        _ => false,
    }
}

/// What an event changes.
fn change_of(event: &Event) -> Change {
    match event.pair {
        Some(Pair { value, lease, .. }) => Change::Put { value, lease },
        None => Change::Delete,
    }
}
