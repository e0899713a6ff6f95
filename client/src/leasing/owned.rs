//! Which keys this client owns, and what is in them. No clock, no connection.
//!
//! A pair may be shown while three things hold: the key is owned, its pair is known, and none of
//! our own writes to it is under way. Whatever is in doubt is forgotten: the next read asks the
//! server, and may remember its answer if nothing has happened to the key meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;

use crate::range::contains;

/// All keys of one session.
#[derive(Debug, Default)]
pub(super) struct Owned {
    keys: BTreeMap<Bytes, Key>,
    /// Writes under way, by key; of owned keys and others.
    writes: BTreeMap<Bytes, Writes>,
    /// Ranges that are being written.
    ranges: Vec<(Bytes, Bytes)>,
    /// Counts everything that happens to any key.
    clock: u64,
}

#[derive(Debug)]
struct Key {
    /// The revision that made it ours.
    revision: i64,
    known: Option<Known>,
    /// When something happened to it last.
    touched: u64,
}

#[derive(Debug, Default)]
struct Writes {
    count: usize,
    /// There were several at once: their answers do not tell which came last.
    crossed: bool,
}

/// A pair, or that there is none, as of a revision.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Known {
    pub(super) header: pb::ResponseHeader,
    pub(super) pair: Option<KeyValue>,
}

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began(u64);

impl Owned {
    /// What may be shown.
    pub(super) fn known(&self, key: &[u8]) -> Option<&Known> {
        if self.is_written(key) {
            return None;
        }
        self.keys.get(key)?.known.as_ref()
    }

    fn is_written(&self, key: &[u8]) -> bool {
        let covers = |(first, end): &(Bytes, Bytes)| contains(first, end, key);
        self.writes.contains_key(key) || self.ranges.iter().any(covers)
    }

    /// The revision that made the key ours; 0 if it is not.
    pub(super) fn revision(&self, key: &[u8]) -> i64 {
        self.keys.get(key).map_or(0, |key| key.revision)
    }

    pub(super) fn begin_read(&self) -> Began {
        Began(self.clock)
    }

    /// The answer to a read of a key that is ours since `revision`. Whether that is news.
    pub(super) fn end_read(
        &mut self,
        began: Began,
        key: &Bytes,
        revision: i64,
        known: Known,
    ) -> bool {
        let writing = self.is_written(key);
        let clock = self.clock;
        let mut is_new = false;
        let entry = self.keys.entry(key.clone()).or_insert_with(|| {
            is_new = true;
            Key {
                revision,
                known: None,
                touched: clock,
            }
        });
        if entry.revision < revision {
            is_new = true;
            entry.revision = revision;
            entry.known = None;
        }
        // A new entry has no past that could speak against the answer but a write, or a loss.
        if !writing && entry.revision == revision && began.0 >= entry.touched {
            entry.known = Some(known);
        }
        is_new
    }

    /// A write begins. The revision since when the key is ours; 0 if it is not.
    pub(super) fn begin_write(&mut self, key: &Bytes) -> i64 {
        let writes = self.writes.entry(key.clone()).or_default();
        writes.count += 1;
        writes.crossed |= writes.count > 1;
        self.forget(key);
        self.revision(key)
    }

    /// A write is over, whatever became of it. `known` is what it left, if that is certain, of a
    /// key that was ours since `revision` when it began.
    pub(super) fn end_write(&mut self, key: &Bytes, revision: i64, known: Option<Known>) {
        self.forget(key);
        let mut is_certain = !self
            .ranges
            .iter()
            .any(|(first, end)| contains(first, end, key));
        if let Some(writes) = self.writes.get_mut(key) {
            writes.count -= 1;
            is_certain &= !writes.crossed;
            if writes.count == 0 {
                self.writes.remove(key);
            }
        }
        let ours = |entry: &&mut Key| is_certain && entry.revision == revision;
        if let Some(entry) = self.keys.get_mut(key).filter(ours) {
            entry.known = known;
        }
    }

    /// A write of a range begins.
    pub(super) fn begin_range(&mut self, key: &Bytes, end: &Bytes) {
        self.ranges.push((key.clone(), end.clone()));
        self.forget_range(key, end);
    }

    /// It is over, whatever became of it.
    pub(super) fn end_range(&mut self, key: &Bytes, end: &Bytes) {
        self.forget_range(key, end);
        let same = |range: &(Bytes, Bytes)| range.0 == *key && range.1 == *end;
        if let Some(at) = self.ranges.iter().position(same) {
            self.ranges.swap_remove(at);
        }
    }

    fn forget_range(&mut self, key: &[u8], end: &[u8]) {
        self.clock += 1;
        let clock = self.clock;
        for (candidate, entry) in &mut self.keys {
            if contains(key, end, candidate) {
                entry.known = None;
                entry.touched = clock;
            }
        }
    }

    fn forget(&mut self, key: &[u8]) {
        self.clock += 1;
        if let Some(entry) = self.keys.get_mut(key) {
            entry.known = None;
            entry.touched = self.clock;
        }
    }

    /// The key that was ours since `revision` is ours no more.
    pub(super) fn lose(&mut self, key: &[u8], revision: i64) {
        self.clock += 1;
        if self.revision(key) == revision {
            self.keys.remove(key);
        }
    }

    pub(super) fn clear(&mut self) {
        self.clock += 1;
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(revision: i64) -> Known {
        let header = pb::ResponseHeader {
            revision,
            ..Default::default()
        };
        Known { header, pair: None }
    }

    fn owned() -> (Owned, Bytes) {
        let (mut owned, key) = (Owned::default(), Bytes::from("k"));
        let began = owned.begin_read();
        assert!(owned.end_read(began, &key, 5, known(5)));
        assert_eq!(owned.known(&key), Some(&known(5)));
        (owned, key)
    }

    #[test]
    fn a_write_hides_the_pair_until_its_outcome_is_known() {
        let (mut owned, key) = owned();
        assert_eq!(owned.begin_write(&key), 5);
        assert_eq!(owned.known(&key), None);
        owned.end_write(&key, 5, Some(known(6)));
        assert_eq!(owned.known(&key), Some(&known(6)));
        owned.begin_write(&key);
        owned.end_write(&key, 5, None);
        assert_eq!(owned.known(&key), None);
        assert_eq!(owned.revision(&key), 5);
    }

    #[test]
    fn of_two_writes_at_once_nobody_knows_which_came_last() {
        let (mut owned, key) = owned();
        owned.begin_write(&key);
        owned.begin_write(&key);
        owned.end_write(&key, 5, Some(known(7)));
        assert_eq!(owned.known(&key), None);
        owned.end_write(&key, 5, Some(known(6)));
        assert_eq!(owned.known(&key), None);
        owned.begin_write(&key);
        owned.end_write(&key, 5, Some(known(8)));
        assert_eq!(owned.known(&key), Some(&known(8)));
    }

    #[test]
    fn a_write_of_an_earlier_ownership_says_nothing_about_this_one() {
        let (mut owned, key) = owned();
        let revision = owned.begin_write(&key);
        owned.lose(&key, 5);
        let began = owned.begin_read();
        owned.end_read(began, &key, 9, known(9));
        owned.end_write(&key, revision, Some(known(6)));
        assert_eq!((owned.known(&key), owned.revision(&key)), (None, 9));
    }

    #[test]
    fn a_read_that_a_write_overtook_is_not_remembered() {
        let (mut owned, key) = owned();
        let began = owned.begin_read();
        owned.begin_write(&key);
        owned.end_write(&key, 5, None);
        assert!(!owned.end_read(began, &key, 5, known(5)));
        assert_eq!(owned.known(&key), None);
        let began = owned.begin_read();
        assert!(!owned.end_read(began, &key, 5, known(6)));
        assert_eq!(owned.known(&key), Some(&known(6)));
        owned.begin_write(&key);
        let began = owned.begin_read();
        assert!(!owned.end_read(began, &key, 5, known(6)));
        assert_eq!(owned.known(&key), None);
    }

    #[test]
    fn a_key_is_lost_once_and_may_come_back() {
        let (mut owned, key) = owned();
        owned.lose(&key, 4);
        assert!(owned.known(&key).is_some());
        owned.lose(&key, 5);
        assert_eq!((owned.known(&key), owned.revision(&key)), (None, 0));
        let began = owned.begin_read();
        assert!(owned.end_read(began, &key, 9, known(9)));
        // Late news of the first loss.
        owned.lose(&key, 5);
        assert_eq!(owned.revision(&key), 9);
    }

    #[test]
    fn ranges_hide_what_is_in_them() {
        let (mut owned, key) = owned();
        let range = |first: &'static str, end: &'static str| (first.into(), end.into());
        let (first, end) = range("l", "\0");
        owned.begin_range(&first, &end);
        assert!(owned.known(&key).is_some());
        owned.end_range(&first, &end);
        let (first, end) = range("a", "l");
        owned.begin_range(&first, &end);
        let began = owned.begin_read();
        owned.end_read(began, &key, 5, known(6));
        assert_eq!(owned.known(&key), None);
        owned.end_range(&first, &end);
        // The read began before the write was over.
        owned.end_read(began, &key, 5, known(6));
        assert_eq!((owned.known(&key), owned.revision(&key)), (None, 5));
    }
}
