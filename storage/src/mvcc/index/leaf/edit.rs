//! Changing a leaf: adding changes, splitting, joining.

use std::ops::Range;
use std::sync::Arc;

use super::{GROWTH, Leaf, Slot, common_prefix, head_of, offset};
use crate::mvcc::index::history::Encoded;
use crate::mvcc::index::{Change, Limits};

/// What applying a change did to the leaf.
pub(crate) struct Applied {
    /// The slot of the key.
    pub(crate) slot: usize,
    /// The newest change that the key had before.
    pub(crate) before: Option<Change>,
}

impl Leaf {
    /// Adds a change, newer than all of its key.
    ///
    /// # Panics
    /// If the key has a change that is not older.
    pub(crate) fn apply(&mut self, key: &[u8], change: &Change, limits: &Limits) -> Applied {
        match self.search(key) {
            Ok(slot) => {
                let before = self.prepend(slot, change);
                self.archive_if_long(slot, limits);
                Applied {
                    slot,
                    before: Some(before),
                }
            }
            Err(slot) => {
                self.insert(slot, key, change);
                Applied { slot, before: None }
            }
        }
    }

    /// Puts `change` in front of the chain of a slot and returns the one that was there.
    fn prepend(&mut self, slot: usize, change: &Change) -> Change {
        let start = self.key_range(slot).end;
        let mut chain = self.chain(slot);
        let before = chain.next().expect("every slot has a change");
        let replaced = chain.position();
        assert!(
            before.revision < change.revision,
            "change {} of a key that was changed at {}",
            change.revision,
            before.revision
        );
        let mut encoded = Encoded::new();
        encoded.push(change, None);
        encoded.push(&before, Some(change));
        self.splice(slot, start..start + replaced, encoded.as_slice());
        before
    }

    /// Replaces bytes of a slot and moves what is behind them.
    fn splice(&mut self, slot: usize, old: Range<usize>, new: &[u8]) {
        let len = self.arena.len();
        if new.len() > old.len() {
            self.widen(slot + 1, old.end, new.len() - old.len());
        } else if new.len() < old.len() {
            let shrunk = old.len() - new.len();
            self.arena.copy_within(old.end..len, old.end - shrunk);
            self.arena.truncate(len - shrunk);
            let shrunk = offset(shrunk);
            self.slots[slot + 1..]
                .iter_mut()
                .for_each(|slot| slot.start -= shrunk);
        }
        self.arena[old.start..old.start + new.len()].copy_from_slice(new);
    }

    /// Makes room for `added` bytes at `at`; `next` is the first slot that starts at or behind it.
    fn widen(&mut self, next: usize, at: usize, added: usize) {
        let len = self.arena.len();
        reserve(&mut self.arena, added);
        self.arena.resize(len + added, 0);
        self.arena.copy_within(at..len, at + added);
        let added = offset(added);
        self.slots[next..]
            .iter_mut()
            .for_each(|slot| slot.start += added);
        offset(self.arena.len());
    }

    fn insert(&mut self, slot: usize, key: &[u8], change: &Change) {
        let (mut prefix, mut chain) = (Encoded::new(), Encoded::new());
        prefix.varint(key.len() as u64);
        chain.push(change, None);
        let parts = [prefix.as_slice(), key, chain.as_slice()];

        let mut at = self
            .slots
            .get(slot)
            .map_or(self.arena.len(), |slot| slot.start as usize);
        self.widen(slot, at, parts.iter().map(|part| part.len()).sum());
        reserve(&mut self.slots, 1);
        self.slots.insert(
            slot,
            Slot {
                head: head_of(key, self.prefix),
                start: offset(at),
            },
        );
        for part in parts {
            self.arena[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        for (archived, _) in self.archives.iter_mut().rev() {
            if (*archived as usize) < slot {
                break;
            }
            *archived += 1;
        }
        // Only a new first or last key can have less in common with the others.
        let last = self.len() - 1;
        if (slot == 0 || slot == last)
            && (last == 0 || common_prefix(self.key(0), self.key(last)) < self.prefix)
        {
            self.settle();
        }
    }

    /// Moves all changes but the newest into the archive if the chain has grown too long.
    fn archive_if_long(&mut self, slot: usize, limits: &Limits) {
        let start = self.key_range(slot).end;
        let end = self.end(slot);
        if end - start <= limits.inline_history {
            return;
        }
        let mut chain = self.chain(slot);
        chain.next();
        let kept = chain.position();
        let older: Vec<Change> = chain.collect();
        self.splice(slot, start + kept..end, &[]);
        let number = slot as u32;
        let at = match self
            .archives
            .binary_search_by_key(&number, |(slot, _)| *slot)
        {
            Ok(at) => at,
            Err(at) => {
                self.archives.insert(at, (number, Arc::default()));
                at
            }
        };
        Arc::make_mut(&mut self.archives[at].1).push(&older, limits);
    }

    /// Where to split the leaf if it has become too large by a change in `slot`. A key added at an
    /// end goes into a leaf of its own: keys that come in order leave full leaves behind.
    pub(crate) fn overflow(&self, slot: usize, limits: &Limits) -> Option<usize> {
        let len = self.len();
        if len < 2 || (len <= limits.leaf_slots && self.arena.len() <= limits.leaf_bytes) {
            return None;
        }
        if slot == len - 1 {
            return Some(len - 1);
        }
        if slot == 0 {
            return Some(1);
        }
        let half = offset(self.arena.len() / 2);
        Some(
            self.slots
                .partition_point(|slot| slot.start < half)
                .clamp(1, len - 1),
        )
    }

    /// Cuts the slots from `at` on off into a new leaf.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let mut right = Self::default();
        right.append_slots(self, at..self.len());
        right.settle();
        self.arena.truncate(self.start(at));
        self.arena.shrink_to_fit();
        self.slots.truncate(at);
        self.slots.shrink_to_fit();
        let archived = self
            .archives
            .partition_point(|(slot, _)| (*slot as usize) < at);
        self.archives.truncate(archived);
        self.settle();
        right
    }

    /// Appends the slots of a leaf whose keys are all greater.
    pub(crate) fn append(&mut self, right: &Self) {
        self.append_slots(right, 0..right.len());
        self.settle();
    }

    pub(super) fn append_slots(&mut self, from: &Self, slots: Range<usize>) {
        if slots.is_empty() {
            return;
        }
        let bytes = from.start(slots.start)..from.end(slots.end - 1);
        let (at, first) = (self.arena.len(), self.len());
        self.arena.reserve_exact(bytes.len());
        self.arena.extend_from_slice(&from.arena[bytes.clone()]);
        self.slots.reserve_exact(slots.len());
        self.slots
            .extend(from.slots[slots.clone()].iter().map(|slot| Slot {
                head: slot.head,
                start: offset(slot.start as usize - bytes.start + at),
            }));
        let archives = from
            .archives
            .iter()
            .filter(|(slot, _)| slots.contains(&(*slot as usize)));
        self.archives.extend(archives.map(|(slot, archive)| {
            (
                offset(*slot as usize - slots.start + first),
                Arc::clone(archive),
            )
        }));
    }

    /// Finds out what the keys have in common, after they changed otherwise than by `insert`.
    pub(super) fn settle(&mut self) {
        let Some(last) = self.len().checked_sub(1) else {
            return;
        };
        self.prefix = common_prefix(self.key(0), self.key(last));
        for slot in 0..self.len() {
            self.slots[slot].head = head_of(self.key(slot), self.prefix);
        }
    }
}

fn reserve<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more + list.len() / GROWTH);
    }
}
