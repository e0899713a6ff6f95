//! Short stand-ins for values and for lists of pairs.

use std::hash::Hasher;

use super::Pair;

/// A 64-bit FNV-1a hash: the same on every machine and in every run.
pub fn hash_value(bytes: &[u8]) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(bytes);
    hasher.finish()
}

/// A digest of pairs in key order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many pairs.
    pub pairs: u64,
    hash: u64,
}

impl Digest {
    /// Adds the next pair.
    pub fn add(&mut self, key: &[u8], pair: &Pair) {
        let mut hasher = Fnv::default();
        hasher.write_u64(self.hash);
        hasher.write(key);
        for number in [pair.created, pair.modified, pair.version, pair.lease] {
            hasher.write_i64(number);
        }
        hasher.write_u64(pair.value);
        self.hash = hasher.finish();
        self.pairs += 1;
    }
}

pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
