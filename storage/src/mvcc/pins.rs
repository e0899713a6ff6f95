//! Pins: revisions that somebody is still reading in pieces.
//!
//! Rows are immutable, so a long reader holds no page-file transaction; it only asks compaction not
//! to delete the rows under it. Compaction deletes nothing that a pin below its revision may need
//! until the pin is gone or its patience ends; after that the reader finds rows missing, sees that
//! its revision is compacted, and ends with the compacted error. A reader that does not know which
//! rows to expect asks its pin whether it still [holds](Pin::holds).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The registry: revision -> how many readers. Shared by readers and the compaction.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    // A mutex, held for a map update only; never together with another lock.
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    readers: BTreeMap<i64, usize>,
    /// Those of them that are given more time.
    long: BTreeMap<i64, usize>,
    /// The last compaction that began to remove rows.
    removing: i64,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            readers: BTreeMap::new(),
            long: BTreeMap::new(),
            removing: i64::MIN,
        }
    }
}

impl Pins {
    /// Pins `revision` until the guard is dropped.
    pub fn pin(&self, revision: i64) -> Pin {
        *self.held.lock().readers.entry(revision).or_insert(0) += 1;
        Pin {
            pins: self.clone(),
            revision,
            long: false,
        }
    }

    /// As [`Pins::pin`], for a reader that gets on but has much to read: compactions wait longer.
    pub fn pin_long(&self, revision: i64) -> Pin {
        let mut held = self.held.lock();
        *held.readers.entry(revision).or_insert(0) += 1;
        *held.long.entry(revision).or_insert(0) += 1;
        drop(held);
        Pin {
            pins: self.clone(),
            revision,
            long: true,
        }
    }

    /// The lowest pinned revision.
    pub fn oldest(&self) -> Option<i64> {
        self.held
            .lock()
            .readers
            .first_key_value()
            .map(|(revision, _)| *revision)
    }

    /// The lowest revision that is [pinned for long](Pins::pin_long).
    pub fn oldest_long(&self) -> Option<i64> {
        let held = self.held.lock();
        held.long.first_key_value().map(|(revision, _)| *revision)
    }

    /// A compaction to `target` begins to remove rows: pins below it hold no longer.
    pub(crate) fn begin_removal(&self, target: i64) {
        let mut held = self.held.lock();
        held.removing = held.removing.max(target);
    }
}

/// Keeps a revision pinned; dropping it releases the pin.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    revision: i64,
    long: bool,
}

impl Pin {
    /// Whether compactions wait longer for it.
    pub fn is_long(&self) -> bool {
        self.long
    }

    /// Whether everything that was read until now was there: no compaction above the pinned
    /// revision has begun to remove rows.
    pub fn holds(&self) -> bool {
        self.pins.held.lock().removing <= self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held.lock();
        let Held { readers, long, .. } = &mut *held;
        release(readers, self.revision);
        if self.long {
            release(long, self.revision);
        }
    }
}

fn release(readers: &mut BTreeMap<i64, usize>, revision: i64) {
    if let Some(count) = readers.get_mut(&revision) {
        *count -= 1;
        if *count == 0 {
            readers.remove(&revision);
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

    #[test]
    fn long_pins_are_pins() {
        let pins = Pins::default();
        let (short, long) = (pins.pin(3), pins.pin_long(5));
        assert_eq!((pins.oldest(), pins.oldest_long()), (Some(3), Some(5)));
        assert!(long.is_long() && !short.is_long());
        drop(short);
        assert_eq!(pins.oldest(), Some(5));
        drop(long);
        assert_eq!((pins.oldest(), pins.oldest_long()), (None, None));
    }

    #[test]
    fn a_pin_holds_until_rows_above_it_are_removed() {
        let pins = Pins::default();
        let (old, new) = (pins.pin(-1), pins.pin(5));
        assert!(old.holds() && new.holds());
        pins.begin_removal(5);
        assert!(!old.holds() && new.holds());
        pins.begin_removal(6);
        assert!(!new.holds() && !pins.pin(5).holds() && pins.pin(6).holds());
    }
}
