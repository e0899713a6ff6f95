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

mod bulk;
mod edit;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::archive::{Archive, Position};
use super::history::{self, Chain, Survivors};
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
        // As if the key began as the others do. All heads are looked at: that is one run over
        // adjacent memory without a branch to guess, where bisecting waits for it at every step.
        let head = head_of(key, self.prefix);
        let mut low = self.slots.iter().filter(|slot| slot.head < head).count();
        let same = self.slots[low..]
            .iter()
            .take_while(|slot| slot.head == head)
            .count();
        let mut high = low + same;
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        if self.slots.is_empty() {
            return Err(0);
        }
        // It is not here; heads tell its place only if it does begin as the others do.
        let prefix = &self.key(0)[..self.prefix];
        Err(match key[..key.len().min(self.prefix)].cmp(prefix) {
            Ordering::Less => 0,
            Ordering::Equal => low,
            Ordering::Greater => self.len(),
        })
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
