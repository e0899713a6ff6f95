//! What a cache knows: the pairs of now, and the last changes. No clock, no connection.
//!
//! A state of before is shown by undoing the changes since, a watch is a place in the changes. So
//! neither costs memory of its own.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrite_api::pb::mvccpb::event::EventType;
use ferrite_api::pb::mvccpb::{Event, KeyValue};

use crate::range::contains;

#[derive(Debug)]
pub(super) struct Store {
    pairs: BTreeMap<Bytes, KeyValue>,
    /// Ascending; what changed after `floor`.
    history: VecDeque<Changes>,
    /// How many revisions of history there may be.
    window: usize,
    /// The oldest state that can still be shown.
    floor: i64,
    /// Everything up to here is known.
    revision: i64,
}

/// What one revision changed. Events have the pairs before.
#[derive(Debug)]
struct Changes {
    revision: i64,
    events: Vec<Event>,
}

/// What was asked for is older than the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooOld;

impl Store {
    pub(super) fn new(window: usize) -> Store {
        Store {
            pairs: BTreeMap::new(),
            history: VecDeque::new(),
            window: window.max(1),
            floor: 0,
            revision: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Begins anew: what happened between is not known.
    pub(super) fn reset(&mut self, pairs: Vec<KeyValue>, revision: i64) {
        self.pairs = pairs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        self.history.clear();
        self.floor = revision;
        self.revision = revision;
    }

    /// The next changes: whole revisions, ascending. What is known already is left out.
    pub(super) fn apply(&mut self, events: Vec<Event>) {
        let known = self.revision;
        for mut event in events {
            let Some(kv) = event.kv.clone().filter(|kv| kv.mod_revision > known) else {
                continue;
            };
            let revision = kv.mod_revision;
            event.prev_kv = match event.r#type() {
                EventType::Put => self.pairs.insert(kv.key.clone(), kv),
                EventType::Delete => self.pairs.remove(&kv.key),
            };
            match self.history.back_mut() {
                Some(changes) if changes.revision == revision => changes.events.push(event),
                _ => self.history.push_back(Changes {
                    revision,
                    events: vec![event],
                }),
            }
            self.revision = revision;
        }
        while self.history.len() > self.window
            && let Some(forgotten) = self.history.pop_front()
        {
            self.floor = forgotten.revision;
        }
    }

    /// Nothing else has changed up to this revision.
    pub(super) fn progress(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    /// The pairs of a range as of a revision that is known; 0 is now.
    pub(super) fn range(&self, key: &[u8], end: &[u8], at: i64) -> Result<Vec<KeyValue>, TooOld> {
        let inside = |candidate: &[u8]| contains(key, end, candidate);
        // From the first key on: `contains` knows where it ends.
        let from = self.pairs.range(Bytes::copy_from_slice(key)..);
        let now = from.take_while(|(candidate, _)| inside(candidate));
        if at <= 0 {
            return Ok(now.map(|(_, kv)| kv.clone()).collect());
        }
        if at < self.floor {
            return Err(TooOld);
        }
        let mut then: BTreeMap<&Bytes, &KeyValue> = now.collect();
        let since = self.history.iter().rev();
        let since = since.take_while(|changes| changes.revision > at);
        for event in since.flat_map(|changes| changes.events.iter().rev()) {
            let Some(kv) = event.kv.as_ref().filter(|kv| inside(&kv.key)) else {
                continue;
            };
            match &event.prev_kv {
                Some(before) => then.insert(&before.key, before),
                None => then.remove(&kv.key),
            };
        }
        Ok(then.into_values().cloned().collect())
    }

    /// The first revision from `next` on that has events which are `wanted`, and those; moves
    /// `next` behind everything that was looked at.
    pub(super) fn changes(
        &self,
        next: &mut i64,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Option<(i64, Vec<Event>)>, TooOld> {
        if *next <= self.floor {
            return Err(TooOld);
        }
        let first = self
            .history
            .partition_point(|changes| changes.revision < *next);
        for changes in self.history.range(first..) {
            *next = changes.revision + 1;
            let events = changes.events.iter().filter(|event| wanted(event));
            let events: Vec<Event> = events.cloned().collect();
            if !events.is_empty() {
                return Ok(Some((changes.revision, events)));
            }
        }
        *next = (*next).max(self.revision + 1);
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
