//! Pins: revisions that somebody is still reading in pieces.
//!
//! Rows are immutable, so a long reader holds no page-file transaction; it only asks compaction not
//! to delete the rows under it. Compaction deletes nothing that a pin below its revision may need
//! until the pin is gone or its patience ends; after that the reader finds rows missing, sees that
//! its revision is compacted, and ends with the compacted error.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The registry: revision -> how many readers. Shared by readers and the compaction.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    // A mutex, held for a map update only; never together with another lock.
    held: Arc<Mutex<BTreeMap<i64, usize>>>,
}

impl Pins {
    /// Pins `revision` until the guard is dropped.
    pub fn pin(&self, revision: i64) -> Pin {
        *self.held.lock().entry(revision).or_insert(0) += 1;
        Pin {
            pins: self.clone(),
            revision,
        }
    }

    /// The lowest pinned revision.
    pub fn oldest(&self) -> Option<i64> {
        self.held
            .lock()
            .first_key_value()
            .map(|(revision, _)| *revision)
    }
}

/// Keeps a revision pinned; dropping it releases the pin.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    revision: i64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held.lock();
        if let Some(count) = held.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_follows_the_guards() {
        let pins = Pins::default();
        assert_eq!(pins.oldest(), None);
        let a = pins.pin(5);
        let b = pins.pin(3);
        let c = pins.pin(3);
        assert_eq!(pins.oldest(), Some(3));
        drop(b);
        assert_eq!(pins.oldest(), Some(3));
        drop(c);
        assert_eq!(pins.oldest(), Some(5));
        drop(a);
        assert_eq!(pins.oldest(), None);
    }
}
