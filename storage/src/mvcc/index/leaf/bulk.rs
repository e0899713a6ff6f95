//! Writing leaves slot by slot, for the bulk build and for compaction.

use std::ops::Range;
use std::sync::Arc;

use super::{Leaf, Slot, offset};
use crate::mvcc::index::archive::Archive;
use crate::mvcc::index::history::{self, Survivors};
use crate::mvcc::index::{Change, Limits};

impl Leaf {
    /// Moves everything into a leaf of exactly the size it takes; the room here stays.
    pub(crate) fn take(&mut self) -> Self {
        let mut leaf = Self::default();
        leaf.append(self);
        self.arena.clear();
        self.slots.clear();
        self.archives.clear();
        leaf
    }

    /// Appends a slot with a chain that is already written. The key must be greater than all here;
    /// the leaf cannot be searched before it is taken.
    pub(crate) fn push_encoded(&mut self, slot: &[u8]) {
        self.slots.push(Slot {
            head: 0,
            start: offset(self.arena.len()),
        });
        self.arena.extend_from_slice(slot);
    }

    /// Appends a slot with `changes` (newest first, at least one) and an archive of older ones,
    /// which may be empty. The key must be greater than all here; the leaf cannot be searched
    /// before it is taken.
    pub(crate) fn push(
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

    /// A copy without the changes that a compaction drops from `slots`, and the number of those;
    /// `None` if there are none. Keys without changes go.
    pub(crate) fn compacted(
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
}
