//! Faults that a test arms, and the verdict for each operation.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a program asks of the disk. All but [`OpKind::Read`] are counted and recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// `read_at`.
    Read,
    /// `create`, or the creation of a lock file.
    Create,
    /// One directory of `create_dir`.
    CreateDir,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `write_at`.
    Write,
    /// `set_len`.
    SetLen,
    /// `allocate`.
    Allocate,
    /// `sync_data` or `sync_all`.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// Damage done by the test itself: `flip_bit`, `corrupt`, `overwrite`. Never fails.
    Damage,
}

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, without effect. A sync drops the dirty data of the file, as Linux does: programs go on seeing it, no later sync
    /// writes it.
    Io,
    /// ENOSPC, without effect.
    NoSpace,
    /// A write stores only its first so many bytes, then EIO. Any other operation: as [`Fault::Io`].
    Short(usize),
    /// A write or a file's sync reports success and does nothing. Any other operation is carried out.
    Lost,
    /// A write goes to this offset instead of the one asked for. Any other operation is carried out.
    Misdirected(u64),
}

/// Decides about an operation from path and kind.
type Predicate = Arc<dyn Fn(&Path, OpKind) -> bool + Send + Sync>;

/// What is armed on one disk.
pub(super) struct Faults {
    by_number: BTreeMap<u64, Fault>,
    by_predicate: Vec<(Predicate, Fault)>,
    /// Out of 2^32 operations so many fail with EIO.
    rate: u32,
    rng: ChaCha8Rng,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("by_number", &self.by_number)
            .field("by_predicate", &self.by_predicate.len())
            .field("rate", &self.rate)
            .finish()
    }
}

impl Faults {
    pub(super) fn new(seed: u64) -> Faults {
        Faults {
            by_number: BTreeMap::new(),
            by_predicate: Vec::new(),
            rate: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub(super) fn arm_number(&mut self, number: u64, fault: Fault) {
        self.by_number.insert(number, fault);
    }

    pub(super) fn arm_predicate(&mut self, predicate: Predicate, fault: Fault) {
        self.by_predicate.push((predicate, fault));
    }

    pub(super) fn set_rate(&mut self, rate: f64) {
        // A float to integer cast saturates, so any rate gives a sensible number.
        self.rate = (rate.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
    }

    /// Whether anything here looks at paths.
    pub(super) fn need_paths(&self) -> bool {
        !self.by_predicate.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.by_number.clear();
        self.by_predicate.clear();
        self.rate = 0;
    }

    /// The fault that this operation meets. `number` is its number, none for reads.
    pub(super) fn meet(&mut self, number: Option<u64>, path: &Path, kind: OpKind) -> Option<Fault> {
        if let Some(fault) = number.and_then(|number| self.by_number.remove(&number)) {
            return Some(fault);
        }
        for (predicate, fault) in &self.by_predicate {
            if predicate(path, kind) {
                return Some(*fault);
            }
        }
        // Drawn even if nothing can come of it only when a rate is set: arming one later changes no earlier draw.
        let fails = self.rate > 0 && self.rng.random::<u32>() < self.rate;
        fails.then_some(Fault::Io)
    }
}

/// EIO.
pub(super) fn eio() -> io::Error {
    rustix::io::Errno::IO.into()
}

/// ENOSPC.
pub(super) fn enospc() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}
