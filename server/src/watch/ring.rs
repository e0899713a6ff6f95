//! The newest events, kept for the streams that are about to send them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;

/// The newest events of the whole key space, bounded in bytes, oldest dropped first.
///
/// Invariant: it holds every event with `start <= main <= end` and no other; `start <= end + 1`.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// Sum of the costs of the entries.
    bytes: usize,
    limit: usize,
    start: i64,
    end: i64,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    cost: usize,
}

/// Consecutive events out of the ring.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) events: Vec<Arc<Event>>,
    /// The last revision that is in it as a whole.
    pub(super) upto: i64,
}

impl Ring {
    /// A ring of at most `limit` bytes, which has forgotten everything up to `revision`.
    pub(super) fn new(limit: usize, revision: i64) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            limit,
            start: revision + 1,
            end: revision,
        }
    }

    /// The first revision that is here.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// The last revision that is here.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Forgets everything up to `revision`, which becomes the end.
    pub(super) fn reset(&mut self, revision: i64) {
        *self = Self::new(self.limit, revision);
    }

    /// Appends the events of the next revisions, `end + 1` to `upto`, whole.
    pub(super) fn push(&mut self, events: &[Arc<Event>], upto: i64) {
        for event in events {
            let cost = event.cost();
            self.bytes += cost;
            let event = Arc::clone(event);
            self.entries.push_back(Entry { event, cost });
        }
        self.end = upto;
        self.evict();
    }

    /// Accounts for bytes that an event has come to hold. One that was dropped from the ring is
    /// somebody else's.
    pub(super) fn charge(&mut self, event: &Event, bytes: usize) {
        let at = self.position(event.revision().main);
        let entries = self.entries.range_mut(at..);
        let entry = entries
            .take_while(|entry| entry.event.revision() <= event.revision())
            .find(|entry| entry.event.revision() == event.revision());
        if let Some(entry) = entry {
            entry.cost += bytes;
            self.bytes += bytes;
            self.evict();
        }
    }

    /// The events from `from` on, whole revisions, until one of the limits is passed.
    ///
    /// # Panics
    /// If `from` is not between the start and the end of the ring.
    pub(super) fn window(&self, from: i64, revisions: i64, bytes: usize) -> Window {
        assert!(
            (self.start..=self.end).contains(&from),
            "revision {from} is not between {} and {}",
            self.start,
            self.end
        );
        let last = self.end.min(from.saturating_add(revisions - 1));
        let (mut events, mut gathered, mut upto) = (Vec::new(), 0, from);
        for entry in self.entries.range(self.position(from)..) {
            let main = entry.event.revision().main;
            if main > last || (gathered > bytes && main > upto) {
                return Window { events, upto };
            }
            gathered += entry.cost;
            upto = main;
            events.push(Arc::clone(&entry.event));
        }
        Window { events, upto: last }
    }

    fn position(&self, main: i64) -> usize {
        self.entries
            .partition_point(|entry| entry.event.revision().main < main)
    }

    /// Drops whole revisions until the limit holds.
    fn evict(&mut self) {
        while self.bytes > self.limit
            && let Some(oldest) = self.entries.front()
        {
            let main = oldest.event.revision().main;
            while let Some(entry) = self.entries.front()
                && entry.event.revision().main == main
            {
                self.bytes -= entry.cost;
                self.entries.pop_front();
            }
            self.start = main + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferrite_api::types::Revision;

    use super::*;

    fn events(mains: std::ops::RangeInclusive<i64>, subs: i64) -> Vec<Arc<Event>> {
        mains
            .flat_map(|main| (0..subs).map(move |sub| Revision::new(main, sub)))
            .map(|revision| Arc::new(Event::deletion(revision, Bytes::from_static(b"k"))))
            .collect()
    }

    fn mains(window: &Window) -> Vec<i64> {
        window
            .events
            .iter()
            .map(|event| event.revision().main)
            .collect()
    }

    #[test]
    fn whole_revisions_come_and_go() {
        let cost = events(5..=5, 1)[0].cost();
        let mut ring = Ring::new(6 * cost, 4);
        assert_eq!((ring.start(), ring.end()), (5, 4));
        ring.push(&events(5..=7, 2), 7);
        assert_eq!((ring.start(), ring.end()), (5, 7));
        ring.push(&events(8..=8, 1), 8);
        assert_eq!(
            (ring.start(), ring.end()),
            (6, 8),
            "revision 5 goes as a whole"
        );
        assert_eq!(mains(&ring.window(6, 10, 0)), [6, 6]);
        assert_eq!(ring.window(6, 10, 0).upto, 6);
        assert_eq!(mains(&ring.window(6, 2, usize::MAX)), [6, 6, 7, 7]);
        assert_eq!(ring.window(7, i64::MAX, usize::MAX).upto, 8);
        // One revision that is larger than the ring.
        ring.push(&events(9..=9, 7), 9);
        assert_eq!((ring.start(), ring.end(), ring.bytes), (10, 9, 0));
        ring.reset(20);
        assert_eq!((ring.start(), ring.end()), (21, 20));
    }

    #[test]
    fn what_events_come_to_hold_counts() {
        let list = events(5..=8, 1);
        let cost = list[0].cost();
        let mut ring = Ring::new(4 * cost, 4);
        ring.push(&list, 8);
        ring.charge(&list[2], 1);
        assert_eq!((ring.start(), ring.bytes), (6, 3 * cost + 1));
        ring.charge(&list[0], 1000);
        assert_eq!(ring.start(), 6, "it is not here any more");
        ring.push(&events(9..=11, 1), 11);
        assert_eq!((ring.start(), ring.bytes), (8, 4 * cost));
    }
}
