//! Which keys and values a load uses.
//!
//! Keys look like a Kubernetes registry and sort like their numbers: `/registry/bench/00000123`.
//! A run writes them in a seeded pseudo-random order that visits **every** number once before any
//! number comes again, so `n` writes to an `n`-key space make exactly `n` different keys. (etcd's
//! own benchmark overwrites one single key unless told otherwise, which flatters every server.)

use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const PREFIX: &[u8] = b"/registry/bench/";
const DIGITS: usize = 8;

/// Length of a key when none is asked for: the prefix and eight digits.
pub const DEFAULT_KEY_SIZE: usize = PREFIX.len() + DIGITS;
/// The largest key space: all numbers of eight digits.
pub const MAX_KEYS: u64 = 100_000_000;

/// A dense space of `count` keys of equal length.
#[derive(Clone, Debug)]
pub struct KeySpace {
    prefix: Bytes,
    count: u64,
}

impl KeySpace {
    /// `count` keys of `key_size` bytes each. Longer keys get a longer prefix, shorter ones lose
    /// the front of it.
    ///
    /// # Errors
    /// A count of zero or above [`MAX_KEYS`], or a key too short for its digits and one byte more.
    pub fn new(count: u64, key_size: usize) -> anyhow::Result<KeySpace> {
        anyhow::ensure!(
            (1..=MAX_KEYS).contains(&count),
            "the key space must hold 1 to {MAX_KEYS} keys, not {count}"
        );
        anyhow::ensure!(
            key_size > DIGITS,
            "a key takes at least {} bytes, not {key_size}",
            DIGITS + 1
        );
        let length = key_size - DIGITS;
        let mut prefix = BytesMut::with_capacity(length);
        if length < PREFIX.len() {
            prefix.put_slice(&PREFIX[PREFIX.len() - length..]);
        } else {
            prefix.put_slice(PREFIX);
            prefix.put_bytes(b'k', length - PREFIX.len());
        }
        Ok(KeySpace {
            prefix: prefix.freeze(),
            count,
        })
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The key with this number, which must be below [`count`](Self::count) to be in the space.
    pub fn key(&self, number: u64) -> Bytes {
        let mut key = BytesMut::with_capacity(self.prefix.len() + DIGITS);
        key.put_slice(&self.prefix);
        let mut divisor = 10u64.pow(DIGITS as u32 - 1);
        while divisor > 0 {
            key.put_u8(b'0' + (number / divisor % 10) as u8);
            divisor /= 10;
        }
        key.freeze()
    }

    /// The exclusive end of the range that holds the whole space: greater than every key in it.
    pub fn end(&self) -> Bytes {
        let mut end = BytesMut::from(&self.prefix[..]);
        end.put_u8(b':'); // follows '9'
        end.freeze()
    }
}

/// A seeded order over `0..count` that visits every number exactly once.
///
/// A four-round Feistel network over the next even number of bits, walked until it lands inside
/// the space (at most four steps on average): no table, so a large space costs no memory.
#[derive(Clone, Debug)]
pub struct Order {
    count: u64,
    half_bits: u32,
    round_keys: [u64; 4],
}

impl Order {
    /// An order over `0..count`. The same seed gives the same order.
    pub fn new(count: u64, seed: u64) -> Order {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let mut rng = SmallRng::seed_from_u64(seed);
        Order {
            count,
            half_bits: bits.div_ceil(2).max(1),
            round_keys: [(); 4].map(|()| rng.random()),
        }
    }

    /// The number at this place. Places at or beyond the count start over.
    pub fn number(&self, place: u64) -> u64 {
        let mut value = place % self.count;
        loop {
            value = self.permute(value);
            if value < self.count {
                return value;
            }
        }
    }

    fn permute(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.round_keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Values of one size: slices of a random buffer, so that they neither compress nor repeat soon
/// and taking one copies nothing.
#[derive(Clone, Debug)]
pub struct Values {
    pool: Bytes,
    size: usize,
}

impl Values {
    const POOL_BYTES: usize = 64 << 10;

    /// Values of `size` bytes.
    pub fn new(size: usize, seed: u64) -> Values {
        let mut pool = vec![0; Self::POOL_BYTES + size];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut pool);
        Values {
            pool: pool.into(),
            size,
        }
    }

    /// One of the values.
    pub fn pick(&self, rng: &mut SmallRng) -> Bytes {
        let start = rng.random_range(0..Self::POOL_BYTES);
        self.pool.slice(start..start + self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_size_asked_for_and_sort_like_their_numbers() {
        for size in [9, 16, DEFAULT_KEY_SIZE, 25, 64] {
            let space = KeySpace::new(1_000_000, size).unwrap();
            let keys: Vec<Bytes> = [0, 1, 9, 10, 123, 999_999].map(|n| space.key(n)).into();
            assert!(keys.iter().all(|key| key.len() == size), "{keys:?}");
            assert!(keys.is_sorted());
            assert!(*keys.last().unwrap() < space.end());
        }
        let space = KeySpace::new(1_000, DEFAULT_KEY_SIZE).unwrap();
        assert_eq!(&space.key(123)[..], b"/registry/bench/00000123");
    }

    #[test]
    fn impossible_key_spaces_are_refused() {
        assert!(KeySpace::new(0, 24).is_err());
        assert!(KeySpace::new(MAX_KEYS + 1, 24).is_err());
        assert!(KeySpace::new(10, 8).is_err());
    }

    #[test]
    fn an_order_visits_every_number_once_and_then_starts_over() {
        for count in [1, 2, 3, 4, 5, 100, 1_000, 4_097] {
            let order = Order::new(count, 7);
            let mut numbers: Vec<u64> = (0..count).map(|place| order.number(place)).collect();
            assert_eq!(order.number(count), numbers[0]);
            numbers.sort_unstable();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "count {count}");
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        let numbers = |seed| {
            (0..50)
                .map(|p| Order::new(1_000, seed).number(p))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert_ne!(numbers(1), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn values_have_the_size_asked_for() {
        let mut rng = SmallRng::seed_from_u64(1);
        for size in [0, 1, 256, 100_000] {
            assert_eq!(Values::new(size, 3).pick(&mut rng).len(), size);
        }
    }
}
