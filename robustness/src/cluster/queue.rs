//! What happens when: events in the order of virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

/// Virtual time since the run began.
pub type Time = Duration;

/// Events to come. Those of the same time come in the order in which they were put in.
#[derive(Debug)]
pub(super) struct Queue<E> {
    events: BTreeMap<(Time, u64), E>,
    next: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self {
            events: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn at(&mut self, time: Time, event: E) {
        self.events.insert((time, self.next), event);
        self.next += 1;
    }

    /// Takes the next event, unless it is later than `until`.
    pub(super) fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        let first = self.events.first_entry()?;
        let (time, _) = *first.key();
        (time <= until).then(|| (time, first.remove()))
    }
}
