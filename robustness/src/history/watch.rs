//! What a watcher saw, short enough to keep millions of events, and the check of it.

use std::hash::Hasher;

use anyhow::{bail, ensure};
use bytes::Bytes;

use super::digest::Fnv;
use super::{Event, Pair};

/// One watcher: what it asked for and what it got, across all its reconnects.
#[derive(Debug)]
pub struct Watched {
    /// The keys watched: all that begin with this.
    pub prefix: Bytes,
    /// The first revision wanted.
    pub from: i64,
    /// Revision and [`fingerprint`] of each event, in the order received.
    pub events: Vec<(i64, u64)>,
    /// Each progress notification: its revision, and how many events had been received before it.
    pub progress: Vec<(i64, usize)>,
    /// First events of a response, as positions in `events`: revisions must not be split.
    pub responses: Vec<usize>,
    /// Whether it asked for previous pairs.
    pub with_previous: bool,
    /// Up to this revision compactions may have taken previous pairs away.
    pub compacted: i64,
}

/// A hash of everything that an event says.
pub fn fingerprint(key: &[u8], pair: Option<&Pair>, previous: Option<&Pair>) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(key);
    for pair in [pair, previous] {
        let Some(pair) = pair else {
            hasher.write_u8(0);
            continue;
        };
        hasher.write_u8(1);
        for number in [pair.created, pair.modified, pair.version, pair.lease] {
            hasher.write_i64(number);
        }
        hasher.write_u64(pair.value);
    }
    hasher.finish()
}

impl Watched {
    /// A watcher that has seen nothing yet.
    pub fn new(prefix: impl Into<Bytes>, from: i64) -> Self {
        Self {
            prefix: prefix.into(),
            from,
            events: Vec::new(),
            progress: Vec::new(),
            responses: Vec::new(),
            with_previous: true,
            compacted: 0,
        }
    }

    /// Compares with the log: the events are exactly its events of the prefix from `from` on, up to
    /// where the watcher was stopped.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub(super) fn check(&self, log: &[Event]) -> anyhow::Result<()> {
        let name = String::from_utf8_lossy(&self.prefix);
        let expected: Vec<&Event> = log
            .iter()
            .filter(|event| event.revision >= self.from && event.key.starts_with(&self.prefix))
            .collect();
        for (at, (revision, print)) in self.events.iter().enumerate() {
            let Some(event) = expected.get(at) else {
                bail!("watch {name}: event {at} at revision {revision} is not in the log");
            };
            let with = |previous| fingerprint(&event.key, event.pair.as_ref(), previous);
            let full = self.with_previous && *print == with(event.previous.as_ref());
            let without = !self.with_previous || event.revision <= self.compacted;
            ensure!(
                *revision == event.revision && (full || (without && *print == with(None))),
                "watch {name}: event {at} is at revision {revision}, expected {event:?}"
            );
        }
        for at in &self.responses {
            let before = at.checked_sub(1).and_then(|before| self.events.get(before));
            ensure!(
                before.map(|(revision, _)| revision)
                    != self.events.get(*at).map(|(revision, _)| revision)
                    || before.is_none(),
                "watch {name}: event {at} continues the revision of the response before it"
            );
        }
        let mut last = 0;
        for (revision, received) in &self.progress {
            ensure!(
                *revision >= last,
                "watch {name}: progress went from revision {last} back to {revision}"
            );
            last = *revision;
            let due = expected.get(*received);
            ensure!(
                due.is_none_or(|event| event.revision > *revision),
                "watch {name}: progress to revision {revision} after {received} events, but {due:?} \
                 had not been received"
            );
        }
        Ok(())
    }
}
