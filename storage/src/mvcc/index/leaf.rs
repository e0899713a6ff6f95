//! A leaf of the tree: a packed run of keys with their histories.
//!
//! Everything stands in one byte arena, slot after slot in key order, so copying a shared leaf is
//! two memory copies and needs no reference count per key:
//!
//! ```text
//! slot = key length (varint) | key | chain of changes, newest first (see `history`)
//! ```
//!
//! A short list beside it says where each slot starts and holds the four bytes of its key that
//! follow what all keys of the leaf have in common, so that a search looks into the arena once or
//! twice and not at every step.
//!
//! Histories longer than `Limits::inline_history` keep only the newest change in the arena and the
//! rest in an [`Archive`] beside it.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::archive::{Archive, Position};
use super::history::{self, Chain, Encoded, Survivors};
use super::node::Summary;
use super::{Change, Limits, heap};

/// Spare room that an arena or slot list gets when it has to grow is this part of its length: a
/// leaf is reallocated some dozens of times while it fills and holds little unused memory.
const GROWTH: usize = 8;

/// Where a slot is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Four bytes of the key after the common prefix, the first one on top, filled up with zeros.
    head: u32,
    /// Where it starts in the arena.
    start: u32,
}

/// A packed run of keys.
///
/// Invariants: keys strictly ascend; every slot has a change; the changes of a slot strictly
/// descend by revision, the archive's being older than the chain's; `archives` ascends by slot;
/// `prefix` and the heads are those of the keys (but for leaves under construction).
#[derive(Debug, Default)]
pub(super) struct Leaf {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    /// How many bytes all keys have in common; the length of the key if there is one only.
    prefix: usize,
    /// The archives of the few slots that have one, with the slot number.
    archives: Vec<(u32, Arc<Archive>)>,
}

impl Clone for Leaf {
    /// A copy is made to be changed, so it gets some spare room.
    fn clone(&self) -> Self {
        Self {
            arena: copy_with_room(&self.arena),
            slots: copy_with_room(&self.slots),
            prefix: self.prefix,
            archives: self.archives.clone(),
        }
    }
}

/// What applying a change did to the leaf.
pub(super) struct Applied {
    /// The slot of the key.
    pub(super) slot: usize,
    /// The newest change that the key had before.
    pub(super) before: Option<Change>,
}

impl Leaf {
    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The bytes of the arena in use.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    fn start(&self, slot: usize) -> usize {
        self.slots[slot].start as usize
    }

    fn end(&self, slot: usize) -> usize {
        self.slots
            .get(slot + 1)
            .map_or(self.arena.len(), |slot| slot.start as usize)
    }

    /// The bytes of the key of a slot in the arena.
    fn key_range(&self, slot: usize) -> Range<usize> {
        let mut at = self.start(slot);
        let len = history::read_varint(&self.arena, &mut at) as usize;
        at..at + len
    }

    /// The key of a slot.
    pub(super) fn key(&self, slot: usize) -> &[u8] {
        &self.arena[self.key_range(slot)]
    }

    fn chain(&self, slot: usize) -> Chain<'_> {
        let start = self.key_range(slot).end;
        Chain::new(&self.arena[start..], self.end(slot) - start)
    }

    /// The newest change of a slot.
    pub(super) fn head(&self, slot: usize) -> Change {
        self.chain(slot).next().expect("every slot has a change")
    }

    /// `main` of the newest change of a slot.
    pub(super) fn head_main(&self, slot: usize) -> i64 {
        history::newest_main(&self.arena[self.key_range(slot).end..])
    }

    fn archive(&self, slot: usize) -> Option<&Arc<Archive>> {
        if self.archives.is_empty() {
            return None;
        }
        let at = self
            .archives
            .binary_search_by_key(&(slot as u32), |(slot, _)| *slot)
            .ok()?;
        Some(&self.archives[at].1)
    }

    /// Every change of a slot, newest first.
    pub(super) fn history(&self, slot: usize) -> History<'_> {
        let archive = self
            .archive(slot)
            .map(|archive| (&**archive, archive.newest()));
        History {
            chain: self.chain(slot),
            archive,
        }
    }

    /// The changes of a slot with `main <= at`, newest first.
    pub(super) fn history_upto(&self, slot: usize, at: i64) -> impl Iterator<Item = Change> {
        let archive = self
            .archive(slot)
            .map(|archive| (&**archive, archive.upto(at)));
        History {
            chain: self.chain(slot),
            archive,
        }
        .skip_while(move |change| change.revision.main > at)
    }

    /// The put that a reader at main revision `at` sees in a slot.
    pub(super) fn live_at(&self, slot: usize, at: i64) -> Option<Change> {
        let head = self.head(slot);
        let seen = if head.revision.main <= at {
            head
        } else {
            self.history_upto(slot, at).next()?
        };
        (!seen.tombstone).then_some(seen)
    }

    /// The slot of `key`, or the one where it would be.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let prefix = &self.key(0)[..self.prefix];
        match key[..key.len().min(self.prefix)].cmp(prefix) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal => {}
        }
        let head = head_of(key, self.prefix);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.slots[middle]
                .head
                .cmp(&head)
                .then_with(|| self.key(middle).cmp(key))
            {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Finds out what the keys have in common, after they changed otherwise than by `insert`.
    fn settle(&mut self) {
        let Some(last) = self.len().checked_sub(1) else {
            return;
        };
        self.prefix = common_prefix(self.key(0), self.key(last));
        for slot in 0..self.len() {
            self.slots[slot].head = head_of(self.key(slot), self.prefix);
        }
    }

    /// The first slot whose key is not less than `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|slot| slot)
    }

    /// The first slot for which `past` holds; `past` must hold for all slots after one that it
    /// holds for.
    pub(super) fn partition_point(&self, past: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if past(self.key(middle)) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        low
    }

    /// Adds a change, newer than all of its key.
    ///
    /// # Panics
    /// If the key has a change that is not older.
    pub(super) fn apply(&mut self, key: &[u8], change: &Change, limits: &Limits) -> Applied {
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
    pub(super) fn overflow(&self, slot: usize, limits: &Limits) -> Option<usize> {
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
    pub(super) fn split_off(&mut self, at: usize) -> Self {
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
    pub(super) fn append(&mut self, right: &Self) {
        self.append_slots(right, 0..right.len());
        self.settle();
    }

    fn append_slots(&mut self, from: &Self, slots: Range<usize>) {
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

    /// Moves everything into a leaf of exactly the size it takes; the room here stays.
    pub(super) fn take(&mut self) -> Self {
        let mut leaf = Self::default();
        leaf.append(self);
        self.arena.clear();
        self.slots.clear();
        self.archives.clear();
        leaf
    }

    /// Appends a slot with a chain that is already written. The key must be greater than all here;
    /// the leaf cannot be searched before it is taken.
    pub(super) fn push_encoded(&mut self, slot: &[u8]) {
        self.slots.push(Slot {
            head: 0,
            start: offset(self.arena.len()),
        });
        self.arena.extend_from_slice(slot);
    }

    /// Appends a slot with `changes` (newest first, at least one) and an archive of older ones,
    /// which may be empty. The key must be greater than all here; the leaf cannot be searched
    /// before it is taken.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        changes: &[Change],
        mut archive: Archive,
        limits: &Limits,
    ) {
        self.slots.push(Slot {
            head: 0,
            start: offset(self.arena.len()),
        });
        history::write_varint(key.len() as u64, &mut self.arena);
        self.arena.extend_from_slice(key);
        let start = self.arena.len();
        history::encode(changes, &mut self.arena);
        if self.arena.len() - start > limits.inline_history && changes.len() > 1 {
            self.arena.truncate(start);
            history::encode(&changes[..1], &mut self.arena);
            for block in changes[1..].rchunks(limits.archive_block) {
                archive.push(block, limits);
            }
        }
        if !archive.is_empty() {
            self.archives
                .push((offset(self.len() - 1), Arc::new(archive)));
        }
        offset(self.arena.len());
    }

    /// Whether a compaction drops some change of a slot.
    pub(super) fn has_garbage(&self, slot: usize, compact: i64) -> bool {
        self.garbage(slot, compact).next().is_some()
    }

    /// The changes of a slot that a compaction drops, newest first.
    pub(super) fn garbage(&self, slot: usize, compact: i64) -> impl Iterator<Item = Change> {
        let mut survivors = Survivors::new(compact);
        self.history_upto(slot, compact)
            .filter(move |change| !survivors.keep(change))
    }

    /// A copy without the changes that a compaction drops from `slots`, and the number of those;
    /// `None` if there are none. Keys without changes go.
    pub(super) fn compacted(
        &self,
        slots: Range<usize>,
        compact: i64,
        limits: &Limits,
    ) -> Option<(Self, usize)> {
        let first = slots
            .clone()
            .find(|slot| self.has_garbage(*slot, compact))?;
        let mut copy = Self::default();
        let mut dropped = 0;
        copy.append_slots(self, 0..first);
        for slot in first..self.len() {
            if slots.contains(&slot) && self.has_garbage(slot, compact) {
                dropped += self.push_compacted(slot, compact, limits, &mut copy);
            } else {
                copy.append_slots(self, slot..slot + 1);
            }
        }
        copy.arena.shrink_to_fit();
        copy.slots.shrink_to_fit();
        copy.settle();
        Some((copy, dropped))
    }

    /// Appends what a compaction leaves of a slot to `copy`; returns the number of lost changes.
    fn push_compacted(&self, slot: usize, compact: i64, limits: &Limits, copy: &mut Self) -> usize {
        let mut survivors = Survivors::new(compact);
        let chain = self.chain(slot);
        let mut before = chain.clone().count();
        let mut kept: Vec<Change> = chain.filter(|change| survivors.keep(change)).collect();
        let mut archive = Archive::default();
        if let Some(old) = self.archive(slot) {
            before += old.len();
            archive = old.compacted(compact, survivors, limits);
        }
        if archive.blocks() == 1 {
            // It may fit into the leaf again.
            let mut position = archive.newest();
            kept.extend(archive.before(&mut position).into_iter().flatten());
            archive = Archive::default();
        }
        let after = kept.len() + archive.len();
        if !kept.is_empty() {
            copy.push(self.key(slot), &kept, archive, limits);
        } else {
            assert!(
                archive.is_empty(),
                "older changes of slot {slot} survive its newest"
            );
        }
        before - after
    }

    /// What the parent must know about the leaf.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::EMPTY;
        for slot in 0..self.len() {
            summary.add(&Summary::of_head(
                &self.head(slot),
                self.first_garbage(slot),
            ));
        }
        summary
    }

    /// A lower bound of the compactions that drop something of a slot; exact without an archive.
    fn first_garbage(&self, slot: usize) -> i64 {
        let chain = self.chain(slot);
        let first = history::first_garbage(chain.clone(), None);
        match self.archive(slot) {
            None => first,
            Some(archive) => {
                let newer = chain.last().expect("every slot has a change").revision.main;
                first.min(archive.first_garbage(newer))
            }
        }
    }

    /// An estimate of the memory held (bytes).
    pub(super) fn heap_bytes(&self) -> usize {
        let archives = self
            .archives
            .iter()
            .map(|(_, archive)| heap::shared::<Archive>() + archive.heap_bytes())
            .sum::<usize>();
        heap::vec(&self.arena) + heap::vec(&self.slots) + heap::vec(&self.archives) + archives
    }

    /// Panics if an invariant does not hold.
    pub(super) fn check_invariants(&self, limits: &Limits) {
        assert!(
            self.len() <= limits.leaf_slots,
            "{} slots in a leaf, at most {}",
            self.len(),
            limits.leaf_slots
        );
        let (first, last) = (self.key(0), self.key(self.len() - 1));
        assert_eq!(
            self.prefix,
            common_prefix(first, last),
            "prefix of {first:?} to {last:?}"
        );
        for slot in 0..self.len() {
            let head = head_of(self.key(slot), self.prefix);
            assert_eq!(self.slots[slot].head, head, "head of slot {slot}");
            if slot > 0 {
                let (key, next) = (self.key(slot - 1), self.key(slot));
                assert!(
                    key < next,
                    "keys {key:?} and {next:?} in slots {} and {slot}",
                    slot - 1
                );
            }
            let revisions: Vec<_> = self.history(slot).map(|change| change.revision).collect();
            assert!(!revisions.is_empty(), "slot {slot} has no change");
            assert!(
                revisions.is_sorted_by(|newer, older| newer > older),
                "revisions {revisions:?} in slot {slot}"
            );
            assert_eq!(
                self.head_main(slot),
                revisions[0].main,
                "newest main of slot {slot}"
            );
        }
        let archived: Vec<u32> = self.archives.iter().map(|(slot, _)| *slot).collect();
        assert!(
            archived.is_sorted_by(|a, b| a < b),
            "archives of slots {archived:?}"
        );
        let beyond = archived
            .last()
            .is_some_and(|last| *last as usize >= self.len());
        assert!(!beyond, "archives of slots {archived:?} of {}", self.len());
        self.archives
            .iter()
            .for_each(|(_, archive)| archive.check_invariants());
    }
}

/// The changes of one key, newest first.
pub(super) struct History<'a> {
    chain: Chain<'a>,
    /// The archive and how far back it has been read.
    archive: Option<(&'a Archive, Position)>,
}

impl Iterator for History<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.chain.next() {
                return Some(change);
            }
            let (archive, position) = self.archive.as_mut()?;
            self.chain = archive.before(position)?;
        }
    }
}

/// The four bytes of `key` from `prefix` on.
fn head_of(key: &[u8], prefix: usize) -> u32 {
    match key.get(prefix..prefix + 4) {
        Some(head) => u32::from_be_bytes(head.try_into().expect("the slice has 4 bytes")),
        None => {
            let rest = key.get(prefix..).unwrap_or_default();
            let mut head = [0; 4];
            head[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(head)
        }
    }
}

/// How many bytes two keys have in common at the start.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a leaf is far smaller than 4 GiB: keys are bounded by requests")
}

fn copy_with_room<T: Copy>(from: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(from.len() + from.len() / GROWTH + 1);
    copy.extend_from_slice(from);
    copy
}

fn reserve<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more + list.len() / GROWTH);
    }
}
