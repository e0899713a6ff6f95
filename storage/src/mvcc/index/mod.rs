//! [`KeyIndex`]: which revisions each key has, in memory, for every revision since the last
//! compaction.
//!
//! An ordered copy-on-write B-tree. `clone` pins a root in O(1); the writer then copies only the
//! nodes that a pinned root shares with its own. All reads work on a pinned clone while the writer
//! goes on elsewhere.
//!
//! ```text
//! Inner   per child: live keys, framed bytes, greatest revision, lowest garbage   (node)
//!   Leaf  key | changes, newest first | key | changes ...                         (leaf, history)
//!           long histories: blocks of older changes beside the leaf               (archive)
//! ```
//!
//! What the inner nodes know makes exact counts, response sizes and ranks O(log n) where nothing
//! changed after the revision that is asked about; elsewhere a reader descends only into subtrees
//! that did change ([`totals`](KeyIndex::totals)). Watchers and exports skip what is old
//! ([`changes`](KeyIndex::changes)), compaction what has nothing to drop
//! ([`garbage`](KeyIndex::garbage), [`prune_step`](KeyIndex::prune_step)).
//!
//! Promises:
//! * A read at revision `at` is exact for every `at` from the last compaction on, no matter how far
//!   that compaction's pruning has got. Reads below it are the caller's error.
//! * A pinned root never changes.
//! * Several changes of a key may share a main revision (one transaction); the last one counts.
//!
//! Unlike etcd's index there are no generations: every change carries its creation revision and
//! version, nearly for free since it is written relative to the next newer one. Values, leases and
//! rows are not known here.

mod archive;
mod builder;
mod check;
mod heap;
mod history;
mod leaf;
mod node;
mod prune;
mod scan;
mod totals;

use std::fmt;

use ferrite_api::types::Revision;

pub use self::builder::{Builder, Row};
use self::leaf::Leaf;
use self::node::{Child, Inner, Node};
pub use self::totals::Totals;
use super::range::KeyRange;

/// What is known of a key at some revision, besides its value and lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyMeta {
    /// The last change; `modified.main` is what clients see as `mod_revision`.
    pub modified: Revision,
    /// `create_revision`: main revision of the put that created the key.
    pub created: i64,
    /// Puts since the key was created, this one included.
    pub version: i64,
    /// Length of the encoded `mvccpb.KeyValue` (bytes).
    pub record_len: u32,
}

/// One revision of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// When the change was made.
    pub revision: Revision,
    /// Whether it deleted the key; the other fields are 0 then.
    pub tombstone: bool,
    /// `create_revision` after a put.
    pub created: i64,
    /// `version` after a put.
    pub version: i64,
    /// Length of the encoded `mvccpb.KeyValue` of a put (bytes).
    pub record_len: u32,
}

impl Change {
    fn tombstone(revision: Revision) -> Self {
        Self {
            revision,
            tombstone: true,
            created: 0,
            version: 0,
            record_len: 0,
        }
    }

    /// The metadata of the pair after a put, `None` after a deletion.
    pub fn meta(&self) -> Option<KeyMeta> {
        let Self {
            revision,
            tombstone,
            created,
            version,
            record_len,
        } = *self;
        (!tombstone).then_some(KeyMeta {
            modified: revision,
            created,
            version,
            record_len,
        })
    }
}

impl From<KeyMeta> for Change {
    fn from(meta: KeyMeta) -> Self {
        let KeyMeta {
            modified,
            created,
            version,
            record_len,
        } = meta;
        Self {
            revision: modified,
            tombstone: false,
            created,
            version,
            record_len,
        }
    }
}

/// Sizes of the nodes. Small ones make tests split and join all the time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most keys in a leaf; at least 2.
    pub leaf_slots: usize,
    /// A leaf with more bytes than this is split, unless it has a single key.
    pub leaf_bytes: usize,
    /// Most children of an inner node; at least 3.
    pub children: usize,
    /// Bytes of history that one key may have inside its leaf.
    pub inline_history: usize,
    /// Changes in a block of an archive, where one is made at once.
    pub archive_block: usize,
    /// Blocks in a group of an archive.
    pub archive_group: usize,
    /// Bytes of rows that a [`Builder`] sorts at once; below 1 GiB.
    pub build_block: usize,
}

impl Default for Limits {
    /// Measured with the `index_bench` example.
    fn default() -> Self {
        Self {
            leaf_slots: 64,
            leaf_bytes: 8 << 10,
            children: 16,
            inline_history: 256,
            archive_block: 64,
            archive_group: 64,
            build_block: 2 << 20,
        }
    }
}

/// The index of all keys. See the [module](self).
#[derive(Clone, Default)]
pub struct KeyIndex {
    root: Option<Child>,
    limits: Limits,
}

impl fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIndex")
            .field("summary", &self.root.as_ref().map(|root| root.summary))
            .finish_non_exhaustive()
    }
}

impl KeyIndex {
    /// An index without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// An index without keys whose nodes have other sizes than usual.
    pub fn with_limits(limits: Limits) -> Self {
        Self { root: None, limits }
    }

    /// The number of keys that are live now.
    pub fn len(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.summary.live)
    }

    /// Whether no key is live now. Histories of deleted keys may still be here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest state of `key`, `None` if it is not live.
    pub fn latest(&self, key: &[u8]) -> Option<KeyMeta> {
        let (leaf, slot) = self.find(key)?;
        leaf.head(slot).meta()
    }

    /// The state of `key` at main revision `at`, `None` if it was not live then.
    pub fn get(&self, key: &[u8], at: i64) -> Option<KeyMeta> {
        let (leaf, slot) = self.find(key)?;
        leaf.live_at(slot, at)?.meta()
    }

    /// Records a put. The caller chooses `created` and `version`.
    ///
    /// # Panics
    /// If the key has a change at `meta.modified` or later.
    pub fn put(&mut self, key: &[u8], meta: KeyMeta) {
        self.apply(key, &meta.into());
    }

    /// Records a deletion and returns what was deleted. If the key is not live, nothing changes.
    ///
    /// # Panics
    /// If the key has a change at `at` or later.
    pub fn delete(&mut self, key: &[u8], at: Revision) -> Option<KeyMeta> {
        let deleted = self.latest(key)?;
        self.apply(key, &Change::tombstone(at));
        Some(deleted)
    }

    /// The keys of `range` that were live at main revision `at`, ascending.
    pub fn range<'a>(
        &'a self,
        range: &KeyRange,
        at: i64,
    ) -> impl Iterator<Item = (&'a [u8], KeyMeta)> + use<'a> {
        // A subtree without live keys and without changes after `at` had none then either.
        self.leaves(range, move |summary| {
            summary.live > 0 || summary.newest > at
        })
        .flat_map(move |(leaf, slots)| {
            slots.filter_map(move |slot| {
                let meta = leaf.live_at(slot, at)?.meta()?;
                Some((leaf.key(slot), meta))
            })
        })
    }

    /// Every change of keys in `range` with `after < main <= upto`: keys ascending, the changes of
    /// a key ascending. Changes that a compaction superseded may or may not be among them.
    pub fn changes<'a>(
        &'a self,
        range: &KeyRange,
        after: i64,
        upto: i64,
    ) -> impl Iterator<Item = (&'a [u8], Change)> + use<'a> {
        let leaves = self.leaves(range, move |summary| summary.newest > after);
        scan::per_slot(leaves, move |leaf, slot, found| {
            if leaf.head_main(slot) > after {
                let history = leaf.history_upto(slot, upto);
                found.extend(history.take_while(|change| change.revision.main > after));
            }
        })
    }

    /// Every change that a compaction at `compact` drops (spec: mvcc.md section 6) and that is still
    /// here: keys ascending, the changes of a key ascending.
    ///
    /// What stays of a key: everything after `compact`; the newest change at or before it, if that
    /// is a put; tombstones exactly at it.
    pub fn garbage<'a>(
        &'a self,
        compact: i64,
    ) -> impl Iterator<Item = (&'a [u8], Change)> + use<'a> {
        let leaves = self.leaves(&KeyRange::all(), move |summary| summary.garbage <= compact);
        scan::per_slot(leaves, move |leaf, slot, found| {
            found.extend(leaf.garbage(slot, compact))
        })
    }

    fn find(&self, key: &[u8]) -> Option<(&Leaf, usize)> {
        let mut node = &self.root.as_ref()?.node;
        loop {
            match &**node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)].node,
                Node::Leaf(leaf) => return leaf.search(key).ok().map(|slot| (leaf, slot)),
            }
        }
    }

    fn apply(&mut self, key: &[u8], change: &Change) {
        let mut root = self
            .root
            .take()
            .unwrap_or_else(|| Child::leaf(Leaf::default()));
        let mut split = None;
        root.apply(key, change, &self.limits, &mut split);
        self.root = Some(match split {
            None => root,
            Some(split) => Child::inner(Inner::over(root, &split.separator, split.right)),
        });
    }
}

/// The bytes that a record takes as an element of a repeated field: tag, length, record.
pub(crate) fn framed_len(record_len: u32) -> u64 {
    1 + history::varint_len(u64::from(record_len)) as u64 + u64::from(record_len)
}
