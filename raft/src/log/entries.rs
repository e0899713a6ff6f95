//! The entries of the log: where each is, and the newest of them in memory.

use std::collections::VecDeque;

use ferrite_disk::wal::Position;
use raft::eraftpb::{Entry, EntryType};

use super::record::{Mark, entry_bytes};

/// What stays known of an entry when its content leaves the memory: 32 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) term: u64,
    position: Position,
    /// Length of its record's payload.
    pub(super) bytes: u32,
    pub(super) entry_type: EntryType,
}

/// Not yet in the WAL, as far as the log was told. No record begins at offset 0.
const NOWHERE: Position = Position {
    segment: 0,
    offset: 0,
};

/// What an entry in memory costs beside its payload, in bytes.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 32;

/// The entries after a mark, without gaps.
///
/// Invariants:
/// * `first` is the index of `slots[0]`, or the next index if there is none; except during recovery
///   `first == mark.index + 1`;
/// * `window` holds the newest `window.len() <= slots.len()` entries;
/// * exactly the entries up to `positioned` have a position, and all others are in `window`;
/// * positions rise with the index.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) mark: Mark,
    pub(super) first: u64,
    slots: VecDeque<Slot>,
    window: VecDeque<Entry>,
    window_bytes: usize,
    positioned: u64,
    /// The newest position ever told.
    newest: Position,
}

impl Entries {
    /// No entry; the next one is the one after `mark`.
    pub(super) fn new(mark: Mark) -> Entries {
        Entries {
            mark,
            first: mark.index + 1,
            slots: VecDeque::new(),
            window: VecDeque::new(),
            window_bytes: 0,
            positioned: mark.index,
            newest: NOWHERE,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Index of the last entry, or the one before the first if there is none.
    pub(super) fn last(&self) -> u64 {
        self.first + self.slots.len() as u64 - 1
    }

    pub(super) fn window_len(&self) -> usize {
        self.window.len()
    }

    pub(super) fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        let offset = index.checked_sub(self.first)?;
        self.slots.get(usize::try_from(offset).ok()?)
    }

    /// The term of an entry, or of the mark.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        match self.slot(index) {
            Some(slot) => Some(slot.term),
            None if index == self.mark.index => Some(self.mark.term),
            None => None,
        }
    }

    /// Where the entry's record is; `None` if there is no such entry or the log was not told yet.
    pub(super) fn position(&self, index: u64) -> Option<Position> {
        let slot = self.slot(index)?;
        (index <= self.positioned).then_some(slot.position)
    }

    /// The newest position the log was told of.
    pub(super) fn newest_position(&self) -> Option<Position> {
        (self.newest != NOWHERE).then_some(self.newest)
    }

    /// The entry, if it is in memory.
    pub(super) fn cached(&self, index: u64) -> Option<&Entry> {
        let window_first = self.last() + 1 - self.window.len() as u64;
        let offset = index.checked_sub(window_first)?;
        self.window.get(usize::try_from(offset).ok()?)
    }

    /// Appends an entry whose position is not known yet. One with an index that is taken replaces
    /// that entry and all after it.
    pub(super) fn push(&mut self, entry: Entry) {
        let index = entry.index;
        let last = self.last();
        assert!(
            self.mark.index < index && index <= last + 1,
            "entry {index} in a log from {} to {last}",
            self.first
        );
        if index <= last {
            self.truncate_from(index);
        }
        self.slots.push_back(Slot {
            term: entry.term,
            position: NOWHERE,
            bytes: u32::try_from(entry_bytes(&entry))
                .expect("entries above MAX_ENTRY_BYTES are refused before they get here"),
            entry_type: entry.entry_type,
        });
        self.window_bytes += cost(&entry);
        self.window.push_back(entry);
    }

    /// As [`Entries::push`], for an entry found in the WAL. Without any entry so far, the log may
    /// begin after a gap.
    pub(super) fn push_found(&mut self, entry: Entry, position: Position) {
        let index = entry.index;
        if self.slots.is_empty() || index < self.first {
            self.clear();
            self.first = index;
            self.positioned = index - 1;
        }
        self.push(entry);
        self.locate(index, position);
    }

    /// Where the record of the entry is. Called in the order of indices.
    pub(super) fn locate(&mut self, index: u64, position: Position) {
        assert!(
            index == self.positioned + 1,
            "position of entry {index} after {}",
            self.positioned
        );
        assert!(
            position > self.newest,
            "entry {index} at {position:?}, after {:?}",
            self.newest
        );
        let offset = (index - self.first) as usize;
        let slot = self.slots.get_mut(offset);
        slot.expect("positions are told for entries of the log")
            .position = position;
        self.positioned = index;
        self.newest = position;
    }

    /// Drops the entry and all after it.
    fn truncate_from(&mut self, index: u64) {
        while self.last() >= index {
            self.slots.pop_back();
            if let Some(entry) = self.window.pop_back() {
                self.window_bytes -= cost(&entry);
            }
        }
        self.positioned = self.positioned.min(index - 1);
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.window.clear();
        self.window_bytes = 0;
    }

    /// Drops the entries up to the mark, which becomes the log's. One before the first entry is a
    /// gap, see [`Entries::push_found`].
    pub(super) fn compact(&mut self, mark: Mark) {
        assert!(
            self.mark.index <= mark.index && (mark.index <= self.last() || self.slots.is_empty()),
            "compacting to {mark:?} a log from {:?} to {}",
            self.mark,
            self.last()
        );
        self.mark = mark;
        if self.slots.is_empty() {
            self.first = mark.index + 1;
            self.positioned = mark.index;
            return;
        }
        while self.first <= mark.index {
            if self.window.len() == self.slots.len() {
                self.evict_oldest();
            }
            self.slots.pop_front();
            self.first += 1;
        }
        self.positioned = self.positioned.max(mark.index);
    }

    /// Drops all entries; the next one is the one after `mark`.
    pub(super) fn restart(&mut self, mark: Mark) {
        self.clear();
        self.mark = mark;
        self.first = mark.index + 1;
        self.positioned = mark.index;
    }

    /// Where the record is that says so: nothing before it is needed.
    pub(super) fn locate_restart(&mut self, position: Position) {
        assert!(
            position > self.newest,
            "restart at {position:?}, after {:?}",
            self.newest
        );
        self.newest = position;
    }

    /// Gives up the content of the oldest entries until the rest takes at most `limit` bytes, and
    /// of those up to index `done` until it takes at most `done_limit`. Entries without a position
    /// stay.
    pub(super) fn evict(&mut self, limit: usize, done: u64, done_limit: usize) {
        while let Some(entry) = self.window.front() {
            let over = self.window_bytes > limit
                || (self.window_bytes > done_limit && entry.index <= done);
            if !over || entry.index > self.positioned {
                return;
            }
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(entry) = self.window.pop_front() {
            self.window_bytes -= cost(&entry);
        }
    }

    /// Asserts the invariants; walks everything.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let last = self.last();
        assert!(
            self.first == self.mark.index + 1,
            "{} after {:?}",
            self.first,
            self.mark
        );
        assert!(self.window.len() <= self.slots.len());
        assert_eq!(
            self.window_bytes,
            self.window.iter().map(cost).sum::<usize>()
        );
        assert!(self.mark.index <= self.positioned && self.positioned <= last);
        let mut before = NOWHERE;
        let mut term = self.mark.term;
        for (index, slot) in (self.first..).zip(&self.slots) {
            assert!(slot.term >= term);
            term = slot.term;
            if index <= self.positioned {
                assert!(slot.position > before);
                before = slot.position;
            } else {
                assert!(slot.position == NOWHERE && self.cached(index).is_some());
            }
            if let Some(entry) = self.cached(index) {
                assert_eq!((entry.index, entry.term), (index, slot.term));
            }
        }
    }
}

fn cost(entry: &Entry) -> usize {
    ENTRY_OVERHEAD + entry.context.len() + entry.data.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Do {
        /// Appends so many entries, so far before the end.
        Append { back: u64, count: u64, len: usize },
        /// Tells so many positions.
        Locate(u64),
        /// Compacts by so many entries, of those that have a position.
        Compact(u64),
        /// Restarts so far beyond the end.
        Restart(u64),
        Evict {
            limit: usize,
            done: u64,
            done_limit: usize,
        },
    }

    fn any_step() -> impl Strategy<Value = Do> {
        prop_oneof![
            (0..4u64, 1..5u64, 0..300usize).prop_map(|(back, count, len)| Do::Append {
                back,
                count,
                len
            }),
            (1..6u64).prop_map(Do::Locate),
            (1..6u64).prop_map(Do::Compact),
            (0..6u64).prop_map(Do::Restart),
            (0..3000usize, 0..20u64, 0..1000usize).prop_map(|(limit, done, done_limit)| {
                Do::Evict {
                    limit,
                    done,
                    done_limit,
                }
            }),
        ]
    }

    proptest! {
        /// Against a plain list of (term, length, position).
        #[test]
        fn entries_behave_like_a_list(steps in prop::collection::vec(any_step(), 0..60)) {
            let start = Mark { index: 3, term: 1 };
            let mut entries = Entries::new(start);
            let mut model: Vec<(u64, usize, Option<u64>)> = Vec::new();
            let (mut mark, mut term, mut offset) = (start, 1, 512);
            for step in steps {
                match step {
                    Do::Append { back, count, len } => {
                        if back > 0 {
                            term += 1;
                        }
                        model.truncate(model.len() - model.len().min(back as usize));
                        for _ in 0..count {
                            let index = mark.index + 1 + model.len() as u64;
                            let data = vec![0; len].into();
                            let entry = Entry { term, index, data, ..Entry::default() };
                            model.push((term, len, None));
                            entries.push(entry);
                        }
                    }
                    Do::Locate(count) => {
                        let open = model.iter_mut().enumerate().filter(|(_, e)| e.2.is_none());
                        for (at, entry) in open.take(count as usize) {
                            offset += 8;
                            entry.2 = Some(offset);
                            let position = Position { segment: 1, offset };
                            entries.locate(mark.index + 1 + at as u64, position);
                        }
                    }
                    Do::Compact(count) => {
                        let located = model.iter().take_while(|e| e.2.is_some()).count();
                        for (term, ..) in model.drain(..located.min(count as usize)) {
                            mark = Mark { index: mark.index + 1, term };
                        }
                        entries.compact(mark);
                    }
                    Do::Restart(beyond) => {
                        mark = Mark { index: entries.last() + beyond, term };
                        model.clear();
                        entries.restart(mark);
                        offset += 8;
                        entries.locate_restart(Position { segment: 1, offset });
                        prop_assert_eq!(entries.newest_position().map(|p| p.offset), Some(offset));
                    }
                    Do::Evict { limit, done, done_limit } => {
                        entries.evict(limit, done, done_limit);
                        let front = entries.last() + 1 - entries.window_len() as u64;
                        let evictable = entries.position(front).is_some();
                        prop_assert!(!evictable || entries.window_bytes() <= limit);
                    }
                }
                entries.check_invariants();
                prop_assert_eq!(entries.mark, mark);
                prop_assert_eq!(entries.last(), mark.index + model.len() as u64);
                prop_assert_eq!(entries.term(mark.index), Some(mark.term));
                prop_assert_eq!(entries.term(entries.last() + 1), None);
                for (index, (term, len, offset)) in (mark.index + 1..).zip(&model) {
                    prop_assert_eq!(entries.term(index), Some(*term));
                    prop_assert_eq!(entries.position(index).map(|p| p.offset), *offset);
                    if let Some(entry) = entries.cached(index) {
                        prop_assert_eq!((entry.index, entry.data.len()), (index, *len));
                    }
                }
            }
        }
    }
}
