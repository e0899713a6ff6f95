//! Request ids: unique over restarts and members, so that a result finds its waiter.

use std::sync::atomic::{AtomicU64, Ordering};

use ferrite_api::types::{MemberId, RequestId};

/// Hands out request ids: the low 16 bits of the member id, then 40 bits of milliseconds at start,
/// then a counter of 8 bits that carries into the time (etcd's layout). A member would have to
/// answer more than 256 requests a millisecond from start to restart to repeat one.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    /// Ids of `member`, started `unix_ms` milliseconds after the epoch.
    pub fn new(member: MemberId, unix_ms: u64) -> Self {
        let prefix = member.get() << 48;
        let suffix = (unix_ms & ((1 << 40) - 1)) << 8;
        Self {
            prefix,
            suffix: AtomicU64::new(suffix),
        }
    }

    /// The next id; never 0.
    pub fn next(&self) -> RequestId {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        RequestId::new(self.prefix | (suffix & ((1 << 48) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_member_and_grow() {
        let ids = RequestIds::new(MemberId::new(0x1234_5678), 1_700_000_000_000);
        let (a, b) = (ids.next(), ids.next());
        assert_eq!(a.get() >> 48, 0x5678);
        assert_eq!(b.get(), a.get() + 1);
        let later = RequestIds::new(MemberId::new(0x1234_5678), 1_700_000_000_001);
        assert!(later.next().get() > b.get());
    }
}
