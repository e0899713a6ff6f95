//! The hashes that compactions have left behind.

use ferrite_storage::mvcc::hash::KeyValueHash;
use parking_lot::Mutex;

/// Hashes that are kept, those of the newest revisions; etcd's number.
const KEPT: usize = 10;

/// Hashes of what the last compactions found, by revision. In memory only, as in etcd: gone after
/// a restart.
#[derive(Debug, Default)]
pub struct Hashes {
    // Held to copy or to insert; never together with another lock.
    kept: Mutex<Vec<KeyValueHash>>,
}

impl Hashes {
    /// The hash that the compaction to `revision` has left.
    pub fn get(&self, revision: i64) -> Option<KeyValueHash> {
        let kept = self.kept.lock();
        kept.iter().find(|hash| hash.revision == revision).copied()
    }

    /// All of them, by revision.
    pub fn all(&self) -> Vec<KeyValueHash> {
        self.kept.lock().clone()
    }

    pub(super) fn store(&self, hash: KeyValueHash) {
        let mut kept = self.kept.lock();
        kept.push(hash);
        kept.sort_by_key(|hash| hash.revision);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revisions_are_kept() {
        let hashes = Hashes::default();
        for revision in [12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
            hashes.store(KeyValueHash {
                hash: 7,
                compact_revision: -1,
                revision,
            });
        }
        let kept = (1..=13).filter(|revision| hashes.get(*revision).is_some());
        let kept: Vec<i64> = kept.collect();
        assert_eq!(kept, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let all = hashes.all().into_iter();
        assert_eq!(all.map(|hash| hash.revision).collect::<Vec<_>>(), kept);
    }
}
