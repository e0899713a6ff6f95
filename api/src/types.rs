//! Identifiers and positions, each a type of its own so that two integers cannot be swapped.
//!
//! Raw integers appear only in [`crate::pb`] and in codecs.

use std::fmt;

/// The position of one change in the store: `main` counts keyspace-changing requests (what clients
/// call the revision), `sub` the changes inside one request, in execution order.
///
/// A fresh store is at main revision 1; the first write gets 2. Revisions are ordered by `main`,
/// then `sub`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision {
    /// The store revision of the request that made the change.
    pub main: i64,
    /// The index of the change inside that request, from 0.
    pub sub: i64,
}

impl Revision {
    /// A position from its parts.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the raw number.
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number, for codecs and the wire.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

newtype!(
    /// Identifies a member for ever; printed as lower-case hex without leading zeros.
    MemberId(u64),
    "{:x}"
);
newtype!(
    /// Identifies a cluster; printed as lower-case hex without leading zeros.
    ClusterId(u64),
    "{:x}"
);
newtype!(
    /// Identifies a lease; 0 means "no lease"; printed as 16 hex digits.
    LeaseId(i64),
    "{:016x}"
);
newtype!(
    /// Identifies a request from its proposal to its result, unique over restarts.
    RequestId(u64),
    "{:x}"
);
newtype!(
    /// A position in the raft log; the first possible entry has index 1.
    RaftIndex(u64),
    "{}"
);
newtype!(
    /// A raft term; 0 before the first election.
    Term(u64),
    "{}"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_etcds() {
        assert_eq!(
            MemberId::new(0x8e9e_05c5_2164_694d).to_string(),
            "8e9e05c52164694d"
        );
        assert_eq!(LeaseId::new(0x2a).to_string(), "000000000000002a");
        assert_eq!(LeaseId::new(-1).to_string(), "ffffffffffffffff");
        assert_eq!(Revision::new(7, 1).to_string(), "7.1");
    }

    #[test]
    fn revisions_order_by_main_then_sub() {
        assert!(Revision::new(2, 9) < Revision::new(3, 0));
        assert!(Revision::new(3, 0) < Revision::new(3, 1));
    }
}
