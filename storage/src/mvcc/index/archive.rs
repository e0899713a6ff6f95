//! Histories that are too long to stand in a leaf: sealed blocks of changes, oldest block first.
//!
//! A key that is written all the time would otherwise make every copy of its leaf expensive. Blocks
//! never change and are shared between roots; they stand in groups, so that adding a block to a
//! pinned archive copies two short lists of pointers even when it has millions of changes.
//!
//! Invariants: no group is empty; changes get newer from block to block and from group to group.

use std::sync::Arc;

use super::history::{self, Chain, Survivors};
use super::{Change, Limits, heap};

/// A part of a history that is not written to any more.
#[derive(Debug)]
struct Block {
    /// `main` of the oldest change in it.
    oldest: i64,
    /// The number of changes.
    len: usize,
    /// The changes as a chain.
    chain: Box<[u8]>,
}

impl Block {
    /// Seals `changes`, newest first and at least one.
    fn new(changes: &[Change]) -> Self {
        let oldest = changes.last().expect("a block has changes").revision.main;
        let mut chain = Vec::new();
        history::encode(changes, &mut chain);
        Self {
            oldest,
            len: changes.len(),
            chain: chain.into(),
        }
    }

    fn changes(&self) -> Chain<'_> {
        Chain::new(&self.chain, self.chain.len())
    }
}

/// The older part of a long history.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    groups: Vec<Arc<Vec<Arc<Block>>>>,
}

/// A place between two blocks: right before the one named, which for the last place is not there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    group: usize,
    block: usize,
}

impl Archive {
    /// Appends changes (newest first), all newer than what is here.
    pub(super) fn push(&mut self, changes: &[Change], limits: &Limits) {
        self.push_block(Arc::new(Block::new(changes)), limits);
    }

    fn push_block(&mut self, block: Arc<Block>, limits: &Limits) {
        match self.groups.last_mut() {
            Some(group) if group.len() < limits.archive_group => Arc::make_mut(group).push(block),
            _ => self.groups.push(Arc::new(vec![block])),
        }
    }

    /// The place after the newest block.
    pub(super) fn newest(&self) -> Position {
        Position {
            group: self.groups.len(),
            block: 0,
        }
    }

    /// The place after the newest block that has a change at or below main revision `at`.
    pub(super) fn upto(&self, at: i64) -> Position {
        let after = self.groups.partition_point(|group| group[0].oldest <= at);
        let Some(group) = after.checked_sub(1) else {
            return Position { group: 0, block: 0 };
        };
        let block = self.groups[group].partition_point(|block| block.oldest <= at);
        if block < self.groups[group].len() {
            Position { group, block }
        } else {
            Position {
                group: after,
                block: 0,
            }
        }
    }

    /// The changes of the block before `position`, which moves there.
    pub(super) fn before(&self, position: &mut Position) -> Option<Chain<'_>> {
        Some(self.block_before(position)?.changes())
    }

    fn block_before(&self, position: &mut Position) -> Option<&Arc<Block>> {
        if position.block == 0 {
            position.group = position.group.checked_sub(1)?;
            position.block = self.groups[position.group].len();
        }
        position.block -= 1;
        Some(&self.groups[position.group][position.block])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.groups.iter().map(|group| group.len()).sum()
    }

    /// The number of changes.
    pub(super) fn len(&self) -> usize {
        self.groups
            .iter()
            .flat_map(|group| group.iter())
            .map(|block| block.len)
            .sum()
    }

    /// A compaction below this drops nothing here; `newer` is the `main` of the change after the
    /// newest block.
    pub(super) fn first_garbage(&self, newer: i64) -> i64 {
        let mut blocks = self.groups.iter().flat_map(|group| group.iter());
        let Some(oldest) = blocks.next() else {
            return i64::MAX;
        };
        let newer = blocks.next().map_or(newer, |block| block.oldest);
        // Only the oldest block is looked at: thresholds do not fall from change to change, but
        // for tombstones with a successor of the same main, which cost one.
        history::first_garbage(oldest.changes(), Some(newer)).saturating_sub(1)
    }

    /// What a compaction leaves. `survivors` has been asked about all newer changes.
    pub(super) fn compacted(
        &self,
        compact: i64,
        mut survivors: Survivors,
        limits: &Limits,
    ) -> Self {
        // Blocks after this place are above the compaction.
        let boundary = self.upto(compact);
        let mut kept = Vec::new();
        let mut position = self.newest();
        while position > boundary {
            let block = self
                .block_before(&mut position)
                .expect("there is a block before the newest place");
            kept.push(Arc::clone(block));
        }
        while let Some(block) = self.block_before(&mut position) {
            let changes: Vec<Change> = block
                .changes()
                .filter(|change| survivors.keep(change))
                .collect();
            if !changes.is_empty() {
                kept.push(Arc::new(Block::new(&changes)));
            }
            // Further ones can only add tombstones at the compaction itself.
            if block.oldest < compact {
                break;
            }
        }
        let mut archive = Self::default();
        for block in kept.into_iter().rev() {
            archive.push_block(block, limits);
        }
        archive
    }

    /// An estimate of the memory held (bytes).
    pub(super) fn heap_bytes(&self) -> usize {
        let blocks: usize = self
            .groups
            .iter()
            .flat_map(|group| group.iter())
            .map(|block| heap::shared::<Block>() + heap::buffer(block.chain.len()))
            .sum();
        let groups: usize = self
            .groups
            .iter()
            .map(|group| heap::shared::<Vec<Arc<Block>>>() + heap::vec(group))
            .sum();
        blocks + groups + heap::vec(&self.groups)
    }

    /// Panics if an invariant does not hold.
    pub(super) fn check_invariants(&self) {
        assert!(!self.groups.is_empty(), "an archive without blocks");
        for group in &self.groups {
            assert!(!group.is_empty(), "an archive group without blocks");
            for block in group.iter() {
                let changes: Vec<Change> = block.changes().collect();
                assert_eq!(changes.len(), block.len, "changes of an archive block");
                let oldest = changes.last().map(|change| change.revision.main);
                assert_eq!(
                    oldest,
                    Some(block.oldest),
                    "oldest main of an archive block"
                );
            }
        }
    }
}
